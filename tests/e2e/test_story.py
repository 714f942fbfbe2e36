"""What a user does first, with the same meaning over REST, gRPC and gRPC-Web."""

from __future__ import annotations

import asyncio
import time

import pytest
from plexus.agents.v1 import agents_service_pb2 as agents
from plexus.agents.v1 import run_pb2
from plexus.history.v1 import history_service_pb2 as history
from plexus.history.v1 import session_pb2
from plexus.identity.v1 import identity_service_pb2 as identity
from plexus.llm.v1 import generation_pb2 as llm
from plexus.llm.v1 import llm_service_pb2, model_pb2
from plexus.monitor.v1 import monitor_service_pb2 as monitor
from plexus.options.v1.options_pb2 import Role

from services.app import MODULES
from services.runtime.errors import NotFound, PermissionDenied, PlexusError, Unauthenticated
from tests.e2e.callers import Caller, Rest
from tests.e2e.conftest import PASSWORD, new_email, sign_up

IDENTITY = "identity.v1.IdentityService"
AGENTS = "agents.v1.AgentsService"
HISTORY = "history.v1.HistoryService"


async def process(caller: Caller, text: str, **more: str) -> list[run_pb2.RunEvent]:
    request = agents.ProcessRequest(input=text, **more)
    return [e async for e in caller.stream(f"{AGENTS}/Process", request, run_pb2.RunEvent)]


def said(events: list[run_pb2.RunEvent]) -> str:
    return "".join(event.text_delta.text for event in events)


async def test_accounts(caller: Caller) -> None:
    registered = await sign_up(caller)
    assert list(registered.user.roles) == [Role.ROLE_OWNER]
    profile = await caller.unary(
        f"{IDENTITY}/GetProfile", identity.GetProfileRequest(), identity.GetProfileResponse
    )
    assert profile.user == registered.user
    updated = await caller.unary(
        f"{IDENTITY}/UpdateProfile",
        identity.UpdateProfileRequest(display_name="Ada L.", etag=profile.user.etag),
        identity.UpdateProfileResponse,
    )
    assert updated.user.display_name == "Ada L."
    with pytest.raises(PlexusError) as stale:
        await caller.unary(
            f"{IDENTITY}/UpdateProfile",
            identity.UpdateProfileRequest(display_name="x", etag=profile.user.etag),
            identity.UpdateProfileResponse,
        )
    assert stale.value.reason == "STALE_ETAG"
    keys = await caller.unary(
        f"{IDENTITY}/GetJwks", identity.GetJwksRequest(), identity.GetJwksResponse
    )
    assert keys.keys[0].alg == "EdDSA"


async def test_logging_in_and_staying_so(caller: Caller) -> None:
    email = new_email()
    await caller.unary(
        f"{IDENTITY}/RegisterUser",
        identity.RegisterUserRequest(email=email, password=PASSWORD, display_name="Bo"),
        identity.RegisterUserResponse,
    )
    tokens = await caller.unary(
        f"{IDENTITY}/AuthenticateUser",
        identity.AuthenticateUserRequest(email=email, password=PASSWORD),
        identity.AuthenticateUserResponse,
    )
    assert (tokens.token_type, tokens.expires_in) == ("Bearer", 900)
    refresh = identity.RefreshTokenRequest(refresh_token=tokens.refresh_token)
    fresh = await caller.unary(f"{IDENTITY}/RefreshToken", refresh, identity.RefreshTokenResponse)
    caller.token = fresh.access_token
    await caller.unary(
        f"{IDENTITY}/GetProfile", identity.GetProfileRequest(), identity.GetProfileResponse
    )
    with pytest.raises(Unauthenticated) as spent:
        await caller.unary(f"{IDENTITY}/RefreshToken", refresh, identity.RefreshTokenResponse)
    assert spent.value.reason == "BAD_REFRESH_TOKEN"
    # Whoever used the spent token may hold the others too: all of that login end, within a second.
    end = time.monotonic() + 1
    with pytest.raises(Unauthenticated):
        while time.monotonic() < end:
            await caller.unary(
                f"{IDENTITY}/GetProfile", identity.GetProfileRequest(), identity.GetProfileResponse
            )
            await asyncio.sleep(0.05)
    with pytest.raises(Unauthenticated):
        await caller.unary(
            f"{IDENTITY}/RefreshToken",
            identity.RefreshTokenRequest(refresh_token=fresh.refresh_token),
            identity.RefreshTokenResponse,
        )


