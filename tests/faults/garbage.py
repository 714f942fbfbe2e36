"""What a hostile or broken client does to a connection, over HTTP/1 and HTTP/2."""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from tests.faults import frames
from tests.faults.frames import frame, headers

Steps = AsyncIterator[bytes]
_DRIP_SECONDS = 0.2
_KEPT = 64 * 1024
_NOTHING: tuple[bytes, ...] = ()
_NAMELESS = [(":method", "GET"), (":scheme", "http"), (":authority", "x")]


@dataclass(frozen=True)
class Attack:
    """Something done to a connection.

    Attributes:
        closes: Whether the server must end the connection; what is odd and allowed may stay.
        ends: The same for stream 1 of a connection that others may go on to use.
        steps: What is sent, given a path and a credential that are good, and a measure of how much.
    """

    name: str
    closes: bool
    steps: Callable[[Target], Steps]
    ends: bool = False


@dataclass(frozen=True)
class Target:
    """What an attack may need: a good path and credential, chance, and how much of everything."""

    path: str
    token: str
    chance: random.Random
    much: int


@dataclass(frozen=True)
class End:
    """How a connection ended: after how many seconds, None where it did not.

    Attributes:
        stream: Whether its stream 1 ended, by a whole reply or a reset.
    """

    attack: Attack
    seconds: float | None
    received: int
    stream: bool = False

    @property
    def unbounded(self) -> bool:
        """Whether the server bore what it must not bear for ever."""
        closed = self.seconds is not None
        return (self.attack.closes and not closed) or (
            self.attack.ends and not closed and not self.stream
        )


async def carry_out(attack: Attack, port: int, target: Target, limit: float) -> End:
    """Do it, and see how long the server bears it."""
    loop = asyncio.get_running_loop()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = loop.time()
    received, kept = 0, b""
    sending = asyncio.create_task(_send(attack, writer, target))
    try:
        async with asyncio.timeout(limit):
            while data := await reader.read(65536):
                received += len(data)
                kept += data[: _KEPT - len(kept)]
    except ConnectionError:
        pass
    except TimeoutError:
        return End(attack, None, received, frames.ended(kept))
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        writer.transport.abort()
    return End(attack, loop.time() - began, received)


async def _send(attack: Attack, writer: asyncio.StreamWriter, target: Target) -> None:
    async for data in attack.steps(target):
        writer.write(data)
        await writer.drain()


def _bytes(data: bytes) -> Callable[[Target], Steps]:
    async def steps(target: Target) -> Steps:
        yield data

    return steps


def _http1(text: str) -> Callable[[Target], Steps]:
    return _bytes(text.encode("latin-1"))


def _http2(*sent: bytes) -> Callable[[Target], Steps]:
    return _bytes(frames.PREFACE + frame(frames.SETTINGS) + b"".join(sent))


async def _noise(target: Target) -> Steps:
    yield target.chance.randbytes(4000)


async def _nothing(target: Target) -> Steps:
    for data in _NOTHING:
        yield data


async def _half_a_head(target: Target) -> Steps:
    yield b"GET / HTTP/1.1\r\nhost: x\r\nx-half: "


async def _slow_head(target: Target) -> Steps:
    yield b"GET / HTTP/1.1\r\nhost: x\r\n"
    while True:
        yield b"x-more: x\r\n"
        await asyncio.sleep(_DRIP_SECONDS)


async def _slow_body(target: Target) -> Steps:
    yield _post(target, 1_000_000)
    while True:
        yield b" "
        await asyncio.sleep(_DRIP_SECONDS)


async def _no_body(target: Target) -> Steps:
    yield _post(target, 1000)


async def _slow_chunks(target: Target) -> Steps:
    yield _post(target, None)
    while True:
        yield b"1\r\n \r\n"
        await asyncio.sleep(_DRIP_SECONDS)


async def _half_a_preface(target: Target) -> Steps:
    yield frames.PREFACE[:10]


async def _half_a_frame(target: Target) -> Steps:
    yield frames.PREFACE + frame(frames.SETTINGS) + _head(target, 1)[:20]


async def _slow_http2_body(target: Target) -> Steps:
    yield frames.PREFACE + frame(frames.SETTINGS) + _head(target, 1, verb="POST", end=False)
    while True:
        yield frame(frames.DATA, 0, 1, b" ")
        await asyncio.sleep(_DRIP_SECONDS)


async def _http2_preface(target: Target) -> Steps:
    yield frames.PREFACE + frame(frames.SETTINGS)


async def _slow_http2_head(target: Target) -> Steps:
    block = headers(frames.get(target.path))
    yield frames.PREFACE + frame(frames.SETTINGS) + frame(frames.HEADERS, 1, 1, block)
    while True:
        yield frame(frames.CONTINUATION, 0, 1, headers([("x-more", "y")]))
        await asyncio.sleep(_DRIP_SECONDS)


