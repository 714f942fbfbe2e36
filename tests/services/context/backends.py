"""The two indexes that one suite is for.

No Qdrant server can run here: the local mode of its client, which asks the same questions of a small
index in this process, stands in for one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from services.context.index.backend import Backend
from services.context.index.edge import EdgeIndex
from services.context.index.qdrant import QdrantIndex
from services.runtime.tasks import Tasks

KINDS = ("edge", "qdrant")


@asynccontextmanager
async def opened(kind: str, folder: Path) -> AsyncIterator[Backend]:
    """An index, empty where the folder is."""
    if kind == "edge":
        async with edge_in(folder) as index:
            yield index
    else:
        from qdrant_client import AsyncQdrantClient

        client = AsyncQdrantClient(path=str(folder / "qdrant"))
        try:
            yield QdrantIndex(client)
        finally:
            await client.close()


@asynccontextmanager
async def edge_in(folder: Path, answer_seconds: float = 5) -> AsyncIterator[EdgeIndex]:
    """The embedded index with its process."""
    index = EdgeIndex(folder / "index", answer_seconds)
    tasks = Tasks()
    tasks.keep_running("index", index.run)
    try:
        assert await index.wait_ready(20)
        yield index
    finally:
        await tasks.stop()
