"""Tenants with something to hide, and the recipes by which everything of theirs comes to be.

A recipe belongs to a resource, named by the field that holds its id. Two things are checked of
the recipes: that every id which an RPC takes has one, and that together they call every RPC that
writes.
A new RPC that has neither fails the suite until it is added here.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from tests.faults.rpcs import Rpc, by_name, new_message, parse, rpcs
from tests.faults.valid import needs, valid
from tests.faults.wire import Mouth
from tests.faults.world import bearer, register

# What every text of a tenant has in it, before the part that is the tenant's own.
WORD = "kanarie"
# A word by which the scripted model is asked to take its time.
SLOWLY = "slowly"
_MANY = 100_000


class Tenant:
    """A tenant's founder, and all that was ever told to them.

    Attributes:
        canary: A text that stands in whatever they write.
        known: What they were told, by the field's name: ids, page tokens, etags.
        called: The RPCs that succeeded.
    """

    def __init__(self, mouth: Mouth, name: str, secret: str) -> None:
        self.mouth = mouth
        self.name = name
        self.canary = f"{WORD}{secret}"
        self.email = f"{self.canary}@example.com"
        self.token = ""
        self.refresh_token = ""
        self.known: dict[str, list[str]] = defaultdict(list)
        self.called: set[str] = set()

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Their credential."""
        return bearer(self.token)

    async def join(self) -> None:
        """Make the account and log in."""
        user, tokens = await register(self.mouth, self.email, self.canary)
        self.called |= {"RegisterUser", "AuthenticateUser"}
        self.learn(user)
        self.token, self.refresh_token = tokens.access_token, tokens.refresh_token

    async def call(self, name: str, *, way: str = "grpc", **values: Any) -> list[Any]:
        """All replies to a call that must succeed."""
        rpc = by_name(name)
        request = valid(rpc.request, values)
        answer = await self.mouth.call(way, rpc, request, self.headers, most=_MANY)
        assert answer.ok, f"{self.name} cannot call {name} with {values}: {answer}"
        replies = [parse(rpc.reply, data) for data in answer.messages]
        for each in replies:
            self.learn(each)
        self.called.add(name)
        return replies

    def learn(self, message: Message) -> None:
        """Remember every short text of a reply."""
        for field, value in texts(message):
            if value and value not in self.known[field.name] and len(value) < 300:
                self.known[field.name].append(value)

    def own(self, rpc: Rpc, **values: Any) -> Message:
        """A request with their own ids wherever one is asked for."""
        mine = {
            field.name: self.known[field.name][0]
            for field in rpc.request.fields
            if field.name.endswith("_id") and needs(field) and self.known[field.name]
        }
        return valid(rpc.request, {**mine, **values})


def texts(message: Message) -> Iterator[tuple[FieldDescriptor, str]]:
    """Every text in a message, the nested ones too."""
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_STRING:
            for each in value if field.is_repeated else [value]:
                yield field, each
        elif field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for each in value if field.is_repeated else [value]:
                yield from texts(each)


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
    """What was said in the runs."""
    await tenant.call("ListSessions", page_size=100)
    for session_id in tenant.known["session_id"]:
        await tenant.call("ListMessages", session_id=session_id)


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


Recipe = Callable[[Tenant], Awaitable[None]]
# In the order in which they are followed: by the resource's id, or a name where it has none.
RECIPES: dict[str, Recipe] = {
    "user_id": accounts,
    "agent_id": agents,
    "run_id": runs,
    "session_id": sessions,
    "api_key_id": api_keys,
    "generation": models,
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
    for recipe in RECIPES.values():
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
