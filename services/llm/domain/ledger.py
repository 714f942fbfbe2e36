"""What a call took: reserved before it, entered after it. Costs are millionths of a US dollar."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from services.llm.domain.configuration import Budget, Spent, Subject, reset_time
from services.llm.domain.routing import MICROS, Price
from services.runtime.errors import ResourceExhausted


class State(IntEnum):
    """Where a call stands."""

    UNDER_WAY = 1
    FINISHED = 2
    FAILED = 3
    CANCELLED = 4
    # Its process ended without a word.
    LOST = 5


@dataclass(frozen=True, slots=True)
class Key:
    """The idempotency key of a call, and what makes two requests the same."""

    idempotency_key: str
    digest: str
    expire_time: int


@dataclass(frozen=True, slots=True)
class NewCall:
    """A call that is about to be made.

    Attributes:
        price: Of the dearest of the models that may answer.
        most_answer: The longest answer it can get, in tokens.
        least_answer: The shortest bound on its answer that it can do with.
    """

    call_id: str
    tenant_id: str
    user_id: str
    agent_id: str
    owner: str
    model: str
    day: str
    start_time: int
    input_tokens: int
    price: Price
    most_answer: int
    least_answer: int
    key: Key | None = None

    @property
    def subjects(self) -> tuple[tuple[str, Subject, str], ...]:
        """Whose budgets it counts for."""
        return subjects_of(self.tenant_id, self.user_id, self.agent_id)


@dataclass(frozen=True, slots=True)
class Opened:
    """A call that may be made; its answer has at most so many tokens where a budget bounds it."""

    most_answer: int | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """The answer to an earlier call under the same key, sealed."""

    call_id: str
    sealed_answer: bytes


@dataclass(frozen=True, slots=True)
class EndedCall:
    """A call that ended.

    Attributes:
        keyed: Whether it may have an idempotency key.
        sealed_answer: What repeats of its key get; empty for none.
    """

    call_id: str
    tenant_id: str
    state: State
    model: str
    input_tokens: int
    output_tokens: int
    cost: int
    estimated: bool
    end_time: int
    keyed: bool
    sealed_answer: bytes = b""


def subjects_of(
    tenant_id: str, user_id: str, agent_id: str
) -> tuple[tuple[str, Subject, str], ...]:
    """Whose budgets and sums a call counts for."""
    named = ((Subject.TENANT, ""), (Subject.USER, user_id), (Subject.AGENT, agent_id))
    return tuple(
        (tenant_id, subject, of) for subject, of in named if of or subject is Subject.TENANT
    )


def grant(call: NewCall, held: Iterable[tuple[Budget, Spent]]) -> int:
    """The longest answer that the budgets let a call have, in tokens.

    Raises:
        ResourceExhausted: BUDGET_SPENT: shorter than the call can do with.
    """
    answer = call.most_answer
    for budget, spent in held:
        left = answer
        if budget.max_tokens:
            left = budget.max_tokens - spent.tokens - call.input_tokens
        if budget.max_cost:
            left = min(left, _affordable(call, budget.max_cost - spent.cost))
        if left < call.least_answer:
            raise _spent(budget, call)
        answer = min(answer, left)
    return answer


def _affordable(call: NewCall, money: int) -> int:
    """The longest answer for the money, -1 where it does not even pay for the request."""
    left = money * MICROS - call.price.input * call.input_tokens
    if left < 0:
        return -1
    return left // call.price.output if call.price.output else call.most_answer


def _spent(budget: Budget, call: NewCall) -> ResourceExhausted:
    who = {Subject.TENANT: "tenant", Subject.USER: "user", Subject.AGENT: "agent"}[budget.subject]
    period = budget.period.name.lower()
    reset = reset_time(budget.period, call.day)
    return ResourceExhausted(
        f"The call could pass the {who}'s budget for the {period}. Ask for a shorter answer, or "
        "have an admin raise the budget.",
        reason="BUDGET_SPENT",
        metadata={"budget_id": budget.budget_id},
        retry_after=max(1, (reset - call.start_time) / MICROS),
    )
