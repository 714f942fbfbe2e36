"""A proxy that stands between any two that speak over TCP or a Unix socket, and misbehaves.

What it does to connections may be changed at any time, for those that are open too. Bytes keep
their order and are never changed; what is held back is bounded, so that a slow reader slows its
writer.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections import deque
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from types import TracebackType

from services.runtime.topology import Address

_PIECE = 16 * 1024
# What one direction of a connection holds at most, besides the kernel's own buffers.
HELD_BYTES = 256 * 1024
# How fine throttled bytes come: a piece each so many seconds.
_TICK = 0.02
_LINGER_NOT = struct.pack("ii", 1, 0)


class Way(Enum):
    """A direction of bytes."""

    UP = "up"  # from who connected to who listens
    DOWN = "down"


BOTH = frozenset(Way)


class Cut(Enum):
    """How a connection ends."""

    RST = "rst"  # at once, and what was on its way is lost
    FIN = "fin"  # in order, after what was on its way


@dataclass(frozen=True)
class Faults:
    """What is done to bytes.

    Attributes:
        delay: Seconds that every piece takes longer.
        jitter: Up to so many seconds more, by chance; the order stays.
        rate: Bytes a second, for each connection and direction; None: as fast as it goes.
        swallow: Directions in which bytes go nowhere while the connection stays open. One that
            lost bytes so stays dead for good, as after a cable was pulled.
    """

    delay: float = 0.0
    jitter: float = 0.0
    rate: float | None = None
    swallow: frozenset[Way] = frozenset()


@dataclass
class Counts:
    """What went through."""

    accepted: int = 0
    unreachable: int = 0
    cut: int = 0
    passed: dict[Way, int] = field(default_factory=lambda: dict.fromkeys(Way, 0))
    swallowed: dict[Way, int] = field(default_factory=lambda: dict.fromkeys(Way, 0))
    # The most that one direction of a connection ever held.
    held: int = 0


class FaultProxy:
    """Listens at one address and hands on to another."""

    def __init__(
        self, target: Address, listen: Address | None = None, chance: random.Random | None = None
    ) -> None:
        """Prepare a proxy.

        Args:
            target: Where connections go.
            listen: Where they come from; without it a free port of the loopback interface.
            chance: What jitter is taken from.
        """
        self.faults = Faults()
        self.counts = Counts()
        self.chance = chance or random.Random(0)
        self._target = target
        self._listen = listen or Address(host="127.0.0.1", port=0)
        self._links: set[_Link] = set()
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> Address:
        """Where it listens."""
        return self._listen

    @property
    def open(self) -> int:
        """How many connections go through it now."""
        return len(self._links)

    def set(self, **values: object) -> None:
        """Change some of the faults from now on; what is not named is as if it had never been."""
        names = {each.name for each in fields(Faults)}
        assert values.keys() <= names, f"faults are {names}"
        self.faults = replace(Faults(), **values)  # type: ignore[arg-type]

    def heal(self) -> None:
        """No more faults."""
        self.faults = Faults()

    async def accept(self) -> None:
        """Listen, if it does not."""
        if self._server is not None:
            return
        if self._listen.path is not None:
            self._listen.path.unlink(missing_ok=True)
            self._server = await asyncio.start_unix_server(self._serve, self._listen.path)
            return
        self._server = await asyncio.start_server(
            self._serve, self._listen.host, self._listen.port, limit=_PIECE
        )
        if not self._listen.port:
            port = self._server.sockets[0].getsockname()[1]
            self._listen = replace(self._listen, port=port)

    async def refuse(self) -> None:
        """Take no more connections; those that are open stay."""
        if self._server is not None:
            self._server.close()
            self._server = None
            if self._listen.path is not None:
                self._listen.path.unlink(missing_ok=True)
            await asyncio.sleep(0)

    async def cut(self, how: Cut = Cut.RST) -> int:
        """End every open connection; returns how many there were."""
        links = list(self._links)
        for link in links:
            link.end(how)
        self.counts.cut += len(links)
        await asyncio.gather(*(link.ended.wait() for link in links))
        return len(links)

    async def __aenter__(self) -> FaultProxy:
        await self.accept()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.refuse()
        for link in list(self._links):
            link.end(Cut.RST)
            await link.ended.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.counts.accepted += 1
        link = _Link(self, writer)
        self._links.add(link)
        try:
            await link.carry(reader)
        finally:
            self._links.discard(link)
            link.ended.set()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the target."""
        if self._target.path is not None:
            return await asyncio.open_unix_connection(self._target.path, limit=_PIECE)
        return await asyncio.open_connection(self._target.host, self._target.port, limit=_PIECE)


