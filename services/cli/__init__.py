"""The `plexus` command: starts an installation, asks it things, and says what ails it.

It is a client of the contracts like any other and has no back door: what it can do, any program
with the same credential can do. Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import sys


def main() -> int:
    """The entry point; returns the exit status: 0 done, 1 error, 2 wrong usage, 130 Ctrl-C."""
    try:
        from services.cli.root import run
    except ImportError as error:
        sys.stderr.write(
            f"Error: the command line needs the package `{error.name}`, which is not installed. "
            "Run `make setup`.\n"
        )
        return 1
    return run(sys.argv[1:])
