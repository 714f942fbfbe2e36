"""An answer by one of the models that may give it, metered from its first token to its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from services.llm.domain.configuration import day_of
from services.llm.domain.generation import (
    Delta,
    Event,
    Failed,
    Finished,
    FinishReason,
    Message,
    Origin,
    Piece,
    Prompt,
    Role,
    Started,
    Switched,
    ToolDelta,
    Usage,
    format_broken,
    model_unavailable,
    tokens_in,
)
from services.llm.domain.ledger import Kept, Key, NewCall, State
from services.llm.domain.routing import Passed, Why
from services.llm.formats import FormatCheck, asking_again, unfenced
from services.llm.service.attempts import Answering, Attempts, Search
from services.llm.service.catalogue import Catalogue
from services.llm.service.choosing import Ask, Chooser, Chosen
from services.llm.service.kept import Recording, replayed
from services.llm.service.metering import Call, Meter
from services.runtime import clock
from services.runtime.context import Principal, current, principal
from services.runtime.crypto import MasterKey
from services.runtime.errors import PlexusError
from services.runtime.ids import new_id

# Kept back from the call's deadline, so that `failed` is sent before the RPC itself is cut.
_MARGIN_SECONDS = 0.25
# A budget that leaves less than this of an answer that has no bound refuses it.
_LEAST_ANSWER = 256
_KEPT = 24 * 3600 * clock.SECOND
_GO_ON = (
    "Your answer was cut off. Go on exactly where it ends: repeat nothing of it, and say nothing "
    "about this."
)
_NOTHING = Usage(0, 0, estimated=False)


class Generations:
    """Answers."""

    def __init__(
        self,
        catalogue: Catalogue,
        chooser: Chooser,
        attempts: Attempts,
        meter: Meter,
        master_key: MasterKey,
    ) -> None:
        self._catalogue = catalogue
        self._chooser = chooser
        self._attempts = attempts
        self._meter = meter
        self._master_key = master_key

    async def generate(self, ask: Ask) -> AsyncGenerator[Event, None]:
        """Answer a prompt.

        Yields:
            By the contract's grammar: Started, any Deltas and ToolDeltas, then one of Finished and
            Failed.

        Raises:
            NotFound: UNKNOWN_MODEL.
            InvalidRequest: MODEL_REFUSED: no model accepts the request.
            Unavailable: MODEL_UNAVAILABLE: none can be reached, or is willing now.
            ResourceExhausted: BUDGET_SPENT, or too many generations are under way.
            AlreadyExists: The idempotency key stands for another request.
            Aborted: IN_PROGRESS: the first call under its key has not ended.
        """
        who = principal()
        view = await self._catalogue.view(who.tenant_id)
        ask = replace(ask, prompt=replace(ask.prompt, due=due()))
        wanted = ask.prompt.answer_format
        check = None if wanted is None else FormatCheck(wanted)
        chosen = self._chooser.choose(view, ask)
        call = await self._meter.begin(self.new_call(who, ask, chosen))
        if isinstance(call, Kept):
            for event in replayed(call.sealed_answer, self._master_key, who.tenant_id):
                yield event
            return
        answer = _Answer(self, ask, chosen, call, check)
        try:
            async with aclosing(answer.events()) as events:
                async for event in events:
                    yield event
        finally:
            # The caller went, or nobody could answer: both leave the call to be entered.
            answer.abandon()

    def new_call(
        self, who: Principal, ask: Ask, chosen: Chosen, answer: int | None = None
    ) -> NewCall:
        """The entry of a call; `answer` is how long its answer is, where that is known."""
        now = clock.now()
        asked = ask.prompt.max_output_tokens
        most = chosen.most_answer if answer is None else answer
        return NewCall(
            call_id=new_id("gen"),
            tenant_id=who.tenant_id,
            user_id=who.user_id,
            # Anybody could name another's agent; the mesh's own modules do not.
            agent_id=ask.agent_id if who.mesh else "",
            owner=self._meter.owner,
            model=chosen.candidates[0].model.name,
            day=day_of(now),
            start_time=now,
            input_tokens=chosen.need.input_tokens,
            price=chosen.dearest,
            most_answer=most,
            least_answer=min(asked or _LEAST_ANSWER, most),
            key=Key(ask.key, ask.digest, now + _KEPT) if ask.key else None,
        )


class _Answer:
    """One answer, from the search for a model to its end."""

    def __init__(
        self,
        parts: Generations,
        ask: Ask,
        chosen: Chosen,
        call: Call,
        check: FormatCheck | None,
    ) -> None:
        self._attempts = parts._attempts
        self._meter = parts._meter
        self._master_key = parts._master_key
        self._ask = ask
        self._chosen = chosen
        self._call = call
        self._entered = False
        self._accepted = False
        self._recording = Recording() if ask.key else None
        self._format = check
        # What was said so far, where another may have to go on.
        self._texts: list[str] = []

    async def events(self) -> AsyncGenerator[Event, None]:
        """The answer, by the contract's grammar."""
        search = Search(self._bounded(self._ask.prompt), self._chosen.limits)
        search.passed.extend(self._chosen.passed)
        answering = await self._search(search)
        yield self._sent(self._started(answering, search))
        error: PlexusError | None = None
        while error is None:
            tell = self._told if self._format is None else self._checked
            try:
                async with aclosing(tell(answering)) as events:
                    async for event in events:
                        yield event
                return
            except PlexusError as raised:
                error = raised
            following = await self._following(answering)
            if following is not None:
                answering, switched = following
                yield self._sent(switched)
                error = None
        usage = self._call.usage()
        await self._enter(State.FAILED, usage)
        yield Failed(error, usage)

    def abandon(self) -> None:
        """Enter the call, unless it is."""
        if not self._entered:
            self._entered = True
            usage = self._call.usage() if self._accepted else _NOTHING
            self._meter.end_later(self._call, State.CANCELLED, usage)

    async def _search(self, search: Search) -> Answering:
        try:
            found = await self._attempts.first(
                search, self._chosen.candidates, self._chosen.hedge_after
            )
        except PlexusError:
            await self._enter(State.FAILED, _NOTHING)
            raise
        self._accepted = True
        self._call.model, self._call.price = found.served.model.name, found.served.model.price
        return found

    async def _told(self, answering: Answering) -> AsyncGenerator[Event, None]:
        """What one model says; ends the call when it has finished.

        Raises:
            PlexusError: It broke off.
        """
        async with aclosing(_heard(answering, self._call)) as pieces:
            async for piece in pieces:
                if not isinstance(piece, Finished):
                    self._texts.append(_words(piece) if self._ask.switch_midway else "")
                    self._meter.passed_on(self._call, _words(piece))
                    yield self._sent(piece)
                else:
                    yield await self._finished(piece)

    async def _checked(self, answering: Answering) -> AsyncGenerator[Event, None]:
        """The same of an answer that must have a format: it is whole and right, or none.

        Raises:
            PlexusError: It broke off, or was wrong twice.
        """
        assert self._format is not None
        prompt = self._bounded(self._ask.prompt)
        for last in (False, True):
            said = ""
            async with aclosing(_heard(answering, self._call)) as pieces:
                async for piece in pieces:
                    # Not passed on yet, but taken: the provider counts it.
                    self._meter.passed_on(self._call, _words(piece))
                    if isinstance(piece, Delta):
                        said += piece.text
                    elif isinstance(piece, ToolDelta):
                        yield self._sent(piece)
                    else:
                        finished = piece
            said = unfenced(said)
            called = finished.reason is FinishReason.TOOL_CALLS
            problems = [] if called else self._format.problems(said)
            if not problems:
                if said:
                    yield self._sent(Delta(said))
                yield await self._finished(finished)
                return
            if last or finished.reason is FinishReason.LENGTH:
                raise format_broken(f"The answer does not fit its format: {problems[0]}.")
            served = answering.served
            self._call.ask_again(served.model.name, served.model.price, finished.usage)
            search = Search(asking_again(prompt, said, problems), self._chosen.limits)
            answering = await self._attempts.first(search, [served])

    async def _finished(self, piece: Finished) -> Finished:
        usage = self._call.usage(piece.usage)
        finished = Finished(piece.reason, usage)
        await self._enter(State.FINISHED, usage, finished)
        return finished

    async def _following(self, broken: Answering) -> tuple[Answering, Switched] | None:
        """The next candidate, where the caller wants one to go on."""
        names = [each.model.name for each in self._chosen.candidates]
        place = names.index(broken.served.model.name)
        left = self._chosen.candidates[place + 1 :]
        if not self._ask.switch_midway or self._format is not None or not left:
            return None
        said = Message(Role.ASSISTANT, "".join(self._texts), Origin.MODEL)
        asked = Message(Role.USER, _GO_ON, Origin.SYSTEM)
        prompt = self._bounded(self._ask.prompt)
        prompt = replace(prompt, messages=(*prompt.messages, said, asked))
        try:
            found = await self._attempts.first(Search(prompt, self._chosen.limits), left)
        except PlexusError:
            return None  # what broke off first is what the caller is told
        self._call.ask_again(found.served.model.name, found.served.model.price)
        return found, Switched(found.served.model.name, Passed(names[place], Why.FAILED))

    def _started(self, answering: Answering, search: Search) -> Started:
        chosen = self._chosen
        return Started(
            model=answering.served.model.name,
            generation_id=self._call.new.call_id,
            route=chosen.route,
            policy=chosen.policy,
            passed=tuple(search.passed),
            task_class=chosen.task_class,
            classifier=chosen.classifier,
        )

    def _sent(self, event: Event) -> Event:
        if self._recording is not None:
            self._recording.add(event)
        return event

    async def _enter(self, state: State, usage: Usage, finished: Finished | None = None) -> None:
        """Enter the call, once; what finished is kept for those who ask again."""
        self._entered = True
        sealed = b""
        if self._recording is not None and finished is not None:
            self._recording.add(finished)
            sealed = self._recording.sealed(self._master_key, self._call.new.tenant_id)
        await self._meter.end(self._call, state, usage, sealed)

    def _bounded(self, prompt: Prompt) -> Prompt:
        """The prompt, with the bound on its answer that budgets set."""
        granted = self._call.granted
        if granted is None or (prompt.max_output_tokens or granted + 1) <= granted:
            return prompt
        return replace(prompt, max_output_tokens=granted)


