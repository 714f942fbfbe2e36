"""What tenants configure: providers, routes and budgets; their rules. Times are microseconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum

from services.llm.domain.generation import Model, limit_reached
from services.llm.domain.routing import Candidate, Capability, Plan, Price
from services.runtime.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidRequest,
    PermissionDenied,
)

MAX_PROVIDERS = 100
MAX_ROUTES = 100
MAX_BUDGETS = 10_000
OFFLINE = "offline"
DEFAULT_ROUTE = "default"
ROUTE_PREFIX = "route/"
DEFAULT_WINDOW = 128_000
DEFAULT_CONCURRENCY = 32
DEFAULT_SILENCE = 120.0
_HINT = 4
# A hint must leave most of a key unsaid.
_LEAST_KEY_FOR_HINT = 16


@dataclass(frozen=True, slots=True)
class ProviderModel:
    """A model as its provider serves it; see the contract for what zero means."""

    name: str
    context_window: int = 0
    max_output_tokens: int = 0
    price: Price = Price()
    capabilities: frozenset[Capability] = frozenset()
    quality: float = 0.0


@dataclass(frozen=True, slots=True)
class ProviderLimits:
    """How much may be asked of a provider at one time; zero is the default."""

    max_concurrency: int = 0
    silence_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider; `version` grows with every change.

    Attributes:
        tenant_id: Empty for the operator's, which all tenants share.
        sealed_key: Its key, sealed; empty where it has none.
    """

    provider_id: str
    tenant_id: str
    name: str
    base_url: str
    sealed_key: bytes
    key_hint: str
    models: tuple[ProviderModel, ...]
    limits: ProviderLimits
    enabled: bool
    version: int
    update_time: int
    updated_by: str

    @property
    def shared(self) -> bool:
        """Whether it is the operator's."""
        return not self.tenant_id

    @property
    def etag(self) -> str:
        """The version as callers see it."""
        return str(self.version)

    def served(self) -> list[Model]:
        """Its models as callers name them."""
        return [
            Model(
                name=f"{self.name}/{each.name}",
                provider=self.name,
                context_window=each.context_window or DEFAULT_WINDOW,
                max_output_tokens=each.max_output_tokens,
                price=each.price,
                capabilities=each.capabilities,
                quality=each.quality,
            )
            for each in self.models
        ]


@dataclass(frozen=True, slots=True)
class Route:
    """A route; `version` grows with every change."""

    route_id: str
    tenant_id: str
    name: str
    task_classes: tuple[str, ...]
    plan: Plan
    version: int
    update_time: int

    @property
    def etag(self) -> str:
        """The version as callers see it."""
        return str(self.version)


class Subject(Enum):
    """Whose calls count for a budget; the values are the contract's numbers."""

    TENANT = 1
    USER = 2
    AGENT = 3


class Period(Enum):
    """How long a budget lasts; the values are the contract's numbers."""

    DAY = 1
    MONTH = 2


@dataclass(frozen=True, slots=True)
class Budget:
    """A bound on what is spent; zero is no bound."""

    budget_id: str
    tenant_id: str
    subject: Subject
    subject_id: str
    period: Period
    max_cost: int
    max_tokens: int
    version: int

    @property
    def etag(self) -> str:
        """The version as callers see it."""
        return str(self.version)


@dataclass(frozen=True, slots=True)
class Spent:
    """What was spent, with what calls under way may still take."""

    cost: int = 0
    tokens: int = 0


def name_taken(what: str, name: str) -> AlreadyExists:
    """The error for a second of a name."""
    return AlreadyExists(
        f"There is a {what} {name!r} already.", reason="NAME_TAKEN", metadata={"name": name}
    )


def too_many(what: str, limit: str, bound: int) -> Exception:
    """The error for a tenant's bound on what it configures."""
    return limit_reached(f"The tenant has {bound:,} {what}, which is the most it can have.", limit)


def in_use(provider: str, route: str) -> FailedPrecondition:
    """The error for a provider that a route names."""
    return FailedPrecondition(
        f"The route {route!r} names a model of {provider!r}. Change the route first.",
        reason="IN_USE",
        metadata={"by": f"{ROUTE_PREFIX}{route}"},
    )


def require_own(provider: Provider) -> None:
    """Refuse to change what is the operator's.

    Raises:
        PermissionDenied: It is.
    """
    if provider.shared:
        raise PermissionDenied(
            f"{provider.name!r} is shared by this installation's operator, who alone changes it.",
            metadata={"permission": "providers.write"},
        )


def require_etag(asked: str, etag: str) -> None:
    """Refuse a change to another version than the one that is there.

    Raises:
        Aborted: It is another.
    """
    if asked not in ("", etag):
        raise Aborted("It changed since the etag was read. Read it and try again.")


def require_distinct(models: Sequence[ProviderModel]) -> None:
    """Refuse a model that is named twice.

    Raises:
        InvalidRequest: One is.
    """
    names = set()
    for place, each in enumerate(models):
        if each.name in names:
            raise InvalidRequest.field(f"models[{place}].name", f"{each.name!r} is there already")
        names.add(each.name)


def key_hint(key: str) -> str:
    """The end of a key, to tell keys apart; nothing of a short one."""
    return key[-_HINT:] if len(key) >= _LEAST_KEY_FOR_HINT else ""


def default_plan(models: Sequence[Model]) -> Plan:
    """The built-in route: every model that answers conversations, the default first.

    The offline one is among them only where it is the only one: what it quotes is no substitute for
    what a language model was to write.
    """
    silent = {Capability.EMBEDDINGS, Capability.MODERATION}
    talking = [each for each in models if not each.capabilities & silent]
    large = [each for each in talking if each.provider != OFFLINE]
    return Plan(tuple(Candidate(each.name) for each in large or talking))


def day_of(time: int) -> str:
    """The day in UTC of a time, such as `2026-11-21`."""
    return datetime.fromtimestamp(time / 1_000_000, UTC).strftime("%Y-%m-%d")


def first_day(period: Period, day: str) -> str:
    """The first day of the period that a day is in."""
    return day if period is Period.DAY else f"{day[:7]}-01"


def reset_time(period: Period, day: str) -> int:
    """When the period after the one of a day begins."""
    first = datetime.fromisoformat(first_day(period, day)).replace(tzinfo=UTC)
    if period is Period.DAY:
        after = first + timedelta(days=1)
    else:
        after = (first + timedelta(days=32)).replace(day=1)
    return int(after.timestamp()) * 1_000_000
