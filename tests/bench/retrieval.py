"""How well what is asked is found and cited, on the judged set of tests/quality.

The floor is BM25 by the package `bm25s` as it comes, over the same passages with the same titles
and headings. A figure is the mean over the questions that have an answer. By meaning, and by both,
is measured where BENCH_EMBEDDINGS_URL and BENCH_EMBEDDINGS_MODEL name a model of embeddings that
speaks OpenAI's protocol (BENCH_EMBEDDINGS_KEY is its key).
"""

from __future__ import annotations

import asyncio
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
from plexus.context.v1 import search_service_pb2 as search
from plexus.llm.v1 import route_pb2, route_service_pb2
from plexus.llm.v1.route_service_pb2_grpc import RouteServiceStub

from tests.bench import cited
from tests.bench.library import Caller, Library, filled
from tests.bench.rounds import Report, Row, say
from tests.bench.users import installation
from tests.quality import judged
from tests.quality.measures import Passage, Wanted, ndcg, recall, reciprocal_rank, wanted

_DEPTH = 20
_AT_ONCE = 2
_VECTORS_SECONDS = 900.0
_LEXICAL = (search.SIGNAL_LEXICAL,)
_SEMANTIC = (search.SIGNAL_SEMANTIC,)
Measure = Callable[[Sequence[str], Wanted], float]
_MEASURES: Mapping[str, Measure] = {
    "nDCG@10": ndcg,
    "recall@20": recall,
    "MRR": reciprocal_rank,
}
Rankings = Mapping[str, Sequence[str]]


async def measure(folder: Path, report: Report) -> None:
    """Bring the documents, ask every question, and ask an agent some of them."""
    settings = _embeddings()
    async with AsyncExitStack() as stack:
        ours = await stack.enter_async_context(installation(folder / "data", 1, settings))
        socket = f"unix:{ours.socket}"
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(socket))
        caller = Caller(channel, ours.members[0].token)
        if settings:
            await _answer_offline(caller)
        library = await filled(caller)
        await _retrieval(caller, library, report, meaning=bool(settings))
        await cited.measure(caller, library, report)


def _embeddings() -> dict[str, str]:
    """What has a model of embeddings asked; nothing where none is named."""
    url, model = (os.environ.get(f"BENCH_EMBEDDINGS_{each}", "") for each in ("URL", "MODEL"))
    if not url or not model:
        return {}
    return {
        "PLEXUS_LLM_URL": url,
        "PLEXUS_LLM_MODEL": model,
        "PLEXUS_LLM_KEY": os.environ.get("BENCH_EMBEDDINGS_KEY", ""),
        "PLEXUS_LLM_CAPABILITIES": "embeddings",
        "PLEXUS_CONTEXT_EMBEDDINGS": "auto",
    }


async def _answer_offline(caller: Caller) -> None:
    """Have agents ask the built-in model, and not the one of embeddings."""
    stub: Any = RouteServiceStub(caller.channel)
    spec = route_pb2.RouteSpec(
        candidates=[route_pb2.RouteCandidate(model="offline/extractive")],
        policy=route_pb2.ROUTE_POLICY_FIXED,
    )
    request = route_service_pb2.CreateRouteRequest(name="default", spec=spec)
    await stub.CreateRoute(request, metadata=caller.metadata)


async def _retrieval(caller: Caller, library: Library, report: Report, *, meaning: bool) -> None:
    questions = [each for each in judged.questions() if each.relevant]
    targets = {each.id: wanted(each.relevant, library.passages) for each in questions}
    passages = [each for some in library.passages.values() for each in some]
    floor = _floor(passages, questions, lambda each: each.whole)
    bare = _floor(passages, questions, lambda each: each.text)
    ours = {"by words": await _rankings(caller, questions, _LEXICAL)}
    if meaning:
        await _vectors(caller, passages)
        ours["by meaning"] = await _rankings(caller, questions, _SEMANTIC)
        ours["by both"] = await _rankings(caller, questions, ())
    for kind, rankings in ours.items():
        report.rows += _rows(kind, rankings, floor, targets)
    if not meaning:
        report.notes.append(
            "Retrieval by meaning and by both: not measured, for no model of embeddings comes with "
            "this; BENCH_EMBEDDINGS_URL and BENCH_EMBEDDINGS_MODEL name one."
        )
    told = ", ".join(f"{name} {_mean(bare, targets, each):.3f}" for name, each in _MEASURES.items())
    lost = [number for each in targets.values() for number in each.lost]
    quotes = sum(len(each.grades) for each in targets.values())
    rendered = ", ".join(f"{count} as {kind[1:]}" for kind, count in library.rendered.items())
    report.notes += [
        f"Retrieval: {len(judged.documents())} documents (of Markdown {rendered}), "
        f"{len(passages)} passages, {len(questions)} questions; {len(lost)} of {quotes} quotes are "
        f"in no passage, {len(library.failures)} documents could not be read. The floor without "
        f"titles and headings: {told}.",
        f"nDCG@10 by words, ours and the floor's: {_by_kind(questions, targets, ours, floor)}.",
    ]
    _tell(questions, targets, ours["by words"], floor, library)


