"""Passive detection of outliers: who is ejected, for how long, and who never is."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.forks import in_child, in_children
from support.health import SECOND, Watched

from fastgate._core import OPERATOR_STATES, OutlierRule

# Rates alone are compared.
RATES_ONLY: dict[str, Any] = {"consecutive_errors": 0, "consecutive_gateway_errors": 0, "max_ejected": 100}


def watched(count: int = 4, **rule: Any) -> Watched:
    return Watched(count, outlier=OutlierRule(**rule))


# -- rows


@pytest.mark.parametrize("outcome", ["5xx", "gateway"])
def test_five_errors_in_a_row_eject(outcome: str) -> None:
    group = watched()
    group.report(1, outcome, 4)
    assert group.statuses() == ["ready"] * 4
    before = group.health.generation
    group.report(1, outcome)
    assert group.statuses() == ["ready", "ejected", "ready", "ready"]
    assert group.health.generation > before
    assert group.known(1)["ejected_for_s"] == 30
    assert group.known(1)["ejections"] == 1


def test_a_success_ends_the_row() -> None:
    group = watched()
    for _ in range(3):
        group.report(0, "gateway", 4)
        group.report(0, "ok")
    assert group.ejected() == set()
    group.report(0, "gateway", 5)
    assert group.ejected() == {0}


def test_gateway_errors_have_a_row_of_their_own() -> None:
    group = watched(consecutive_errors=0, consecutive_gateway_errors=3)
    group.report(0, "5xx", 50)
    group.report(0, "gateway", 2)
    group.report(0, "5xx")  # somebody answered: the row is over
    group.report(0, "gateway", 2)
    assert group.ejected() == set()
    group.report(0, "gateway")
    assert group.ejected() == {0}


def test_rows_can_be_switched_off() -> None:
    group = watched(consecutive_errors=0, consecutive_gateway_errors=0, success_rate=False)
    group.report(0, "gateway", 100)
    assert group.ejected() == set()


def test_what_ends_while_ejected_is_not_counted() -> None:
    group = watched()
    group.report(0, "5xx", 5)
    group.report(0, "5xx", 53)
    group.now += 30 * SECOND
    assert group.status(0) == "ready"
    group.report(0, "5xx", 4)
    assert group.status(0) == "ready"
    group.report(0, "5xx")
    assert group.status(0) == "ejected"


# -- time


def test_each_ejection_is_longer_up_to_the_longest() -> None:
    group = watched(max_ejection=80 * SECOND)
    lengths = []
    for _ in range(5):
        group.report(0, "gateway", 5)
        lengths.append(group.known(0)["ejected_for_s"])
        group.now += int(lengths[-1] * SECOND)
        assert group.status(0) == "ready"
        assert group.known(0)["returned_for_s"] == 0  # its slow start begins
    assert lengths == [30, 60, 80, 80, 80]
    assert group.known(0)["ejections"] == 3  # no more than the length shows: it is forgiven in time


def test_a_longest_below_the_first_is_the_first() -> None:
    group = watched(base_ejection=7 * SECOND, max_ejection=SECOND)
    group.report(0, "gateway", 5)
    assert group.known(0)["ejected_for_s"] == 7


def test_each_interval_outside_forgives_one_ejection() -> None:
    group = watched()
    group.report(3, "ok")  # an interval begins
    for _ in range(3):
        group.report(0, "gateway", 5)
        group.now += int(group.known(0)["ejected_for_s"] * SECOND)
    assert group.known(0)["ejections"] == 3
    left = []
    for _ in range(5):
        group.report(3, "ok")
        left.append(group.known(0)["ejections"])
        group.now += 10 * SECOND
    # The first ends the interval that it was ejected in.
    assert left == [3, 2, 1, 0, 0]


def test_silence_forgives_as_well() -> None:
    group = watched()
    group.report(3, "ok")
    group.report(0, "gateway", 5)
    group.now += 60 * SECOND
    group.report(0, "gateway", 5)
    assert group.known(0)["ejected_for_s"] == 30


# -- the cap and the last one


@pytest.mark.parametrize(
    ("count", "percent", "ejected"),
    [(8, 50, 4), (8, 10, 1), (3, 1, 1), (3, 50, 1), (4, 100, 3), (100, 29, 29), (8, 0, 0), (8, 24.9, 1)],
)
def test_no_more_than_the_cap(count: int, percent: float, ejected: int) -> None:
    group = watched(count, max_ejected=percent)
    for i in range(count):
        group.report(i, "gateway", 20)
    assert len(group.ejected()) == ejected
    assert group.statuses().count("ready") == count - ejected


def test_one_that_was_spared_is_judged_again_by_its_next_failure() -> None:
    group = watched(4, max_ejected=25)
    group.report(0, "gateway", 5)
    group.report(1, "gateway", 5)
    assert group.ejected() == {0}
    group.now += 30 * SECOND
    assert group.ejected() == set()
    group.report(1, "gateway")
    assert group.ejected() == {1}


def take_out(state: str) -> Callable[[Watched, int], object]:
    return lambda group, i: group.health.set_operator(group.seats[i], state, group.now)


@pytest.mark.parametrize(
    "take",
    [
        take_out("draining"),
        take_out("down"),
        lambda group, i: group.health.probe(group.seats[i], False, 1, 1, group.now),
    ],
)
def test_the_last_usable_one_stays_however_the_others_went(take: Callable[[Watched, int], object]) -> None:
    group = watched(3, max_ejected=100)
    take(group, 0)
    group.report(1, "gateway", 5)
    group.report(2, "gateway", 50)
    assert group.ejected() == {1}
    assert group.status(2) == "ready"


@pytest.mark.parametrize("state", ["ready", "draining", "down"])
def test_where_an_operator_has_spoken_nobody_is_ejected(state: str) -> None:
    group = watched()
    group.health.set_operator(group.seats[0], state, group.now)
    group.report(0, "gateway", 50)
    group.health.set_operator(group.seats[0], "auto", group.now)
    assert group.status(0) == "ready"


def test_one_that_has_left_is_not_ejected() -> None:
    group = watched(3)
    for _ in range(5):
        group.health.report(group.seats[0], group.seats[1:], "gateway", group.now)
    assert group.ejected() == set()


kinds = st.sampled_from(["ok", "5xx", "gateway", "wait", "pass", "fail", *OPERATOR_STATES])
steps = st.lists(st.tuples(kinds, st.integers(0, 5), st.integers(1, 12)), max_size=60)


@given(st.integers(1, 6), st.integers(0, 100), steps)
@example(2, 100, [("gateway", 0, 5), ("gateway", 1, 5)])
@settings(max_examples=300, deadline=None)
def test_whatever_happens_the_cap_holds_and_the_last_one_stays(
    count: int, percent: int, happening: list[tuple[str, int, int]]
) -> None:
    rule = OutlierRule(
        consecutive_errors=3, max_ejected=percent, min_endpoints=2, min_requests=5, interval=3 * SECOND
    )
    group = Watched(count, outlier=rule)
    for what, position, number in happening:
        seat = group.seats[position % count]
        before = group.ejected()
        if what == "wait":
            group.now += number * 5 * SECOND
        elif what in ("pass", "fail"):
            group.health.probe(seat, what == "pass", 1, 1, group.now)
        elif what in ("ok", "5xx", "gateway"):
            group.report(position % count, what, number)
        else:
            group.health.set_operator(seat, what, group.now)
        ejected = group.ejected()
        assert len(ejected) <= (max(1, count * percent // 100) if percent else 0)
        if ejected - before:
            assert "ready" in group.statuses()


# -- success rates


def serve(group: Watched, failures: list[int], requests: int = 100) -> None:
    """An interval in which each endpoint has so many requests and failures, then the report that ends it."""
    for i, failed in enumerate(failures):
        group.report(i, "5xx", failed)
        group.report(i, "ok", requests - failed - (i == 0))
    group.now += 10 * SECOND
    group.report(0, "ok")  # counts in the next one


def begun(count: int, **rule: Any) -> Watched:
    group = watched(count, **(RATES_ONLY | rule))
    serve(group, [])  # the first report begins an interval, it ends none
    return group


def test_one_that_fails_more_than_the_others_is_ejected() -> None:
    group = begun(6)
    serve(group, [1, 0, 30, 1, 0, 1])
    assert group.ejected() == {2}
    assert group.known(0)["success_rate"] == 0.99
    assert group.known(2)["success_rate"] == 0.7


@pytest.mark.parametrize(
    ("failures", "rule"),
    [
        ([0, 0, 50, 0], {}),  # too few endpoints
        ([0, 0, 50, 0, 0, 0], {"min_requests": 101}),
        ([0, 0, 50, 0, 0, 0], {"success_rate": False}),
        ([0, 0, 50, 0, 0, 0], {"success_rate_stdev": 3}),
        ([33, 33, 33, 33, 33, 33], {"success_rate_stdev": 0}),  # all alike: no rounding makes a difference
        ([0, 0, 50, 0, 0, 0], {"max_ejected": 0}),
    ],
)
def test_rates_that_prove_nothing(failures: list[int], rule: dict[str, Any]) -> None:
    group = begun(len(failures), **rule)
    serve(group, failures)
    serve(group, failures)
    assert group.ejected() == set()


def test_an_interval_counts_alone() -> None:
    group = begun(6, min_requests=150)
    serve(group, [0, 0, 50, 0, 0, 0])
    serve(group, [0, 0, 50, 0, 0, 0])
    assert group.ejected() == set()
    assert group.known(0)["success_rate"] is None
    serve(group, [0, 0, 50, 0, 0, 0], 200)
    assert group.ejected() == {2}


def test_an_interval_is_forgotten_with_the_next() -> None:
    group = begun(6, success_rate_stdev=3)
    rates = []
    for failed in (50, 0, 20):
        serve(group, [0, 0, failed, 0, 0, 0])
        rates.append(group.known(2)["success_rate"])
    assert rates == [0.5, 1, 0.8]


def test_one_that_is_ejected_is_not_compared() -> None:
    group = begun(7, consecutive_errors=5)
    group.report(2, "ok", 100)
    group.report(2, "5xx", 5)
    assert group.ejected() == {2}
    serve(group, [0] * 7)
    assert group.known(2)["success_rate"] is None


@given(st.lists(st.integers(0, 99), min_size=5, max_size=9), st.sampled_from([0.5, 1.0, 1.9]))
@settings(max_examples=150, deadline=None)
def test_rates_are_judged_as_envoy_does(failures: list[int], factor: float) -> None:
    group = begun(len(failures), success_rate_stdev=factor)
    serve(group, failures)
    rates = [1 - failed / 100 for failed in failures]
    bound = statistics.fmean(rates) - factor * statistics.pstdev(rates)
    if any(abs(rate - bound) < 1e-5 for rate in rates):
        return
    assert group.ejected() == {i for i, rate in enumerate(rates) if rate < bound}


# -- the lock


def test_who_finds_the_lock_taken_leaves_it_to_the_next_failure() -> None:
    group = watched()
    group.health.take_lock(group.now - SECOND // 2)
    group.report(0, "gateway", 7)
    assert group.ejected() == set()
    # Half a second later its holder is taken for dead.
    group.now += SECOND // 2
    group.report(0, "gateway")
    assert group.ejected() == {0}
    # And the lock is free again.
    group.report(1, "gateway", 5)
    assert group.ejected() == {0, 1}


# -- processes


def test_all_processes_see_an_ejection() -> None:
    group = watched()
    before = group.health.generation
    assert in_child(lambda: group.report(2, "gateway", 5)) == 0
    assert group.ejected() == {2}
    assert group.health.generation > before


def test_the_rows_of_all_processes_add_up() -> None:
    group = watched(consecutive_errors=4_000_002, consecutive_gateway_errors=0, success_rate=False)
    assert in_children(4, lambda _: group.report_fast(0, "5xx", 1_000_000)) == [0] * 4
    group.report(0, "5xx")
    assert group.ejected() == set()
    group.report(0, "5xx")
    assert group.ejected() == {0}


def test_the_rates_of_all_processes_add_up() -> None:
    group = begun(5, min_requests=401)

    def work(_: int) -> None:
        for i in range(5):
            group.report(i, "5xx" if i == 4 else "ok", 100)

    assert in_children(4, work) == [0] * 4
    serve(group, [0, 0, 0, 0, 1], 1)
    assert group.ejected() == {4}
    assert group.known(4)["success_rate"] == 0


@pytest.mark.parametrize("attempt", range(5))
def test_processes_that_eject_at_one_moment_keep_to_the_cap(attempt: int) -> None:
    group = watched(8)

    def fail_all(worker: int) -> None:
        for _ in range(200):
            for i in range(8):
                group.report((2 * worker + i) % 8, "gateway", 5)

    assert in_children(4, fail_all) == [0] * 4
    assert len(group.ejected()) == 4


# -- values


@pytest.mark.parametrize(
    "rule",
    [
        {"consecutive_errors": -1},
        {"success_rate_stdev": -0.1},
        {"success_rate_stdev": float("nan")},
        {"min_endpoints": 0},
        {"min_requests": 0},
        {"interval": 0},
        {"base_ejection": 0},
        {"max_ejection": 10**19},
        {"max_ejected": 101},
    ],
)
def test_bad_rules(rule: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"number|more|time"):
        OutlierRule(**rule)


def test_defaults_are_envoys_but_for_the_cap() -> None:
    rule = OutlierRule()
    assert (rule.consecutive_errors, rule.consecutive_gateway_errors) == (5, 5)
    assert (rule.success_rate, rule.success_rate_stdev, rule.min_endpoints, rule.min_requests) == (
        True,
        1.9,
        5,
        100,
    )
    assert (rule.interval, rule.base_ejection, rule.max_ejection) == (10 * SECOND, 30 * SECOND, 300 * SECOND)
    assert rule.max_ejected == 50
