"""The upstream clusters: one for each set of modules that listen at the same places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gateway.config import Bounds, Endpoint, GatewayConfig
from gateway.errors import GatewayError
from gateway.shapes import Json, seconds, typed
from gateway.tls import transport

_CONNECT_SECONDS = 1
# A dead process is noticed at once by its refused connection, a hung one after the time-out.
_CHECK_INTERVAL_SECONDS = 0.25
_CHECKS_TO_EJECT = 2
_CHECK_SECONDS = 1
# The only process there is: ejecting it while it is merely busy would turn slowness into errors.
_ONLY_CHECK_SECONDS = 5
# A stalled stream may hold this much; a connection sixteen of them.
STREAM_WINDOW_BYTES = 64 * 1024
CONNECTION_WINDOW_BYTES = 1024 * 1024
# What modules may send ahead of callers on one connection: room for every stream's own window, or
# the callers who do not read would use it up for all.
UPSTREAM_WINDOW_BYTES = 1024 * 1024 * 1024
CONNECTION_BUFFER_BYTES = 32 * 1024
# A small budget turned the loss of a replica into thousands of errors (measured).
_RETRY_BUDGET_PERCENT = 100
_MIN_RETRIES = 64
# A connection over a network may be half open: callers would wait on it until the kernel gives up
# sending, a quarter of an hour. The modules' server takes pings as often as this.
_PING = {"interval": "1.5s", "timeout": "2.5s"}


def name_clusters(upstreams: Mapping[str, Sequence[Endpoint]]) -> dict[str, str]:
    """The cluster of each module: the names of all that share its endpoints, joined by `+`."""
    sharing: dict[frozenset[Endpoint], list[str]] = {}
    for module in sorted(upstreams):
        sharing.setdefault(frozenset(upstreams[module]), []).append(module)
    return {module: "+".join(modules) for modules in sharing.values() for module in modules}


def clusters(config: GatewayConfig) -> list[Json]:
    """Every cluster, by name.

    Raises:
        GatewayError: A cluster mixes Unix sockets with hosts.
    """
    names = name_clusters(config.upstreams)
    of_cluster = {names[module]: endpoints for module, endpoints in config.upstreams.items()}
    return [
        {**_cluster(name, of_cluster[name], config.bounds), **_secured(of_cluster[name], config)}
        for name in sorted(of_cluster)
    ]


def _secured(endpoints: Sequence[Endpoint], config: GatewayConfig) -> Json:
    """TLS, but not where the file system says who may connect."""
    return {} if any(endpoint.path for endpoint in endpoints) else transport(config)


def _cluster(name: str, endpoints: Sequence[Endpoint], bounds: Bounds) -> Json:
    named = any(endpoint.named for endpoint in endpoints)
    local = any(endpoint.path is not None for endpoint in endpoints)
    if len({endpoint.path is None for endpoint in endpoints}) > 1:
        raise GatewayError(f"the endpoints of {name} mix Unix sockets and hosts")
    return {
        "name": name,
        "type": "STRICT_DNS" if named else "STATIC",
        # Of both kinds of address, whichever answers: nobody knows on which a module listens.
        **({"dns_lookup_family": "ALL"} if named else {}),
        "connect_timeout": seconds(_CONNECT_SECONDS),
        "lb_policy": "ROUND_ROBIN",
        "common_lb_config": {
            # No healthy host is an error at once; never a request to a host known to be down.
            "healthy_panic_threshold": {"value": 0},
            # What a health check found counts at once. Envoy would gather news for a second, in
            # which the replica that just came back does not stand in for the one that just went.
            "update_merge_window": "0s",
        },
        "per_connection_buffer_limit_bytes": CONNECTION_BUFFER_BYTES,
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed(
                "extensions.upstreams.http.v3.HttpProtocolOptions",
                explicit_http_config={
                    "http2_protocol_options": {
                        "initial_stream_window_size": STREAM_WINDOW_BYTES,
                        "initial_connection_window_size": UPSTREAM_WINDOW_BYTES,
                        **({} if local else {"connection_keepalive": _PING}),
                    }
                },
            )
        },
        "circuit_breakers": {"thresholds": [_breaker(bounds)]},
        "health_checks": [_health_check(alone=len(endpoints) == 1)],
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [_endpoint(endpoint) for endpoint in endpoints]}],
        },
    }


def _breaker(bounds: Bounds) -> Json:
    return {
        "max_connections": bounds.calls,
        "max_pending_requests": bounds.waiting_calls,
        "max_requests": bounds.calls,
        "retry_budget": {
            "budget_percent": {"value": _RETRY_BUDGET_PERCENT},
            "min_retry_concurrency": _MIN_RETRIES,
        },
    }


def _health_check(*, alone: bool) -> Json:
    interval = seconds(_CHECK_INTERVAL_SECONDS)
    return {
        "timeout": seconds(_ONLY_CHECK_SECONDS if alone else _CHECK_SECONDS),
        "interval": interval,
        # Left out, an idle cluster is asked once a minute.
        "no_traffic_interval": interval,
        "unhealthy_threshold": _CHECKS_TO_EJECT,
        "healthy_threshold": 1,
        # The whole process; every process answers for the empty name.
        "grpc_health_check": {},
    }


def _endpoint(endpoint: Endpoint) -> Json:
    if endpoint.path is not None:
        return {"endpoint": {"address": {"pipe": {"path": str(endpoint.path)}}}}
    address = {"address": endpoint.host, "port_value": endpoint.port}
    return {"endpoint": {"address": {"socket_address": address}}}
