"""Record a sample of every message, and of every field, that has none yet.

    python -m tests.contract.record

What is recorded stays as it is.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from proto.tools.descriptors import Contracts
from proto.tools.generate import PROTO, descriptor_set
from tests.contract import samples


def record(contracts: Contracts, golden: Path) -> list[str]:
    """Add what is missing to the files in `golden`, one a package; the names of the messages."""
    wanted = samples.missing(contracts, samples.load(golden))
    by_file: dict[Path, samples.Golden] = {}
    for name, new in wanted.items():
        by_file.setdefault(golden / f"{contracts.package(name)}.json", {})[name] = new
    for path, added in by_file.items():
        kept: samples.Golden = json.loads(path.read_text()) if path.exists() else {}
        for name, new in added.items():
            kept[name] = [*kept.get(name, []), *new]
        path.write_text(json.dumps(kept, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    return sorted(wanted)


def main() -> int:
    """The command."""
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "contracts.binpb"
        descriptor_set(PROTO, target)
        added = record(Contracts.read(target), samples.GOLDEN)
    sys.stdout.write("".join(f"recorded {name}\n" for name in added) or "nothing to record\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
