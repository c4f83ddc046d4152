"""Automatic rollback: a canary that is worse than its baseline goes to weight 0, one that is not stays."""

from __future__ import annotations

import math
import random
from fractions import Fraction
from types import SimpleNamespace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.forks import in_child, in_children
from support.splits import MS, SECOND, Tables, rule, splitter

from fastgate._core import RollbackVerdict, RollbackWatch, SharedTable, Splitter, chance_of

START = 1_000_000 * SECOND


class Traffic:
    """A split of stable and canary, 95 : 5, and a clock that stands until a test moves it."""

    def __init__(self, split: Splitter | None = None, **changes: object) -> None:
        self.now = START
        self.split = split or splitter({"stable": 95, "canary": 5}, rules={"canary": rule(**changes)})  # type: ignore[arg-type]
        assert self.split.rollback is not None
        self.watch: RollbackWatch = self.split.rollback

    def send(self, arm: str, requests: int, failed: int = 0, latency_ns: int = 5 * MS) -> None:
        self.watch.observe_request(arm, latency_ns=latency_ns, now=self.now, times=requests - failed)
        self.watch.observe_request(arm, failed=True, latency_ns=latency_ns, now=self.now, times=failed)

    def judge(self) -> list[RollbackVerdict]:
        return self.watch.evaluate(self.now)

    @property
    def rolled_back(self) -> bool:
        return self.split.weights()["canary"] == 0


# -- errors


def test_a_canary_that_fails_more_is_rolled_back_with_the_numbers() -> None:
    traffic = Traffic()
    traffic.send("stable", 3800, failed=38)
    traffic.send("canary", 200, failed=20)
    assert not traffic.rolled_back
    (verdict,) = traffic.judge()
    assert traffic.split.weights() == {"stable": 95, "canary": 0}
    assert verdict._replace(chance=0, p99_ms=0, baseline_p99_ms=0) == RollbackVerdict(
        route="orders",
        arm="canary",
        baseline="stable",
        rule="error-percent",
        margin=5,
        chance=0,
        window_s=60,
        samples=200,
        error_percent=10,
        p99_ms=0,
        baseline_samples=3800,
        baseline_error_percent=1,
        baseline_p99_ms=0,
    )
    assert verdict.chance == pytest.approx(chance_of(20, 200, 38, 3800))
    assert verdict.p99_ms == verdict.baseline_p99_ms == pytest.approx(5, rel=0.125)


def test_within_the_margin_it_stays_however_sure_the_difference_is() -> None:
    traffic = Traffic(error_percent=5)
    traffic.send("stable", 100_000, failed=1000)
    traffic.send("canary", 50_000, failed=3000)  # 6 %: no more than 5 points above
    assert traffic.judge() == []
    traffic.send("canary", 1000, failed=1000)
    assert [verdict.rule for verdict in traffic.judge()] == ["error-percent"]


def test_beyond_the_margin_it_stays_while_chance_may_have_done_it() -> None:
    traffic = Traffic(error_percent=1, min_samples=10)
    traffic.send("stable", 1000, failed=200)
    traffic.send("canary", 100, failed=35)
    assert chance_of(35, 100, 200, 1000) > 1e-6
    assert traffic.judge() == []
    traffic.send("canary", 300, failed=105)
    assert [verdict.error_percent for verdict in traffic.judge()] == [35]


def test_when_both_fail_alike_nobody_is_rolled_back() -> None:
    traffic = Traffic()
    traffic.send("stable", 5000, failed=5000)
    traffic.send("canary", 500, failed=500)
    assert traffic.judge() == []


@pytest.mark.parametrize(("canary", "stable"), [(199, 10_000), (10_000, 199), (199, 199), (1000, 0)])
def test_too_few_samples_of_either_make_no_verdict(canary: int, stable: int) -> None:
    traffic = Traffic(min_samples=200)
    traffic.send("stable", stable)
    traffic.send("canary", canary, failed=canary, latency_ns=60 * SECOND)
    assert traffic.judge() == []
    status = traffic.watch.status("canary", traffic.now)
    assert status is not None
    assert status["lacks"] == ("samples" if canary < 200 else "baseline-samples")
    traffic.send("stable", max(0, 200 - stable))
    traffic.send("canary", 1, failed=1)
    assert [verdict.arm for verdict in traffic.judge()] == ["canary"]


@given(st.integers(1, 60), st.integers(1, 60), st.data())
@settings(max_examples=150, deadline=None)
def test_the_chance_is_fishers(samples: int, others: int, data: st.DataObject) -> None:
    hits, other_hits = data.draw(st.integers(0, samples)), data.draw(st.integers(0, others))
    all_hits = hits + other_hits
    or_more = range(hits, min(samples, all_hits) + 1)
    ways = sum(math.comb(samples, k) * math.comb(others, all_hits - k) for k in or_more)
    exact = Fraction(ways, math.comb(samples + others, all_hits))
    if hits * others <= other_hits * samples:
        exact = Fraction(1)
    assert chance_of(hits, samples, other_hits, others) == pytest.approx(float(exact), rel=1e-9)


