"""The parts of resilience, each alone and by a clock of the test's."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.resilience.breaker import Breaker, State
from services.runtime.resilience.bulkhead import Bulkhead, Full
from services.runtime.resilience.callee import allowance, had_full_time
from services.runtime.resilience.lag import AdaptiveLimit
from services.runtime.resilience.retries import RetryBudget, full_jitter
from services.runtime.resilience.shedding import Admission, Pool, Seat, Shed
from services.runtime.resilience.window import Window


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(
    st.lists(st.tuples(st.floats(0, 3), st.integers(0, 3), st.integers(0, 3)), max_size=60),
    st.floats(0, 20),
)
def test_a_window_counts_what_is_younger_than_it(
    events: list[tuple[float, int, int]], last: float
) -> None:
    clock = Clock()
    window = Window(10, clock=clock)
    counted = []
    for pause, good, bad in events:
        clock.now += pause
        window.add(good, bad)
        counted.append((int(clock.now), good, bad))
    clock.now += last
    window.forget()
    kept = [each for each in counted if each[0] > int(clock.now) - 10]
    assert window.good == sum(good for _, good, _ in kept)
    assert window.bad == sum(bad for _, _, bad in kept)


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        ticket = breaker.enter()
        assert ticket is not None
        breaker.leave(ticket, False)


def test_a_breaker_opens_by_rate_and_volume() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    fail(breaker, 19)
    assert breaker.state is State.CLOSED
    fail(breaker, 1)
    assert (breaker.state, breaker.opened) == (State.OPEN, 1)
    assert breaker.enter() is None
    assert 0 < breaker.blocked() <= 0.25
    # Three good calls for each bad one: below the rate.
    calm = Breaker(clock)
    for _ in range(50):
        for good in (True, True, True, False):
            ticket = calm.enter()
            assert ticket is not None
            calm.leave(ticket, good)
    assert calm.state is State.CLOSED


def test_old_failures_do_not_open_a_breaker() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    fail(breaker, 19)
    clock.now += 11
    fail(breaker, 19)
    assert breaker.state is State.CLOSED


def test_a_half_open_breaker_lets_one_probe_through() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    fail(breaker, 20)
    clock.now += 0.3
    assert breaker.state is State.HALF_OPEN
    probe = breaker.enter()
    assert probe is not None
    assert breaker.enter() is None
    breaker.leave(probe, False)
    assert breaker.enter() is None
    clock.now += 0.3
    assert breaker.enter() is None, "the second pause is longer"
    clock.now += 0.3
    probe = breaker.enter()
    assert probe is not None
    breaker.leave(probe, True)
    fail(breaker, 19)
    assert not breaker.blocked(), "it forgot what opened it"


def test_what_began_before_it_opened_does_not_close_a_breaker() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    early = breaker.enter()
    assert early is not None
    fail(breaker, 20)
    clock.now += 0.3
    probe = breaker.enter()
    assert probe is not None
    for good in (True, False, None):
        breaker.leave(early, good)
        assert breaker.state is State.HALF_OPEN
    breaker.leave(probe, True)
    assert not breaker.blocked()
    assert breaker.enter() == breaker.enter(), "closed: all pass alike"


def test_a_probe_that_is_lost_or_slow_makes_room_for_another() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    fail(breaker, 20)
    clock.now += 0.3
    lost = breaker.enter()
    assert lost is not None
    breaker.leave(lost, None)
    slow = breaker.enter()
    assert slow is not None
    assert breaker.enter() is None
    clock.now += 1.1
    assert breaker.enter() is not None
    breaker.leave(slow, True)
    assert breaker.state is State.CLOSED, "its answer counts, however late"


async def test_a_bulkhead_serves_in_order_and_bounds_its_queue() -> None:
    bulkhead = Bulkhead(1, 2, 1)
    assert bulkhead.enter()
    assert not bulkhead.enter()
    turns = [bulkhead.queue() for _ in range(2)]
    with pytest.raises(Full):
        bulkhead.queue()
    waiting = [asyncio.create_task(bulkhead.wait(turn, 10)) for turn in turns]
    await asyncio.sleep(0)
    bulkhead.leave()
    await waiting[0]
    assert not waiting[1].done()
    bulkhead.leave()
    await waiting[1]
    bulkhead.leave()
    assert (bulkhead.used, bulkhead.waiting) == (0, 0)


async def test_nobody_waits_longer_than_a_bulkhead_allows() -> None:
    bulkhead = Bulkhead(1, 5, 0.02)
    assert bulkhead.enter()
    with pytest.raises(Full):
        await bulkhead.wait(bulkhead.queue(), 10)
    with pytest.raises(Full):
        await bulkhead.wait(bulkhead.queue(), 0.0)
    bulkhead.leave()
    assert (bulkhead.used, bulkhead.waiting) == (0, 0)


@given(
    st.lists(
        st.sampled_from(["come", "leave", "cancel", "leave and cancel", "cancel and leave", "run"]),
        max_size=60,
    )
)
def test_places_are_never_lost(steps: list[str]) -> None:
    asyncio.run(_places_are_never_lost(steps))


class Crowd:
    """Comes and goes, and counts who is inside."""

    def __init__(self) -> None:
        self.bulkhead = Bulkhead(3, 5, 60)
        self.inside = 0
        self.tasks: list[asyncio.Task[None]] = []

    async def _enter(self) -> None:
        if not self.bulkhead.enter():
            try:
                await self.bulkhead.wait(self.bulkhead.queue(), 60)
            except Full:
                return
        self.inside += 1

    def come(self) -> None:
        self.tasks.append(asyncio.create_task(self._enter()))

    def leave(self) -> None:
        if self.inside:
            self.inside -= 1
            self.bulkhead.leave()

    def cancel(self) -> None:
        for task in self.tasks:
            if not task.done() and not task.cancelling():
                task.cancel()
                return


async def _places_are_never_lost(steps: list[str]) -> None:
    crowd = Crowd()
    for step in steps:
        for part in step.split(" and "):
            if part == "run":
                await asyncio.sleep(0)
            else:
                getattr(crowd, part)()
        assert crowd.bulkhead.used <= 3
    for task in crowd.tasks:
        await asyncio.sleep(0)
        crowd.leave()
        task.cancel()
    await asyncio.gather(*crowd.tasks, return_exceptions=True)
    while crowd.inside:
        crowd.leave()
    assert (crowd.bulkhead.used, crowd.bulkhead.waiting) == (0, 0)


def test_full_jitter_has_the_whole_range_and_a_bound() -> None:
    for tries, bound in ((1, 0.1), (2, 0.2), (3, 0.4), (9, 1.0)):
        delays = [full_jitter(tries) for _ in range(2000)]
        assert 0 <= min(delays) < bound * 0.05
        assert bound * 0.95 < max(delays) <= bound


def test_a_retry_budget_is_a_fifth_of_the_calls_and_a_floor() -> None:
    clock = Clock()
    budget = RetryBudget(clock)
    assert sum(budget.take() for _ in range(100)) == 20, "two a second of ten"
    clock.now += 11
    for _ in range(1000):
        budget.spent()
    assert sum(budget.take() for _ in range(1000)) == 220
    clock.now += 11
    assert sum(budget.take() for _ in range(100)) == 20, "nothing is saved up"


@given(st.floats(0.02, 3600))
def test_a_caller_keeps_a_little_of_its_time(remaining: float) -> None:
    given_on = allowance(remaining)
    assert 0.01 - 1e-9 <= remaining - given_on <= 0.25 + 1e-9
    assert given_on >= remaining * 0.49


def test_a_callee_had_its_time_or_not() -> None:
    assert had_full_time(None, 5)
    assert had_full_time(4.6, 5)
    assert not had_full_time(3, 5)


def test_a_limit_falls_while_a_queue_stands_and_rises_again() -> None:
    limit = AdaptiveLimit(1000)
    for _ in range(4):
        limit.observe(0.2, 400)
    assert limit.value == 1000, "a burst is no queue"
    limit.observe(0.0, 400)
    for _ in range(6):
        limit.observe(0.2, 400)
    assert limit.value == pytest.approx(800 * 0.9 * 0.9)
    for _ in range(200):
        limit.observe(0.2, 400)
    assert limit.value == 62.5, "some are always served"
    for _ in range(60):
        limit.observe(0.01, 400)
    assert limit.value == 1000
    for _ in range(60):
        limit.observe(5, 0)
    assert limit.value == 1000, "nobody is there whom it could come from"


def seats(admission: Admission, tenant: str, count: int) -> list[Seat]:
    taken = []
    for _ in range(count):
        try:
            seat = admission.enter(streaming=False, mesh=False)
        except Shed:
            continue
        try:
            seat.claim(tenant)
        except Shed:
            seat.leave()
            continue
        taken.append(seat)
    return taken


def test_one_tenant_alone_leaves_room_for_another() -> None:
    admission = Admission(max_calls=100)
    noisy = seats(admission, "noisy", 500)
    assert len(noisy) == 50
    assert len(seats(admission, "quiet", 20)) == 20
    assert len(seats(admission, "other", 500)) == 25, "a quarter: three and one who may come"
    for seat in noisy:
        seat.leave()
    assert len(seats(admission, "quiet", 5)) == 5


def test_the_mesh_is_served_when_nobody_else_is() -> None:
    admission = Admission(max_calls=20)
    for number in range(20):
        assert len(seats(admission, f"ten_{number}", 1)) == 1
    with pytest.raises(Shed) as refusal:
        admission.enter(streaming=False, mesh=False)
    assert refusal.value.metadata == {"limit": "calls"}
    assert 1 <= (refusal.value.retry_after or 0) <= 4
    for _ in range(20):
        admission.enter(streaming=False, mesh=True)
    with pytest.raises(Shed):
        admission.enter(streaming=False, mesh=True)
    admission.enter(streaming=True, mesh=False)


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=200))
def test_seats_are_never_lost(steps: list[tuple[str, bool]]) -> None:
    admission = Admission(max_calls=12)
    taken: list[Seat] = []
    for tenant, come in steps:
        if come:
            taken += seats(admission, tenant, 1)
        elif taken:
            taken.pop(0).leave()
        pool: Pool = admission.calls
        assert pool.used == sum(pool.tenants.values()) == len(taken)
    for seat in taken:
        seat.leave()
    assert (admission.calls.used, admission.calls.tenants) == (0, {})
