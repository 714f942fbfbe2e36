"""A run's events, each of them once, whatever happens to the connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

import grpc
from plexus.agents.v1 import agents_service_pb2 as pb
from plexus.agents.v1.agents_service_pb2_grpc import AgentsServiceStub
from plexus.agents.v1.run_pb2 import Run, RunEvent

from services.cli.client import Client, Metadata, deadlines
from services.cli.errors import Failure, Problem

TERMINAL = ("run_completed", "run_failed", "run_cancelled")
PATIENCE_SECONDS = 60.0
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 5.0


class RunStream:
    """One run, from the request to its terminal event.

    Before its first event the request is made again, which its `idempotency_key` makes safe; after
    it, WatchRun goes on behind the last event that came.
    """

    def __init__(
        self,
        client: Client,
        request: pb.ProcessRequest,
        notice: Callable[[str], None],
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        """Prepare; nothing is called before `events`.

        Args:
            client: Where to run it.
            request: With an `idempotency_key`.
            notice: Told, in a sentence, when the connection is lost and when it is back.
            patience: Seconds that an outage may last.
        """
        self._client = client
        self._stub = AgentsServiceStub(client.channel)
        self._deadlines = deadlines("agents")
        self._request = request
        self._notice = notice
        self._patience = patience
        self._sequence = 0
        self._lost: float | None = None
        self._pause = _FIRST_PAUSE_SECONDS
        self.run_id = ""
        self.session_id = request.session_id
        self.started = asyncio.Event()

    async def events(self) -> AsyncGenerator[RunEvent, None]:
        """Every event up to the terminal one.

        Raises:
            Failure: The connection did not come back.
            AioRpcError: The request was refused.
        """
        while True:
            problem = Problem("UNAVAILABLE", "", "")
            try:
                async for event in self._client.stream(self._open):
                    if event.sequence <= self._sequence:
                        continue
                    self._take(event)
                    yield event
                    if event.WhichOneof("event") in TERMINAL:
                        return
            except grpc.aio.AioRpcError as error:
                problem = Problem.of(error)
                if not problem.transient:
                    raise
            await self._wait(problem)

    @property
    def lost(self) -> bool:
        """Whether the connection is away now."""
        return self._lost is not None

    async def cancel(self) -> Run:
        """Cancel the run; returns it as it ended. Only once `started` is set.

        Raises:
            AioRpcError: It could not be cancelled.
        """
        request = pb.CancelRunRequest(run_id=self.run_id)
        reply = await self._client.unary(
            lambda metadata: self._stub.CancelRun(
                request, metadata=metadata, timeout=self._deadlines["CancelRun"]
            )
        )
        return reply.run

    def _open(self, metadata: Metadata) -> Any:
        if not self.run_id:
            return self._stub.Process(
                self._request, metadata=metadata, timeout=self._deadlines["Process"]
            )
        request = pb.WatchRunRequest(run_id=self.run_id, after_sequence=self._sequence)
        return self._stub.WatchRun(request, metadata=metadata, timeout=self._deadlines["WatchRun"])

    def _take(self, event: RunEvent) -> None:
        self._sequence = event.sequence
        self.run_id = event.run_id
        if event.WhichOneof("event") == "run_started":
            self.session_id = event.run_started.session_id
        self.started.set()
        if self._lost is not None:
            self._lost = None
            self._pause = _FIRST_PAUSE_SECONDS
            self._notice("Connected again.")

    async def _wait(self, problem: Problem) -> None:
        """Let some time pass before the next attempt, a little more each time."""
        now = time.monotonic()
        url = self._client.address.url
        if self._lost is None:
            self._lost = now
            what = "The connection was lost" if self.run_id else f"Plexus does not answer at {url}"
            self._notice(f"{what}; trying again for up to {self._patience:g} s (Ctrl-C ends it).")
        if now + self._pause > self._lost + self._patience:
            raise self._given_up(problem)
        await asyncio.sleep(self._pause)
        self._pause = min(self._pause * 2, _LONGEST_PAUSE_SECONDS)

    def _given_up(self, problem: Problem) -> Failure:
        if not self.run_id:
            return problem.failure(self._client.address.url)
        return Failure(
            f"The connection to {self._client.address.url} did not come back. The run may go on; "
            "see the rest with:",
            f'plexus call agents/WatchRun --json \'{{"run_id": "{self.run_id}", '
            f'"after_sequence": {self._sequence}}}\'',
        )
