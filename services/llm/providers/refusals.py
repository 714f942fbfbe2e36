"""What a model's server says with an HTTP status, and what the caller is told of it.

The body of an error may hold secrets: a part of the key, somebody's prompt. It is not read beyond
the first bytes, and of those only the protocol's short identifiers reach the log.
"""

from __future__ import annotations

import asyncio
import json
import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx2
import openai

from services.llm.domain.generation import model_refused, model_unavailable
from services.runtime import log
from services.runtime.errors import NotFound, PlexusError

_logger = log.get(__name__)
_NOT_FOUND = 404
_REFUSED = frozenset({400, 413, 422})
_CREDENTIALS = frozenset({401, 403})
_TOO_MANY = 429
_MAX_RETRY_AFTER = 86_400.0
_MAX_BODY = 4_096
_BODY_SECONDS = 1.0
_MAX_WORD = 60


async def refuse(response: httpx2.Response) -> None:
    """A hook of the HTTP client: ends what was not accepted before its body is read.

    Raises:
        openai.APIStatusError: The status is not one of success.
    """
    if response.is_success:
        return
    words = await _identifiers(response)
    _logger.warning("model_server_refused", status=response.status_code, **words)
    raise openai.APIStatusError("not accepted", response=response, body=None)


def translated(response: httpx2.Response) -> PlexusError:
    """The error for a response that is not one of success."""
    status = response.status_code
    if status == _NOT_FOUND:
        return NotFound(
            "The model's server does not know the model, or the provider's address is not the base "
            "of its API, which mostly ends in /v1 (HTTP 404).",
            reason="UNKNOWN_MODEL",
        )
    if status in _REFUSED:
        return model_refused(f"The model's server does not accept the request (HTTP {status}).")
    if status in _CREDENTIALS:
        return model_unavailable(
            f"The model's server does not accept the provider's key (HTTP {status}).",
            lasting=True,
        )
    after = _retry_after(response.headers.get("retry-after", ""))
    if status == _TOO_MANY:
        return model_unavailable(
            "The model's server takes no more requests now: too many, or the quota is spent "
            "(HTTP 429).",
            after,
        )
    return model_unavailable(f"The model's server failed (HTTP {status}).", after)


def _retry_after(value: str) -> float | None:
    """Seconds, from either form that HTTP has for them (RFC 9110, 10.2.3)."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    if not math.isfinite(seconds) or seconds <= 0:
        return None
    return min(seconds, _MAX_RETRY_AFTER)


async def _identifiers(response: httpx2.Response) -> dict[str, str]:
    """`type`, `code` and `param` of an error as the protocol has it, where they are identifiers."""
    body = b""
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for part in response.aiter_raw():
                body += part
                if len(body) > _MAX_BODY:
                    return {}
        error = json.loads(body)["error"]
        words = {f"error_{name}": error.get(name) for name in ("type", "code", "param")}
    except (httpx2.HTTPError, TimeoutError, ValueError, LookupError, TypeError, AttributeError):
        return {}
    return {
        name: word
        for name, word in words.items()
        if isinstance(word, str)
        and len(word) <= _MAX_WORD
        and word.replace(".", "").replace("[", "").replace("]", "").isidentifier()
    }
