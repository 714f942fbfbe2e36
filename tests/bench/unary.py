"""P6 and P7: what everything around a unary call costs, over gRPC and over REST."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

from plexus.identity.v1 import identity_service_pb2 as pb

from services.runtime.credentials import AUDIENCE, ISSUER
from tests.bench import requests
from tests.bench.edge import edge
from tests.bench.load import Job, Outcome
from tests.bench.process import family, started
from tests.bench.rounds import Report, Row, interleaved, median, rate, ratio, shares
from tests.gateway.tokens import Keys, write_jwks

_RPC = "/plexus.identity.v1.IdentityService/UpdateProfile"
_CALLERS = 32
_SHARES = {"ours": "the server", "envoy": "Envoy", "client": "the load"}


async def measure(folder: Path, report: Report) -> None:
    """Both, on the same processes."""
    keys = Keys("bench")
    jwks = folder / "jwks.json"
    write_jwks(jwks, keys)
    token = keys.token(lifetime=3600, iss=ISSUER, aud=AUDIENCE, jti="tok_1", roles=["owner"])
    bare, ours, peer = (folder / f"{name}.sock" for name in ("bare", "ours", "peer"))
    data = {"PLEXUS_DATA_DIR": str(folder / "data")}
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        serving = "tests.bench.serving"
        bare_pid = await enter(started(serving, "bare", str(bare), environment=data))
        our_pid = await enter(started(serving, "contract", str(ours), str(jwks), environment=data))
        await _over_grpc(report, token, (ours, our_pid), (bare, bare_pid))
        peer_pid = await enter(started("tests.bench.peer", str(peer), str(jwks)))
        pids = {"ours": [our_pid], "peer": [peer_pid]}
        for strict in (False, True):
            run_dir = folder / f"edge-{strict}"
            address, envoy = await enter(edge(run_dir, ours, peer, jwks, strict=strict))
            pids["envoy"] = family(envoy)
            await _over_rest(report, token, address, pids, strict=strict)


async def _over_grpc(
    report: Report, token: str, ours: tuple[Path, int], bare: tuple[Path, int]
) -> None:
    message = pb.UpdateProfileRequest(display_name="Ada Lovelace").SerializeToString()
    request = requests.grpc(_RPC, message, authorization=f"Bearer {token}")

    def job(socket: Path, pid: int) -> Job:
        # As the gateway does it: a few connections, many calls on each.
        return Job("grpc", str(socket), [[request]] * 4, streams=8, pids={"server": [pid]})

    found = await interleaved("P6", {"ours": job(*ours), "bare": job(*bare)})
    cost = {side: median(each, lambda one: one.cost("server")) for side, each in found.items()}
    client = median(found["ours"], lambda one: one.cost("client"))
    report.rows.append(
        Row(
            "P6",
            "an authorised, validated unary call over gRPC, every interceptor",
            f"{median(found['ours'], rate):,.0f}/s, {cost['ours'] * 1e6:.0f} µs CPU",
            f"bare grpc.aio {median(found['bare'], rate):,.0f}/s, {cost['bare'] * 1e6:.0f} µs CPU",
            ratio(found["ours"], found["bare"], rate),
            ">= 0.80",
            f"the server's one core; the load takes {client * 1e6:.0f} µs a call of another",
        )
    )


async def _over_rest(
    report: Report, token: str, address: str, pids: dict[str, list[int]], *, strict: bool
) -> None:
    body = {"display_name": "Ada Lovelace"}
    path = "/peer/strict" if strict else "/peer/update"

    def job(where: str) -> Job:
        request = requests.http("PUT", where, token=token, body=body)
        return Job("http", address, [[request]] * _CALLERS, pids=pids)

    key = "P7 strict" if strict else "P7"
    found = await interleaved(key, {"ours": job("/v1/users/profile"), "peer": job(path)})
    report.rows.append(
        Row(
            key,
            f"the same over REST, strict JSON {'on' if strict else 'off'}",
            _side(found["ours"], "ours"),
            f"FastAPI {_side(found['peer'], 'peer')}",
            ratio(found["ours"], found["peer"], rate),
            ">= 0.40" if strict else ">= 0.60",
            "of a core: " + shares(found["ours"], _SHARES),
        )
    )


def _side(outcomes: list[Outcome], name: str) -> str:
    server = median(outcomes, lambda one: one.cost(name)) * 1e6
    envoy = median(outcomes, lambda one: one.cost("envoy")) * 1e6
    return f"{median(outcomes, rate):,.0f}/s, {server:.0f} + {envoy:.0f} µs CPU (server + Envoy)"
