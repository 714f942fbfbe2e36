"""The proxy does what it says, or what is found with it means nothing."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.runtime.topology import Address
from tests.faults.proxy import BOTH, HELD_BYTES, Cut, FaultProxy, Way

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Echo:
    """Sends back what it is sent, unless it is told not to read."""

    def __init__(self) -> None:
        self.received = 0
        self.reads = asyncio.Event()
        self.reads.set()
        self.ends: list[str] = []
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        try:
            while True:
                await self.reads.wait()
                data = await reader.read(65536)
                if not data:
                    self.ends.append("fin")
                    break
                self.received += len(data)
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            self.ends.append("rst")
        finally:
            writer.close()


@pytest.fixture(params=["tcp", "unix"])
async def between(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[tuple[FaultProxy, Echo]]:
    echo = Echo()
    listen = None
    if request.param == "unix":
        server = await asyncio.start_unix_server(echo.serve, tmp_path / "echo")
        target, listen = Address(path=tmp_path / "echo"), Address(path=tmp_path / "proxy")
    else:
        server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
        target = Address(host="127.0.0.1", port=server.sockets[0].getsockname()[1])
    async with server, FaultProxy(target, listen, random.Random(1)) as proxy:
        yield proxy, echo
        for writer in echo.writers:
            writer.transport.abort()
        await asyncio.sleep(0.01)


async def connect(proxy: FaultProxy) -> Streams:
    if proxy.address.path is not None:
        return await asyncio.open_unix_connection(proxy.address.path)
    return await asyncio.open_connection(proxy.address.host, proxy.address.port)


async def echoed(streams: Streams, data: bytes) -> float:
    """Send, read the same back; how long that took."""
    reader, writer = streams
    began = time.perf_counter()
    writer.write(data)
    async with asyncio.timeout(10):
        assert await reader.readexactly(len(data)) == data
    return time.perf_counter() - began


async def silent(reader: asyncio.StreamReader, seconds: float = 0.2) -> bool:
    """Whether nothing comes, not even an end."""
    try:
        async with asyncio.timeout(seconds):
            await reader.read(1)
    except TimeoutError:
        return True
    return False


async def test_without_faults_it_is_not_there(between: tuple[FaultProxy, Echo]) -> None:
    proxy, echo = between
    streams = await connect(proxy)
    data = random.Random(1).randbytes(3_000_000)
    await asyncio.gather(echoed(streams, data))
    assert proxy.counts.passed == {Way.UP: len(data), Way.DOWN: len(data)}
    assert (proxy.counts.accepted, proxy.open, echo.received) == (1, 1, len(data))
    streams[1].write_eof()
    assert await streams[0].read() == b""
    assert echo.ends == ["fin"]
    streams[1].close()


async def test_delay_is_added_and_takes_no_bandwidth(between: tuple[FaultProxy, Echo]) -> None:
    proxy, _ = between
    streams = await connect(proxy)
    proxy.set(delay=0.1, jitter=0.02)
    assert 0.2 <= await echoed(streams, b"x") < 1
    # A hundred pieces one after the other would take twenty seconds.
    assert await echoed(streams, bytes(1_600_000)) < 5
    proxy.heal()
    await echoed(streams, b"last of what was delayed")
    assert await echoed(streams, b"x") < 0.2
    streams[1].close()


async def test_jitter_keeps_the_order(between: tuple[FaultProxy, Echo]) -> None:
    proxy, _ = between
    reader, writer = await connect(proxy)
    proxy.set(jitter=0.05)
    sent = b""
    for number in range(40):
        piece = b"%06d" % number
        sent += piece
        writer.write(piece)
        await asyncio.sleep(0.002)
    assert await reader.readexactly(len(sent)) == sent
    writer.close()


async def test_throttle(between: tuple[FaultProxy, Echo]) -> None:
    proxy, _ = between
    streams = await connect(proxy)
    proxy.set(rate=200_000)
    assert 0.4 <= await echoed(streams, bytes(100_000)) < 4
    proxy.heal()
    assert await echoed(streams, bytes(100_000)) < 0.4
    streams[1].close()


@pytest.mark.parametrize("how", Cut)
async def test_cut(between: tuple[FaultProxy, Echo], how: Cut) -> None:
    proxy, echo = between
    streams = [await connect(proxy) for _ in range(3)]
    for each in streams:
        await echoed(each, b"x")
    assert await proxy.cut(how) == 3
    assert proxy.open == 0
    for reader, writer in streams:
        if how is Cut.RST and proxy.address.path is None:
            with pytest.raises(ConnectionResetError):
                await reader.read()
        else:
            assert await reader.read() == b""
        writer.close()
    await asyncio.sleep(0.05)
    # A Unix socket knows no reset.
    assert set(echo.ends) == {how.value if proxy.address.path is None else "fin"}
    assert proxy.counts.cut == 3
    # And those who come again are served.
    again = await connect(proxy)
    await echoed(again, b"x")
    again[1].close()


@pytest.mark.parametrize("swallow", [BOTH, frozenset({Way.UP}), frozenset({Way.DOWN})])
async def test_half_open(between: tuple[FaultProxy, Echo], swallow: frozenset[Way]) -> None:
    proxy, echo = between
    old = await connect(proxy)
    await echoed(old, b"x")
    proxy.set(swallow=swallow)
    new = await connect(proxy)
    for reader, writer in (old, new):
        writer.write(b"lost")
        assert await silent(reader)
    heard = Way.UP not in swallow
    assert echo.received == 1 + (8 if heard else 0)
    lost = Way.DOWN if heard else Way.UP
    assert proxy.counts.swallowed[lost] == 8
    proxy.heal()
    # A connection that lost bytes can only be dead; who comes anew is served.
    old[1].write(b"x")
    assert await silent(old[0])
    fresh = await connect(proxy)
    await echoed(fresh, b"x")
    for _, writer in (old, new, fresh):
        writer.close()


async def test_refuse(between: tuple[FaultProxy, Echo]) -> None:
    proxy, _ = between
    open_before = await connect(proxy)
    await echoed(open_before, b"x")
    await proxy.refuse()
    with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
        await connect(proxy)
    await echoed(open_before, b"y")
    address = proxy.address
    await proxy.accept()
    assert proxy.address == address
    again = await connect(proxy)
    await echoed(again, b"x")
    again[1].close()
    open_before[1].close()


async def test_a_reader_that_does_not_read_stops_its_writer(
    between: tuple[FaultProxy, Echo],
) -> None:
    proxy, echo = between
    echo.reads.clear()
    _, writer = await connect(proxy)
    sent = 0
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            while sent < 200_000_000:
                writer.write(bytes(65536))
                await writer.drain()
                sent += 65536
    assert sent < 50_000_000
    assert 0 < proxy.counts.held <= HELD_BYTES
    writer.transport.abort()


async def test_nobody_behind_it(tmp_path: Path) -> None:
    async with FaultProxy(Address(path=tmp_path / "nobody")) as proxy:
        reader, writer = await connect(proxy)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        assert proxy.counts.unreachable == 1
        writer.close()
