"""Logging in, staying logged in and logging out."""

from __future__ import annotations

import asyncio
import stat

import pytest

from tests.services.cli.conftest import Cli
from tests.services.cli.fake import EMAIL, PASSWORD, Fake


async def test_a_login_is_kept_where_nobody_else_can_read_it(cli: Cli, fake: Fake) -> None:
    done = await cli("login", "--email", EMAIL, "--password-stdin", stdin=f"{PASSWORD}\n")
    assert done.status == 0, done.err
    assert done.out == f"Logged in at {cli.url} as Ann <{EMAIL}>.\n"
    assert stat.S_IMODE(cli.credentials.stat().st_mode) == 0o600
    assert stat.S_IMODE(cli.credentials.parent.stat().st_mode) == 0o700
    assert cli.login()["access_token"] in fake.tokens
    assert PASSWORD not in cli.credentials.read_text()


async def test_a_login_replaces_no_other_installations(cli: Cli) -> None:
    await cli("login", "--email", EMAIL, "--password-stdin", stdin=PASSWORD)
    ours = cli.credentials.read_text()
    done = await cli("logout", "--url", "http://elsewhere.example")
    assert done.out == "You were not logged in at http://elsewhere.example:80.\n"
    assert cli.credentials.read_text() == ours


async def test_registering_makes_the_account_first(cli: Cli, fake: Fake) -> None:
    arguments = ("login", "--register", "--email", "bob@example.com", "--password-stdin")
    done = await cli(*arguments, stdin="battery staple")
    assert done.status == 0, done.err
    assert fake.calls[:2] == ["RegisterUser", "AuthenticateUser"]
    assert fake.requests[0].display_name == "bob"


async def test_a_violation_names_its_field(cli: Cli) -> None:
    arguments = ("login", "--register", "--email", "bob@example.com", "--password-stdin")
    done = await cli(*arguments, stdin="short")
    assert done.status == 1
    assert "Error: The request is not valid. (INVALID_REQUEST)" in done.err
    assert "  password: is too short" in done.err
    assert not cli.credentials.exists()


async def test_a_wrong_password_is_said_and_nothing_is_kept(cli: Cli) -> None:
    done = await cli("login", "--email", EMAIL, "--password-stdin", stdin="wrong")
    assert done.status == 1
    assert "They do not belong together. (BAD_CREDENTIALS)" in done.err
    assert "Traceback" not in done.err
    assert not cli.credentials.exists()


async def test_when_to_try_again_is_said(cli: Cli) -> None:
    done = await cli("login", "--email", EMAIL, "--password-stdin", stdin="too often")
    assert (done.status, "Try again in 30 s." in done.err) == (1, True)


@pytest.mark.parametrize("arguments", [(), ("--email", EMAIL), ("--display-name", "Ann")])
async def test_without_a_terminal_nothing_is_asked(bare: Cli, arguments: tuple[str, ...]) -> None:
    done = await bare("login", *arguments)
    assert done.status == 2
    assert "--" in done.err.splitlines()[-1]


async def test_a_logout_forgets(cli: Cli, fake: Fake) -> None:
    cli.log_in(fake)
    done = await cli("logout")
    assert (done.status, done.out) == (0, f"Logged out of {cli.url}.\n")
    done = await cli("call", "identity/GetProfile")
    assert done.status == 1
    assert "Run `plexus login`" in done.err


async def test_an_old_token_is_renewed_before_it_is_used(cli: Cli, fake: Fake) -> None:
    cli.log_in(fake, renew_time=0)
    done = await cli("call", "identity/GetProfile")
    assert done.status == 0, done.err
    assert fake.calls == ["RefreshToken", "GetProfile"]
    assert cli.login()["access_token"] == "access-2"
    assert cli.login()["renew_time"] > 0


async def test_a_refused_token_is_renewed_and_the_call_repeated(cli: Cli, fake: Fake) -> None:
    cli.log_in(fake)
    fake.expire()
    done = await cli("call", "identity/GetProfile")
    assert done.status == 0, done.err
    assert fake.calls == ["GetProfile", "RefreshToken", "GetProfile"]


async def test_a_stream_that_is_refused_is_repeated_too(cli: Cli, fake: Fake) -> None:
    cli.log_in(fake)
    fake.expire()
    done = await cli("chat", "hi")
    assert (done.status, done.out) == (0, "Hello.\n"), done.err
    assert fake.calls == ["Process", "RefreshToken", "Process"]


async def test_two_commands_at_once_spend_one_refresh_token(cli: Cli, fake: Fake) -> None:
    cli.log_in(fake)
    fake.expire()
    fake.refresh_delay = 0.5
    first, second = await asyncio.gather(
        cli("call", "identity/GetProfile"), cli("call", "identity/GetProfile")
    )
    assert (first.status, second.status) == (0, 0), first.err + second.err
    assert fake.calls.count("RefreshToken") == 1
    # Both had been refused, so both came to the same door.
    assert fake.calls.count("GetProfile") == 4


async def test_a_login_that_has_ended_is_forgotten(cli: Cli, fake: Fake) -> None:
    cli.log_in(fake, refresh_token="refresh-0", renew_time=0)
    done = await cli("call", "identity/GetProfile")
    assert done.status == 1
    assert f"Your login at {cli.url} has ended. Log in again with `plexus login`." in done.err
    assert cli.url not in cli.credentials.read_text()


async def test_a_token_of_the_environment_comes_first(cli: Cli, fake: Fake) -> None:
    cli.log_in(fake)
    fake.tokens.add("key")
    cli.environment["PLEXUS_TOKEN"] = "key"
    cli.credentials.write_text("not looked at")
    assert (await cli("call", "identity/GetProfile")).status == 0
    fake.expire()
    done = await cli("call", "identity/GetProfile")
    assert (done.status, "the token in PLEXUS_TOKEN" in done.err) == (1, True)
    assert "RefreshToken" not in fake.calls


@pytest.mark.parametrize("text", ["{", "[]", '{"URL": 1}', '{"URL": {"email": "x"}}'])
async def test_a_damaged_file_is_named(cli: Cli, fake: Fake, text: str) -> None:
    cli.log_in(fake)
    cli.credentials.write_text(text.replace("URL", cli.url))
    done = await cli("call", "identity/GetProfile")
    assert done.status == 1
    assert f"{cli.credentials} is damaged. Delete it" in done.err
