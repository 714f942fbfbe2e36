"""Carries a run from its input to its last event."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

from services.agents.domain import (
    Agent,
    Completed,
    Ending,
    Failed,
    Run,
    TextDelta,
    Usage,
    text_of,
)
from services.agents.ports import (
    Answering,
    Asks,
    Chunk,
    Finish,
    History,
    Knowledge,
    Models,
    Prompt,
    Said,
)
from services.agents.pump import TextPump
from services.agents.runlog import LiveRun, RunLog
from services.runtime import log, tokens
from services.runtime.errors import Code, NotFound, PlexusError, ResourceExhausted
from services.runtime.status import as_plexus_error

_logger = log.get(__name__)
_T = TypeVar("_T")
_MAX_OUTPUT = 1_000_000
# Counts differ between vocabularies by some percent; this share of a window is left unused.
_MARGIN = 0.1
# What a prompt may have at least and at most, in tokens.
_MIN_WINDOW = 256
_MAX_WINDOW = 2_000_000
# The answer's share of the window.
_ANSWER_SHARE = 0.25
# What may be over in a moment.
_PASSING = {Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED, Code.DEADLINE_EXCEEDED}
_RETRY_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)
# How often a message is offered to history before a run ends without it: for about a minute, in
# which a process that was killed is back, also on a machine that has much to do.
_HISTORY_TRIES = 60

INTERRUPTED = Failed("INTERRUPTED", "The process that ran it ended. What it wrote is kept.")
_TOO_LONG = Failed("DEADLINE_EXCEEDED", "The run took longer than it may. What it wrote is kept.")


@dataclass(frozen=True, slots=True)
class Last:
    """How a run ends, and what its model took where that is known."""

    ending: Ending
    usage: Usage | None = None


class Carrier:
    """A run, and the task that carries it."""

    def __init__(self, live: LiveRun, agent: Agent, runner: Runner) -> None:
        self.live = live
        self._agent = agent
        self._runner = runner
        self._answer: asyncio.Task[Last] | None = None
        self._stopped: Ending | None = None

    def stop(self, ending: Ending) -> None:
        """End the run early, in this way, unless it is ending already."""
        if self._stopped is None:
            self._stopped = ending
            if self._answer is not None:
                self._answer.cancel()

    async def carry(self, seconds: float) -> None:
        """Answer within some seconds, and keep how it ended: every way out leaves a last event.

        The exception is this process's own end: then whoever starts next finds the run and ends it.
        """
        if self._stopped is None:
            self._answer = asyncio.create_task(self._runner.answer(self.live, self._agent))
            try:
                done, _ = await asyncio.wait({self._answer}, timeout=seconds)
                if not done:
                    self.stop(_TOO_LONG)
                    await asyncio.wait({self._answer})
            finally:
                if not self._answer.done():
                    self._answer.cancel()
                    await asyncio.wait({self._answer})
        await self._runner.end(self.live, self._last())

    def _last(self) -> Last:
        answer = self._answer
        if answer is None or answer.cancelled():
            return Last(self._stopped or INTERRUPTED)
        error = answer.exception()
        if error is None:
            return answer.result()
        if not isinstance(error, Exception):
            raise error
        known = as_plexus_error(error)
        return Last(Failed(known.reason, known.message))


class Runner:
    """Answers runs with the help of history, of what is known, and of a model."""

    def __init__(
        self, runs: RunLog, history: History, knowledge: Knowledge, models: Models
    ) -> None:
        self._runs = runs
        self._history = history
        self._knowledge = knowledge
        self._models = models

    async def answer(self, live: LiveRun, agent: Agent) -> Last:
        """Keep the input, then let the model write; returns how the run ends.

        Raises:
            PlexusError: Why it fails.
        """
        run = live.run
        await self._keep_input(live)
        prompt = await self._prompt(run, agent)
        finish, model = await self._write(live, agent, prompt)
        usage = Usage(finish.input_tokens, finish.output_tokens, model)
        if finish.reason:
            return Last(Failed(finish.reason, finish.message), usage)
        await self._cite(live, prompt)
        return Last(Completed(run.output_message_id, finish.truncated), usage)

    async def _keep_input(self, live: LiveRun) -> None:
        run = live.run
        await self._history.append(
            session_id=run.session_id,
            message_id=run.input_message_id,
            said=Said(by_agent=False, text=run.input),
            run_id=run.run_id,
            partial=False,
        )

    async def _budget(self, agent: Agent) -> int:
        """How many tokens of the conversation the model may be given."""
        window = await self._models.context_window(agent.model)
        if not window:
            raise NotFound(f"No provider serves the model {agent.model}.", reason="UNKNOWN_MODEL")
        return min(max(_MIN_WINDOW, int(window * (1 - _MARGIN - _ANSWER_SHARE))), _MAX_WINDOW)

    async def _prompt(self, run: Run, agent: Agent) -> Prompt:
        """What the model is given: what is known and what was said, or the latter alone.

        Where nothing can be looked up, an answer without it is better than none.
        """
        budget = await self._budget(agent)
        try:
            return await self._knowledge.prompt(agent, run.session_id, run.input, budget)
        except PlexusError as error:
            _logger.warning("nothing_looked_up", run_id=run.run_id, error=repr(error))
        left = max(1, budget - tokens.at_most(agent.instructions))
        conversation = await self._history.window(run.session_id, left)
        return Prompt.plain(agent.instructions, conversation)

    async def _cite(self, live: LiveRun, prompt: Prompt) -> None:
        """Keep what stands behind the answer."""
        answer = text_of(live.events)
        if not prompt.sources or not answer:
            return
        try:
            found = await self._knowledge.citations(answer, prompt.sources)
        except PlexusError as error:
            _logger.warning("nothing_cited", run_id=live.run.run_id, error=repr(error))
            return
        if found:
            await self._runs.append(live, *found)

    async def _write(self, live: LiveRun, agent: Agent, prompt: Prompt) -> tuple[Finish, str]:
        """Let the model write into the log; returns how it finished, and which model it was."""
        model, written = agent.model, 0

        async def commit(text: str) -> None:
            await self._runs.append(live, TextDelta(text))

        pump = TextPump(commit)
        try:
            events = self._models.answer(
                Asks(
                    agent_id=agent.agent_id,
                    session_id=live.run.session_id,
                    model=agent.model,
                    prompt=prompt,
                )
            )
            async with aclosing(events):
                async for event in events:
                    match event:
                        case Answering():
                            model = event.model
                        case Chunk():
                            written += len(event.text)
                            if written > _MAX_OUTPUT:
                                raise ResourceExhausted(
                                    f"The answer passed {_MAX_OUTPUT} characters.",
                                    metadata={"limit": "output"},
                                )
                            await pump.put(event.text)
                        case Finish():
                            return event, model
        finally:
            await pump.close()
        raise AssertionError("an answer ends in a finish or an error")

    async def end(self, live: LiveRun, last: Last) -> None:
        """Keep input and answer in history, then the last event, however long the store refuses.

        An answer that history has whole already, from before a crash, makes the run complete.
        """
        ending = last.ending
        # Events in doubt belong to the answer: history must not have less of it than the run.
        await self._patiently(lambda: self._runs.settle(live))
        try:
            await self._patiently(lambda: self._keep_input(live), _HISTORY_TRIES)
            whole = await self._patiently(lambda: self._keep_output(live, ending), _HISTORY_TRIES)
            if whole and not isinstance(ending, Completed):
                ending = Completed(live.run.output_message_id, truncated=False)
        except PlexusError as error:
            _logger.warning("answer_not_in_history", run=live.run.run_id, error=repr(error))
            if isinstance(ending, Completed):
                ending = Failed(error.reason, "The answer could not be added to the session.")
        usage = (last.usage,) if last.usage else ()
        await self._patiently(lambda: self._runs.append(live, *usage, ending))

    async def _keep_output(self, live: LiveRun, ending: Ending) -> bool:
        """Add the answer to the session; True if the one kept is whole."""
        run, text = live.run, text_of(live.events)
        whole = isinstance(ending, Completed)
        if not (text or whole):
            return False
        return await self._history.append(
            session_id=run.session_id,
            message_id=run.output_message_id,
            said=Said(by_agent=True, text=text),
            run_id=run.run_id,
            partial=not whole,
        )

    async def _patiently(self, work: Callable[[], Awaitable[_T]], tries: int = 0) -> _T:
        """Do something that may be repeated until it succeeds, or some number of times.

        Raises:
            PlexusError: Trying again would change nothing, or was tried often enough.
        """
        attempt = 0
        while True:
            try:
                return await work()
            except PlexusError as error:
                attempt += 1
                if attempt == tries or error.code not in _PASSING:
                    raise
                _logger.warning("store_refused", error=repr(error), attempt=attempt)
                await asyncio.sleep(_RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS)) - 1])
