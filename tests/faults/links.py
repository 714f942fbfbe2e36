"""Faults between two that speak, a steady load over them, and how soon all is well again."""

from __future__ import annotations

import asyncio
import statistics
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
from plexus.agents.v1 import agents_service_pb2 as agents
from plexus.agents.v1 import run_pb2
from plexus.identity.v1 import identity_service_pb2 as identity

from services.runtime.status import from_rpc_error
from tests.faults.proxy import BOTH, Cut, FaultProxy
from tests.faults.rpcs import by_name
from tests.faults.suite import Suite, sized
from tests.faults.wired import CALLED, Wired

# How often something new is asked. Well below what the mesh can do: what is lost, faults lost.
PERIOD = sized(0.1, 0.05)
MEGABIT = 125_000.0
_INPUT = "x" * 12_000
_GIVE_UP = sized(8.0, 25.0)
# A run's own bound here, which the contract lets an operator set.
RUN_SECONDS = 5.0
PAIRS = ("client", "gateway", "modules", "database", "redis")
PASSING = ("latency", "slow", "cuts", "away")
HALF_OPEN = "half open"
# For so long all must go well before it is believed to go on.
_STEADY_SECONDS = 2.0
# Who waits longer has not succeeded so far. All that go well take less, on a busy machine too.
_WAITS_SECONDS = 0.5


@dataclass(frozen=True)
class Tried:
    """A call: when it began, how long it took, by which bound, and how it ended."""

    kind: str
    at: float
    seconds: float
    bound: float
    reason: str

    @property
    def ok(self) -> bool:
        """Whether it did what was asked."""
        return not self.reason

    @property
    def over(self) -> float:
        """Seconds past its deadline."""
        return max(0.0, self.seconds - self.bound)


@dataclass
class Outcome:
    """What became of a load while there was a fault, and after it.

    Attributes:
        touched: Connections that were cut and bytes that were lost or late.
    """

    pair: str
    fault: str
    began: float
    healed: float
    touched: int
    tried: list[Tried] = field(default_factory=list)

    @property
    def before(self) -> float:
        """The share of calls that succeeded before."""
        return self._share(0.0, self.began)

    @property
    def during(self) -> float:
        """The share that succeeded among those that began under the fault."""
        return self._share(self.began, self.healed)

    @property
    def slower(self) -> float:
        """How many times as long as before a call took under the fault."""
        return self._p50(self.began, self.healed) / self._p50(0.0, self.began)

    def latest(self, *kinds: str) -> float:
        """The most that a call of these kinds was past its deadline."""
        return max((each.over for each in self.tried if each.kind in kinds), default=0.0)

    def recovered(self, before: float = 1.0, window: float = 1.0) -> float:
        """Seconds from healing until nine tenths of what was succeed, and go on doing so.

        Args:
            before: The share of calls that succeeded before.
            window: How many seconds of calls are looked at together.
        """
        share = 0.9 * before
        last = max((each.at for each in self.tried), default=0.0)
        start = self.healed
        while start + window <= last:
            if self._share(start, start + window) >= share and self._share(start, last) >= share:
                return start - self.healed
            start += 0.1
        return float("inf")

    def _p50(self, start: float, end: float) -> float:
        those = [each.seconds for each in self.tried if each.ok and start <= each.at < end]
        return statistics.median(those) if those else float("nan")

    def _share(self, start: float, end: float) -> float:
        those = [each.ok for each in self.tried if start <= each.at < end]
        return sum(those) / len(those) if those else 0.0

    def __str__(self) -> str:
        p50 = {
            "before": self._p50(0.0, self.began),
            "during": self._p50(self.began, self.healed),
            "after": self._p50(self.healed, float("inf")),
        }
        reasons = Counter(f"{each.kind} {each.reason}" for each in self.tried if not each.ok)
        times = ", ".join(f"p50 {name} {1000 * value:.0f} ms" for name, value in p50.items())
        return (
            f"{self.pair}, {self.fault}: {len(self.tried)} calls, ok {self.before:.0%} before, "
            f"{self.during:.0%} during; back after {self.recovered():.1f} s; past a deadline "
            f"{self.latest('read', 'write', 'agents'):.2f} s, a run past its bound "
            f"{self.latest('run'):.2f} s; {times}; {dict(reasons)}"
        )


