"""The health of this container: exit status 0 while it can serve.

A process that serves modules has PLEXUS_HEALTH_LISTEN, where gRPC's health protocol answers; any
other is asked as the gateway is, over HTTP.
"""

from __future__ import annotations

import os
import sys
import urllib.request

_SECONDS = 4.0


def modules(listen: str) -> bool:
    """Whether the modules of this process are SERVING."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    port = listen.rpartition(":")[2]
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            reply = stub.Check(health_pb2.HealthCheckRequest(), timeout=_SECONDS)
        except grpc.RpcError:
            return False
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


def gateway(port: str) -> bool:
    """Whether the gateway serves."""
    # No proxy of the environment's stands before loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/healthz", timeout=_SECONDS) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def main() -> int:
    """The command."""
    listen = os.environ.get("PLEXUS_HEALTH_LISTEN", "")
    good = modules(listen) if listen else gateway(os.environ.get("PLEXUS_PORT", "8080"))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
