"""The headers that the gateway puts on replies."""

from __future__ import annotations

from gateway.shapes import Json

# On every reply over REST. They hold one tenant's data, or tokens: no cache between here and the
# caller keeps them, and no browser shows them as anything but what they are.
REST_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


def added(headers: dict[str, str]) -> list[Json]:
    """Headers where the reply does not have them already."""
    return [_header(key, value, "ADD_IF_ABSENT") for key, value in headers.items()]


def replaced(headers: dict[str, str]) -> list[Json]:
    """Headers whatever the reply has."""
    return [_header(key, value, "OVERWRITE_IF_EXISTS_OR_ADD") for key, value in headers.items()]


def _header(key: str, value: str, action: str) -> Json:
    return {"header": {"key": key, "value": value}, "append_action": action}
