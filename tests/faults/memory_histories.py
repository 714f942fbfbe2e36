"""Histories of one memory space: many who write, and a checker of what came of it.

A branch's head is a register that moves by comparing, so the chain of its commits is the one order
in which its writes can have happened: what is left to check is that every acknowledged write is in
it once, that it goes with real time, and that each commit holds what the commits before it make.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from services.memory.domain.merging import Side
from services.memory.domain.values import MAIN, At, Commit
from services.memory.store import spans
from services.memory.store.shared import Place
from services.memory.tables import branches
from services.runtime.context import Principal
from services.runtime.errors import PlexusError
from tests.services.memory.house import House

WRITERS = 16
_TURNS = 4
_CUT = 0.08
State = dict[str, str]
# What a commit held that is not there any more: nothing is equal to it.
_LOST = {"": ""}
_words = itertools.count()
ADA = Principal("ten_h", "usr_h", "tok_h", frozenset({2}))


@dataclass
class Op:
    """Something that a writer did, or tried.

    Attributes:
        name: What its commit says, which no other does.
        kind: What it was.
        branch: On which branch.
        began: When, in the event loop's time.
        ended: When; None where the writer was killed on the way.
        made: Its commit.
        refused: Whether it was told that nothing happened.
        effect: What the state after it is, by the state before and those of all commits.
        expected: The head that it asked for.
    """

    name: str
    kind: str
    branch: str
    began: float
    ended: float | None = None
    made: Commit | None = None
    refused: bool = False
    effect: Callable[[State, dict[str, State], Commit], State] | None = None
    expected: str = ""
    seen: State | None = None
    seen_at: str = ""


@dataclass
class History:
    """What was done in a space."""

    house: House
    space: str
    chance: random.Random
    ops: list[Op] = field(default_factory=list)

    async def run(self) -> None:
        """Let everybody write."""
        await self._store(MAIN)
        for name in ("b0", "b1"):
            await self.house.branching.add(ADA, branches, self.space, name, At())
        async with asyncio.TaskGroup() as group:
            for number in range(WRITERS):
                group.create_task(self._writer(random.Random(self.chance.random() + number)))

    async def _writer(self, chance: random.Random) -> None:
        for _ in range(_TURNS):
            work = self._turn(chance)
            if chance.random() < _CUT:
                await _killed(work, chance.random() * 0.02)
            else:
                await work

    async def _turn(self, chance: random.Random) -> None:
        branch = chance.choice((MAIN, MAIN, "b0", "b1"))
        kind = chance.choices(
            ("store", "change", "delete", "rollback", "merge", "read", "compare"),
            (4, 4, 2, 2, 2, 3, 2),
        )[0]
        match kind:
            case "store":
                await self._store(branch)
            case "change" | "delete":
                await self._touch(kind, branch, chance)
            case "rollback":
                await self._roll_back(branch, chance)
            case "merge":
                await self._merge(chance.choice(("b0", "b1")), chance)
            case "read":
                await self._read(branch)
            case _:
                head = (await self._state(branch))[0]
                await self._store(branch, expected_head=head)

    async def _do(
        self, op: Op, work: Coroutine[Any, Any, Commit | None], effect: Any = None
    ) -> None:
        op.effect = effect
        self.ops.append(op)
        try:
            op.made = await work
        except PlexusError as error:
            # Of what is away nobody knows whether it was done; of the rest everybody does.
            op.refused = error.reason not in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
            if not op.refused:
                return
        op.ended = _now()

    def _op(self, kind: str, branch: str, **more: Any) -> Op:
        return Op(f"{kind}-{next(_words)}", kind, branch, _now(), **more)

    async def _store(self, branch: str, expected_head: str = "") -> None:
        op = self._op("store", branch, expected=expected_head)
        text = f"{op.name} {self.space}"
        known: dict[str, str] = {}

        async def work() -> Commit | None:
            made, (stored,) = await self.house.store(
                ADA,
                text,
                space=self.space,
                branch=branch,
                message=op.name,
                expected_head=expected_head,
            )
            known["id"] = stored.memory_id
            return made

        await self._do(op, work(), lambda before, _, made: {**before, **_added(known, text, made)})

    async def _touch(self, kind: str, branch: str, chance: random.Random) -> None:
        _, held = await self._state(branch)
        if not held:
            return
        memory_id = chance.choice(sorted(held))
        op = self._op(kind, branch)
        if kind == "change":
            text = f"{op.name} changed"

            async def change() -> Commit | None:
                made, _ = await self.house.store(
                    ADA,
                    text,
                    memory_id=memory_id,
                    space=self.space,
                    branch=branch,
                    message=op.name,
                )
                return made

            await self._do(op, change(), lambda before, *_: {**before, memory_id: text})
            return
        # A deletion says nothing about itself; its commit is known by the memory that it removes.
        op.name = f"delete {memory_id}"
        await self._do(op, self.house.storing.delete(ADA, memory_id, branch), _without(memory_id))

    async def _roll_back(self, branch: str, chance: random.Random) -> None:
        line, _ = await self.house.browsing.commits(ADA, self.space, At(branch=branch), 100, "")
        target = chance.choice(line).commit_id
        op = self._op("rollback", branch)
        work = self.house.branching.roll_back(
            ADA, self.space, branch, At(commit_id=target), "", op.name
        )
        await self._do(op, work, lambda _, states, __: states.get(target, _LOST))

    async def _merge(self, name: str, chance: random.Random) -> None:
        op, side = self._op("merge", MAIN), chance.choice((Side.OURS, Side.THEIRS))

        async def work() -> Commit | None:
            made: Commit | None
            made, conflicts, _ = await self.house.merge(ADA, name, self.space, message=op.name)
            if conflicts:
                sides = {each[0]: side for each in conflicts}
                made, _, _ = await self.house.merge(
                    ADA, name, self.space, message=op.name, sides=sides
                )
            return made

        await self._do(op, work())
        op.effect = lambda before, states, made: states[f"merge {made.commit_id} {side}"]

    async def _read(self, branch: str) -> None:
        op = self._op("read", branch)
        self.ops.append(op)
        op.seen_at, op.seen = await self._state(branch)
        op.ended = _now()

    async def _state(self, branch: str) -> tuple[str, State]:
        return await state_at(self.house, self.space, At(branch=branch))


async def state_at(house: House, space: str, at: At) -> tuple[str, State]:
    """A commit, and what it holds."""
    async with house.browsing.view(ADA, space, at) as view:
        memories = await view.memories(await view.page("", 10_000))
        held = {each.version.memory_id: each.version.content.text for each in memories}
        return view.commit_id, held


def _added(known: dict[str, str], text: str, made: Commit) -> State:
    return {known.get("id", f"unknown {made.commit_id}"): text}


def _without(memory_id: str) -> Callable[..., State]:
    return lambda before, *_: {key: text for key, text in before.items() if key != memory_id}


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _killed(work: Coroutine[Any, Any, None], after: float) -> None:
    """A writer that ends on the way, and is never told what became of it."""
    task = asyncio.create_task(work)
    await asyncio.wait({task}, timeout=after)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


class Checker:
    """Says what of a history cannot be."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._house = history.house
        self._space = history.space
        self.wrong: list[str] = []
        self._commits: dict[str, Commit] = {}
        self._states: dict[str, State] = {}

    async def check(self) -> list[str]:
        """Everything."""
        chains = {name: await self._chain(name) for name in (MAIN, "b0", "b1")}
        for chain in chains.values():
            self._commits |= {each.commit_id: each for each in chain}
        for made in sorted(self._commits.values(), key=lambda each: each.create_time):
            found = await state_at(self._house, self._space, At(commit_id=made.commit_id))
            self._states[made.commit_id] = found[1]
        self._once(chains)
        for name, chain in chains.items():
            self._in_time(name, chain)
            self._replayed(name, chain)
        self._reads(chains)
        await self._feed(chains[MAIN])
        return self.wrong

    async def _chain(self, name: str) -> list[Commit]:
        """A branch's commits, the oldest first."""
        found: list[Commit] = []
        token = ""
        while True:
            page, token = await self._house.browsing.commits(
                ADA, self._space, At(branch=name), 100, token
            )
            found += page
            if not token:
                return found[::-1]

    def _say(self, what: str, text: str) -> None:
        self.wrong.append(f"{what}: {text}")

    def _once(self, chains: dict[str, list[Commit]]) -> None:
        """Acknowledged writes are there once, and refused ones never."""
        for op in self._history.ops:
            chain = {each.commit_id for each in chains[op.branch]}
            if op.made is not None and op.made.commit_id not in chain:
                self._say("lost", op.name)
            if op.made is not None and op.expected and op.made.parents[0] != op.expected:
                self._say("compared with another head", op.name)
        said = Counter(each.message for each in self._commits.values() if each.message)
        refused = {op.name for op in self._history.ops if op.refused}
        for name, count in said.items():
            if count > 1:
                self._say("twice", name)
            if name in refused:
                self._say("refused and done", name)

    def _in_time(self, name: str, chain: list[Commit]) -> None:
        """What ended before another began comes before it."""
        by_commit = {op.made.commit_id: op for op in self._history.ops if op.made is not None}
        earliest = float("inf")
        for made in reversed(chain):
            op = by_commit.get(made.commit_id)
            if op is None or op.ended is None or op.branch != name:
                continue
            if earliest < op.began:
                self._say("out of time", op.name)
            earliest = min(earliest, op.ended)

    def _replayed(self, name: str, chain: list[Commit]) -> None:
        """Each commit holds what the one before it, and what was done, make."""
        by_message = {op.name: op for op in self._history.ops if op.kind != "delete"}
        by_commit = {op.made.commit_id: op for op in self._history.ops if op.made is not None}
        for before, made in itertools.pairwise([None, *chain]):
            assert made is not None
            if made.branch != name:
                continue
            parent = made.parents[0] if made.parents else None
            if parent != (before.commit_id if before else None):
                self._say("not behind its parent", made.commit_id)
            was = self._states.get(parent or "", {})
            now = self._states[made.commit_id]
            if len(now) != made.count:
                self._say("miscounted", made.commit_id)
            op = by_commit.get(made.commit_id) or by_message.get(made.message)
            if op is None or op.effect is None:
                continue
            if len(made.parents) > 1:
                if made.parents[1] not in self._commits:
                    self._say("lost", made.parents[1])
                    continue
                self._merge(made, was)
            expected = op.effect(was, self._states, made)
            if op.made is None and op.kind == "store":
                # Who was killed does not know the id.
                good = sorted(expected.values()) == sorted(now.values())
            else:
                good = expected == now
            if not good:
                self._say("not what was done", f"{op.name} on {name}")

    def _merge(self, made: Commit, ours: State) -> None:
        """What a merge must give for either side, by dictionaries."""
        theirs = self._states[made.parents[1]]
        base = self._states.get(self._base(*made.parents), {})
        for side in Side:
            whole = dict(ours)
            for key in base.keys() | theirs.keys() | ours.keys():
                one, other, was = ours.get(key), theirs.get(key), base.get(key)
                if other == was or (one not in (was, other) and side == Side.OURS):
                    continue
                whole.pop(key, None)
                if other is not None:
                    whole[key] = other
            self._states[f"merge {made.commit_id} {side}"] = whole

    def _base(self, first: str, second: str) -> str:
        both = self._before(first) & self._before(second)
        return max(both, key=lambda each: self._commits[each].create_time, default="")

    def _before(self, commit_id: str) -> set[str]:
        left, found = [commit_id], {commit_id}
        while left:
            for parent in self._commits[left.pop()].parents:
                if parent not in found and parent in self._commits:
                    found.add(parent)
                    left.append(parent)
        return found

    def _reads(self, chains: dict[str, list[Commit]]) -> None:
        """Whoever read saw one commit whole, and none older than what was known then."""
        for op in self._history.ops:
            if op.seen is None or op.ended is None:
                continue
            places = {each.commit_id: n for n, each in enumerate(chains[op.branch])}
            if op.seen_at not in places:
                self._say("read from nowhere", op.name)
                continue
            if op.seen != self._states[op.seen_at]:
                self._say("read in part", op.name)
            for other in self._history.ops:
                if other.made is None or other.branch != op.branch or other.ended is None:
                    continue
                place = places.get(other.made.commit_id, -1)
                if other.ended < op.began and place > places[op.seen_at]:
                    self._say("read too old", op.name)
                if other.began > op.ended and place == places[op.seen_at]:
                    self._say("read from the future", op.name)

    async def _feed(self, chain: list[Commit]) -> None:
        """What was current at each moment is what the commit of that moment holds."""
        async with self._house.database.read((ADA.tenant_id,)) as connection:
            found = await spans.newest(connection, Place(ADA.tenant_id, self._space), 100_000)
        for made in chain:
            at = made.create_time
            held = [
                each.memory_id
                for each in found
                if each.since <= at and (each.until is None or at < each.until)
            ]
            if sorted(held) != sorted(self._states[made.commit_id]):
                self._say("the feed differs", made.commit_id)
