"""Structured logs: one JSON object a line, with request, tenant and trace; never a secret.

A line says what happened and its facts as fields. Values of `sensitive` fields do not get here:
messages are logged through `contract.redact`.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import structlog

from services.runtime import telemetry
from services.runtime.context import current_or_none

_MAX_BYTES = 20_000_000
_KEPT = 5
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
# Made once: `json.dumps` with an argument makes another for each line.
_encode = json.JSONEncoder(default=repr).encode


class Logger:
    """A named logger: an event's name, then its facts as fields."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._inner: Any = structlog.get_logger()

    def log(self, level: str, event: str, /, **facts: object) -> None:
        """Log at a level named in words."""
        if self.shows(level):
            getattr(self._inner, level)(event, logger=self._name, **facts)

    def shows(self, level: str) -> bool:
        """Whether what is logged at a level is kept."""
        return logging.getLogger().isEnabledFor(_LEVELS[level])

    def debug(self, event: str, /, **facts: object) -> None:
        """For whoever looks for a defect."""
        self.log("debug", event, **facts)

    def info(self, event: str, /, **facts: object) -> None:
        """For the record."""
        self.log("info", event, **facts)

    def warning(self, event: str, /, **facts: object) -> None:
        """For the operator, when there is time."""
        self.log("warning", event, **facts)

    def error(self, event: str, /, **facts: object) -> None:
        """For the operator, now."""
        self.log("error", event, **facts)


def get(name: str) -> Logger:
    """The logger of a part."""
    return Logger(name.removeprefix("services."))


def _add_call(_: object, __: str, event: dict[str, Any]) -> dict[str, Any]:
    call = current_or_none()
    if call is not None:
        event["request_id"] = call.request_id
        event["trace_id"] = telemetry.current_trace_id() or call.trace_id
        if call.principal is not None:
            event["tenant"] = call.principal.tenant_id
    return event


def _render(_: object, __: str, event: MutableMapping[str, Any]) -> str:
    return _encode(event)


class _File(logging.handlers.RotatingFileHandler):
    """A file that is rotated at 20 MB, five kept."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(file, maxBytes=_MAX_BYTES, backupCount=_KEPT, encoding="utf-8")

    def full(self) -> bool:
        """Whether it passed its bound: every line is flushed, so the file's own size says."""
        return self.stream is not None and os.fstat(self.stream.fileno()).st_size >= self.maxBytes

    def shouldRollover(self, record: logging.LogRecord) -> bool:  # noqa: N802
        """The packaged one formats each record a second time, to rotate one line earlier."""
        return self.full()


class _Lines:
    """Writes our own lines where libraries' records go.

    Without a record of the standard library's: that costs several times what the line does, on the
    path of every call.
    """

    def write(self, line: str) -> None:
        """Write one."""
        handler = next(iter(logging.getLogger().handlers), None)
        if not isinstance(handler, logging.StreamHandler):
            return
        handler.acquire()
        try:
            if isinstance(handler, _File) and handler.full():
                handler.doRollover()
            stream: Any = handler.stream
            stream.write(f"{line}\n")
            stream.flush()
        except (OSError, ValueError):
            pass  # a disk that is full must not fail what the line is about
        finally:
            handler.release()

    debug = info = warning = error = write


def configure(level: str, file: Path | None) -> None:
    """Log to a file that is rotated at 20 MB, five kept, or to standard error."""
    handler = logging.StreamHandler(sys.stderr) if file is None else _File(file)
    shared: list[Any] = [
        _add_call,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.add_log_level,
        structlog.processors.format_exc_info,
    ]
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _render,
            ],
            foreign_pre_chain=shared,
        )
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(_LEVELS[level])
    # Libraries say at info what is no news to an operator.
    for noisy in ("alembic", "httpx", "httpx2", "httpcore2", "openai", "aiosqlite", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*shared, _render],
        logger_factory=lambda *_: _Lines(),
        cache_logger_on_first_use=True,
    )