async def _headers_without_end(target: Target) -> Steps:
    block = headers(frames.get(target.path))
    yield frames.PREFACE + frame(frames.SETTINGS) + frame(frames.HEADERS, 0, 1, block)
    while True:
        yield frame(frames.CONTINUATION, 0, 1, headers([("x-more", "y" * 100)])) * 20
        await asyncio.sleep(0)


async def _rapid_reset(target: Target) -> Steps:
    yield frames.PREFACE + frame(frames.SETTINGS)
    for number in range(target.much * 100):
        stream = 2 * number + 1
        yield _head(target, stream) + frames.reset(stream)


async def _many_streams(target: Target) -> Steps:
    """More streams at once than are allowed, none of which is ever finished."""
    yield frames.PREFACE + frame(frames.SETTINGS)
    for number in range(target.much * 10):
        yield _head(target, 2 * number + 1, verb="POST", end=False)


async def _pipelined(target: Target) -> Steps:
    yield f"GET {target.path} HTTP/1.1\r\nhost: x\r\n\r\n".encode() * target.much


def _flood(data: bytes) -> Callable[[Target], Steps]:
    async def steps(target: Target) -> Steps:
        yield frames.PREFACE + frame(frames.SETTINGS)
        for _ in range(target.much):
            yield data * 100

    return steps


async def _data_without_content(target: Target) -> Steps:
    yield frames.PREFACE + frame(frames.SETTINGS) + _head(target, 1, verb="POST", end=False)
    for _ in range(target.much):
        yield frame(frames.DATA, 0, 1) * 100


def _post(target: Target, length: int | None) -> bytes:
    size = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
    return (
        f"POST /v1/agents/process HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {target.token}\r\n"
        f"content-type: application/json\r\n{size}\r\n\r\n"
    ).encode()


def _head(target: Target, stream: int, *, verb: str = "GET", end: bool = True) -> bytes:
    path = target.path if verb == "GET" else "/v1/agents/process"
    pairs = [*frames.get(path, ("authorization", f"Bearer {target.token}"))]
    pairs[0] = (":method", verb)
    flags = frames.END_HEADERS | (frames.END_STREAM if end else 0)
    return frame(frames.HEADERS, flags, stream, headers(pairs))


def _request(pairs: list[tuple[str, str]], stream: int = 1) -> bytes:
    return frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, stream, headers(pairs))


def _setting(number: int, value: int) -> bytes:
    return frame(frames.SETTINGS, 0, 0, struct.pack(">HI", number, value))


