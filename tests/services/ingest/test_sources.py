"""Sources against real servers that the tests run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from plexus.ingest.v1 import document_pb2, document_service_pb2, source_pb2, source_service_pb2

from services.ingest.domain.sources import at_pointer, pattern_of
from services.ingest.service.schedules import next_time
from services.runtime.clock import SECOND
from services.runtime.context import acting_as, mesh_principal
from services.runtime.errors import InvalidRequest, NotFound
from tests.certificates import Authority
from tests.databases import KINDS, Databases
from tests.services.ingest import files, mail_servers
from tests.services.ingest.conftest import Desk, site
from tests.support import served, settings_in

IMAP = source_pb2.MAIL_PROTOCOL_IMAP


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture(params=KINDS)
async def watched(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    databases: Databases,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Desk]:
    """A process that may look at a folder and trusts an authority for mail."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "ca.pem").write_bytes(authority.certificate)
    monkeypatch.setenv("PLEXUS_INGEST_FOLDERS", str(tmp_path / "shared"))
    monkeypatch.setenv("PLEXUS_INGEST_MAIL_CA", str(tmp_path / "ca.pem"))
    settings = settings_in(
        tmp_path / "data",
        egress_allow="127.0.0.1,localhost",
        **await databases.settings(request.param),
    )
    async with served(settings, ["ingest"]) as mesh:
        yield Desk(mesh)


async def made(desk: Desk, **kind: Any) -> source_pb2.Source:
    new = source_service_pb2.NewSource(display_name="s", **kind)
    reply = await desk.sources.CreateSource(source_service_pb2.CreateSourceRequest(source=new))
    return reply.source


async def looked(desk: Desk, source: source_pb2.Source) -> source_pb2.SourceRun:
    """How a look goes that is asked for now."""
    request = source_service_pb2.GetSourceRequest(source_id=source.source_id)
    before = (await desk.sources.GetSource(request)).source.last_run
    await desk.sources.RunSource(source_service_pb2.RunSourceRequest(source_id=source.source_id))
    async with asyncio.timeout(20):
        while True:
            run = (await desk.sources.GetSource(request)).source.last_run
            if run.HasField("end_time") and run.start_time != before.start_time:
                return run
            await asyncio.sleep(0.05)


def counts(run: source_pb2.SourceRun) -> tuple[int, int, int, int, str]:
    return (run.added, run.changed, run.unchanged, run.removed, run.failure)


async def listed(desk: Desk, source: source_pb2.Source) -> Sequence[document_pb2.Document]:
    reply = await desk.documents.ListDocuments(
        document_service_pb2.ListDocumentsRequest(source_id=source.source_id)
    )
    return reply.documents


async def titles(desk: Desk, source: source_pb2.Source) -> list[str]:
    for each in await listed(desk, source):
        await desk.ended(each.document_id)
    return sorted(each.title for each in await listed(desk, source))


