"""Providers, routes and budgets."""

from __future__ import annotations

from plexus.llm.v1 import provider_pb2, route_pb2, usage_pb2

from services.llm.convert.generation import from_capabilities, from_price, to_limits
from services.llm.domain.configuration import (
    Budget,
    Provider,
    ProviderLimits,
    ProviderModel,
    Route,
    Spent,
    reset_time,
)
from services.llm.domain.routing import Candidate, Capability, Plan, Policy, Price, Weights
from services.runtime import clock


def from_provider(provider: Provider) -> provider_pb2.Provider:
    """A provider as the contract has it."""
    return provider_pb2.Provider(
        provider_id=provider.provider_id,
        name=provider.name,
        base_url=provider.base_url,
        key_hint=provider.key_hint,
        models=map(_from_provider_model, provider.models),
        limits=provider_pb2.ProviderLimits(
            max_concurrency=provider.limits.max_concurrency,
            silence_seconds=provider.limits.silence_seconds,
        ),
        shared=provider.shared,
        enabled=provider.enabled,
        version=provider.version,
        update_time=clock.to_timestamp(provider.update_time),
        updated_by=provider.updated_by,
        etag=provider.etag,
    )


def _from_provider_model(model: ProviderModel) -> provider_pb2.ProviderModel:
    return provider_pb2.ProviderModel(
        name=model.name,
        context_window=model.context_window,
        max_output_tokens=model.max_output_tokens,
        price=from_price(model.price),
        capabilities=from_capabilities(model.capabilities),
        quality=model.quality,
    )


def to_provider_model(model: provider_pb2.ProviderModel) -> ProviderModel:
    """A model as a provider serves it."""
    return ProviderModel(
        name=model.name,
        context_window=model.context_window,
        max_output_tokens=model.max_output_tokens,
        price=Price(model.price.input, model.price.output),
        capabilities=frozenset(map(Capability, model.capabilities)),
        quality=round(model.quality, 6),
    )


def to_provider_limits(limits: provider_pb2.ProviderLimits) -> ProviderLimits:
    """What all models of a provider share."""
    return ProviderLimits(limits.max_concurrency, round(limits.silence_seconds, 3))


def from_route(route: Route) -> route_pb2.Route:
    """A route as the contract has it."""
    plan = route.plan
    spec = route_pb2.RouteSpec(
        task_classes=route.task_classes,
        candidates=[
            route_pb2.RouteCandidate(model=each.model, weight=each.weight)
            for each in plan.candidates
        ],
        policy=route_pb2.RoutePolicy.ValueType(plan.policy.value),
        limits=route_pb2.RouteLimits(
            max_cost=plan.limits.max_cost, max_first_token_ms=plan.limits.max_first_token_ms
        ),
        weights=route_pb2.ScoreWeights(
            cost=plan.weights.cost, latency=plan.weights.latency, quality=plan.weights.quality
        ),
        hedge_after_ms=plan.hedge_after_ms,
    )
    return route_pb2.Route(
        route_id=route.route_id,
        name=route.name,
        spec=spec,
        update_time=clock.to_timestamp(route.update_time) if route.update_time else None,
        etag=route.etag,
    )


def to_plan(spec: route_pb2.RouteSpec) -> Plan:
    """What a route does."""
    weights = spec.weights
    return Plan(
        candidates=tuple(Candidate(each.model, each.weight) for each in spec.candidates),
        policy=Policy(spec.policy),
        limits=to_limits(spec.limits),
        weights=Weights(
            round(weights.cost, 6), round(weights.latency, 6), round(weights.quality, 6)
        ),
        hedge_after_ms=spec.hedge_after_ms,
    )


def from_budget(budget: Budget, spent: Spent, day: str) -> usage_pb2.Budget:
    """A budget as the contract has it, with what is spent of it on a day."""
    return usage_pb2.Budget(
        budget_id=budget.budget_id,
        subject=usage_pb2.BudgetSubject.ValueType(budget.subject.value),
        subject_id=budget.subject_id,
        period=usage_pb2.BudgetPeriod.ValueType(budget.period.value),
        max_cost=budget.max_cost,
        max_tokens=budget.max_tokens,
        spent_cost=spent.cost,
        spent_tokens=spent.tokens,
        reset_time=clock.to_timestamp(reset_time(budget.period, day)),
        etag=budget.etag,
    )
