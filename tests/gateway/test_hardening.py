"""What callers may do to the gateway without others noticing: the real Envoy, short bounds."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import socket
import struct
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
import pytest_asyncio
from plexus.ingest.v1 import document_service_pb2 as documents
from plexus.ingest.v1.document_service_pb2_grpc import DocumentServiceStub

from gateway.config import Bounds
from gateway.headers import REST_HEADERS
from gateway.process import GatewayProcess
from gateway.render import render
from tests.gateway.backend import backend_at
from tests.gateway.conftest import Edge, configure
from tests.gateway.test_rest import refused
from tests.gateway.tokens import Keys, write_jwks

pytestmark = pytest.mark.asyncio(loop_scope="session")
SHORT = Bounds(header_seconds=0.5, request_seconds=1, unread_seconds=1)
# A tired machine's grace, far from any bound that is not a test's.
GRACE = 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, RST_STREAM, SETTINGS, GOAWAY = 1, 3, 4, 7


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def hasty(contracts: bytes) -> AsyncIterator[tuple[int, dict[str, str]]]:
    """The port of a gateway with short bounds, and a token for it."""
    run_dir = Path(tempfile.mkdtemp(prefix="gw-"))
    keys, backend = Keys("one"), backend_at(run_dir / "mesh.sock")
    config = configure(run_dir, contracts, bounds=SHORT)
    write_jwks(config.jwks_file, keys)
    process = GatewayProcess(config, contracts)
    await backend.start()
    await process.start()
    try:
        await process.wait_ready(15)
        token = keys.token(lifetime=600)
        yield process.port, {"authorization": f"Bearer {token}"}
    finally:
        await process.stop(0)
        await backend.stop()
        shutil.rmtree(run_dir)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/v1/agents", None, 200),
        ("GET", "/v1/agents/missing", None, 404),
        ("GET", "/v1/agents?bogus=1", None, 400),
        ("POST", "/v1/agents/process", {"txet": 1}, 400),
        ("POST", "/v1/agents/process", {"input": "words"}, 200),
        ("GET", "/v1/agents/busy", None, 429),
        ("GET", "/nope", None, 404),
        ("HEAD", "/v1/agents", None, 405),
        ("GET", "/healthz", None, 200),
    ],
)
async def test_every_reply_has_the_headers(
    edge: Edge, method: str, path: str, body: Any, status: int
) -> None:
    url = edge.url + path
    async with edge.http.request(method, url, json=body, headers=edge.bearer()) as response:
        assert response.status == status
        assert {name: response.headers.getall(name) for name in REST_HEADERS} == {
            name: [value] for name, value in REST_HEADERS.items()
        }
        assert "x-request-id" in response.headers
        assert "server" not in response.headers
        assert "grpc-accept-encoding" not in response.headers
    async with edge.http.request(method, url, json=body) as response:
        assert all(name in response.headers for name in REST_HEADERS)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("HEAD", "/v1/agents", "GET"),
        ("DELETE", "/v1/agents", "GET"),
        ("POST", "/v1/runs/run_1/events", "GET"),
        ("OPTIONS", "/v1/users/register", "POST"),
        ("PATCH", "/v1/users/profile", "GET, PUT"),
    ],
)
async def test_a_path_says_which_verbs_it_has(
    edge: Edge, method: str, path: str, allowed: str
) -> None:
    before = len(edge.backend.seen)
    async with edge.http.request(method, edge.url + path) as response:
        assert response.headers["allow"] == allowed
        if method == "HEAD":
            assert (response.status, await response.read()) == (405, b"")
        else:
            await refused(response, 405, 12, "UNKNOWN_METHOD")
    assert len(edge.backend.seen) == before


async def told(reader: asyncio.StreamReader) -> bytes:
    """All that comes, also before a reset."""
    got = b""
    with contextlib.suppress(ConnectionError):
        while more := await reader.read(65536):
            got += more
    return got


async def bounded(port: int, *parts: bytes, pause: float = 0.2) -> bytes:
    """What comes back when parts are sent slowly, up to the end, which must come soon."""
    async with asyncio.timeout(SHORT.request_seconds + GRACE):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        reading = asyncio.create_task(told(reader))
        with contextlib.suppress(ConnectionError):
            for part in parts:
                if reading.done():
                    break
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(pause)
        try:
            return await reading
        finally:
            writer.close()


START = b"POST /v1/users/register HTTP/1.1\r\nhost: a\r\n"
LONG = b"POST /v1/agents/process HTTP/1.1\r\nhost: a\r\nauthorization: TOKEN\r\n"


@pytest.mark.parametrize(
    ("parts", "answer"),
    [
        ((), b""),
        ((b"G",), b""),
        ((START, *[b"x-%d: y\r\n" % n for n in range(40)]), b"408"),
        ((START, b"content-length: 99\r\n\r\n", *[b" "] * 40), b"408"),
        ((START, b"transfer-encoding: chunked\r\n\r\n", *[b"1\r\n \r\n"] * 40), b"408"),
        # To what may take ten minutes.
        ((LONG, b"content-length: 99\r\n\r\n", *[b" "] * 40), b"408"),
        ((PREFACE,), None),
    ],
    ids=["silent", "one byte", "headers", "body", "chunks", "long", "preface"],
)
async def test_the_slow_are_cut(
    hasty: tuple[int, dict[str, str]], parts: tuple[bytes, ...], answer: bytes | None
) -> None:
    port, headers = hasty
    token = headers["authorization"].encode()
    parts = tuple(part.replace(b"TOKEN", token) for part in parts)
    if answer is None:
        # A connection that may be idle for minutes, and holds nothing meanwhile.
        with pytest.raises(TimeoutError):
            await bounded(port, *parts)
        return
    assert (await bounded(port, *parts))[9:12] == answer


async def test_a_client_that_streams_may_take_as_long_as_its_rpc(
    hasty: tuple[int, dict[str, str]],
) -> None:
    port, headers = hasty

    async def parts() -> AsyncIterator[documents.SendDocumentRequest]:
        for _ in range(5):
            yield documents.SendDocumentRequest(data=b"x")
            await asyncio.sleep(SHORT.request_seconds / 2)

    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = DocumentServiceStub(channel)
        sent = await stub.SendDocument(parts(), metadata=list(headers.items()))
    assert sent.document.size == 5


async def test_who_reads_nothing_is_cut(hasty: tuple[int, dict[str, str]]) -> None:
    port, headers = hasty
    asking = (
        "GET /v1/agents/agt_ok HTTP/1.1\r\nhost: a\r\n"
        f"authorization: {headers['authorization']}\r\n\r\n"
    ).encode()
    loop = asyncio.get_running_loop()
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        deaf.setblocking(False)
        await loop.sock_connect(deaf, ("127.0.0.1", port))
        began = time.monotonic()
        with pytest.raises(ConnectionError):
            # Replies fill the kernel's buffers, then nobody reads what is asked for, then the end.
            while time.monotonic() - began < 3 * GRACE:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await loop.sock_sendall(deaf, asking * 200)
    # Long before the RPC's own deadline, which would end it too.
    assert time.monotonic() - began < SHORT.unread_seconds + GRACE


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame of HTTP/2."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


async def http2(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that speaks HTTP/2."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(PREFACE + frame(SETTINGS, 0, 0))
    return reader, writer


async def serves(port: int, headers: dict[str, str]) -> float:
    """Whether others are served, and in how long."""
    began = time.monotonic()
    url = f"http://127.0.0.1:{port}/v1/agents/agt_ok"
    async with aiohttp.ClientSession() as http, http.get(url, headers=headers) as response:
        assert response.status == 200
    return time.monotonic() - began


async def test_rapid_resets_end_the_connection(hasty: tuple[int, dict[str, str]]) -> None:
    port, headers = hasty
    reader, writer = await http2(port)
    # In HPACK: GET, http, a path that a module answers, and a host.
    path = b"/.well-known/jwks.json"
    asked = b"\x82\x86\x44" + bytes([len(path)]) + path + b"\x41\x01a"
    cancel = struct.pack(">I", 8)
    sent = 0
    with contextlib.suppress(ConnectionError):
        for number in range(5000):
            stream = 2 * number + 1
            writer.write(frame(HEADERS, 5, stream, asked) + frame(RST_STREAM, 0, stream, cancel))
            await writer.drain()
            sent = number
            if number % 50 == 0:
                # So that it is Envoy that counts, and not a buffer that fills up.
                await asyncio.sleep(0.005)
            if reader.at_eof() or writer.is_closing():
                break
    async with asyncio.timeout(GRACE):
        await told(reader)
    writer.close()
    # Half of the number that Envoy is told, all of them resets, is enough for it.
    assert 99 <= sent < 4999
    assert await serves(port, headers) < GRACE


def _noise(chance: random.Random) -> bytes:
    return chance.randbytes(chance.randrange(1, 2000))


def _lines(chance: random.Random) -> bytes:
    verbs = [b"GET", b"G\x00T", b"POST", b"", b"CONNECT", b"PRI", b"TRACE"]
    paths = [b"/", b"*", b"/%00", b"/../../etc", b"http://[", b"/" + b"a" * 70000, b"\xff"]
    lines = [
        b"host: a",
        b"content-length: -1",
        b"content-length: 5\r\ncontent-length: 6",
        b"transfer-encoding: chunked\r\ncontent-length: 3",
        b"transfer-encoding: xchunked",
        b": x",
        b"a\x00b: c",
        b"x" * 40000 + b": y",
        b"upgrade: h2c\r\nconnection: upgrade",
        b"expect: 100-continue",
    ]
    chosen = b"\r\n".join(chance.sample(lines, 3))
    version = chance.choice([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/9", b""])
    first = chance.choice(verbs) + b" " + chance.choice(paths) + b" " + version
    return first + b"\r\n" + chosen + b"\r\n\r\n" + b"zz\r\n"


def _frames(chance: random.Random) -> bytes:
    made = PREFACE + frame(SETTINGS, 0, 0)
    for _ in range(20):
        kind, flags = chance.randrange(12), chance.randrange(256)
        made += frame(kind, flags, chance.randrange(9), chance.randbytes(chance.randrange(40)))
    return made


@pytest.mark.parametrize("make", [_noise, _lines, _frames])
async def test_garbage_harms_nobody(
    hasty: tuple[int, dict[str, str]], make: Callable[[random.Random], bytes]
) -> None:
    port, headers = hasty

    async def spill(seed: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(SHORT.header_seconds + 1):
                writer.write(make(random.Random(seed)))
                got = await told(reader)
                assert b" 500 " not in got[:20]
                assert b"upstream" not in got
        writer.close()

    for start in range(0, 200, 50):
        await asyncio.gather(*(spill(seed) for seed in range(start, start + 50)))
        assert await serves(port, headers) < GRACE


async def test_silent_connections_take_nothing_from_others(
    hasty: tuple[int, dict[str, str]],
) -> None:
    port, headers = hasty
    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(300)]
    assert await serves(port, headers) < GRACE
    async with asyncio.timeout(SHORT.header_seconds + GRACE):
        for reader, writer in silent:
            assert await reader.read() == b""
            writer.close()


async def test_too_much_memory_is_answered_in_steps(contracts: bytes) -> None:
    made = render(configure(Path("/run/gw"), contracts), contracts)
    manager = made["overload_manager"]
    shares = {}
    for each in (*manager["actions"], *manager["loadshed_points"]):
        trigger = each["triggers"][0]
        share = trigger.get("threshold", {}).get("value") or trigger["scaled"]["scaling_threshold"]
        shares[each["name"].rpartition(".")[2]] = share
    assert sorted(shares, key=lambda name: float(shares[name])) == [
        "reduce_timeouts",
        "shrink_heap",
        "http_connection_manager_decode_headers",
        "tcp_listener_accept",
        "stop_accepting_requests",
    ]
    assert made["layered_runtime"]["layers"][0]["static_layer"]
