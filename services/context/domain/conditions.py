"""What entries of the index must be, apart from how an index is asked.

Written out, a condition has the form of a filter of Qdrant's REST interface, which both backends
take apart. Truths are kept as words: an index takes `true` for 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Plain = dict[str, Any]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """The field has one of these values; none of them is no entry."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Within:
    """The field's number is between bounds; a bound that is None is open."""

    key: str
    gt: float | None = None
    gte: float | None = None
    lt: float | None = None
    lte: float | None = None


@dataclass(frozen=True, slots=True)
class Present:
    """The field is there."""

    key: str


@dataclass(frozen=True, slots=True)
class Both:
    """All of them hold; none is everything."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """One of them holds; none is nothing."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """It does not hold, also where the field is not there."""

    part: Condition


Condition = AnyOf | Within | Present | Both | Either | Not


def equal(key: str, value: str) -> AnyOf:
    """The field has this value."""
    return AnyOf(key, (value,))


def plain(condition: Condition) -> Plain:
    """As a filter of Qdrant's REST interface, or a condition of one."""
    match condition:
        case AnyOf(key, values):
            # An index may take an empty list for no condition at all.
            return {"key": key, "match": {"any": list(values)}} if values else _NOTHING
        case Within(key, gt, gte, lt, lte):
            bounds = {"gt": gt, "gte": gte, "lt": lt, "lte": lte}
            return {"key": key, "range": {k: v for k, v in bounds.items() if v is not None}}
        case Present(key):
            return {"must_not": [{"is_empty": {"key": key}}]}
        case Both(parts):
            return {"must": [plain(part) for part in parts]} if parts else _EVERYTHING
        case Either(parts):
            return {"should": [plain(part) for part in parts]} if parts else _NOTHING
        case Not(part):
            return {"must_not": [plain(part)]}


# The field that every entry has, and a value that none has.
TENANT = "tenant"
_NOTHING: Plain = {"key": TENANT, "match": {"any": ["\x00"]}}
_EVERYTHING: Plain = {"must_not": [_NOTHING]}


def of_tenant(tenant_id: str, condition: Condition) -> Plain:
    """A filter that begins with whose the entries are."""
    return plain(Both((equal(TENANT, tenant_id), condition)))


def holds(condition: Condition, payload: Mapping[str, Any]) -> bool:
    """Whether an entry is what it must be: the same rules without an index."""
    match condition:
        case AnyOf(key, values):
            return not set(values).isdisjoint(_list(payload.get(key)))
        case Within(key, gt, gte, lt, lte):
            return any(
                (gt is None or each > gt)
                and (gte is None or each >= gte)
                and (lt is None or each < lt)
                and (lte is None or each <= lte)
                for each in _list(payload.get(key))
            )
        case Present(key):
            return bool(_list(payload.get(key)))
        case Both(parts):
            return all(holds(part, payload) for part in parts)
        case Either(parts):
            return any(holds(part, payload) for part in parts)
        case Not(part):
            return not holds(part, payload)


def _list(value: Any) -> Sequence[Any]:
    if value is None:
        return ()
    return value if isinstance(value, (list, tuple)) else (value,)