async def _rankings(
    caller: Caller, questions: Sequence[judged.Question], signals: Sequence[search.Signal.ValueType]
) -> Rankings:
    places = asyncio.Semaphore(_AT_ONCE)

    async def ask(question: judged.Question) -> list[str]:
        async with places:
            reply = await caller.search(question.question, signals, _DEPTH)
        if signals and set(reply.signals) != set(signals):
            raise RuntimeError(f"{question.id} was not ranked as asked")
        return [each.source.passage_id for each in reply.hits]

    found = await asyncio.gather(*map(ask, questions))
    return {each.id: ranking for each, ranking in zip(questions, found, strict=True)}


async def _vectors(caller: Caller, passages: Sequence[Passage]) -> None:
    """Wait until the newest passages are found by their meaning."""
    async with asyncio.timeout(_VECTORS_SECONDS):
        # What comes last in the feed has its vectors last.
        for text in (passages[0].text, passages[-1].text):
            while True:
                reply = await caller.search(text[:1000], _SEMANTIC, 1)
                if reply.hits and reply.hits[0].source.text == text:
                    break
                await asyncio.sleep(1)


def _floor(
    passages: Sequence[Passage],
    questions: Sequence[judged.Question],
    text: Callable[[Passage], str],
) -> Rankings:
    """BM25 as the package comes."""
    import bm25s

    index = bm25s.BM25()
    corpus = bm25s.tokenize([text(each) for each in passages], show_progress=False)
    index.index(corpus, show_progress=False)
    asked = bm25s.tokenize([each.question for each in questions], show_progress=False)
    places, scores = index.retrieve(asked, k=_DEPTH, show_progress=False)
    return {
        question.id: [passages[at].id for at, score in zip(row, marks, strict=True) if score > 0]
        for question, row, marks in zip(questions, places, scores, strict=True)
    }


def _rows(
    kind: str, ours: Rankings, floor: Rankings, targets: Mapping[str, Wanted]
) -> Sequence[Row]:
    found = []
    for name, each in _MEASURES.items():
        mine, its = _mean(ours, targets, each), _mean(floor, targets, each)
        found.append(
            Row(
                f"retrieval {name}",
                f"{kind}, {len(targets)} questions of the judged set",
                f"{mine:.3f}",
                f"bm25s over the same passages {its:.3f}",
                mine / its,
                ">= 1.0",
                "questions that share no word with their answer",
            )
        )
    return found


def _mean(rankings: Rankings, targets: Mapping[str, Wanted], one: Measure) -> float:
    return statistics.fmean(one(rankings[key], its) for key, its in targets.items())


def _by_kind(
    questions: Sequence[judged.Question],
    targets: Mapping[str, Wanted],
    ours: Mapping[str, Rankings],
    floor: Rankings,
) -> str:
    found = []
    for kind in sorted({each.kind for each in questions}):
        its = {each.id: targets[each.id] for each in questions if each.kind == kind}
        mine, other = (_mean(each, its, ndcg) for each in (ours["by words"], floor))
        found.append(f"{kind} {mine:.2f} and {other:.2f}")
    return ", ".join(found)


def _tell(
    questions: Sequence[judged.Question],
    targets: Mapping[str, Wanted],
    ours: Rankings,
    floor: Rankings,
    library: Library,
) -> None:
    """What went worst, for whoever looks for why."""
    for each in library.failures:
        say(f"    not read: {each}")
    for question in questions:
        its = targets[question.id]
        for number in its.lost:
            say(f"    in no passage, {question.id}: {question.relevant[number]}")
    behind = sorted(
        (ndcg(ours[key], its) - ndcg(floor[key], its), key) for key, its in targets.items()
    )
    worst = ", ".join(f"{key} {difference:+.2f}" for difference, key in behind[:10])
    say(f"    most behind the floor: {worst}")
