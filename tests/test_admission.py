"""Concurrency limits: slots, the queue before them, priorities, and the limit that finds itself."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.queueing import SECOND, Simulation, percentile

from fastgate._core import PRIORITY_NAMES, Admission, GradientLimit

MS = 1_000_000
START = 1000 * SECOND
CRITICAL, NORMAL, SHEDDABLE = range(3)


def full(limit: int = 1, **options: Any) -> Admission:
    """All slots are taken."""
    admission = Admission(limit=limit, **options)
    for _ in range(limit):
        assert admission.enter(NORMAL, START)
    return admission


def served(admission: Admission, now: int = START) -> list[Any]:
    """Who gets the slot, one after the other."""
    order = []
    while (who := admission.leave(MS, True, now)) is not None:
        order.append(who)
    return order


def test_as_many_as_there_are_slots() -> None:
    admission = Admission(limit=3)
    assert [admission.enter(NORMAL, START) for _ in range(5)] == [True, True, True, False, False]
    assert admission.leave(MS, True, START) is None
    assert admission.enter(NORMAL, START)
    assert not admission.enter(NORMAL, START)
    assert admission.active == 3


def test_no_limit() -> None:
    admission = Admission()
    assert all(admission.enter(SHEDDABLE, START) for _ in range(10_000))
    assert (admission.active, admission.limit) == (10_000, 0)


def test_more_leave_than_entered() -> None:
    admission = Admission(limit=1)
    admission.leave(MS, True, START)
    assert admission.active == 0
    assert admission.enter(NORMAL, START)
    assert not admission.enter(NORMAL, START)


@pytest.mark.parametrize(
    ("order", "expected"),
    [("oldest-first", "abc"), ("newest-first", "cba"), ("adaptive", "abc")],
)
def test_order(order: str, expected: str) -> None:
    admission = full(order=order)
    for who in "abc":
        assert admission.offer(who, NORMAL, START) is None
    assert served(admission) == list(expected)


def test_adaptive_order_and_patience_turn_when_the_queue_does_not_empty() -> None:
    admission = full(queue_timeout_ns=500 * MS)
    assert admission.wait_ns(NORMAL, START) == 500 * MS
    for i, who in enumerate("abcd"):
        admission.offer(who, NORMAL, START + 40 * MS * i)
    assert admission.leave(MS, True, START + 100 * MS) == "a"
    assert admission.wait_ns(NORMAL, START + 100 * MS) == 500 * MS
    assert admission.wait_ns(NORMAL, START + 100 * MS + 1) == 25 * MS
    assert admission.leave(MS, True, START + 100 * MS + 1) == "d"
    # It empties: what comes next is a burst again.
    assert admission.leave(MS, True, START + 101 * MS) == "c"
    assert admission.leave(MS, True, START + 101 * MS) == "b"
    assert admission.wait_ns(NORMAL, START + 102 * MS) == 500 * MS
    for who in "ef":
        admission.offer(who, NORMAL, START + 102 * MS)
    assert admission.leave(MS, True, START + 103 * MS) == "e"


def test_the_short_wait_has_a_least_and_is_never_the_longer_one() -> None:
    for timeout, short in [(500 * MS, 25 * MS), (50 * MS, 5 * MS), (2 * MS, 2 * MS), (0, 0)]:
        admission = full(queue_timeout_ns=timeout)
        admission.offer("a", NORMAL, START)
        assert admission.wait_ns(NORMAL, START + SECOND) == short
        # Another priority has its own queue.
        assert admission.wait_ns(CRITICAL, START + SECOND) == timeout
    fixed = full(order="newest-first", queue_timeout_ns=500 * MS)
    fixed.offer("a", NORMAL, START)
    assert fixed.wait_ns(NORMAL, START + SECOND) == 500 * MS


def test_critical_before_normal_before_sheddable() -> None:
    admission = full()
    for who, priority in [("s", SHEDDABLE), ("n", NORMAL), ("c", CRITICAL), ("n2", NORMAL), ("c2", CRITICAL)]:
        assert admission.offer(who, priority, START) is None
    assert served(admission) == ["c", "c2", "n", "n2", "s"]
    assert PRIORITY_NAMES == ("critical", "normal", "sheddable")


def test_sheddable_requests_leave_room_for_others() -> None:
    admission = Admission(limit=10, queue=10)
    assert sum(admission.enter(SHEDDABLE, START) for _ in range(20)) == 8
    assert [admission.enter(NORMAL, START), admission.enter(CRITICAL, START)] == [True, True]
    assert not admission.enter(CRITICAL, START)
    refused = [admission.offer(f"s{i}", SHEDDABLE, START) for i in range(10)]
    assert refused == [None] * 8 + ["s8", "s9"]
    # A slot is free, but it is one of those that sheddable requests may not have.
    assert admission.leave(MS, True, START) is None
    assert admission.enter(NORMAL, START)
    assert [admission.leave(MS, True, START) for _ in range(3)] == [None, None, "s0"]
    assert Admission(limit=1).enter(SHEDDABLE, START)


def test_nobody_overtakes_who_waits_with_its_priority_or_a_higher_one() -> None:
    admission = Admission(limit=10, order="oldest-first")
    for _ in range(9):
        admission.enter(NORMAL, START)
    admission.offer("n", NORMAL, START)  # although a slot is free: as if the limit had just grown
    assert not admission.enter(NORMAL, START)
    assert not admission.enter(SHEDDABLE, START)
    assert admission.next(START) == "n"
    assert admission.next(START) is None


def test_a_full_queue_sends_away_who_matters_less() -> None:
    admission = full(queue=5, order="oldest-first")
    for i, priority in enumerate([SHEDDABLE, SHEDDABLE, NORMAL, NORMAL, NORMAL]):
        assert admission.offer(f"{PRIORITY_NAMES[priority]}{i}", priority, START) is None
    # Of the lowest priority, the one that would be served last.
    assert admission.offer("n5", NORMAL, START) == "sheddable1"
    assert admission.offer("c6", CRITICAL, START) == "sheddable0"
    assert admission.offer("c7", CRITICAL, START) == "n5"
    assert admission.offer("s8", SHEDDABLE, START) == "s8"
    assert admission.offer("n9", NORMAL, START) == "n9"
    assert served(admission) == ["c6", "c7", "normal2", "normal3", "normal4"]
    assert (admission.queued, admission.refused, admission.evicted) == (8, 2, 3)


def test_newest_first_sends_away_the_oldest() -> None:
    admission = full(queue=3, order="newest-first")
    assert [admission.offer(who, NORMAL, START) for who in "abcde"] == [None, None, None, "a", "b"]
    assert served(admission) == ["e", "d", "c"]
    standing = full(queue=2)
    for who in "ab":
        standing.offer(who, NORMAL, START)
    assert standing.offer("c", NORMAL, START) == "c"
    assert standing.offer("d", NORMAL, START + 101 * MS) == "a"
    assert served(standing, START + 101 * MS) == ["d", "b"]


def test_no_queue() -> None:
    admission = full(queue=0)
    assert admission.offer("a", CRITICAL, START) == "a"
    assert admission.offer("a", SHEDDABLE, START) == "a"
    assert served(admission) == []


def test_who_withdraws_is_gone() -> None:
    admission = full(order="oldest-first")
    for who in "abc":
        admission.offer(who, NORMAL, START)
    assert [admission.withdraw(who) for who in "bbx"] == [1, 0, 0]
    assert admission.waiting == 2
    with pytest.raises(ValueError, match="waits already"):
        admission.offer("a", NORMAL, START)
    assert served(admission) == ["a", "c"]


def test_nothing_is_kept_of_those_who_left() -> None:
    class Who:
        pass

    admission = full(queue=2)
    waiters = [Who() for _ in range(3)]
    watched = [weakref.ref(who) for who in waiters]
    admission.offer(waiters[0], NORMAL, START)
    admission.offer(waiters[1], NORMAL, START)
    assert admission.offer(waiters[2], NORMAL, START) is waiters[2]
    admission.withdraw(waiters[1])
    assert admission.leave(MS, True, START) is waiters[0]
    waiters.clear()
    gc.collect()
    assert [ref() for ref in watched] == [None] * 3


class Model:
    """The same with plain lists: what a reader of the documentation would write."""

    def __init__(self, limit: int, queue: int, order: str) -> None:
        self.limit, self.queue, self.order = limit, queue, order
        self.active = 0
        self.lists: list[list[int]] = [[], [], []]
        self.since = [0, 0, 0]

    def share(self, whole: int, priority: int) -> int:
        return whole * 80 // 100 if priority == SHEDDABLE else whole

    def slots(self, priority: int) -> int:
        return max(1, self.share(self.limit, priority))

    def newest(self, priority: int, now: int) -> bool:
        standing = bool(self.lists[priority]) and now - self.since[priority] > 100 * MS
        return self.order == "newest-first" or (self.order == "adaptive" and standing)

    def enter(self, priority: int) -> bool:
        if any(self.lists[: priority + 1]) or self.active >= self.slots(priority):
            return False
        self.active += 1
        return True

    def offer(self, who: int, priority: int, now: int) -> int | None:
        out = None
        if sum(map(len, self.lists)) >= self.share(self.queue, priority):
            for lower in (SHEDDABLE, NORMAL):
                if lower > priority and self.lists[lower]:
                    out = self.lists[lower].pop(0 if self.newest(lower, now) else -1)
                    break
            else:
                if not self.lists[priority] or not self.newest(priority, now):
                    return who
                out = self.lists[priority].pop(0)
        if not self.lists[priority]:
            self.since[priority] = now
        self.lists[priority].append(who)
        return out

    def leave(self, now: int) -> int | None:
        self.active -= 1
        for priority, waiting in enumerate(self.lists):
            if waiting:
                if self.active >= self.slots(priority):
                    return None
                self.active += 1
                return waiting.pop(-1 if self.newest(priority, now) else 0)
        return None


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["arrive", "arrive", "arrive", "leave", "leave", "withdraw", "pass"]),
        st.integers(0, 300),
    ),
    max_size=150,
)


@given(
    st.integers(1, 12),
    st.integers(0, 12),
    st.sampled_from(["adaptive", "oldest-first", "newest-first"]),
    STEPS,
)
@settings(max_examples=300, deadline=None)
def test_it_does_what_the_model_does(
    limit: int, queue: int, order: str, steps: list[tuple[str, int]]
) -> None:
    admission, model = Admission(limit=limit, queue=queue, order=order), Model(limit, queue, order)
    now, fate, made = START, {}, 0
    for step, number in steps:
        if step == "arrive":
            made += 1
            priority = number % 3
            entered = admission.enter(priority, now)
            assert entered is model.enter(priority)
            fate[made] = "inside"
            if not entered:
                out = admission.offer(made, priority, now)
                assert out == model.offer(made, priority, now)
                fate[made] = "waits"
                if out is not None:
                    fate[out] = "sent away"
        elif step == "leave" and admission.active:
            got = admission.leave(MS, True, now)
            assert got == model.leave(now)
            if got is not None:
                assert fate[got] == "waits"
                fate[got] = "inside"
        elif step == "withdraw" and made:
            who = number % made + 1
            waits = fate[who] == "waits"
            assert admission.withdraw(who) == waits
            if waits:
                fate[who] = "gone"
                for waiting in model.lists:
                    if who in waiting:
                        waiting.remove(who)
        else:
            now += number * MS
        assert admission.active == model.active <= limit
        assert admission.waiting == sum(map(len, model.lists)) <= queue
        assert admission.waiting == sum(each == "waits" for each in fate.values())
    # Nobody is lost: when all leave, every one that waits is served.
    waited = {who for who, each in fate.items() if each == "waits"}
    while admission.active:
        waited.discard(admission.leave(MS, True, now))
    assert (waited, admission.waiting) == (set(), 0)


@given(
    st.lists(st.tuples(st.integers(0, 1 << 40), st.integers(0, 2000), st.integers(0, SECOND)), max_size=300)
)
@settings(max_examples=60, deadline=None)
def test_an_adaptive_limit_stays_within_its_bounds(samples: list[tuple[int, int, int]]) -> None:
    limit, now = GradientLimit(min_limit=3, max_limit=50), START
    for latency, active, step in samples:
        now += step
        assert 3 <= limit.observe(latency, active, now) <= 50


def test_a_baseline_is_not_made_of_those_who_were_quickest() -> None:
    limit, now = GradientLimit(max_limit=20), START
    for _ in range(30):
        now += 10 * MS
        limit.observe(100 * MS, 20, now)
    # At most half is under way now, and those end first that take little.
    for _ in range(100):
        limit.observe(MS, 5, now + 20 * MS)
    assert limit.baseline_ns == 0
    # Later those that end are as slow as they come, but these began when more was under way.
    for _ in range(100):
        limit.observe(600 * MS, 5, now + 500 * MS)
    assert limit.baseline_ns == 0
    for _ in range(100):
        limit.observe(100 * MS, 5, now + 10 * SECOND)
    assert limit.baseline_ns == 100 * MS


def test_failures_that_tell_nothing_are_no_samples() -> None:
    admission = Admission(adaptive=True)
    for i in range(1000):
        admission.enter(NORMAL, START + i * MS)
        admission.leave(1, False, START + i * MS)
    assert admission.gradient is not None
    assert admission.gradient.baseline_ns == 0
    assert admission.limit == 20


def test_where_an_adaptive_limit_begins() -> None:
    assert Admission(adaptive=True).limit == 20
    assert Admission(adaptive=True, limit=50).limit == 50
    assert Admission(adaptive=True, max_limit=10).limit == 10
    assert Admission(adaptive=True, min_limit=30).limit == 30


@pytest.mark.parametrize("spread", [False, True])
@pytest.mark.parametrize(("slots", "service_ms"), [(10, 5), (10, 100), (100, 20)])
def test_goodput_at_three_times_the_capacity(slots: int, service_ms: int, spread: bool) -> None:
    """The limit finds what the service takes: nearly all of the peak is served, and without a long wait."""
    service = service_ms * MS
    world = Simulation(Admission(adaptive=True), slots=slots, service_ns=service, load=0.6, spread=spread)
    seconds = 20_000 / world.peak
    world.run(1)  # it begins with 20, and has to find out that more is possible
    refused, calm = world.refused, world.run(seconds)
    assert world.refused - refused <= len(calm) / 200
    world.load = 3
    world.run(seconds / 4)
    accepted = world.run(seconds)
    assert len(accepted) / seconds >= 0.9 * world.peak
    # What the queue may add at most, and what the service takes; with a spread that has a tail of its own.
    assert percentile(accepted, 99) < 500 * MS + (9 if spread else 3) * service
    assert percentile(accepted, 50) < 25 * MS + 3 * service
    world.load = 0.6
    world.run(seconds / 4)
    refused, calm = world.refused, world.run(seconds / 2)
    assert world.refused - refused <= len(calm) / 100


def test_a_fixed_limit_bounds_latency_as_well() -> None:
    service = 20 * MS
    world = Simulation(Admission(limit=12), slots=10, service_ns=service, load=3, spread=True)
    world.run(1)
    accepted = world.run(20)
    assert len(accepted) / 20 >= 0.95 * world.peak
    assert percentile(accepted, 99) < 25 * MS + 8 * service
    assert world.most_active == 12


def test_without_a_limit_an_overloaded_service_drowns() -> None:
    """What the limit is for: the simulation itself can show the failure."""
    world = Simulation(Admission(), slots=10, service_ns=20 * MS, load=3, spread=True)
    world.run(5)
    assert percentile(world.run(5), 50) > SECOND


def test_a_limit_follows_a_service_that_gets_smaller_larger_or_slower() -> None:
    admission = Admission(adaptive=True)
    world = Simulation(admission, slots=40, service_ns=20 * MS, load=3, spread=False)
    world.run(10)
    assert 36 <= admission.limit <= 80
    world.slots = 10  # three of four endpoints are gone
    world.run(10)
    assert 9 <= admission.limit <= 25
    assert len(world.run(10)) >= 0.9 * 10 * world.peak
    world.slots = 40
    world.run(10)
    assert len(world.run(10)) >= 0.9 * 10 * world.peak
    world.service_ns = 100 * MS  # slower, though no less at a time
    world.run(4)
    assert len(world.run(4)) >= 0.9 * 4 * world.peak


def test_a_quiet_service_is_never_held_back_and_its_limit_does_not_run_away() -> None:
    admission = Admission(adaptive=True)
    world = Simulation(admission, slots=10, service_ns=20 * MS, load=0.3, spread=False)
    world.run(60)
    assert world.refused == 0
    assert admission.limit <= 40


@pytest.mark.parametrize(
    "bad",
    [
        {"limit": -1},
        {"queue": -1},
        {"queue": 100_001},
        {"queue_timeout_ns": -1},
        {"order": "newest"},
        {"adaptive": True, "min_limit": 0},
        {"adaptive": True, "min_limit": 10, "max_limit": 9},
    ],
)
def test_bad_admissions(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        Admission(**bad)