class _Link:
    """One connection through the proxy."""

    def __init__(self, proxy: FaultProxy, client: asyncio.StreamWriter) -> None:
        self.ended = asyncio.Event()
        self._proxy = proxy
        self._writers = [client]
        self._work: asyncio.Task[None] | None = None
        self._dead: set[Way] = set()

    async def carry(self, reader: asyncio.StreamReader) -> None:
        """Hand bytes on until both sides are done, or somebody ends it."""
        try:
            server_reader, server = await self._proxy.connect()
        except OSError:
            self._proxy.counts.unreachable += 1
            _close(self._writers[0], Cut.RST)
            return
        self._writers.append(server)
        self._work = asyncio.create_task(self._both(reader, server, server_reader))
        how = Cut.RST
        try:
            await self._work
            how = Cut.FIN
        except asyncio.CancelledError:
            pass  # cut from here
        except BaseExceptionGroup as errors:
            # Cut by one side: then the other hears of it in the same way.
            if errors.split(ConnectionError)[1] is not None:
                raise
        finally:
            for writer in self._writers:
                _close(writer, how)

    async def _both(
        self,
        reader: asyncio.StreamReader,
        server: asyncio.StreamWriter,
        server_reader: asyncio.StreamReader,
    ) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pump(Way.UP, reader, server))
            group.create_task(self._pump(Way.DOWN, server_reader, self._writers[0]))

    def end(self, how: Cut) -> None:
        """End it from here."""
        if how is Cut.FIN:
            for writer in self._writers:
                _close(writer, how)
        elif self._work is not None:
            self._work.cancel()
        else:
            _close(self._writers[0], how)

    async def _pump(
        self, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        held = _Held()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._take(way, reader, held))
            group.create_task(self._give(way, held, writer))

    async def _take(self, way: Way, reader: asyncio.StreamReader, held: _Held) -> None:
        loop = asyncio.get_running_loop()
        due = 0.0
        while piece := await _read(reader):
            if self._swallows(way):
                self._proxy.counts.swallowed[way] += len(piece)
                continue
            faults = self._proxy.faults
            wait = faults.delay + self._proxy.chance.uniform(0, faults.jitter)
            due = max(due, loop.time() + wait)
            await held.put(due, piece)
            counts = self._proxy.counts
            counts.held = max(counts.held, held.size)
        if self._swallows(way):
            # The end of a dead connection is not heard either.
            await asyncio.Event().wait()
        await held.put(due, b"")

    def _swallows(self, way: Way) -> bool:
        if way in self._proxy.faults.swallow:
            self._dead.add(way)
        return way in self._dead

    async def _give(self, way: Way, held: _Held, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, piece = await held.get()
            await asyncio.sleep(due - loop.time())
            if not piece:
                break
            while piece:
                rate = self._proxy.faults.rate
                size = len(piece) if rate is None else max(1, int(rate * _TICK))
                now, piece = piece[:size], piece[size:]
                if rate is not None:
                    await asyncio.sleep(len(now) / rate)
                writer.write(now)
                await writer.drain()
                self._proxy.counts.passed[way] += len(now)
                held.gave(len(now))
        with contextlib.suppress(OSError):
            writer.write_eof()


class _Held:
    """Pieces on their way, no more bytes of them than the bound."""

    def __init__(self) -> None:
        self.size = 0
        self._pieces: deque[tuple[float, bytes]] = deque()
        self._waiting: list[asyncio.Future[None]] = []

    async def put(self, due: float, piece: bytes) -> None:
        while self.size + len(piece) > HELD_BYTES:
            await self._change()
        self.size += len(piece)
        self._pieces.append((due, piece))
        self._wake()

    async def get(self) -> tuple[float, bytes]:
        while not self._pieces:
            await self._change()
        return self._pieces.popleft()

    def gave(self, size: int) -> None:
        self.size -= size
        self._wake()

    async def _change(self) -> None:
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        await waiting

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.done():
                each.set_result(None)


async def _read(reader: asyncio.StreamReader) -> bytes:
    return await reader.read(_PIECE)


def _close(writer: asyncio.StreamWriter, how: Cut) -> None:
    if how is Cut.RST:
        end = writer.get_extra_info("socket")
        if end is not None and end.family != socket.AF_UNIX:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        writer.transport.abort()
    else:
        writer.close()
