"""The embedded index when its process ends, or hangs."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from services.context.domain.conditions import Both, of_tenant
from services.context.index.edge import EdgeIndex
from services.context.service.indexing import Indexer
from services.context.service.library import Library
from services.runtime.errors import PlexusError, Unavailable
from services.runtime.tasks import Tasks
from tests.services.context.backends import edge_in
from tests.services.context.standins import Memories

EVERYTHING = of_tenant("ten_a", Both(()))


async def stay(index: EdgeIndex) -> None:
    """Wait until it answers again."""
    async with asyncio.timeout(30):
        while True:
            try:
                await index.shelves()
            except Unavailable:
                await asyncio.sleep(0.02)
            else:
                return


async def test_a_position_is_never_ahead_of_what_it_stands_for(tmp_path: Path) -> None:
    memories = Memories()
    async with edge_in(tmp_path) as index:
        library = Library(index)
        await library.prepare()
        shelf = await library.serving()
        indexer = Indexer(library, memories)
        written = 0

        async def take() -> None:
            while True:
                try:
                    await indexer.take(shelf)
                except PlexusError:
                    await stay(index)
                await asyncio.sleep(0)

        taking = asyncio.create_task(take())
        for _ in range(5):
            for _ in range(150):
                written += 1
                memories.put("ten_a", f"mem_{written}", f"alpha {written}")
            await asyncio.sleep(0.05)
            assert index.pid is not None
            os.kill(index.pid, signal.SIGKILL)
            await asyncio.sleep(0)
            await stay(index)
            position = (await library.positions(shelf, ["memory"]))["memory"]
            assert await index.count(shelf, EVERYTHING) >= position
        async with asyncio.timeout(30):
            while (await library.positions(shelf, ["memory"]))["memory"] < written:
                await asyncio.sleep(0.05)
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)
        assert await index.count(shelf, EVERYTHING) == written


async def test_a_process_that_hangs_is_replaced_and_nobody_waits_for_it(tmp_path: Path) -> None:
    async with edge_in(tmp_path, hangs_seconds=3) as index:
        await index.create("a")
        hung = index.pid
        assert hung is not None
        os.kill(hung, signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(Unavailable):
            await index.count("a", EVERYTHING)
        assert time.monotonic() - began < 15
        await stay(index)
        assert index.pid != hung
        assert (await index.shelves())[1] == ["a"]


async def test_one_process_alone_has_the_folder(tmp_path: Path) -> None:
    async with edge_in(tmp_path):
        other = EdgeIndex(tmp_path / "index")
        tasks = Tasks()
        tasks.keep_running("other", other.run)
        async with asyncio.timeout(20):
            while "PLEXUS_QDRANT_URL" not in other.why:
                await asyncio.sleep(0.05)
        with pytest.raises(Unavailable, match="Another process"):
            await other.shelves()
        await tasks.stop()
