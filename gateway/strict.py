"""Strict JSON: the module behind a route is asked whether it knows every field of a body.

The transcoder drops unknown fields whatever its options say. `services/runtime/strict_json.py`
answers; the question is Envoy's own, in `proto/plexus/gateway/v1`.
"""

from __future__ import annotations

from gateway.config import GatewayConfig
from gateway.contract import Binding, Rpc
from gateway.shapes import Json, extension, seconds, typed

_FILTER = "envoy.filters.http.ext_authz"
_TYPE = "extensions.filters.http.ext_authz.v3"
# Short of the shortest deadlines a caller would wait for; asking is a fraction of a millisecond.
_SECONDS = 5
# Asking has no effect, so it may always be repeated.
_RETRIES = {
    "retry_on": "connect-failure,refused-stream,reset-before-request,reset,unavailable",
    "num_retries": 4,
    # Envoy takes the longest pause for the time-out of each try, too.
    "retry_back_off": {"base_interval": "0.010s", "max_interval": "2s"},
    "retry_host_predicate": [
        extension(
            "retry_host_predicates.previous_hosts",
            "extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
        )
    ],
    "host_selection_retry_max_attempts": 10,
}
_EVERY = {"safe_regex": {"regex": ".*"}}


def strict_filter(config: GatewayConfig, cluster: str) -> list[Json]:
    """The filter, off on every route that does not turn it on.

    Args:
        config: Whether there is one, and the bound on bodies.
        cluster: Which is asked where a route does not say.
    """
    if not config.strict_json:
        return []
    made = extension(
        "filters.http.ext_authz",
        f"{_TYPE}.ExtAuthz",
        transport_api_version="V3",
        grpc_service=_service(cluster),
        # A question without an answer is a refusal, and one that is worth a second try.
        failure_mode_allow=False,
        status_on_error={"code": "ServiceUnavailable"},
        with_request_body={
            "max_request_bytes": config.bounds.body_bytes,
            "allow_partial_message": False,
            "pack_as_bytes": True,
        },
        # The body alone: no credential leaves for where none is asked for.
        disallowed_headers={"patterns": [_EVERY]},
    )
    return [{**made, "disabled": True}]


def strict_route(config: GatewayConfig, rpc: Rpc, binding: Binding, cluster: str | None) -> Json:
    """A route's part: what is asked, and whom, where that is not whom the filter asks anyway.

    A stream of the client's would wait for its own end, and a body in a format of its own has no
    fields of ours.
    """
    asks = binding.body and not (binding.raw or rpc.client_streaming or rpc.opaque)
    if not config.strict_json or not asks:
        return {}
    settings: Json = {"context_extensions": {"rpc": rpc.path, "body": binding.body}}
    if cluster is not None:
        settings["grpc_service"] = _service(cluster)
    return {_FILTER: typed(f"{_TYPE}.ExtAuthzPerRoute", check_settings=settings)}


def _service(cluster: str) -> Json:
    return {
        "envoy_grpc": {"cluster_name": cluster, "skip_envoy_headers": True},
        "timeout": seconds(_SECONDS),
        "retry_policy": _RETRIES,
    }
