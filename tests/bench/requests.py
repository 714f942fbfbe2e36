"""The bytes of requests, made once."""

from __future__ import annotations

import json

_INDEXED = {":authority": 1, ":path": 4, "content-type": 31, "authorization": 23}
_POST, _HTTP = b"\x83", b"\x86"


def http(method: str, path: str, *, token: str = "", body: object = None) -> tuple[bytes, bytes]:
    """A request of HTTP/1.1 with a JSON body, if any."""
    data = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "host: localhost"]
    if token:
        lines.append(f"authorization: Bearer {token}")
    if body is not None:
        lines += ["content-type: application/json", f"content-length: {len(data)}"]
    return "\r\n".join([*lines, "", ""]).encode(), data


def grpc(path: str, message: bytes, **metadata: str) -> tuple[bytes, bytes]:
    """A unary call of gRPC: a block of headers, and the message with its length."""
    headers = {
        ":path": path,
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
        **{name.replace("_", "-"): value for name, value in metadata.items()},
    }
    block = _POST + _HTTP + b"".join(_literal(*each) for each in headers.items())
    return block, b"\0" + len(message).to_bytes(4) + message


def _literal(name: str, value: str) -> bytes:
    """A header that is not to be remembered (RFC 7541, 6.2.2)."""
    index = _INDEXED.get(name)
    if index is None:
        return b"\0" + _text(name) + _text(value)
    return _integer(index, 4) + _text(value)


def _text(text: str) -> bytes:
    data = text.encode()
    return _integer(len(data), 7) + data


def _integer(value: int, bits: int) -> bytes:
    most = (1 << bits) - 1
    if value < most:
        return bytes([value])
    made, value = [most], value - most
    while value >= 128:
        made.append(value % 128 + 128)
        value //= 128
    return bytes([*made, value])
