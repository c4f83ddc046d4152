"""The load of an upstream over all workers: its retry budget, and the limits of the circuit breaker."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgate._core import RetryPolicy, UpstreamLoad, load_states, loop_load_race


def load(**options: int) -> UpstreamLoad:
    return UpstreamLoad("orders", table=load_states(64), **options)


def taken(counted: UpstreamLoad, policy: RetryPolicy, most: int = 1000) -> int:
    """How many retries there may be at one time."""
    count = 0
    while count < most and counted.take_retry(policy):
        count += 1
    for _ in range(count):
        counted.give_retry()
    return count


@pytest.mark.parametrize(
    ("active", "percent", "least", "max_retries", "allowed"),
    [
        (0, 20, 3, 0, 3),
        (15, 20, 3, 0, 3),
        (19, 20, 3, 0, 3),
        (20, 20, 3, 0, 4),
        (100, 20, 3, 0, 20),
        (100, 20, 3, 5, 5),
        (100, 12.5, 3, 0, 12),
        (100, 0, 0, 0, 0),
        (0, 100, 0, 0, 0),
        (7, 100, 0, 0, 7),
        (0, 0, 3, 2, 2),
    ],
)
def test_the_budget(active: int, percent: float, least: int, max_retries: int, allowed: int) -> None:
    counted = load(max_retries=max_retries)
    for _ in range(active):
        counted.enter_request()
    assert taken(counted, RetryPolicy(budget_percent=percent, budget_min=least)) == allowed
    assert counted.retries == 0
    assert counted.retries_refused == 1


def test_what_is_given_back_can_be_taken_again() -> None:
    counted, policy = load(), RetryPolicy()
    for _ in range(3):
        assert counted.take_retry(policy)
    assert not counted.take_retry(policy)
    counted.give_retry()
    assert counted.take_retry(policy)
    assert not counted.take_retry(policy)
    assert counted.retries == 3


def test_a_routes_own_policy_counts_the_same_retries() -> None:
    counted = load()
    small, large = RetryPolicy(budget_min=1), RetryPolicy(budget_min=3)
    assert counted.take_retry(small)
    assert not counted.take_retry(small)
    assert counted.take_retry(large)
    assert counted.take_retry(large)
    assert not counted.take_retry(large)


KINDS: dict[str, tuple[Callable[[UpstreamLoad], bool], Callable[[UpstreamLoad], None]]] = {
    "requests": (UpstreamLoad.enter_request, UpstreamLoad.leave_request),
    "pending": (UpstreamLoad.enter_pending, UpstreamLoad.leave_pending),
    "connections": (UpstreamLoad.enter_connection, UpstreamLoad.leave_connection),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_cap_holds_for_its_own_number(kind: str) -> None:
    counted = load(**{f"max_{kind}": 2})
    enter, leave = KINDS[kind]
    assert [enter(counted) for _ in range(4)] == [True, True, False, False]
    assert (getattr(counted, kind), counted.refused) == (2, 2)
    leave(counted)
    assert enter(counted)
    for other in KINDS.keys() - {kind}:
        assert all(KINDS[other][0](counted) for _ in range(50))
        assert getattr(counted, other) == 50
    assert not enter(counted)


def test_without_a_cap_everything_passes_and_nothing_falls_below_none() -> None:
    counted = load()
    assert all(counted.enter_request() for _ in range(1000))
    assert counted.requests == 1000
    for _ in range(1001):
        counted.leave_request()
    assert counted.requests == 0
    counted.give_retry()
    assert counted.retries == 0


def test_upstreams_do_not_share_and_a_second_object_goes_on() -> None:
    table = load_states(64)
    first = UpstreamLoad("a", table=table)
    first.enter_request()
    assert UpstreamLoad("b", table=table).requests == 0
    again = UpstreamLoad("a", table=table, max_requests=1)  # the next snapshot, behind a reload
    assert again.requests == 1
    assert not again.enter_request()
    first.leave_request()
    assert again.enter_request()


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["enter", "leave", "die"])), max_size=80),
    st.integers(1, 6),
)
@settings(max_examples=100, deadline=None)
def test_the_sum_of_all_workers_never_passes_the_cap(steps: list[tuple[int, str]], cap: int) -> None:
    table = load_states(64)
    workers = [UpstreamLoad("a", table=table, worker=i, workers=4, max_requests=cap) for i in range(4)]
    inside = [0] * 4
    for worker, step in steps:
        if step == "enter":
            entered = workers[worker].enter_request()
            assert entered is (sum(inside) < cap)
            inside[worker] += entered
        elif step == "leave" and inside[worker]:
            workers[worker].leave_request()
            inside[worker] -= 1
        elif step == "die":
            workers[(worker + 1) % 4].reset(worker)
            inside[worker] = 0
        assert {each.requests for each in workers} == {sum(inside)}


def test_processes_that_enter_at_the_same_time_never_pass_the_cap() -> None:
    # Room for one: nobody may ever see two inside. One that is stopped while it is inside keeps the
    # others out, so some may never get in.
    table, witness, workers = load_states(64), load_states(4), 3
    start_read, start_write = os.pipe()
    children = []
    for worker in range(workers):
        pid = os.fork()
        if pid == 0:
            most = 255
            try:
                own = UpstreamLoad("a", table=table, worker=worker, workers=workers, max_requests=1)
                os.read(start_read, 1)
                most = loop_load_race(own, witness, 1_000_000)
            finally:
                os._exit(most)
        children.append(pid)
    os.write(start_write, b"x" * workers)
    seen = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    os.close(start_read)
    os.close(start_write)
    assert max(seen) == 1
    watcher = UpstreamLoad("a", table=table, workers=workers, max_requests=1)
    assert [watcher.enter_request() for _ in range(2)] == [True, False]


def test_a_dead_workers_share_is_taken_away() -> None:
    table = load_states(64)
    own = UpstreamLoad("a", table=table, worker=0, workers=2, max_requests=3, max_connections=3)
    own.enter_request()
    ready_read, ready_write = os.pipe()

    child = os.fork()
    if child == 0:
        try:
            other = UpstreamLoad("a", table=table, worker=1, workers=2, max_requests=3, max_connections=3)
            for _ in range(3):
                other.enter_request()
                other.enter_connection()
            other.enter_pending()
            other.take_retry(RetryPolicy())
            os.write(ready_write, b"x")
            signal.pause()
        finally:
            os._exit(1)
    os.read(ready_read, 1)
    os.close(ready_read)
    os.close(ready_write)
    assert (own.requests, own.connections, own.pending, own.retries) == (3, 3, 1, 1)
    assert not own.enter_request()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert not own.enter_request()
    own.reset(1)
    assert (own.requests, own.connections, own.pending, own.retries) == (1, 0, 0, 0)
    assert own.enter_request()
    # What was refused is history, and stays.
    assert own.refused == 3
    own.reset()
    assert own.requests == 0


def test_bad_workers() -> None:
    with pytest.raises(ValueError, match="no worker 1 of 1"):
        load(worker=1)
    with pytest.raises(ValueError, match="no worker -1 of 1"):
        load(worker=-1)
    with pytest.raises(ValueError, match="no worker 5"):
        load().reset(5)
