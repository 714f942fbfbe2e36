"""Chatting: the answer is shown once, whatever happens to the connection."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import signal
from typing import Any

import pytest
from plexus.agents.v1 import run_pb2
from plexus.errors.v1.errors_pb2 import ErrorReason

from services.cli import chat
from services.cli.client import connect
from services.cli.errors import Failure
from tests.services.cli.conftest import Cli
from tests.services.cli.fake import Fake, script


def at(name: str, sequence: int, act: Any) -> Any:
    """A hook that acts before one event of an RPC's first call."""

    async def before(called: str, number: int, event: run_pb2.RunEvent) -> bool:
        if (called, number, event.sequence) != (name, 1, sequence):
            return False
        await asyncio.sleep(0.1)  # let what was sent arrive
        return bool(act() or True)

    return before


async def test_an_answer_goes_to_stdout_and_the_session_beside_it(cli: Cli, fake: Fake) -> None:
    cli.log_in(fake)
    done = await cli("chat", "--agent", "agt_1", "--session", "ses_1", "hi")
    assert (done.status, done.out) == (0, "Hello.\n")
    assert "Session ses_1. Go on with: plexus chat --agent agt_1 --session ses_1" in done.err
    request = fake.requests[0]
    assert (request.input, request.agent_id, request.session_id) == ("hi", "agt_1", "ses_1")
    assert request.idempotency_key


async def test_a_message_may_come_on_stdin(cli: Cli, fake: Fake) -> None:
    cli.log_in(fake)
    done = await cli("chat", "--json", stdin="two\nlines")
    assert fake.requests[0].input == "two\nlines"
    assert [line["sequence"] for line in done.lines] == ["1", "2", "3", "4", "5"]
    assert done.lines[-1]["run_completed"]["message_id"] == "msg_1"


@pytest.mark.parametrize("how", ["ends", "breaks"])
async def test_a_stream_cut_in_the_middle_goes_on_where_it_broke(
    cli: Cli, fake: Fake, how: str
) -> None:
    cli.log_in(fake)
    fake.before = at("Process", 3, fake.drop if how == "breaks" else lambda: None)
    done = await cli("chat", "hi")
    assert (done.status, done.out) == (0, "Hello.\n"), done.err
    assert fake.calls == ["Process", "WatchRun"]
    assert fake.requests[1].after_sequence == 2
    assert "[The connection was lost; trying again for up to 60 s" in done.err
    assert "[Connected again.]" in done.err


async def test_a_stream_cut_twice_goes_on_twice(cli: Cli, fake: Fake) -> None:
    cli.log_in(fake)
    first, second = at("Process", 3, fake.drop), at("WatchRun", 4, fake.drop)

    async def both(*event: Any) -> bool:
        return bool(await first(*event) or await second(*event))

    fake.before = both
    done = await cli("chat", "hi")
    assert (done.status, done.out) == (0, "Hello.\n"), done.err
    assert fake.calls == ["Process", "WatchRun", "WatchRun"]


async def test_a_connection_lost_before_the_first_event_asks_again(cli: Cli, fake: Fake) -> None:
    cli.log_in(fake)
    fake.before = at("Process", 1, fake.drop)
    done = await cli("chat", "hi")
    assert (done.status, done.out) == (0, "Hello.\n"), done.err
    assert fake.calls == ["Process", "Process"]
    keys = {request.idempotency_key for request in fake.requests}
    assert len(keys) == 1


