"""Hedging: the latency quantile that it waits for, and how much load it may add."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgate._core import HedgePolicy, LatencyWindow

MS = 1_000_000
SECOND = 1_000_000_000
START = 1000 * SECOND


def filled(window: LatencyWindow, samples: list[int], now: int = START) -> LatencyWindow:
    for ns in samples:
        window.observe(ns, now)
    return window


@given(
    st.lists(st.floats(4.6, 10.8).map(lambda power: int(10**power)), min_size=100, max_size=150),
    st.sampled_from([0.5, 0.9, 0.95]),
)
@settings(max_examples=60, deadline=None)
def test_a_quantile_is_within_its_bucket(samples: list[int], q: float) -> None:
    found = filled(LatencyWindow(), samples).quantile(q, START)
    samples.sort()
    # A bucket is a quarter of its lower bound wide; by rank, one to either side.
    low, high = (
        samples[max(0, int(len(samples) * q) - 1)],
        samples[min(len(samples) - 1, int(len(samples) * q))],
    )
    assert low * 0.79 <= found <= high * 1.26


def test_even_samples_within_a_bucket() -> None:
    chooser = random.Random(1)
    samples = [chooser.randrange(1 << 24, 1 << 25) for _ in range(20_000)]
    for q in (0.1, 0.5, 0.9, 0.95, 0.99):
        found = filled(LatencyWindow(), samples).quantile(q, START)
        assert abs(found / ((1 + q) * (1 << 24)) - 1) < 0.02


def test_too_few_samples_tell_nothing() -> None:
    window = filled(LatencyWindow(), [MS] * 19)
    assert window.quantile(0.95, START) == -1
    window.observe(MS, START)
    assert window.quantile(0.95, START + SECOND) > 0
    # For a quantile further out one sample beyond it must be expected.
    assert window.quantile(0.99, START) == -1
    known = filled(window, [MS] * 80).quantile(0.99, START)
    assert known > 0, "that there were too few does not stand for a while: a quick start is hedged as well"
    assert filled(window, [SECOND] * 1000).quantile(0.99, START) == known, "what was just told does"
    assert window.quantile(0.99, START + 100 * MS) > known


@pytest.mark.parametrize("q", [0.0, 1.0, -1.0, float("nan")])
def test_no_quantile(q: float) -> None:
    assert filled(LatencyWindow(), [MS] * 1000).quantile(q, START) == -1


def test_odd_samples_do_no_harm() -> None:
    window = filled(LatencyWindow(), [0, -1, -(1 << 63), (1 << 63) - 1] * 10)
    assert window.quantile(0.1, START) >= 0
    assert window.quantile(0.9, START) == 1 << 36


def test_old_samples_lose_their_weight() -> None:
    window = LatencyWindow(half_ns=SECOND)
    filled(window, [100 * MS] * 1000)
    filled(window, [MS] * 600, START + 3 * SECOND)
    assert window.weight == pytest.approx(1000 / 8 + 600)
    assert window.quantile(0.8, START + 3 * SECOND) < 2 * MS
    assert window.quantile(0.9, START + 3 * SECOND) > 80 * MS
    # All of it is gone after a long silence, and a clock that stands still or steps back changes nothing.
    assert window.quantile(0.8, START) > 0
    assert window.quantile(0.8, START + 10_000 * SECOND) == -1
    with pytest.raises(ValueError, match="positive"):
        LatencyWindow(half_ns=0)


def test_an_answer_is_kept_for_a_moment() -> None:
    window = filled(LatencyWindow(), [MS] * 100)
    before = window.quantile(0.95, START)
    filled(window, [SECOND] * 1000)
    assert window.quantile(0.95, START + 99 * MS) == before
    assert window.quantile(0.95, START + 100 * MS) > 800 * MS


def policy(**options: float) -> HedgePolicy:
    made = HedgePolicy(**options)  # type: ignore[arg-type]
    filled(made.latency, [50 * MS] * 100)
    return made


def test_the_delay_is_the_quantile_but_not_below_the_least() -> None:
    hedge = policy(max_percent=100)
    assert 40 * MS < hedge.delay(START) < 64 * MS
    assert policy(max_percent=100, min_delay_ns=70 * MS).delay(START) == 70 * MS


def test_without_samples_there_is_no_hedge() -> None:
    assert HedgePolicy(max_percent=100).delay(START) == -1


@pytest.mark.parametrize("percent", [0, 1, 10, 33.3, 100])
def test_the_added_load_stays_within_its_part(percent: float) -> None:
    hedge = policy(max_percent=percent)
    requests = 5000
    hedged = sum(hedge.delay(START) >= 0 and hedge.take() for _ in range(requests))
    assert requests * percent / 100 - 2 <= hedged <= requests * percent / 100


def test_quiet_times_save_up_no_more_than_a_burst() -> None:
    hedge = policy(max_percent=10)
    for _ in range(10_000):
        hedge.delay(START)
    assert [hedge.take() for _ in range(11)] == [True] * 10 + [False]
    assert hedge.delay(START) == -1


def test_a_hedge_that_was_not_sent_is_given_back() -> None:
    hedge = policy(max_percent=10)
    for _ in range(10):
        hedge.delay(START)
    assert hedge.take()
    assert not hedge.take()
    hedge.give()
    assert hedge.take()


def test_a_reload_passes_the_samples_on() -> None:
    known = policy().latency
    assert HedgePolicy(max_percent=100, latency=known).delay(START) > 0


@pytest.mark.parametrize(
    "bad",
    [{"quantile": 0}, {"quantile": 100}, {"min_delay_ns": -1}, {"max_percent": -1}, {"max_percent": 101}],
)
def test_bad_policies(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="percent"):
        HedgePolicy(**bad)  # type: ignore[arg-type]