async def test_an_api_key_works_until_it_is_revoked(caller: Caller) -> None:
    await sign_up(caller)
    owner = caller.token
    made = await caller.unary(
        f"{IDENTITY}/CreateApiKey",
        identity.CreateApiKeyRequest(display_name="reader", roles=[Role.ROLE_VIEWER]),
        identity.CreateApiKeyResponse,
    )
    listed = await caller.unary(
        f"{IDENTITY}/ListApiKeys", identity.ListApiKeysRequest(), identity.ListApiKeysResponse
    )
    assert list(listed.api_keys) == [made.api_key]
    caller.token = made.token
    await caller.unary(
        f"{IDENTITY}/GetProfile", identity.GetProfileRequest(), identity.GetProfileResponse
    )
    with pytest.raises(PermissionDenied) as denied:
        await process(caller, "hello")
    assert denied.value.metadata == {"permission": "agents.run"}
    caller.token = owner
    await caller.unary(
        f"{IDENTITY}/DeleteApiKey",
        identity.DeleteApiKeyRequest(api_key_id=made.api_key.api_key_id),
        identity.DeleteApiKeyResponse,
    )
    caller.token = made.token
    end = time.monotonic() + 1
    with pytest.raises(Unauthenticated):
        while time.monotonic() < end:
            await caller.unary(
                f"{IDENTITY}/GetProfile", identity.GetProfileRequest(), identity.GetProfileResponse
            )
            await asyncio.sleep(0.02)


async def test_an_agent_answers_and_everything_is_kept(caller: Caller) -> None:
    await sign_up(caller)
    events = await process(caller, "Hello! What can you do?")
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    first, last = events[0], events[-1]
    assert first.run_started.session_id
    assert last.WhichOneof("event") == "run_completed"
    assert "offline/extractive" in said(events)
    run = (
        await caller.unary(
            f"{AGENTS}/GetRun", agents.GetRunRequest(run_id=first.run_id), agents.GetRunResponse
        )
    ).run
    assert run.state == run_pb2.RUN_STATE_COMPLETED
    assert run.output == said(events)
    assert run.usage.model == "offline/extractive"
    rest_of_it = [
        event
        async for event in caller.stream(
            f"{AGENTS}/WatchRun",
            agents.WatchRunRequest(run_id=first.run_id, after_sequence=2),
            run_pb2.RunEvent,
        )
    ]
    assert rest_of_it == events[2:]
    messages = await caller.unary(
        f"{HISTORY}/ListMessages",
        history.ListMessagesRequest(session_id=first.run_started.session_id),
        history.ListMessagesResponse,
    )
    assert [message.role for message in messages.messages] == [
        session_pb2.AUTHOR_ROLE_USER,
        session_pb2.AUTHOR_ROLE_AGENT,
    ]
    assert messages.messages[1].text == said(events)
    assert messages.messages[1].message_id == last.run_completed.message_id
    sessions = await caller.unary(
        f"{HISTORY}/ListSessions", history.ListSessionsRequest(), history.ListSessionsResponse
    )
    assert [session.title for session in sessions.sessions] == ["Hello! What can you do?"]


async def test_an_agent_remembers_its_session(caller: Caller) -> None:
    await sign_up(caller)
    first = await process(caller, "The museum opens at nine. The cafe closes at five.")
    session_id = first[0].run_started.session_id
    second = await process(caller, "When does the museum open?", session_id=session_id)
    assert second[0].run_started.session_id == session_id
    assert "The museum opens at nine" in said(second)


async def test_a_key_makes_asking_again_safe(caller: Caller) -> None:
    await sign_up(caller)
    first = await process(caller, "Once only.", idempotency_key="k")
    again = await process(caller, "Once only.", idempotency_key="k")
    assert again == first
    with pytest.raises(PlexusError) as reused:
        await process(caller, "Something else.", idempotency_key="k")
    assert reused.value.reason == "IDEMPOTENCY_KEY_REUSED"