class Load:
    """Asks all the time: looks something up, writes something, lets an agent answer."""

    def __init__(self, target: str, token: str) -> None:
        # As a client of ours is told to: one that would wait for ever on a dead connection must
        # ask whether it is one.
        options = [
            ("grpc.keepalive_time_ms", 1000),
            ("grpc.keepalive_timeout_ms", 2000),
            # No ping is sent while another is out, and that one has its own time-out: a minute.
            ("grpc.http2.ping_timeout_ms", 2000),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 500),
            ("grpc.max_reconnect_backoff_ms", 500),
        ]
        self._channel = grpc.aio.insecure_channel(target, options)
        self._metadata = [("authorization", f"Bearer {token}")]
        # Those under way: what each is, and when it began.
        self._calls: dict[asyncio.Task[None], tuple[str, float]] = {}
        self.tried: list[Tried] = []
        self.began = 0.0

    @property
    def now(self) -> float:
        """Seconds since it began."""
        return asyncio.get_running_loop().time() - self.began

    async def run(self) -> None:
        """Ask until cancelled."""
        self.began = asyncio.get_running_loop().time()
        kinds: tuple[tuple[str, float, Callable[[], Awaitable[None]]], ...] = (
            ("read", by_name("GetProfile").deadline, self._read),
            ("write", by_name("UpdateProfile").deadline, self._write),
            ("agents", by_name("ListAgents").deadline, self._agents),
            ("run", RUN_SECONDS, self._process),
        )
        number = 0
        while True:
            kind, bound, ask = kinds[number % len(kinds)]
            call = asyncio.create_task(self._try(kind, bound, ask))
            self._calls[call] = kind, self.now
            call.add_done_callback(self._calls.pop)
            number += 1
            await asyncio.sleep(self.began + number * PERIOD - self.began - self.now)

    async def _try(self, kind: str, bound: float, call: Callable[[], Awaitable[None]]) -> None:
        at, reason = self.now, ""
        try:
            async with asyncio.timeout(_GIVE_UP):
                await call()
        except grpc.aio.AioRpcError as error:
            reason = from_rpc_error(error).reason
        except TimeoutError:
            reason = "HANGS"
        except _Failed as failed:
            reason = str(failed)
        self.tried.append(Tried(kind, at, self.now - at, bound, reason))

    async def _unary(self, path: str, request: bytes) -> None:
        call: Any = self._channel.unary_unary(path)
        # The deadline is the gateway's to keep: only where nothing gets to it is it the caller's.
        await call(request, metadata=self._metadata, timeout=self.patience)

    patience: float | None = None

    async def _read(self) -> None:
        await self._unary("/plexus.identity.v1.IdentityService/GetProfile", b"")

    async def _write(self) -> None:
        request = identity.UpdateProfileRequest(display_name=f"Ada {len(self.tried)}")
        path = "/plexus.identity.v1.IdentityService/UpdateProfile"
        await self._unary(path, request.SerializeToString())

    async def _agents(self) -> None:
        await self._unary("/plexus.agents.v1.AgentsService/ListAgents", b"")

    async def _process(self) -> None:
        call: Any = self._channel.unary_stream(
            "/plexus.agents.v1.AgentsService/Process",
            response_deserializer=run_pb2.RunEvent.FromString,
        )
        request = agents.ProcessRequest(input=_INPUT).SerializeToString()
        last = ""
        # The contract gives a stream ten minutes: whoever has less time says so.
        events = call(request, metadata=self._metadata, timeout=4 * RUN_SECONDS)
        async for event in events:
            last = str(event.WhichOneof("event"))
            if last == "run_failed":
                raise _Failed(f"failed: {event.run_failed.message[:60]}")
        if last != "run_completed":
            raise _Failed(f"ends in {last or 'nothing'}")

    async def go_on(self, healed: float, least: float, most: float) -> None:
        """Until all went well for a while, for at most so many seconds since it was healed."""
        while (since := self.now - healed) < most:
            made = Outcome("", "", 0.0, healed, 0, [*self.tried, *self._waiting()])
            if since >= max(least, made.recovered() + _STEADY_SECONDS):
                return
            await asyncio.sleep(0.1)

    def _waiting(self) -> list[Tried]:
        """Calls under way that take long, as if they had failed."""
        begun = [(kind, at, self.now - at) for kind, at in self._calls.values()]
        return [
            Tried(kind, at, seconds, seconds, "WAITS")
            for kind, at, seconds in begun
            if seconds > _WAITS_SECONDS
        ]

    async def settle(self) -> None:
        """Wait until the last call has ended."""
        await asyncio.gather(*self._calls)

    async def close(self) -> None:
        """Let go of the connection."""
        for call in list(self._calls):
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)
        await self._channel.close()


