"""Retention: what a space's policy keeps no longer, and what no name leads to, goes away.

Mark and sweep, in short steps and beside writers. Commits are judged under the space's own lock,
which whoever refers to an older commit takes too. What is marked afterwards is all that commits
show; what was stored in the last minutes is left for the next time: its commit may be under way.
"""

from __future__ import annotations

import asyncio

from services.memory.domain.history import Made, Verdict, judge
from services.memory.domain.values import MAIN, version_of
from services.memory.service.writing import Desk
from services.memory.store import forgetting, proposals, spaces, spans, sweeping
from services.memory.store.nodes import KnownNodes, StoredNodes
from services.memory.store.shared import Place
from services.memory.store.sweeping import Due, Name
from services.memory.tables import branches
from services.runtime import clock
from services.runtime.db import EVERYONE
from services.runtime.errors import NotFound
from services.runtime.replies import Replies

_SPACES_AT_ONCE = 20
_AT_ONCE = 500
_LATELY = 600 * clock.SECOND
_REJECTED_KEPT = 30 * 24 * 3600 * clock.SECOND
_LONGEST_PAUSE = 60.0


class Sweeping:
    """Sweeps the spaces that are due."""

    def __init__(self, desk: Desk, replies: Replies, seconds: float, lately: int = _LATELY) -> None:
        """Prepare.

        Args:
            desk: What it stands on.
            replies: Where replies are kept.
            seconds: How often a space is due.
            lately: What was stored in so many microseconds is left alone.
        """
        self._desk = desk
        self._replies = replies
        self._seconds = seconds
        self._lately = lately

    async def run(self) -> None:
        """Sweep what is due, and forget what has expired, now and then."""
        while True:
            await self.purge()
            await self.sweep_due()
            await asyncio.sleep(min(self._seconds, _LONGEST_PAUSE))

    async def purge(self) -> None:
        """Forget old replies, and what was let go of."""
        now, more = clock.now(), True
        while more:
            async with self._desk.database.transaction(EVERYONE) as connection:
                more = await self._replies.purge(connection, now)
                more |= await proposals.purge(connection, now - _REJECTED_KEPT)

    async def sweep_due(self) -> None:
        """Sweep the spaces that are due and that no other process took."""
        before = clock.now() - int(self._seconds * clock.SECOND)
        async with self._desk.database.read(EVERYONE) as connection:
            found = await sweeping.due(connection, before, _SPACES_AT_ONCE)
        for one in found:
            async with self._desk.database.transaction((one.place.tenant_id,)) as connection:
                taken = await sweeping.take(connection, one, clock.now())
            if taken:
                await self.sweep(one)

    async def sweep(self, one: Due) -> None:
        """Sweep a space."""
        place = one.place
        began = clock.now()
        history, names = await self._history(place)
        horizon = None if one.keep is None else began - one.keep
        main = next((n.commit_id for n in names if n.name == MAIN and n.kind == branches.name), "")
        leads = [each.commit_id for each in names]
        # A branch may have moved on after its name was read.
        leads += [e.commit_id for e in history.values() if e.create_time >= began - self._lately]
        verdict = await asyncio.to_thread(judge, history, main, leads, horizon)
        if not await self._carry_out(place, names, verdict):
            return
        shown_nodes, shown_versions = await self._mark(place)
        await self._sweep_nodes(place, shown_nodes, began - self._lately)
        await self._sweep_versions(place, shown_versions, began - self._lately)
        await self._desk.tell()

    async def _history(self, place: Place) -> tuple[dict[str, Made], list[Name]]:
        """All commits of a space, and its names."""
        history: dict[str, Made] = {}
        async with self._desk.database.read((place.tenant_id,)) as connection:
            names = await sweeping.names(connection, place)
        after, more = "", True
        while more:
            async with self._desk.database.read((place.tenant_id,)) as connection:
                found = await sweeping.history(connection, place, after, _AT_ONCE)
            history |= {each.commit_id: each for each in found}
            more = bool(found)
            after = found[-1].commit_id if found else after
        return history, names

    async def _carry_out(self, place: Place, names: list[Name], verdict: Verdict) -> bool:
        """Let commits go; False where a name was made or lost meanwhile, on which all rests."""
        async with self._desk.database.transaction((place.tenant_id,)) as connection:
            try:
                await spaces.get(connection, place, "", lock=True)
            except NotFound:
                return False
            now = await sweeping.names(connection, place)
            if _lasting(now) != _lasting(names):
                await sweeping.ask(connection, place)
                return False
            await sweeping.prune(connection, place, verdict.pruned)
            await sweeping.remove_commits(connection, place, verdict.gone)
        return True

    async def _mark(self, place: Place) -> tuple[set[bytes], set[bytes]]:
        """The nodes and versions that some commit shows."""
        history, _ = await self._history(place)
        whole = (each.root for each in history.values() if each.root and not each.pruned)
        shown = {bytes.fromhex(root) for root in whole}
        held: set[bytes] = set()
        left = list(shown)
        while left:
            some, left = left[:_AT_ONCE], left[_AT_ONCE:]
            async with self._desk.database.read((place.tenant_id,)) as connection:
                # Nothing of this would be asked for again.
                read = await StoredNodes(connection, place, KnownNodes(0)).get(some)
            for node in read.values():
                values = {entry.value for entry in node.entries}
                if node.level:
                    left += values - shown
                    shown |= values
                else:
                    held |= values
        return shown, held

    async def _sweep_nodes(self, place: Place, shown: set[bytes], before: int) -> None:
        after, more = b"", True
        while more:
            async with self._desk.database.transaction((place.tenant_id,)) as connection:
                found = await sweeping.old_nodes(connection, place, after, before, _AT_ONCE)
                gone = [name for name in found if name not in shown]
                if gone:
                    await sweeping.remove_nodes(connection, place, gone, before)
            more = bool(found)
            after = found[-1] if found else after

    async def _sweep_versions(self, place: Place, shown: set[bytes], before: int) -> None:
        names = {version_of(value) for value in shown}
        after, more = "", True
        while more:
            async with self._desk.database.transaction((place.tenant_id,)) as connection:
                found = await sweeping.old_versions(connection, place, after, before, _AT_ONCE)
                gone = [each for each in found if each[0] not in names]
                if gone:
                    ids, memories = [each[0] for each in gone], {each[1] for each in gone}
                    await forgetting.remove(connection, place, ids, before)
                    told = await spans.of_versions(connection, place, ids, memories)
                    await spans.erase(connection, told)
            more = bool(found)
            after = found[-1][0] if found else after


def _lasting(names: list[Name]) -> set[tuple[str, ...]]:
    """What of names only making and losing them changes: branches move with each commit."""
    return {(each.kind, each.name, str(each.create_time)) for each in names}
