"""Uploads over their contract."""

from __future__ import annotations

import asyncio
import hashlib

import pytest
from google.api.httpbody_pb2 import HttpBody
from plexus.ingest.v1 import document_pb2
from plexus.ingest.v1 import upload_service_pb2 as pb

from services.ingest import store
from services.runtime import clock
from services.runtime.db import EVERYONE, open_database
from services.runtime.errors import Aborted, FailedPrecondition, InvalidRequest, NotFound
from tests.services.ingest.conftest import READY, Desk
from tests.services.ingest.test_documents import downloaded

DATA = b"".join(b"line %d of a text that goes on\n" % n for n in range(100_000))


async def begun(desk: Desk, data: bytes = DATA, sha256: str = "", key: str = "") -> pb.Upload:
    info = document_pb2.DocumentInfo(file_name="a.txt")
    reply = await desk.uploads.CreateUpload(
        pb.CreateUploadRequest(info=info, size=len(data), sha256=sha256, idempotency_key=key)
    )
    return reply.upload


async def write(desk: Desk, upload: pb.Upload, start: int, data: bytes) -> pb.Upload:
    request = pb.WriteUploadRequest(
        upload_id=upload.upload_id, start=start, part=HttpBody(data=data)
    )
    return (await desk.uploads.WriteUpload(request)).upload


async def complete(desk: Desk, upload: pb.Upload) -> pb.CompleteUploadResponse:
    return await desk.uploads.CompleteUpload(pb.CompleteUploadRequest(upload_id=upload.upload_id))


async def test_an_upload_becomes_a_document(desk: Desk) -> None:
    with desk.by():
        upload = await begun(desk, sha256=hashlib.sha256(DATA).hexdigest(), key="k")
        assert await begun(desk, sha256=hashlib.sha256(DATA).hexdigest(), key="k") == upload
        half = 1_500_000
        assert (await write(desk, upload, 0, DATA[:half])).received_size == half
        # A part may be sent again; one that begins elsewhere may not.
        assert (await write(desk, upload, 0, DATA[:half])).received_size == half
        for start in (half - 1, half + 1):
            with pytest.raises(Aborted) as caught, desk.by():
                await write(desk, upload, start, DATA[start:])
            assert caught.value.metadata["received_size"] == str(half)
        with pytest.raises(FailedPrecondition) as early, desk.by():
            await complete(desk, upload)
        assert early.value.reason == "UPLOAD_INCOMPLETE"
        with pytest.raises(InvalidRequest), desk.by():
            await write(desk, upload, half, DATA[half:] + b"x")
        assert (await write(desk, upload, half, DATA[half:])).received_size == len(DATA)
        first = await complete(desk, upload)
        again = await complete(desk, upload)
        assert again.document.document_id == first.document.document_id
        assert await downloaded(desk, first.document.document_id) == DATA
        assert (await desk.ended(first.document.document_id)).state == READY
        second = await begun(desk)
        await write(desk, second, 0, DATA[:half])
        await write(desk, second, half, DATA[half:])
        assert (await complete(desk, second)).unchanged


async def test_other_bytes_than_were_said_are_no_document(desk: Desk) -> None:
    with desk.by():
        upload = await begun(desk, b"abc", sha256="0" * 64)
        await write(desk, upload, 0, b"abc")
        with pytest.raises(FailedPrecondition), desk.by():
            await complete(desk, upload)


async def test_uploads_are_their_users_alone(desk: Desk) -> None:
    with desk.by():
        upload = await begun(desk)
    for tenant, user in (("ten_a", "usr_b"), ("ten_b", "usr_a")):
        for call in (
            lambda: write(desk, upload, 0, b"x"),
            lambda: complete(desk, upload),
            lambda: desk.uploads.GetUpload(pb.GetUploadRequest(upload_id=upload.upload_id)),
            lambda: desk.uploads.DeleteUpload(pb.DeleteUploadRequest(upload_id=upload.upload_id)),
        ):
            with pytest.raises(NotFound), desk.by(tenant, user):
                await call()


async def test_one_part_sent_at_once_by_many_is_kept_once(desk: Desk) -> None:
    with desk.by():
        upload = await begun(desk, DATA[:300_000])
        done = await asyncio.gather(*(write(desk, upload, 0, DATA[:300_000]) for _ in range(6)))
        assert {each.received_size for each in done} == {300_000}
        made = await complete(desk, upload)
        assert await downloaded(desk, made.document.document_id) == DATA[:300_000]


async def test_what_is_let_go_of_or_expires_is_gone(desk: Desk) -> None:
    with desk.by():
        first, second = await begun(desk), await begun(desk)
        await write(desk, first, 0, DATA[:1_000_000])
        await write(desk, second, 0, DATA[:1_000_000])
        await desk.uploads.DeleteUpload(pb.DeleteUploadRequest(upload_id=first.upload_id))
        database = open_database(desk.mesh.settings)
        async with database.of("ingest").transaction(EVERYONE) as connection:
            await store.uploads.purge(connection, clock.now() + 25 * 3600 * clock.SECOND)
        await database.close()
        for each in (first, second):
            with pytest.raises(NotFound), desk.by():
                await desk.uploads.GetUpload(pb.GetUploadRequest(upload_id=each.upload_id))