async def _heard(answering: Answering, call: Call) -> AsyncGenerator[Piece, None]:
    """What one model says, to its end; how it did is noted.

    Raises:
        PlexusError: It broke off.
    """
    loop = asyncio.get_running_loop()
    began, before = loop.time(), call.size
    good: bool | None = None
    try:
        piece = answering.first
        while piece is not None and not isinstance(piece, Finished):
            yield piece
            piece = await anext(answering.pieces, None)
        if piece is None:
            raise model_unavailable("The model ended without finishing its answer.")
        good = True
        yield piece
    except PlexusError:
        good = False
        raise
    finally:
        await answering.close(good)
        tokens = tokens_in(call.size - before)
        cost = call.price.of(call.new.input_tokens, tokens)
        answering.record.ended(good is not False, tokens, loop.time() - began, cost)


def _words(piece: Piece) -> str:
    if isinstance(piece, Delta):
        return piece.text
    return piece.name + piece.arguments if isinstance(piece, ToolDelta) else ""


def due() -> float | None:
    """When the answer to the current call must have ended, in the event loop's time."""
    call = current()
    if call.deadline is None:
        return None
    remaining = call.deadline - asyncio.get_running_loop().time()
    return call.deadline - min(_MARGIN_SECONDS, remaining / 10)
