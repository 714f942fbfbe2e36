"""P11: search among many passages, filtered, over gRPC; and what the index takes.

Memory and ingest are stood for by lists in this process: what is measured is context. The peer is
`qdrant-client` in its local mode, in this process, with the same vectors and the same filter.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
from plexus.context.v1 import search_service_pb2 as pb
from plexus.context.v1.search_service_pb2_grpc import SearchServiceStub

from services.context import module
from services.context.text import bm25
from services.runtime.context import acting_as, mesh_principal
from tests.bench.rounds import Report, Row, say
from tests.services.context.standins import Documents, History, Memories, Models
from tests.support import Served, served, settings_in

_PASSAGES = int(os.environ.get("BENCH_PASSAGES", "100000"))
_A_DOCUMENT = 100
# One passage of a hundred is the asking tenant's.
_TENANTS = 100
_QUERIES = 200
_PEER_QUERIES = 9
_WORDS = 60
_VOCABULARY = 20_000
_TENANT = "ten_0"


async def measure(folder: Path, report: Report) -> None:
    """Rate in, searches, memory, a rebuild, and the peer's searches."""
    chance = random.Random(7)
    documents = _filled(chance)
    queries = [_text(chance, 3) for _ in range(_QUERIES)]
    with (
        mock.patch.object(module, "RemoteDocuments", lambda _: documents),
        mock.patch.object(module, "RemoteMemories", lambda _: Memories()),
        mock.patch.object(module, "RemoteHistory", lambda _: History()),
        mock.patch.object(module, "RemoteModels", lambda _: Models()),
    ):
        began = time.monotonic()
        async with served(settings_in(folder), ["context"]) as mesh:
            stub = SearchServiceStub(mesh.clients.channel("context"))
            with acting_as(mesh_principal(_TENANT, "usr_a")):
                took = await _until(stub, lambda index: not index.behind, began)
                say(f"    {_PASSAGES / took:,.0f} passages/s in, {took:.0f} s")
                times = sorted([await _search(stub, each) for each in queries])
                begun = time.monotonic()
                await stub.RebuildIndex(pb.RebuildIndexRequest())
                again = await _until(
                    stub, lambda index: not index.HasField("rebuild_percent"), begun
                )
            memory = _memory()
            size = sum(each.stat().st_blocks * 512 for each in _files(mesh))
    peer = _peer(documents, queries[:_PEER_QUERIES])
    p50, p99 = statistics.median(times), times[int(len(times) * 0.99)]
    report.rows.append(
        Row(
            key="P11",
            work=f"filtered search among {_PASSAGES:,} passages, p50",
            ours=f"{p50 * 1e3:.1f} ms over gRPC",
            peer=f"qdrant-client local mode, {peer * 1e3:.0f} ms in process",
            ratio=p50 / peer,
            goal="<= 0.005",
            limit="the call, the questions to the feeds, and reading what was found",
        )
    )
    report.notes.append(
        f"The index: {_PASSAGES / took:,.0f} passages/s in, search p99 {p99 * 1e3:.1f} ms, its "
        f"process {memory / 2**20:.0f} MB, on disk {size / 2**20:.0f} MB, anew in {again:.0f} s."
    )


def _filled(chance: random.Random) -> Documents:
    documents = Documents()
    for number in range(_PASSAGES // _A_DOCUMENT):
        texts = [_text(chance, _WORDS) for _ in range(_A_DOCUMENT)]
        documents.put(f"ten_{number % _TENANTS}", f"doc{number}", texts)
    return documents


def _text(chance: random.Random, count: int) -> str:
    """Words as rare as those of a language: by Zipf's law."""
    return " ".join(f"w{int(_VOCABULARY ** chance.random())}" for _ in range(count))


async def _search(stub: SearchServiceStub, query: str) -> float:
    began = time.perf_counter()
    await stub.Search(pb.SearchRequest(query=query, page_size=10))
    return time.perf_counter() - began


async def _until(
    stub: SearchServiceStub, good: Callable[[pb.GetIndexResponse], bool], began: float
) -> float:
    while not good(await stub.GetIndex(pb.GetIndexRequest())):
        await asyncio.sleep(0.2)
    return time.monotonic() - began


def _memory() -> int:
    """What the index's process takes."""
    (child,) = [
        each
        for each in psutil.Process().children()
        if "services.context.index.child" in each.cmdline()
    ]
    return int(child.memory_info().rss)


def _files(mesh: Served) -> list[Path]:
    return [each for each in (mesh.settings.directory / "index").rglob("*") if each.is_file()]


def _peer(documents: Documents, queries: list[str]) -> float:
    """The median of the same searches in the client's local mode."""
    from qdrant_client import QdrantClient, models

    client = QdrantClient(":memory:")
    sparse = models.SparseVectorParams(modifier=models.Modifier.IDF)
    client.create_collection("all", vectors_config={}, sparse_vectors_config={"words": sparse})
    number = 0
    for each in documents.kept.values():
        points = []
        for text in each.texts:
            number += 1
            points.append(
                models.PointStruct(
                    id=number,
                    vector={"words": _vector(bm25.document(text))},
                    payload={"tenant": each.tenant_id},
                )
            )
        client.upsert("all", points)
    match = models.FieldCondition(key="tenant", match=models.MatchValue(value=_TENANT))
    times = []
    for query in queries:
        began = time.perf_counter()
        client.query_points(
            "all",
            query=_vector(bm25.query(query)),
            using="words",
            query_filter=models.Filter(must=[match]),
            limit=10,
        )
        times.append(time.perf_counter() - began)
    client.close()
    return statistics.median(times)


def _vector(sparse: bm25.Sparse) -> Any:
    from qdrant_client import models

    return models.SparseVector(indices=list(sparse.indices), values=list(sparse.values))
