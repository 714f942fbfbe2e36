"""The generic cell rate algorithm: what it grants, and when the rest can be.

ITU-T Recommendation I.371, in the form of virtual scheduling. A key has one number, the theoretical
arrival time (TAT): when it would be wholly free again had it kept to its rate. It may run ahead of
the clock by as much as a burst.

Every time is a whole number of microseconds, so that Python and Lua, which counts in doubles,
come to the same result. The price: a rate of many thousands a second is met to a microsecond of its
interval.
"""

from __future__ import annotations

from dataclasses import dataclass

SECOND = 1_000_000
_MAX_RATE = 1_000_000
_MAX_REFILL_SECONDS = 31_622_400

# Needs `now`; KEYS[1] holds the TAT, ARGV are the increment and the tolerance. What is stored and
# is no number counts as nothing; what lies too far ahead (the clock was set back, the limit was
# raised) counts as the most there can be.
LUA_TAKE = """
local increment, tolerance = tonumber(ARGV[1]), tonumber(ARGV[2])
local tat = tonumber(redis.pcall('GET', KEYS[1]))
if not tat or not (tat >= now) then tat = now end
if tat > now + tolerance then tat = now + tolerance end
local following = tat + increment
local wait = following - tolerance - now
if wait > 0 then return wait end
redis.call('SET', KEYS[1], string.format('%.0f', following),
  'PX', math.ceil((following - now) / 1000))
return 0
"""
# The server's clock is the one that all replicas have in common.
LUA = f"""
local clock = redis.call('TIME')
local now = clock[1] * {SECOND} + clock[2]
{LUA_TAKE}"""


@dataclass(frozen=True, slots=True)
class Terms:
    """What one take asks for, in microseconds.

    Attributes:
        increment: By how much the TAT moves.
        tolerance: How far it may be ahead of the clock.
    """

    increment: int
    tolerance: int


def terms(rate_per_second: float, burst: int, cost: int) -> Terms:
    """The terms of a take.

    Raises:
        ValueError: A number is out of bounds.
    """
    if not 0 < rate_per_second <= _MAX_RATE:
        raise ValueError(f"a rate is above 0 and at most {_MAX_RATE} a second")
    if not 1 <= cost <= burst:
        raise ValueError("a cost is at least 1 and at most the burst")
    if burst > rate_per_second * _MAX_REFILL_SECONDS:
        raise ValueError("a burst must be free again within a year")
    interval = round(SECOND / rate_per_second)
    return Terms(interval * cost, interval * burst)


def take(tat: int | None, now: int, asked: Terms) -> tuple[int, int]:
    """Decide one take.

    Returns:
        The TAT afterwards and 0 where it is granted, else the TAT as it was and the time to wait.
    """
    tat = now if tat is None else min(max(tat, now), now + asked.tolerance)
    following = tat + asked.increment
    wait = following - asked.tolerance - now
    return (tat, wait) if wait > 0 else (following, 0)
