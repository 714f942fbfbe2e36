"""Envoy's configuration, made from the contracts: no path, deadline or permission is said here."""

from __future__ import annotations

import socket
import sys

from gateway import contract, foreign
from gateway.clusters import (
    CONNECTION_BUFFER_BYTES,
    CONNECTION_WINDOW_BYTES,
    STREAM_WINDOW_BYTES,
    clusters,
    name_clusters,
)
from gateway.config import GatewayConfig
from gateway.filters import CLAIMS, cors_policy, http_filters
from gateway.foreign import status_filter
from gateway.limits import rate_filter, retry_seconds
from gateway.overload import overload, runtime
from gateway.replies import local_replies
from gateway.routes import routes
from gateway.shapes import Json, extension, seconds
from gateway.strict import strict_filter

# Headers that only the mesh and the gateway itself may set. A client's x-request-id goes too:
# an id in our logs is ours. `traceparent` stays, and joins a client's trace to ours.
_STRIPPED_PREFIXES = ("x-plexus-", "x-envoy-")
_STRIPPED = ("x-request-id",)
# How long connections are asked to go elsewhere before they are closed.
_DRAIN_SECONDS = 5
_ACCESS_FIELDS = {
    "time": "%START_TIME%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "trace": "%REQ(TRACEPARENT)%",
    "tenant": f"%DYNAMIC_METADATA({CLAIMS}:tid)%",
    "subject": f"%DYNAMIC_METADATA({CLAIMS}:sub)%",
    "method": "%REQ(X-ENVOY-ORIGINAL-METHOD?:METHOD)%",
    # Without the query, which may hold what people searched for.
    "path": "%PATH(NQ:ORIG_OR_PATH)%",
    "rpc": "%ROUTE_NAME%",
    "protocol": "%PROTOCOL%",
    "code": "%RESPONSE_CODE%",
    "grpc_status": "%GRPC_STATUS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
    "duration_ms": "%DURATION%",
    "upstream": "%UPSTREAM_HOST%",
    "bytes_in": "%BYTES_RECEIVED%",
    "bytes_out": "%BYTES_SENT%",
    "peer": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
}


def render(config: GatewayConfig, descriptor_set: bytes, keys: str | None = None) -> Json:
    """Envoy's bootstrap configuration, ready for `json.dumps`.

    Args:
        config: Addresses, trust and bounds.
        descriptor_set: The contracts with all imports, as in generated/plexus.binpb.
        keys: A key set to build in; without it Envoy follows `config.token_file`.

    Raises:
        GatewayError: The contracts and the configuration do not fit each other.
    """
    files = contract.parse(descriptor_set)
    rpcs = contract.rpcs(files)
    names = name_clusters(config.upstreams)
    reached = sorted({rpc.service for rpc in rpcs if not rpc.internal})
    checks = [
        *status_filter(rpcs),
        *rate_filter(config.limits, rpcs),
        *strict_filter(config, names[min(names)]),
    ]
    filters = http_filters(
        config, contract.for_transcoder(files), reached, sorted(set(names.values())), keys, checks
    )
    manager = _connection_manager(config, filters)
    manager["local_reply_config"] = local_replies(
        retry_seconds(config.limits, rpcs), foreign.paths(rpcs)
    )
    manager["route_config"] = {
        "virtual_hosts": [
            {
                "name": "plexus",
                "domains": ["*"],
                "routes": routes(rpcs, names, config),
                "typed_per_filter_config": cors_policy(config),
                # What a retry sends again is held until the reply begins.
                "request_body_buffer_limit": config.bounds.body_bytes,
            }
        ]
    }
    return {
        # Asked for by whatever follows a file; nobody is told.
        "node": {"id": "gateway", "cluster": "plexus"},
        "admin": {"address": {"pipe": {"path": str(config.admin_socket), "mode": 0o600}}},
        "overload_manager": overload(config.bounds),
        "layered_runtime": runtime(),
        "static_resources": {
            "listeners": [_listener(config, manager)],
            "clusters": clusters(config),
        },
    }


def _listener(config: GatewayConfig, manager: Json) -> Json:
    return {
        "name": "plexus",
        "address": {"socket_address": {"address": config.host, "port_value": config.port}},
        # Two gateways on one port would share its callers by chance.
        "enable_reuse_port": False,
        "per_connection_buffer_limit_bytes": CONNECTION_BUFFER_BYTES,
        # A connection that says nothing is closed long before an idle one.
        "listener_filters": [
            extension(
                "filters.listener.http_inspector",
                "extensions.filters.listener.http_inspector.v3.HttpInspector",
            )
        ],
        "listener_filters_timeout": seconds(config.bounds.header_seconds),
        "socket_options": _socket_options(config),
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": manager,
                    }
                ]
            }
        ],
    }


def _socket_options(config: GatewayConfig) -> list[Json]:
    """Cuts callers who read nothing: the kernel waits so long for a peer to take what is sent.

    No time-out of HTTP does that, since a stream may be silent for as long as a model thinks.
    """
    if sys.platform != "linux":
        return []
    return [
        {
            "description": "callers who do not read",
            "level": socket.IPPROTO_TCP,
            "name": socket.TCP_USER_TIMEOUT,
            "int_value": int(config.bounds.unread_seconds * 1000),
            "state": "STATE_PREBIND",
        }
    ]


def _connection_manager(config: GatewayConfig, filters: list[Json]) -> Json:
    bounds = config.bounds
    made = extension(
        "",
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="plexus",
        codec_type="AUTO",
        use_remote_address=True,
        normalize_path=True,
        merge_slashes=True,
        path_with_escaped_slashes_action="KEEP_UNCHANGED",
        server_header_transformation="PASS_THROUGH",
        request_headers_timeout=seconds(bounds.header_seconds),
        # Over when the request is whole or the reply begins: for clients that stream, whom their
        # RPC bounds, a module begins it as soon as it takes the call.
        request_timeout=seconds(bounds.request_seconds),
        stream_idle_timeout=seconds(bounds.request_seconds),
        drain_timeout=seconds(_DRAIN_SECONDS),
        max_request_headers_kb=bounds.header_kib,
        common_http_protocol_options={
            "idle_timeout": seconds(bounds.idle_connection_seconds),
            "max_connection_duration": seconds(bounds.connection_seconds),
            "max_headers_count": bounds.header_count,
            "headers_with_underscores_action": "REJECT_REQUEST",
        },
        http2_protocol_options={
            "max_concurrent_streams": bounds.streams_per_connection,
            "initial_stream_window_size": STREAM_WINDOW_BYTES,
            "initial_connection_window_size": CONNECTION_WINDOW_BYTES,
        },
        generate_request_id=True,
        always_set_request_id_in_response=True,
        early_header_mutation_extensions=[_strip()],
        access_log=[_access_log(config)],
        http_filters=filters,
    )
    return dict(made["typed_config"])


def _strip() -> Json:
    mutations: list[Json] = [{"remove": name} for name in _STRIPPED]
    mutations += [
        {"remove_on_match": {"key_matcher": {"prefix": prefix, "ignore_case": True}}}
        for prefix in _STRIPPED_PREFIXES
    ]
    return extension(
        "http.early_header_mutation.header_mutation",
        "extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
        mutations=mutations,
    )


def _access_log(config: GatewayConfig) -> Json:
    log = extension(
        "access_loggers.file",
        "extensions.access_loggers.file.v3.FileAccessLog",
        path=str(config.access_log_file),
        log_format={"json_format": _ACCESS_FIELDS},
    )
    # Probes come every few seconds and say nothing.
    return {**log, "filter": {"not_health_check_filter": {}}}