def test_the_chance_among_millions() -> None:
    # Close to the normal distribution's tail at z = 5 (2.87e-7), and without an overflow.
    samples, share = 4_000_000, 0.01
    hits = round(samples * share + 5 * (2 * samples * share * (1 - share)) ** 0.5)
    assert 2e-7 < chance_of(hits, samples, round(samples * share), samples) < 4e-7
    assert chance_of(samples, samples, 0, samples) == 0.0


# -- latency


def test_a_slow_canary_is_rolled_back() -> None:
    traffic = Traffic(p99_factor=1.5)
    traffic.send("stable", 3800, latency_ns=10 * MS)
    traffic.send("canary", 180, latency_ns=10 * MS)
    traffic.send("canary", 20, latency_ns=25 * MS)
    (verdict,) = traffic.judge()
    assert (verdict.rule, verdict.margin) == ("p99", 1.5)
    assert verdict.p99_ms == pytest.approx(25, rel=0.125)
    assert verdict.baseline_p99_ms == pytest.approx(10, rel=0.125)
    assert verdict.chance <= 1e-6


def test_two_slow_answers_are_no_p99() -> None:
    # 1.5 % of 200: above the bound, but what chance brings.
    traffic = Traffic()
    traffic.send("stable", 3800, latency_ns=10 * MS)
    traffic.send("canary", 197, latency_ns=10 * MS)
    traffic.send("canary", 3, latency_ns=60 * MS)
    assert traffic.judge() == []


def p99(values: list[int]) -> int:
    return sorted(values)[math.ceil(0.99 * len(values)) - 1]


@given(
    st.integers(40_000, 10**9),
    st.integers(40_000, 10**9),
    st.floats(1, 4),
    st.floats(1, 3),
)
@example(10 * MS, 10 * MS, 1.0, 1.0)
@example(2**24, 2**24 - 1, 1.0, 1.0)  # neighbours in different buckets
@settings(max_examples=400, deadline=None)
def test_the_claim_holds_for_the_true_values_whatever_the_buckets_hide(
    low: int, other_low: int, spread: float, factor: float
) -> None:
    traffic = Traffic(p99_factor=factor, error_percent=0)
    latencies = {
        "stable": [int(low * (1 + (spread - 1) * i / 400)) for i in range(400)],
        "canary": [int(other_low * (1 + (spread - 1) * i / 400)) for i in range(400)],
    }
    for arm, values in latencies.items():
        for value in values:
            traffic.send(arm, 1, latency_ns=value)
    ratio = p99(latencies["canary"]) / p99(latencies["stable"])
    if traffic.judge():
        assert ratio > factor
    elif spread < 2:
        # A bucket is at most a quarter wide, at both ends.
        assert ratio <= factor * 1.25 * 1.25


def test_latencies_beyond_the_histogram_harm_nothing() -> None:
    traffic = Traffic()
    for arm, requests in (("stable", 1000), ("canary", 1000)):
        for latency in (-1, 0, 2**63 - 1):
            traffic.send(arm, requests, latency_ns=latency)
    assert traffic.judge() == []


def test_the_rules_can_be_switched_off() -> None:
    traffic = Traffic(error_percent=0, p99_factor=0)
    traffic.send("stable", 1000)
    traffic.send("canary", 1000, failed=1000, latency_ns=SECOND)
    assert traffic.judge() == []


# -- latched, and cleared


def roll_back(traffic: Traffic) -> None:
    traffic.send("stable", 1000)
    traffic.send("canary", 1000, failed=1000)
    assert len(traffic.judge()) == 1


def test_it_stays_rolled_back_until_an_operator_clears_it() -> None:
    traffic = Traffic()
    roll_back(traffic)
    for _ in range(200):
        traffic.now += SECOND
        traffic.send("stable", 500)
        traffic.send("canary", 500)  # by override
        assert traffic.judge() == []
        assert traffic.rolled_back
    status = traffic.split.status(traffic.now)["arms"][1]
    assert (status["rolled_back"], status["weight"], status["configured"]) == (True, 0, 5)
    why = status["rollback"]["why"]
    assert (why["rule"], why["error_percent"], why["seconds_ago"]) == ("error-percent", 100, 200)
    assert status["rollback"]["now"]["error_percent"] == 0

    assert traffic.split.clear("canary")
    assert not traffic.split.clear("canary")
    assert traffic.split.weights() == {"stable": 95, "canary": 5}
    status = traffic.split.status(traffic.now)["arms"][1]
    assert (status["rolled_back"], status["rollback"]["why"]) == (False, None)


