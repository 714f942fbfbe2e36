"""A connection to Redis that many use at once, and that comes back by itself.

Callers never touch the connection. They queue commands, which go out as one write when the writer
comes free, and each waits for its own answer; Redis answers in order. So a caller that is cancelled
leaves nothing half sent or half read behind. While the connection is down, a call costs nothing.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from redis.exceptions import NoScriptError, ResponseError

Command = tuple[str | bytes | int, ...]
# Sends some commands and returns their answers, before anyone else can.
Talk = Callable[[Sequence[Command]], Awaitable[list[Any]]]

# A Redis that answers nothing for a tenth of a second is away. That is counted in ticks rather than
# by the clock: when this process was held up, the first thing it does afterwards must not be to
# blame Redis for answers that it has not read yet.
_TICK = 0.02
_SILENT_TICKS = 5
# While answers come in, a call is in a queue of our own making. To give up then would make limits
# leak just when there is a rush; this bounds what else may go wrong.
_DEADLINE = 0.5
_HEARTBEAT_SECONDS = 1.0
CONNECT_SECONDS = 1.0
_FIRST_DELAY = 0.05
_LAST_DELAY = 0.8
_STEADY_SECONDS = 10.0
_MAX_PENDING = 10_000


class Away(Exception):
    """Redis does not answer now: do without."""


class Silent(Exception):
    """Redis holds the connection and answers nothing."""


class Link:
    """One connection, made again whenever it breaks."""

    def __init__(
        self,
        connect: Callable[[], Any],
        hello: Callable[[Talk], Awaitable[None]],
        changed: Callable[[Exception | None], None],
        heard: Callable[[list[Any]], None] | None = None,
    ) -> None:
        """Prepare to connect.

        Args:
            connect: Makes a connection of the client's that is not open yet.
            hello: What to say first; the link is up when it returns, with no step between.
            changed: Called when the link has come up, and with the reason whenever it has not.
            heard: Given each message of a topic that the connection is subscribed to.
        """
        self._connect = connect
        self._hello = hello
        self._changed = changed
        self._heard = heard
        self.up = False
        self._unsent: list[Command] = []
        self._pending: deque[asyncio.Future[Any] | None] = deque()
        self._answered = 0
        self._wake = asyncio.Event()
        self._busy = asyncio.Event()

    async def call(self, *command: str | bytes | int) -> Any:
        """Send a command and wait for its answer: a tenth of a second, or in a rush up to half.

        Raises:
            Away: There is none.
            ResponseError: Redis refuses the command for what it is.
        """
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if not self._queue(command, answer):
            raise Away
        try:
            async with asyncio.timeout(_DEADLINE):
                return await answer
        except TimeoutError:
            raise Away from None

    def post(self, *command: str | bytes | int) -> None:
        """Send a command whose answer nobody needs."""
        self._queue(command, None)

    def _queue(self, command: Command, answer: asyncio.Future[Any] | None) -> bool:
        if not self.up or len(self._pending) >= _MAX_PENDING:
            return False
        self._unsent.append(command)
        self._pending.append(answer)
        self._wake.set()
        self._busy.set()
        return True

    async def run(self) -> None:
        """Stay connected until cancelled."""
        loop = asyncio.get_running_loop()
        delay = _FIRST_DELAY
        while True:
            began = loop.time()
            try:
                await self._live()
            except Exception as error:  # noqa: BLE001 - whatever it is, Redis is not there now
                self._changed(error)
            if loop.time() - began > _STEADY_SECONDS:
                delay = _FIRST_DELAY
            # Replicas that lost the same Redis should not come back to it in step.
            await asyncio.sleep(delay * random.uniform(0.5, 1))  # noqa: S311
            delay = min(delay * 2, _LAST_DELAY)

    async def _live(self) -> None:
        connection, transport = self._connect(), None
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await connection.connect()
            # The client would close it in good order, which with something left to send a frozen
            # Redis never lets it; to drop it, one has to go around the client.
            transport = connection._writer.transport
            await self._hello(lambda commands: self._talk(connection, commands))
            self.up = True
            self._changed(None)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._write(connection))
                group.create_task(self._read(connection))
                group.create_task(self._watch())
        except ExceptionGroup as group_error:
            raise group_error.exceptions[0] from None
        finally:
            self._abandon()
            if transport is not None:
                transport.abort()
            await connection.disconnect(nowait=True)

    def _abandon(self) -> None:
        """Whoever waits gets no answer any more."""
        self.up = False
        self._unsent.clear()
        while self._pending:
            answer = self._pending.popleft()
            if answer is not None and not answer.done():
                answer.set_exception(Away())

    async def _talk(self, connection: Any, commands: Sequence[Command]) -> list[Any]:
        answers: list[Any] = []
        async with asyncio.timeout(CONNECT_SECONDS):
            await connection.send_packed_command(connection.pack_commands(commands))
            while len(answers) < len(commands):
                answer = await connection.read_response(timeout=math.inf)
                if not self._is_message(answer):
                    answers.append(answer)
        return answers

    async def _write(self, connection: Any) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            commands, self._unsent = self._unsent, []
            if commands:
                await connection.send_packed_command(connection.pack_commands(commands))

    async def _read(self, connection: Any) -> None:
        while True:
            try:
                answer = await connection.read_response(timeout=math.inf)
            except ResponseError as error:
                if not _is_of_the_command(error):
                    raise
                answer = error
            if self._is_message(answer):
                continue
            self._answered += 1
            waiting = self._pending.popleft()
            if waiting is None or waiting.done():
                continue
            if isinstance(answer, ResponseError):
                waiting.set_exception(answer)
            else:
                waiting.set_result(answer)

    def _is_message(self, answer: Any) -> bool:
        """Whether it is no answer but news, which are handed on."""
        if self._heard is None or not isinstance(answer, list) or answer[0] != b"message":
            return False
        self._heard(answer)
        return True

    async def _watch(self) -> None:
        """Notice a Redis that says nothing, also when nobody asks.

        Raises:
            Silent: It answered nothing for as long as a call may take.
        """
        while True:
            try:
                async with asyncio.timeout(_HEARTBEAT_SECONDS):
                    await self._busy.wait()
            except TimeoutError:
                self.post("PING")
            await self._all_answered()
            self._busy.clear()

    async def _all_answered(self) -> None:
        silent, seen = 0, self._answered
        while self._pending:
            await asyncio.sleep(_TICK)
            silent = silent + 1 if self._answered == seen else 0
            seen = self._answered
            if silent >= _SILENT_TICKS:
                raise Silent


def _is_of_the_command(error: ResponseError) -> bool:
    """Whether an error is about what was asked; any other means that Redis cannot serve us now."""
    return isinstance(error, NoScriptError) or str(error).startswith("WRONGTYPE")
