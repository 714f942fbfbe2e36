"""Defects of memory that show in its histories."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

from tests.faults.planting import Plant, module
from tests.faults.planting import replace as put


def heads_move_without_comparing() -> None:
    """A writer rests on a head that it read before, and moves the branch whatever is there now."""
    writing, commits = module("memory.service.writing"), module("memory.store.commits")
    turns = itertools.count()

    def stale(original: Any) -> Any:
        async def head_of(self: Any, connection: Any, place: Any, *more: Any) -> Any:
            ref, view = await original(self, connection, place, *more)
            if next(turns) % 3 == 0 and view.commit is not None and view.commit.parents:
                before = await commits.get(connection, place, view.commit.parents[0])
                return replace(ref, commit_id=before.commit_id), view.at(before)
            return ref, view

        return head_of

    def moved(_: Any) -> Any:
        async def move(connection: Any, place: Any, name: str, before: str, after: str) -> None:
            table = commits.branches
            same = (*place.of(table), table.c.name == name)
            await connection.execute(commits.update(table).where(*same).values(commit_id=after))

        return move

    put(writing.Desk, "head_of", stale)
    put(commits, "move", moved)


def rollbacks_lose_a_commit() -> None:
    """A rollback is put in the place of the newest commit, not behind it."""
    branching, commits = module("memory.service.branching"), module("memory.store.commits")

    def make(original: Any) -> Any:
        async def commit(ref: Any, view: Any, writing: Any) -> Any:
            made = await original(ref, view, writing)
            if writing.known_root and view.commit is not None and view.commit.parents:
                table = commits.commits
                same = (*view.place.of(table), table.c.commit_id == made.commit_id)
                lost = commits.update(table).where(*same)
                await view.connection.execute(lost.values(parent_id=view.commit.parents[0]))
            return made

        return commit

    put(branching, "commit", make)


def acknowledged_before_the_commit() -> None:
    """Now and then what was acknowledged is undone."""
    writing = module("memory.service.writing")
    turns = itertools.count(1)

    class Undone(Exception):
        """Undoes a transaction."""

    def make(original: Any) -> Any:
        async def write(self: Any, tenant_id: str, work: Any) -> Any:
            if next(turns) % 9:
                return await original(self, tenant_id, work)
            done = None
            try:
                async with self.database.transaction((tenant_id,)) as connection:
                    done = await work(connection)
                    raise Undone
            except Undone:
                return done

        return write

    put(writing.Desk, "write", make)


def ends_are_not_noted() -> None:
    """What is not current any more stays current in the feed."""
    spans = module("memory.store.spans")

    def make(original: Any) -> Any:
        async def turn(connection: Any, place: Any, commit: Any, ended: Any, begun: Any) -> None:
            await original(connection, place, commit, [], begun)

        return turn

    put(spans, "turn", make)


def changes_are_stored_beside() -> None:
    """A tree takes over what was added, and forgets what was removed."""
    writing = module("memory.service.writing")

    def make(original: Any) -> Any:
        async def planted(view: Any, changes: Any, now: int) -> Any:
            kept = {memory: version for memory, version in changes.items() if version}
            return await original(view, kept, now)

        return planted

    put(writing, "_planted", make)


PLANTS: tuple[Plant, ...] = (
    heads_move_without_comparing,
    rollbacks_lose_a_commit,
    acknowledged_before_the_commit,
    ends_are_not_noted,
    changes_are_stored_beside,
)
