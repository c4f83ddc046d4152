"""Smooth weighted round robin."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgate._core import RoundRobin

weights_lists = st.lists(st.integers(1, 20), min_size=1, max_size=12)


def test_turns_are_spread_out() -> None:
    # The sequence that nginx documents for these weights.
    assert [RoundRobin([5, 1, 1]).take(), RoundRobin([1]).take()] == [0, 0]
    balancer = RoundRobin([5, 1, 1])
    assert [balancer.take() for _ in range(14)] == [0, 0, 1, 0, 2, 0, 0] * 2
    even = RoundRobin([3, 3, 3])
    assert [even.take() for _ in range(6)] == [0, 1, 2, 0, 1, 2]


@given(weights_lists, st.integers(0, 50))
@settings(max_examples=150, deadline=None)
def test_every_cycle_gives_each_exactly_its_weight(weights: list[int], start: int) -> None:
    balancer = RoundRobin(weights, start)
    for _ in range(2):
        taken = Counter(balancer.take() for _ in range(sum(weights)))
        assert [taken[i] for i in range(len(weights))] == weights


@given(weights_lists)
@settings(max_examples=150, deadline=None)
def test_at_no_time_is_one_ahead_of_its_share_by_more_than_the_others_allow(weights: list[int]) -> None:
    balancer, total = RoundRobin(weights), sum(weights)
    taken = [0] * len(weights)
    for turn in range(1, 2 * total + 1):
        position = balancer.take()
        assert position is not None
        taken[position] += 1
        for i, weight in enumerate(weights):
            assert abs(taken[i] - turn * weight / total) < max(2, len(weights) / 2)


@given(weights_lists.filter(lambda weights: len(weights) > 1), st.data())
@settings(max_examples=150, deadline=None)
def test_the_excluded_are_never_taken_and_the_others_keep_their_shares(
    weights: list[int], data: st.DataObject
) -> None:
    balancer = RoundRobin(weights)
    for _ in range(data.draw(st.integers(0, 20))):
        balancer.take()
    excluded = data.draw(st.sets(st.integers(0, len(weights) - 1), min_size=1))
    left = [i for i in range(len(weights)) if i not in excluded]
    if not left:
        assert balancer.take(excluded) is None
        return
    total = sum(weights[i] for i in left)
    taken = Counter(balancer.take(excluded) for _ in range(50 * total))
    assert set(taken) == set(left)
    # What it owed or had too much of when the exclusion began is evened out, once.
    for i in left:
        assert abs(taken[i] - 50 * weights[i]) <= sum(weights)


def test_more_than_64_endpoints_can_be_excluded() -> None:
    balancer = RoundRobin([1] * 130)
    excluded = set(range(129))
    assert balancer.take(excluded) == 129
    assert balancer.take(excluded | {129}) is None
    assert balancer.take(set(range(130)) - {64}) == 64


def test_start_skips_turns() -> None:
    assert RoundRobin([1, 1, 1], 1).take() == 1
    assert RoundRobin([1, 1, 1], 5).take() == 2


@pytest.mark.parametrize("weights", [[], [0], [1, -1], [10**7]])
def test_bad_weights(weights: list[int]) -> None:
    with pytest.raises(ValueError, match="weights"):
        RoundRobin(weights)


def test_bad_exclusion() -> None:
    with pytest.raises(ValueError, match="no position 2"):
        RoundRobin([1, 1]).take({2})
