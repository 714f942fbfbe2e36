"""Protocols of others: their RPCs say what the HTTP status of their reply is."""

from __future__ import annotations

import re
from collections.abc import Iterable

from gateway.contract import Rpc
from gateway.shapes import Json, extension, typed

_FILTER = "envoy.filters.http.lua"
# What a servicer sends as initial metadata comes as a header; nothing but Lua may set a status.
_SCRIPT = """
function envoy_on_response(handle)
  local status = handle:headers():get("x-http-status")
  if status ~= nil then
    handle:headers():replace(":status", status)
    handle:headers():remove("x-http-status")
  end
end
"""


def status_filter(rpcs: Iterable[Rpc]) -> list[Json]:
    """The filter, off on every route that does not turn it on."""
    if not any(rpc.foreign for rpc in rpcs):
        return []
    made = extension(
        "filters.http.lua",
        "extensions.filters.http.lua.v3.Lua",
        default_source_code={"inline_string": _SCRIPT},
    )
    return [{**made, "disabled": True}]


def status_route(rpc: Rpc) -> Json:
    """A route's part: it turns the filter on."""
    if not rpc.foreign:
        return {}
    return {_FILTER: typed("config.route.v3.FilterConfig", config={})}


def paths(rpcs: Iterable[Rpc]) -> str:
    """The REST paths of such RPCs, as an RE2 pattern; empty where there are none."""
    found = {
        re.escape(binding.template.partition("{")[0]) + (".*" if "{" in binding.template else "")
        for rpc in rpcs
        if rpc.foreign and not rpc.internal
        for binding in rpc.bindings
    }
    return f"({'|'.join(sorted(found))})(\\?.*)?" if found else ""