async def test_cancelling_what_has_ended_changes_nothing(caller: Caller) -> None:
    await sign_up(caller)
    events = await process(caller, "Hello")
    cancelled = await caller.unary(
        f"{AGENTS}/CancelRun",
        agents.CancelRunRequest(run_id=events[0].run_id),
        agents.CancelRunResponse,
    )
    assert cancelled.run.state == run_pb2.RUN_STATE_COMPLETED


async def test_models_and_agents_are_listed(caller: Caller) -> None:
    await sign_up(caller)
    models = await caller.unary(
        "llm.v1.LlmService/ListModels",
        llm_service_pb2.ListModelsRequest(),
        llm_service_pb2.ListModelsResponse,
    )
    names = [model.name for model in models.models]
    assert names == ["offline/extractive", "route/default"]
    found = await caller.unary(
        f"{AGENTS}/ListAgents", agents.ListAgentsRequest(), agents.ListAgentsResponse
    )
    assert [agent.default for agent in found.agents] == [True]
    messages = [model_pb2.ModelMessage(role=model_pb2.MESSAGE_ROLE_USER, text="Hello")]
    events = [
        event.WhichOneof("event")
        async for event in caller.stream(
            "llm.v1.LlmService/Generate",
            llm.GenerateRequest(messages=messages),
            llm.GenerateResponse,
        )
    ]
    assert (events[0], events[-1]) == ("started", "finished")
    assert set(events[1:-1]) == {"text_delta"}


@pytest.mark.parametrize("caller", ["rest", "grpc"], indirect=True)
async def test_the_health_stream_tells_every_module(caller: Caller) -> None:
    await sign_up(caller)
    seen: dict[str, int] = {}
    async with asyncio.timeout(5):
        async for each in caller.stream(
            "monitor.v1.MonitorService/WatchHealth",
            monitor.WatchHealthRequest(),
            monitor.WatchHealthResponse,
        ):
            seen[each.module_name] = each.status
            if len(seen) == len(MODULES):
                break
    assert seen == dict.fromkeys(MODULES, monitor.MODULE_STATUS_SERVING)


async def test_tenants_do_not_see_each_other(caller: Caller) -> None:
    await sign_up(caller)
    events = await process(caller, "Mine alone.")
    run_id, session_id = events[0].run_id, events[0].run_started.session_id
    await sign_up(caller)
    for absent in (run_id, "run_00000000000000000000000000"):
        with pytest.raises(NotFound) as run:
            await caller.unary(
                f"{AGENTS}/GetRun", agents.GetRunRequest(run_id=absent), agents.GetRunResponse
            )
        assert run.value.message == "There is no such run."
        with pytest.raises(NotFound):
            async for _ in caller.stream(
                f"{AGENTS}/WatchRun", agents.WatchRunRequest(run_id=absent), run_pb2.RunEvent
            ):
                pass
    with pytest.raises(NotFound):
        await process(caller, "Let me in.", session_id=session_id)
    with pytest.raises(NotFound):
        await caller.unary(
            f"{HISTORY}/ListMessages",
            history.ListMessagesRequest(session_id=session_id),
            history.ListMessagesResponse,
        )


async def test_the_readmes_first_answer(rest: Rest) -> None:
    """Plain HTTP as the welcome prints it, with curl's own content type."""
    login = '{"email": "readme@example.com", "password": "change me soon"}'
    body = f'{login[:-1]}, "display_name": "You"}}'
    form = {"content-type": "application/x-www-form-urlencoded"}
    async with rest.request("POST", "/v1/users/register", data=body, headers=form) as reply:
        assert reply.status == 200
    async with rest.request("POST", "/v1/users/authenticate", data=login, headers=form) as reply:
        text = await reply.text()
        # Cut by quotes, as the printed commands do.
        rest.token = text.split('"')[3]
    async with rest.request(
        "POST", "/v1/agents/process", data='{"input": "Hello!"}', headers=form
    ) as reply:
        assert reply.headers["content-type"] == "text/event-stream"
        assert '"run_completed"' in await reply.text()
