"""What a generation is, what a provider promises, and the errors of both."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeAlias

from services.runtime.errors import (
    InvalidRequest,
    NotFound,
    PlexusError,
    ResourceExhausted,
    Unavailable,
)

_BYTES_PER_TOKEN = 4
_TOKENS_PER_MESSAGE = 4


class Role(Enum):
    """Who a message comes from; the values are OpenAI's names."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


class FinishReason(Enum):
    """Why a model stopped."""

    STOP = "stop"
    LENGTH = "length"
    CONTENT_FILTER = "content_filter"


@dataclass(frozen=True, slots=True)
class Model:
    """A model that can be called, by its full name: the provider, a slash, the model."""

    name: str
    provider: str
    context_window: int


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is asked.

    Attributes:
        messages: The conversation, oldest first; the last is what to answer. At least one.
        max_output_tokens: Where to cut the answer; None leaves it to the provider.
        temperature: How freely to choose words; None leaves it to the provider.
        due: When the answer must have ended, in the event loop's time; None where nobody waits.
    """

    messages: Sequence[Message]
    max_output_tokens: int | None = None
    temperature: float | None = None
    due: float | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of the request and of the answer."""

    input_tokens: int
    output_tokens: int
    estimated: bool


@dataclass(frozen=True, slots=True)
class Started:
    """The provider accepted the request; `model` is the full name."""

    model: str


@dataclass(frozen=True, slots=True)
class Delta:
    """More of the answer; never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The answer ended; `usage` is None where the provider did not count."""

    reason: FinishReason
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The answer ended early."""

    error: PlexusError
    usage: Usage


Piece: TypeAlias = Delta | Finished
Event: TypeAlias = Started | Delta | Finished | Failed


class Provider(Protocol):
    """Somebody who serves models."""

    @property
    def models(self) -> Sequence[Model]:
        """What it serves; the first is its default."""
        ...

    def answer(
        self, model: Model, prompt: Prompt
    ) -> AbstractAsyncContextManager[AsyncIterator[Piece]]:
        """Answer a prompt.

        Entering the context is the provider's acceptance: whatever it raises until then, it did
        not accept. The iterator then yields deltas and one Finished, last; it raises a PlexusError
        when the answer ends early. Leaving the context, at any time, ends the provider's work.
        """
        ...


def estimate_tokens(text: str) -> int:
    """A cheap estimate of tokens: a quarter of the UTF-8 bytes, rounded up.

    English has about four letters to a token; scripts that need two or three bytes a letter have
    fewer letters to a token, so bytes err less than letters do.
    """
    return tokens_in(utf8_size(text))


def utf8_size(text: str) -> int:
    """The bytes of a text."""
    return len(text.encode("utf-8", "replace"))


def tokens_in(size: int) -> int:
    """The tokens that so many bytes are, by the same estimate."""
    return -(-size // _BYTES_PER_TOKEN)


def estimate_input(messages: Sequence[Message]) -> int:
    """The tokens of a conversation, estimated; each message costs a few for its role."""
    return sum(estimate_tokens(each.text) + _TOKENS_PER_MESSAGE for each in messages)


def cut_to_tokens(text: str, tokens: int | None) -> tuple[str, bool]:
    """The part of a text that `tokens` hold by the same estimate, and whether something was cut."""
    if tokens is None or estimate_tokens(text) <= tokens:
        return text, False
    kept = text.encode("utf-8", "replace")[: tokens * _BYTES_PER_TOKEN]
    return kept.decode("utf-8", "ignore"), True


def unknown_model(name: str) -> NotFound:
    """The error for a name that no provider serves."""
    return NotFound(
        f"No provider serves the model {name!r}. ListModels names those that can be called.",
        reason="UNKNOWN_MODEL",
        metadata={"model": name},
    )


def model_refused(message: str) -> InvalidRequest:
    """The error for a request that the model's server does not accept."""
    return InvalidRequest(message, reason="MODEL_REFUSED")


def model_unavailable(message: str, retry_after: float | None = None) -> Unavailable:
    """The error for a model's server that refused, failed or could not be reached."""
    return Unavailable(message, reason="MODEL_UNAVAILABLE", retry_after=retry_after)


def limit_reached(message: str, limit: str, retry_after: float | None = None) -> ResourceExhausted:
    """The error for a bound that was reached."""
    return ResourceExhausted(message, metadata={"limit": limit}, retry_after=retry_after)
