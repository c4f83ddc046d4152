"""What a scrape costs whoever answers it, and for how long at a time it holds the loop.

    python -m pytest bench/micro/test_metrics.py --benchmark-columns=min,median,max

A gateway with as many routes and upstreams as the name says, all in use, of two workers with the three places
beside them that stand in when one of them is replaced; two endpoints an upstream. `extra_info` of the JSON
report has the size of the text, the CPU time of the median scrape, which others on the machine change least,
and the longest time between two turns of the loop.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from typing import Any

import pytest

from fastgate import _core
from fastgate.config import loads
from fastgate.server.common import Common
from fastgate.telemetry.metrics import Facts, ProcessFact

MS = 1_000_000


def filled(routes: int, upstreams: int) -> tuple[Common, Facts, list[object]]:
    """The last of these keeps the endpoints."""
    text = "[[listeners]]\nbind = '127.0.0.1:0'\n"
    for i in range(upstreams):
        text += f"[upstreams.upstream-{i}]\nendpoints = ['127.0.0.1:{2 * i + 1}', '127.0.0.1:{2 * i + 2}']\n"
    for i in range(routes):
        text += f"[[routes]]\nname = 'route-{i}'\nmatch = {{ prefix = '/{i}' }}\n"
        text += f"upstream = 'upstream-{i % upstreams}'\n"
    config = loads(text, "bench.toml").config
    common = Common(config, 5)
    chance = random.Random(1)
    kept: list[object] = []
    for place in (1, 2):
        common.take_place(place)
        for name, upstream in config.upstreams.items():
            for endpoint in upstream.endpoints:
                seat = _core.Seat(name, endpoint.address, table=common.endpoints)
                took = int(chance.lognormvariate(2, 1.5) * MS)
                kept += (seat, common.counters.add_endpoint(name, seat, took))
        for i in range(routes):
            for method, status in (("GET", 200), ("GET", 404), ("POST", 201), ("GET", 503)):
                for _ in range(5):
                    took = int(chance.lognormvariate(2, 1.5) * MS)
                    common.counters.count(
                        _core.SampleExchange(
                            request_id=f"{chance.getrandbits(128):032x}",
                            method=method,
                            status=status,
                            attempts=1,
                            bytes_in=100,
                            bytes_out=1000,
                            total_ns=took,
                            upstream_head_ns=took // 2,
                            connect_ns=took // 4,
                            route_index=i,
                            upstream_index=i % upstreams,
                            reason="upstream-reset" if status == 503 else "none",
                        )
                    )
    processes = (
        ProcessFact("supervisor", 1, "", -1),
        ProcessFact("1", 1, "serving", 1),
        ProcessFact("2", 1, "serving", 2),
    )
    facts = Facts(
        config, version=1, applied=0.0, reloads=0, refused=0, ok=True, started=0.0, ready=True,
        processes=processes, restarts=0,
    )  # fmt: skip
    return common, facts, kept


@pytest.mark.parametrize("openmetrics", [False, True], ids=["plain", "openmetrics"])
@pytest.mark.parametrize(("routes", "upstreams"), [(1000, 100), (1000, 1000), (10_000, 100)])
def test_a_scrape(benchmark: Any, routes: int, upstreams: int, openmetrics: bool) -> None:
    common, facts, kept = filled(routes, upstreams)
    metrics = common.metrics()
    longest = 0.0
    text = b""
    spent: list[float] = []

    async def scrape() -> None:
        # Nothing is returned: of what is, asyncio.Runner makes the repr (its handler of SIGINT has the task),
        # which took seven times as long as the scrape when that was megabytes of bytes.
        nonlocal longest, text
        task = asyncio.ensure_future(metrics.render(facts, openmetrics))
        while not task.done():
            began = time.perf_counter()
            await asyncio.sleep(0)
            longest = max(longest, time.perf_counter() - began)
        text = task.result()

    with asyncio.Runner() as runner:

        def once() -> None:
            began = time.process_time()
            runner.run(scrape())
            spent.append(time.process_time() - began)

        benchmark.pedantic(once, rounds=15, warmup_rounds=2)
    benchmark.extra_info["bytes"] = len(text)
    benchmark.extra_info["cpu_ms"] = round(statistics.median(spent) * 1000, 2)
    benchmark.extra_info["longest_turn_ms"] = round(longest * 1000, 2)
    assert text.count(b"fastgate_request_duration_seconds_count") == routes
    del kept


@pytest.mark.parametrize("exchanges", [100_000])
def test_counting_an_exchange(benchmark: Any, exchanges: int) -> None:
    counters = _core.Counters(["route"], ["upstream"])
    exchange = _core.SampleExchange(
        request_id="0" * 32, method="GET", status=200, attempts=1, bytes_out=100, total_ns=250_000,
        upstream_head_ns=200_000, route_index=0, upstream_index=0,
    )  # fmt: skip
    benchmark(_core.loop_count, counters, exchange, exchanges)
    benchmark.extra_info["ns_per_exchange"] = round(benchmark.stats.stats.median / exchanges * 1e9, 1)
