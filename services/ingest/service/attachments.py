"""What is attached to a document, as documents of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from services.ingest import store
from services.ingest.domain.documents import Content, Document, State
from services.runtime import clock
from services.runtime.db import Connection
from services.runtime.ids import new_id

_MAX_DEPTH = 8


@dataclass(frozen=True, slots=True)
class Attachment:
    """Bytes that are kept, and how they were called."""

    content: Content
    file_name: str
    media_type: str


async def bring_attached(
    connection: Connection, parent: Document, found: Sequence[Attachment]
) -> tuple[list[Document], list[Document]]:
    """Keep what is attached to a document now: those that are new, and those that are gone.

    One that has the name and the bytes of one before stays that one.
    """
    before = await store.documents.children(connection, parent.tenant_id, parent.document_id)
    left = {(each.file_name, each.sha256): each for each in before}
    new: list[Document] = []
    for each in found:
        heap = each.content.heap_id
        if left.pop((each.file_name, each.content.sha256), None) is not None:
            await store.heaps.doom(connection, parent.tenant_id, heap)
            continue
        child = _child(parent, each)
        await store.documents.add(connection, child)
        await store.heaps.keep(connection, parent.tenant_id, heap)
        new.append(child)
    gone = [below for one in left.values() for below in await with_below(connection, one)]
    for lost in gone:
        await forget(connection, lost)
    return new, gone


async def with_below(connection: Connection, document: Document) -> list[Document]:
    """A document and all that is attached to it, and to that in turn."""
    found, level = [document], [document]
    for _ in range(_MAX_DEPTH):
        level = [
            child
            for each in level
            for child in await store.documents.children(
                connection, each.tenant_id, each.document_id
            )
        ]
        found += level
    return found


async def forget(connection: Connection, document: Document) -> None:
    """Remove a document, its bytes and its passages."""
    await store.documents.remove(connection, document)
    heaps = (document.bytes_heap, document.passages_heap)
    await store.heaps.doom(connection, document.tenant_id, *heaps)


def _child(parent: Document, attached: Attachment) -> Document:
    now = clock.now()
    return replace(
        parent,
        document_id=new_id("doc"),
        parent_id=parent.document_id,
        title=attached.file_name or "Attachment",
        said_title="",
        file_name=attached.file_name,
        media_type=attached.content.media_type,
        said_type=attached.media_type,
        size=attached.content.size,
        sha256=attached.content.sha256,
        uri="",
        attributes={},
        state=State.WAITING,
        failure=None,
        revision=0,
        passage_count=0,
        page_count=0,
        create_time=now,
        update_time=now,
        url="",
        http_etag="",
        http_modified="",
        bytes_heap=attached.content.heap_id,
        passages_heap="",
        read_sha256="",
        ticket=1,
        attempts=0,
        depth=parent.depth + 1,
        version=1,
    )
