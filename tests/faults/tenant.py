"""A tenant with something to hide."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from tests.faults.rpcs import Rpc, by_name, parse
from tests.faults.valid import needs, valid
from tests.faults.wire import Mouth
from tests.faults.world import bearer, register

# What every text of a tenant has in it, before the part that is the tenant's own.
WORD = "kanarie"
# Of a BudgetSubject.
AGENT = 3
_MANY = 100_000
_numbers = itertools.count()


class Tenant:
    """A tenant's founder, and all that was ever told to them.

    Attributes:
        canary: A text that stands in whatever they write.
        known: What they were told, by the field's name: ids, page tokens, etags.
        tokens: Page tokens by the RPC that gave them.
        called: The RPCs that succeeded.
    """

    def __init__(self, mouth: Mouth, name: str, secret: str, model_url: str = "") -> None:
        self.mouth = mouth
        self.name = name
        self.canary = f"{WORD}{secret}"
        self.email = f"{self.canary}@example.com"
        self.token = ""
        self.refresh_token = ""
        # A model server that they may call.
        self.model_url = model_url
        self.known: dict[str, list[str]] = defaultdict(list)
        self.tokens: dict[str, list[str]] = defaultdict(list)
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

    async def call(self, name: str, /, *, way: str = "grpc", **values: Any) -> list[Any]:
        """All replies to a call that must succeed."""
        rpc = by_name(name)
        request = valid(rpc.request, values)
        answer = await self.mouth.call(way, rpc, request, self.headers, most=_MANY)
        assert answer.ok, f"{self.name} cannot call {name} with {values}: {answer}"
        replies = [parse(rpc.reply, data) for data in answer.messages]
        for each in replies:
            self.learn(each)
            if token := getattr(each, "next_page_token", ""):
                self.tokens[name].append(token)
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
        key = str(values.get("idempotency_key", ""))
        return valid(rpc.request, {**_fresh(rpc, key), **mine, **values})


def _fresh(rpc: Rpc, key: str) -> dict[str, Any]:
    """What only one can have, for each call anew but for those that repeat one."""
    fields = rpc.request.fields_by_name
    name = f"k-{key}".replace("_", "-")[:40] if key else f"n{next(_numbers)}"
    if "subject_id" in fields:
        return {"subject": AGENT, "subject_id": name}
    return {"name": name} if "name" in fields else {}


def texts(message: Message) -> Iterator[tuple[FieldDescriptor, str]]:
    """Every text in a message, the nested ones too."""
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_STRING:
            for each in value if field.is_repeated else [value]:
                yield field, each
        elif field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for each in value if field.is_repeated else [value]:
                yield from texts(each)
