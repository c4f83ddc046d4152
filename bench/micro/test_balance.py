"""What a choice among endpoints costs, and what a change among them does.

Each benchmark of a pick makes OPERATIONS of them in a loop inside the compiled module (core/loops.pyx), so
the time that pytest-benchmark prints is for that many: with 1,000, a microsecond there is a nanosecond here.

    python -m pytest bench/micro/test_balance.py --benchmark-only
"""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from fastgate import _core

OPERATIONS = 1000
POLICIES = ["least-request", "round-robin", "peak-ewma", "random", "maglev", "ring"]
HASHED = ("maglev", "ring")


def group(balance: str, count: int, weights: tuple[int, ...] = (1,)) -> _core.Group:
    states = _core.endpoint_states(count)
    seats = [
        _core.Seat("u", f"10.0.{i >> 8}.{i & 255}:80", table=states, weight=weights[i % len(weights)])
        for i in range(count)
    ]
    for seat in seats:
        seat.observe(1_000_000, 1)
    made = _core.Group(_core.upstream_states(1), "u", seats, balance=balance)
    made.take(1)
    return made


@pytest.mark.parametrize("count", [8, 1000])
@pytest.mark.parametrize("balance", POLICIES)
def test_pick(benchmark: BenchmarkFixture, balance: str, count: int) -> None:
    benchmark(_core.loop_pick, group(balance, count), OPERATIONS, balance in HASHED, False)


@pytest.mark.parametrize("count", [8, 1000])
@pytest.mark.parametrize("balance", POLICIES)
def test_pick_with_weights_and_16_under_way(benchmark: BenchmarkFixture, balance: str, count: int) -> None:
    benchmark(_core.loop_pick, group(balance, count, (1, 2, 3)), OPERATIONS, balance in HASHED, True)


@pytest.mark.parametrize("count", [8, 1000])
def test_pick_across_two_regions(benchmark: BenchmarkFixture, count: int) -> None:
    # Half are here, and half of those are down: some of the traffic spills over.
    states, upstreams = _core.endpoint_states(count), _core.upstream_states(1)
    seats = [_core.Seat("u", f"s{i}", table=states, region="ab"[i & 1]) for i in range(count)]
    for seat in seats[::4]:
        _core.sample_endpoint_state(seat, probe="down")
    spread = _core.Group(upstreams, "u", seats, region="a", order=("b",))
    assert 0 < spread.tiers_at(0)[2].share < 1
    benchmark(_core.loop_pick, spread, OPERATIONS, False, False)


@pytest.mark.parametrize("count", [8, 1000])
@pytest.mark.parametrize("balance", POLICIES)
def test_after_a_state_has_changed(benchmark: BenchmarkFixture, balance: str, count: int) -> None:
    # One whole rebuild, as every change of an endpoint's state causes.
    states, upstreams = _core.endpoint_states(count), _core.upstream_states(1)
    seats = [_core.Seat("u", f"s{i}", table=states) for i in range(count)]
    changed = _core.Group(upstreams, "u", seats, balance=balance)
    changed.take(1)

    def change() -> None:
        _core.sample_upstream_changed(upstreams, "u")
        changed.take(1)

    benchmark(change)


@pytest.mark.parametrize("count", [8, 1000])
@pytest.mark.parametrize("balance", HASHED)
def test_a_table_is_built(benchmark: BenchmarkFixture, balance: str, count: int) -> None:
    # What other endpoints, or another weight, cost: the loop stands still for so long.
    changed = group(balance, count)

    def change() -> None:
        changed.replace(changed.seats)
        changed.take(1)

    benchmark(change)
