"""A space as it stands at one of its commits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from services.memory.domain import tree
from services.memory.domain.values import (
    FIRST_STRENGTH,
    HALF_LIFE,
    MAIN,
    At,
    Commit,
    Memory,
    Space,
    Version,
    faded,
    key_of,
    memory_of,
    version_of,
)
from services.memory.store import commits, versions
from services.memory.store.nodes import KnownNodes, StoredNodes
from services.memory.store.shared import Place
from services.runtime import clock
from services.runtime.db import Connection
from services.runtime.errors import NotFound

_PAGE_BYTES = 2_000_000
Held = tuple[str, str]


class View:
    """What is there at a commit; None is before the first."""

    def __init__(
        self,
        connection: Connection,
        place: Place,
        space: Space,
        commit: Commit | None,
        known: KnownNodes,
    ) -> None:
        self.connection = connection
        self.place = place
        self.space = space
        self.commit = commit
        self.nodes = StoredNodes(connection, place, known)
        self._known = known
        self.root = root_of(commit)

    @property
    def commit_id(self) -> str:
        """The commit's, or nothing."""
        return self.commit.commit_id if self.commit else ""

    def at(self, commit: Commit | None) -> View:
        """The same space at another commit."""
        return View(self.connection, self.place, self.space, commit, self._known)

    async def beside_main(self) -> View:
        """The same space at the head of `main`."""
        return self.at(await resolve(self.connection, self.place, At()))

    async def find(self, memory_ids: Iterable[str]) -> dict[str, str]:
        """The versions of memories, of those that are there."""
        keys = {key: each for each in memory_ids if (key := key_of(each)) is not None}
        found = await tree.find(self.nodes, self.root, keys)
        return {keys[key]: version_of(value) for key, value in found.items()}

    async def page(self, after: str, limit: int) -> list[Held]:
        """So many memories behind one, by id, with their versions."""
        found = await tree.page(self.nodes, self.root, key_of(after) or b"", limit)
        return [(memory_of(key), version_of(value)) for key, value in found]

    async def diff(self, other: View, after: str, limit: int) -> list[tree.Change]:
        """So many of the memories that another commit has otherwise, behind one."""
        found = []
        if self.root != other.root:
            async for change in tree.diff(self.nodes, self.root, other.root, key_of(after) or b""):
                found.append(change)
                if len(found) == limit:
                    break
        return found

    async def versions(self, memory_ids: Iterable[str]) -> dict[str, Version]:
        """Memories as they stand, of those that are there."""
        held = await self.find(memory_ids)
        read = await versions.get(self.connection, self.place, set(held.values()))
        return {memory: read[version] for memory, version in held.items() if version in read}

    async def memories(self, held: Sequence[Held]) -> list[Memory]:
        """Memories in these versions, in this order, without those that are erased."""
        read = await versions.get(self.connection, self.place, {version for _, version in held})
        return await self.dressed([read[version] for _, version in held if version in read])

    async def dressed(self, found: Sequence[Version]) -> list[Memory]:
        """Versions with what says otherwise here, and how strong they are."""
        links = await versions.links(
            self.connection, self.place, {each.version_id for each in found}
        )
        others = {memory for linked in links.values() for memory, _ in linked}
        here = await self.find(others) if others else {}
        strengths = await versions.strengths(
            self.connection, self.place.tenant_id, {each.memory_id for each in found}
        )
        return [
            Memory(
                version=each,
                space=self.place.space,
                contradicts=tuple(
                    memory
                    for memory, version in links.get(each.version_id, ())
                    if here.get(memory) == version
                ),
                strength=self.strength(each, strengths),
            )
            for each in found
        ]

    def strength(self, version: Version, strengths: Mapping[str, tuple[float, int]]) -> float:
        """How present a memory is now."""
        half_life = self.space.policy.half_life or HALF_LIFE
        strength, since = strengths.get(version.memory_id, (FIRST_STRENGTH, version.update_time))
        return faded(strength, since, clock.now(), half_life)

    async def bytes_of(self, held: Sequence[Held]) -> int:
        """How large these are together."""
        read = {version for _, version in held}
        return sum((await versions.sizes(self.connection, self.place, read)).values())

    async def fitting(self, held: Sequence[Held]) -> int:
        """How many of these fit one reply; at least one."""
        sizes = await versions.sizes(self.connection, self.place, {each for _, each in held})
        total = 0
        for count, (_, version) in enumerate(held):
            total += sizes.get(version, 0)
            if total > _PAGE_BYTES and count:
                return count
        return len(held)


async def resolve(connection: Connection, place: Place, at: At) -> Commit | None:
    """The commit at a point of a space's history; None before the first.

    Raises:
        NotFound: There is no such branch, tag or commit, or what it held is not kept any more.
    """
    if at.time is not None:
        found = await commits.at_time(connection, place, at.time)
    elif at.commit_id:
        found = await commits.get(connection, place, at.commit_id)
    elif at.tag:
        found = await head(
            connection, place, (await commits.tag(connection, place, at.tag)).commit_id
        )
    else:
        branch = await commits.branch(connection, place, at.branch or MAIN)
        found = await head(connection, place, branch.commit_id)
    if found is not None and found.pruned:
        raise NotFound.of("commit")
    return found


async def head(connection: Connection, place: Place, commit_id: str) -> Commit | None:
    """A commit; None where there is none yet."""
    return await commits.get(connection, place, commit_id) if commit_id else None


def root_of(commit: Commit | None) -> bytes | None:
    """The root of a commit's tree; None for the empty one."""
    return bytes.fromhex(commit.root) if commit and commit.root else None
