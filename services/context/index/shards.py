"""Qdrant Edge's shards, as the index's own process has them: a folder for each shelf."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import qdrant_edge as edge

from services.context.domain.conditions import TENANT
from services.context.index.backend import KEYWORDS, NUMBERS, PLACES, WORDS

_LOCK_SECONDS = 5.0
_SERVING = "serving"
Json = dict[str, Any]


class InUse(Exception):
    """Another process has the folder."""


class Shards:
    """The open shards of a folder, which no other process may have open."""

    def __init__(self, folder: Path) -> None:
        """Take the folder.

        Raises:
            InUse: Another process has it, and keeps it.
        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._lock = (folder / "lock").open("wb")
        until = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise InUse(str(folder)) from None
                time.sleep(0.05)
        self._open: dict[str, Any] = {}
        self._operations = {
            name: getattr(self, name)
            for name in (
                *("shelves", "create", "serve", "upsert", "delete", "search", "payloads"),
                *("scroll", "count", "add_space", "set_vectors", "drop"),
            )
        }

    def do(self, op: str, arguments: Json) -> Any:
        """Carry out an operation of `Backend`, by its name and arguments."""
        return self._operations[op](**arguments)

    def close(self) -> None:
        """Write everything down and give the folder free."""
        for shard in self._open.values():
            shard.close()
        self._open.clear()
        self._lock.close()

    def shelves(self) -> Json:
        """See Backend."""
        mark = self._folder / _SERVING
        serving = mark.read_text() if mark.exists() else ""
        names = sorted(each.name for each in self._folder.iterdir() if _whole(each))
        return {"serving": serving if serving in names else "", "all": names}

    def create(self, shelf: str) -> None:
        """See Backend."""
        path = self._folder / shelf
        if _whole(path):
            return
        # What is half made is made anew: the last step gives it its name.
        making = self._folder / f"{shelf}.making"
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir()
        words = edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)
        config = edge.EdgeConfig(sparse_vectors={WORDS: words}, payload_memory=edge.Memory.Cached)
        shard = edge.EdgeShard.create(str(making), config)
        tenant = edge.KeywordIndexParams(is_tenant=True)
        shard.update(edge.UpdateOperation.create_field_index(TENANT, tenant))
        for key in KEYWORDS:
            _index(shard, key, edge.PayloadSchemaType.Keyword)
        for key in NUMBERS:
            _index(shard, key, edge.PayloadSchemaType.Float)
        shard.close()
        making.rename(path)

    def serve(self, shelf: str) -> None:
        """See Backend."""
        written = self._folder / f"{_SERVING}.new"
        with written.open("w") as file:
            file.write(shelf)
            file.flush()
            os.fsync(file.fileno())
        written.rename(self._folder / _SERVING)

    def drop(self, shelf: str) -> None:
        """See Backend."""
        if (shard := self._open.pop(shelf, None)) is not None:
            shard.close()
        shutil.rmtree(self._folder / shelf, ignore_errors=True)

    def upsert(self, shelf: str, points: list[Json]) -> None:
        """See Backend."""
        made = [edge.Point(each["id"], _vectors(each), each["payload"]) for each in points]
        self._shard(shelf).update(edge.UpdateOperation.upsert_points(made))

    def delete(self, shelf: str, condition: Json) -> None:
        """See Backend."""
        operation = edge.UpdateOperation.delete_points_by_filter(_filter(condition))
        self._shard(shelf).update(operation)

    def search(
        self, shelf: str, using: str, vector: Json | list[float], condition: Json, limit: int
    ) -> list[Any]:
        """See Backend."""
        wanted = _filter(condition)
        parameters = None
        nearest: Any = vector
        if isinstance(vector, dict):
            nearest = edge.SparseVector(vector["indices"], vector["values"])
            tenant = edge.Filter(must=[_condition(condition["must"][0])])
            parameters = edge.SearchParams(idf=edge.IdfParams(corpus=tenant))
        request = edge.QueryRequest(
            limit=limit,
            query=edge.Query.Nearest(nearest, using=using),
            filter=wanted,
            with_payload=list(PLACES),
            params=parameters,
        )
        found = self._shard(shelf).query(request)
        return [[str(each.id), each.score, each.payload] for each in found]

    def payloads(self, shelf: str, entry_ids: list[str]) -> Json:
        """See Backend."""
        found = self._shard(shelf).retrieve(entry_ids, True, False)
        return {str(each.id): each.payload for each in found}

    def scroll(self, shelf: str, condition: Json, limit: int) -> list[Any]:
        """See Backend."""
        request = edge.ScrollRequest(limit=limit, filter=_filter(condition), with_payload=True)
        found, _ = self._shard(shelf).scroll(request)
        return [[str(each.id), 0.0, each.payload] for each in found]

    def count(self, shelf: str, condition: Json) -> int:
        """See Backend."""
        found: int = self._shard(shelf).count(edge.CountRequest(filter=_filter(condition)))
        return found

    def add_space(self, shelf: str, using: str, size: int) -> None:
        """See Backend."""
        shard = self._shard(shelf)
        if using not in self._spaces(shelf):
            shard.update(
                edge.UpdateOperation.create_dense_vector(using, size, edge.Distance.Cosine)
            )

    def set_vectors(self, shelf: str, using: str, vectors: dict[str, list[float]]) -> None:
        """See Backend."""
        shard = self._shard(shelf)
        there = {str(each.id) for each in shard.retrieve(list(vectors), False, False)}
        given = [
            edge.PointVectors(key, {using: vector})
            for key, vector in vectors.items()
            if key in there
        ]
        if given:
            shard.update(edge.UpdateOperation.update_vectors(given))

    def _spaces(self, shelf: str) -> set[str]:
        config = json.loads((self._folder / shelf / "edge_config.json").read_text())
        return set(config.get("vectors") or {})

    def _shard(self, shelf: str) -> Any:
        if shelf not in self._open:
            self._open[shelf] = edge.EdgeShard.load(str(self._folder / shelf))
        return self._open[shelf]


def _whole(path: Path) -> bool:
    return path.is_dir() and not path.name.endswith(".making")


def _index(shard: Any, key: str, schema: Any) -> None:
    shard.update(edge.UpdateOperation.create_field_index(key, schema))


def _vectors(point: Json) -> Json:
    vectors: Json = dict(point.get("dense") or {})
    if (words := point.get("words")) is not None:
        vectors[WORDS] = edge.SparseVector(words["indices"], words["values"])
    return vectors


def _filter(plain: Json) -> Any:
    """A filter of Qdrant's REST interface as Edge has it."""
    parts: Json = {
        name: [_condition(each) for each in plain[name]]
        for name in ("must", "should", "must_not")
        if name in plain
    }
    return edge.Filter(**parts) if parts else edge.Filter(must=[_condition(plain)])


def _condition(plain: Json) -> Any:
    if "match" in plain:
        return edge.FieldCondition(plain["key"], match=edge.MatchAny(plain["match"]["any"]))
    if "range" in plain:
        return edge.FieldCondition(plain["key"], range=edge.RangeFloat(**plain["range"]))
    if "is_empty" in plain:
        return edge.IsEmptyCondition(plain["is_empty"]["key"])
    if "has_vector" in plain:
        return edge.HasVectorCondition(plain["has_vector"])
    return _filter(plain)
