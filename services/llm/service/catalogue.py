"""What a tenant can call: its own providers and routes, and those that all share."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.llm import store
from services.llm.domain.configuration import (
    DEFAULT_ROUTE,
    OFFLINE,
    ROUTE_PREFIX,
    Provider,
    Route,
    default_plan,
)
from services.llm.domain.generation import Model, unknown_model
from services.llm.domain.routing import Offer, Plan, Policy
from services.llm.lately import Lately, Record
from services.runtime.db import Database
from services.runtime.errors import NotFound
from services.runtime.resilience.window import Clock

# Less than the contract's two seconds until a change takes effect everywhere.
_FRESH_SECONDS = 1.5
_MAX_TENANTS = 1_000
_ROUTE = "route"
_MEASURED = (Policy.FASTEST, Policy.SCORE)


@dataclass(frozen=True, slots=True)
class Served:
    """A model, and who serves it under which name."""

    model: Model
    name_there: str
    provider: Provider


@dataclass(frozen=True, slots=True)
class View:
    """What one tenant can call.

    Attributes:
        served: By full name, the default first.
        aliases: Other names of models, to their full ones.
        routes: By name.
        by_class: By task class.
    """

    served: Mapping[str, Served]
    aliases: Mapping[str, str]
    routes: Mapping[str, Route]
    by_class: Mapping[str, Route]

    def find(self, name: str) -> Served:
        """A model by its name.

        Raises:
            NotFound: UNKNOWN_MODEL.
        """
        found = self.served.get(name) or self.served.get(self.aliases.get(name, ""))
        if found is None:
            raise unknown_model(name)
        return found

    def listed(self) -> list[Model]:
        """Every model, then every route as if it were one."""
        found = [each.model for each in self.served.values()]
        for name in (DEFAULT_ROUTE, *(each for each in self.routes if each != DEFAULT_ROUTE)):
            named = {each.model for each in self.route(name).candidates}
            windows = [each.context_window for each in found if each.name in named]
            found.append(Model(ROUTE_PREFIX + name, _ROUTE, min(windows, default=0)))
        return found

    def route(self, name: str) -> Plan:
        """What a route does, by its name.

        Raises:
            NotFound: There is no such route.
        """
        found = self.routes.get(name)
        if found is not None:
            return found.plan
        if name == DEFAULT_ROUTE:
            return default_plan([each.model for each in self.served.values()])
        raise NotFound(
            f"There is no route {name!r}. ListRoutes names those that there are.",
            reason="UNKNOWN_MODEL",
            metadata={"model": ROUTE_PREFIX + name},
        )

    def route_for(self, task_class: str) -> str:
        """The name of the route that takes requests of a class."""
        found = self.by_class.get(task_class)
        return found.name if found else DEFAULT_ROUTE


class Catalogue:
    """Everything that can be called, as far as it was asked for lately."""

    def __init__(
        self,
        database: Database,
        shared: Sequence[Provider],
        aliases: Mapping[str, str],
        lately: Lately,
        clock: Clock = time.monotonic,
    ) -> None:
        """Prepare one.

        Args:
            database: Where tenants' providers and routes are.
            shared: The operator's; the first one's first model is the default.
            aliases: Other names of models, to their full ones.
            lately: How models did.
            clock: Seconds.
        """
        self._database = database
        self.shared = shared
        self._aliases = aliases
        self._lately = lately
        self._clock = clock
        self._views: OrderedDict[str, tuple[float, View]] = OrderedDict()

    async def view(self, tenant_id: str) -> View:
        """What a tenant can call.

        Raises:
            Unavailable: The database cannot serve now, and it is not known.
        """
        now = self._clock()
        until, known = self._views.get(tenant_id, (0.0, None))
        if known is not None and now < until:
            return known
        if not tenant_id:  # the mesh itself, before it acts for one
            return self._made((), ())
        async with self._database.read((tenant_id,)) as connection:
            providers = await store.providers.all_of(connection, tenant_id)
            routes = await store.routes.all_of(connection, tenant_id)
        found = self._made(providers, routes)
        self._views[tenant_id] = (now + _FRESH_SECONDS, found)
        self._views.move_to_end(tenant_id)
        if len(self._views) > _MAX_TENANTS:
            self._views.popitem(last=False)
        return found

    def forget(self, tenant_id: str) -> None:
        """A tenant's configuration changed."""
        self._views.pop(tenant_id, None)

    def record(self, served: Served) -> Record:
        """How a model did lately."""
        return self._lately.of(served.provider.provider_id, served.name_there)

    def offers(self, view: View, plan: Plan) -> dict[str, Offer]:
        """What is known of a route's models."""
        found = {}
        for candidate in plan.candidates:
            served = view.served.get(candidate.model)
            if served is None:
                continue
            record, model = self.record(served), served.model
            found[model.name] = Offer(
                name=model.name,
                context_window=model.context_window,
                max_output_tokens=model.max_output_tokens,
                price=model.price,
                capabilities=model.capabilities,
                quality=model.quality,
                first_token=record.first_token if plan.policy in _MEASURED else None,
                open=record.open,
            )
        return found

    def _made(self, providers: Sequence[Provider], routes: Sequence[Route]) -> View:
        # The offline one is the default only where it is the only one.
        every = sorted((*self.shared, *providers), key=lambda each: each.provider_id == OFFLINE)
        served = {
            model.name: Served(model, spec.name, provider)
            for provider in every
            if provider.enabled
            for model, spec in zip(provider.served(), provider.models, strict=True)
        }
        return View(
            served=served,
            aliases=self._aliases,
            routes={each.name: each for each in routes},
            by_class={name: each for each in routes for name in each.task_classes},
        )
