"""Documents through the real gateway, over REST and gRPC, and at the command line."""

from __future__ import annotations

import asyncio
import io
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from plexus.ingest.v1 import document_pb2
from plexus.ingest.v1 import document_service_pb2 as pb
from plexus.ingest.v1.document_service_pb2_grpc import DocumentServiceStub

from services.runtime.errors import NotFound
from tests.e2e.callers import Caller, Grpc, Rest
from tests.e2e.conftest import make_caller, sign_up
from tests.e2e.mesh import ROOT, Mesh

DOCUMENTS = "ingest.v1.DocumentService"
DATA = b"".join(b"Line %d of a text that goes on and on.\n" % n for n in range(20_000))


async def ended(caller: Caller, document_id: str) -> document_pb2.Document:
    last = None
    watch = pb.WatchDocumentRequest(document_id=document_id)
    async for reply in caller.stream(f"{DOCUMENTS}/WatchDocument", watch, pb.WatchDocumentResponse):
        last = reply.document
    assert last is not None
    return last


async def test_a_document_is_brought_read_and_removed(caller: Caller) -> None:
    await sign_up(caller)
    made = await caller.unary(
        f"{DOCUMENTS}/CreateDocument",
        pb.CreateDocumentRequest(text="# Leave\n\nEveryone has thirty days."),
        pb.CreateDocumentResponse,
    )
    found = await ended(caller, made.document.document_id)
    assert (found.state, found.title) == (document_pb2.DOCUMENT_STATE_READY, "Leave")
    page = await caller.unary(
        f"{DOCUMENTS}/ListPassages",
        pb.ListPassagesRequest(document_id=found.document_id),
        pb.ListPassagesResponse,
    )
    told = [(each.text, list(each.headings)) for each in page.passages]
    assert told == [("Everyone has thirty days.", ["Leave"])]
    get = pb.GetDocumentRequest(document_id=found.document_id)
    token = caller.token
    await sign_up(caller)
    with pytest.raises(NotFound):
        await caller.unary(f"{DOCUMENTS}/GetDocument", get, pb.GetDocumentResponse)
    caller.token = token
    await caller.unary(
        f"{DOCUMENTS}/DeleteDocument",
        pb.DeleteDocumentRequest(document_id=found.document_id),
        pb.DeleteDocumentResponse,
    )
    with pytest.raises(NotFound):
        await caller.unary(f"{DOCUMENTS}/GetDocument", get, pb.GetDocumentResponse)


async def asked(http: aiohttp.ClientSession, method: str, path: str, **more: Any) -> Any:
    async with http.request(method, path, **more) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def test_bytes_go_up_in_parts_and_come_down_as_they_were(rest: Rest, mesh: Mesh) -> None:
    await sign_up(rest)
    headers = {"authorization": f"Bearer {rest.token}"}
    async with aiohttp.ClientSession(mesh.url, headers=headers) as http:
        begin = {"info": {"file_name": "große datei.txt"}, "size": len(DATA)}
        upload = (await asked(http, "POST", "/v1/uploads", json=begin))["upload"]
        path = f"/v1/uploads/{upload['upload_id']}"
        await asked(http, "PUT", f"{path}/parts/0", data=DATA[:400_000])
        where = await asked(http, "GET", path)
        assert where["upload"]["received_size"] == "400000"
        await asked(http, "PUT", f"{path}/parts/400000", data=DATA[400_000:])
        made = await asked(http, "POST", f"{path}:complete", json={})
        document_id = made["document"]["document_id"]
        await ended(rest, document_id)
        async with http.get(f"/v1/documents/{document_id}/content") as response:
            assert await response.read() == DATA
            assert response.content_type == "text/plain"
            assert response.headers["x-content-type-options"] == "nosniff"
            assert response.headers["content-disposition"].startswith("attachment; filename*=")
        async with http.get("/v1/documents/doc_absent/content") as response:
            assert response.status == 404
            assert (await response.json())["details"][0]["reason"] == "NOT_FOUND"


async def test_a_stream_over_grpc_may_be_larger_than_a_body(mesh: Mesh) -> None:
    caller = Grpc(mesh.url)
    await sign_up(caller)

    async def pieces() -> AsyncIterator[pb.SendDocumentRequest]:
        yield pb.SendDocumentRequest(info=document_pb2.DocumentInfo(file_name="a.txt"))
        for _ in range(8):
            yield pb.SendDocumentRequest(data=DATA[:700_000])

    reply = await DocumentServiceStub(caller._channel).SendDocument(
        pieces(), metadata=caller._metadata()
    )
    assert reply.document.size == 8 * 700_000
    await caller.close()


async def command(mesh: Mesh, token: str, *arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.cli", "documents", *arguments),
        cwd=ROOT,
        env={**os.environ, "PLEXUS_URL": mesh.url, "PLEXUS_TOKEN": token},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


async def test_documents_at_the_command_line(rest: Rest, mesh: Mesh, tmp_path: Path) -> None:
    await sign_up(rest)
    (tmp_path / "a.md").write_text("# Alpha\n\nOne.")
    (tmp_path / "b.pdf").write_text("%PDF- and nothing else")
    status, out = await command(
        mesh, rest.token, "add", str(tmp_path / "a.md"), str(tmp_path / "b.pdf")
    )
    assert status == 1, out
    assert "ready" in out and "broken" in out
    status, out = await command(mesh, rest.token, "list", "--state", "ready")
    assert status == 0, out
    assert "Alpha" in out and "b.pdf" not in out
    document_id = next(word for word in out.split() if word.startswith("doc_"))
    status, out = await command(mesh, rest.token, "show", document_id, "--passages")
    assert (status, out) == (0, "[Alpha]\nOne.\n\n")
    status, out = await command(mesh, rest.token, "rm", document_id)
    assert status == 0, out
    status, out = await command(mesh, rest.token, "show", document_id)
    assert status != 0


async def test_killed_in_the_middle_it_goes_on(tmp_mesh: Mesh) -> None:
    await tmp_mesh.start()
    rest = make_caller("rest", tmp_mesh)
    await sign_up(rest)
    headers = {"authorization": f"Bearer {rest.token}"}
    table = b"name;place\n" + b"somebody with a name;somewhere with a name\n" * 60_000
    async with aiohttp.ClientSession(tmp_mesh.url, headers=headers) as http:
        begin = {"info": {"file_name": "a.csv"}, "size": len(table)}
        upload = (await asked(http, "POST", "/v1/uploads", json=begin))["upload"]
        path = f"/v1/uploads/{upload['upload_id']}"
        await asked(http, "PUT", f"{path}/parts/0", data=table[:1_000_000])
        await tmp_mesh.kill()
        await tmp_mesh.start()
        where = await asked(http, "GET", path)
        assert where["upload"]["received_size"] == "1000000"
        await asked(http, "PUT", f"{path}/parts/1000000", data=io.BytesIO(table[1_000_000:]))
        made = await asked(http, "POST", f"{path}:complete", json={})
        document_id = made["document"]["document_id"]
        async with asyncio.timeout(20):
            while True:
                document = (await asked(http, "GET", f"/v1/documents/{document_id}"))["document"]
                if document["state"] == "DOCUMENT_STATE_READING":
                    break
                await asyncio.sleep(0.01)
        await tmp_mesh.kill()
        await tmp_mesh.start()
        found = await ended(rest, document_id)
        assert found.state == document_pb2.DOCUMENT_STATE_READY
        assert (found.revision, found.passage_count > 100) == (1, True)
    await rest.close()
    assert await tmp_mesh.stop() == 0