async def test_a_folder_is_kept_up_with(watched: Desk, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    (shared / "deep").mkdir()
    (shared / "a.md").write_text("# Alpha\n\nOne.")
    (shared / "deep" / "b.md").write_text("# Beta\n\nTwo.")
    (shared / "c.txt").write_text("Not asked for.")
    (tmp_path / "secret.md").write_text("# Secret")
    (shared / "link.md").symlink_to(tmp_path / "secret.md")
    with watched.by():
        folder = source_pb2.Folder(path=str(shared), pattern="**/*.md", remove_missing=True)
        source = await made(watched, folder=folder)
        assert counts(await looked(watched, source)) == (2, 0, 0, 0, "")
        assert await titles(watched, source) == ["Alpha", "Beta"]
        (shared / "a.md").write_text("# Alpha\n\nOne and more.")
        assert counts(await looked(watched, source)) == (0, 1, 1, 0, "")
        (shared / "deep" / "b.md").unlink()
        assert counts(await looked(watched, source)) == (0, 0, 1, 1, "")
        assert await titles(watched, source) == ["Alpha"]


@pytest.mark.parametrize("path", ["/", "/etc", "relative", "{shared}/../data", "{shared}/absent"])
async def test_folders_that_nobody_allowed_are_refused(
    watched: Desk, tmp_path: Path, path: str
) -> None:
    (tmp_path / "shared" / "out").symlink_to("/etc")
    for each in (path.format(shared=tmp_path / "shared"), str(tmp_path / "shared" / "out")):
        with pytest.raises(InvalidRequest, match="operator"), watched.by():
            await made(watched, folder=source_pb2.Folder(path=each))


async def test_a_list_goes_on_from_its_cursor(watched: Desk) -> None:
    items = [{"id": n, "name": f"Item {n}", "body": f"Text {n}."} for n in range(5)]
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        assert request.headers["x-key"] == "secret"
        asked.append(request.query["after"])
        start = int(request.query["after"] or 0)
        page = items[start : start + 2]
        following = start + len(page)
        return web.json_response({"data": {"list": page}, "next": following if page else None})

    async with site(answer) as url:
        with watched.by():
            rest = source_pb2.RestList(
                url=url + "/list?after={cursor}",
                headers={"x-key": "secret"},
                items="/data/list",
                item_id="/id",
                item_title="/name",
                item_text="/body",
                cursor="/next",
            )
            source = await made(watched, rest=rest)
            assert not source.rest.headers
            assert counts(await looked(watched, source)) == (5, 0, 0, 0, "")
            assert await titles(watched, source) == [f"Item {n}" for n in range(5)]
            asked.clear()
            items.append({"id": 9, "name": "Item 9", "body": "New."})
            assert counts(await looked(watched, source)) == (1, 0, 0, 0, "")
            assert asked[0] == "5"


async def test_a_list_that_fails_says_why(watched: Desk) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=503)

    async with site(answer) as url:
        with watched.by():
            rest = source_pb2.RestList(url=url, item_id="/id")
            run = await looked(watched, await made(watched, rest=rest))
            assert run.failure == "Its address answers with 503."


async def test_a_page_is_read_again_only_where_it_changed(watched: Desk) -> None:
    page = files.PAGE
    conditions: list[str | None] = []

    async def answer(request: web.Request) -> web.Response:
        conditions.append(request.headers.get("if-none-match"))
        tag = f'"{hash(page)}"'
        if conditions[-1] == tag:
            return web.Response(status=304)
        return web.Response(text=page, content_type="text/html", headers={"etag": tag})

    async with site(answer) as url:
        with watched.by():
            source = await made(watched, web=source_pb2.WebAddress(url=url + "/leave.html"))
            assert counts(await looked(watched, source)) == (1, 0, 0, 0, "")
            assert counts(await looked(watched, source)) == (0, 0, 1, 0, "")
            page = page.replace("thirty", "forty")
            assert counts(await looked(watched, source)) == (0, 1, 0, 0, "")
            assert [each is None for each in conditions] == [True, False, False]


@pytest.mark.parametrize("protocol", ["imap", "pop3"])
async def test_new_mail_becomes_documents(
    watched: Desk, authority: Authority, protocol: str
) -> None:
    box = [files.mail(subject="First"), files.mail(("notes.txt", b"Some notes."), subject="Second")]
    async with mail_servers.serving(protocol, authority, box) as port:
        with watched.by():
            mailbox = source_pb2.Mailbox(
                protocol=IMAP if protocol == "imap" else source_pb2.MAIL_PROTOCOL_POP3,
                host="localhost",
                port=port,
                user="ada",
                password="secret",
            )
            source = await made(watched, mailbox=mailbox)
            assert not source.mailbox.password
            assert counts(await looked(watched, source))[::4] == (2, "")
            assert await titles(watched, source) == ["First", "Second", "notes.txt"]
            reply = await watched.documents.ListDocuments(
                document_service_pb2.ListDocumentsRequest()
            )
            attached = [each for each in reply.documents if each.parent_id]
            assert [each.file_name for each in attached] == ["notes.txt"]
            box.append(files.mail(subject="Third"))
            assert (await looked(watched, source)).added == 1


