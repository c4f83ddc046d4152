"""Aggregation without its sending: five answers of 2 KiB of JSON decoded, shaped, merged and written as one.

The printed time is of one client request with five parts.

    python -m pytest bench/micro/test_aggregate.py --benchmark-only
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from fastgate.aggregation.decoders import decode_body
from fastgate.aggregation.merge import Merger
from fastgate.aggregation.shape import compile_shape
from fastgate.config.model import Aggregate, Part

NAMES = ("user", "orders", "cart", "offers", "stock")
BODIES = {
    name: json.dumps(
        {
            "id": 1000 + i,
            "name": name * 8,
            f"{name}_items": [
                {"sku": f"sku-{n}", "price": 1.25 * n, "count": n, "tags": ["new", "blue"]} for n in range(32)
            ],
        },
        separators=(",", ":"),
    ).encode()
    for i, name in enumerate(NAMES)
}
CONTENT_TYPE = "application/json; charset=utf-8"


def one_request(**keys: Any) -> Callable[[], bytes]:
    """keys: of each part, where "NAME" stands for the part's name."""

    def of(name: str, value: Any) -> Any:
        if isinstance(value, str):
            return value.replace("NAME", name)
        return tuple(of(name, one) for one in value)

    parts = {
        name: Part(upstream=name, **{key: of(name, value) for key, value in keys.items()}) for name in NAMES
    }
    merger = Merger(Aggregate(parts=parts))
    shapes = {name: compile_shape(part, lambda one: lambda *_: True) for name, part in parts.items()}
    opening = {name: merger.at_top(name) and shapes[name] is None for name in parts}

    def run() -> bytes:
        values = {}
        for name, body in BODIES.items():
            value = decode_body(body, CONTENT_TYPE, "auto", opening=opening[name])
            shape = shapes[name]
            if shape is not None:
                value = shape(value, None)
            values[name] = merger.fitted(name, value)
        return merger.merge(values).encode()

    return run


def test_groups(benchmark: BenchmarkFixture) -> None:
    run = one_request(group="NAME")
    assert json.loads(run()) == {name: json.loads(body) for name, body in BODIES.items()}
    benchmark(run)


def test_members_at_the_top(benchmark: BenchmarkFixture) -> None:
    # Each part has members that no other has, but for two that are dropped.
    run = one_request(drop=("id", "name"))
    assert list(json.loads(run())) == [f"{name}_items" for name in NAMES]
    benchmark(run)


def test_groups_below_a_group(benchmark: BenchmarkFixture) -> None:
    run = one_request(group="page.NAME")
    assert list(json.loads(run())["page"]) == list(NAMES)
    benchmark(run)


@pytest.mark.parametrize(
    ("keys", "first"),
    [
        ({"pick": ("id", "name")}, '{"id":1000,"name"'),
        ({"pick": ("NAME_items[].sku",)}, '{"user_items":[{"sku":"sku-0"},{"sku"'),
        ({"jmespath": "NAME_items[].{sku: sku}"}, '[{"sku":"sku-0"},{"sku"'),
    ],
    ids=["two-members", "a-member-of-each", "jmespath"],
)
def test_shapes(benchmark: BenchmarkFixture, keys: dict[str, Any], first: str) -> None:
    run = one_request(group="NAME", **keys)
    assert run().decode().startswith('{"user":' + first)
    benchmark(run)


def test_json_there_and_back(benchmark: BenchmarkFixture) -> None:
    # What it is to be measured by: Python's own objects of everything, by the quickest library for that.
    import orjson

    benchmark(lambda: orjson.dumps({name: orjson.loads(body) for name, body in BODIES.items()}))
