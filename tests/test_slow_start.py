"""Slow start: an endpoint that comes back ramps up from a tenth of its weight."""

from __future__ import annotations

import pytest
from endpoints import DRAWN, SECOND, Endpoints, near
from hypothesis import given, settings
from hypothesis import strategies as st


def test_from_a_tenth_linearly_to_the_whole_weight() -> None:
    up = Endpoints([{"weight": 10}, {}], slow_start_ns=10 * SECOND)
    up.set(0, returned_ns=100 * SECOND)
    for after, weight in ((0, 1), (1, 1.9), (5, 5.5), (9, 9.1), (10, 10), (1000, 10)):
        assert up.group.weights_at((100 + after) * SECOND) == pytest.approx((weight, 1))


def test_the_ramp_goes_on_by_time_alone_in_steps() -> None:
    up = Endpoints(2, slow_start_ns=10 * SECOND)
    up.set(0, returned_ns=SECOND)
    weights = [up.group.weights_at(SECOND + i * SECOND // 100)[0] for i in range(1001)]
    assert weights == sorted(weights)
    assert len(set(weights)) == 101, "every 100 ms"
    assert weights[-1] == 1


@pytest.mark.parametrize(("window_ms", "steps"), [(50, 10), (5, 5), (1, 1)])
def test_a_short_window_has_up_to_ten_steps(window_ms: int, steps: int) -> None:
    up = Endpoints(1, slow_start_ns=window_ms * 1_000_000)
    up.set(0, returned_ns=SECOND)
    weights = {up.group.weights_at(SECOND + i * 100_000)[0] for i in range(10 * window_ms + 1)}
    assert len(weights) == steps + 1


@pytest.mark.parametrize("balance", DRAWN)
@pytest.mark.parametrize(("after", "ramp"), [(0, 0.1), (5, 0.55), (10, 1)])
def test_it_gets_so_much_less(balance: str, after: int, ramp: float) -> None:
    up = Endpoints(4, balance=balance, slow_start_ns=10 * SECOND)
    for seat in up.seats:
        seat.observe(1_000_000, 1)
    up.set(0, returned_ns=SECOND)
    assert near(up.count(10_000, now=(1 + after) * SECOND)[0], 10_000, ramp / (3 + ramp))


def test_round_robin_ramps_too() -> None:
    up = Endpoints(2, balance="round-robin", slow_start_ns=10 * SECOND)
    up.set(0, returned_ns=SECOND)
    assert up.count(1100, now=SECOND) == [100, 1000]


def test_one_that_was_there_before_we_looked_does_not_ramp() -> None:
    up = Endpoints(2, slow_start_ns=10 * SECOND)
    assert up.group.weights_at(SECOND) == (1, 1)
    up.set(0, returned_ns=SECOND)
    assert Endpoints(1).group.weights_at(SECOND) == (1,), "no slow start: no ramp"


def test_an_ejection_that_time_has_ended_is_a_return() -> None:
    up = Endpoints(2, slow_start_ns=10 * SECOND)
    up.set(0, ejected_until_ns=20 * SECOND, returned_ns=SECOND)
    assert up.group.weights_at(19 * SECOND) == (0, 1)
    assert up.group.weights_at(20 * SECOND) == pytest.approx((0.1, 1))
    assert up.group.weights_at(30 * SECOND) == (1, 1)


def test_a_return_that_lies_ahead_of_this_workers_clock() -> None:
    up = Endpoints(2, slow_start_ns=10 * SECOND)
    up.set(0, returned_ns=5 * SECOND)
    assert up.group.weights_at(4 * SECOND) == pytest.approx((0.1, 1))
    assert up.group.weights_at(15 * SECOND) == (1, 1)


def test_with_a_weight_set_at_run_time() -> None:
    up = Endpoints(2, slow_start_ns=10 * SECOND)
    up.set(0, returned_ns=SECOND, weight=20)
    assert up.group.weights_at(SECOND) == pytest.approx((2, 1))


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=6), st.lists(st.integers(1, 60), min_size=1, max_size=8)
)
@settings(max_examples=150, deadline=None)
def test_a_weight_is_never_below_a_tenth_nor_above_itself(returns: list[int], moments: list[int]) -> None:
    up = Endpoints(len(returns), slow_start_ns=10 * SECOND)
    for position, returned in enumerate(returns):
        up.set(position, returned_ns=returned * SECOND)
    for now in sorted(moments):
        for weight, returned in zip(up.group.weights_at(now * SECOND), returns, strict=True):
            ramp = 0.1 + 0.9 * (now - returned) / 10
            assert weight == pytest.approx(min(1, max(0.1, ramp)))
