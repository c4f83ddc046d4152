"""What the decisions about retries, hedging, limits and faults cost a request.

Each benchmark runs OPERATIONS operations in a loop inside the compiled module (core/loops.pyx): with 1,000 of
them, a microsecond that pytest-benchmark prints is a nanosecond of one.

    python -m pytest bench/micro/test_resilience.py --benchmark-only
"""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from fastgate import _core

OPERATIONS = 1000
SECOND = 1_000_000_000
MS = 1_000_000


def test_random(benchmark: BenchmarkFixture) -> None:
    benchmark(_core.loop_random, _core.RandomSource(), OPERATIONS)


@pytest.mark.parametrize("cap", [0, 1000])
@pytest.mark.parametrize("workers", [1, 8])
def test_load(benchmark: BenchmarkFixture, workers: int, cap: int) -> None:
    load = _core.UpstreamLoad("orders", table=_core.load_states(64), workers=workers, max_requests=cap)
    assert benchmark(_core.loop_load, load, OPERATIONS) == OPERATIONS


@pytest.mark.parametrize("status", [200, 503])
def test_retry(benchmark: BenchmarkFixture, status: int) -> None:
    load = _core.UpstreamLoad("orders", table=_core.load_states(64), workers=2)
    policy = _core.RetryPolicy(on=("connect-failure", "status"))
    decided = benchmark(_core.loop_retry, policy, load, _core.SampleRequest(), status, OPERATIONS)
    assert decided == (OPERATIONS if status == 503 else 0)


def test_hedge(benchmark: BenchmarkFixture) -> None:
    policy = _core.HedgePolicy()
    rounds = iter(range(1 << 30))

    def setup() -> tuple[tuple[object, ...], dict[str, object]]:
        return (policy, SECOND + next(rounds) * 100 * MS, MS // 10, OPERATIONS), {}

    benchmark.pedantic(_core.loop_hedge, setup=setup, rounds=200)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("adaptive", [False, True])
def test_admission(benchmark: BenchmarkFixture, adaptive: bool) -> None:
    admission = _core.Admission(limit=100, adaptive=adaptive)
    rounds = iter(range(1 << 30))

    def setup() -> tuple[tuple[object, ...], dict[str, object]]:
        return (admission, SECOND + next(rounds) * 100 * MS, MS // 10, OPERATIONS), {}

    benchmark.pedantic(_core.loop_admission, setup=setup, rounds=200)  # type: ignore[no-untyped-call]


def test_admission_queue(benchmark: BenchmarkFixture) -> None:
    waiters = [object() for _ in range(OPERATIONS)]
    assert benchmark(_core.loop_queue, _core.Admission(limit=1), waiters, SECOND) == OPERATIONS


def test_fault(benchmark: BenchmarkFixture) -> None:
    rule = _core.FaultRule(delay_ns=MS, delay_percent=1, abort_status=503, abort_percent=1)
    benchmark(_core.loop_fault, rule, _core.SampleRequest(), _core.RandomSource(), OPERATIONS)
