"""Documents over their contract."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from plexus.ingest.v1 import document_pb2
from plexus.ingest.v1 import document_service_pb2 as pb
from plexus.ingest.v1 import feed_service_pb2 as feed
from sqlalchemy import func, select

from services.ingest import tables
from services.runtime.db import EVERYONE, open_database
from services.runtime.errors import (
    Aborted,
    AlreadyExists,
    InvalidRequest,
    NotFound,
    PermissionDenied,
)
from tests.services.ingest import files
from tests.services.ingest.conftest import FAILED, PRIVATE, READY, Desk, site

HANDBOOK = """# Handbook

Ada wrote it.

## Leave

Everyone has thirty days of leave. Ask Grace.

| Place | Days |
| --- | --- |
| Berlin | 30 |
| Paris | 25 |
"""


async def test_a_document_becomes_passages(desk: Desk) -> None:
    with desk.by():
        found = await desk.brought(HANDBOOK, collection="hr")
        assert (found.state, found.title, found.revision) == (READY, "Handbook", 1)
        passages = await desk.passages(found.document_id)
        told = [(each.text, list(each.headings), each.kind) for each in passages]
        assert told == [
            ("Ada wrote it.", ["Handbook"], 1),
            ("Everyone has thirty days of leave. Ask Grace.", ["Handbook", "Leave"], 1),
            ("Place | Days\nBerlin | 30\nParis | 25", ["Handbook", "Leave"], 2),
        ]
        assert [each.place for each in passages] == [0, 1, 2]
        assert found.passage_count == 3


async def test_the_same_bytes_bring_nothing_new(desk: Desk) -> None:
    with desk.by():
        first = await desk.create("# A\n\nOne.", uri="https://example.com/a")
        again = await desk.create("# A\n\nOne.", uri="https://example.com/a")
        assert (first.unchanged, again.unchanged) == (False, True)
        assert again.document.document_id == first.document.document_id
        named = await desk.create("Two.", file_name="two.txt")
        assert (await desk.create("Two.", file_name="two.txt")).unchanged
        other = await desk.create("Two.", file_name="other.txt")
        assert other.document.document_id != named.document.document_id


async def test_a_document_with_a_uri_is_replaced_at_once(desk: Desk) -> None:
    with desk.by():
        first = await desk.brought("One. Old.", uri="u")
        old = await desk.passages(first.document_id)
        second = await desk.brought("One. New.", uri="u")
        assert (second.document_id, second.revision) == (first.document_id, 2)
        new = await desk.passages(first.document_id)
        assert [each.text for each in new] == ["One. New."]
        assert new[0].passage_id != old[0].passage_id
        with pytest.raises(Aborted), desk.by():
            await desk.documents.ListPassages(
                pb.ListPassagesRequest(document_id=first.document_id, revision=1)
            )
        # What cannot be read takes nothing away.
        broken = await desk.brought(b"%PDF-1.7 broken", uri="u")
        assert (broken.state, broken.failure.reason, broken.revision) == (FAILED, 2, 2)
        assert [each.text for each in await desk.passages(first.document_id)] == ["One. New."]


async def test_a_key_returns_the_first_document(desk: Desk) -> None:
    with desk.by():
        first = await desk.create("One.", key="k")
        again = await desk.create("One.", key="k")
        assert again.document.document_id == first.document.document_id
        with pytest.raises(AlreadyExists), desk.by():
            await desk.create("Two.", key="k")


async def test_many_with_one_uri_at_once_are_one_document(desk: Desk) -> None:
    with desk.by():
        made = await asyncio.gather(*(desk.create(f"Text {n}.", uri="u") for n in range(8)))
        assert len({each.document.document_id for each in made}) == 1
        found = await desk.ended(made[0].document.document_id)
        assert found.state == READY
        (passage,) = await desk.passages(found.document_id)
        assert passage.text in {f"Text {n}." for n in range(8)}


async def test_private_documents_are_their_owners_alone(desk: Desk) -> None:
    with desk.by():
        mine = await desk.brought("Private.", uri="u", file_name="a.txt", visibility=PRIVATE)
        (passage,) = await desk.passages(mine.document_id)
        child_like = await desk.brought("Private too.", file_name="b.txt", visibility=PRIVATE)
    for tenant, user in (("ten_a", "usr_b"), ("ten_b", "usr_a")):
        for call in (
            lambda: desk.documents.GetDocument(pb.GetDocumentRequest(document_id=mine.document_id)),
            lambda: desk.passages(mine.document_id),
            lambda: desk.ended(mine.document_id),
            lambda: desk.documents.UpdateDocument(
                pb.UpdateDocumentRequest(document_id=mine.document_id, title="x")
            ),
            lambda: desk.documents.ReadDocumentAgain(
                pb.ReadDocumentAgainRequest(document_id=mine.document_id)
            ),
            lambda: desk.documents.DeleteDocument(
                pb.DeleteDocumentRequest(document_id=mine.document_id)
            ),
            lambda: downloaded(desk, mine.document_id),
        ):
            with pytest.raises(NotFound), desk.by(tenant, user):
                await call()
        with desk.by(tenant, user):
            listed = await desk.documents.ListDocuments(pb.ListDocumentsRequest())
            assert not listed.documents
            read = await desk.feed.ReadPassages(
                feed.ReadPassagesRequest(passage_ids=[passage.passage_id])
            )
            assert not read.passages
            assert not read.documents
    with desk.by(user="usr_b"):
        # Neither the uri nor the bytes tell that somebody has them.
        theirs = await desk.create("Private.", uri="u", file_name="a.txt", visibility=PRIVATE)
        assert not theirs.unchanged
        assert theirs.document.document_id != mine.document_id
        same = await desk.create("Private too.", file_name="b.txt", visibility=PRIVATE)
        assert not same.unchanged
        assert same.document.document_id != child_like.document_id
    with desk.by(user=""):  # the mesh itself, which indexes
        assert await desk.passages(mine.document_id)


async def test_what_is_said_of_a_document_can_change(desk: Desk) -> None:
    with desk.by():
        data = files.mail(("a.txt", b"Attached."))
        found = await desk.brought(data)
        changed = await desk.documents.UpdateDocument(
            pb.UpdateDocumentRequest(
                document_id=found.document_id,
                title="New",
                collection="hr",
                visibility=PRIVATE,
                set_attributes={"a": "1", "b": "2"},
                remove_attributes=["b"],
                etag=found.etag,
            )
        )
        assert (changed.document.title, changed.document.collection) == ("New", "hr")
        assert dict(changed.document.attributes) == {"a": "1"}
        with pytest.raises(Aborted), desk.by():
            await desk.documents.UpdateDocument(
                pb.UpdateDocumentRequest(document_id=found.document_id, title="x", etag=found.etag)
            )
    with desk.by(user="usr_b"):
        # What is attached follows.
        listed = await desk.documents.ListDocuments(pb.ListDocumentsRequest())
        assert not listed.documents
        public = await desk.brought("Public.")
    with pytest.raises(PermissionDenied), desk.by():
        await desk.documents.UpdateDocument(
            pb.UpdateDocumentRequest(document_id=public.document_id, visibility=PRIVATE)
        )


async def downloaded(desk: Desk, document_id: str) -> bytes:
    call = desk.documents.DownloadDocument(pb.DownloadDocumentRequest(document_id=document_id))
    return b"".join([each.data async for each in call])


async def test_bytes_come_back_as_they_went_in(desk: Desk) -> None:
    data = b"a line of text, and more\n" * 100_000

    async def pieces() -> AsyncIterator[pb.SendDocumentRequest]:
        yield pb.SendDocumentRequest(info=document_pb2.DocumentInfo(file_name="big.txt"))
        for start in range(0, len(data), 700_000):
            yield pb.SendDocumentRequest(data=data[start : start + 700_000])

    with desk.by():
        sent = await desk.documents.SendDocument(pieces())
        assert sent.document.size == len(data)
        assert sent.document.sha256 == hashlib.sha256(data).hexdigest()
        assert await downloaded(desk, sent.document.document_id) == data
        assert (await desk.ended(sent.document.document_id)).passage_count > 500


async def test_a_stream_that_begins_or_goes_on_wrong_is_refused(desk: Desk) -> None:
    info = pb.SendDocumentRequest(info=document_pb2.DocumentInfo())
    data = pb.SendDocumentRequest(data=b"x")
    for wrong in ([], [data], [info], [info, info], [info, data, info]):

        async def pieces(
            some: list[pb.SendDocumentRequest] = wrong,
        ) -> AsyncIterator[pb.SendDocumentRequest]:
            for each in some:
                yield each

        with pytest.raises(InvalidRequest), desk.by():
            await desk.documents.SendDocument(pieces())


async def test_what_a_database_cannot_keep_is_refused_by_field(desk: Desk) -> None:
    for field, info in (
        ("info.title", {"title": "a\0b"}),
        ("info.uri", {"uri": "\0"}),
        ("info.attributes[a]", {"attributes": {"a": "\0"}}),
    ):
        with pytest.raises(InvalidRequest) as caught, desk.by():
            await desk.create("x", **info)
        assert caught.value.violations[0].field == field
    with desk.by():
        found = await desk.brought("A\0B\n\n" + "x" * 5_000, file_name="a.txt")
        assert found.state in (READY, FAILED)


async def test_removed_documents_leave_nothing(desk: Desk) -> None:
    with desk.by():
        found = await desk.brought(files.mail(("a.txt", b"Attached.")))
        listed = await desk.documents.ListDocuments(pb.ListDocumentsRequest())
        (child,) = (each for each in listed.documents if each.parent_id == found.document_id)
        await desk.ended(child.document_id)
        await desk.documents.DeleteDocument(pb.DeleteDocumentRequest(document_id=found.document_id))
        for each in (found, child):
            with pytest.raises(NotFound), desk.by():
                await desk.passages(each.document_id)
        changes = await desk.changes()
        assert {each.document_id for each in changes} == {found.document_id, child.document_id}
        assert not any(each.HasField("document") for each in changes)
    async with asyncio.timeout(20):
        while await rows(desk):
            await asyncio.sleep(0.1)


async def rows(desk: Desk) -> int:
    """How many bytes and passages are kept."""
    database = open_database(desk.mesh.settings)
    try:
        async with database.of("ingest").read(EVERYONE) as connection:
            found = 0
            for table in (tables.parts, tables.passages, tables.heaps):
                found += (
                    await connection.execute(select(func.count()).select_from(table))
                ).scalar_one()
            return found
    finally:
        await database.close()


async def test_attachments_are_documents_and_lie_three_deep_at_most(desk: Desk) -> None:
    with desk.by():
        top = await desk.brought(files.mail_in_mail(5))
        found = top
        depth = 0
        while found.state == READY:
            depth += 1
            listed = await desk.documents.ListDocuments(pb.ListDocumentsRequest(page_size=100))
            (child,) = (each for each in listed.documents if each.parent_id == found.document_id)
            found = await desk.ended(child.document_id)
        assert (depth, found.failure.reason) == (3, 4)
        again = await desk.documents.ReadDocumentAgain(
            pb.ReadDocumentAgainRequest(document_id=top.document_id)
        )
        assert (await desk.ended(again.document.document_id)).revision == 2
        after = await desk.documents.ListDocuments(pb.ListDocumentsRequest(page_size=100))
        assert {each.document_id for each in after.documents} == {
            each.document_id for each in listed.documents
        }


async def test_the_feed_has_every_change_in_order(desk: Desk) -> None:
    with desk.by():
        made = await asyncio.gather(*(desk.create(f"Text {n}.") for n in range(12)))
        ids = [each.document.document_id for each in made]
        seen: dict[str, int] = {}
        last = 0
        async with asyncio.timeout(30):
            async for told in desk.feed.WatchChanges(feed.WatchChangesRequest()):
                for each in await desk.changes(last):
                    assert each.position > last
                    last = each.position
                    seen[each.document_id] = each.position
                assert told.newest_position <= last
                if len(seen) == len(ids):
                    break
        assert set(seen) == set(ids)
        await desk.documents.UpdateDocument(
            pb.UpdateDocumentRequest(document_id=ids[0], collection="c")
        )
        (change,) = await desk.changes(last)
        assert (change.document_id, change.document.collection) == (ids[0], "c")
    with desk.by("", ""):
        assert len(await desk.changes()) == 12
    with desk.by("ten_b", "usr_b"):
        assert await desk.changes() == []


async def test_pages_of_passages_and_documents(desk: Desk) -> None:
    text = "\n\n".join(f"# Part {n}\n\nText of part {n}." for n in range(25))
    with desk.by():
        found = await desk.brought(text)
        passages = await desk.passages(found.document_id, size=7)
        assert [each.place for each in passages] == list(range(25))
        for n in range(4):
            await desk.create(f"Text {n}.", collection="c")
        names, token = [], ""
        while True:
            page = await desk.documents.ListDocuments(
                pb.ListDocumentsRequest(page_size=3, page_token=token, collection="c")
            )
            names += [each.document_id for each in page.documents]
            token = page.next_page_token
            if not token:
                break
        assert len(names) == len(set(names)) == 4
        ids = [each.passage_id for each in passages[3:6]][::-1]
        read = await desk.feed.ReadPassages(
            feed.ReadPassagesRequest(passage_ids=[*ids, "psg_absent"])
        )
        assert [each.passage_id for each in read.passages] == ids
        assert [each.document_id for each in read.documents] == [found.document_id]


async def test_a_reader_that_was_taken_for_dead_reads_in_vain(desk: Desk) -> None:
    with desk.by():
        first = await desk.create(b"name,age\n" + b"Ada,36\n" * 60_000, file_name="a.csv", uri="u")
        second = await desk.create("Replaced.", uri="u")
        assert second.document.document_id == first.document.document_id
        found = await desk.ended(first.document.document_id)
        assert found.state == READY
        (passage,) = await desk.passages(found.document_id)
        assert passage.text == "Replaced."


async def test_an_address_is_fetched_and_redirects_are_judged(desk: Desk) -> None:
    async def answer(request: web.Request) -> web.Response:
        match request.path:
            case "/page":
                return web.Response(text=files.PAGE, content_type="text/html")
            case "/moved":
                return web.Response(status=302, headers={"location": "/page"})
            case "/inside":
                return web.Response(status=302, headers={"location": "http://169.254.169.254/x"})
            case "/loop":
                return web.Response(status=302, headers={"location": "/loop"})
            case "/file":
                return web.Response(status=302, headers={"location": "file:///etc/passwd"})
        return web.Response(status=404)

    async with site(answer) as url:
        with desk.by():
            for path, state, reason in (
                ("/page", READY, 0),
                ("/moved", READY, 0),
                ("/inside", FAILED, 7),
                ("/file", FAILED, 7),
                ("/loop", FAILED, 6),
                ("/absent", FAILED, 6),
            ):
                made = await desk.create(url=url + path)
                found = await desk.ended(made.document.document_id)
                assert (found.state, found.failure.reason) == (state, reason), path
                assert found.uri == url + path
    for bad in ("http://169.254.169.254/", "ftp://example.com/", "http://a:b@127.0.0.1/"):
        with pytest.raises(InvalidRequest), desk.by():
            await desk.create(url=bad)
