"""Reading memories, commits, and what differs between them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.memory.domain import tree
from services.memory.domain.values import (
    MAIN,
    At,
    Commit,
    Memory,
    Policy,
    Space,
    key_of,
    memory_of,
    version_of,
)
from services.memory.service import access
from services.memory.service.reading import View, resolve
from services.memory.service.storing import place_of_memory
from services.memory.service.writing import Desk
from services.memory.store import commits, spaces, spans
from services.runtime import clock, paging
from services.runtime.context import Principal
from services.runtime.db import Connection
from services.runtime.errors import Aborted, NotFound, ResourceExhausted

# Of a branch's own commits so many are looked at for one page of a memory's versions.
_MOST_COMMITS = 500
_MAX_READ_BYTES = 8_000_000
_ALWAYS = 1 << 62
Differs = tuple[str, Memory | None, Memory | None]
Was = tuple[Memory | None, Commit]


class Browsing:
    """What reads, and changes nothing but what a space keeps."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @asynccontextmanager
    async def view(self, who: Principal, name: str, at: At) -> AsyncIterator[View]:
        """A space at a point of its history.

        Raises:
            NotFound: There is no such space for the caller, or no such point.
        """
        place = access.place_of(who, name)
        async with self._desk.database.read((who.tenant_id,)) as connection:
            space = await access.space_of(connection, who, place)
            found = await resolve(connection, place, at)
            yield View(connection, place, space, found, self._desk.known)

    async def memory(self, who: Principal, memory_id: str, at: At) -> Memory:
        """One memory.

        Raises:
            NotFound: It is not there, or not for the caller.
        """
        async with self._desk.database.read((who.tenant_id,)) as connection:
            place, space = await place_of_memory(connection, who, memory_id)
            found = await resolve(connection, place, at)
            view = View(connection, place, space, found, self._desk.known)
            here = await view.memories(list((await view.find([memory_id])).items()))
            if not here:
                raise NotFound.of("memory")
            return here[0]

    async def memories(
        self, who: Principal, name: str, at: At, size: int, token: str
    ) -> tuple[list[Memory], str, str]:
        """A page of memories by id, the token of the next, and the commit.

        Raises:
            NotFound: There is no such space for the caller, or no such point.
        """
        limit = paging.page_size(size)
        after = paging.decode(token, str, str)
        if after is not None:
            at = At(commit_id=after[1])
        async with self.view(who, name, at) as view:
            held = await view.page(after[0] if after else "", limit + 1)
            count = await view.fitting(held[:limit])
            found = await view.memories(held[:count])
            more = count < len(held)
            last = held[count - 1][0] if held else ""
            return found, paging.encode((last, view.commit_id)) if more else "", view.commit_id

    async def read(
        self, who: Principal, name: str, memory_ids: list[str], at: At
    ) -> tuple[list[Memory], Commit | None]:
        """Memories in the order asked for, those that are there.

        Raises:
            NotFound: There is no such point of the space's history.
            ResourceExhausted: They are too much for one reply.
        """
        try:
            async with self.view(who, name, at) as view:
                found = await view.find(memory_ids)
                held = [(each, found[each]) for each in memory_ids if each in found]
                if await view.bytes_of(held) > _MAX_READ_BYTES:
                    raise ResourceExhausted(
                        "These are too much for one reply: ask for fewer.",
                        metadata={"limit": "reply_bytes"},
                    )
                return await view.memories(held), view.commit
        except NotFound as error:
            if error.metadata.get("resource") == "space":
                return [], None
            raise

    async def diff(
        self, who: Principal, name: str, first: At, second: At, size: int, token: str
    ) -> tuple[list[Differs], str, str, str]:
        """A page of what differs by id, the token of the next, and the two commits.

        Raises:
            NotFound: There is no such space for the caller, or no such point.
        """
        limit = paging.page_size(size)
        seen = paging.decode(token, str, str)
        after = ""
        if seen is not None:
            after, (one, _, other) = seen[0], seen[1].partition(" ")
            first, second = _at_commit(one), _at_commit(other)
        async with self.view(who, name, second) as later:
            earlier = await self.beside(later, first)
            found = await earlier.diff(later, after, limit + 1)
            count = await _fitting(earlier, later, found[:limit])
            page = await differing(earlier, later, found[:count])
            token = ""
            if count < len(found):
                last = memory_of(found[count - 1].key)
                token = paging.encode((last, f"{earlier.commit_id} {later.commit_id}"))
            return page, token, earlier.commit_id, later.commit_id

    async def beside(self, view: View, at: At) -> View:
        """The same space at another point.

        Raises:
            NotFound: There is no such point.
        """
        found = await resolve(view.connection, view.place, at) if at != _BEFORE else None
        return view.at(found)

    async def versions(
        self, who: Principal, memory_id: str, branch: str, size: int, token: str
    ) -> tuple[list[Was], str]:
        """A page of a memory's versions on a branch, the newest first, and the token of the next.

        Raises:
            NotFound: There is no such memory for the caller, or it was never on the branch.
        """
        limit = paging.page_size(size)
        seen = paging.decode(token, str, int)
        async with self._desk.database.read((who.tenant_id,)) as connection:
            place, space = await place_of_memory(connection, who, memory_id)
            ref = await commits.branch(connection, place, branch or MAIN)
            start, before = seen or (ref.commit_id if ref.name != MAIN else "", _ALWAYS)
            view = View(connection, place, space, None, self._desk.known)
            found: list[Was] = []
            if start:
                found, start, before = await self._on_branch(view, memory_id, start, limit)
            if not start and len(found) < limit:
                wanted = limit - len(found)
                more, before = await _on_main(view, memory_id, before, wanted)
                found += more
            if not found and not seen:
                raise NotFound.of("memory")
            return found, paging.encode((start, before)) if start or before else ""

    async def _on_branch(
        self, view: View, memory_id: str, start: str, limit: int
    ) -> tuple[list[Was], str, int]:
        """Versions by a branch's own commits; then where to go on, there or on `main`."""
        key = key_of(memory_id)
        assert key is not None
        line = await commits.line(view.connection, view.place, start, _MOST_COMMITS + 1)
        found: list[Was] = []
        for made, parent in zip(line, [*line[1:], None], strict=True):
            if made.branch == MAIN:
                return found, "", made.create_time + 1
            if parent is None and made.parents:
                return found, made.commit_id, 0
            if made.pruned:
                return found, "", 0
            if len(found) == limit:
                return found, made.commit_id, 0
            here, there = view.at(made), view.at(parent)
            now, was = await here.find([memory_id]), await there.find([memory_id])
            if now != was:
                read = await here.memories(list(now.items()))
                found.append((read[0] if read else None, made))
        return found, "", 0

    async def spaces(self, who: Principal, size: int, token: str) -> tuple[list[Space], str]:
        """A page of the spaces that the caller may read, and the token of the next."""
        limit = paging.page_size(size)
        after = paging.decode(token, str)
        async with self._desk.database.read((who.tenant_id,)) as connection:
            found = await spaces.page(
                connection, who.tenant_id, who.user_id, after[0] if after else "", limit + 1
            )
        return paging.cut(found, limit, lambda each: (each.space,))

    async def space(self, who: Principal, name: str) -> Space:
        """One space.

        Raises:
            NotFound: It is not there, or not for the caller.
        """
        async with self.view(who, name, At()) as view:
            return view.space

    async def update_space(
        self,
        who: Principal,
        name: str,
        policy: Policy | None,
        members: tuple[str, ...] | None,
        etag: str,
    ) -> Space:
        """Change what a space keeps and who may read it.

        Raises:
            NotFound: It is not for the caller.
            PermissionDenied: The caller's role does not do.
            Aborted: It was changed meanwhile.
        """
        place = access.place_of(who, name)
        access.require_manager(who, place)
        members = access.chosen(place, members)

        async def work(connection: Connection) -> Space:
            await access.begun(connection, who, place, clock.now())
            space = await spaces.get(connection, place, who.user_id, lock=True)
            if etag and etag != str(space.etag):
                raise Aborted("The space was changed. Read it and try again.")
            await spaces.change(connection, place, policy, members)
            # Whoever changes it may leave himself out of it.
            return await spaces.get(connection, place, "")

        return await self._desk.write(who.tenant_id, work)

    async def commits(
        self, who: Principal, name: str, at: At, size: int, token: str
    ) -> tuple[list[Commit], str]:
        """A page of the commits that lead to one, the newest first, and the token of the next.

        Raises:
            NotFound: There is no such space for the caller, or no such point.
        """
        limit = paging.page_size(size)
        seen = paging.decode(token, str)
        async with self._desk.database.read((who.tenant_id,)) as connection:
            place = access.place_of(who, name)
            await access.space_of(connection, who, place)
            start = seen[0] if seen else ""
            if not start:
                found = await resolve(connection, place, at)
                start = found.commit_id if found else ""
            line = await commits.line(connection, place, start, limit + 1) if start else []
        if len(line) <= limit:
            return line, ""
        return line[:limit], paging.encode((line[limit].commit_id,))

    async def commit(self, who: Principal, name: str, commit_id: str) -> Commit:
        """One commit.

        Raises:
            NotFound: It is not there, or not for the caller.
        """
        async with self._desk.database.read((who.tenant_id,)) as connection:
            place = access.place_of(who, name)
            await access.space_of(connection, who, place)
            return await commits.get(connection, place, commit_id)


