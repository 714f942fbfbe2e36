"""Messages of gRPC and frames of gRPC-Web, sound and then spoilt byte by byte."""

from __future__ import annotations

import base64
import gzip
import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from tests.faults.rpcs import Rpc, rpcs
from tests.faults.valid import put, sample, valid
from tests.faults.wire import Raw

_WEB = "application/grpc-web+proto"
_WEB_TEXT = "application/grpc-web-text"
# How long a caller with a frame that may never be whole waits for an answer.
WAITS, WAITS_SECONDS = "500m", 0.5
_KINDS = (_WEB, _WEB_TEXT, "application/grpc-web", "application/grpc-web-text+proto")


@dataclass(frozen=True)
class Bytes:
    """A payload for an RPC over gRPC, or a whole request of gRPC-Web."""

    rpc: Rpc
    what: str
    payload: bytes = b""
    raw: Raw | None = None


class GrpcMutator:
    """Makes payloads by chance."""

    def __init__(self, chance: random.Random, known: dict[str, list[str]]) -> None:
        self._chance = chance
        self._known = known
        self._rpcs = [rpc for rpc in rpcs() if not rpc.internal]

    def cases(self) -> Iterator[Bytes]:
        """Payloads without end, every RPC in turn, half of them framed by hand."""
        while True:
            for rpc in self._rpcs:
                payload, what = self._spoilt(self._sound(rpc))
                yield Bytes(rpc, what, payload)
                payload, what = self._spoilt(self._sound(rpc))
                body, kind, frame = self._framed(payload)
                headers = (("content-type", kind), ("accept", kind), ("grpc-timeout", WAITS))
                yield Bytes(rpc, f"{what}, {frame}", raw=Raw("POST", rpc.path, headers, body))

    def _sound(self, rpc: Rpc) -> bytes:
        message = valid(rpc.request)
        for field in rpc.request.fields:
            if field.type == FieldDescriptor.TYPE_STRING and self._known.get(field.name):
                if self._chance.random() < 0.5:
                    setattr(message, field.name, self._chance.choice(self._known[field.name]))
            elif not field.is_repeated and self._chance.random() < 0.3:
                put(message, field, sample(field))
        return message.SerializeToString()

    def _spoilt(self, data: bytes) -> tuple[bytes, str]:
        chance = self._chance
        times = chance.choice((1, 1, 1, 2, 5))
        what = []
        for _ in range(times):
            name, change = chance.choice(list(_SPOILS.items()))
            data = change(data, chance)
            what.append(name)
        return data, " and ".join(what)

    def _framed(self, payload: bytes) -> tuple[bytes, str, str]:
        chance = self._chance
        name, frame = chance.choice(list(_FRAMES.items()))
        body = frame(payload, chance)
        kind = chance.choice(_KINDS)
        if "text" in kind:
            coded = base64.b64encode(body)
            if chance.random() < 0.2:
                coded = coded[: chance.randrange(len(coded) + 1)] + b"!*\xff"
                name += " in base64 that is none"
            return coded, kind, name
        return body, kind, name


def _at(data: bytes, chance: random.Random) -> int:
    return chance.randrange(len(data) + 1)


def _flip(data: bytes, chance: random.Random) -> bytes:
    if not data:
        return b"\x80"
    at = chance.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :]


def _insert(data: bytes, chance: random.Random) -> bytes:
    at = _at(data, chance)
    return data[:at] + chance.randbytes(chance.randint(1, 8)) + data[at:]


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def _field(number: int, kind: int, content: bytes) -> bytes:
    return _varint(number << 3 | kind) + content


def _text_field(data: bytes, chance: random.Random, content: bytes) -> bytes:
    return data + _field(chance.randint(1, 4), 2, _varint(len(content)) + content)


_TOKENS: tuple[bytes, ...] = (
    b"[]", b"{}", b"[1]", b"[1,2]", b'["a"]', b'["a","b"]', b'[1,"x"]', b'[-1,""]', b"[1e400,0]",
    b'[99999999999999999999,"a"]', b'[1,"\\ud800"]', b'["\\u0000"]', b"[null]", b"[true,1]",
    b"[[[]]]",
)  # fmt: skip

_SPOILS: dict[str, Any] = {
    "sound": lambda data, chance: data,
    "bit": _flip,
    "byte more": _insert,
    "cut": lambda data, chance: data[: _at(data, chance)],
    "twice": lambda data, chance: data + data,
    "reversed": lambda data, chance: data[::-1],
    "noise": lambda data, chance: chance.randbytes(chance.randrange(300)),
    "empty": lambda data, chance: b"",
    "unknown field": lambda data, chance: (
        data + _field(chance.choice((100, 19_000, 2**29 - 1)), 2, _varint(3) + b"abc")
    ),
    "field zero": lambda data, chance: data + b"\x00\x01",
    "group": lambda data, chance: data + b"\x0b" * chance.choice((1, 99, 5000)),
    "groups that end": lambda data, chance: data + b"\x0b" * 99 + b"\x0c" * 99,
    "wire type 6": lambda data, chance: data + b"\x0e\x01",
    "varint without end": lambda data, chance: data + b"\x08" + b"\xff" * 20,
    "huge number": lambda data, chance: (
        data + _field(chance.randint(1, 5), 0, _varint(chance.choice((2**31, 2**63, 2**64 - 1))))
    ),
    "length beyond": lambda data, chance: data + _field(1, 2, _varint(2**31 - 1)),
    "no UTF-8": lambda data, chance: _text_field(data, chance, b"\xff\xfe\xc3\x28"),
    "surrogate": lambda data, chance: _text_field(data, chance, b"\xed\xa0\x80"),
    "zero byte": lambda data, chance: _text_field(data, chance, b"a\0b"),
    "long text": lambda data, chance: _text_field(data, chance, b"x" * 100_001),
    "page token": lambda data, chance: _text_field(
        data, chance, base64.urlsafe_b64encode(chance.choice(_TOKENS)).rstrip(b"=")
    ),
    "many items": lambda data, chance: data + _field(2, 0, b"\x01") * 3000,
    "a million bytes": lambda data, chance: _text_field(data, chance, b"y" * 1_000_000),
}


def _frame(payload: bytes, flags: int = 0, size: int | None = None) -> bytes:
    return struct.pack(">BI", flags, len(payload) if size is None else size) + payload


_FRAMES: dict[str, Any] = {
    "framed": lambda payload, chance: _frame(payload),
    "size too large": lambda payload, chance: _frame(payload, 0, len(payload) + 100),
    "size too small": lambda payload, chance: _frame(payload, 0, max(0, len(payload) - 1)),
    "size of 4 GiB": lambda payload, chance: _frame(payload, 0, 2**32 - 1),
    "said to be compressed": lambda payload, chance: _frame(payload, 1),
    "compressed": lambda payload, chance: _frame(gzip.compress(payload), 1),
    "flags": lambda payload, chance: _frame(payload, chance.randrange(256)),
    "trailers first": lambda payload, chance: _frame(b"grpc-status: 0\r\n", 0x80) + _frame(payload),
    "trailers": lambda payload, chance: _frame(payload) + _frame(b"x-plexus-assertion: x", 0x80),
    "two messages": lambda payload, chance: _frame(payload) * 2,
    "no message": lambda payload, chance: b"",
    "half a head": lambda payload, chance: b"\0\0\0",
    "no frame": lambda payload, chance: payload,
    "noise behind": lambda payload, chance: _frame(payload) + chance.randbytes(20),
}
