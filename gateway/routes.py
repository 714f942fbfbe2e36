"""The routes: one for each RPC over gRPC, one for each of its REST paths, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from gateway.config import GatewayConfig
from gateway.contract import Binding, Rpc
from gateway.errors import GatewayError
from gateway.filters import ANONYMOUS, BODY_LIMIT, UNREAD, jwt_route
from gateway.foreign import status_route
from gateway.headers import REST_HEADERS, added, replaced
from gateway.limits import rate_route
from gateway.shapes import Json, extension, seconds, typed
from gateway.strict import strict_route

# The service ends a stream at its deadline and says why; the gateway cuts what is still open,
# for which HTTP has no words once the reply has begun.
STREAM_GRACE_SECONDS = 1
# gRPC's own services, which no contract of ours bounds. The packaged server of Python speaks the
# older reflection; tools ask for the newer one first and fall back.
_HEALTH = "grpc.health.v1.Health"
_HEALTH_SECONDS = 5
_REFLECTION = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
_REFLECTION_SECONDS = 60
# What cannot have run, and what may have run: the second only where the contract allows it.
SAFE_RETRIES = "connect-failure,refused-stream,reset-before-request"
REPEATABLE_RETRIES = f"{SAFE_RETRIES},unavailable,reset"
_RETRIES = 4
_TRY_SHARE = 0.4
_BACK_OFF = {"base_interval": "0.010s", "max_interval": "0.100s"}
_OTHER_HOSTS_ATTEMPTS = 10
_SEGMENT = re.compile(r"\{(?P<name>[^=}]+)(?:=(?P<pattern>[^}]+))?\}")


def routes(rpcs: Iterable[Rpc], cluster_of: Mapping[str, str], config: GatewayConfig) -> list[Json]:
    """Every route, the most specific path first, then the refusal of all else.

    Raises:
        GatewayError: An RPC's module has no endpoint, or a path template cannot be read.
    """
    rest: list[tuple[object, Json]] = []
    native: list[Json] = []
    # One server answers for the mesh: in every shape each process knows all contracts.
    first = cluster_of[min(cluster_of)]
    # By the path as Envoy matches it, and how specific it is.
    verbs: dict[tuple[tuple[int, ...], str], set[str]] = {}
    for rpc in rpcs:
        if rpc.internal:
            continue
        if rpc.module not in cluster_of:
            raise GatewayError(f"{rpc.path} has no endpoint: the module {rpc.module} is missing")
        cluster = cluster_of[rpc.module]
        native.append(_native(rpc, cluster, config))
        for binding in rpc.bindings:
            asked = strict_route(config, rpc, binding, None if cluster == first else cluster)
            order = specificity(binding.template)
            rest.append((order, _rest(rpc, binding, cluster, config, asked)))
            path = tuple(rank for rank, _ in order), template_regex(binding.template)
            verbs.setdefault(path, set()).add(binding.method)
    rest.sort(key=lambda pair: pair[0])  # type: ignore[arg-type, return-value]
    return [
        *native,
        *_utilities(first, config),
        *(route for _, route in rest),
        _preflight(first),
        *(_other_verbs(path, verbs[rank, path]) for rank, path in sorted(verbs)),
        _nothing_else(),
    ]


def template_regex(template: str) -> str:
    """The paths that a template of google.api.http matches, as an RE2 pattern."""
    pattern, at = "", 0
    for found in _SEGMENT.finditer(template):
        pattern += re.escape(template[at : found.start()])
        pattern += "/".join(_part(part) for part in (found["pattern"] or "*").split("/"))
        at = found.end()
    return pattern + re.escape(template[at:])


def specificity(template: str) -> tuple[tuple[int, str], ...]:
    """A key that sorts a fixed segment before a variable one, and `{id}:verb` before `{id}`."""
    return tuple(
        (0 if "{" not in segment else 2 if segment.endswith("}") else 1, segment)
        for segment in re.sub(r"=[^}]*", "", template).split("/")
    )


def _part(part: str) -> str:
    return {"*": "[^/]+", "**": ".+"}.get(part, re.escape(part))


def _native(rpc: Rpc, cluster: str, config: GatewayConfig) -> Json:
    match = {"path": rpc.path, "headers": [_content_type(grpc=True)]}
    made = {**_route(rpc, match, cluster, config, rest=False), **rate_route(config.limits, rpc)}
    if rpc.client_streaming and rpc.bounded_apart:
        # Each of its messages is bounded where it is served, and so is what they are in all.
        unbounded = {BODY_LIMIT: typed("config.route.v3.FilterConfig", disabled=True)}
        own = made.get("typed_per_filter_config", {})
        made["typed_per_filter_config"] = {**own, **unbounded}
    return made


def _rest(rpc: Rpc, binding: Binding, cluster: str, config: GatewayConfig, asked: Json) -> Json:
    path: Json = {"path": binding.template}
    if "{" in binding.template:
        path = {"safe_regex": {"regex": template_regex(binding.template)}}
    method = {"name": ":method", "string_match": {"exact": binding.method}}
    match = {**path, "headers": [method, _content_type(grpc=False)]}
    made = {**_route(rpc, match, cluster, config, rest=True), **rate_route(config.limits, rpc)}
    asked = {**asked, **status_route(rpc)}
    if asked:
        made["typed_per_filter_config"] = {**made.get("typed_per_filter_config", {}), **asked}
    return made


def _content_type(*, grpc: bool) -> Json:
    """Tells gRPC and gRPC-Web from everything else, requests without the header included."""
    return {
        "name": "content-type",
        "string_match": {"prefix": "application/grpc"},
        "treat_missing_header_as_empty": True,
        "invert_match": not grpc,
    }


def _route(rpc: Rpc, match: Json, cluster: str, config: GatewayConfig, *, rest: bool) -> Json:
    places = config.upstreams.get(rpc.module, ())
    several = len(places) > 1 or any(place.named for place in places)
    action: Json = {
        "cluster": cluster,
        **_times(rpc, rest=rest),
        "retry_policy": _retries(rpc, several=several),
    }
    made: Json = {"name": rpc.path, "match": match, "route": action, **jwt_route(public=rpc.public)}
    if rest or not rpc.streaming:
        # Envoy hands on the time that is left. At the end of a unary call it would then race the
        # module's gRPC library, whose error has no reason; this way the gateway always answers.
        made["request_headers_to_remove"] = ["grpc-timeout"]
    if rest:
        made["response_headers_to_add"] = added(REST_HEADERS)
        made["response_headers_to_remove"] = ["grpc-accept-encoding"]
    return made


def _times(rpc: Rpc, *, rest: bool) -> Json:
    """The time-outs. A gRPC caller's own is obeyed up to the deadline; over REST there is none."""
    whole = seconds(rpc.deadline + (STREAM_GRACE_SECONDS if rpc.streaming else 0))
    bounds: Json = {"max_stream_duration": whole}
    if not rest:
        bounds["grpc_timeout_header_max"] = whole
    return {
        # Envoy does not look at it beside `max_stream_duration`.
        "timeout": "0s",
        # A stream may be silent for as long as it may live: a model thinks.
        "idle_timeout": whole,
        "max_stream_duration": bounds,
    }


