"""How often callers may call: what the contract calls a class, as Envoy's local rate limits."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.config import Limits
from gateway.contract import Rpc
from gateway.filters import CLAIMS
from gateway.shapes import Json, extension, seconds

_RATES = "plexus.rates"
# In a route's metadata: the class, under what its calls are counted by, and what one counts as.
_TENANT, _ADDRESS, _COST = "tenant", "address", "cost"
_ALWAYS = {"default_value": {"numerator": 100}}
# An address of IPv6 is one of many that its owner has.
_ADDRESS_BITS = {"v4_prefix_mask_len": 32, "v6_prefix_mask_len": 64}
_REFILLS_A_SECOND = 10


def rate_filter(limits: Limits, rpcs: Iterable[Rpc]) -> list[Json]:
    """The filter that counts; none where there is no limit."""
    costs = _costs(rpcs)
    by_class = [(name, rate) for name, rate in limits.of_class.items() if rate]
    if not by_class:
        return []
    namespace, _, claims = CLAIMS.rpartition(":")
    tenant = {
        "descriptor_key": _TENANT,
        "metadata_key": {"key": namespace, "path": [{"key": claims}, {"key": "tid"}]},
        "source": "DYNAMIC",
    }
    counted_by: dict[str, Json] = {
        _TENANT: {"metadata": tenant},
        _ADDRESS: {"masked_remote_address": _ADDRESS_BITS},
    }
    # A bucket for each class and each tenant or address: an entry without a value is any.
    keys = (_TENANT, "masked_remote_address")
    return [
        extension(
            "filters.http.local_ratelimit",
            "extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
            stat_prefix="plexus",
            filter_enabled={**_ALWAYS, "runtime_key": "plexus.rates.enabled"},
            filter_enforced={**_ALWAYS, "runtime_key": "plexus.rates.enforced"},
            max_dynamic_descriptors=limits.counted,
            rate_limits=[_counts(by, action, costs) for by, action in counted_by.items()],
            descriptors=[
                {
                    "entries": [{"key": "class", "value": name}, {"key": key}],
                    "token_bucket": _bucket(rate, limits.burst(name, costs.get(name, 1))),
                }
                for name, rate in by_class
                for key in keys
            ],
        )
    ]


def rate_route(limits: Limits, rpc: Rpc) -> Json:
    """A route's part: which limit its calls count against, and whose calls they are."""
    if not limits.of_class.get(rpc.rate_class):
        return {}
    by = _ADDRESS if rpc.public else _TENANT
    return {"metadata": {"filter_metadata": {_RATES: {by: rpc.rate_class, _COST: rpc.cost}}}}


def retry_seconds(limits: Limits, rpcs: Iterable[Rpc]) -> int:
    """What a caller that was refused is told to wait."""
    return limits.retry_seconds(max(_costs(rpcs).values(), default=1))


def _costs(rpcs: Iterable[Rpc]) -> dict[str, int]:
    """The most that one call of each class counts as."""
    costs: dict[str, int] = {}
    for rpc in rpcs:
        costs[rpc.rate_class] = max(costs.get(rpc.rate_class, 1), rpc.cost)
    return costs


def _counts(by: str, action: Json, costs: dict[str, int]) -> Json:
    rate_class = {
        "descriptor_key": "class",
        "metadata_key": {"key": _RATES, "path": [{"key": by}]},
        "source": "ROUTE_ENTRY",
    }
    # What cannot be filled in, since the route is counted by the other one, counts nothing.
    made: Json = {"actions": [{"metadata": rate_class}, action]}
    if max(costs.values(), default=1) > 1:
        made["hits_addend"] = {"format": f"%METADATA(ROUTE:{_RATES}:{_COST})%"}
    return made


def _bucket(rate: int, burst: int) -> Json:
    tokens = max(1, round(rate / _REFILLS_A_SECOND))
    return {
        "max_tokens": burst,
        "tokens_per_fill": tokens,
        "fill_interval": seconds(tokens / rate),
    }
