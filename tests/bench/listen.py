"""Many streams at once, listened to in a process of its own: how long each is silent.

`python -m tests.bench.listen` reads a pickled Crowd and writes a pickled Heard.
"""

from __future__ import annotations

import asyncio
import pickle
import sys
import time
from dataclasses import dataclass, field
from typing import cast

import psutil
import uvloop

_EVENT = b"data: "
_END = b"[DONE]"


@dataclass
class Crowd:
    """What to listen to: the same request on so many connections, each a little later."""

    address: str
    request: bytes
    streams: int
    spread: float = 1.0
    seconds: float = 60.0
    pids: dict[str, list[int]] = field(default_factory=dict)


@dataclass
class Heard:
    """What was heard; gaps are the seconds between the events of a stream."""

    events: int
    whole: int
    broken: int
    gaps: list[float]
    cpu: dict[str, float]
    held: dict[str, int]

    def gap(self, share: float) -> float:
        """The gap that so large a share of gaps is not above."""
        return self.gaps[min(len(self.gaps) - 1, int(len(self.gaps) * share))]


class Listener(asyncio.Protocol):
    """One stream."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._tail = b""
        self._last = 0.0
        self.events = 0
        self.gaps: list[float] = []
        self.whole = False
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        now = time.perf_counter()
        count = (self._tail + data).count(_EVENT) - self._tail.count(_EVENT)
        if count:
            if self._last:
                # Events that come together had no gap between them.
                self.gaps += [now - self._last, *[0.0] * (count - 1)]
            self._last = now
            self.events += count
        if _END in self._tail + data:
            self.whole = True
            self._finish()
        self._tail = data[-len(_EVENT) - len(_END) :]

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio."""
        self._finish()

    def _finish(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)
            self._transport.close()


async def listen(crowd: Crowd) -> Heard:
    """Listen until every stream has ended."""
    loop = asyncio.get_running_loop()
    host, _, port = crowd.address.rpartition(":")
    listeners: list[Listener] = []
    before = {name: _cpu(pids) for name, pids in crowd.pids.items()}
    for _ in range(crowd.streams):
        _, listener = await loop.create_connection(lambda: Listener(crowd.request), host, int(port))
        listeners.append(listener)
        await asyncio.sleep(crowd.spread / crowd.streams)
    held = {
        name: sum(psutil.Process(each).memory_info().rss for each in pids)
        for name, pids in crowd.pids.items()
    }
    await asyncio.wait([each.ended for each in listeners], timeout=crowd.seconds)
    cpu = {name: _cpu(pids) - before[name] for name, pids in crowd.pids.items()}
    return Heard(
        events=sum(each.events for each in listeners),
        whole=sum(each.whole for each in listeners),
        broken=sum(not each.whole for each in listeners),
        gaps=sorted(gap for each in listeners for gap in each.gaps),
        cpu=cpu,
        held=held,
    )


def _cpu(pids: list[int]) -> float:
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return float(sum(each.user + each.system for each in times))


def main() -> None:
    """See above."""
    crowd: Crowd = pickle.loads(sys.stdin.buffer.read())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        heard = runner.run(listen(crowd))
    sys.stdout.buffer.write(pickle.dumps(heard))


if __name__ == "__main__":
    # Under its name as a module, which is what the pickles refer to.
    from tests.bench.listen import main as run

    run()