def _retries(rpc: Rpc, *, several: bool) -> Json:
    hung: Json = {}
    if several and rpc.repeatable and not rpc.streaming:
        # A process that hangs keeps its connections and answers nothing; another may.
        hung["per_try_timeout"] = seconds(rpc.deadline * _TRY_SHARE)
    return {
        **hung,
        "retry_on": REPEATABLE_RETRIES if rpc.repeatable else SAFE_RETRIES,
        "num_retries": _RETRIES,
        "retry_back_off": _BACK_OFF,
        "retry_host_predicate": [
            extension(
                "retry_host_predicates.previous_hosts",
                "extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
            )
        ],
        "host_selection_retry_max_attempts": _OTHER_HOSTS_ATTEMPTS,
    }


def _utilities(cluster: str, config: GatewayConfig) -> list[Json]:
    """GRPC's own services: a look at health for anyone; what stays open, for callers alone."""
    check = _utility(_HEALTH, "Check", deadline=_HEALTH_SECONDS, public=True)
    longest = config.bounds.utility_stream_seconds
    watch = _utility(_HEALTH, "Watch", deadline=longest, public=False)
    reflect = [
        _utility(name, "ServerReflectionInfo", deadline=_REFLECTION_SECONDS, public=False)
        for name in _REFLECTION
    ]
    return [_native(rpc, cluster, config) for rpc in (check, watch, *reflect)]


def _utility(service: str, name: str, *, deadline: float, public: bool) -> Rpc:
    return Rpc(
        service=service,
        name=name,
        deadline=deadline,
        public=public,
        internal=False,
        repeatable=True,
        client_streaming=service != _HEALTH,
        server_streaming=name != "Check",
        bindings=(),
        rate_class="READ",
    )


def _preflight(cluster: str) -> Json:
    """The question of a browser before its request, which the CORS filter answers.

    It does so only on a route with a cluster. Where it does not, since the origin is not allowed,
    the transcoder refuses the request: nothing gets to that cluster.
    """
    asked = ("origin", "access-control-request-method")
    return {
        "name": "preflight",
        "match": {
            "prefix": "/",
            "headers": [
                {"name": ":method", "string_match": {"exact": "OPTIONS"}},
                *({"name": name, "present_match": True} for name in asked),
                _content_type(grpc=False),
            ],
        },
        "route": {"cluster": cluster},
        "typed_per_filter_config": ANONYMOUS,
    }


def _other_verbs(path: str, verbs: Iterable[str]) -> Json:
    """A path that is there, asked with a verb that is not; HEAD too, which would cost as GET does.

    The templates are no secret, so nobody needs a token to be told.
    """
    return {
        "name": "other-verbs",
        "match": {"safe_regex": {"regex": path}, "headers": [_content_type(grpc=False)]},
        "direct_response": {"status": 405},
        "response_headers_to_add": replaced({"allow": ", ".join(sorted(verbs))}),
        "typed_per_filter_config": UNREAD,
    }


def _nothing_else() -> Json:
    return {
        "name": "nothing-else",
        "match": {"prefix": "/"},
        "direct_response": {"status": 404},
        "typed_per_filter_config": ANONYMOUS,
    }
