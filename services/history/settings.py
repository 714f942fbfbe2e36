"""What an operator may set about history."""

from __future__ import annotations

from pydantic import Field

from services.runtime.settings import PlexusSettings


class HistorySettings(PlexusSettings):
    """Summaries of sessions."""

    history_consolidate_tokens: int = Field(
        8_000,
        ge=0,
        le=10_000_000,
        description="After how many tokens, reckoned at four bytes each, the older messages of a "
        "session are summarised without being asked; 0 is never.",
    )
