"""What an operator may set about accounts and credentials."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from services.runtime.settings import PlexusSettings

_DAY_SECONDS = 86_400


class IdentitySettings(PlexusSettings):
    """Accounts and credentials."""

    registration: Literal["open", "closed"] = Field(
        "open",
        description="Whether anyone may make an account; when closed, only the very first one.",
    )
    access_token_seconds: int = Field(
        900, ge=1, le=86_400, description="How long an access token is good for."
    )
    refresh_token_days: int = Field(
        30, ge=1, le=365, description="How long a refresh token may lie unused."
    )
    signing_key_days: float = Field(
        30.0, gt=0, le=3650, description="How often the key that signs tokens is replaced."
    )
    signing_key_lead_seconds: float = Field(
        3600.0,
        ge=0.1,
        description="How long a new key is published before it signs; more than the minute that "
        "verifiers keep the keys they know.",
    )
    argon2_memory_kib: int = Field(
        65_536, ge=8, description="Memory that hashing one password takes (argon2id m)."
    )
    argon2_passes: int = Field(3, ge=1, description="Passes over that memory (argon2id t).")
    argon2_lanes: int = Field(4, ge=1, le=64, description="Lanes of that memory (argon2id p).")

    @model_validator(mode="after")
    def _a_key_signs_before_it_is_replaced(self) -> IdentitySettings:
        if self.signing_key_lead_seconds >= self.signing_key_seconds:
            raise ValueError(
                "PLEXUS_SIGNING_KEY_LEAD_SECONDS must be less than PLEXUS_SIGNING_KEY_DAYS"
            )
        return self

    @property
    def signing_key_seconds(self) -> float:
        """How often the signing key is replaced."""
        return self.signing_key_days * _DAY_SECONDS

    @property
    def refresh_token_seconds(self) -> int:
        """How long a refresh token may lie unused."""
        return self.refresh_token_days * _DAY_SECONDS
