"""Whether what an agent cites stands behind what it says, and is of the right document."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from plexus.agents.v1 import agents_service_pb2 as pb
from plexus.agents.v1 import run_pb2
from plexus.agents.v1.agents_service_pb2_grpc import AgentsServiceStub

from tests.bench.library import Caller, Library
from tests.bench.rounds import Report, Row, say
from tests.quality import judged
from tests.quality.measures import supports

_SAMPLE = 120
_SEED = 5
_AT_ONCE = 2
# The built-in model's words where nothing that it was given holds the answer.
_NOTHING = "I will not guess"


@dataclass(frozen=True)
class Answer:
    """What an agent said to a question, and what it cited."""

    question: judged.Question
    text: str
    citations: Sequence[run_pb2.RunCitation]

    @property
    def given(self) -> bool:
        """Whether it is an answer, and not that there is none."""
        return _NOTHING not in self.text

    def supported(self) -> int:
        """How many citations point at a quote that stands behind what cites it."""
        return sum(_supported(self.text, each) for each in self.citations)

    def right(self, library: Library) -> bool:
        """Whether something is cited that was judged to matter."""
        judged_ones = {each.document for each in self.question.relevant}
        cited = {library.documents.get(each.source.document_id) for each in self.citations}
        return not judged_ones.isdisjoint(cited)


async def measure(caller: Caller, library: Library, report: Report) -> None:
    """Ask some of the questions that have answers, and all that have none."""
    questions = judged.questions()
    able = [each for each in questions if each.relevant]
    sample = random.Random(_SEED).sample(able, _SAMPLE)
    answers = await _ask(caller, sample)
    given = [each for each in answers if each.given]
    made = sum(len(each.citations) for each in given)
    silent = sum(not each.citations for each in given)
    supported = sum(each.supported() for each in given)
    right = sum(each.right(library) for each in given)
    nothing = await _ask(caller, [each for each in questions if not each.relevant])
    refused = sum(not each.given for each in nothing)
    report.rows.append(
        Row(
            "citations",
            f"citations whose quote stands in the source and behind the sentence; "
            f"{len(given)} answers made {made}, and one without any counts as a failure",
            f"{supported} of {made + silent}",
            "",
            supported / max(1, made + silent),
            ">= 0.95",
            "a table quoted whole as one sentence; a question taken for something told",
            unit="",
        )
    )
    report.notes.append(
        f"Agents on the built-in model: of {len(sample)} questions with an answer "
        f"{len(given)} were answered, {right} of these with a citation of a judged document "
        f"({right / max(1, len(given)):.0%}), and to the others it said that it found nothing; of "
        f"{len(nothing)} without an answer it said so to {refused} ({refused / len(nothing):.0%})."
    )
    _tell(answers, nothing, library)


async def _ask(caller: Caller, questions: Sequence[judged.Question]) -> list[Answer]:
    stub: Any = AgentsServiceStub(caller.channel)
    places = asyncio.Semaphore(_AT_ONCE)

    async def ask(question: judged.Question) -> Answer:
        text, citations = "", []
        request = pb.ProcessRequest(input=question.question)
        async with places:
            async for event in stub.Process(request, metadata=caller.metadata):
                if event.HasField("text_delta"):
                    text += event.text_delta.text
                elif event.HasField("citation"):
                    citations.append(event.citation)
        if not event.HasField("run_completed"):
            raise RuntimeError(f"{question.id} was not answered: {event}")
        return Answer(question, text, citations)

    return list(await asyncio.gather(*map(ask, questions)))


def _supported(text: str, citation: run_pb2.RunCitation) -> bool:
    source, place = citation.source.text, citation.span
    if source[place.start : place.end] != citation.quote:
        return False
    return supports(citation.quote, text[citation.cited_in.start : citation.cited_in.end])


def _tell(answers: Sequence[Answer], nothing: Sequence[Answer], library: Library) -> None:
    """What went wrong, for whoever looks for why."""
    for each in answers:
        if each.given and each.supported() < max(1, len(each.citations)):
            say(f"    not supported, {each.question.id}: {each.text!r}")
        elif each.given and not each.right(library):
            cited = [library.documents.get(one.source.document_id) for one in each.citations]
            say(f"    of another document, {each.question.id}: {cited}")
    for each in nothing:
        if each.given:
            say(f"    answered without an answer, {each.question.id}: {each.text!r}")
