"""The gateway's configuration, looked at without starting anything.

python -m gateway validate    render it and have Envoy check it (part of `make check`)
python -m gateway render      print it
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

from gateway import contract
from gateway.config import Endpoint, GatewayConfig
from gateway.errors import GatewayError
from gateway.process import GatewayProcess
from gateway.render import render

_CONTRACTS = Path(__file__).resolve().parents[1] / "generated" / "plexus.binpb"
# The public key of RFC 8037's example, so that Envoy has one to read.
_KEY = {
    "kty": "OKP",
    "crv": "Ed25519",
    "alg": "EdDSA",
    "kid": "example",
    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
}


def example(run_dir: Path, descriptor_set: bytes) -> GatewayConfig:
    """The embedded shape with defaults: every module of the contracts on one Unix socket.

    Raises:
        GatewayError: The descriptor set cannot be read.
    """
    jwks = run_dir / "jwks.json"
    jwks.write_text(json.dumps({"keys": [_KEY]}))
    mesh = [Endpoint(path=run_dir / "mesh.sock")]
    return GatewayConfig(
        upstreams={rpc.module: mesh for rpc in contract.rpcs(contract.parse(descriptor_set))},
        issuer="plexus",
        audience="plexus",
        jwks_file=jwks,
        run_dir=run_dir,
    )


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="gateway", description="Envoy's configuration.")
    parser.add_argument("command", choices=("validate", "render"))
    command = parser.parse_args().command
    try:
        descriptor_set = _CONTRACTS.read_bytes()
        with tempfile.TemporaryDirectory(prefix="plexus-") as scratch:
            config = example(Path(scratch), descriptor_set)
            if command == "render":
                print(json.dumps(render(config, descriptor_set), indent=2))
                return 0
            asyncio.run(GatewayProcess(config, descriptor_set).validate())
    except FileNotFoundError:
        print("there is no generated/plexus.binpb: run `make generate`", file=sys.stderr)
        return 1
    except GatewayError as error:
        print(error, file=sys.stderr)
        return 1
    print("the gateway's configuration is valid")
    return 0


if __name__ == "__main__":
    sys.exit(main())