@pytest.mark.parametrize("how", ["clear", "weight", "configured-weight"])
def test_what_was_before_the_operators_word_does_not_count(how: str) -> None:
    traffic = Traffic()
    roll_back(traffic)
    if how == "clear":
        traffic.split.clear("canary")
    else:
        traffic.split.set_weights({"canary": 7 if how == "weight" else None})
    assert traffic.split.weights()["canary"] == (7 if how == "weight" else 5)
    assert traffic.judge() == []
    traffic.send("canary", 199, failed=199)
    assert traffic.judge() == []
    traffic.send("canary", 1, failed=1)
    assert [verdict.samples for verdict in traffic.judge()] == [200]


def test_the_weight_of_another_arm_clears_nothing() -> None:
    traffic = Traffic()
    roll_back(traffic)
    traffic.split.set_weights({"stable": 50})
    assert traffic.split.weights() == {"stable": 50, "canary": 0}


def test_a_reload_keeps_the_window_and_a_new_length_begins_anew() -> None:
    tables, weights = Tables(), {"stable": 95, "canary": 5}
    before = Traffic(tables.splitter(weights, rules={"canary": rule(error_percent=50)}))
    before.send("stable", 1000)
    before.send("canary", 1000, failed=400)
    assert before.judge() == []
    longer = Traffic(tables.splitter(weights, rules={"canary": rule(window=600 * SECOND)}))
    assert longer.judge() == []
    stricter = Traffic(tables.splitter(weights, rules={"canary": rule(error_percent=5)}))
    assert [verdict.samples for verdict in stricter.judge()] == [1000]
    assert longer.rolled_back


# -- the window


def test_old_slices_fall_out_of_the_window() -> None:
    traffic = Traffic(window=60 * SECOND, error_percent=20)
    traffic.send("stable", 1000)
    traffic.send("canary", 1000, failed=150)
    seen = []
    for _ in range(70):
        status = traffic.watch.status("canary", traffic.now)
        assert status is not None
        seen.append((status["now"]["samples"], status["baseline_now"]["samples"]))
        traffic.now += SECOND
    counted = seen.count((1000, 1000))
    assert 54 <= counted <= 60  # the present slice is part of the window
    assert seen == [(1000, 1000)] * counted + [(0, 0)] * (70 - counted)


def test_a_slice_is_used_again_without_what_was_in_it() -> None:
    traffic = Traffic(window=10 * SECOND, min_samples=1)
    for second in range(35):
        traffic.send("canary", second + 1, failed=1)
        status = traffic.watch.status("canary", traffic.now)
        assert status is not None
        assert status["now"]["samples"] == sum(range(max(1, second - 8), second + 2))
        traffic.now += SECOND


def test_a_late_observation_spoils_no_newer_slice() -> None:
    traffic = Traffic(window=10 * SECOND)
    traffic.send("canary", 100)
    traffic.now -= 20 * SECOND
    traffic.send("canary", 50)
    traffic.now += 20 * SECOND
    status = traffic.watch.status("canary", traffic.now)
    assert status is not None
    assert status["now"]["samples"] == 100


# -- which arm is the baseline


def test_the_baseline_is_the_heaviest_other_arm_or_the_named() -> None:
    weights = {"canary": 50, "small": 1, "big": 49}
    assert Traffic(splitter(weights, rules={"canary": rule()})).watch.status("canary", 0)["baseline"] == "big"  # type: ignore[index]
    traffic = Traffic(splitter(weights, rules={"canary": rule(baseline="small")}))
    traffic.send("big", 1000)
    traffic.send("canary", 1000, failed=1000)
    assert traffic.judge() == []
    traffic.send("small", 1000)
    assert [verdict.baseline for verdict in traffic.judge()] == ["small"]
    assert traffic.watch.status("small", 0) is None


def test_two_canaries_with_windows_of_their_own_share_a_baseline() -> None:
    rules = {"a": rule(window=10 * SECOND), "b": rule(window=100 * SECOND)}
    traffic = Traffic(splitter({"stable": 90, "a": 5, "b": 5}, rules=rules))
    traffic.send("stable", 1000)
    traffic.send("a", 1000, failed=1000)
    traffic.send("b", 1000, failed=1000)
    traffic.now += 50 * SECOND
    assert [(verdict.arm, verdict.baseline_samples) for verdict in traffic.judge()] == [("b", 1000)]
    traffic.send("stable", 300)
    traffic.send("a", 300, failed=300)
    assert [(verdict.arm, verdict.baseline_samples) for verdict in traffic.judge()] == [("a", 300)]
    assert traffic.split.weights() == {"stable": 90, "a": 0, "b": 0}


