"""Structured logs: one JSON object a line, with request, tenant and trace; never a secret.

A line says what happened and its facts as fields. Values of `sensitive` fields do not get here:
messages are logged through `contract.redact`.

Each call leaves a line, so a line must cost its call little: it is made at once, and written with
the others of the same twentieth of a second by a thread. What is serious is written when it
happens, and all that was noted before it.
"""

from __future__ import annotations

import atexit
import json
import logging
import logging.handlers
import os
import sys
import threading
import time
import traceback
from collections import deque
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from services.runtime import telemetry
from services.runtime.context import current_or_none

_MAX_BYTES = 20_000_000
_KEPT = 5
_FLUSH_SECONDS = 0.05
# More than can be written in the time; the oldest go where the disk does not keep up at all.
_MOST_WAITING = 100_000
_SERIOUS = {"warning", "error"}
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
# Made once: `json.dumps` with an argument makes another for each line.
_encode = json.JSONEncoder(default=repr).encode
_root = logging.getLogger()


class Logger:
    """A named logger: an event's name, then its facts as fields."""

    def __init__(self, name: str) -> None:
        self._name = name

    def log(self, level: str, event: str, /, **facts: object) -> None:
        """Log at a level named in words."""
        if not self.shows(level):
            return
        if _lines is None:  # nobody said where to
            logging.getLogger(self._name).log(_LEVELS[level], "%s %s", event, facts)
            return
        line = {"logger": self._name, **facts, "event": event, "level": level}
        _add_call(line)
        _lines.note(line)

    def shows(self, level: str) -> bool:
        """Whether what is logged at a level is kept."""
        return _root.isEnabledFor(_LEVELS[level])

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
        """For the operator, now; an exception as `exc_info` is written with its traceback."""
        self.log("error", event, **facts)


def get(name: str) -> Logger:
    """The logger of a part."""
    return Logger(name.removeprefix("services."))


def _add_call(line: dict[str, Any]) -> None:
    call = current_or_none()
    if call is not None:
        line["request_id"] = call.request_id
        line["trace_id"] = telemetry.current_trace_id() or call.trace_id
        if call.principal is not None:
            line["tenant"] = call.principal.tenant_id


@lru_cache(maxsize=2)
def _second(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _written(line: dict[str, Any], at: float) -> str:
    second, part = divmod(at, 1)
    line["timestamp"] = f"{_second(int(second))}.{int(part * 1e6):06}Z"
    try:
        return _encode(line)
    except (TypeError, ValueError):  # JSON cannot say it
        return _encode({name: str(value) for name, value in line.items()})


class _Formatter(logging.Formatter):
    """A library's record as a line like ours."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging."""
        line = {"logger": record.name, "event": record.getMessage()}
        line["level"] = record.levelname.lower()
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        _add_call(line)
        return _written(line, record.created)


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
    """Takes our own lines to where libraries' records go.

    Past the records of the standard library and what is made of them, which cost many times what
    the line does.
    """

    def __init__(self, handler: logging.StreamHandler[Any]) -> None:
        self._handler = handler
        self._waiting: deque[str] = deque(maxlen=_MOST_WAITING)
        self._news = threading.Event()
        threading.Thread(target=self._run, name="log", daemon=True).start()
        atexit.register(self.flush)

    def note(self, line: dict[str, Any]) -> None:
        """Have a line written soon; at once where it is serious."""
        error = line.pop("exc_info", None)
        if error is not None:
            line["exception"] = "".join(traceback.format_exception(error))
        self._waiting.append(_written(line, time.time()))
        if line["level"] in _SERIOUS:
            self.flush()
        elif not self._news.is_set():
            self._news.set()

    def _run(self) -> None:
        while True:
            self._news.wait()
            time.sleep(_FLUSH_SECONDS)
            self._news.clear()
            self.flush()

    def flush(self) -> None:
        """Write what was noted. A disk that is full must not fail what the lines are about."""
        self._handler.acquire()
        try:
            # As many as there are now: others may come meanwhile.
            lines = [self._waiting.popleft() for _ in range(len(self._waiting))]
            if not lines:
                return
            if isinstance(self._handler, _File) and self._handler.full():
                self._handler.doRollover()
            self._handler.stream.write("\n".join((*lines, "")))
            self._handler.stream.flush()
        except (OSError, ValueError):
            pass
        finally:
            self._handler.release()


_lines: _Lines | None = None


def configure(level: str, file: Path | None) -> None:
    """Log to a file that is rotated at 20 MB, five kept, or to standard error."""
    global _lines  # noqa: PLW0603 - the standard library's state is global too
    if _lines is not None:
        _lines.flush()
    handler = logging.StreamHandler(sys.stderr) if file is None else _File(file)
    handler.setFormatter(_Formatter())
    for old in _root.handlers[:]:
        _root.removeHandler(old)
        old.close()
    _root.addHandler(handler)
    _root.setLevel(_LEVELS[level])
    # Libraries say at info what is no news to an operator.
    for noisy in ("alembic", "httpx", "httpx2", "httpcore2", "openai", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    _lines = _Lines(handler)