_ASK = "GET / HTTP/1.1\r\nhost: x\r\n"
SILENT = Attack("silent", True, _nothing)
# Those that last: each is bounded by a time, and by nothing else.
SLOW = (
    SILENT,
    Attack("half a head", True, _half_a_head),
    Attack("slow head", True, _slow_head),
    Attack("half a preface", True, _half_a_preface),
)
# A stream that lasts is ended; its connection may be used for others.
SLOW_STREAMS = (
    Attack("slow body", True, _slow_body),
    Attack("no body", True, _no_body),
    Attack("slow chunks", True, _slow_chunks),
)
HTTP1 = (
    Attack("noise", True, _noise),
    Attack("TLS", True, _bytes(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500)),
    Attack("SSH", True, _http1("SSH-2.0-x\r\n\r\n")),
    Attack("PROXY", True, _http1("PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n" + _ASK + "\r\n")),
    Attack("no request", True, _http1("GET\r\n\r\n")),
    Attack("version 0.9", True, _http1("GET /\r\n\r\n")),
    Attack("version 9", True, _http1("GET / HTTP/9.9\r\nhost: x\r\n\r\n")),
    Attack("header without colon", True, _http1(_ASK + "nothing\r\n\r\n")),
    Attack("zero in a header", True, _http1(_ASK + "a: b\0c\r\n\r\n")),
    Attack("header folded", False, _http1(_ASK + "a: b\r\n c\r\n\r\n")),
    Attack("space before colon", True, _http1(_ASK + "content-length : 5\r\n\r\nabcde")),
    Attack("huge header", True, _http1(_ASK + "a: " + "b" * 100_000 + "\r\n\r\n")),
    Attack("many headers", True, _http1(_ASK + "a: b\r\n" * 500 + "\r\n")),
    Attack("huge path", True, _http1(f"GET /{'a' * 100_000} HTTP/1.1\r\nhost: x\r\n\r\n")),
    Attack("negative length", True, _http1(_ASK + "content-length: -1\r\n\r\n")),
    Attack("length that is none", True, _http1(_ASK + "content-length: 0x10\r\n\r\n")),
    Attack("two lengths", True, _http1(_ASK + "content-length: 1\r\ncontent-length: 2\r\n\r\nab")),
    Attack(
        "length and chunks",
        True,
        _http1(_ASK + "content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /x"),
    ),
    Attack("unknown coding", True, _http1(_ASK + "transfer-encoding: x, chunked\r\n\r\n0\r\n\r\n")),
    Attack("chunk that is none", True, _http1(_ASK + "transfer-encoding: chunked\r\n\r\nxyz\r\n")),
    Attack(
        "chunk of 16 EiB",
        True,
        _http1(_ASK + "transfer-encoding: chunked\r\n\r\nffffffffffffffff0\r\n"),
    ),
    Attack("upgrade", False, _http1(_ASK + "connection: upgrade\r\nupgrade: websocket\r\n\r\n")),
    Attack(
        "upgrade to HTTP/2",
        False,
        _http1(_ASK + "connection: upgrade, http2-settings\r\nupgrade: h2c\r\n\r\n"),
    ),
    Attack("connect", True, _http1("CONNECT other:25 HTTP/1.1\r\nhost: other:25\r\n\r\n")),
    Attack("no host", True, _http1("GET / HTTP/1.1\r\n\r\n")),
    Attack("pipelined", False, _pipelined),
)
HTTP2 = (
    Attack("noise in HTTP/2", True, _http2(b"\xff" * 5000)),
    Attack("no settings", True, _bytes(frames.PREFACE + frame(frames.PING, content=b"x" * 8))),
    Attack("frame too large", True, _http2(frame(frames.DATA, 0, 1, b"x" * 20_000))),
    Attack("unknown frames", False, _http2(frame(200, 255, 0, b"x" * 100) * 50)),
    Attack("headers of stream 0", True, _http2(_request(frames.get("/"), 0))),
    Attack("even stream", True, _http2(_request(frames.get("/"), 2))),
    Attack("data of no stream", True, _http2(frame(frames.DATA, 0, 5, b"x"))),
    Attack("window of 0", True, _http2(frame(frames.WINDOW, 0, 0, bytes(4)))),
    Attack("window beyond", True, _http2(frame(frames.WINDOW, 0, 0, b"\x7f\xff\xff\xff") * 2)),
    Attack("settings cut", True, _http2(frame(frames.SETTINGS, 0, 0, b"abc"))),
    Attack("settings of a stream", True, _http2(frame(frames.SETTINGS, 0, 1, bytes(6)))),
    Attack("frame size setting", True, _http2(_setting(5, 1))),
    Attack("push setting", True, _http2(_setting(2, 7))),
    Attack("push", True, _http2(frame(frames.PUSH, frames.END_HEADERS, 1, bytes(4)))),
    Attack("ping cut", True, _http2(frame(frames.PING, 0, 0, b"abc"))),
    Attack("reset of no stream", True, _http2(frames.reset(7))),
    Attack("priority of itself", False, _http2(frame(frames.PRIORITY, 0, 1, b"\0\0\0\1\0"))),
    Attack("no HPACK", True, _http2(frame(frames.HEADERS, 5, 1, b"\xff\xff\xff\xff\xff"))),
    Attack("HPACK of no entry", True, _http2(frame(frames.HEADERS, 5, 1, b"\xfe" * 10))),
    Attack(
        "HPACK table beyond", True, _http2(frame(frames.HEADERS, 5, 1, b"\x3f\xff\xff\xff\x7f"))
    ),
    Attack(
        "HPACK bomb",
        True,
        _http2(
            frame(frames.HEADERS, 5, 1, b"\x40\1a\x7f\xf9\x1e" + b"b" * 4000 + b"\xbe" * 12_000)
        ),
    ),
    Attack("header in capitals", False, _http2(_request(frames.get("/", ("X-A", "b"))))),
    Attack("no path", False, _http2(_request(_NAMELESS))),
    Attack("two paths", False, _http2(_request([*frames.get("/"), (":path", "/x")]))),
    Attack("path at the end", False, _http2(_request([*_NAMELESS, ("a", "b"), (":path", "/")]))),
    Attack("connection header", False, _http2(_request(frames.get("/", ("connection", "close"))))),
    Attack("zero in a value", False, _http2(_request(frames.get("/", ("a", "b\0c"))))),
    Attack(
        "stream used twice",
        False,
        _http2(_request(frames.get("/"), 5), _request(frames.get("/"), 1)),
    ),
    Attack("continuation alone", True, _http2(frame(frames.CONTINUATION, 4, 1, b""))),
    Attack("headers without end", True, _headers_without_end),
    Attack("slow body in HTTP/2", False, _slow_http2_body, ends=True),
    Attack("slow head in HTTP/2", False, _slow_http2_head, ends=True),
    Attack("rapid reset", True, _rapid_reset),
    Attack("more streams than allowed", False, _many_streams),
    Attack("settings flood", True, _flood(frame(frames.SETTINGS))),
    Attack("ping flood", True, _flood(frame(frames.PING, content=b"x" * 8))),
    Attack("priority flood", True, _flood(frame(frames.PRIORITY, 0, 1, bytes(5)))),
    Attack("data without content", True, _data_without_content),
    Attack("window flood", True, _flood(frame(frames.WINDOW, 0, 0, b"\0\0\0\1"))),
)
# A connection of HTTP/2 without a whole request is idle, and as such bounded.
IDLE = (
    Attack("HTTP/2 without a request", True, _http2_preface),
    Attack("half a frame", True, _half_a_frame),
)
ALL = (*SLOW, *SLOW_STREAMS, *HTTP1, *HTTP2)
