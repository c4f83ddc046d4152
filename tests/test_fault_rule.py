"""Fault injection: how often, to whom, and which of the two."""

from __future__ import annotations

import pytest

from fastgate._core import FaultRule, RandomSource, SampleRequest

MS = 1_000_000
PLAIN = SampleRequest()


@pytest.mark.parametrize("random", [0, 1, (1 << 64) - 1])
def test_a_hundred_percent_is_always_and_none_is_never(random: int) -> None:
    assert FaultRule(delay_ns=MS, abort_status=503).decide(PLAIN, random) == (MS, 503)
    never = FaultRule(delay_ns=MS, delay_percent=0, abort_status=503, abort_percent=0)
    assert never.decide(PLAIN, random) == (0, 0)
    assert FaultRule().decide(PLAIN, random) == (0, 0)


def test_percentages_are_met_and_the_two_are_independent() -> None:
    rule = FaultRule(delay_ns=MS, delay_percent=10, abort_status=500, abort_percent=25.5)
    source = RandomSource((1, 2, 3, 4))
    drawn = 20_000
    decided = [rule.decide(PLAIN, source.bits()) for _ in range(drawn)]
    delayed = sum(delay > 0 for delay, _ in decided) / drawn
    aborted = sum(status > 0 for _, status in decided) / drawn
    both = sum(delay > 0 and status > 0 for delay, status in decided) / drawn
    assert abs(delayed - 0.10) < 0.01
    assert abs(aborted - 0.255) < 0.015
    assert abs(both - 0.0255) < 0.006


def test_a_small_percentage_is_not_none() -> None:
    assert FaultRule(abort_status=500, abort_percent=0.001).decide(PLAIN, 0) == (0, 500)


def test_only_requests_with_the_header() -> None:
    rule = FaultRule(delay_ns=MS, abort_status=503, header="X-Fault")
    assert rule.decide(PLAIN, 0) == (0, 0)
    assert rule.decide(SampleRequest(headers=[("x-fault", "")]), 0) == (MS, 503)
    assert rule.decide(SampleRequest(headers=[("x-faults", "1")]), 0) == (0, 0)


@pytest.mark.parametrize(
    "bad",
    [
        {"delay_ns": -1},
        {"abort_status": 199},
        {"abort_status": 600},
        {"delay_percent": 101},
        {"abort_percent": -1},
        {"abort_percent": float("nan")},
    ],
)
def test_bad_rules(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"negative|status|percentage"):
        FaultRule(**bad)  # type: ignore[arg-type]
