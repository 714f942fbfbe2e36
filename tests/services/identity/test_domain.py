"""The rules, without anything around them."""

from __future__ import annotations

import pytest

from services.identity.domain import (
    DAY,
    MAX_API_KEY_LIFE,
    SECOND,
    LoginFailures,
    SigningKey,
    StaleEtag,
    TooManyAttempts,
    User,
    api_key_expiry,
    api_key_roles,
    backoff_seconds,
    check_backoff,
    next_key_signs_from,
    normalise_email,
    normalise_password,
    published_keys,
    signing_key_at,
    update_is_done,
)
from services.runtime.errors import InvalidRequest, PermissionDenied

VIEWER, MEMBER, ADMIN, OWNER = range(1, 5)
NOW = 1_000 * DAY
USER = User("usr_1", "ten_1", "a@b.org", "Ada", frozenset({OWNER}), NOW, version=3)


def key(generation: int, sign_from: int, until: int = 0, *, able: bool = True) -> SigningKey:
    return SigningKey(f"kid_{generation}", generation, "", b"x" * able, sign_from, until)


@pytest.mark.parametrize("email", [" A@B.ORG ", "a@b.org", "A@b.Org\n"])
def test_an_email_has_one_form(email: str) -> None:
    assert normalise_email(email) == "a@b.org"


def test_a_password_is_the_same_from_every_keyboard() -> None:
    assert normalise_password("cafe\u0301") == normalise_password("caf\u00e9")
    assert normalise_password("Secret ") != normalise_password("secret")


@pytest.mark.parametrize(
    ("failures", "seconds"),
    [(0, 0), (4, 0), (5, 1), (6, 2), (7, 4), (14, 512), (15, 900), (16, 900), (10**9, 900)],
)
def test_waiting_doubles_from_the_fifth_failure_to_a_quarter_of_an_hour(
    failures: int, seconds: int
) -> None:
    assert backoff_seconds(failures) == seconds


def test_a_wait_is_never_told_shorter_than_it_is() -> None:
    with pytest.raises(TooManyAttempts) as raised:
        check_backoff(LoginFailures(6, NOW, NOW + SECOND + 1), NOW)
    assert raised.value.retry_after == 2
    check_backoff(LoginFailures(6, NOW, NOW), NOW)
    check_backoff(None, NOW)


def test_an_api_key_lives_for_a_year_unless_told_otherwise() -> None:
    assert api_key_expiry(None, NOW) == NOW + 365 * DAY
    assert api_key_expiry(NOW + 90 * SECOND + 5, NOW) == NOW + 90 * SECOND


@pytest.mark.parametrize("asked", [NOW, NOW - 1, NOW + MAX_API_KEY_LIFE + 1])
def test_an_api_key_cannot_live_in_the_past_or_too_long(asked: int) -> None:
    with pytest.raises(InvalidRequest) as raised:
        api_key_expiry(asked, NOW)
    assert [each.field for each in raised.value.violations] == ["expire_time"]


def test_an_api_key_has_what_was_asked_for_up_to_the_callers_own() -> None:
    assert api_key_roles(frozenset(), frozenset({ADMIN})) == {ADMIN}
    assert api_key_roles(frozenset({VIEWER, ADMIN}), frozenset({ADMIN})) == {VIEWER, ADMIN}
    with pytest.raises(PermissionDenied):
        api_key_roles(frozenset({VIEWER, OWNER}), frozenset({ADMIN}))


@pytest.mark.parametrize(
    ("display_name", "etag", "done"),
    [
        ("Grace", "", False),
        ("Grace", "3", False),
        ("Ada", "", True),
        ("Ada", "3", True),
        # The reply to the first of two equal updates was lost.
        ("Ada", "2", True),
        (None, "", True),
        (None, "3", True),
    ],
)
def test_an_update_of_what_was_read_is_taken(
    display_name: str | None, etag: str, done: bool
) -> None:
    assert update_is_done(USER, display_name, etag) is done


@pytest.mark.parametrize(
    ("display_name", "etag"), [("Grace", "2"), ("Ada", "1"), (None, "2"), ("Grace", "nonsense")]
)
def test_an_update_of_something_older_is_not(display_name: str | None, etag: str) -> None:
    with pytest.raises(StaleEtag):
        update_is_done(USER, display_name, etag)


def test_the_first_key_signs_at_once() -> None:
    assert next_key_signs_from([], NOW, 30 * DAY, DAY) == NOW


def test_the_next_key_is_made_before_it_signs() -> None:
    keys = [key(1, NOW)]
    due = NOW + 30 * DAY
    assert next_key_signs_from(keys, due - DAY - 1, 30 * DAY, DAY) is None
    assert next_key_signs_from(keys, due - DAY, 30 * DAY, DAY) == due
    assert next_key_signs_from([*keys, key(2, due)], due - DAY, 30 * DAY, DAY) is None


def test_after_a_long_stop_a_key_is_still_published_before_it_signs() -> None:
    late = NOW + 90 * DAY
    assert next_key_signs_from([key(1, NOW)], late, 30 * DAY, DAY) == late + DAY


def test_a_key_signs_until_the_next_ones_time() -> None:
    keys = [key(1, NOW), key(2, NOW + 10)]
    assert [signing_key_at(keys, NOW + at) for at in (0, 9, 10, 11)] == [
        *(keys[0], keys[0]),
        *(keys[1], keys[1]),
    ]
    assert signing_key_at([], NOW) is None


def test_a_clock_that_was_set_back_does_not_stop_signing() -> None:
    keys = [key(1, NOW, able=False), key(2, NOW + 10)]
    assert signing_key_at(keys, NOW - DAY) == keys[1]


def test_a_key_is_published_from_before_its_first_token_to_its_last() -> None:
    old, gone = key(2, NOW - 20, NOW + 5, able=False), key(1, NOW - 30, NOW, able=False)
    current, coming = key(3, NOW - 10), key(4, NOW + 10)
    assert published_keys([gone, old, current, coming], NOW) == [old, current, coming]
    assert published_keys([gone, old, current, coming], NOW + 5) == [current, coming]
