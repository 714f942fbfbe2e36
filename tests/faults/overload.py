"""More than can be done: a tenant that asks for all of it and more, and others who ask for little.

Whoever makes the noise is a process of its own, `python -m tests.faults.overload`: what it takes of
this one's time would look like slowness of the mesh.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from services.runtime.status import from_rpc_error
from tests.e2e.mesh import ROOT
from tests.faults.suite import sized

_PROFILE = "/plexus.identity.v1.IdentityService/GetProfile"
_TICK = 0.01
_CHANNELS = 4
_MOST_BYTES = 16 * 1024 * 1024
# Shorter than the calls' own in the short form: what hangs need not be waited for.
_DEADLINE = sized(2.0, 10.0)


@dataclass
class Calls:
    """What became of some calls.

    Attributes:
        good: The seconds of those that succeeded.
        refused: The same of those that did not.
        reasons: Why.
        soon: How many succeeded before the time was over in which they were begun.
    """

    good: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    soon: int = 0

    def add(self, other: Calls) -> None:
        """Count another's too."""
        self.good += other.good
        self.refused += other.refused
        self.reasons += other.reasons
        self.soon += other.soon

    @property
    def lost(self) -> int:
        """Calls that neither succeeded nor were refused in so many words."""
        return sum(n for reason, n in self.reasons.items() if reason != "LIMIT_REACHED")


def percentile(seconds: Sequence[float], share: int) -> float:
    """In milliseconds; so many percent are faster."""
    if len(seconds) < 2:
        return float("nan")
    return statistics.quantiles(seconds, n=100, method="inclusive")[share - 1] * 1000


class Tenant:
    """Calls with one token over a few connections."""

    def __init__(self, url: str, token: str) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        target = url.removeprefix("http://")
        self._channels = [grpc.aio.insecure_channel(target, options) for _ in range(_CHANNELS)]
        self._calls: list[Any] = [each.unary_unary(_PROFILE) for each in self._channels]
        self._metadata = [("authorization", f"Bearer {token}")]
        self.made = Calls()
        self._end = 0.0

    async def one(self, number: int = 0) -> None:
        """One call."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        call = self._calls[number % _CHANNELS]
        try:
            await call(b"", metadata=self._metadata, timeout=_DEADLINE)
        except grpc.aio.AioRpcError as error:
            self.made.refused.append(loop.time() - began)
            self.made.reasons[from_rpc_error(error).reason] += 1
        else:
            self.made.good.append(loop.time() - began)
            self.made.soon += loop.time() < self._end

    async def steadily(self, rate: float, seconds: float) -> Calls:
        """So many calls a second, however long each takes."""
        loop = asyncio.get_running_loop()
        self.made = Calls()
        began, begun = loop.time(), 0
        self._end = began + seconds
        tasks: set[asyncio.Task[None]] = set()
        while (now := loop.time() - began) < seconds:
            while begun < now * rate:
                task = asyncio.create_task(self.one(begun))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                begun += 1
            await asyncio.sleep(_TICK)
        await asyncio.gather(*tasks)
        return self.made

    async def greedily(self, callers: int, seconds: float) -> Calls:
        """As many calls as so many callers make, one after the other each."""
        loop = asyncio.get_running_loop()
        self.made = Calls()
        self._end = loop.time() + seconds

        async def caller(number: int) -> None:
            while loop.time() < self._end:
                await self.one(number)

        await asyncio.gather(*map(caller, range(callers)))
        return self.made

    async def close(self) -> None:
        """Let go of the connections."""
        await asyncio.gather(*(each.close() for each in self._channels))


async def begin_noise(
    url: str, token: str, rate: float, seconds: float
) -> asyncio.subprocess.Process:
    """A tenant's calls from another process, which is at it when this returns."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.faults.overload", url, token, str(rate), str(seconds)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        limit=_MOST_BYTES,
    )
    assert process.stdout is not None
    assert await process.stdout.readline()
    return process


async def end_noise(process: asyncio.subprocess.Process) -> Calls:
    """What became of them."""
    out, _ = await process.communicate()
    assert process.returncode == 0
    found = json.loads(out)
    return Calls(**{**found, "reasons": Counter(found["reasons"])})


async def _main(url: str, token: str, rate: float, seconds: float) -> None:
    tenant = Tenant(url, token)
    # A connection is made, and the rest of what is done but once.
    await tenant.one()
    sys.stdout.write("at it\n")
    sys.stdout.flush()
    made = await tenant.steadily(rate, seconds)
    await tenant.close()
    sys.stdout.write(json.dumps(vars(made)))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4])))
