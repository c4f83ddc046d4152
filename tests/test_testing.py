"""`fastgate.testing`: the gateway under test, its fake upstreams, its clock."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from support.gateway import ROOT, to_toml

from fastgate.plugins import Clock, Exchange, Host, Plugin, Response
from fastgate.testing import Answer, CutShort, Fields, GatewayUnderTest, Seen, SyncGatewayUnderTest

Start = Callable[..., AbstractAsyncContextManager[GatewayUnderTest]]
StartSync = Callable[..., AbstractContextManager[SyncGatewayUnderTest]]

TABLES: dict[str, Any] = {
    # Nothing of this can be had where tests run.
    "admin": {"bind": "127.0.0.1:1"},
    "access_log": {"path": "/nowhere/access.log"},
    "listeners": [
        {"name": "public", "bind": "192.0.2.1:80"},
        {"name": "office", "bind": "unix:/nowhere/x.sock"},
    ],
    "upstreams": {
        "orders": {
            "endpoints": ["https://orders.invalid", "https://10.255.0.1"],
            "health": {"path": "/healthz"},
        },
        "users": {"endpoints_file": "users.json"},
    },
    "routes": [
        {"name": "orders", "match": {"prefix": "/orders"}, "upstream": "orders", "listeners": ["public"]},
        {"name": "users", "match": {"prefix": "/users"}, "upstream": "users", "plugins": ["limit"]},
    ],
    "plugins": {"limit": {"use": "rate-limit", "rate": "1/m"}},
}


async def test_every_upstream_is_a_fake_one(fastgate_gateway: Start) -> None:
    async with fastgate_gateway(TABLES) as gw:
        gw.upstream("orders").reply(201, json={"ok": True}, headers={"x-made": "here"})
        answer = await gw.post("/orders/1?a=b", json=[1, 2], headers={"X-User": "ann"}, host="shop.example")
        assert (answer.status, answer.json(), answer.headers["X-Made"]) == (201, {"ok": True}, "here")
        [seen] = gw.upstream("orders").requests
        assert (seen.method, seen.path, seen.query, seen.json()) == ("POST", "/orders/1", "a=b", [1, 2])
        assert (seen.headers["x-user"], seen.headers["host"]) == ("ann", "shop.example")
        assert gw.upstream("users").requests == []
        assert (await gw.get("/users")).status == 200
        answer = await gw.get("/orders", listener="office")
        assert (answer.status, answer.code) == (404, "no-route")
        with pytest.raises(LookupError, match="nobody"):
            gw.upstream("nobody")
        assert gw.explain("GET", "/users/7").route == "users"
        assert gw.count()["routes"]["orders"]["exchanges"] == 1


@pytest.mark.parametrize("method", ["get", "head", "post", "put", "patch", "delete", "options"])
async def test_methods(fastgate_gateway: Start, method: str) -> None:
    async with fastgate_gateway(TABLES) as gw:
        gw.upstream("orders").reply(200, body="text")
        answer = await getattr(gw, method)("/orders")
        assert (answer.status, answer.text) == (200, "" if method == "head" else "text")
        assert gw.upstream("orders").requests[0].method == method.upper()


async def test_replies_in_their_order(fastgate_gateway: Start) -> None:
    async with fastgate_gateway(TABLES) as gw:
        orders = gw.upstream("orders")
        orders.reply(200)
        orders.reply(500, times=1)
        orders.reply(404, times=2)
        assert [(await gw.get("/orders")).status for _ in range(5)] == [500, 404, 404, 200, 200]
        orders.reply(500, times=1)
        orders.reply(204)  # takes the place of all that was planned
        assert (await gw.get("/orders")).status == 204


async def test_a_handler_makes_the_answer(fastgate_gateway: Start) -> None:
    async def late(seen: Seen) -> Answer:
        await asyncio.sleep(0)
        return Answer(200, Fields([]), seen.target.encode())

    async with fastgate_gateway(TABLES) as gw:
        gw.upstream("orders").handle(late)
        gw.upstream("orders").handle(lambda seen: Answer(418, Fields([("x-a", "b")]), b""), times=1)
        assert (await gw.get("/orders/1")).status == 418
        assert (await gw.get("/orders/2")).text == "/orders/2"


async def test_faults(fastgate_gateway: Start) -> None:
    async with fastgate_gateway(TABLES) as gw:
        orders = gw.upstream("orders")
        orders.reply(200, body="whole")
        orders.fail("reset", times=1)
        assert (await gw.post("/orders")).code == "upstream-reset"
        orders.fail("truncate", times=1)
        with pytest.raises(CutShort) as cut:
            await gw.get("/orders")
        assert cut.value.answer is not None
        assert (cut.value.answer.status, cut.value.answer.text) == (200, "wh")
        orders.fail("delay", times=1, seconds=0.05)
        began = asyncio.get_running_loop().time()
        assert (await gw.get("/orders")).text == "whole"
        assert asyncio.get_running_loop().time() - began >= 0.04
        address = orders.address
        orders.fail("refuse")
        assert [(await gw.get("/orders")).code for _ in range(2)] == ["connect-refused"] * 2
        orders.reply(200, body="back")
        assert (orders.address, (await gw.get("/orders")).text) == (address, "back")
        with pytest.raises(ValueError, match="times"):
            orders.fail("refuse", times=1)


async def test_what_hangs_meets_a_deadline(fastgate_gateway: Start) -> None:
    async with fastgate_gateway(TABLES) as gw:
        gw.upstream("orders").fail("hang")
        asking = asyncio.create_task(gw.get("/orders"))
        await gw.upstream("orders").received()
        gw.clock.advance(59)
        await asyncio.sleep(0.05)
        assert not asking.done()
        gw.clock.advance(2)  # timeouts.head is 60 s
        answer = await asking
        assert (answer.status, answer.code) == (504, "upstream-head-timeout")
        with pytest.raises(TimeoutError):
            await gw.upstream("orders").received(2, timeout=0.01)


async def test_buckets_fill_as_time_goes_on(fastgate_gateway: Start) -> None:
    async with fastgate_gateway(TABLES) as gw:
        assert [(await gw.get("/users")).status for _ in range(2)] == [200, 429]
        gw.clock.advance(61)
        assert [(await gw.get("/users")).status for _ in range(2)] == [200, 429]


class Watch(Plugin):
    """Answers with the time."""

    clock: Clock

    def provision(self, host: Host) -> None:
        self.clock = host.clock

    def on_request(self, exchange: Exchange) -> Response:
        return Response(json=[self.clock.now(), self.clock.monotonic()])


async def test_plugins_see_the_same_time(fastgate_gateway: Start) -> None:
    tables = {
        "listeners": [{"bind": "127.0.0.1:80"}],
        "routes": [{"name": "time", "respond": {"status": 200}, "plugins": ["watch"]}],
        "plugins": {"watch": {"use": "Watch"}},
    }
    async with fastgate_gateway(tables, plugins=[Watch]) as gw:
        before = (await gw.get("/")).json()
        assert before == pytest.approx([gw.clock.now(), gw.clock.monotonic()], abs=1)
        gw.clock.advance(3600)
        after = (await gw.get("/")).json()
        assert [b - a for a, b in zip(before, after, strict=True)] == pytest.approx([3600, 3600], abs=1)
        with pytest.raises(ValueError, match="forward"):
            gw.clock.advance(-1)


async def test_the_systems_time_is_back_when_the_last_gateway_has_ended(fastgate_gateway: Start) -> None:
    async with fastgate_gateway(TABLES) as first:
        async with fastgate_gateway(TABLES) as second:
            second.clock.advance(3600)
        assert first.clock.now() > time.time() + 3500
        assert first.clock.monotonic() > time.monotonic() + 3500
    async with fastgate_gateway(TABLES) as next_one:
        assert next_one.clock.now() == pytest.approx(time.time(), abs=10)
        assert next_one.clock.monotonic() == pytest.approx(time.monotonic(), abs=10)


async def test_reload(fastgate_gateway: Start) -> None:
    async with fastgate_gateway(TABLES) as gw:
        gw.upstream("orders").reply(202)
        shop = {"name": "shop", "match": {"prefix": "/shop"}, "upstream": "shop"}
        await gw.reload(
            {
                **TABLES,
                "upstreams": {**TABLES["upstreams"], "shop": {"endpoints": ["shop.invalid:1"]}},
                "routes": [*TABLES["routes"], shop],
            }
        )
        assert (await gw.get("/orders")).status == 202
        assert (await gw.get("/shop")).status == 200
        assert len(gw.upstream("shop").requests) == 1


async def test_a_file_and_a_real_upstream(fastgate_gateway: Start, tmp_path: Path) -> None:
    async with fastgate_gateway(TABLES) as behind:
        behind.upstream("orders").reply(body="from behind")
        tables = {
            "listeners": [{"bind": "127.0.0.1:80"}],
            "upstreams": {"next": {"endpoints": [behind.gateway.address]}},
            "routes": [{"name": "all", "upstream": "next"}],
        }
        file = tmp_path / "gateway.toml"
        file.write_text(to_toml(tables))
        async with fastgate_gateway(file, real=["next"]) as gw:
            assert (await gw.get("/orders")).text == "from behind"


def test_without_coroutines(fastgate_gateway_sync: StartSync) -> None:
    with fastgate_gateway_sync(TABLES) as gw:
        orders = gw.upstream("orders")
        orders.reply(200, json={"ok": True})
        assert gw.get("/orders").json() == {"ok": True}
        assert gw.post("/orders", json=1).status == 200
        assert [seen.method for seen in orders.received(2)] == ["GET", "POST"]
        orders.fail("reset", times=1)
        assert gw.post("/orders").code == "upstream-reset"
        orders.handle(lambda seen: Answer(418, Fields([]), b""))
        assert gw.delete("/orders").status == 418
        assert [gw.get("/users").status for _ in range(2)] == [200, 429]
        gw.clock.advance(61)
        assert gw.get("/users").status == 200
        assert gw.explain("GET", "/users").route == "users"
        gw.reload({**TABLES, "routes": TABLES["routes"][1:]})
        assert gw.get("/orders").code == "no-route"
        assert gw.count()["routes"]["users"]["exchanges"] == 3


def test_several_at_one_time(fastgate_gateway_sync: StartSync) -> None:
    with fastgate_gateway_sync(TABLES) as one, fastgate_gateway_sync(TABLES) as two:
        one.upstream("orders").reply(201)
        two.upstream("orders").reply(202)
        assert (one.get("/orders").status, two.get("/orders").status) == (201, 202)


def test_as_a_plugin_it_costs_nothing() -> None:
    code = (
        "import pytest, sys; before = set(sys.modules); import fastgate.testing; "
        "assert not {'asyncio', 'h11', 'fastgate._core'} & (set(sys.modules) - before)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=30)
