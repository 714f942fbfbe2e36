"""deploy/Dockerfile read and its builder stage carried out, where no container engine is needed."""

from __future__ import annotations

import fnmatch
import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.deploy.common import DEPLOY, ROOT

TARGET = "/opt/plexus"
DATA = "/var/lib/plexus"


@dataclass(frozen=True)
class Step:
    """One instruction of a Dockerfile."""

    name: str
    text: str

    @property
    def words(self) -> list[str]:
        """What follows the instruction's name, as a shell takes it apart."""
        return shlex.split(self.text)


def stages() -> list[list[Step]]:
    """The Dockerfile: what stands before the first stage, then each stage from its FROM on."""
    found: list[list[Step]] = [[]]
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    for line in filter(str.strip, text.replace("\\\n", " ").splitlines()):
        name, _, rest = line.partition(" ")
        if name == "FROM":
            found.append([])
        found[-1].append(Step(name, rest.strip()))
    return found


def of(name: str, stage: list[Step]) -> list[Step]:
    """The instructions of one name."""
    return [step for step in stage if step.name == name]


def environment(root: Path, data: Path) -> dict[str, str]:
    """What the image sets, with the paths moved to where a test has put things."""
    (step,) = of("ENV", stages()[-1])
    pairs = dict(word.split("=", 1) for word in step.words)
    moved = {"/usr/local/bin:": "", TARGET: str(root), DATA: str(data)}
    for old, new in moved.items():
        pairs = {name: value.replace(old, new) for name, value in pairs.items()}
    return pairs


def command(name: str, root: Path) -> list[str]:
    """ENTRYPOINT or the command of HEALTHCHECK, with the paths moved."""
    (step,) = of(name, stages()[-1])
    words = json.loads(step.text[step.text.index("[") :])
    return [word.replace(TARGET, str(root)) for word in words]


def tracked() -> list[str]:
    """What git keeps or would keep: a clean copy of the tree."""
    done = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
    )
    return [name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def sent(names: list[str]) -> list[str]:
    """Those of some files that .dockerignore lets through; the last line that matches decides."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]

    def through(name: str) -> bool:
        ignored = False
        for rule in rules:
            pattern = rule.removeprefix("!").removeprefix("**/")
            parts = name.split("/")
            heads = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
            candidates = [*heads, *parts] if "**/" in rule else heads
            if any(fnmatch.fnmatchcase(each, pattern) for each in candidates):
                ignored = not rule.startswith("!")
        return not ignored

    return [name for name in names if through(name)]


def copied(step: Step, context: list[str]) -> dict[str, str]:
    """Which files a COPY takes, and where it puts them."""
    *sources, target = step.words
    found = {}
    for source in sources:
        inside = [name for name in context if name == source or name.startswith(f"{source}/")]
        if not inside:
            raise FileNotFoundError(f"COPY {source}: there is no such file in what is sent")
        for name in inside:
            if name == source:
                place = f"{target}{Path(name).name}" if target.endswith("/") else target
            else:
                place = f"{target.rstrip('/')}/{name.removeprefix(f'{source}/')}"
            found[name] = os.path.normpath(place)
    return found


def build(work: Path, target: Path) -> None:
    """Carry out the builder stage in a folder: what COPY names is copied, what RUN says is run."""
    context = sent(tracked())
    for step in stages()[1][1:]:
        if step.name == "COPY":
            for name, place in copied(step, context).items():
                (work / place).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, work / place)
        elif step.name == "RUN":
            subprocess.run(
                [word.replace(TARGET, str(target)) for word in step.words],
                cwd=work,
                env={**os.environ, "PYTHON": sys.executable},
                check=True,
            )
        elif step.name != "WORKDIR":
            raise NotImplementedError(step.name)
