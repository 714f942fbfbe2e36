"""What an operator may set about the protocols of others."""

from __future__ import annotations

from pydantic import Field

from services.runtime.settings import PlexusSettings


class InteropSettings(PlexusSettings):
    """Responses of models."""

    response_days: float = Field(
        30, gt=0, le=3650, description="How long responses of models are kept."
    )
    max_background: int = Field(
        200,
        ge=1,
        le=100_000,
        description="How many responses of models one process writes in the background at a time.",
    )
    max_background_of_tenant: int = Field(
        20, ge=1, le=100_000, description="How many of them one tenant has under way, in all."
    )
