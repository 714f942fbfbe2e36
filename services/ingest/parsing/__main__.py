"""A parser: reads files that it is told of on its input, one after the other, within bounds.

It has no environment, no secrets and no way to gain rights. Whoever started it ends it where it
takes too long; it ends itself where it takes too much.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

_SET_PARENT_DEATH_SIGNAL = 1
_SET_NO_NEW_PRIVILEGES = 38
_FILES = 64


def main() -> None:
    """Serve until the input ends."""
    parent, memory, file_bytes = (int(each) for each in sys.argv[1:4])
    _confine(parent, memory, file_bytes)
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # What a library prints is no record.
    os.dup2(2, 1)

    def send(record: dict[str, Any]) -> None:
        out.write(json.dumps(record, ensure_ascii=True, separators=(",", ":")) + "\n")
        out.flush()

    from services.ingest.parsing.records import Job

    for line in sys.stdin:
        told = json.loads(line)
        _allow(int(told["cpu_seconds"]))
        job = Job(
            Path(told["path"]),
            Path(told["folder"]),
            told["file_name"],
            told["media_type"],
            int(told["depth"]),
        )
        if not _read(job, send):
            return


def _confine(parent: int, memory: int, file_bytes: int) -> None:
    libc = ctypes.CDLL(None)
    libc.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    libc.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit("nobody waits for what is read here")
    for what, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, _FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


def _allow(seconds: int) -> None:
    """Let the next file take so much of the processor's time; it ends this process at more."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    most = int(used.ru_utime + used.ru_stime) + 1 + seconds
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (most, hard))


def _read(job: Any, send: Any) -> bool:
    """Read a file; False where this process should read no other."""
    from services.ingest.parsing.kinds import read
    from services.ingest.parsing.records import Output
    from services.ingest.parsing.refusals import Refused

    try:
        read(job, Output(job, send))
    except Refused as error:
        failed = {"reason": error.reason, "message": error.message}
    except (MemoryError, RecursionError):
        failed = {"reason": "TOO_LARGE", "message": "Reading it takes too much memory."}
    except Exception as error:  # noqa: BLE001 - whatever a library makes of a broken file
        sys.stderr.write(f"{type(error).__name__}\n")
        failed = {"reason": "BROKEN", "message": "The file is broken."}
    else:
        return True
    send({"failed": failed})
    return False


if __name__ == "__main__":
    main()
