"""How a summary takes in messages: by a model, or by their words alone where there is none."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from services.history.asking import INSTRUCTIONS, SCHEMA, Answer, Question
from services.history.domain.recap import merge
from services.history.domain.sessions import Message
from services.history.domain.summary import Dropped, Finding, Summary
from services.history.domain.telling import extract, findings
from services.history.ports import Models, Reader
from services.runtime import log, tokens
from services.runtime.errors import PlexusError

_logger = log.get(__name__)
# What a step takes in at most, in bytes; at the bound of one byte a token it fits a model that
# takes twice as many tokens and the rest of the question.
MAX_STEP_BYTES = 24_000
_REST_TOKENS = 6_000
_SMALLEST_STEP = 2_000
_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class Taking:
    """A summary that has taken in messages, what is not in it, and what memory may want to know."""

    summary: Summary
    dropped: tuple[Dropped, ...]
    findings: Sequence[Finding]
    tokens_of_messages: int
    tokens_of_summary: int


class Reading:
    """Lets a model read, for the tenant and the user that the current call acts for."""

    def __init__(self, models: Models) -> None:
        self._models = models

    async def reader(self, model: str) -> Reader | None:
        """Who reads; None where no language model can be asked, now or at all.

        Raises:
            NotFound: No provider serves a model of this name.
        """
        try:
            reader = await self._models.reader(model)
        except PlexusError as error:
            if error.reason == "UNKNOWN_MODEL":
                raise
            _logger.warning("summarised_without_model", error=repr(error))
            return None
        return reader if reader and room_of(reader) >= _SMALLEST_STEP else None

    async def take_in(
        self,
        reader: Reader | None,
        previous: Summary,
        dropped: Sequence[Dropped],
        messages: Sequence[Message],
        last: str = "",
    ) -> Taking:
        """Take messages in. Where the model fails it is done without it.

        Args:
            reader: The model; None is by the words alone.
            previous: The summary so far.
            dropped: What is not in it.
            messages: Those that come next.
            last: The message that the summary took in last.
        """
        answer = await self._ask(reader, previous, messages) if reader else None
        return await asyncio.to_thread(_taken, previous, dropped, messages, last, answer)

    async def _ask(
        self, reader: Reader, previous: Summary, messages: Sequence[Message]
    ) -> Answer | None:
        question = Question(previous, messages, room_of(reader, reader.window))
        try:
            async with asyncio.timeout(_SECONDS):
                asked = await asyncio.to_thread(question.text)
                name, said = await self._models.answer(reader, INSTRUCTIONS, asked, SCHEMA)
            return question.read(name, said)
        except (PlexusError, TimeoutError, ValueError, RecursionError) as error:
            _logger.warning("summarised_without_model", error=repr(error))
            return None


def room_of(reader: Reader | None, most: int = MAX_STEP_BYTES) -> int:
    """How many bytes of messages may be read at once."""
    return most if reader is None else min(most, (reader.window - _REST_TOKENS) // 2)


def _taken(
    previous: Summary,
    dropped: Sequence[Dropped],
    messages: Sequence[Message],
    last: str,
    answer: Answer | None,
) -> Taking:
    if answer is None:
        answer = Answer(extract(previous, messages), (), findings(messages))
    summary, left = merge(
        previous, dropped, messages, answer.draft, last=last, answered=answer.answered
    )
    return Taking(
        summary=summary,
        dropped=left,
        findings=answer.findings,
        tokens_of_messages=sum(tokens.count(message.text) for message in messages),
        tokens_of_summary=sum(tokens.count(line.text) for line in summary.lines()),
    )
