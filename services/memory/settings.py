"""What an operator may set about memory."""

from __future__ import annotations

from pydantic import Field

from services.runtime.settings import PlexusSettings


class MemorySettings(PlexusSettings):
    """What memory does by itself."""

    memory_sweep_seconds: float = Field(
        3600.0,
        gt=0,
        le=31_536_000,
        description="How often a space that keeps versions for a time is swept of older ones.",
    )
