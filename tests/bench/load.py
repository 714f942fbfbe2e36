"""A load generator in a process of its own, too simple to be what limits.

`python -m tests.bench.load` reads a pickled Job and writes a pickled Outcome. Requests are bytes
that were made before; of a reply it looks at no more than tells success from failure.
"""

from __future__ import annotations

import asyncio
import itertools
import pickle
import sys
import time
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import psutil
import uvloop

_ENDING_SECONDS = 5.0


@dataclass
class Job:
    """What to send, where to and for how long.

    Attributes:
        address: A Unix socket's path, or `host:port`.
        requests: For each connection the requests that it sends in turn, each a head and a body.
        streams: Calls under way at one time on each connection; more than one over gRPC alone.
        must: What every good reply holds in its last bytes.
        fresh: Digits in a body in whose place each request has a number that no other has.
        pids: Processes whose CPU time is noted, by a name of the caller's choice.
    """

    protocol: Literal["http", "grpc"]
    address: str
    requests: list[list[tuple[bytes, bytes]]]
    streams: int = 1
    seconds: float = 1.5
    warm: float = 0.3
    must: bytes = b""
    fresh: bytes = b""
    pids: dict[str, list[int]] = field(default_factory=dict)


@dataclass
class Outcome:
    """What came of it; times are seconds, and CPU time is by the names of `Job.pids`."""

    calls: int
    failed: int
    seconds: float
    p50: float
    p99: float
    first: float
    cpu: dict[str, float]

    @property
    def rate(self) -> float:
        """Good replies a second."""
        return self.calls / self.seconds

    def cost(self, name: str) -> float:
        """CPU seconds of a process for each call."""
        return self.cpu[name] / max(1, self.calls)


class Record:
    """What the connections tell."""

    def __init__(self) -> None:
        self.ending = False
        self.under_way = 0
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self.times: list[float] = []
        self.first: list[float] = []
        self.failed = 0


class Http(asyncio.Protocol):
    """One connection of HTTP/1.1, one call after another."""

    def __init__(self, job: Job, requests: list[tuple[bytes, bytes]], record: Record) -> None:
        self._requests = itertools.cycle([head + body for head, body in requests])
        self._job = job
        self._record = record
        self._numbers = itertools.count(time.time_ns())
        self._parts: list[bytes] = []
        self._left = -1  # bytes of the reply to come; -1 before its head, -2 where it is chunked
        self._sent = 0.0
        self._first = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast(asyncio.Transport, transport)
        self._next()

    def _next(self) -> None:
        if self._record.ending:
            return
        self._record.under_way += 1
        data = next(self._requests)
        if self._job.fresh:
            number = str(next(self._numbers)).zfill(len(self._job.fresh)).encode()
            data = data.replace(self._job.fresh, number)
        self._parts.clear()
        self._left, self._first = -1, False
        self._sent = time.perf_counter()
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        self._parts.append(data)
        if self._left == -1 and not self._head():
            return
        if not self._first and b"data:" in data:
            self._first = True
            self._record.first.append(time.perf_counter() - self._sent)
        if self._left == -2:
            if self._tail(16).endswith(b"\r\n0\r\n\r\n"):
                self._done()
        elif sum(map(len, self._parts)) >= self._left:
            self._done()

    def _head(self) -> bool:
        """Learn from the head, once it is there, how long the reply is."""
        data = b"".join(self._parts)
        head, mark, _ = data.partition(b"\r\n\r\n")
        if not mark:
            return False
        self._parts = [data]
        lower = head.lower()
        at = lower.find(b"content-length:")
        self._good = head.startswith(b"HTTP/1.1 200")
        if at < 0:
            self._left = -2
        else:
            self._left = len(head) + 4 + int(lower[at + 15 :].split(b"\r\n", 1)[0])
        return True

    def _tail(self, size: int) -> bytes:
        if len(self._parts[-1]) >= size:
            return self._parts[-1][-size:]
        return b"".join(self._parts)[-size:]

    def _done(self) -> None:
        self._record.under_way -= 1
        good = self._good and (not self._job.must or self._job.must in self._tail(4096))
        if good:
            self._record.times.append(time.perf_counter() - self._sent)
        else:
            self._record.failed += 1
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._record.failed += 1


