"""Remove from an environment what only building needs, and whatever came along for it.

python strip.py <requirements/runtime.in> <environment>

What stays is found, not listed: the packages that runtime.in names, less those below, and all that
they require.
"""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement

BUILDING = {"grpcio-tools", "mypy-protobuf", "hatchling", "editables"}
OURS = "plexus"


def canonical(name: str) -> str:
    """A package's name as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def roots(text: str) -> dict[str, set[str]]:
    """The packages that a requirements file names, each with the extras it asks for."""
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    named = [Requirement(line) for line in lines if line]
    found = {canonical(each.name): set(each.extras) for each in named}
    unknown = BUILDING - found.keys()
    if unknown:
        raise SystemExit(f"strip.py: runtime.in no longer names {', '.join(sorted(unknown))}")
    return {name: extras for name, extras in found.items() if name not in BUILDING}


def needed(wanted: dict[str, set[str]], installed: dict[str, Distribution]) -> set[str]:
    """The names of all that some packages require, themselves included."""
    done: dict[str, set[str]] = {}
    waiting = list(wanted.items())
    while waiting:
        name, extras = waiting.pop()
        if name in done and extras <= done[name]:
            continue
        done[name] = done.get(name, set()) | extras
        if name not in installed:
            raise SystemExit(f"strip.py: {name} is required and not installed")
        for text in installed[name].requires or ():
            requirement = Requirement(text)
            marker = requirement.marker
            if marker is None or any(
                marker.evaluate({"extra": extra}) for extra in ("", *done[name])
            ):
                waiting.append((canonical(requirement.name), set(requirement.extras)))
    return set(done)


def main() -> None:
    """The command."""
    requirements, environment = Path(sys.argv[1]), Path(sys.argv[2])
    folders = [str(path) for path in environment.glob("lib/python*/site-packages")]
    found = {canonical(each.metadata["Name"]): each for each in distributions(path=folders)}
    keep = needed(roots(requirements.read_text()), found) | {OURS}
    drop = sorted(found.keys() - keep)
    if drop:
        python = environment / "bin" / "python"
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "--python", str(python), "--quiet"),
                *("--disable-pip-version-check", "uninstall", "--yes", *drop),
            ],
            check=True,
        )
    sys.stdout.write(f"kept {len(keep)} packages, removed: {', '.join(drop) or 'none'}\n")


if __name__ == "__main__":
    main()
