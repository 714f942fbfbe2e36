"""Tenants with something to hide, and the recipes by which everything of theirs comes to be.

A recipe belongs to a resource, named by the field that holds its id. Two things are checked of
the recipes: that every id which an RPC takes has one, and that together they call every RPC that
writes.
A new RPC that has neither fails the suite until it is added here.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from google.protobuf.message import Message

from tests.faults.rpcs import Rpc, by_name, new_message, parse, rpcs
from tests.faults.tenant import AGENT, Tenant
from tests.faults.valid import valid

# A word by which the scripted model is asked to take its time.
SLOWLY = "slowly"
# How long a summary may take, in seconds.
_SOON = 30.0
# Of a ConsolidationState.
_RUNNING = 1


async def accounts(tenant: Tenant) -> None:
    """The account itself, changed, and its login renewed."""
    await tenant.call("UpdateProfile", display_name=f"{tenant.canary} again")
    (tokens,) = await tenant.call("RefreshToken", refresh_token=tenant.refresh_token)
    tenant.token, tenant.refresh_token = tokens.access_token, tokens.refresh_token
    await tenant.call("GetProfile")
    await tenant.call("ListAuditEntries", page_size=100)


async def agents(tenant: Tenant) -> None:
    """The default agent, which is made when it is first asked for."""
    await tenant.call("ListAgents")


async def runs(tenant: Tenant) -> None:
    """Runs that ended, of which one was cancelled, and the sessions that they left."""
    for number in range(2):
        await tenant.call(
            "Process",
            input=f"{tenant.canary} asks {number}",
            idempotency_key=f"{tenant.name}-{number}",
        )
    run_id = await slow_run(tenant)
    await tenant.call("CancelRun", run_id=run_id)


async def sessions(tenant: Tenant) -> None:
    """What was said in the runs, and in short."""
    await tenant.call("ListSessions", page_size=100)
    for session_id in tenant.known["session_id"]:
        await tenant.call("ListMessages", session_id=session_id)
        # By words alone: the scripted model would take its time where it is asked to in the runs.
        whose = {"session_id": session_id, "model": "offline/extractive"}
        await tenant.call("ConsolidateSession", keep_messages=0, **whose)
        await tenant.call("SummarizeSession", **whose)
    async with asyncio.timeout(_SOON):
        while not await _consolidated(tenant):
            await asyncio.sleep(0.1)


async def _consolidated(tenant: Tenant) -> bool:
    return all(
        [
            (await tenant.call("GetConsolidation", session_id=each))[0].consolidation.state
            != _RUNNING
            for each in tenant.known["session_id"]
        ]
    )


async def api_keys(tenant: Tenant) -> None:
    """Keys, of which one is gone."""
    for number in range(3):
        await tenant.call("CreateApiKey", display_name=f"{tenant.canary} {number}")
    await tenant.call("DeleteApiKey", api_key_id=tenant.known["api_key_id"].pop())


async def models(tenant: Tenant) -> None:
    """Nothing is kept of what a model was asked, as far as anybody says."""
    rpc = by_name("Generate")
    field = rpc.request.fields_by_name["messages"]
    assert field.message_type is not None
    asked = new_message(field.message_type)
    role = field.message_type.fields_by_name["role"].enum_type
    assert role is not None
    setattr(asked, "role", role.values_by_name["MESSAGE_ROLE_USER"].number)  # noqa: B010
    setattr(asked, "text", f"{tenant.canary} asks a model")  # noqa: B010
    await tenant.call("Generate", messages=[asked])


async def providers(tenant: Tenant) -> None:
    """Providers, of which one is gone, and what their models gave.

    There is one more than is ever changed, so that models answer whatever becomes of the others.
    """
    for number in range(3):
        (made,) = await tenant.call(
            "CreateProvider", name=f"{tenant.canary}-{number}", spec=_spec(tenant)
        )
    await tenant.call("UpdateProvider", provider_id=made.provider.provider_id, enabled=False)
    await tenant.call("DeleteProvider", provider_id=tenant.known["provider_id"].pop())
    await tenant.call("Embed", texts=[tenant.canary])
    await tenant.call("CreateEmbedding", data=_body(model="", input=tenant.canary))
    said = [{"role": "user", "content": f"{tenant.canary} asks"}]
    await tenant.call("CreateChatCompletion", data=_body(messages=said))
    await tenant.call("UseCapability")


def _spec(tenant: Tenant) -> Message:
    nested = by_name("CreateProvider").request.fields_by_name["spec"].message_type
    assert nested is not None
    listed = nested.fields_by_name["models"].message_type
    assert listed is not None
    embeddings = 4
    model = valid(listed, {"name": "vectors", "capabilities": [embeddings]})
    return valid(
        nested, {"base_url": tenant.model_url, "api_key": tenant.canary, "models": [model]}
    )


def _body(**values: Any) -> bytes:
    return json.dumps(values).encode()


async def responses(tenant: Tenant) -> None:
    """What models and agents answered, by the other protocol's names.

    Of a model's one goes on from another, one was cancelled on its way, and one is gone.
    """
    first = await response(tenant)
    await response(tenant, previous_response_id=first)
    await tenant.call("CancelResponse", response_id=await slow_response(tenant))
    await tenant.call("ListResponseInputItems", response_id=first)
    await tenant.call("DeleteResponse", response_id=await response(tenant))
    tenant.known["response_id"].pop()
    tenant.known["response_id"] += [f"resp_{each}" for each in tenant.known["run_id"]]


async def response(tenant: Tenant, said: str = "asks", **values: Any) -> str:
    """A response of a model, by its id."""
    body = _body(input=f"{tenant.canary} {said}", **values)
    (whole,) = await tenant.call("CreateResponse", data=body)
    found = str(json.loads(whole.data)["id"])
    tenant.known["response_id"].append(found)
    return found


async def slow_response(tenant: Tenant) -> str:
    """A response that is under way, by its id."""
    return await response(tenant, SLOWLY, background=True)


async def routes(tenant: Tenant) -> None:
    """Routes, of which one is gone."""
    candidates = by_name("CreateRoute").request.fields_by_name["spec"].message_type
    assert candidates is not None
    listed = candidates.fields_by_name["candidates"].message_type
    assert listed is not None
    spec = valid(candidates, {"candidates": [valid(listed, {"model": "offline/extractive"})]})
    for number in range(2):
        (made,) = await tenant.call("CreateRoute", name=f"{tenant.canary}-{number}", spec=spec)
    await tenant.call("UpdateRoute", route_id=made.route.route_id, spec=spec)
    await tenant.call("DeleteRoute", route_id=tenant.known["route_id"].pop())


async def budgets(tenant: Tenant) -> None:
    """Budgets of agents that there need not be, of which one is gone."""
    for number in range(2):
        (made,) = await tenant.call(
            "CreateBudget", subject=AGENT, subject_id=f"{tenant.canary}-{number}"
        )
    await tenant.call("UpdateBudget", budget_id=made.budget.budget_id)
    await tenant.call("DeleteBudget", budget_id=tenant.known["budget_id"].pop())


async def memories(tenant: Tenant) -> None:
    """Memories in a space of their own, its commits, and names of those that come and go."""
    for number in range(3):
        stored = await _remember(tenant, f"{tenant.canary} knows {number}")
    memory_id = stored.results[0].memory_id
    await tenant.call("UpdateMemory", memory_id=memory_id, text=f"{tenant.canary} knows better")
    await tenant.call("ReinforceMemories", memory_ids=[memory_id])
    for name in (tenant.canary, "other"):
        await tenant.call("CreateBranch", branch=name)
        await tenant.call("CreateTag", tag=name)
    await _remember(tenant, f"{tenant.canary} knows on a branch", branch=tenant.canary)
    await tenant.call("MergeBranch", branch=tenant.canary)
    back = _revision(commit_id=stored.commit.commit_id)
    await tenant.call("RollbackBranch", branch="main", revision=back)
    await tenant.call("DeleteBranch", branch="other")
    await tenant.call("DeleteTag", tag="other")
    await tenant.call("UpdateSpace", space="")
    await tenant.call("DeleteMemory", memory_id=memory_id)
    tenant.known["memory_id"].remove(memory_id)


async def proposals(tenant: Tenant) -> None:
    """Proposals, of which one was let go of."""
    for number in range(3):
        await _remember(tenant, f"{tenant.canary} might know {number}", propose=True)
    await tenant.call("DecideProposal", proposal_id=tenant.known["proposal_id"].pop())
    await tenant.call("ListProposals")


async def erasures(tenant: Tenant) -> None:
    """The erasure of somebody of whom nothing is known."""
    for number in range(2):
        await tenant.call("ErasePerson", person=f"{tenant.canary}-{number}")


async def _remember(tenant: Tenant, text: str, **values: Any) -> Any:
    record = by_name("StoreMemories").request.fields_by_name["records"].message_type
    assert record is not None
    (stored,) = await tenant.call(
        "StoreMemories", records=[valid(record, {"text": text})], **{"space": "", **values}
    )
    return stored


def _revision(**values: Any) -> Message:
    kind = by_name("RollbackBranch").request.fields_by_name["revision"].message_type
    assert kind is not None
    return valid(kind, values)


async def documents(tenant: Tenant) -> None:
    """Documents and uploads, of each of which one is gone, and one that was sent in a stream."""
    info = by_name("CreateDocument").request.fields_by_name["info"].message_type
    assert info is not None
    for number in range(3):
        (made,) = await tenant.call(
            "CreateDocument",
            info=valid(info, {"title": f"{tenant.canary} {number}"}),
            text=f"# {tenant.canary}\n\nDocument {number}.",
            idempotency_key=f"{tenant.name}-document-{number}",
        )
        await tenant.call("WatchDocument", document_id=made.document.document_id)
    await _send_document(tenant)
    await tenant.call("ListPassages", document_id=made.document.document_id)
    await tenant.call("UpdateDocument", document_id=made.document.document_id, title=tenant.canary)
    await tenant.call("ReadDocumentAgain", document_id=made.document.document_id)
    await tenant.call("DeleteDocument", document_id=tenant.known["document_id"].pop())
    await tenant.call("RebuildIndex")


async def _send_document(tenant: Tenant) -> None:
    rpc = by_name("SendDocument")
    info = rpc.request.fields_by_name["info"].message_type
    assert info is not None
    said = valid(rpc.request, {"info": valid(info, {"file_name": "sent.txt"})})
    data = valid(rpc.request, {"data": f"{tenant.canary} was sent.".encode()})
    answer = await tenant.mouth.send(rpc, [said, data], tenant.headers)
    tenant.learn(parse(rpc.reply, answer))
    tenant.called.add("SendDocument")


async def uploads(tenant: Tenant) -> None:
    """Uploads, of which one became a document, and one is gone."""
    part = by_name("WriteUpload").request.fields_by_name["part"].message_type
    assert part is not None
    data = f"{tenant.canary} was uploaded.".encode()
    for number in range(3):
        (made,) = await tenant.call(
            "CreateUpload", size=len(data), idempotency_key=f"{tenant.name}-upload-{number}"
        )
    upload_id = made.upload.upload_id
    written = valid(part, {"data": data})
    await tenant.call("WriteUpload", upload_id=upload_id, start=0, part=written)
    await tenant.call("CompleteUpload", upload_id=upload_id)
    await tenant.call("DeleteUpload", upload_id=tenant.known["upload_id"].pop())


async def sources(tenant: Tenant) -> None:
    """Sources that nobody looks at by themselves, of which one is gone."""
    new = by_name("CreateSource").request.fields_by_name["source"].message_type
    assert new is not None
    page = new.fields_by_name["web"].message_type
    assert page is not None
    web = valid(page, {"url": "http://127.0.0.1:9/absent"})
    for number in range(2):
        source = valid(new, {"display_name": f"{tenant.canary} {number}", "web": web})
        (made,) = await tenant.call("CreateSource", source=source)
    source_id = made.source.source_id
    await tenant.call("UpdateSource", source_id=source_id, source=source)
    await tenant.call("RunSource", source_id=source_id)
    await tenant.call("DeleteSource", source_id=tenant.known["source_id"].pop())


Recipe = Callable[[Tenant], Awaitable[None]]
# In the order in which they are followed: by the resource's id, or a name where it has none.
RECIPES: dict[str, Recipe] = {
    "user_id": accounts,
    "agent_id": agents,
    "run_id": runs,
    "session_id": sessions,
    "api_key_id": api_keys,
    "generation": models,
    "provider_id": providers,
    "response_id": responses,
    "route_id": routes,
    "budget_id": budgets,
    # Whose budget it is.
    "subject_id": budgets,
    "memory_id": memories,
    "memory_ids": memories,
    "version_id": memories,
    "commit_id": memories,
    "proposal_id": proposals,
    "erasure_id": erasures,
    "document_id": documents,
    "upload_id": uploads,
    "source_id": sources,
}


def without_recipe() -> list[str]:
    """The ids that an RPC takes and no recipe makes."""
    return [
        f"{rpc.name}.{field.name}"
        for rpc in rpcs()
        if not rpc.internal
        for field in rpc.request.fields
        if field.name.endswith(("_id", "_ids")) and field.name not in RECIPES
    ]


def unwritten(tenant: Tenant) -> list[str]:
    """The RPCs that write and that no recipe called."""
    return [
        rpc.name
        for rpc in rpcs()
        if rpc.writes and not rpc.internal and rpc.name not in tenant.called
    ]


async def slow_run(tenant: Tenant) -> str:
    """A run that is under way, by its id."""
    rpc = by_name("Process")
    request = valid(rpc.request, {"input": f"{tenant.canary} asks {SLOWLY}"})
    answer = await tenant.mouth.call("grpc", rpc, request, tenant.headers, most=1)
    assert answer.ok, answer
    event = parse(rpc.reply, answer.messages[0])
    tenant.learn(event)
    return str(getattr(event, "run_id"))  # noqa: B009 a message known by its descriptor alone


async def settle(tenant: Tenant) -> None:
    """Follow every recipe, then turn every page so that its token is known."""
    await tenant.join()
    for recipe in dict.fromkeys(RECIPES.values()):
        await recipe(tenant)
    for rpc in rpcs():
        if "page_token" in rpc.request.fields_by_name:
            await tenant.call(rpc.name, **_ids(tenant, rpc), page_size=1)
    await asyncio.sleep(0)


def _ids(tenant: Tenant, rpc: Rpc) -> dict[str, str]:
    return {
        field.name: tenant.known[field.name][0]
        for field in rpc.request.fields
        if field.name.endswith("_id")
    }
