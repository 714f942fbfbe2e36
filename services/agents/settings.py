"""What an operator may set about agents."""

from __future__ import annotations

from pydantic import Field

from services.runtime.settings import PlexusSettings


class AgentsSettings(PlexusSettings):
    """Agents."""

    max_runs: int = Field(
        1000, ge=1, le=100_000, description="How many runs one process carries at a time."
    )
    run_seconds: float = Field(600, gt=0, le=600, description="How long a run may take.")
