"""The error-ratio breaker, against a model in plain Python, and from several processes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.forks import in_child, in_children
from support.health import SECOND, Watched

from fastgate._core import BreakerRule


def watched(count: int = 1, per: str = "endpoint", **rule: Any) -> Watched:
    return Watched(count, breaker=BreakerRule(**({"error_percent": 50} | rule)), per=per)


def admits(group: Watched, times: int = 1, position: int = 0) -> int:
    """How many of `times` requests are let through."""
    return sum(group.health.admits_seat(group.seats[position], group.now) for _ in range(times))


def opened(**rule: Any) -> Watched:
    group = watched(**rule)
    group.report(0, "5xx", 20)
    assert group.known(0)["breaker"] == "open"
    return group


# -- closed


@pytest.mark.parametrize("outcome", ["5xx", "gateway"])
def test_opens_at_the_percentage_of_enough_requests(outcome: str) -> None:
    group = watched()
    group.report(0, "ok", 10)
    group.report(0, outcome, 9)
    assert admits(group, 100) == 100
    before = group.health.generation
    group.report(0, outcome)
    assert admits(group, 100) == 0
    assert group.status(0) == "ejected"
    assert group.health.generation > before


def test_a_success_can_be_the_request_that_makes_them_enough() -> None:
    group = watched()
    group.report(0, "gateway", 19)
    assert group.known(0)["breaker"] == "closed"
    group.report(0, "ok")
    assert group.known(0)["breaker"] == "open"


def test_below_the_percentage_it_stays_closed() -> None:
    group = watched(error_percent=50.1)
    group.report(0, "ok", 500)
    group.report(0, "5xx", 500)
    assert group.known(0)["breaker"] == "closed"


def test_a_window_begins_empty() -> None:
    group = watched()
    group.report(0, "5xx", 19)
    group.now += 10 * SECOND
    group.report(0, "5xx", 19)
    assert group.known(0)["breaker"] == "closed"
    group.now += 10 * SECOND - 1
    group.report(0, "5xx")
    assert group.known(0)["breaker"] == "open"


def test_off_at_zero_percent() -> None:
    group = watched(error_percent=0)
    group.report(0, "gateway", 1000)
    assert admits(group, 10) == 10
    assert group.known(0)["breaker"] == "closed"


# -- open and half-open


def test_open_until_its_time_is_over_then_some_trials() -> None:
    group = opened(trials=4)
    group.now += 5 * SECOND - 1
    assert admits(group, 10) == 0
    assert group.status(0) == "ejected"
    group.now += 1
    assert group.status(0) == "ready"  # a balancer may choose it
    before = group.health.generation
    assert admits(group) == 1
    assert group.health.generation > before
    assert (group.known(0)["breaker"], group.status(0)) == ("half-open", "ready")
    before = group.health.generation
    assert admits(group, 10) == 3
    # It has no more to give: balancers are told to leave it alone.
    assert group.status(0) == "ejected"
    assert group.health.generation > before


def test_as_many_successes_as_trials_close_it_with_an_empty_window() -> None:
    group = opened()
    group.now += 5 * SECOND
    assert admits(group, 10) == 3
    group.report(0, "ok", 2)
    assert group.known(0)["breaker"] == "half-open"
    before = group.health.generation
    group.report(0, "ok")
    assert (group.known(0)["breaker"], group.status(0)) == ("closed", "ready")
    assert group.known(0)["returned_for_s"] == 0  # its slow start begins
    assert group.health.generation > before
    group.report(0, "5xx", 19)
    assert group.known(0)["breaker"] == "closed"


def test_one_failed_trial_opens_it_again() -> None:
    group = opened()
    group.now += 5 * SECOND
    admits(group, 3)
    group.report(0, "ok", 2)
    group.report(0, "5xx")
    assert group.known(0)["breaker"] == "open"
    group.now += 5 * SECOND - 1
    assert admits(group) == 0
    group.now += 1
    # The successes of the last time do not count.
    assert admits(group, 3) == 3
    group.report(0, "ok", 2)
    assert group.known(0)["breaker"] == "half-open"


def test_trials_that_never_report_do_not_block() -> None:
    group = opened()
    for _ in range(3):
        group.now += 5 * SECOND
        assert admits(group, 10) == 3
        assert group.status(0) == "ejected"
    group.report(0, "ok", 3)
    assert group.known(0)["breaker"] == "closed"


def test_what_was_sent_before_it_opened_changes_nothing() -> None:
    group = opened()
    group.report(0, "ok", 50)
    group.report(0, "5xx", 50)
    assert group.known(0)["breaker"] == "open"
    group.now += 5 * SECOND
    assert admits(group) == 1


# -- what it watches


@pytest.mark.parametrize(
    ("per", "endpoint", "upstream"),
    [("both", "open", "open"), ("endpoint", "open", "closed"), ("upstream", "closed", "open")],
)
def test_per(per: str, endpoint: str, upstream: str) -> None:
    group = watched(2, per)
    group.report(0, "5xx", 20)
    assert (group.known(0)["breaker"], group.health.breaker_state) == (endpoint, upstream)
    assert group.health.admits(group.now) == (upstream == "closed")
    assert admits(group) == (endpoint == "closed")
    assert admits(group, position=1) == 1


def test_the_upstream_is_the_sum_of_its_endpoints() -> None:
    group = watched(4, "both")
    for i in range(4):
        group.report(i, "gateway", 5)
    assert [group.known(i)["breaker"] for i in range(4)] == ["closed"] * 4
    assert not group.health.admits(group.now)
    group.now += 5 * SECOND
    assert sum(group.health.admits(group.now) for _ in range(10)) == 3
    group.report(1, "ok", 3)
    assert group.health.breaker_state == "closed"


def test_an_operator_can_overrule_it() -> None:
    group = opened()
    group.health.set_operator(group.seats[0], "ready", group.now)
    assert group.status(0) == "ready"
    assert admits(group, 10) == 10
    group.health.set_operator(group.seats[0], "auto", group.now)
    assert admits(group, 10) == 0


def test_a_reload_keeps_it_and_one_without_breaker_lets_it_go() -> None:
    group = opened()
    group.reload(breaker=BreakerRule(error_percent=90), per="endpoint")
    assert admits(group) == 0
    group.reload()
    assert admits(group) == 1


# -- against a model


class Model:
    """The state table of core/breaker.pyx, once more."""

    def __init__(self, percent: int, least: int, window: int, open_time: int, trials: int) -> None:
        self.percent, self.least, self.window, self.open_time, self.trials = (
            percent,
            least,
            window,
            open_time,
            trials,
        )
        self.state, self.until = "closed", 0
        self.began = self.requests = self.failures = self.left = self.successes = 0

    def report(self, failed: bool, now: int) -> None:
        if self.state == "closed":
            if now - self.began >= self.window:
                self.began, self.requests, self.failures = now, 0, 0
            self.requests += 1
            self.failures += failed
            enough = self.requests >= self.least and self.failures
            if enough and self.failures * 100 >= self.percent * self.requests:
                self.state, self.until = "open", now + self.open_time
        elif self.state == "half-open":
            if failed:
                self.state, self.until = "open", now + self.open_time
                return
            self.successes += 1
            if self.successes == self.trials:
                self.state, self.began, self.requests, self.failures = "closed", now, 0, 0

    def admits(self, now: int) -> bool:
        if self.state == "closed":
            return True
        if now >= self.until:
            if self.state == "open":
                self.state, self.successes = "half-open", 0
            self.left, self.until = self.trials, now + self.open_time
        if self.state == "open" or self.left == 0:
            return False
        self.left -= 1
        return True

    def status(self, now: int) -> str:
        barred = self.state == "open" or (self.state == "half-open" and self.left == 0)
        return "ejected" if barred and now < self.until else "ready"


actions = st.lists(
    st.tuples(st.sampled_from(["ok", "5xx", "gateway", "ask", "wait"]), st.integers(1, 8)), max_size=80
)


@given(
    st.integers(1, 100),
    st.integers(1, 6),
    st.integers(1, 20),
    st.integers(1, 20),
    st.integers(1, 4),
    actions,
)
@example(50, 2, 10, 5, 2, [("5xx", 2), ("wait", 5), ("ask", 1), ("ok", 2), ("5xx", 1)])
@settings(max_examples=400, deadline=None)
def test_the_model_does_the_same(
    percent: int, least: int, window: int, open_time: int, trials: int, happening: list[tuple[str, int]]
) -> None:
    model = Model(percent, least, window, open_time, trials)
    group = watched(
        per="both",
        error_percent=percent,
        min_requests=least,
        window=window,
        open_time=open_time,
        trials=trials,
    )
    for what, number in happening:
        if what == "wait":
            group.now += number
        for _ in range(number):
            if what == "ask":
                allowed = model.admits(group.now)
                assert group.health.admits_seat(group.seats[0], group.now) == allowed
                assert group.health.admits(group.now) == allowed
            elif what != "wait":
                group.report(0, what)
                model.report(what != "ok", group.now)
            assert group.known(0)["breaker"] == group.health.breaker_state == model.state
            assert group.status(0) == model.status(group.now)


# -- processes


def test_all_processes_see_it_open() -> None:
    group = watched()
    assert in_child(lambda: group.report(0, "gateway", 20)) == 0
    assert admits(group) == 0


def test_the_requests_of_all_processes_add_up() -> None:
    group = watched(min_requests=4_000_003, error_percent=1e-9)
    group.report(0, "5xx")  # the window begins, and one failure is enough
    assert in_children(4, lambda _: group.report_fast(0, "ok", 1_000_000)) == [0] * 4
    group.report(0, "ok")
    assert group.known(0)["breaker"] == "closed"
    group.report(0, "ok")
    assert group.known(0)["breaker"] == "open"


def test_processes_share_the_trials() -> None:
    group = opened(trials=1_000_000)
    group.now += 5 * SECOND
    # Each is let through and reports a success, until there is one trial left.
    assert in_children(3, lambda _: group.report_fast(0, "ok", 333_333)) == [0] * 3
    assert admits(group, 10) == 1
    assert group.known(0)["breaker"] == "half-open"
    group.report(0, "ok")
    assert group.known(0)["breaker"] == "closed"


# -- values


@pytest.mark.parametrize(
    "rule",
    [
        {"error_percent": -1},
        {"error_percent": 100.5},
        {"error_percent": float("nan")},
        {"min_requests": 0},
        {"window": 0},
        {"open_time": 0},
        {"open_time": 10**19},
        {"trials": 0},
        {"trials": 1_000_001},
    ],
)
def test_bad_rules(rule: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"number|more|time"):
        BreakerRule(**rule)


def test_bad_per() -> None:
    with pytest.raises(ValueError, match="'all' is none of both, endpoint, upstream"):
        watched(per="all")


def test_defaults_are_hystrixs() -> None:
    rule = BreakerRule()
    assert (rule.error_percent, rule.min_requests, rule.trials) == (0, 20, 3)
    assert (rule.window, rule.open_time) == (10 * SECOND, 5 * SECOND)