async def test_an_event_that_comes_twice_is_shown_once(
    cli: Cli, fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.log_in(fake)
    fake.run = [event for event in fake.run for _ in range(2)]
    async with connect(cli.address, cli.settings) as client:
        turn = await chat.ask(client, "hi")
    assert (turn.outcome, turn.session_id) == (chat.Outcome.COMPLETED, "ses_1")
    assert capsys.readouterr().out == "Hello.\n"


async def test_an_outage_without_end_is_given_up(
    cli: Cli, fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.log_in(fake)
    fake.before = lambda _, __, event: event.sequence == 3
    async with connect(cli.address, cli.settings) as client:
        with pytest.raises(Failure) as told:
            await chat.ask(client, "hi", patience=0.5)
    assert "did not come back" in told.value.message
    assert '"run_id": "run_1", "after_sequence": 2' in told.value.more[0]
    assert capsys.readouterr().out == "Hel\n"


async def test_nobody_there_is_given_up(bare: Cli, fake: Fake) -> None:
    bare.log_in(fake)
    async with connect(bare.address, bare.settings) as client:
        with pytest.raises(Failure, match="Start it with `plexus up`"):
            async with asyncio.timeout(5):
                from services.cli import client as module

                with module.failures(bare.url):
                    await chat.ask(client, "hi", patience=0.5)


async def test_a_run_that_fails_says_why(cli: Cli, fake: Fake) -> None:
    cli.log_in(fake)
    failed = run_pb2.RunFailed(
        reason=ErrorReason.ERROR_REASON_MODEL_UNAVAILABLE, message="The model is away."
    )
    fake.run = script("Hel", run_failed=failed)
    done = await cli("chat", "hi")
    assert (done.status, done.out) == (1, "Hel\n")
    assert "Error: The model is away. (MODEL_UNAVAILABLE)\n" in done.err


async def test_a_run_that_another_cancels_says_who(cli: Cli, fake: Fake) -> None:
    cli.log_in(fake)
    fake.run = script(run_cancelled=run_pb2.RunCancelled(cancelled_by="usr_2"))
    done = await cli("chat", "hi")
    assert (done.status, "cancelled by usr_2" in done.err) == (1, True)


async def test_an_event_of_a_later_version_is_passed_over(cli: Cli, fake: Fake) -> None:
    cli.log_in(fake)
    fake.run[2].ClearField("text_delta")
    done = await cli("chat", "hi")
    assert (done.status, done.out) == (0, "Hel.\n")


def hold(fake: Fake) -> asyncio.Event:
    """Let the run stop before its third event until it is cancelled."""
    reached = asyncio.Event()

    async def before(_: str, __: int, event: run_pb2.RunEvent) -> bool:
        if event.sequence == 3:
            reached.set()
            await fake.cancelled.wait()
            fake.run[2].run_cancelled.cancelled_by = "usr_1"
        return False

    fake.before = before
    return reached


async def test_ctrl_c_cancels_the_run(cli: Cli, fake: Fake) -> None:
    cli.log_in(fake)
    reached = hold(fake)
    process = await cli.start("chat", "hi")
    await asyncio.wait_for(reached.wait(), 10)
    assert process.stdout is not None
    assert await process.stdout.readexactly(3) == b"Hel"
    process.send_signal(signal.SIGINT)
    out, err = await asyncio.wait_for(process.communicate(), 10)
    assert fake.calls == ["Process", "CancelRun"]
    assert fake.requests[1].run_id == "run_1"
    assert (process.returncode, out) == (130, b"\n")
    assert b"Traceback" not in err


async def test_a_second_ctrl_c_waits_for_nothing(cli: Cli, fake: Fake) -> None:
    cli.log_in(fake)
    reached = hold(fake)
    fake.cancelled.set = lambda: None  # type: ignore[method-assign]
    process = await cli.start("chat", "hi")
    await asyncio.wait_for(reached.wait(), 10)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    while b"Cancelling" not in await process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    await asyncio.wait_for(process.wait(), 2)
    assert process.returncode == 130


async def read_until(terminal: int, text: bytes) -> bytes:
    """What a terminal shows until a text has come."""
    shown = b""
    os.set_blocking(terminal, False)
    end = asyncio.get_running_loop().time() + 10
    while text not in shown:
        assert asyncio.get_running_loop().time() < end, shown
        with contextlib.suppress(BlockingIOError):
            shown += os.read(terminal, 4096)
        await asyncio.sleep(0.02)
    return shown


async def test_on_a_terminal_it_goes_on_asking(cli: Cli, fake: Fake) -> None:
    cli.log_in(fake)
    fake.run = script("red \x1b[31mtext\x07")
    ours, theirs = pty.openpty()
    process = await cli.start("chat", stdin=theirs, stdout=theirs)
    os.close(theirs)
    try:
        await read_until(ours, b"> ")
        os.write(ours, b"one\n")
        shown = await read_until(ours, b"\n> ")
        assert b"red [31mtext" in shown  # a model does not drive the terminal
        hold(fake)
        os.write(ours, b"two\n")
        await read_until(ours, b"red")
        process.send_signal(signal.SIGINT)
        await read_until(ours, b"> ")
        assert fake.calls == ["Process", "Process", "CancelRun"]
        assert [each.session_id for each in fake.requests[:2]] == ["", "ses_1"]
        os.write(ours, b"\x04")
        _, err = await asyncio.wait_for(process.communicate(), 10)
        assert (process.returncode, b"Session ses_1." in err) == (0, True)
    finally:
        os.close(ours)
        with contextlib.suppress(ProcessLookupError):
            process.kill()


async def test_ctrl_c_ends_the_wait_for_nobody(bare: Cli) -> None:
    bare.environment["PLEXUS_TOKEN"] = "key"
    process = await bare.start("chat", "hi")
    assert process.stderr is not None
    assert b"does not answer" in await asyncio.wait_for(process.stderr.readline(), 10)
    process.send_signal(signal.SIGINT)
    await asyncio.wait_for(process.wait(), 2)
    assert process.returncode == 130
