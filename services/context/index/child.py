"""The index's own process: Edge holds the interpreter's lock while it works, and may end it.

It answers what comes through its standard input, in order, and ends where that ends.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from services.context.index import frames
from services.context.index.shards import InUse, Shards

IN_USE = 3


def main() -> int:
    """Serve one folder; the exit status says why it ended."""
    # Whoever stops the whole group stops the serving process, whose end is this one's.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Whatever a library prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        shards = Shards(Path(sys.argv[1]))
    except InUse:
        return IN_USE
    try:
        answers.write(frames.packed({"id": 0}))
        answers.flush()
        while (message := frames.read(sys.stdin.buffer)) is not None:
            answers.write(frames.packed(_answer(shards, message)))
            answers.flush()
    except BrokenPipeError:
        return 0
    finally:
        shards.close()
    return 0


def _answer(shards: Shards, message: frames.Message) -> frames.Message:
    try:
        result = shards.do(message["op"], message["arguments"])
    except Exception as error:  # noqa: BLE001 - the asker is told, whatever it is
        return {"id": message["id"], "error": f"{type(error).__name__}: {error}"}
    return {"id": message["id"], "result": result}


if __name__ == "__main__":
    sys.exit(main())
