"""What it costs to read a target and find its route, in C.

    python -m pytest bench/micro/test_router.py --benchmark-columns=min,median,stddev

Each benchmarked call handles `PER_CALL` requests, so that the call itself does not count: a
millisecond of the table is 10 ns per request. `extra_info` of the JSON report names the nanoseconds.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from fastgate._core import RouteTable, measure_routing

PER_CALL = 100_000
DIFFERENT = 1000
HOST = b"api.example.com"


def route(name: str, **match: Any) -> Any:
    asked: dict[str, Any] = {
        "host": (), "path": None, "prefix": None, "regex": None, "methods": (),
        "headers": {}, "query": {}, "cookies": {}, **match,
    }  # fmt: skip
    return SimpleNamespace(name=name, match=SimpleNamespace(**asked))


def measure(benchmark: Any, heads: list[tuple[bytes, bytes]], table: RouteTable | None = None) -> None:
    rounds = PER_CALL // len(heads)
    count = rounds * len(heads)
    assert benchmark(measure_routing, heads, rounds, table) == count
    benchmark.extra_info["ns_per_request"] = round(benchmark.stats.stats.median / count * 1e9, 1)


@pytest.mark.parametrize(
    "target",
    [
        b"/",
        b"/orders/12345",
        b"/api/v1/customers/12345/orders/67890/items?expand=lines&page=2",
        b"/api/%7Euser/./orders",
    ],
)
def test_target(benchmark: Any, target: bytes) -> None:
    measure(benchmark, [(target, HOST)])


Made = tuple[Any, bytes, bytes]
KINDS: dict[str, Callable[[int], Made]] = {
    "exact": lambda i: (route(f"r{i}", path=f"/svc{i}/api/orders"), b"/svc%d/api/orders" % i, HOST),
    "prefix": lambda i: (
        route(f"r{i}", host=("api.example.com",), prefix=f"/svc{i}/api"),
        b"/svc%d/api/orders/1" % i,
        HOST,
    ),
    "host": lambda i: (
        route(f"r{i}", host=(f"h{i}.example.com",), prefix="/api"),
        b"/api/orders/1",
        b"h%d.example.com" % i,
    ),
    "template": lambda i: (
        route(f"r{i}", path=f"/svc{i}/{{id}}/orders/{{order}}"),
        b"/svc%d/12345/orders/9" % i,
        HOST,
    ),
    "regex": lambda i: (route(f"r{i}", regex=f"/svc{i}/[0-9]+/orders"), b"/svc%d/12345/orders" % i, HOST),
}


@pytest.mark.parametrize("count", [1, 100, 10_000])
@pytest.mark.parametrize("kind", KINDS)
def test_match(benchmark: Any, kind: str, count: int) -> None:
    """Reading the target and matching it; a request for each route, of a thousand routes at most."""
    if kind == "regex" and count > 1000:
        pytest.skip("a host with ten thousand regexes is not a case to be fast in")
    made = [KINDS[kind](i) for i in range(count)]
    table = RouteTable(enumerate(one for one, _, _ in made))
    asked = random.Random(1).sample(made, min(count, DIFFERENT))
    measure(benchmark, [(target, host) for _, target, host in asked], table)
