"""Compare the contracts with those of the last release: what would break a caller fails.

    python -m proto.tools.breaking

The last release is the nearest tag `v*`. Both sides are compiled here from installed packages, so
nothing is fetched. Exit 0: nothing breaks, or there is no release yet; 1: something breaks; 2: the
comparison could not be made.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from proto.tools.descriptors import Contracts
from proto.tools.generate import ROOT, GenerateError, descriptor_set

_PATH_FIELD = re.compile(r"\{[^}=]+")


class CompareError(Exception):
    """The comparison could not be made; the text says why."""


class NoHistoryError(CompareError):
    """What is checked out came without the releases before it."""


def last_release(root: Path) -> str | None:
    """The tag of the last release before what is checked out; None before the first one.

    Raises:
        CompareError: Git cannot say, for one since the clone is shallow: a check that passes where
            the tags were never fetched checks nothing.
    """
    if _git(root, "rev-parse", "--is-shallow-repository").strip() == b"true":
        raise NoHistoryError("this clone is shallow: fetch its history and tags first")
    if not _git(root, "tag", "--list", "v*").strip():
        return None
    return _git(root, "describe", "--tags", "--match", "v*", "--abbrev=0").decode().strip()


def compare(root: Path, tag: str) -> str:
    """What in the contracts below `root` breaks callers of a release; empty when nothing does.

    Raises:
        CompareError: buf did not run to its end.
        GenerateError: A contract does not compile.
    """
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        archive = _git(root, "archive", "--format=tar", tag, "proto/plexus")
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(scratch / "released", filter="data")
        old, new = scratch / "old.binpb", scratch / "new.binpb"
        descriptor_set(scratch / "released" / "proto", old)
        descriptor_set(root / "proto", new)
        said = [_buf_breaking(new, old, root / "buf.yaml")]
        said += lost_paths(Contracts.read(old), Contracts.read(new))
        return "\n".join(filter(None, said))


def lost_paths(old: Contracts, new: Contracts) -> list[str]:
    """The REST paths of a release that are gone or mean something else; buf looks at none."""
    now = _paths(new)
    return [
        f"{path}: over REST it was {rpc}"
        + (f" with the body {body!r}" if body else "")
        + (f" and now is {now[path][0]} with the body {now[path][1]!r}" if path in now else "")
        for path, (rpc, body, reply) in _paths(old).items()
        if now.get(path) != (rpc, body, reply)
    ]


def _paths(contracts: Contracts) -> dict[str, tuple[str, str, str]]:
    """The RPC, the body and the reply's body behind each verb and path, whatever its fields' names.

    What a path calls its field may change: callers fill it in and never see the name.
    """
    found = {}
    for method in contracts.methods():
        for binding in contracts.bindings(method):
            path = f"{binding.verb.upper()} {_PATH_FIELD.sub('{', binding.path)}"
            found[path] = (method.full_name, binding.body, binding.response_body)
    return found


def _buf_breaking(new: Path, old: Path, config: Path) -> str:
    buf = Path(sys.executable).parent / "buf"
    done = subprocess.run(
        [buf, "breaking", new, "--against", old, "--config", config],
        capture_output=True,
        text=True,
        check=False,
    )
    # 100 is buf's word for "compared, and found something".
    if done.returncode not in (0, 100):
        raise CompareError(f"buf failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()


def _git(root: Path, *arguments: str) -> bytes:
    done = subprocess.run(
        ["git", "-C", root, *arguments],
        capture_output=True,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    if done.returncode != 0:
        raise CompareError(f"git {arguments[0]} failed: {done.stderr.decode().strip()}")
    return done.stdout


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository (default: this)")
    parser.add_argument(
        "--where-possible",
        action="store_true",
        help="pass, with a word, where the history was not fetched",
    )
    options = parser.parse_args(arguments)
    root = options.root
    try:
        tag = last_release(root)
        if tag is None:
            print("there is no release yet: nothing to compare with")
            return 0
        broken = compare(root, tag)
    except NoHistoryError as error:
        print(f"not compared with the last release: {error}", file=sys.stderr)
        return 0 if options.where_possible else 2
    except (CompareError, GenerateError) as error:
        print(error, file=sys.stderr)
        return 2
    if broken:
        print(f"callers of {tag} would break:\n{broken}", file=sys.stderr)
        return 1
    print(f"nothing breaks callers of {tag}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
