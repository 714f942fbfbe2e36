"""What Envoy does when there is too much of something: memory, connections, resets."""

from __future__ import annotations

from gateway.config import Bounds
from gateway.shapes import Json, extension, seconds, typed

_HEAP = "envoy.resource_monitors.fixed_heap"
_CONNECTIONS = "envoy.resource_monitors.global_downstream_max_connections"
# Shares of the heap, in the order in which things are given up.
_SHORTEN, _SHRINK, _SHED, _REFUSE, _STOP = 0.85, 0.90, 0.95, 0.97, 0.98
_IDLE_SECONDS = 2
# A connection is closed once half so many streams ended by a reset within a second of their
# beginning, or later half of all that ended: opening and resetting costs the caller nothing, and
# others much.
_PREMATURE_RESETS, _PREMATURE_SECONDS = 200, 1


def overload(bounds: Bounds) -> Json:
    """Envoy's overload manager."""
    timeouts = typed(
        "config.overload.v3.ScaleTimersOverloadActionConfig",
        timer_scale_factors=[
            {"timer": "HTTP_DOWNSTREAM_CONNECTION_IDLE", "min_timeout": seconds(_IDLE_SECONDS)}
        ],
    )
    scaled = {"scaling_threshold": _SHORTEN, "saturation_threshold": _SHED}
    return {
        "refresh_interval": "0.250s",
        "resource_monitors": [
            extension(
                _HEAP.removeprefix("envoy."),
                "extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig",
                max_heap_size_bytes=bounds.heap_bytes,
            ),
            extension(
                _CONNECTIONS.removeprefix("envoy."),
                "extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                max_active_downstream_connections=bounds.connections,
            ),
        ],
        "actions": [
            {
                "name": "envoy.overload_actions.reduce_timeouts",
                "triggers": [{"name": _HEAP, "scaled": scaled}],
                "typed_config": timeouts,
            },
            _when("overload_actions.shrink_heap", _SHRINK),
            _when("overload_actions.stop_accepting_requests", _STOP),
        ],
        "loadshed_points": [
            _when("load_shed_points.http_connection_manager_decode_headers", _SHED),
            _when("load_shed_points.tcp_listener_accept", _REFUSE),
        ],
    }


def runtime() -> Json:
    """What Envoy has no other place for. No other layer, so nobody changes it while it runs."""
    values = {
        "overload.premature_reset_total_stream_count": _PREMATURE_RESETS,
        "overload.premature_reset_min_stream_lifetime_seconds": _PREMATURE_SECONDS,
    }
    return {"layers": [{"name": "plexus", "static_layer": values}]}


def _when(name: str, share: float) -> Json:
    return {
        "name": f"envoy.{name}",
        "triggers": [{"name": _HEAP, "threshold": {"value": share}}],
    }
