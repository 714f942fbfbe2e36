"""Storing, changing and removing memories."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from services.memory.domain.likeness import marks
from services.memory.domain.planning import Marked, Plan, pairs
from services.memory.domain.values import (
    HALF_LIFE,
    MAIN,
    Commit,
    Content,
    Memory,
    Outcome,
    Proposal,
    ProposalState,
    Record,
    Ref,
    Space,
    Stored,
    Version,
    faded,
    require_storable,
    used,
)
from services.memory.service import access
from services.memory.service.reading import View
from services.memory.service.writing import Desk, Neighbours, Writing, author_of, commit
from services.memory.store import commits, proposals, versions
from services.memory.store.shared import Place
from services.runtime import clock
from services.runtime.context import Principal
from services.runtime.db import Connection
from services.runtime.errors import (
    Aborted,
    InvalidRequest,
    NotFound,
    ResourceExhausted,
)
from services.runtime.ids import new_id
from services.runtime.replies import Repeatable, Replies

# Of what is like a record so many are looked at for each mark; fewer where there are many records.
_MOST_ALIKE = 200
_LEAST_ALIKE = 4
_LONG = 50_000
_MAX_PROPOSALS = 10_000
Reply = tuple[Commit | None, list[Stored]]


@dataclass(frozen=True, slots=True)
class Store:
    """What StoreMemories is asked."""

    space: str
    records: Sequence[Record]
    branch: str = MAIN
    expected_head: str = ""
    message: str = ""
    propose: bool = False


class Storing:
    """Stores, changes, removes, and strengthens."""

    def __init__(self, desk: Desk, replies: Replies) -> None:
        self._desk = desk
        self._replies = replies

    async def store(self, who: Principal, asked: Store, call: Repeatable) -> Reply:
        """Store records as one commit, or propose them.

        Raises:
            NotFound: No such space, branch, or memory that a record names.
            Aborted: The branch is not at its expected head.
            InvalidRequest: A record cannot be kept.
            AlreadyExists: The idempotency key stands for another request.
        """
        place = access.place_of(who, asked.space)
        require_storable("message", asked.message)
        if asked.propose and asked.branch != MAIN:
            raise InvalidRequest.field("propose", "is about main alone")
        records = [_own(record, place) for record in asked.records]
        for number, record in enumerate(records):
            record.content.check(f"records[{number}].")
        prepared = await prepare(records)

        async def work(connection: Connection) -> Reply:
            if asked.branch == MAIN:
                space = await access.begun(connection, who, place, clock.now())
            else:
                space = await access.space_of(connection, who, place)
            # Locked first: of two that repeat each other the second finds what the first did.
            branch, view = await self._desk.head_of(connection, place, space, asked.branch)
            kept = await self._replies.find(connection, call)
            if kept is not None:
                return await _told(view, kept)
            if asked.expected_head and asked.expected_head != branch.commit_id:
                raise commits.stale(branch)
            waits = asked.propose or (space.policy.review and who.mesh and asked.branch == MAIN)
            if waits:
                reply: Reply = (None, await propose(view, prepared, who))
            else:
                reply = await planned(branch, view, prepared, asked.message, author_of(who))
            await self._replies.keep(connection, call, _kept(reply))
            return reply

        return await self._desk.write(place.tenant_id, work)

    async def update(
        self,
        who: Principal,
        memory_id: str,
        branch: str,
        version_id: str,
        message: str,
        change: Callable[[Content], Content],
    ) -> tuple[Memory, Commit | None]:
        """Change a memory.

        Args:
            who: The caller.
            memory_id: Which.
            branch: On which branch.
            version_id: The version that is changed; empty is any.
            message: What the commit says.
            change: What it is to say, by what it says.

        Raises:
            NotFound: It is not there.
            Aborted: It is at another version.
            InvalidRequest: It cannot be kept so.
        """
        require_storable("message", message)

        async def work(connection: Connection) -> tuple[Memory, Commit | None]:
            ref, view = await self._at(connection, who, memory_id, branch)
            old = (await view.versions([memory_id])).get(memory_id)
            if old is None:
                raise NotFound.of("memory")
            if version_id and version_id != old.version_id:
                raise Aborted("The memory was changed. Read it and try again.")
            content = change(old.content)
            content.check("")
            if content == old.content:
                return (await view.dressed([old]))[0], None
            new = old.saying(content, clock.now())
            found = await linked(view, {memory_id: new}, [old])
            writing = Writing({memory_id: new.version_id}, [new], found, message, by=author_of(who))
            made = await commit(ref, view, writing)
            return (await view.at(made).dressed([new]))[0], made

        return await self._desk.write(who.tenant_id, work)

    async def delete(self, who: Principal, memory_id: str, branch: str) -> Commit:
        """Remove a memory from a branch.

        Raises:
            NotFound: It is not there.
        """

        async def work(connection: Connection) -> Commit:
            ref, view = await self._at(connection, who, memory_id, branch)
            if memory_id not in await view.versions([memory_id]):
                raise NotFound.of("memory")
            return await commit(ref, view, Writing({memory_id: None}, by=author_of(who)))

        return await self._desk.write(who.tenant_id, work)

    async def _at(
        self, connection: Connection, who: Principal, memory_id: str, branch: str
    ) -> tuple[Ref, View]:
        """The branch of a memory's space, locked.

        Raises:
            NotFound: There is no such memory for the caller, or no such branch.
            PermissionDenied: In its space an agent proposes.
        """
        place, space = await place_of_memory(connection, who, memory_id)
        access.require_person(who, space, branch)
        return await self._desk.head_of(connection, place, space, branch)

    async def reinforce(self, who: Principal, memory_ids: Sequence[str]) -> None:
        """Make memories stronger, those that are there for the caller."""
        async with self._desk.database.transaction((who.tenant_id,)) as connection:
            found = await versions.spaces_of(connection, who.tenant_id, sorted(set(memory_ids)))
            by_space: dict[str, list[str]] = {}
            for memory_id, (name, _, _) in found.items():
                by_space.setdefault(name, []).append(memory_id)
            for name, ids in sorted(by_space.items()):
                try:
                    place = access.place_of(who, name)
                    space = await access.space_of(connection, who, place)
                except NotFound:
                    continue
                await strengthen(connection, place, space.policy.half_life or HALF_LIFE, ids)


async def place_of_memory(
    connection: Connection, who: Principal, memory_id: str
) -> tuple[Place, Space]:
    """Where a memory is kept.

    Raises:
        NotFound: There is no such memory, or not for the caller.
    """
    name = await versions.space_of(connection, who.tenant_id, memory_id)
    if name is None:
        raise NotFound.of("memory")
    try:
        place = access.place_of(who, name)
        return place, await access.space_of(connection, who, place)
    except NotFound:
        raise NotFound.of("memory") from None


async def strengthen(
    connection: Connection, place: Place, half_life: int, memory_ids: Sequence[str]
) -> None:
    """Make memories of a space stronger."""
    now = clock.now()
    found = await versions.strengths(connection, place.tenant_id, memory_ids)
    stronger = {
        memory_id: used(faded(strength, since, now, half_life))
        for memory_id, (strength, since) in found.items()
    }
    await versions.use(connection, place.tenant_id, stronger, now)


async def prepare(records: Sequence[Record]) -> list[Marked]:
    """Records with what others like them are found by; of long ones it takes a while."""

    def marked() -> list[Marked]:
        return [Marked(record, marks(record.content), new_id("mem")) for record in records]

    long = sum(len(record.content.text) for record in records) > _LONG
    return await asyncio.to_thread(marked) if long else marked()


async def planned(
    branch: Ref, view: View, prepared: Sequence[Marked], message: str, by: str
) -> Reply:
    """Store records on a branch that was locked.

    Raises:
        NotFound: A record names a memory that is not there.
    """
    near = Neighbours(view, max(_LEAST_ALIKE, _MOST_ALIKE // len(prepared)))
    wanted = {mark for each in prepared for mark in each.marks}
    await near.look(wanted, {each.record.memory_id for each in prepared} - {""})
    before = dict(near.current)
    plan = Plan(before, near.found_by, view.space.policy.likeness, clock.now())
    for each in prepared:
        plan.take(each)
    old = [before[memory_id] for memory_id in plan.changed if memory_id in before]
    found = await linked(view, plan.changed, old, near)
    half_life = view.space.policy.half_life or HALF_LIFE
    await strengthen(view.connection, view.place, half_life, sorted(plan.again))
    if not plan.changed:
        return None, plan.outcomes(found)
    writing = Writing(
        {memory_id: each.version_id for memory_id, each in plan.changed.items()},
        list(plan.changed.values()),
        found,
        message,
        by=by,
    )
    return await commit(branch, view, writing), plan.outcomes(found)


async def linked(
    view: View,
    changed: Mapping[str, Version],
    before: Sequence[Version],
    near: Neighbours | None = None,
) -> list[tuple[Version, Version]]:
    """What changed memories say otherwise than, of all that will be there."""
    near = near or Neighbours(view, max(_LEAST_ALIKE, _MOST_ALIKE // max(1, len(changed))))
    found_by = {memory_id: marks(each.content) for memory_id, each in changed.items()}
    others = await near.near(found_by, before)
    return pairs(changed, {**near.current, **changed}, others)


async def propose(view: View, prepared: Sequence[Marked], who: Principal) -> list[Stored]:
    """Keep records until a person decides.

    Raises:
        ResourceExhausted: Too many wait.
    """
    if await proposals.waiting(view.connection, who.tenant_id) + len(prepared) > _MAX_PROPOSALS:
        raise ResourceExhausted(
            "Too many proposals wait for a decision.", metadata={"limit": "proposals"}
        )
    made = [
        Proposal(
            proposal_id=new_id("prp"),
            space=view.place.space,
            memory_id=each.record.memory_id or each.new_id,
            record=each.record,
            state=ProposalState.WAITING,
            create_time=clock.now(),
            proposed_by=who.user_id,
        )
        for each in prepared
    ]
    await proposals.add(view.connection, who.tenant_id, made)
    return [Stored(each.memory_id, Outcome.PROPOSED, proposal_id=each.proposal_id) for each in made]


def _kept(reply: Reply) -> bytes:
    """A reply as it is kept: it names things, and has no text of theirs."""
    made, stored = reply
    return json.dumps([made.commit_id if made else "", [asdict(each) for each in stored]]).encode()


async def _told(view: View, kept: bytes) -> Reply:
    commit_id, stored = json.loads(kept)
    results = [
        Stored(
            **{
                **each,
                "outcome": Outcome(each["outcome"]),
                "contradicts": tuple(each["contradicts"]),
            }
        )
        for each in stored
    ]
    # It may have been swept away with its branch meanwhile.
    made = await commits.some(view.connection, view.place, {commit_id})
    return made.get(commit_id), results


def _own(record: Record, place: Place) -> Record:
    """A record with the person whose space it is, where nobody else is named."""
    kind, _, user_id = place.space.partition("/")
    if record.content.person or kind != "user":
        return record
    return replace(record, content=replace(record.content, person=user_id))