async def test_a_mail_server_that_is_not_who_it_says_is_refused(watched: Desk) -> None:
    async with mail_servers.serving("imap", Authority(), []) as port:
        with watched.by():
            mailbox = source_pb2.Mailbox(
                protocol=IMAP, host="localhost", port=port, user="ada", password="secret"
            )
            run = await looked(watched, await made(watched, mailbox=mailbox))
            assert "certificate" in run.failure


async def test_a_wrong_password_is_told_and_a_secret_is_not_sent_elsewhere(
    watched: Desk, authority: Authority
) -> None:
    async with mail_servers.serving("imap", authority, []) as port:
        with watched.by():
            mailbox = source_pb2.Mailbox(
                protocol=IMAP, host="localhost", port=port, user="ada", password="wrong"
            )
            source = await made(watched, mailbox=mailbox)
            assert "no" in (await looked(watched, source)).failure
            elsewhere = source_pb2.Mailbox(protocol=IMAP, host="127.0.0.1", port=port, user="ada")
            new = source_service_pb2.NewSource(display_name="s", mailbox=elsewhere)
            request = source_service_pb2.UpdateSourceRequest(source_id=source.source_id, source=new)
            with pytest.raises(InvalidRequest, match="secret"), watched.by():
                await watched.sources.UpdateSource(request)


async def test_a_removed_source_takes_its_documents_along(watched: Desk, tmp_path: Path) -> None:
    (tmp_path / "shared" / "a.md").write_text("# Alpha\n\nOne.")
    with watched.by():
        source = await made(watched, folder=source_pb2.Folder(path=str(tmp_path / "shared")))
        await looked(watched, source)
        assert await titles(watched, source) == ["Alpha"]
        await watched.sources.DeleteSource(
            source_service_pb2.DeleteSourceRequest(
                source_id=source.source_id, delete_documents=True
            )
        )
        async with asyncio.timeout(20):
            while await listed(watched, source):
                await asyncio.sleep(0.05)
        with pytest.raises(NotFound), watched.by():
            await watched.sources.GetSource(
                source_service_pb2.GetSourceRequest(source_id=source.source_id)
            )


def test_times_are_those_of_the_schedule() -> None:
    now = 1_764_550_000 * SECOND
    assert next_time("", False, now) is None
    assert next_time("0 3 * * *", True, now) is None
    assert next_time("*/5 * * * *", False, now) == 1_764_550_200 * SECOND
    for bad in ("0 3 * *", "0 3 * * * *", "61 * * * *", "0 0 31 2 *", "x"):
        with pytest.raises(InvalidRequest):
            next_time(bad, False, now)


def test_pointers_lead_into_replies() -> None:
    reply = json.loads('{"a": [{"b/c": 1, "~": 2}], "n": null}')
    assert at_pointer(reply, "") is reply
    assert at_pointer(reply, "/a/0/b~1c") == 1
    assert at_pointer(reply, "/a/0/~0") == 2
    for nowhere in ("/a/1", "/a/x", "/a/-1", "/a/²", "/n/x", "/x/y"):
        assert at_pointer(reply, nowhere) is None


def test_patterns_mean_paths() -> None:
    assert pattern_of("").matches("deep/a.md")
    assert pattern_of("**/*.md").matches("a.md")
    assert pattern_of("**/*.md").matches("deep/er/a.md")
    assert not pattern_of("*.md").matches("deep/a.md")
    assert not pattern_of("*.md").matches("a.mdx")
    assert pattern_of("a?.txt").matches("ab.txt")


async def test_sources_of_another_tenant_look_absent(watched: Desk) -> None:
    with watched.by():
        source = await made(watched, web=source_pb2.WebAddress(url="http://127.0.0.1:9/x"))
    with acting_as(mesh_principal("ten_b", "usr_b")):
        request = source_service_pb2.GetSourceRequest(source_id=source.source_id)
        with pytest.raises(NotFound), watched.by("ten_b", "usr_b"):
            await watched.sources.GetSource(request)
        reply = await watched.sources.ListSources(source_service_pb2.ListSourcesRequest())
        assert not reply.sources
