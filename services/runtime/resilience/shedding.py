"""Refusing what cannot be served well, before it waits: bounds, and a fair share for each tenant.

The bound on short calls falls while the event loop lags and rises again when it does not (see
`lag`). Within the mesh, where a call belongs to work that was accepted already, only a hard bound
of twice the number holds.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from opentelemetry import metrics

from services.runtime import log
from services.runtime.errors import ResourceExhausted
from services.runtime.resilience.lag import AdaptiveLimit, LagProbe

_MESH_FACTOR = 2
# A loop that answers so late takes no new stream from outside either.
_STALLED_SECONDS = 1.0
_REPORT_SECONDS = 5.0
_logger = log.get(__name__)


class Shed(ResourceExhausted):
    """A call that this process refuses because it has enough to do."""


class Pool:
    """The calls of one kind that are under way, by tenant."""

    def __init__(self, name: str, most: int) -> None:
        self.name = name
        self.limit = AdaptiveLimit(most)
        self.used = 0
        self.tenants: dict[str, int] = {}

    def full(self, mesh: bool) -> bool:
        """Whether nobody more is taken."""
        if mesh:
            return self.used >= self.limit.most * _MESH_FACTOR
        return self.used >= self.limit.value

    def unfair(self, tenant: str) -> bool:
        """Whether one call more is more than a tenant's share.

        While half of the places are free nobody is counted. Past that, each tenant has the same
        number of them, and there is always room for one tenant more than there are.
        """
        limit = self.limit.value
        if self.used * 2 <= limit:
            return False
        mine = self.tenants.get(tenant, 0)
        others = len(self.tenants) - (1 if mine else 0)
        return mine + 1 > max(1.0, limit / (others + 2))


class Seat:
    """A call's place in its pool, until it leaves."""

    __slots__ = ("_admission", "_pool", "_tenant")

    def __init__(self, pool: Pool, admission: Admission) -> None:
        self._pool = pool
        self._tenant: str | None = None
        self._admission = admission
        pool.used += 1

    def claim(self, tenant: str) -> None:
        """Count the call for its tenant, now that it is known.

        Raises:
            Shed: The tenant has its share.
        """
        pool = self._pool
        if pool.unfair(tenant):
            raise self._admission.refuse(f"{pool.name} of a tenant")
        pool.tenants[tenant] = pool.tenants.get(tenant, 0) + 1
        self._tenant = tenant

    def leave(self) -> None:
        """Give the place back."""
        pool, tenant = self._pool, self._tenant
        pool.used -= 1
        if tenant is not None:
            left = pool.tenants[tenant] - 1
            if left:
                pool.tenants[tenant] = left
            else:
                del pool.tenants[tenant]


class Admission:
    """Decides of each incoming call whether it is served."""

    def __init__(self, max_calls: int = 1024, max_streams: int = 4096) -> None:
        self.calls = Pool("calls", max_calls)
        self.streams = Pool("streams", max_streams)
        self.lag = LagProbe(self._observe)
        self._unreported = 0
        self._report = 0.0
        meter = metrics.get_meter("plexus")
        self._counter = meter.create_counter(
            "rpc.server.shed", description="Calls refused because there was too much to do."
        )
        meter.create_observable_gauge(
            "rpc.server.lag", [self._lag], unit="s", description="How late the event loop is."
        )
        meter.create_observable_gauge(
            "rpc.server.calls", [self._used], description="Calls under way."
        )

    def enter(self, streaming: bool, mesh: bool) -> Seat:
        """A place for a call of which nothing is known but whether it claims to be the mesh's.

        Who claims that falsely is refused by the check of the assertion, a moment later.

        Raises:
            Shed: There is none.
        """
        pool = self.streams if streaming else self.calls
        if pool.full(mesh):
            raise self.refuse(pool.name)
        if streaming and not mesh and self.lag.seconds > _STALLED_SECONDS:
            raise self.refuse("lag")
        return Seat(pool, self)

    def refuse(self, limit: str) -> Shed:
        """The refusal, counted. Whoever was refused together should not come back together."""
        self._counter.add(1, {"limit": limit})
        self._unreported += 1
        return Shed(
            "This process has too much to do. Try again.",
            metadata={"limit": limit},
            retry_after=random.uniform(1, 4),  # noqa: S311
        )

    def _observe(self, lag: float, now: float) -> None:
        self.calls.limit.observe(lag, self.calls.used)
        if self._unreported and now >= self._report:
            # One line for all of them: a line each would be the work that is to be spared.
            _logger.warning(
                "shedding",
                refused=self._unreported,
                calls=self.calls.used,
                streams=self.streams.used,
                limit=int(self.calls.limit.value),
                lag_ms=round(lag * 1000),
            )
            self._unreported = 0
            self._report = now + _REPORT_SECONDS

    def _lag(self, _: object) -> Iterable[metrics.Observation]:
        return [metrics.Observation(self.lag.seconds)]

    def _used(self, _: object) -> Iterable[metrics.Observation]:
        return [
            metrics.Observation(pool.used, {"kind": pool.name})
            for pool in (self.calls, self.streams)
        ]
