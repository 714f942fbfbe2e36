"""Branches and tags: made, let go of, merged, brought back."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, replace

from sqlalchemy import Table

from services.memory.domain import tree
from services.memory.domain.merging import Clash, Side, merge
from services.memory.domain.values import (
    MAIN,
    At,
    Commit,
    Memory,
    Ref,
    key_of,
    memory_of,
    require_storable,
    version_of,
)
from services.memory.service import access
from services.memory.service.browsing import by_key
from services.memory.service.reading import View, head, resolve
from services.memory.service.storing import linked
from services.memory.service.writing import Desk, Writing, author_of, commit
from services.memory.store import commits, spaces, sweeping, versions
from services.memory.store.shared import Place
from services.memory.tables import branches, tags
from services.runtime import clock, paging
from services.runtime.context import Principal
from services.runtime.db import Connection
from services.runtime.errors import (
    AlreadyExists,
    InvalidRequest,
    NotFound,
    ResourceExhausted,
)

_MAX_NAMES = 1_000
# A merge and a rollback are one transaction.
_MAX_CHANGES = 20_000
_MAX_CONFLICTS = 1_000
_CONFLICT_BYTES = 4_000_000
_AT_ONCE = 256
Conflicts = list[tuple[str, Memory | None, Memory | None, Memory | None]]


@dataclass(frozen=True, slots=True)
class Merge:
    """What MergeBranch is asked."""

    space: str
    branch: str
    into: str
    expected_head: str
    sides: Mapping[str, Side]
    message: str
    dry_run: bool


class Branching:
    """What can be done with the names of commits."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def names(
        self, who: Principal, table: Table, name: str, size: int, token: str
    ) -> tuple[list[Ref], str]:
        """A page of branches or tags by name, and the token of the next.

        Raises:
            NotFound: There is no such space for the caller.
        """
        limit = paging.page_size(size)
        after = paging.decode(token, str)
        place = access.place_of(who, name)
        async with self._desk.database.read((who.tenant_id,)) as connection:
            await access.space_of(connection, who, place)
            found = await commits.names(
                connection, table, place, after[0] if after else "", limit + 1
            )
        return paging.cut(found, limit, lambda each: (each.name,))

    async def add(self, who: Principal, table: Table, space: str, name: str, at: At) -> Ref:
        """Give a commit a name, which may be repeated.

        Raises:
            NotFound: There is no such space for the caller, or no such commit.
            AlreadyExists: The name stands for another.
            ResourceExhausted: There are too many.
        """
        place = access.place_of(who, space)

        async def work(connection: Connection) -> Ref:
            # Locked, so that what it names is not swept away meanwhile.
            await spaces.get(connection, place, who.user_id, lock=True)
            found = await resolve(connection, place, at)
            commit_id = found.commit_id if found else ""
            if not commit_id and table is tags:
                raise NotFound.of("commit")
            there = await commits.named(connection, table, place, name)
            if there is not None and there.commit_id == commit_id:
                return there
            if there is not None:
                raise AlreadyExists("The name stands for another commit.", reason="NAME_TAKEN")
            if await commits.count_names(connection, table, place) >= _MAX_NAMES:
                raise ResourceExhausted(
                    "The space has too many of them.", metadata={"limit": table.name}
                )
            ref = Ref(name, commit_id, clock.now())
            await commits.add_name(connection, table, place, ref)
            return ref

        return await self._desk.write(place.tenant_id, work)

    async def delete(self, who: Principal, table: Table, space: str, name: str) -> None:
        """Let go of a branch or a tag.

        Raises:
            NotFound: There is none.
            InvalidRequest: It is `main`.
        """
        place = access.place_of(who, space)
        if table is branches and name == MAIN:
            raise InvalidRequest.field("branch", "must not be main")
        async with self._desk.database.transaction((who.tenant_id,)) as connection:
            await spaces.get(connection, place, who.user_id, lock=True)
            await commits.delete_name(connection, table, place, name)
            await sweeping.ask(connection, place)

    async def merge(self, who: Principal, asked: Merge) -> tuple[Commit | None, Conflicts, int]:
        """Merge a branch: the commit if there is one, what stands in the way, how much changes.

        Raises:
            NotFound: There is no such space for the caller, or no such branch.
            Aborted: The branch that is merged into is not at its expected head.
            ResourceExhausted: It changes too much for one commit.
            PermissionDenied: In this space an agent proposes.
        """
        place = access.place_of(who, asked.space)
        require_storable("message", asked.message)

        async def work(connection: Connection) -> tuple[Commit | None, Conflicts, int]:
            space = await spaces.get(connection, place, who.user_id, lock=True)
            access.require_person(who, space, asked.into)
            ref, ours = await self._desk.head_of(
                connection, place, space, asked.into, asked.expected_head
            )
            other = await commits.branch(connection, place, asked.branch)
            theirs = ours.at(await head(connection, place, other.commit_id))
            base = ours.at(await _base(connection, place, ours.commit, theirs.commit))
            if theirs.commit is None or base.commit_id == theirs.commit_id:
                return None, [], 0
            sides = {key: side for each, side in asked.sides.items() if (key := key_of(each))}
            changes, clashes = merge(await _all(base, ours), await _all(base, theirs), sides)
            if clashes:
                return None, await _shown(base, ours, theirs, clashes), len(changes)
            if asked.dry_run:
                return None, [], len(changes)
            wanted = {
                memory_of(key): version_of(value) if value else None
                for key, value in changes.items()
            }
            writing = await _meeting(ours, wanted)
            writing = replace(
                writing, message=asked.message, merged=theirs.commit, by=author_of(who)
            )
            return await commit(ref, ours, writing), [], len(changes)

        return await self._desk.write(place.tenant_id, work)

    async def roll_back(
        self, who: Principal, space: str, branch: str, at: At, expected: str, message: str
    ) -> Commit | None:
        """Bring a branch back to what it held; None where it holds that.

        Raises:
            NotFound: There is no such space for the caller, no such branch or revision.
            Aborted: The branch is not at its expected head.
            ResourceExhausted: It changes too much for one commit.
            PermissionDenied: In this space an agent proposes.
        """
        place = access.place_of(who, space)
        require_storable("message", message)

        async def work(connection: Connection) -> Commit | None:
            found = await spaces.get(connection, place, who.user_id, lock=True)
            access.require_person(who, found, branch)
            ref, view = await self._desk.head_of(connection, place, found, branch, expected)
            target = view.at(await resolve(connection, place, at))
            changes = {
                memory_of(key): version_of(change.after) if change.after else None
                for key, change in (await _all(view, target)).items()
            }
            if not changes:
                return None
            writing = Writing(
                changes, message=message, root=target.root, known_root=True, by=author_of(who)
            )
            return await commit(ref, view, writing)

        return await self._desk.write(place.tenant_id, work)


