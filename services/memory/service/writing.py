"""How a branch comes by a commit: in one transaction, in which nobody else moves the branch."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from sqlalchemy.exc import IntegrityError

from services.memory.domain import tree
from services.memory.domain.planning import Pair
from services.memory.domain.values import (
    MAIN,
    Commit,
    Ref,
    Space,
    Version,
    key_of,
    value_of,
)
from services.memory.service.reading import View, head
from services.memory.store import commits, spans, versions
from services.memory.store.nodes import KnownNodes
from services.memory.store.shared import Place
from services.runtime import clock
from services.runtime.context import Principal
from services.runtime.db import Conflict, Connection, Database
from services.runtime.errors import Aborted
from services.runtime.shared import Notices

_ATTEMPTS = 3
FEED_TOPIC = "memory.feed"
T = TypeVar("T")


@dataclass(frozen=True)
class Writing:
    """What a commit is made of.

    Attributes:
        changes: Memories and their versions from now on; None removes them.
        made: Versions that are new.
        pairs: Versions that say otherwise.
        merged: The commit that is merged, if one is.
        root: The tree after it, where that is known already.
    """

    changes: Mapping[str, str | None]
    made: Sequence[Version] = ()
    pairs: Sequence[Pair] = ()
    message: str = ""
    merged: Commit | None = None
    root: bytes | None = None
    known_root: bool = False
    by: str = field(kw_only=True)


class Desk:
    """What the use cases stand on."""

    def __init__(self, database: Database, notices: Notices) -> None:
        self.database = database
        self.notices = notices
        self.known = KnownNodes()

    async def write(self, tenant_id: str, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Do some work in a transaction, again where another stood in its way.

        Raises:
            Aborted: Others were first each time.
        """
        for _ in range(_ATTEMPTS):
            try:
                async with self.database.transaction((tenant_id,)) as connection:
                    done = await work(connection)
            except (Conflict, IntegrityError):
                # Another replica began the same space, or answered the same request, just now.
                continue
            await self.tell()
            return done
        raise Aborted(
            "Others were first each time. Read the head and try again.", reason="STALE_HEAD"
        )

    async def tell(self) -> None:
        """Say that there may be more in the feed."""
        await self.notices.publish(FEED_TOPIC)

    async def head_of(
        self, connection: Connection, place: Place, space: Space, name: str, expected: str = ""
    ) -> tuple[Ref, View]:
        """A branch, which nobody else moves from now on, and what it holds.

        Raises:
            NotFound: There is no such branch.
            Aborted: It is not where it is expected.
        """
        branch = await commits.branch(connection, place, name or MAIN, lock=True)
        if expected and expected != branch.commit_id:
            raise commits.stale(branch)
        commit = await head(connection, place, branch.commit_id)
        return branch, View(connection, place, space, commit, self.known)


async def commit(branch: Ref, view: View, writing: Writing) -> Commit:
    """Make a commit on a branch that was locked, and move the branch to it.

    Raises:
        Aborted: The branch is not there any more.
    """
    connection, place = view.connection, view.place
    parents = [each for each in (view.commit, writing.merged) if each is not None]
    # Later than what it rests on, whatever the hosts' clocks say: reading by time needs an order.
    now = max([clock.now(), *(each.create_time + 1 for each in parents)])
    held = await view.find(writing.changes)
    bands = view.space.policy.likeness < 1
    await versions.put(connection, place, writing.made, now, bands=bands)
    await versions.link(connection, place, writing.pairs)
    root = writing.root if writing.known_root else await _planted(view, writing.changes, now)
    begun = [(memory, version) for memory, version in writing.changes.items() if version]
    added = sum(memory not in held for memory, _ in begun)
    removed = sum(memory in held for memory, version in writing.changes.items() if not version)
    made = Commit(
        space=place.space,
        branch=branch.name,
        parents=tuple(each.commit_id for each in parents),
        root=root.hex() if root else "",
        count=(view.commit.count if view.commit else 0) + added - removed,
        message=writing.message,
        author_id=writing.by,
        create_time=now,
        added=added,
        changed=len(begun) - added,
        removed=removed,
    ).named()
    await commits.add(connection, place, made)
    await commits.move(connection, place, branch.name, branch.commit_id, made.commit_id)
    if branch.name == MAIN:
        await spans.turn(connection, place, made, list(held), begun)
    return made


async def _planted(view: View, changes: Mapping[str, str | None], now: int) -> bytes | None:
    edit = tree.Edit(view.nodes)
    wanted = {}
    for memory_id, version in changes.items():
        key = key_of(memory_id)
        assert key is not None
        wanted[key] = value_of(version) if version else None
    root = await edit.apply(view.root, wanted)
    await view.nodes.add(edit.needed(root), now)
    return root


def author_of(who: Principal) -> str:
    """Who a commit says made it."""
    return who.user_id if who.mesh else who.actor_id


class Neighbours:
    """The memories of a branch that are like some, each read once."""

    def __init__(self, view: View, most: int) -> None:
        """Prepare.

        Args:
            view: The branch's head.
            most: How many are looked at for each mark.
        """
        self._view = view
        self._most = most
        self.found_by: dict[int, list[str]] = {}
        self.current: dict[str, Version] = {}
        self._looked: set[str] = set()

    async def look(self, marks: Collection[int], memory_ids: Iterable[str] = ()) -> None:
        """Read those with some of these marks, and these."""
        new = [mark for mark in marks if mark not in self.found_by]
        found = await versions.alike(self._view.connection, self._view.place, new, self._most)
        self.found_by |= {mark: found.get(mark, []) for mark in new}
        wanted = {each for ids in found.values() for each in ids} | set(memory_ids)
        wanted -= self._looked
        self._looked |= wanted
        if wanted:
            self.current |= await self._view.versions(wanted)

    async def near(
        self, changed: Mapping[str, frozenset[int]], before: Collection[Version]
    ) -> dict[str, set[str]]:
        """Of memories by id, with their marks, those that may say otherwise.

        Args:
            changed: The memories and their marks.
            before: As they stood: what said otherwise than these may still.
        """
        links = await versions.links(
            self._view.connection, self._view.place, [each.version_id for each in before]
        )
        linked = {
            each.memory_id: {memory for memory, _ in links.get(each.version_id, ())}
            for each in before
        }
        marks = {mark for all_marks in changed.values() for mark in all_marks}
        await self.look(marks, {each for ids in linked.values() for each in ids})
        of_mark = {mark: list(self.found_by[mark]) for mark in marks}
        for memory_id, own in changed.items():
            for mark in own:
                of_mark[mark].append(memory_id)
        return {
            memory_id: {each for mark in own for each in of_mark[mark]}
            | linked.get(memory_id, set())
            for memory_id, own in changed.items()
        }
