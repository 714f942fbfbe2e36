"""What a generation is, what a provider promises, and the errors of both."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol, TypeAlias

from services.llm.domain.routing import Capability, Passed, Policy, Price
from services.runtime.errors import (
    Aborted,
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    PlexusError,
    ResourceExhausted,
    Unavailable,
)

_BYTES_PER_TOKEN = 4
_TOKENS_PER_MESSAGE = 4
# What a tile of a picture costs at most providers, about.
_TOKENS_PER_IMAGE = 800


class Role(Enum):
    """Who a message comes from; the values are OpenAI's names."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    DEVELOPER = "developer"
    TOOL = "tool"


class Origin(Enum):
    """Where the words of a message come from; the values are the contract's numbers."""

    UNSPECIFIED = 0
    SYSTEM = 1
    DEVELOPER = 2
    USER = 3
    MODEL = 4
    TOOL = 5
    RETRIEVED = 6


class FinishReason(Enum):
    """Why a model stopped."""

    STOP = "stop"
    LENGTH = "length"
    CONTENT_FILTER = "content_filter"
    TOOL_CALLS = "tool_calls"


class Classifier(Enum):
    """Who found out what a request is about; the values are the contract's numbers."""

    NOBODY = 0
    RULES = 1
    TRAINED = 2


@dataclass(frozen=True, slots=True)
class Model:
    """A model that can be called, by its full name: the provider, a slash, the model.

    Attributes:
        context_window: Tokens that its request and answer share.
        max_output_tokens: The longest answer; 0 is whatever the window leaves.
        quality: 0 to 1; 0 is not known.
    """

    name: str
    provider: str
    context_window: int
    max_output_tokens: int = 0
    price: Price = Price()
    capabilities: frozenset[Capability] = frozenset()
    quality: float = 0.0


@dataclass(frozen=True, slots=True)
class Image:
    """An image: its bytes and their type, or where it is."""

    data: bytes = b""
    media_type: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model's call of a function; the arguments are as the model wrote them."""

    tool_call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that a model may call; `parameters` is a JSON schema."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """`auto`, `required` or `none`; or the one function that is to be called."""

    mode: str = "auto"
    name: str = ""


@dataclass(frozen=True, slots=True)
class AnswerFormat:
    """What an answer must be: a JSON object, and one that fits the schema where there is one."""

    name: str = ""
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: Role
    text: str
    origin: Origin = Origin.UNSPECIFIED
    images: tuple[Image, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is asked.

    Attributes:
        messages: The conversation, oldest first; the last is what to answer. At least one.
        max_output_tokens: Where to cut the answer; None leaves it to the provider.
        temperature: How freely to choose words; None leaves it to the provider.
        top_p: Of the likeliest words, those that together have this probability.
        stop: Where the answer ends, before the first of these.
        tools: What the model may call.
        answer_format: None is text.
        due: When the answer must have ended, in the event loop's time; None where nobody waits.
    """

    messages: Sequence[Message]
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    answer_format: AnswerFormat | None = None
    due: float | None = None

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What a model must be able to do for it."""
        needs = {
            Capability.TOOLS: bool(self.tools),
            Capability.VISION: any(each.images for each in self.messages),
        }
        return frozenset(each for each, needed in needs.items() if needed)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of the request and of the answer; the cost in millionths of a US dollar."""

    input_tokens: int
    output_tokens: int
    estimated: bool
    cost: int = 0

    def plus(self, other: Usage) -> Usage:
        """Both together."""
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.estimated or other.estimated,
            self.cost + other.cost,
        )


@dataclass(frozen=True, slots=True)
class Started:
    """A model answers; by its full name, and how it was found."""

    model: str
    generation_id: str = ""
    route: str = ""
    policy: Policy | None = None
    passed: tuple[Passed, ...] = ()
    task_class: str = ""
    classifier: Classifier = Classifier.NOBODY
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Delta:
    """More of the answer; never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolDelta:
    """More of the call of a function: its name and id come with the first piece alone."""

    index: int
    tool_call_id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Switched:
    """Another model goes on with the answer."""

    model: str
    passed: Passed


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


Piece: TypeAlias = Delta | ToolDelta | Finished
Event: TypeAlias = Started | Delta | ToolDelta | Switched | Finished | Failed


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors, one for each text; `usage` is None where the provider did not count."""

    vectors: Sequence[Sequence[float]]
    usage: Usage | None


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether a text is flagged, and how surely it is of each category, 0 to 1."""

    flagged: bool
    scores: Mapping[str, float]


class Backend(Protocol):
    """Somebody who serves models."""

    def answer(
        self, model: str, prompt: Prompt
    ) -> AbstractAsyncContextManager[AsyncIterator[Piece]]:
        """Answer a prompt by a model, under its name at the provider.

        Entering the context is the provider's acceptance: whatever it raises until then, it did
        not accept. The iterator then yields deltas and one Finished, last; it raises a PlexusError
        when the answer ends early. Leaving the context, at any time, ends the provider's work.
        """
        ...

    async def embed(
        self, model: str, texts: Sequence[str], dimensions: int | None, due: float | None
    ) -> Embedded:
        """Turn texts into vectors; raises a PlexusError where it cannot."""
        ...

    async def moderate(
        self, model: str, texts: Sequence[str], due: float | None
    ) -> Sequence[Judgement]:
        """Judge texts by categories of harm; raises a PlexusError where it cannot."""
        ...

    async def close(self) -> None:
        """Close what is open to it."""
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
    return sum(map(_tokens_of, messages))


def _tokens_of(message: Message) -> int:
    called = sum(estimate_tokens(each.name + each.arguments) for each in message.tool_calls)
    images = len(message.images) * _TOKENS_PER_IMAGE
    return estimate_tokens(message.text) + called + images + _TOKENS_PER_MESSAGE


def estimate_request(prompt: Prompt) -> int:
    """The tokens of everything that a model is given, estimated."""
    tools = sum(
        estimate_tokens(f"{each.name}{each.description}{each.parameters}") for each in prompt.tools
    )
    wanted = prompt.answer_format.schema if prompt.answer_format else None
    return estimate_input(prompt.messages) + tools + (estimate_tokens(str(wanted)) if wanted else 0)


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


class ModelUnavailable(Unavailable):
    """A model's server refused, failed or could not be reached.

    Attributes:
        lasting: Whether the same request will hardly fare better a moment later.
    """

    default_reason = "MODEL_UNAVAILABLE"
    lasting = False


def model_unavailable(
    message: str, retry_after: float | None = None, *, lasting: bool = False
) -> ModelUnavailable:
    """The error for a model's server that refused, failed or could not be reached."""
    error = ModelUnavailable(message, retry_after=retry_after)
    error.lasting = lasting
    return error


def limit_reached(message: str, limit: str, retry_after: float | None = None) -> ResourceExhausted:
    """The error for a bound that was reached."""
    return ResourceExhausted(message, metadata={"limit": limit}, retry_after=retry_after)


def format_broken(message: str) -> FailedPrecondition:
    """The error for an answer that did not fit its format, twice."""
    return FailedPrecondition(message, reason="MODEL_BROKE_FORMAT")


def in_progress() -> Aborted:
    """The error for a repeat of what has not ended."""
    return Aborted(
        "The first call with this idempotency_key has not ended. Try again.",
        reason="IN_PROGRESS",
        retry_after=1,
    )