@pytest.mark.parametrize(
    ("weights", "changed", "error"),
    [
        ({"canary": 1}, rule(), "another arm"),
        ({"canary": 1, "b": 1}, rule(baseline="canary"), "own baseline"),
        ({"canary": 1, "b": 1}, rule(baseline="c"), "no arm 'c'"),
        ({"canary": 1, "b": 1}, rule(min_samples=0), "above 0"),
        ({"canary": 1, "b": 1}, rule(window=1), "above 0"),
        ({"canary": 1, "b": 1}, rule(error_percent=-1), "or above"),
    ],
)
def test_what_makes_no_rule(weights: dict[str, int], changed: SimpleNamespace, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        splitter(weights, rules={"canary": changed})
    tables = Tables()
    tables.windows = SharedTable(64, 4)
    with pytest.raises(ValueError, match="other records"):
        tables.splitter({"canary": 1, "b": 1}, rules={"canary": rule()})


# -- several processes


def test_all_processes_count_into_one_window() -> None:
    traffic = Traffic()
    traffic.send("stable", 1000)

    def work(worker: int) -> None:
        traffic.send("canary", 1000, failed=100 * worker)

    # Whoever first meets a slice clears it, and what others bring meanwhile is dropped: so one goes first.
    assert in_child(lambda: work(0)) == 0
    assert in_children(2, lambda i: work(i + 1)) == [0, 0]
    (verdict,) = traffic.judge()
    assert (verdict.samples, verdict.error_percent) == (3000, 10)


def test_exactly_one_process_reports_a_rollback() -> None:
    for _ in range(10):
        traffic = Traffic()
        traffic.send("stable", 1000)
        traffic.send("canary", 1000, failed=1000)

        def judge(_: int, traffic: Traffic = traffic) -> int:
            return 2 + sum(len(traffic.judge()) for _ in range(200))

        assert sorted(in_children(4, judge)) == [2, 2, 2, 3]
        assert traffic.rolled_back


# -- many canaries


def binomial(chooser: random.Random, trials: int, share: float) -> int:
    # By the gaps between hits.
    hits, at, scale = 0, 0, math.log(1 - share)
    while True:
        at += int(math.log(1 - chooser.random()) / scale) + 1
        if at > trials:
            return hits
        hits += 1


def simulate(seed: int, part: float, *, stable: float, canary: float, margin: float) -> int:
    """A gateway at 1,000 requests a second; the second in which the canary was rolled back, 0 for never."""
    chooser = random.Random(seed)
    traffic = Traffic(error_percent=margin)
    requests = round(1000 * part)
    for second in range(1, 61):
        traffic.send("stable", 1000 - requests, failed=binomial(chooser, 1000 - requests, stable))
        traffic.send("canary", requests, failed=binomial(chooser, requests, canary))
        if traffic.judge():
            return second
        traffic.now += SECOND
    return 0


@pytest.mark.parametrize("part", [0.01, 0.05])
@pytest.mark.parametrize("ratio", [0.002, 0.02])
def test_canaries_that_are_as_good_are_left_alone(part: float, ratio: float) -> None:
    # With a margin of next to nothing, so that only the test against chance stands between them and a
    # rollback: at 60 looks less than one in 15,000 such canaries, by the union bound. None of these 150.
    rolled_back = [simulate(seed, part, stable=ratio, canary=ratio, margin=0.01) for seed in range(150)]
    assert rolled_back == [0] * 150


@pytest.mark.parametrize(("part", "within"), [(0.01, 30), (0.05, 10)])
def test_canaries_that_are_worse_are_found(part: float, within: int) -> None:
    # 1 % against 12 %, with the margin's default of 5 points.
    found = [simulate(seed, part, stable=0.01, canary=0.12, margin=5) for seed in range(40)]
    assert min(found) >= 200 / (1000 * part)
    assert max(found) <= within


@pytest.mark.parametrize("slower", [1.0, 3.0])
def test_canaries_are_judged_by_their_latency(slower: float) -> None:
    # Log-normal with a heavy tail: the p99 is ten times the median. 10 % of 200 requests a second.
    for seed in range(12):
        chooser, traffic = random.Random(seed), Traffic(p99_factor=1.5)
        rolled_back = False
        for _ in range(40):
            for arm, requests, factor in (("stable", 180, 1.0), ("canary", 20, slower)):
                for _ in range(requests):
                    traffic.watch.observe_request(
                        arm, latency_ns=int(factor * chooser.lognormvariate(16, 1)), now=traffic.now
                    )
            rolled_back = rolled_back or bool(traffic.judge())
            traffic.now += SECOND
        assert rolled_back == (slower > 1)
