"""What an operator may set about language models."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from services.runtime.settings import PlexusSettings


class LlmSettings(PlexusSettings):
    """Without `PLEXUS_LLM_URL` the built-in offline model is the only one.

    With it, the configured model is called `openai/<PLEXUS_LLM_MODEL>` and is the default; the
    bare name, as the server's own documentation has it, is accepted in requests too.
    """

    # pydantic shows the input beside what is wrong with it, and the input holds the key.
    model_config = SettingsConfigDict(hide_input_in_errors=True)

    llm_url: str = Field(
        "",
        description="The base URL of a server that speaks OpenAI's chat-completions protocol, such "
        "as `https://api.openai.com/v1` or `http://127.0.0.1:11434/v1`; empty: the offline model "
        "alone.",
    )
    llm_key: SecretStr = Field(
        SecretStr(""), description="The key of that server; empty where it needs none."
    )
    llm_model: str = Field(
        "", max_length=190, description="The model's name there; required with `PLEXUS_LLM_URL`."
    )
    llm_context_window: int = Field(
        128_000, ge=256, le=10_000_000, description="Tokens that its request and answer share."
    )
    llm_max_concurrency: int = Field(
        32,
        ge=1,
        le=1000,
        description="Generations under way at that server at one time. As many again wait; the "
        "next are refused.",
    )
    llm_silence_seconds: float = Field(
        120.0,
        gt=0,
        le=3600,
        description="How long that server may say nothing, before the first token or between two, "
        "until it counts as failed.",
    )

    llm_price_input: int = Field(
        0,
        ge=0,
        le=1_000_000_000_000,
        description="What its requests cost, in millionths of a US dollar for a million tokens: "
        "2500000 is $2.50.",
    )
    llm_price_output: int = Field(
        0, ge=0, le=1_000_000_000_000, description="What its answers cost, in the same unit."
    )
    llm_capabilities: str = Field(
        "tools,json",
        description="What it can do besides answering in text, of `tools`, `json`, `vision`, "
        "`embeddings` and `moderation`, with commas between them.",
    )
    llm_providers_file: Path | None = Field(
        None,
        description="A JSON file of more providers that all tenants share; see docs/models.md.",
    )

    @field_validator("llm_url")
    @classmethod
    def _is_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and (parts.scheme not in ("http", "https") or not parts.hostname):
            raise ValueError("PLEXUS_LLM_URL must be empty, or a URL with http:// or https://")
        return value

    @model_validator(mode="after")
    def _names_a_model(self) -> LlmSettings:
        if self.llm_url and not self.llm_model:
            raise ValueError("PLEXUS_LLM_URL is set: PLEXUS_LLM_MODEL must name the model there")
        return self
