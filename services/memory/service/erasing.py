"""The erasure of what is about a person: step by step, each of which may be repeated.

A step is found from what is there, not from what was done: so it goes on after a kill, and two
processes that are at it do no harm.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from services.memory.domain.values import Erasure, memory_of
from services.memory.service.reading import View
from services.memory.service.writing import Desk, Writing, commit
from services.memory.store import commits, erasures, forgetting, spaces, spans
from services.memory.store.forgetting import About
from services.memory.store.shared import Place
from services.memory.tables import branches
from services.runtime import clock, log
from services.runtime.db import EVERYONE
from services.runtime.errors import NotFound

_logger = log.get(__name__)
_AT_ONCE = 200
_POLL_SECONDS = 5.0
_MAX_NAMES = 1_000
_MILLISECOND = 1_000


class Erasing:
    """Erases, until nothing is left and a scan has found so."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """There is something to erase."""
        self._asked.set()

    async def run(self) -> None:
        """Do what was asked for, here or in another process, and what was left undone."""
        while True:
            self._asked.clear()
            async with self._desk.database.read(EVERYONE) as connection:
                waiting = await erasures.under_way(connection, _AT_ONCE)
            for erasure in waiting:
                await self.erase(erasure)
            try:
                async with asyncio.timeout(_POLL_SECONDS):
                    await self._asked.wait()
            except TimeoutError:
                continue

    async def erase(self, erasure: Erasure) -> None:
        """Erase what is about a person, and look for it once more; nothing where that is done."""
        place = Place(erasure.tenant_id, f"user/{erasure.person}")
        whose = (erasure.tenant_id,)
        async with self._desk.database.transaction(whose) as connection:
            cut = await erasures.cut_time(connection, erasure)
            if cut is None:
                return
            if not cut:
                cut = await forgetting.cut_off(connection, place)
                await erasures.change(connection, erasure, cut_time=cut)
        await self._drop(erasure, place, cut)
        while await self._erase_some(erasure):
            pass
        more = True
        while more:
            async with self._desk.database.transaction(whose) as connection:
                more = await forgetting.forget(connection, erasure.tenant_id, erasure.person)
        async with self._desk.database.transaction(whose) as connection:
            left = await forgetting.remains(
                connection, erasure.tenant_id, erasure.person, cut, _last_id(cut)
            )
            if any(left.values()):
                _logger.warning("person_found_again", erasure=erasure.erasure_id, left=left)
                return
            await erasures.change(
                connection, erasure, verified_places=len(left), end_time=clock.now()
            )
        await self._desk.tell()

    async def _drop(self, erasure: Erasure, place: Place, cut: int) -> None:
        """Delete the person's own space; readers of the feed are told of each memory."""
        done = False
        while not done:
            async with self._desk.database.transaction((place.tenant_id,)) as connection:
                gone, done = await forgetting.drop(connection, place, cut, _last_id(cut))
                await erasures.count(connection, erasure, gone)
                left = await spans.left_in(connection, place, cut, _AT_ONCE)
                await spans.erase(connection, left)
                done = done and len(left) < _AT_ONCE

    async def _erase_some(self, erasure: Erasure) -> bool:
        """Erase some versions that are about the person; False where there are none."""
        whose = (erasure.tenant_id,)
        async with self._desk.database.read(whose) as connection:
            found = await forgetting.about(connection, erasure.tenant_id, erasure.person, _AT_ONCE)
            if not found:
                return False
            place = Place(erasure.tenant_id, found[0].space)
            names = await commits.names(connection, branches, place, "", _MAX_NAMES)
        for name in names:
            await self._take_off(erasure, place, name.name, found)
        async with self._desk.database.transaction(whose) as connection:
            version_ids = [each.version_id for each in found]
            memory_ids = {each.memory_id for each in found}
            shown = await spans.of_versions(connection, place, version_ids, memory_ids)
            said = {id_ for span in shown for id_ in (span.since_commit, span.until_commit)}
            await forgetting.hush(connection, place, said)
            await forgetting.bury(connection, place, version_ids, memory_ids)
            await erasures.count(connection, erasure, len(found))
            await spans.erase(connection, shown)
        return True

    async def _take_off(
        self, erasure: Erasure, place: Place, name: str, found: Sequence[About]
    ) -> None:
        """Remove memories from a branch where they stand in these versions."""
        async with self._desk.database.transaction((place.tenant_id,)) as connection:
            try:
                space = await spaces.get(connection, place, "")
                ref, view = await self._desk.head_of(connection, place, space, name)
            except NotFound:
                return
            gone = await _standing(view, found)
            if gone:
                by = erasure.requested_by
                await commit(ref, view, Writing(dict.fromkeys(gone), by=by))


async def _standing(view: View, found: Sequence[About]) -> list[str]:
    held = await view.find({each.memory_id for each in found})
    return sorted({each.memory_id for each in found if held.get(each.memory_id) == each.version_id})


def _last_id(moment: int) -> str:
    """The last id that a memory of a moment may have: ids begin with their milliseconds."""
    return memory_of(((moment // _MILLISECOND + 1 << 80) - 1).to_bytes(16, "big"))
