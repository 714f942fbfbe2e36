"""Defects by which an answer shows the inside, or is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.faults.planting import Plant, module, replace


def odd_tokens_are_a_surprise() -> None:
    """Nobody thought of a page token that is none: what it raises is not an error of ours."""
    service = module("agents.service")

    class Paging:
        """The module, but for one function."""

        def __getattr__(self, name: str) -> Any:
            return getattr(original, name)

        def decode(self, token: str, *kinds: Any) -> Any:
            try:
                return original.decode(token, *kinds)
            except original.InvalidRequest:
                raise ValueError(f"no token: {token[:20]}") from None

    original = service.paging
    replace(service, "paging", lambda _: Paging())


def error_shows_its_cause() -> None:
    """A refusal repeats what the library under it said."""
    from services.history import service
    from services.runtime.errors import InvalidRequest

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        async def session(self: Any, tenant_id: str, session_id: str) -> Any:
            if len(session_id) > 40 or not session_id.isascii():
                raise InvalidRequest(f"sqlalchemy.exc.DataError in {service.__file__}")
            return await original(self, tenant_id, session_id)

        return session

    replace(service.HistoryService, "session", make)


DEFECTS: dict[str, Plant] = {
    each.__name__: each for each in (odd_tokens_are_a_surprise, error_shows_its_cause)
}