# Before the first commit, as page tokens have it.
_BEFORE = At(time=-1)


def _at_commit(commit_id: str) -> At:
    return At(commit_id=commit_id) if commit_id else _BEFORE


async def _on_main(view: View, memory_id: str, before: int, limit: int) -> tuple[list[Was], int]:
    """Versions on `main` before a moment, and where to go on; 0 where there are no more."""
    if limit <= 0 or before <= 0:
        return [], before
    found = await spans.of_memory(view.connection, view.place, memory_id, before, limit + 1)
    made = await commits.some(
        view.connection,
        view.place,
        {each for span in found for each in (span.since_commit, span.until_commit) if each},
    )
    read = {
        each.version.version_id: each
        for each in await view.memories([(memory_id, span.version_id) for span in found])
    }
    was: list[Was] = []
    next_since = before
    for span in found[:limit]:
        # It was removed where nothing follows at once.
        if span.until is not None and span.until != next_since and span.until < before:
            was.append((None, made[span.until_commit]))
        if span.version_id in read and span.since_commit in made:
            was.append((read[span.version_id], made[span.since_commit]))
        next_since = span.since
    return was, found[limit - 1].since if len(found) > limit else 0


async def _fitting(earlier: View, later: View, found: list[tree.Change]) -> int:
    """How many changes fit one reply."""
    held = [(memory_of(each.key), version_of(each.after or each.before or b"")) for each in found]
    return await later.fitting(held)


async def differing(earlier: View, later: View, found: list[tree.Change]) -> list[Differs]:
    """Memories as they stand in two commits; what is erased in both is left out."""
    before = await by_key(earlier, {each.key: each.before for each in found})
    after = await by_key(later, {each.key: each.after for each in found})
    return [
        (memory_of(each.key), before.get(each.key), after.get(each.key))
        for each in found
        if each.key in before or each.key in after
    ]


async def by_key(view: View, values: dict[bytes, bytes | None]) -> dict[bytes, Memory]:
    """Memories in these versions, by key."""
    held = [(memory_of(key), version_of(value)) for key, value in values.items() if value]
    found = {each.version.memory_id: each for each in await view.memories(held)}
    return {key: found[memory_of(key)] for key in values if memory_of(key) in found}