async def _all(first: View, second: View) -> dict[bytes, tree.Change]:
    """Everything that differs, which must be few enough for one transaction.

    Raises:
        ResourceExhausted: It is not.
    """
    found = await first.diff(second, "", _MAX_CHANGES + 1)
    if len(found) > _MAX_CHANGES:
        raise ResourceExhausted(
            "It changes too much for one commit.", metadata={"limit": "changes_of_a_commit"}
        )
    return {change.key: change for change in found}


async def _meeting(ours: View, wanted: Mapping[str, str | None]) -> Writing:
    """What comes to a branch, with what says otherwise there."""
    coming = {memory: version for memory, version in wanted.items() if version}
    read = await versions.get(ours.connection, ours.place, coming.values())
    changed = {memory: read[version] for memory, version in coming.items() if version in read}
    found = await linked(ours, changed, ())
    gone = wanted.keys() - coming.keys()
    pairs = [pair for pair in found if not gone & {pair[0].memory_id, pair[1].memory_id}]
    return Writing(wanted, pairs=pairs, by="")


async def _shown(base: View, ours: View, theirs: View, clashes: list[Clash]) -> Conflicts:
    """The first conflicts, as many as fit one reply."""
    shown: Conflicts = []
    size = 0
    for begin in range(0, min(len(clashes), _MAX_CONFLICTS), 50):
        some = clashes[begin : begin + 50]
        was = await by_key(base, {each.key: each.base for each in some})
        own = await by_key(ours, {each.key: each.ours for each in some})
        their = await by_key(theirs, {each.key: each.theirs for each in some})
        for each in some:
            three = (was.get(each.key), own.get(each.key), their.get(each.key))
            size += sum(len(one.version.content.to_json()) for one in three if one)
            if size > _CONFLICT_BYTES and shown:
                return shown
            shown.append((memory_of(each.key), *three))
    return shown


async def _base(
    connection: Connection, place: Place, first: Commit | None, second: Commit | None
) -> Commit | None:
    """Where two commits parted: the newest one that leads to both.

    A commit is newer than its parents, so that going back from the newest on, the first one that
    was reached from both sides is it.
    """
    if first is None or second is None:
        return None
    seen = {first.commit_id: 1}
    seen[second.commit_id] = seen.get(second.commit_id, 0) | 2
    known = {first.commit_id: first, second.commit_id: second}
    left = [(-each.create_time, each.commit_id) for each in known.values()]
    heapq.heapify(left)
    while left:
        _, commit_id = heapq.heappop(left)
        if seen[commit_id] == 3:
            return known[commit_id]
        for parent in known[commit_id].parents:
            if parent not in known:
                line = await commits.line(connection, place, parent, _AT_ONCE)
                known |= {each.commit_id: each for each in line}
            if parent not in known:
                continue
            if parent not in seen:
                heapq.heappush(left, (-known[parent].create_time, parent))
            seen[parent] = seen.get(parent, 0) | seen[commit_id]
    return None
