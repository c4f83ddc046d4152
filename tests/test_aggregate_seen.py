"""What an operator sees of aggregations: parts in the metrics, the waterfall of a request in `fastgate why`,
Server-Timing for a request that asks for it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from support import upstream as up
from support.gateway import ROOT, Gateway, config
from support.metrics import scrape
from support.parts import Parts, reply_json

from fastgate.telemetry.asking import HEADER, sign

KEY = "k" * 32


class World:
    def __init__(self, gateway: Gateway, parts: Parts) -> None:
        self.gateway, self.parts = gateway, parts

    def get(self, target: str, *lines: str) -> Any:
        with self.gateway.client() as client:
            return client.get(target, *lines)


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:
        parts = stack.enter_context(Parts())
        order = {"upstream": "up", "path": "/order", "group": "order"}
        items = {
            "upstream": "up",
            "path": "/items/{item}",
            "for_each": {"list": "{part.order.items}"},
            "group": "items",
        }
        again = {"upstream": "up", "path": "/order", "group": "again"}
        kept = {"upstream": "up", "path": "/kept", "group": "kept", "cache": "1m"}
        reviews = {"upstream": "up", "path": "/reviews", "group": "reviews", "required": False}
        never = {
            "upstream": "up", "path": "/never", "group": "never", "when": {"value": "{query.all}"},
        }  # fmt: skip
        parts_of = {
            "order": order, "items": items, "again": again, "kept": kept, "reviews": reviews, "never": never,
        }  # fmt: skip
        tables = config(
            admin={"bind": "127.0.0.1:0"},
            upstreams={"up": {"endpoints": [parts.address]}},
            routes=[{"name": "page", "match": {"path": "/page"}, "aggregate": {"parts": parts_of}}],
        )
        tables["why"] = {"key": KEY}
        gateway = stack.enter_context(Gateway(tables, tmp_path_factory.mktemp("seen")))
        parts.answers |= {
            "/order": reply_json({"items": [1, 2]}),
            "/items/1": reply_json("one"),
            "/items/2": reply_json("two"),
            "/kept": reply_json("kept"),
            "/reviews": up.reply(500),
        }
        yield World(gateway, parts)


def test_metrics(world: World) -> None:
    for _ in range(3):
        assert world.get("/page").status == 200
    found = scrape(world.gateway)
    parts = "fastgate_aggregate_parts_total"
    assert found.one(parts, route="page", part="order", result="ok") == 3
    assert found.one(parts, route="page", part="reviews", result="failed") == 3
    assert found.one(parts, route="page", part="never", result="skipped") == 3
    spared = "fastgate_aggregate_part_requests_spared_total"
    assert found.one(spared, route="page", part="again", how="coalesced") == 3
    assert found.one(spared, route="page", part="kept", how="cached") == 2
    took = "fastgate_aggregate_part_request_duration_seconds_count"
    assert found.one(took, route="page", part="items") == 6


def test_why(world: World) -> None:
    since = world.gateway.mark()
    assert world.get("/page").status == 200  # it is partial, and so kept
    (line,) = world.gateway.wait_log(since)
    trace = world.gateway.admin(f"/requests/{line['request_id']}")
    steps = [step for step in trace["steps"] if step["step"] == "part"]
    assert {step["name"] for step in steps} == {
        "order", "again", "items[0]", "items[1]", "kept", "reviews",
    }  # fmt: skip
    by_name = {step["name"]: step for step in steps}
    assert by_name["order"]["upstream"] == "up"
    assert by_name["order"]["endpoint"] == world.parts.address
    assert by_name["order"]["status"] == 200
    assert by_name["items[1]"]["at"] >= by_name["order"]["at"] + by_name["order"]["took"]
    assert (by_name["reviews"]["status"], trace["reason"]) == (500, "aggregate-partial")
    where = world.gateway.addresses["admin API"]
    command = [
        sys.executable, "-m", "fastgate", "why", "--admin", f"{where[0]}:{where[1]}", line["request_id"],
    ]  # fmt: skip
    told = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=30, check=True).stdout
    assert "status 200, reason aggregate-partial (reviews: part-status: status 500)" in told
    rows = [line.split("|") for line in told.splitlines() if line.count("|") == 2]
    assert {row[0].strip() for row in rows} == set(by_name)
    assert all(len(row[1]) == 50 for row in rows)


def test_timing_for_who_asks(world: World) -> None:
    value = sign(KEY, int(time.time()) + 30, "GET", "test.example", "/page")
    response = world.get("/page", f"{HEADER}: {value}")
    timings = response.all("server-timing")
    assert sum('part;desc="order"' in one for one in timings) == 1
    assert sum('part;desc="items[0]"' in one for one in timings) == 1
    assert not any(name.lower() == "server-timing" for name, _ in world.get("/page").fields)
