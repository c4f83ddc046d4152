"""Counters, gauges and histograms in memory that the workers share."""

from __future__ import annotations

import itertools
import os
import signal
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.forks import in_child

from fastgate._core import GAUGES, UPSTREAM_COUNTS, Counters, SampleExchange, histogram_bounds


def test_an_exchange_is_counted_where_it_belongs() -> None:
    counters = Counters(["a", "b"], ["u", "v"])
    counters.count(
        SampleExchange(
            status=200,
            route_index=1,
            upstream_index=0,
            attempts=2,
            bytes_in=10,
            bytes_out=20,
            total_ns=5_000_000,
            upstream_head_ns=3_000_000,
        )
    )
    counters.count(
        SampleExchange(
            status=502,
            reason="connect-refused",
            route_index=1,
            upstream_index=0,
            attempts=1,
            bytes_out=5,
            total_ns=7,
        )
    )
    counters.count(SampleExchange(status=404, reason="no-route", total_ns=1000))
    snapshot = counters.snapshot()
    assert list(snapshot["routes"]) == ["b"]
    route = snapshot["routes"]["b"]
    assert route["exchanges"] == 2
    assert route["status"] == {"none": 0, "1xx": 0, "2xx": 1, "3xx": 0, "4xx": 0, "5xx": 1}
    assert route["reasons"] == {"connect-refused": 1}
    assert (route["bytes_in"], route["bytes_out"]) == (10, 25)
    assert (route["total"]["count"], route["total"]["sum_ns"]) == (2, 5_000_007)
    assert (route["upstream_head"]["count"], route["upstream_head"]["sum_ns"]) == (1, 3_000_000)
    assert snapshot["no_route"]["reasons"] == {"no-route": 1}
    assert snapshot["no_route"]["status"]["4xx"] == 1
    nothing = dict.fromkeys(UPSTREAM_COUNTS, 0)
    assert snapshot["upstreams"]["u"] == nothing | {
        "exchanges": 2,
        "attempts": 3,
        "retries": 1,
        "failures": 1,
    }
    assert snapshot["upstreams"]["v"] == nothing


def test_odd_records_are_counted_without_harm() -> None:
    counters = Counters(["a"], ["u"])
    for status in (0, 99, 600, -1, 999999):
        counters.count(SampleExchange(status=status, route_index=1, upstream_index=1, attempts=1))
    counters.count(SampleExchange(status=200, route_index=-5, upstream_index=-5, attempts=1))
    snapshot = counters.snapshot()
    assert snapshot["routes"] == {}
    assert snapshot["no_route"]["status"] == {"none": 5, "1xx": 0, "2xx": 1, "3xx": 0, "4xx": 0, "5xx": 0}
    assert snapshot["upstreams"]["u"]["attempts"] == 0


def test_gauges_and_upstream_counts_by_name() -> None:
    counters = Counters([], ["u"])
    counters.add("connections_open", 3)
    counters.add("connections_open", -1)
    counters.add_upstream("u", "connections_idle", 4)
    snapshot = counters.snapshot()
    assert snapshot["gauges"] == dict.fromkeys(GAUGES, 0) | {"connections_open": 2}
    assert snapshot["upstreams"]["u"]["connections_idle"] == 4


def test_workers_write_their_own_blocks_and_anyone_adds_them_up() -> None:
    counters = Counters(["a"], ["u"], workers=3)

    def work(worker: int) -> None:
        counters.use_worker(worker)
        for _ in range(1000 * (worker + 1)):
            counters.count(SampleExchange(status=200, route_index=0, total_ns=1))
        counters.add("connections_open", worker + 1)

    assert [in_child(partial(work, worker)) for worker in range(3)] == [0, 0, 0]
    snapshot = counters.snapshot()
    assert snapshot["workers"] == 3
    assert snapshot["routes"]["a"]["exchanges"] == 6000
    assert snapshot["routes"]["a"]["total"]["count"] == 6000
    assert snapshot["gauges"]["connections_open"] == 6


def test_a_killed_workers_counts_stay_and_its_open_connections_do_not() -> None:
    counters = Counters(["a"], ["u"], workers=1)

    def die() -> None:
        counters.use_worker(0)
        counters.count(SampleExchange(status=200, route_index=0))
        counters.add("connections_open", 5)
        counters.add("connections_accepted", 5)
        counters.add_upstream("u", "connections_open", 5)
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(die) == -signal.SIGKILL
    assert counters.snapshot()["gauges"]["connections_open"] == 5
    assert in_child(lambda: counters.use_worker(0)) == 0
    snapshot = counters.snapshot()
    assert snapshot["routes"]["a"]["exchanges"] == 1
    assert (snapshot["gauges"]["connections_open"], snapshot["gauges"]["connections_accepted"]) == (0, 5)
    assert snapshot["upstreams"]["u"]["connections_open"] == 0


def bucket_of(ns: int) -> int:
    counters = Counters(["a"], [])
    counters.count(SampleExchange(route_index=0, total_ns=ns))
    buckets: list[int] = counters.snapshot()["routes"]["a"]["total"]["buckets"]
    assert sum(buckets) == 1
    return buckets.index(1)


@given(
    st.one_of(
        st.integers(0, 2**38),
        st.integers(0, 38).map(lambda bits: 1 << bits),
        st.integers(1, 38).map(lambda bits: (1 << bits) - 1),
    )
)
@settings(max_examples=150, deadline=None)
def test_a_time_falls_between_its_buckets_bounds(ns: int) -> None:
    bounds = histogram_bounds()
    bucket = bucket_of(ns)
    assert bucket == sum(bound <= ns for bound in bounds)


def test_bounds_rise_by_a_quarter_at_most() -> None:
    bounds = histogram_bounds()
    assert bounds[0] <= 50_000
    assert bounds[-1] >= 60_000_000_000
    assert all(1 < after / before <= 1.25 for before, after in itertools.pairwise(bounds))
    assert bucket_of(2**63 - 1) == len(bounds)


def test_ten_thousand_routes_cost_what_is_used() -> None:
    counters = Counters([f"r{i}" for i in range(10_000)], [], workers=4)

    def resident() -> int:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * 4096

    before = resident()
    counters.count(SampleExchange(status=200, route_index=9_999))
    assert list(counters.snapshot()["routes"]) == ["r9999"]
    assert resident() - before < 2_000_000
    assert counters.size_bytes > 4 * 10_000 * 1000


def test_there_is_no_such_worker() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Counters([], [], workers=0)
    for worker in (2, -1):
        with pytest.raises(ValueError, match="no worker"):
            Counters([], [], workers=2).use_worker(worker)
