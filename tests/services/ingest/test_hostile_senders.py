"""What whoever sends a document, or shares a tenant, must not bring about."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict

import pytest
from aiohttp import web
from plexus.ingest.v1 import document_pb2, source_pb2, source_service_pb2
from plexus.ingest.v1 import document_service_pb2 as pb

from services.ingest.domain.sources import pattern_of
from services.runtime.context import acting_as, mesh_principal
from services.runtime.errors import InvalidRequest
from services.runtime.status import remote_errors
from tests.services.ingest import files
from tests.services.ingest.conftest import Desk, site

READY, FAILED = document_pb2.DOCUMENT_STATE_READY, document_pb2.DOCUMENT_STATE_FAILED


async def test_a_reply_in_a_code_is_refused_unread(desk: Desk) -> None:
    async def answer(request: web.Request) -> web.Response:
        assert request.headers["accept-encoding"] == "identity"
        coded = {"content-encoding": "gzip, gzip, gzip"}
        return web.Response(body=b"\0" * 1000, headers=coded)

    async with site(answer) as url:
        with desk.by():
            made = await desk.create(url=f"{url}/bomb")
            found = await desk.ended(made.document.document_id)
            assert (found.state, found.failure.reason) == (FAILED, 6)
            assert "code" in found.failure.message


async def test_what_one_tenant_is_given_is_not_sent_for_another(desk: Desk) -> None:
    cookies: dict[str, str] = defaultdict(str)

    async def answer(request: web.Request) -> web.Response:
        cookies[request.path] = request.headers.get("cookie", "")
        return web.Response(text="Some text.", headers={"set-cookie": "session=theirs; path=/"})

    async with site(answer) as url:
        for tenant, path in (("ten_a", "/a"), ("ten_b", "/b")):
            with desk.by(tenant, f"usr_{tenant}"):
                made = await desk.create(url=url + path)
                assert (await desk.ended(made.document.document_id)).state == READY
    assert cookies == {"/a": "", "/b": ""}


async def test_secret_headers_do_not_follow_to_another_port(desk: Desk) -> None:
    heard: list[str] = []

    async def other(request: web.Request) -> web.Response:
        heard.append(request.headers.get("x-key", ""))
        return web.json_response([])

    async with site(other) as elsewhere:

        async def moved(request: web.Request) -> web.Response:
            heard.append(request.headers.get("x-key", ""))
            return web.Response(status=302, headers={"location": elsewhere})

        async with site(moved) as url:
            with desk.by():
                rest = source_pb2.RestList(url=url, item_id="/id", headers={"x-key": "secret"})
                new = source_service_pb2.NewSource(display_name="s", rest=rest)
                made = await desk.sources.CreateSource(
                    source_service_pb2.CreateSourceRequest(source=new)
                )
                which = source_service_pb2.RunSourceRequest(source_id=made.source.source_id)
                await desk.sources.RunSource(which)
                async with asyncio.timeout(20):
                    while len(heard) < 2:
                        await asyncio.sleep(0.05)
    assert heard == ["secret", ""]


async def test_an_attachment_with_an_impossible_name_is_read_once(desk: Desk) -> None:
    mail = files.mail(("a.txt", b"Some notes.")).replace(
        b'filename="a.txt"', b'x="a\\\\"; y="; filename*=utf-7\'\'+2AA-; z="'
    )
    assert b"utf-7" in mail
    with desk.by():
        found = await desk.brought(mail)
        assert (found.state, found.revision) == (READY, 1)
        listed = await desk.documents.ListDocuments(pb.ListDocumentsRequest())
        (child,) = [each for each in listed.documents if each.parent_id]
        assert "\ud800" not in child.file_name


async def test_anothers_private_source_stays_private(desk: Desk) -> None:
    owner = document_pb2.VISIBILITY_OWNER
    rest = source_pb2.RestList(url="http://127.0.0.1:9/a", item_id="/id", headers={"k": "secret"})
    new = source_service_pb2.NewSource(display_name="s", rest=rest, visibility=owner)
    with desk.by():
        made = await desk.sources.CreateSource(source_service_pb2.CreateSourceRequest(source=new))
    opened, moved = source_service_pb2.NewSource(), source_service_pb2.NewSource()
    opened.CopyFrom(new)
    opened.visibility = document_pb2.VISIBILITY_TENANT
    moved.CopyFrom(new)
    moved.rest.url = "http://127.0.0.1:9/b"
    for wish in (opened, moved):
        wish.rest.headers.clear()
        request = source_service_pb2.UpdateSourceRequest(
            source_id=made.source.source_id, source=wish
        )
        with (
            acting_as(mesh_principal("ten_a", "usr_other")),
            pytest.raises(InvalidRequest),
            remote_errors(),
        ):
            await desk.sources.UpdateSource(request)


def test_no_pattern_takes_for_ever() -> None:
    began = time.process_time()
    assert not pattern_of("*?" * 99 + "x").matches("a" * 250)
    assert not pattern_of("**/" * 60 + "x").matches("a/" * 120 + "y")
    # With backtracking it would be years.
    assert time.process_time() - began < 10
    assert pattern_of("a/**/b*.md").matches("a/b1.md")
    assert pattern_of("a/**/b*.md").matches("a/x/y/b.md")
    assert not pattern_of("a/**/b*.md").matches("x/b.md")
