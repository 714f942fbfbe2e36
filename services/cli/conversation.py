"""The loop of `plexus chat` on a terminal: a prompt, an answer, and again."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType

import click

from services.cli.address import Address
from services.cli.chat import ask
from services.cli.client import Client, failures
from services.cli.errors import Failure
from services.cli.settings import CliSettings

_PROMPT = "> "
_INTERRUPTED = 130


class Conversation:
    """Turns of one session, on one channel and one event loop that runs while one is answered."""

    def __init__(
        self,
        address: Address,
        settings: CliSettings,
        agent_id: str,
        session_id: str,
        *,
        as_json: bool,
    ) -> None:
        self._address = address
        self._settings = settings
        self._agent_id = agent_id
        self._as_json = as_json
        self._runner = asyncio.Runner()
        self._client: Client | None = None
        self.session_id = session_id

    def __enter__(self) -> Conversation:
        """Open the channel and see that there is a login, before anything is typed."""
        with suppress(ImportError):
            import readline  # noqa: F401  it gives the prompt editing and a history
        try:
            with failures(self._address.url):
                self._client = self._runner.run(self._open())
        except BaseException:
            self._runner.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the channel."""
        if self._client is not None:
            self._runner.run(self._client.close())
        self._runner.close()

    def go_on(self) -> int:
        """Ask and answer until Ctrl-D, or Ctrl-C twice at the prompt; returns the exit status."""
        warned = False
        while True:
            try:
                text = input(_PROMPT)
            except EOFError:
                click.echo(err=True)
                return 0
            except KeyboardInterrupt:
                if warned:
                    click.echo(err=True)
                    return _INTERRUPTED
                warned = True
                click.echo("\nPress Ctrl-D to leave.", err=True)
                continue
            warned = False
            if text.strip():
                self._turn(text)

    def _turn(self, text: str) -> None:
        assert self._client is not None, "a conversation is used in a with block"
        try:
            with failures(self._address.url):
                turn = self._runner.run(
                    ask(
                        self._client,
                        text,
                        agent_id=self._agent_id,
                        session_id=self.session_id,
                        as_json=self._as_json,
                    )
                )
        except Failure as failure:
            failure.show()
        else:
            self.session_id = turn.session_id
        click.echo(err=True)

    async def _open(self) -> Client:
        client = Client(self._address, self._settings)
        try:
            await client.token()
        except BaseException:
            await client.close()
            raise
        return client
