"""What an operator may set about context."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr

from services.runtime.settings import PlexusSettings


class ContextSettings(PlexusSettings):
    """Context."""

    qdrant_url: str = Field(
        "",
        description="A Qdrant server that keeps the index, which several processes may share; "
        "empty: embedded, in the data directory.",
    )
    qdrant_key: SecretStr = Field(SecretStr(""), description="Its API key.")
    context_embeddings: Literal["auto", "off"] = Field(
        "off",
        description="Whether passages and memories are also found by their meaning: `auto` has a "
        "tenant's model of embeddings read each of them once, which costs what it costs.",
    )
