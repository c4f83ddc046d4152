"""What choosing a version costs, and watching it for a rollback.

As in test_filters.py: OPERATIONS operations in a loop inside the compiled module, so that a microsecond of
the printed time is a nanosecond of one.

    python -m pytest bench/micro/test_split.py --benchmark-only
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from fastgate import _core

OPERATIONS = 1000
SECOND = 1_000_000_000


def splitter(arms: int, *, header: str = "", cookie: str = "") -> _core.Splitter:
    rule = SimpleNamespace(error_percent=5, p99_factor=1.5, min_samples=200, window=60 * SECOND, baseline="")
    targets = tuple(
        SimpleNamespace(
            name=f"v{i}", upstream=f"orders-v{i}", weight=100 - i, rollback=rule if i == 1 else None
        )
        for i in range(arms)
    )
    config = SimpleNamespace(override=SimpleNamespace(header=header, cookie=cookie), to=targets)
    return _core.Splitter("orders", config, states=_core.split_states(), windows=_core.rollback_windows())


def request(**fields: str) -> _core.SampleRequest:
    others = [(f"x-other-{i}", "value") for i in range(8)]
    return _core.SampleRequest("10.0.0.1", headers=[*others, *fields.items()])


@pytest.mark.parametrize("arms", [1, 2, 3, 8])
def test_choose_by_key(benchmark: BenchmarkFixture, arms: int) -> None:
    benchmark(_core.loop_choose, splitter(arms), request(), 0, OPERATIONS)


def test_choose_at_random(benchmark: BenchmarkFixture) -> None:
    benchmark(_core.loop_choose, splitter(2), request(), 0, OPERATIONS, False)


def test_choose_with_an_override_that_is_not_there(benchmark: BenchmarkFixture) -> None:
    split, session = (
        splitter(2, header="x-version", cookie="version"),
        "session=0af7651916cd43dd8448eb211c80319c",
    )
    benchmark(_core.loop_choose, split, request(cookie=session), 0, OPERATIONS)


def test_set_weights(benchmark: BenchmarkFixture) -> None:
    benchmark(_core.loop_set_weights, splitter(2), OPERATIONS)


def test_observe(benchmark: BenchmarkFixture) -> None:
    watch = splitter(2).rollback
    assert watch is not None
    benchmark(_core.loop_observe, watch, 1, OPERATIONS, 100 * SECOND, 1000)


def test_evaluate(benchmark: BenchmarkFixture) -> None:
    # One look at one rule, in all slices of both windows; the printed time is of this one operation.
    watch = splitter(2).rollback
    assert watch is not None
    for arm in (0, 1):
        _core.loop_observe(watch, arm, 60_000, 100 * SECOND, SECOND // 1000)
    benchmark(watch.evaluate, 160 * SECOND)


@pytest.mark.parametrize("requests", [200, 1_000_000])
def test_chance(benchmark: BenchmarkFixture, requests: int) -> None:
    # Slightly worse than the other: the longest sum. The printed time is of one operation.
    benchmark(_core.chance_of, requests // 10 + 1, requests, requests, 10 * requests)
