"""The HTTP filters, in the order in which a request passes them."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence

from gateway.config import GatewayConfig
from gateway.shapes import Json, extension, typed

HEALTH_PATH = "/healthz"
JWT = "envoy.filters.http.jwt_authn"
_JWT_TYPE = "extensions.filters.http.jwt_authn.v3"
_PROVIDER = "plexus"
_OPTIONAL = "optional"
# Where the access log finds the claims.
CLAIMS = f"{JWT}:claims"
# Between the clocks of two machines; the services have the last word.
_CLOCK_SKEW_SECONDS = 5
_CACHED_TOKENS = 1000
# One host that answers is enough to serve.
_HEALTHY_PERCENT = 1
# Every host and port by which a browser on this machine can name it.
LOOPBACK_ORIGINS = r"https?://(localhost|[a-z0-9-]+\.localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?"
_CORS_METHODS = "GET, POST, PUT, PATCH, DELETE, OPTIONS"
_CORS_REQUEST_HEADERS = (
    "authorization, content-type, grpc-timeout, traceparent, tracestate, x-grpc-web, x-user-agent"
)
_CORS_REPLY_HEADERS = (
    "grpc-status, grpc-message, grpc-status-details-bin, retry-after, x-request-id"
)
_CORS_SECONDS = "86400"
_TRANSCODER = "envoy.filters.http.grpc_json_transcoder"
# A route without any requirement, for what tells nothing: the refusal of unknown paths.
ANONYMOUS: Json = {JWT: typed(f"{_JWT_TYPE}.PerRouteConfig", disabled=True)}
# The same past the transcoder, which would say of a verb that it does not know the path.
UNREAD: Json = {**ANONYMOUS, _TRANSCODER: typed("config.route.v3.FilterConfig", disabled=True)}


def jwt_route(*, public: bool) -> Json:
    """A route's part about tokens: left out, the filter asks for one."""
    if not public:
        return {}
    # A caller with a token is known in the access log; one with a bad token is let through too.
    config = typed(f"{_JWT_TYPE}.PerRouteConfig", requirement_name=_OPTIONAL)
    return {"typed_per_filter_config": {JWT: config}}


BODY_LIMIT = "envoy.filters.http.body_size_limit"


def http_filters(
    config: GatewayConfig,
    descriptor_set: bytes,
    services: Sequence[str],
    clusters: Iterable[str],
    keys: str | None,
    checks: Sequence[Json] = (),
) -> list[Json]:
    """Every filter.

    Args:
        config: Bounds and trust.
        descriptor_set: All that the transcoder knows.
        services: What it may reach.
        clusters: Whose health is the gateway's.
        keys: The key set; without it Envoy follows `config.token_file`.
        checks: Filters for requests whose token is good, before they become messages.
    """
    return [
        _health(clusters),
        extension("filters.http.cors", "extensions.filters.http.cors.v3.Cors"),
        # Before anything that may refuse, so that a refusal reaches the caller as gRPC-Web.
        extension("filters.http.grpc_web", "extensions.filters.http.grpc_web.v3.GrpcWeb"),
        extension(
            "filters.http.body_size_limit",
            "extensions.filters.http.body_size_limit.v3.BodySizeLimit",
            max_request_bytes=config.bounds.body_bytes,
        ),
        _tokens(config, keys),
        *checks,
        _transcoder(config, descriptor_set, services),
        extension(
            "filters.http.router",
            "extensions.filters.http.router.v3.Router",
            suppress_envoy_headers=True,
        ),
    ]


def cors_policy(config: GatewayConfig) -> Json:
    """Which browsers may call. Tokens travel in a header of their own, so no cookies."""
    origins: list[Json] = [{"exact": origin} for origin in config.cors_origins]
    if config.allow_loopback_origins:
        origins.append({"safe_regex": {"regex": LOOPBACK_ORIGINS}})
    return {
        "envoy.filters.http.cors": typed(
            "extensions.filters.http.cors.v3.CorsPolicy",
            allow_origin_string_match=origins,
            allow_methods=_CORS_METHODS,
            allow_headers=_CORS_REQUEST_HEADERS,
            expose_headers=_CORS_REPLY_HEADERS,
            max_age=_CORS_SECONDS,
        )
    }


def _health(clusters: Iterable[str]) -> Json:
    return extension(
        "filters.http.health_check",
        "extensions.filters.http.health_check.v3.HealthCheck",
        pass_through_mode=False,
        headers=[{"name": ":path", "string_match": {"exact": HEALTH_PATH}}],
        cluster_min_healthy_percentages={name: {"value": _HEALTHY_PERCENT} for name in clusters},
    )


def token_filter(config: GatewayConfig, keys: str) -> Json:
    """The filter that verifies tokens by a key set."""
    provider = {
        "issuer": config.issuer,
        "audiences": [config.audience],
        "require_expiration": True,
        "clock_skew_seconds": _CLOCK_SKEW_SECONDS,
        # The services verify again: they trust no edge.
        "forward": True,
        # Verifying a signature costs more than all else here; a changed key set empties the cache.
        "jwt_cache_config": {"jwt_cache_size": _CACHED_TOKENS},
        "payload_in_metadata": CLAIMS.rpartition(":")[2],
        # Said, since the default takes tokens from the query too, where logs keep them.
        "from_headers": [
            {"name": "authorization", "value_prefix": scheme} for scheme in ("Bearer ", "bearer ")
        ],
        "local_jwks": {"inline_string": keys},
    }
    either = [{"provider_name": _PROVIDER}, {"allow_missing_or_failed": {}}]
    return typed(
        f"{_JWT_TYPE}.JwtAuthentication",
        providers={_PROVIDER: provider},
        # A route that says nothing needs a token.
        rules=[{"match": {"prefix": "/"}, "requires": {"provider_name": _PROVIDER}}],
        requirement_map={_OPTIONAL: {"requires_any": {"requirements": either}}},
    )


def _tokens(config: GatewayConfig, keys: str | None) -> Json:
    if keys is not None:
        return {"name": JWT, "typed_config": token_filter(config, keys)}
    watched = {"path": str(config.run_dir)}
    source = {"path": str(config.token_file), "watched_directory": watched}
    kind = typed(f"{_JWT_TYPE}.JwtAuthentication")["@type"]
    return {
        "name": JWT,
        "config_discovery": {
            "config_source": {"path_config_source": source, "resource_api_version": "V3"},
            "type_urls": [kind],
        },
    }


def _transcoder(config: GatewayConfig, descriptor_set: bytes, services: Sequence[str]) -> Json:
    return extension(
        _TRANSCODER.removeprefix("envoy."),
        "extensions.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder",
        proto_descriptor_bin=base64.b64encode(descriptor_set).decode(),
        services=list(services),
        convert_grpc_status=True,
        # The route of the REST path stays, with its time-outs and its requirement.
        match_incoming_request_route=True,
        max_request_body_size=config.bounds.body_bytes,
        max_response_body_size=config.bounds.reply_bytes,
        print_options={
            # A client need not tell an absent 0 from a forgotten field.
            "always_print_primitive_fields": True,
            "preserve_proto_field_names": True,
            "stream_newline_delimited": True,
            "stream_sse_style_delimited": True,
        },
        request_validation_options={
            "reject_unknown_method": True,
            "reject_unknown_query_parameters": True,
            "reject_binding_body_field_collisions": True,
        },
    )