class _Failed(Exception):
    """A run ended in another way than whole."""


def proxies_of(mesh: Wired, pair: str) -> Sequence[FaultProxy]:
    """The proxies that stand between two."""
    between = {
        "client": [mesh.client],
        "gateway": list(mesh.gateway.values()),
        "modules": [mesh.agents[group] for group in CALLED],
        "database": [mesh.database],
        "redis": [mesh.redis],
    }
    return between[pair]


def _touched(fault: str, proxies: Sequence[FaultProxy]) -> int:
    """How much such a fault has done so far."""
    if fault in ("cuts", "away"):
        return sum(each.counts.cut for each in proxies)
    if fault == HALF_OPEN:
        return sum(sum(each.counts.swallowed.values()) for each in proxies)
    return sum(sum(each.counts.passed.values()) for each in proxies)


async def inflict(fault: str, proxies: Sequence[FaultProxy], seconds: float) -> int:
    """Do it for so long, and heal it; returns how much it touched."""
    loop = asyncio.get_running_loop()
    before = _touched(fault, proxies)
    end = loop.time() + seconds
    values: dict[str, dict[str, object]] = {
        "latency": {"delay": 0.05, "jitter": 0.1},
        "slow": {"rate": MEGABIT},
        HALF_OPEN: {"swallow": BOTH},
    }
    for proxy in proxies:
        proxy.set(**values.get(fault, {}))
        if fault == "away":
            await proxy.refuse()
            await proxy.cut()
    while fault == "cuts" and loop.time() < end:
        for proxy in proxies:
            await proxy.cut(proxy.chance.choice([Cut.RST, Cut.FIN]))
        await asyncio.sleep(proxies[0].chance.uniform(0.1, 0.5))
    await asyncio.sleep(end - loop.time())
    touched = _touched(fault, proxies) - before
    for proxy in proxies:
        proxy.heal()
        await proxy.accept()
    return touched


async def suffer(
    suite: Suite,
    mesh: Wired,
    token: str,
    pair: str,
    fault: str,
    *,
    calm: float,
    seconds: float,
    after: tuple[float, float],
) -> Outcome:
    """A steady load: calm, then under a fault, then healed, for at least and at most so long."""
    load = Load((mesh.far_url if pair == "client" else mesh.url).removeprefix("http://"), token)
    if pair == "client":
        load.patience = RUN_SECONDS
    running = asyncio.create_task(load.run())
    try:
        await asyncio.sleep(calm)
        began = load.now
        touched = await inflict(fault, proxies_of(mesh, pair), seconds)
        healed = load.now
        await load.go_on(healed, *after)
        running.cancel()
        await load.settle()
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await load.close()
        # What died in it must not be the next fault's.
        for proxy in proxies_of(mesh, pair):
            await proxy.cut()
    made = Outcome(pair, fault, began, healed, touched, load.tried)
    for each in load.tried:
        if not each.ok or each.over:
            suite.note(
                each.kind,
                pair=pair,
                fault=fault,
                at=round(each.at - began, 2),
                seconds=round(each.seconds, 2),
                reason=each.reason,
            )
    suite.say(str(made))
    return made
