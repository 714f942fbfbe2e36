"""Make everything under `generated/` from the contracts: offline, in seconds.

    python -m proto.tools.generate           make what is out of date
    python -m proto.tools.generate --check   only say whether it is up to date (exit 1 if not)

It writes `generated/python` (messages and typed stubs), `generated/plexus.binpb` (the descriptor
set, with comments and every import) and `generated/openapi.json`.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2

ROOT = Path(__file__).resolve().parents[2]
PROTO = ROOT / "proto"
OUT = ROOT / "generated"
STAMP = OUT / ".stamp"
OUTPUTS = ("python", "plexus.binpb", "openapi.json")
# What shapes the output besides the contracts.
TOOLS = ("grpcio-tools", "mypy-protobuf", "protovalidate", "googleapis-common-protos")
SOURCES = (*sorted((PROTO / "tools").glob("*.py")), ROOT / "gateway" / "openapi.py")
# The details of errors are in the set so that Envoy can turn them into JSON.
EXTRA = ("google/rpc/error_details.proto", "google/rpc/status.proto")
VALIDATE = "buf/validate/validate.proto"


class GenerateError(Exception):
    """A contract does not compile; the text is the compiler's, with file and line."""


def fingerprint() -> str:
    """A digest of everything that the output depends on."""
    digest = hashlib.sha256()
    for path in (*sorted((PROTO / "plexus").rglob("*.proto")), *SOURCES):
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    for tool in TOOLS:
        digest.update(f"{tool}={importlib.metadata.version(tool)}\n".encode())
    return digest.hexdigest()


def validate_descriptors() -> bytes:
    """The rules of protovalidate as a descriptor set; the package has them in no other form."""
    from protovalidate._gen.buf.validate import validate_pb

    rules = descriptor_pb2.FileDescriptorProto.FromString(validate_pb.desc().proto.to_binary())
    names = ("descriptor", "duration", "field_mask", "timestamp")
    imports = [
        descriptor_pb2.FileDescriptorProto.FromString(
            importlib.import_module(f"google.protobuf.{name}_pb2").DESCRIPTOR.serialized_pb
        )
        for name in names
    ]
    return descriptor_pb2.FileDescriptorSet(file=[*imports, rules]).SerializeToString()


def protoc(roots: Path, scratch: Path, *arguments: str) -> None:
    """Run the packaged protoc on the contracts below `roots`.

    Raises:
        GenerateError: A contract does not compile.
    """
    rules = scratch / "validate.binpb"
    rules.write_bytes(validate_descriptors())
    bundled = Path(importlib.import_module("grpc_tools").__path__[0]) / "_proto"
    common = Path(importlib.import_module("google.api").__path__[0]).parents[1]
    here = str(Path(sys.executable).parent)  # where protoc finds the plugins
    done = subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc"),
            *(f"-I{roots}", f"-I{bundled}", f"-I{common}", f"--descriptor_set_in={rules}"),
            *arguments,
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": os.pathsep.join((here, os.environ["PATH"]))},
    )
    if done.returncode != 0:
        raise GenerateError(done.stderr.strip())


def files_below(roots: Path) -> list[str]:
    """The contracts below `roots`, as protoc names them."""
    return sorted(str(path.relative_to(roots)) for path in (roots / "plexus").rglob("*.proto"))


def descriptor_set(roots: Path, target: Path) -> None:
    """Compile the contracts below `roots` into one descriptor set, comments and imports included.

    Raises:
        GenerateError: A contract does not compile.
    """
    with tempfile.TemporaryDirectory() as scratch:
        protoc(
            roots,
            Path(scratch),
            "--include_imports",
            "--include_source_info",
            f"--descriptor_set_out={target}",
            *files_below(roots),
            *EXTRA,
        )


def generate() -> None:
    """Make all of `generated/` anew.

    Raises:
        GenerateError: A contract does not compile.
    """
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=OUT) as name:
        scratch = Path(name)
        python = scratch / "python"
        python.mkdir()
        protoc(
            PROTO,
            scratch,
            f"--python_out={python}",
            f"--grpc_python_out={python}",
            f"--mypy_out={python}",
            f"--mypy_grpc_out=only_async:{python}",
            *files_below(PROTO),
        )
        protoc(PROTO, scratch, f"--python_out={python}", f"--mypy_out={python}", VALIDATE)
        descriptor_set(PROTO, scratch / "plexus.binpb")
        openapi = importlib.import_module("gateway.openapi")
        (scratch / "openapi.json").write_text(openapi.render(scratch / "plexus.binpb"))
        for made in OUTPUTS:
            _replace(scratch / made, OUT / made)
    STAMP.write_text(fingerprint())


def _replace(made: Path, target: Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)
    made.replace(target)


def up_to_date() -> bool:
    """Whether `generated/` is what the contracts and the tools would make now."""
    there = all((OUT / made).exists() for made in (*OUTPUTS, STAMP.name))
    return there and STAMP.read_text() == fingerprint()


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    options = parser.parse_args()
    if up_to_date():
        return 0
    if options.check:
        print("generated/ is older than the contracts: run `make generate`", file=sys.stderr)
        return 1
    try:
        generate()
    except GenerateError as error:
        print(f"a contract does not compile:\n{error}", file=sys.stderr)
        return 1
    print("generated: python stubs, plexus.binpb, openapi.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
