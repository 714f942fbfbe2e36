"""Providers, routes, budgets and usage as they are served: real interceptors, generated stubs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from plexus.llm.v1 import (
    capability_service_pb2,
    generation_pb2,
    llm_service_pb2,
    model_pb2,
    provider_pb2,
    provider_service_pb2,
    route_pb2,
    route_service_pb2,
    usage_pb2,
    usage_service_pb2,
)
from plexus.llm.v1.capability_service_pb2_grpc import CapabilityServiceStub
from plexus.llm.v1.llm_service_pb2_grpc import LlmServiceStub
from plexus.llm.v1.provider_service_pb2_grpc import ProviderServiceStub
from plexus.llm.v1.route_service_pb2_grpc import RouteServiceStub
from plexus.llm.v1.usage_service_pb2_grpc import UsageServiceStub
from plexus.options.v1.options_pb2 import Role

from services.runtime.context import Principal, acting_as
from services.runtime.errors import PlexusError
from services.runtime.status import from_rpc_error
from tests.services.llm import scripted_openai as scripts
from tests.services.llm.scripted_openai import ScriptedOpenAi
from tests.support import Served, served, settings_in

ADMIN = Principal("ten_1", "usr_1", "tok_1", frozenset({Role.ROLE_ADMIN}))
OTHER = Principal("ten_2", "usr_2", "tok_2", frozenset({Role.ROLE_ADMIN}))
KEY = "sk-0123456789abcdef-wxyz"


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Served]:
    """The module, which may call this machine."""
    async with served(settings_in(tmp_path, egress_allow="127.0.0.1"), ["llm"]) as found:
        yield found


@pytest.fixture(autouse=True)
def admin() -> Iterator[None]:
    """Somebody who configures."""
    with acting_as(ADMIN):
        yield


def providers(mesh: Served) -> ProviderServiceStub:
    return ProviderServiceStub(mesh.clients.channel("llm"))


def routes(mesh: Served) -> RouteServiceStub:
    return RouteServiceStub(mesh.clients.channel("llm"))


def usage(mesh: Served) -> UsageServiceStub:
    return UsageServiceStub(mesh.clients.channel("llm"))


def spec(url: str, *models: str, **values: Any) -> provider_pb2.ProviderSpec:
    price = provider_pb2.ModelPrice(input=1_000_000, output=4_000_000)
    named = [
        provider_pb2.ProviderModel(
            name=each, price=price, capabilities=[provider_pb2.CAPABILITY_TOOLS]
        )
        for each in models or ("tiny",)
    ]
    return provider_pb2.ProviderSpec(base_url=url, api_key=KEY, models=named, **values)


async def create(mesh: Served, name: str, url: str, key: str = "") -> provider_pb2.Provider:
    made = await providers(mesh).CreateProvider(
        provider_service_pb2.CreateProviderRequest(name=name, spec=spec(url), idempotency_key=key)
    )
    return made.provider


async def error_of(call: Any) -> PlexusError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return from_rpc_error(raised.value)


async def say(mesh: Served, model: str, **values: Any) -> list[generation_pb2.GenerateResponse]:
    messages = [model_pb2.ModelMessage(role=model_pb2.MESSAGE_ROLE_USER, text="Hi")]
    request = generation_pb2.GenerateRequest(model=model, messages=messages, **values)
    stub = LlmServiceStub(mesh.clients.channel("llm"))
    return [each async for each in stub.Generate(request)]


async def test_a_provider_is_made_called_changed_and_removed(
    mesh: Served, upstream: ScriptedOpenAi
) -> None:
    made = await create(mesh, "mine", upstream.url)
    assert (made.key_hint, made.version, made.enabled, made.shared) == ("wxyz", 1, True, False)
    assert KEY not in str(made)
    assert (await say(mesh, "mine/tiny"))[0].started.model == "mine/tiny"
    assert upstream.last.headers["authorization"] == f"Bearer {KEY}"
    stub = providers(mesh)
    changed = await stub.UpdateProvider(
        provider_service_pb2.UpdateProviderRequest(
            provider_id=made.provider_id, api_key="short", etag=made.etag
        )
    )
    assert (changed.provider.version, changed.provider.key_hint) == (2, "")
    await say(mesh, "mine/tiny")
    assert upstream.last.headers["authorization"] == "Bearer short"
    before = await stub.GetProvider(
        provider_service_pb2.GetProviderRequest(provider_id=made.provider_id, version=1)
    )
    assert before.provider == made
    stale = provider_service_pb2.UpdateProviderRequest(
        provider_id=made.provider_id, enabled=False, etag=made.etag
    )
    assert (await error_of(stub.UpdateProvider(stale))).reason == "STALE_ETAG"
    await stub.DeleteProvider(
        provider_service_pb2.DeleteProviderRequest(provider_id=made.provider_id)
    )
    assert (await error_of(_consume(mesh, "mine/tiny"))).reason == "UNKNOWN_MODEL"
    gone = provider_service_pb2.GetProviderRequest(provider_id=made.provider_id)
    assert (await error_of(stub.GetProvider(gone))).reason == "NOT_FOUND"


async def _consume(mesh: Served, model: str) -> None:
    await say(mesh, model)


async def test_a_key_does_not_follow_its_provider_to_another_address(
    mesh: Served, upstream: ScriptedOpenAi
) -> None:
    made = await create(mesh, "mine", upstream.url)
    moved = provider_service_pb2.UpdateProviderRequest(
        provider_id=made.provider_id, base_url="http://127.0.0.1:9/v1"
    )
    error = await error_of(providers(mesh).UpdateProvider(moved))
    assert [each.field for each in error.violations] == ["api_key"]


async def test_a_repeated_creation_is_one_provider(mesh: Served, upstream: ScriptedOpenAi) -> None:
    first = await create(mesh, "mine", upstream.url, key="k")
    assert await create(mesh, "mine", upstream.url, key="k") == first
    again = create(mesh, "mine", upstream.url)
    error = await error_of(again)
    assert (error.reason, error.metadata["name"]) == ("NAME_TAKEN", "mine")
    shared = await error_of(
        providers(mesh).CreateProvider(
            provider_service_pb2.CreateProviderRequest(name="offline", spec=spec(upstream.url))
        )
    )
    assert shared.reason == "INVALID_REQUEST"


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1/v1",
        "http://169.254.169.254/latest",
        "http://[::1]:5000/v1",
        "http://[::ffff:10.0.0.1]/v1",
        "http://0x0a000001/v1",
    ],
)
async def test_inner_addresses_are_refused(mesh: Served, url: str) -> None:
    assert (await error_of(create(mesh, "mine", url))).reason == "ADDRESS_REFUSED"


@pytest.mark.parametrize(
    "url", ["ftp://example.com/", "file:///etc/passwd", "http://u:p@127.0.0.1/"]
)
async def test_what_is_no_plain_web_address_is_refused(mesh: Served, url: str) -> None:
    assert (await error_of(create(mesh, "mine", url))).reason == "INVALID_REQUEST"


async def test_pages_begin_with_the_shared_ones(mesh: Served, upstream: ScriptedOpenAi) -> None:
    for number in range(3):
        await create(mesh, f"mine-{number}", upstream.url)
    seen, token = [], ""
    while True:
        page = await providers(mesh).ListProviders(
            provider_service_pb2.ListProvidersRequest(page_size=2, page_token=token)
        )
        seen += [each.name for each in page.providers]
        token = page.next_page_token
        if not token:
            break
    assert seen == ["offline", "mine-2", "mine-1", "mine-0"]
    shared = provider_service_pb2.DeleteProviderRequest(provider_id="offline")
    assert (await error_of(providers(mesh).DeleteProvider(shared))).reason == "PERMISSION_DENIED"


async def test_another_tenant_sees_nothing(mesh: Served, upstream: ScriptedOpenAi) -> None:
    made = await create(mesh, "mine", upstream.url)
    with acting_as(OTHER):
        get = provider_service_pb2.GetProviderRequest(provider_id=made.provider_id)
        assert (await error_of(providers(mesh).GetProvider(get))).reason == "NOT_FOUND"
        assert (await error_of(_consume(mesh, "mine/tiny"))).reason == "UNKNOWN_MODEL"
        listed = await LlmServiceStub(mesh.clients.channel("llm")).ListModels(
            llm_service_pb2.ListModelsRequest()
        )
        assert [each.name for each in listed.models] == ["offline/extractive", "route/default"]
        await create(mesh, "mine", upstream.url)


def route(*models: str, **values: Any) -> route_pb2.RouteSpec:
    return route_pb2.RouteSpec(
        candidates=[route_pb2.RouteCandidate(model=each) for each in models],
        policy=route_pb2.ROUTE_POLICY_FIXED,
        **values,
    )


async def test_a_route_is_made_used_changed_and_removed(
    mesh: Served, upstream: ScriptedOpenAi
) -> None:
    made = await create(mesh, "mine", upstream.url)
    stub = routes(mesh)
    request = route_service_pb2.CreateRouteRequest(
        name="fast", spec=route("mine/tiny", task_classes=["code"]), idempotency_key="k"
    )
    created = (await stub.CreateRoute(request)).route
    assert (await stub.CreateRoute(request)).route == created
    started = (await say(mesh, "route/fast"))[0].started
    assert (started.model, started.route) == ("mine/tiny", "fast")
    assert started.policy == route_pb2.ROUTE_POLICY_FIXED
    started = (await say(mesh, "", task_class="code"))[0].started
    assert (started.route, started.task_class) == ("fast", "code")
    delete = provider_service_pb2.DeleteProviderRequest(provider_id=made.provider_id)
    error = await error_of(providers(mesh).DeleteProvider(delete))
    assert (error.reason, error.metadata["by"]) == ("IN_USE", "route/fast")
    taken = route_service_pb2.CreateRouteRequest(
        name="other", spec=route("mine/tiny", task_classes=["code"])
    )
    assert (await error_of(stub.CreateRoute(taken))).reason == "NAME_TAKEN"
    unknown = route_service_pb2.CreateRouteRequest(name="bad", spec=route("no/such"))
    assert (await error_of(stub.CreateRoute(unknown))).reason == "UNKNOWN_MODEL"
    changed = await stub.UpdateRoute(
        route_service_pb2.UpdateRouteRequest(
            route_id=created.route_id, spec=route("offline/extractive"), etag=created.etag
        )
    )
    assert changed.route.etag != created.etag
    assert (await say(mesh, "route/fast"))[0].started.model == "offline/extractive"
    listed = await stub.ListRoutes(route_service_pb2.ListRoutesRequest())
    assert [each.name for each in listed.routes] == ["default", "fast"]
    assert (await stub.GetRoute(route_service_pb2.GetRouteRequest(route_id="default"))).route
    await stub.DeleteRoute(route_service_pb2.DeleteRouteRequest(route_id=created.route_id))
    assert (await error_of(_consume(mesh, "route/fast"))).reason == "UNKNOWN_MODEL"


async def test_usage_adds_up_by_what_is_asked(mesh: Served, upstream: ScriptedOpenAi) -> None:
    await create(mesh, "mine", upstream.url)
    await asyncio.gather(*(say(mesh, "mine/tiny") for _ in range(5)))
    await say(mesh, "offline/extractive")
    by = [usage_pb2.USAGE_DIMENSION_MODEL, usage_pb2.USAGE_DIMENSION_USER]
    found = await usage(mesh).ListUsage(usage_service_pb2.ListUsageRequest(group_by=by))
    rows = [(each.model, each.user_id, each.calls) for each in found.rows]
    assert rows == [("mine/tiny", "usr_1", 5), ("offline/extractive", "usr_1", 1)]
    mine = found.rows[0]
    assert (mine.input_tokens, mine.output_tokens, mine.cost) == (55, 20, 5 * (11 + 16))
    page = await usage(mesh).ListUsage(usage_service_pb2.ListUsageRequest(group_by=by, page_size=1))
    after = await usage(mesh).ListUsage(
        usage_service_pb2.ListUsageRequest(
            group_by=by, page_size=1, page_token=page.next_page_token
        )
    )
    assert [each.model for each in (*page.rows, *after.rows)] == [row[0] for row in rows]
    assert not after.next_page_token
    with acting_as(OTHER):
        nothing = await usage(mesh).ListUsage(usage_service_pb2.ListUsageRequest())
        assert nothing.rows[0].calls == 0


@pytest.mark.parametrize(
    "days", [("2026-13-01", ""), ("2026-11-02", "2026-11-01"), ("2020-01-01", "2026-01-01")]
)
async def test_days_that_are_none(mesh: Served, days: tuple[str, str]) -> None:
    request = usage_service_pb2.ListUsageRequest(start_day=days[0], end_day=days[1])
    assert (await error_of(usage(mesh).ListUsage(request))).reason == "INVALID_REQUEST"


async def test_a_budget_is_made_met_raised_and_removed(
    mesh: Served, upstream: ScriptedOpenAi
) -> None:
    await create(mesh, "mine", upstream.url)
    stub = usage(mesh)
    request = usage_service_pb2.CreateBudgetRequest(
        subject=usage_pb2.BUDGET_SUBJECT_TENANT,
        period=usage_pb2.BUDGET_PERIOD_MONTH,
        spec=usage_pb2.BudgetSpec(max_tokens=20),
        idempotency_key="k",
    )
    made = (await stub.CreateBudget(request)).budget
    assert (await stub.CreateBudget(request)).budget == made
    assert made.reset_time.seconds
    refused = await error_of(_consume(mesh, "mine/tiny"))
    assert refused.reason == "BUDGET_SPENT"
    assert refused.metadata["budget_id"] == made.budget_id
    changed = await stub.UpdateBudget(
        usage_service_pb2.UpdateBudgetRequest(
            budget_id=made.budget_id, spec=usage_pb2.BudgetSpec(max_tokens=10_000), etag=made.etag
        )
    )
    assert (await say(mesh, "mine/tiny"))[-1].finished.usage.output_tokens == 4
    listed = (await stub.ListBudgets(usage_service_pb2.ListBudgetsRequest())).budgets
    assert [(each.budget_id, each.spent_tokens) for each in listed] == [(made.budget_id, 15)]
    assert listed[0].etag == changed.budget.etag
    await stub.DeleteBudget(usage_service_pb2.DeleteBudgetRequest(budget_id=made.budget_id))
    delete = usage_service_pb2.DeleteBudgetRequest(budget_id=made.budget_id)
    assert (await error_of(stub.DeleteBudget(delete))).reason == "NOT_FOUND"


async def test_health_says_how_models_do(mesh: Served, upstream: ScriptedOpenAi) -> None:
    await create(mesh, "mine", upstream.url)
    await say(mesh, "mine/tiny")
    upstream.script = scripts.status(500)
    for _ in range(3):
        await error_of(_consume(mesh, "mine/tiny"))
    listed = await usage(mesh).ListModelHealth(usage_service_pb2.ListModelHealthRequest())
    found = {each.model: each for each in listed.models}
    mine = found["mine/tiny"]
    assert mine.circuit == usage_pb2.CIRCUIT_STATE_OPEN
    assert mine.retry_time.seconds
    assert mine.calls > 2
    assert 0 < mine.success_rate < 0.5
    assert mine.first_token_p50_ms > 0
    assert found["offline/extractive"].circuit == usage_pb2.CIRCUIT_STATE_CLOSED


def capabilities(mesh: Served) -> CapabilityServiceStub:
    return CapabilityServiceStub(mesh.clients.channel("llm"))


async def test_capabilities_are_listed_and_used(mesh: Served, upstream: ScriptedOpenAi) -> None:
    pb = capability_service_pb2
    stub = capabilities(mesh)
    listed = await stub.UseCapability(pb.UseCapabilityRequest(list=pb.ListCapabilities()))
    assert [each.name for each in listed.list.models] == ["offline/extractive"]
    nobody = pb.UseCapabilityRequest(embeddings=pb.EmbedRequest(texts=["x"]))
    assert (await error_of(stub.UseCapability(nobody))).reason == "UNKNOWN_MODEL"
    able = spec(upstream.url, "tiny", "vectors", "judge")
    del able.models[1].capabilities[:], able.models[2].capabilities[:]
    able.models[1].capabilities.append(provider_pb2.CAPABILITY_EMBEDDINGS)
    able.models[2].capabilities.append(provider_pb2.CAPABILITY_MODERATION)
    await providers(mesh).CreateProvider(
        provider_service_pb2.CreateProviderRequest(name="mine", spec=able)
    )
    vectors = await stub.Embed(pb.EmbedRequest(texts=["one", "three"], dimensions=3))
    assert vectors.model == "mine/vectors"
    assert [list(each.values) for each in vectors.embeddings] == [[3, 0, 1], [5, 1, 1]]
    assert vectors.usage.input_tokens == 8
    judged = await stub.UseCapability(
        pb.UseCapabilityRequest(moderation=pb.Moderate(texts=["fine", "bad"]))
    )
    assert [each.flagged for each in judged.moderation.judgements] == [False, True]
    assert judged.moderation.judgements[1].scores["harm"] == pytest.approx(0.9)

    async def calls(answer: scripts.Answer) -> None:
        await answer.begin()
        await answer.tool(0, "call_1", "weather", '{"city": "Wien"}')
        await answer.chunk(finish="tool_calls")
        await answer.done()

    upstream.script = calls
    request = generation_pb2.GenerateRequest(
        model="mine/tiny",
        messages=[model_pb2.ModelMessage(role=model_pb2.MESSAGE_ROLE_USER, text="Weather?")],
        tools=[model_pb2.Tool(name="weather")],
    )
    called = await stub.UseCapability(pb.UseCapabilityRequest(functions=request))
    assert [(each.name, each.arguments) for each in called.functions.tool_calls] == [
        ("weather", '{"city": "Wien"}')
    ]
    by = [usage_pb2.USAGE_DIMENSION_MODEL]
    found = await usage(mesh).ListUsage(usage_service_pb2.ListUsageRequest(group_by=by))
    assert [(each.model, each.calls) for each in found.rows] == [
        ("mine/judge", 1),
        ("mine/tiny", 1),
        ("mine/vectors", 1),
    ]
