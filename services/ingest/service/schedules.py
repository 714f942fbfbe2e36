"""When a source is looked at."""

from __future__ import annotations

from datetime import UTC, datetime

from cronsim import CronSim, CronSimError

from services.runtime.clock import SECOND
from services.runtime.errors import InvalidRequest

_FIELDS = 5


def next_time(schedule: str, paused: bool, now: int) -> int | None:
    """When a source is looked at next; None for never.

    Raises:
        InvalidRequest: The schedule is none, or has no time to come.
    """
    if not schedule:
        return None
    try:
        if len(schedule.split()) != _FIELDS:
            raise CronSimError("it has five fields")
        found = next(CronSim(schedule, datetime.fromtimestamp(now // SECOND, UTC)))
    except (CronSimError, StopIteration) as error:
        raise InvalidRequest.field(
            "source.schedule", "must be a cron expression of five fields that has a time to come"
        ) from error
    return None if paused else int(found.timestamp()) * SECOND
