"""Which endpoint is next: the policies, and what takes an endpoint out of their hands."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

import pytest
from endpoints import DRAWN, POLICIES, SECOND, Endpoints, near
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgate._core import Group, Seat, UpstreamHealth, endpoint_states, upstream_states

weights_lists = st.lists(st.integers(1, 20), min_size=1, max_size=12)


def weighted(weights: list[int], **rules: Any) -> Endpoints:
    return Endpoints([{"weight": weight} for weight in weights], **rules)


# -- shares


@pytest.mark.parametrize(
    "weights", [[1], [1, 1], [7] * 5, [1, 3], [1, 2, 3, 10], [1] * 20 + [100], [1] * 130]
)
@pytest.mark.parametrize("balance", POLICIES)
def test_idle_endpoints_get_their_shares(balance: str, weights: list[int]) -> None:
    times = 20_000
    taken = weighted(weights, balance=balance).count(times)
    for count, weight in zip(taken, weights, strict=True):
        # A ring's own shares stray a little.
        assert near(count, times, weight / sum(weights)) or (
            balance == "ring" and abs(count / times - weight / sum(weights)) < 0.01
        )


@given(weights_lists, st.sampled_from(POLICIES), st.data())
@settings(max_examples=200, deadline=None)
def test_who_was_tried_is_avoided_while_there_is_another(
    weights: list[int], balance: str, data: st.DataObject
) -> None:
    up = weighted(weights, balance=balance, seed=data.draw(st.integers(0, 100)))
    everyone = range(len(weights))
    tried = data.draw(st.lists(st.sampled_from(everyone), max_size=len(weights)))
    left = set(everyone) - set(tried) or set(everyone)
    for key in range(20):
        assert up.take(key, tried) in left


@pytest.mark.parametrize("balance", POLICIES)
def test_a_position_that_is_none_is_no_reason_to_fail(balance: str) -> None:
    # Positions from before the endpoints were replaced.
    assert Endpoints(2, balance=balance).take(tried=[0, -1, 2, 1 << 30]) == 1


@pytest.mark.parametrize("balance", POLICIES)
def test_nobody(balance: str) -> None:
    up = Endpoints(0, balance=balance)
    assert up.take() == Group.NONE
    assert up.take(1, tried=[0]) == Group.NONE
    up.group.replace([up.seat("a:1")])
    assert up.take() == 0
    up.group.replace([])
    assert up.take() == Group.NONE


@pytest.mark.parametrize("balance", POLICIES)
def test_a_full_endpoint_is_passed_over(balance: str) -> None:
    up = Endpoints([{"max_requests": 2}, {"max_requests": 1}, {}], balance=balance)
    up.seats[0].hold()
    up.seats[1].hold()
    assert set(up.map(100)) == {up.seats[0], up.seats[2]}
    up.seats[0].hold()
    assert set(up.map(100)) == {up.seats[2]}
    assert up.take(tried=[2]) == 2, "of those who have room, one that was tried"
    up.seats[1].release()
    assert up.take(tried=[2]) == 1


@pytest.mark.parametrize("balance", POLICIES)
def test_all_full_is_told_from_nobody_there(balance: str) -> None:
    up = Endpoints([{"max_requests": 1}] * 3, balance=balance, panic_threshold=0)
    for seat in up.seats:
        seat.hold()
    assert up.take() == Group.FULL
    assert up.take(1, tried=[0, 1]) == Group.FULL
    for position in range(3):
        up.set(position, operator="down")
    assert up.take() == Group.NONE
    up.set(0)
    up.seats[0].release()
    assert up.take() == 0


def test_what_runs_at_a_seat_is_known_after_others_came() -> None:
    up = Endpoints(2)
    for _ in range(3):
        up.seats[0].hold()
    other = up.seat("new:1")
    up.group.replace([other, up.seats[0]])
    assert up.group.seats == (other, up.seats[0])
    assert {up.take() for _ in range(50)} == {0}


# -- smooth weighted round robin


def turns(weights: list[int], count: int) -> list[int]:
    group = weighted(weights, balance="round-robin").group
    return [group.take() for _ in range(count)]


def test_turns_are_spread_out() -> None:
    # The sequence that nginx documents for these weights.
    assert turns([5, 1, 1], 14) == [0, 0, 1, 0, 2, 0, 0] * 2
    assert turns([3, 3, 3], 6) == [0, 1, 2, 0, 1, 2]


@given(weights_lists, st.integers(0, 2**64 - 1))
@settings(max_examples=150, deadline=None)
def test_every_cycle_gives_each_exactly_its_weight(weights: list[int], random: int) -> None:
    group = weighted(weights, balance="round-robin").group
    for _ in range(2):
        taken = Counter(group.take(random=random) for _ in range(sum(weights)))
        assert [taken[i] for i in range(len(weights))] == weights


@given(weights_lists)
@settings(max_examples=150, deadline=None)
def test_at_no_time_is_one_ahead_of_its_share_by_more_than_the_others_allow(weights: list[int]) -> None:
    total, taken = sum(weights), [0] * len(weights)
    for turn, position in enumerate(turns(weights, 2 * total), 1):
        taken[position] += 1
        for i, weight in enumerate(weights):
            assert abs(taken[i] - turn * weight / total) < max(2, len(weights) / 2)


@given(weights_lists.filter(lambda weights: len(weights) > 1), st.data())
@settings(max_examples=100, deadline=None)
def test_the_others_keep_their_turns(weights: list[int], data: st.DataObject) -> None:
    up = weighted(weights, balance="round-robin")
    for _ in range(data.draw(st.integers(0, 20))):
        up.take()
    tried = data.draw(st.sets(st.integers(0, len(weights) - 1), min_size=1, max_size=len(weights) - 1))
    left = [i for i in range(len(weights)) if i not in tried]
    total = sum(weights[i] for i in left)
    taken = up.count(50 * total, tried=sorted(tried))
    # What it owed or had too much of when the exclusion began is evened out, once.
    for i in left:
        assert abs(taken[i] - 50 * weights[i]) <= sum(weights)


def test_turns_go_on_when_something_else_changes() -> None:
    # Every choice after a change: without memory it would be the first, always.
    up = Endpoints(4, balance="round-robin")
    taken = []
    for _ in range(8):
        up.tell()
        taken.append(up.group.take())
    assert taken == [0, 1, 2, 3] * 2


def test_a_weight_that_was_cut_is_not_paid_for() -> None:
    up = weighted([1_000_000, 1], balance="round-robin")
    assert up.group.take() == 0
    up.set(0, weight=1)
    assert sorted(up.group.take() for _ in range(4)) == [0, 0, 1, 1]


def test_workers_do_not_all_begin_with_the_same_one() -> None:
    begun = Counter(Endpoints(8, balance="round-robin", seed=seed).take() for seed in range(400))
    assert len(begun) == 8


# -- least request


@pytest.mark.parametrize("active", [(1, 0), (5, 4), (100, 0)])
def test_of_two_the_one_with_fewer_requests(active: tuple[int, int]) -> None:
    up = Endpoints(2)
    for seat, count in zip(up.seats, active, strict=True):
        for _ in range(count):
            seat.hold()
    assert up.count(200) == [0, 200]


def test_the_one_with_most_requests_is_never_taken() -> None:
    up = Endpoints(10)
    up.seats[3].hold()
    assert up.count(5000)[3] == 0


def in_flight(up: Endpoints, at_a_time: int, picks: int) -> list[int]:
    """How often each is taken in a closed loop, whose requests end in an order of chance."""
    running: list[int] = []
    taken = [0] * len(up.seats)
    for _ in range(picks):
        if len(running) == at_a_time:
            up.seats[running.pop(up.random.randrange(at_a_time))].release()
        position = up.take()
        up.seats[position].hold()
        running.append(position)
        taken[position] += 1
    return taken


@pytest.mark.parametrize("balance", ["least-request", "peak-ewma"])
@pytest.mark.parametrize("at_a_time", [1, 4, 64, 512])
def test_weights_hold_idle_and_under_load(balance: str, at_a_time: int) -> None:
    up = weighted([1, 2, 5], balance=balance)
    for seat in up.seats:
        seat.observe(1_000_000, 1)
    taken = in_flight(up, at_a_time, 8000)
    for count, share in zip(taken, (1 / 8, 2 / 8, 5 / 8), strict=True):
        # A few requests over a few endpoints lie more evenly than weights do: an idle one is not passed over.
        assert abs(count / 8000 - share) < 0.06
    if at_a_time == 1:
        assert all(
            near(count, 8000, share) for count, share in zip(taken, (1 / 8, 2 / 8, 5 / 8), strict=True)
        )


def test_two_choices_keep_the_longest_queue_short() -> None:
    # 1000 requests that do not end, over 1000 endpoints. One choice puts 5 or 6 on somebody, two put 3 or 4.
    def longest(balance: str) -> int:
        up = Endpoints(1000, balance=balance)
        for _ in range(1000):
            up.seats[up.take()].hold()
        return max(seat.active for seat in up.seats)

    assert longest("least-request") <= 4 < longest("random")


def test_a_hung_endpoint_gets_no_more_than_its_first_few() -> None:
    up = Endpoints(8)
    running: deque[int] = deque()
    for _ in range(4000):
        position = up.take()
        up.seats[position].hold()
        if position:
            running.append(position)
        if len(running) == 16:
            up.seats[running.popleft()].release()
    assert up.seats[0].active <= 8


# -- peak EWMA


def test_one_slow_answer_is_enough_and_time_forgives() -> None:
    up = Endpoints(2, balance="peak-ewma")
    up.seats[0].observe(1_000_000, 1)
    up.seats[1].observe(1_000_000, 1)
    assert all(up.count(200, now=1))
    up.seats[1].observe(50_000_000, 2)
    assert up.count(200, now=2) == [200, 0]
    up.seats[1].observe(1_000_000, 3)
    assert up.count(200, now=3) == [200, 0], "it comes down slowly"
    # 50 ms fall to 1 ms in 3.9 time constants of 10 s; the other answers all the while.
    now = 38 * SECOND
    up.seats[0].observe(1_000_000, now)
    assert up.count(200, now=now) == [200, 0]
    now = 40 * SECOND
    up.seats[0].observe(1_000_000, now)
    assert up.count(200, now=now) == [0, 200], "not heard of for so long that it is tried"


def test_slower_endpoints_get_fewer() -> None:
    up = Endpoints(3, balance="peak-ewma")
    now = 1
    ends: list[tuple[int, int]] = []
    taken = [0, 0, 0]
    for _ in range(6000):
        now += 250_000
        for end in [end for end in ends if end[0] <= now]:
            ends.remove(end)
            up.seats[end[1]].release()
            up.seats[end[1]].observe((1, 1, 10)[end[1]] * 1_000_000, end[0])
        position = up.take(now=now)
        up.seats[position].hold()
        taken[position] += 1
        ends.append((now + (1, 1, 10)[position] * 1_000_000, position))
    assert taken[2] < taken[0] / 4
    assert 0.8 < taken[0] / taken[1] < 1.25


def test_one_that_never_answers_is_tried_once() -> None:
    up = Endpoints(3, balance="peak-ewma")
    for seat in up.seats[:2]:
        seat.observe(5_000_000, 1)
    assert up.count(100, now=2)[2] > 40
    up.seats[2].hold()
    assert up.count(1000, now=2)[2] == 0


def test_a_clock_that_steps_back() -> None:
    up = Endpoints(2, balance="peak-ewma")
    up.seats[0].observe(1_000_000, 20 * SECOND)
    up.seats[0].observe(500_000, 10 * SECOND)
    up.seats[1].observe(2_000_000, 20 * SECOND)
    assert up.count(100, now=15 * SECOND) == [100, 0]


# -- who may be used


@pytest.mark.parametrize("balance", POLICIES)
@pytest.mark.parametrize(
    "state",
    [
        {"operator": "draining"},
        {"operator": "down"},
        {"operator": "down", "probe": "up"},
        {"probe": "down"},
        {"ejected_until_ns": 1000},
        {"breaker": "open", "breaker_until_ns": 1000},
    ],
)
def test_who_is_not_in_use_is_not_taken(balance: str, state: dict[str, object]) -> None:
    up = Endpoints(4, balance=balance)
    assert set(up.map(200)) == set(up.seats)
    up.set(2, **state)
    assert set(up.map(200)) == {up.seats[i] for i in (0, 1, 3)}
    assert up.group.weights_at(0) == (1, 1, 0, 1)
    assert up.take(tried=[0, 1, 3]) in (0, 1, 3), "rather a tried one"
    up.set(2)
    assert set(up.map(200)) == set(up.seats)


@pytest.mark.parametrize("state", [{"probe": "down"}, {"ejected_until_ns": 1000}, {"probe": "up"}])
def test_the_operators_ready_outweighs_all(state: dict[str, object]) -> None:
    up = Endpoints(4)
    up.set(2, operator="ready", **state)
    assert set(up.map(200)) == set(up.seats)


@pytest.mark.parametrize("state", [{"ejected_until_ns": 1000}, {"breaker": "open", "breaker_until_ns": 1000}])
def test_time_alone_brings_one_back(state: dict[str, object]) -> None:
    up = Endpoints(4)
    up.set(2, **state)
    up.set(3, ejected_until_ns=3000)
    assert set(up.map(200, now=999)) == set(up.seats[:2])
    assert set(up.map(200, now=1000)) == set(up.seats[:3])
    assert set(up.map(200, now=2999)) == set(up.seats[:3])
    assert set(up.map(200, now=3000)) == set(up.seats)


def test_a_half_open_breaker_lets_its_seat_be_taken() -> None:
    up = Endpoints(2)
    up.set(0, breaker="half-open")
    assert set(up.map(200)) == set(up.seats)


@pytest.mark.parametrize("balance", POLICIES)
def test_a_weight_is_changed_at_run_time(balance: str) -> None:
    up = weighted([1, 1, 2], balance=balance)
    up.take()
    up.set(0, weight=5)
    assert up.group.weights_at(0) == (5, 1, 2)
    taken = up.count(20_000)
    for count, weight in zip(taken, (5, 1, 2), strict=True):
        assert abs(count / 20_000 - weight / 8) < 0.02
    up.set(0)
    assert up.group.weights_at(0) == (1, 1, 2)


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "operator": st.sampled_from(["none", "none", "ready", "draining", "down"]),
                "probe": st.sampled_from(["unknown", "up", "down"]),
                "ejected_until_ns": st.sampled_from([0, 0, 50, 100]),
                "weight": st.integers(0, 9),
            }
        ),
        min_size=1,
        max_size=9,
    ),
    st.sampled_from(POLICIES),
    st.integers(1, 120),
)
@settings(max_examples=300, deadline=None)
def test_only_who_may_be_used_is_taken(states: list[dict[str, object]], balance: str, now: int) -> None:
    up = Endpoints(len(states), balance=balance, panic_threshold=0)
    for position, state in enumerate(states):
        up.set(position, **state)
    usable = {
        i
        for i, state in enumerate(states)
        if state["operator"] == "ready"
        or (
            state["operator"] == "none"
            and state["probe"] != "down"
            and int(str(state["ejected_until_ns"])) <= now
        )
    }
    found = {up.take(key, now=now) for key in range(30)}
    assert found <= (usable or {Group.NONE})
    assert {i for i, weight in enumerate(up.group.weights_at(now)) if weight} == usable


# -- panic


@pytest.mark.parametrize("balance", POLICIES)
def test_below_half_ready_all_are_used_but_those_the_operator_took_out(balance: str) -> None:
    up = Endpoints(9, balance=balance)
    up.set(8, operator="down")
    for position in range(4):
        up.set(position, probe="down")
    assert set(up.map(400)) == set(up.seats[4:8]), "half of those that count are ready: no panic yet"
    assert not up.group.tiers_at(0)[0].panic
    up.set(4, ejected_until_ns=1000)
    assert set(up.map(400)) == set(up.seats[:8])
    assert up.group.tiers_at(0)[0].panic
    up.set(4)
    assert set(up.map(400)) == set(up.seats[4:8])


@pytest.mark.parametrize("panic_threshold", [0, 50, 100])
def test_nobody_ready_at_all(panic_threshold: float) -> None:
    """Then nobody is chosen: who is known to be gone would only be waited for."""
    up = Endpoints(3, panic_threshold=panic_threshold)
    for position in range(3):
        up.set(position, probe="down")
    assert up.take() == Group.NONE


@pytest.mark.parametrize("balance", ["least-request", "peak-ewma"])
def test_one_that_fails_does_not_draw_requests_upon_itself(balance: str) -> None:
    """It has nothing to do, since it fails at once: its failures in a row count as requests under way."""
    up = Endpoints(4, balance=balance)
    health = UpstreamHealth("u", table=up.upstreams)
    for seat in up.seats[1:]:
        seat.hold()
        seat.hold()
    assert up.count(400)[0] > 150
    for _ in range(3):
        health.report(up.seats[0], tuple(up.seats), "gateway", 1)
    assert 0 < up.count(4000)[0] < 400, "now and then it is tried"
    health.report(up.seats[0], tuple(up.seats), "ok", 2)
    assert up.count(400)[0] > 150


@pytest.mark.parametrize("spill_over", [50, 100, 1000])
def test_the_threshold_of_a_single_tier_does_not_hang_on_spill_over(spill_over: float) -> None:
    up = Endpoints(10, panic_threshold=70, spill_over=spill_over)
    for position in range(4):
        up.set(position, probe="down")
    assert set(up.map(300)) == set(up.seats), "60 % ready"
    up.set(0)
    assert set(up.map(300)) == {up.seats[i] for i in (0, 4, 5, 6, 7, 8, 9)}


# -- what cannot be


@pytest.mark.parametrize(
    "rules",
    [
        {"balance": "round_robin"},
        {"bounded_load": 1.0},
        {"bounded_load": -1.0},
        {"spill_over": 0},
        {"panic_threshold": 101},
        {"panic_threshold": -1},
        {"failback_after_ns": -1},
        {"slow_start_ns": -1},
        {"order": tuple(f"r{i}" for i in range(33))},
    ],
)
def test_bad_rules(rules: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        Endpoints(1, **rules)


def test_bad_seats() -> None:
    with pytest.raises(TypeError):
        Group(upstream_states(1), "u", ["10.0.0.1:80"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="1 or more"):
        Seat("u", "a:1", table=endpoint_states(1), weight=0)
    seat = Seat("u", "a:1", table=endpoint_states(1))
    with pytest.raises(ValueError, match=r"65,?535"):
        Group(upstream_states(1), "u", [seat] * 65536)
    group = Group(upstream_states(1), "u", [seat])
    with pytest.raises(TypeError):
        group.__init__(upstream_states(1), "v")  # type: ignore[misc]
    with pytest.raises(TypeError):
        group.replace([seat, None])  # type: ignore[list-item]
    assert group.seats == (seat,), "nothing was changed"
    assert group.take() == 0


@pytest.mark.parametrize("balance", DRAWN)
def test_the_heaviest_that_is_full_does_not_keep_the_others_from_their_work(balance: str) -> None:
    up = Endpoints([{"weight": 1_000_000, "max_requests": 1}, {}, {}], balance=balance)
    up.seats[0].hold()
    taken = up.count(1000)
    assert taken[0] == 0
    assert min(taken[1:]) > 400
