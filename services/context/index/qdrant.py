"""The index on a Qdrant server, which several processes may share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from services.context.domain.conditions import TENANT, Plain
from services.context.domain.entries import Found
from services.context.index.backend import KEYWORDS, NUMBERS, PLACES, WORDS, Point
from services.context.text.bm25 import Sparse
from services.runtime import log
from services.runtime.errors import Unavailable

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient

_logger = log.get(__name__)
_PREFIX = "plexus_context_"
# The alias by which the collection that serves is known.
_SERVING = "plexus_context"


class QdrantIndex:
    """See Backend."""

    name = "qdrant"

    def __init__(self, client: AsyncQdrantClient) -> None:
        self._client = client

    @classmethod
    def at(cls, url: str, key: str) -> QdrantIndex:
        """The index on a server.

        Args:
            url: Its address.
            key: Its API key; empty where it asks for none.
        """
        from qdrant_client import AsyncQdrantClient

        client = AsyncQdrantClient(
            url=url, api_key=key or None, timeout=5, check_compatibility=False
        )
        return cls(client)

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()

    async def shelves(self) -> tuple[str, Sequence[str]]:
        """See Backend."""
        async with _answering():
            collections = (await self._client.get_collections()).collections
            aliases = (await self._client.get_aliases()).aliases
        serving = [each.collection_name for each in aliases if each.alias_name == _SERVING]
        names = sorted(
            each.name.removeprefix(_PREFIX) for each in collections if each.name.startswith(_PREFIX)
        )
        return (serving[0].removeprefix(_PREFIX) if serving else ""), names

    async def create(self, shelf: str) -> None:
        """See Backend."""
        from qdrant_client import models

        name = _PREFIX + shelf
        async with _answering():
            if not await self._client.collection_exists(name):
                words = models.SparseVectorParams(modifier=models.Modifier.IDF)
                await self._client.create_collection(
                    name, vectors_config={}, sparse_vectors_config={WORDS: words}
                )
            # Made again where the last attempt ended between them.
            tenant = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
            await self._client.create_payload_index(name, TENANT, tenant)
            for key in KEYWORDS:
                await self._client.create_payload_index(name, key, models.PayloadSchemaType.KEYWORD)
            for key in NUMBERS:
                await self._client.create_payload_index(name, key, models.PayloadSchemaType.FLOAT)

    async def serve(self, shelf: str) -> None:
        """See Backend."""
        from qdrant_client import models

        serving, _ = await self.shelves()
        changes: list[Any] = []
        if serving:
            old = models.DeleteAlias(alias_name=_SERVING)
            changes.append(models.DeleteAliasOperation(delete_alias=old))
        new = models.CreateAlias(collection_name=_PREFIX + shelf, alias_name=_SERVING)
        changes.append(models.CreateAliasOperation(create_alias=new))
        async with _answering():
            await self._client.update_collection_aliases(changes)

    async def drop(self, shelf: str) -> None:
        """See Backend."""
        async with _answering():
            await self._client.delete_collection(_PREFIX + shelf)

    async def upsert(self, shelf: str, points: Sequence[Point]) -> None:
        """See Backend."""
        from qdrant_client import models

        made = [
            models.PointStruct(id=each.entry_id, vector=_vectors(each), payload=each.payload)
            for each in points
        ]
        async with _answering():
            await self._client.upsert(_PREFIX + shelf, made, wait=True)

    async def delete(self, shelf: str, condition: Plain) -> None:
        """See Backend."""
        from qdrant_client import models

        selector = models.FilterSelector(filter=_filter(condition))
        async with _answering():
            await self._client.delete(_PREFIX + shelf, selector, wait=True)

    async def search(
        self, shelf: str, using: str, vector: Sparse | Sequence[float], condition: Plain, limit: int
    ) -> Sequence[Found]:
        """See Backend."""
        from qdrant_client import models

        asked: Any = vector
        parameters = None
        if isinstance(vector, Sparse):
            asked = models.SparseVector(indices=list(vector.indices), values=list(vector.values))
            tenant = models.Filter(must=[_filter({"must": [condition["must"][0]]})])
            parameters = models.SearchParams(idf=models.IdfCorpusParams(corpus=tenant))
        else:
            asked = list(vector)
        async with _answering():
            found = await self._client.query_points(
                _PREFIX + shelf,
                query=asked,
                using=using,
                query_filter=_filter(condition),
                limit=limit,
                search_params=parameters,
                with_payload=list(PLACES),
            )
        return [Found(str(each.id), each.score, each.payload or {}) for each in found.points]

    async def payloads(
        self, shelf: str, entry_ids: Sequence[str]
    ) -> Mapping[str, Mapping[str, Any]]:
        """See Backend."""
        async with _answering():
            found = await self._client.retrieve(_PREFIX + shelf, list(entry_ids), with_payload=True)
        return {str(each.id): each.payload or {} for each in found}

    async def scroll(self, shelf: str, condition: Plain, limit: int) -> Sequence[Found]:
        """See Backend."""
        async with _answering():
            found, _ = await self._client.scroll(
                _PREFIX + shelf, _filter(condition), limit=limit, with_payload=True
            )
        return [Found(str(each.id), 0.0, each.payload or {}) for each in found]

    async def count(self, shelf: str, condition: Plain) -> int:
        """See Backend."""
        async with _answering():
            found = await self._client.count(_PREFIX + shelf, _filter(condition))
        return int(found.count)

    async def add_space(self, shelf: str, using: str, size: int) -> None:
        """See Backend."""
        from qdrant_client import models

        name = _PREFIX + shelf
        async with _answering():
            there = (await self._client.get_collection(name)).config.params.vectors
            if isinstance(there, dict) and using in there:
                return
            dense = models.DenseVectorNameConfig(
                dense=models.DenseVectorConfig(size=size, distance=models.Distance.COSINE)
            )
            await self._client.create_vector_name(name, using, dense)

    async def set_vectors(
        self, shelf: str, using: str, vectors: Mapping[str, Sequence[float]]
    ) -> None:
        """See Backend."""
        from qdrant_client import models

        there = await self.payloads(shelf, list(vectors))
        given = [
            models.PointVectors(id=key, vector={using: list(vector)})
            for key, vector in vectors.items()
            if key in there
        ]
        if given:
            async with _answering():
                await self._client.update_vectors(_PREFIX + shelf, given, wait=True)


def _filter(plain: Plain) -> Any:
    from qdrant_client import models

    parts = plain if {"must", "should", "must_not"} & plain.keys() else {"must": [plain]}
    return models.Filter.model_validate(parts)


def _vectors(point: Point) -> dict[str, Any]:
    from qdrant_client import models

    vectors: dict[str, Any] = {name: list(vector) for name, vector in point.dense.items()}
    if point.words is not None:
        words = point.words
        vectors[WORDS] = models.SparseVector(indices=list(words.indices), values=list(words.values))
    return vectors


@asynccontextmanager
async def _answering() -> AsyncIterator[None]:
    """Where the server does not answer as it should, say that it cannot be asked now."""
    from qdrant_client.http.exceptions import ApiException

    try:
        yield
    except (ApiException, OSError) as error:
        _logger.warning("index_failed", error=repr(error))
        raise Unavailable("The index does not answer just now.", retry_after=1) from error
