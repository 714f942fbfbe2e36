"""What is brought is found, cited, and put into prompts, over every protocol and in both shapes."""

from __future__ import annotations

import asyncio

import pytest
from plexus.context.v1 import digest_service_pb2 as digest
from plexus.context.v1 import inject_service_pb2 as inject
from plexus.context.v1 import search_service_pb2 as search
from plexus.ingest.v1 import document_pb2, document_service_pb2

from services.runtime.errors import InvalidRequest
from tests.e2e.callers import Caller
from tests.e2e.conftest import sign_up

SEARCH = "context.v1.SearchService"
QUESTION = "When is the rent of the flat due?"
ANSWER = "The rent of the flat is due on the third of each month."


async def found(caller: Caller, wanted: str = "") -> search.SearchResponse:
    request = search.SearchRequest(query=QUESTION, filter=wanted)
    return await caller.unary(f"{SEARCH}/Search", request, search.SearchResponse)


async def test_what_is_brought_is_found_and_cited(caller: Caller) -> None:
    await sign_up(caller)
    info = document_pb2.DocumentInfo(title="Lease", attributes={"year": "2024"})
    made = await caller.unary(
        "ingest.v1.DocumentService/CreateDocument",
        document_service_pb2.CreateDocumentRequest(
            info=info, text=f"{ANSWER}\n\nPets are allowed."
        ),
        document_service_pb2.CreateDocumentResponse,
    )
    async with asyncio.timeout(60):
        while not (reply := await found(caller)).hits:
            await asyncio.sleep(0.05)
    hit = reply.hits[0]
    assert hit.source.document_id == made.document.document_id
    assert ANSWER in hit.source.text
    marked = {hit.source.text[each.start : each.end] for each in hit.highlights}
    assert {"rent", "flat", "due"} <= marked
    assert (await found(caller, "attributes.year >= 2024")).hits
    assert not (await found(caller, "attributes.year > 2024")).hits
    with pytest.raises(InvalidRequest) as refused:
        await found(caller, "colour = red")
    assert refused.value.violations[0].field == "filter"
    summary = await caller.unary(
        "context.v1.DigestService/Summarize",
        digest.SummarizeRequest(query=QUESTION),
        digest.SummarizeResponse,
    )
    assert summary.sentences[0].text == ANSWER
    assert summary.sentences[0].citations[0].quote == ANSWER
    prompt = await caller.unary(
        "context.v1.InjectService/Inject",
        inject.InjectRequest(input=QUESTION, instructions="Be brief."),
        inject.InjectResponse,
    )
    (source,) = [each for each in prompt.blocks if each.mark]
    assert source.source.document_id == made.document.document_id
    assert prompt.blocks[-1].message.text == QUESTION
    await sign_up(caller)
    assert not (await found(caller)).hits
