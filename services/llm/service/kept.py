"""An answer as it is kept for those who ask again: what was said, and how it ended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter

from services.llm.domain.generation import Delta, Event, Finished, Started, Switched, ToolDelta
from services.runtime.crypto import MasterKey

_STARTED = TypeAdapter(Started)
_FINISHED = TypeAdapter(Finished)
_TOOL = TypeAdapter(ToolDelta)
_SWITCHED = TypeAdapter(Switched)


class Recording:
    """The events of one answer; texts that follow each other become one."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._texts: list[str] = []

    def add(self, event: Event) -> None:
        """Record what is sent."""
        if isinstance(event, Delta):
            self._texts.append(event.text)
            return
        self._join()
        self._events.append(event)

    def _join(self) -> None:
        if self._texts:
            self._events.append(Delta("".join(self._texts)))
            self._texts.clear()

    def sealed(self, master_key: MasterKey, tenant_id: str) -> bytes:
        """It, encrypted for its tenant."""
        self._join()
        written = json.dumps([_written(each) for each in self._events], ensure_ascii=False)
        return master_key.seal(written.encode("utf-8", "replace"), about(tenant_id))


def replayed(sealed: bytes, master_key: MasterKey, tenant_id: str) -> Iterator[Event]:
    """The events of a recording, marked as a repeat's.

    Raises:
        MasterKeyError: Another key sealed it.
    """
    for kind, value in json.loads(master_key.open(sealed, about(tenant_id))):
        if kind == "started":
            yield replace(_STARTED.validate_python(value), repeated=True)
        elif kind == "text":
            yield Delta(value)
        elif kind == "tool":
            yield _TOOL.validate_python(value)
        elif kind == "switched":
            yield _SWITCHED.validate_python(value)
        else:
            yield _FINISHED.validate_python(value)


def _written(event: Event) -> tuple[str, Any]:
    if isinstance(event, Delta):
        return ("text", event.text)
    if isinstance(event, Started):
        return ("started", _STARTED.dump_python(event, mode="json"))
    if isinstance(event, ToolDelta):
        return ("tool", _TOOL.dump_python(event, mode="json"))
    if isinstance(event, Switched):
        return ("switched", _SWITCHED.dump_python(event, mode="json"))
    assert isinstance(event, Finished)
    return ("finished", _FINISHED.dump_python(event, mode="json"))


def about(tenant_id: str) -> str:
    """What an answer is sealed as."""
    return f"llm/answer/{tenant_id}"