class Grpc(asyncio.Protocol):
    """One connection of HTTP/2 with some unary calls of gRPC under way on it."""

    def __init__(self, job: Job, requests: list[tuple[bytes, bytes]], record: Record) -> None:
        self._requests = itertools.cycle(requests)
        self._job = job
        self._record = record
        self._numbers = itertools.count(time.time_ns())
        self._streams = itertools.count(1, 2)
        self._sent: dict[int, float] = {}
        self._answered: set[int] = set()
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast(asyncio.Transport, transport)
        window = (2**31 - 1).to_bytes(4)
        self._transport.write(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + frame(4, 0, 0, b"\0\4" + window)
            + frame(8, 0, 0, (2**31 - 1 - 65535).to_bytes(4))
        )
        for _ in range(self._job.streams):
            self._next()

    def _next(self) -> None:
        if self._record.ending:
            return
        self._record.under_way += 1
        head, body = next(self._requests)
        if self._job.fresh:
            number = str(next(self._numbers)).zfill(len(self._job.fresh)).encode()
            body = body.replace(self._job.fresh, number)
        stream = next(self._streams)
        self._sent[stream] = time.perf_counter()
        self._transport.write(frame(1, 4, stream, head) + frame(0, 1, stream, body))

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        data = self._buffer + data
        at, end = 0, len(data)
        while end - at >= 9:
            size = int.from_bytes(data[at : at + 3])
            if end - at < 9 + size:
                break
            stream = int.from_bytes(data[at + 5 : at + 9]) & 0x7FFFFFFF
            self._frame(data[at + 3], data[at + 4], stream, data[at + 9 : at + 9 + size])
            at += 9 + size
        self._buffer = data[at:]

    def _frame(self, kind: int, flags: int, stream: int, data: bytes) -> None:
        if kind == 0 and len(data) > 5:
            self._answered.add(stream)
        elif kind == 4 and not flags & 1:
            self._transport.write(frame(4, 1, 0, b""))
        elif kind == 6 and not flags & 1:
            self._transport.write(frame(6, 1, 0, data))
        if (kind <= 1 and flags & 1) or kind == 3:
            self._done(stream)

    def _done(self, stream: int) -> None:
        self._record.under_way -= 1
        began = self._sent.pop(stream)
        # An error has trailers alone.
        if stream in self._answered:
            self._answered.discard(stream)
            self._record.times.append(time.perf_counter() - began)
        else:
            self._record.failed += 1
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._record.failed += 1


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame of HTTP/2."""
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


async def _run(job: Job) -> Outcome:
    record = Record()
    loop = asyncio.get_running_loop()
    kind: Any = Http if job.protocol == "http" else Grpc
    for requests in job.requests:
        made = lambda each=requests: kind(job, each, record)  # noqa: E731
        if job.address.startswith("/"):
            await loop.create_unix_connection(made, job.address)
        else:
            host, _, port = job.address.rpartition(":")
            await loop.create_connection(made, host, int(port))
    await asyncio.sleep(job.warm)
    record.clear()
    before, began = _cpu(job), time.perf_counter()
    await asyncio.sleep(job.seconds)
    after, seconds = _cpu(job), time.perf_counter() - began
    outcome = _outcome(record, seconds, {name: after[name] - before[name] for name in after})
    # What is under way ends first, or it would be in the way of whoever is next.
    record.ending = True
    until = time.perf_counter() + _ENDING_SECONDS
    while record.under_way and time.perf_counter() < until:
        await asyncio.sleep(0.01)
    return outcome


def _outcome(record: Record, seconds: float, cpu: dict[str, float]) -> Outcome:
    times = sorted(record.times) or [float("nan")]
    first = sorted(record.first) or [float("nan")]
    return Outcome(
        calls=len(record.times),
        failed=record.failed,
        seconds=seconds,
        p50=times[len(times) // 2],
        p99=times[min(len(times) - 1, int(len(times) * 0.99))],
        first=first[len(first) // 2],
        cpu=cpu,
    )


def _cpu(job: Job) -> dict[str, float]:
    own = time.process_time()
    return {name: sum(map(_used, pids)) for name, pids in job.pids.items()} | {"client": own}


def _used(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def main() -> None:
    """Do the job on standard input."""
    job: Job = pickle.loads(sys.stdin.buffer.read())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        outcome = runner.run(_run(job))
    sys.stdout.buffer.write(pickle.dumps(outcome))
    sys.stdout.flush()


if __name__ == "__main__":
    # Under its name as a module, which is what the pickles refer to.
    from tests.bench.load import main as run

    run()
