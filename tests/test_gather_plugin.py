"""``exchange.gather()`` in a plugin of a real gateway, before real upstreams, healthy and not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from msgspec import Struct, to_builtins

from fastgate.plugins import Exchange, PartsFailed, Plugin, Response, RetryPolicy
from fastgate.testing import Answer, Fields, GatewayUnderTest, Seen, run_gateway

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class User(Struct):
    id: int
    name: str


class Page(Plugin):
    """A page of a user: required, offers that are not, and orders for which the user is needed."""

    async def on_request(self, exchange: Exchange) -> Response | None:
        needed = exchange.request.headers.get("x-needed", "yes") == "yes"
        async with exchange.gather(timeout=2.0) as g:
            user = g.get(
                "users",
                "/users/{}",
                dict(exchange.request.query)["id"],
                type=User,
                required=needed,
                default=User(0, "nobody"),
                max_body=1000,
                timeout=1.0,
                statuses={404: 404},
            )
            offers = g.get("offers", "/offers", type=list[str], required=False, default=[])
            orders = g.get("orders", "/orders", query={"name": (await user).name})
        page = {"user": to_builtins(user.value), "offers": offers.value, "orders": orders.value}
        return Response(json=page)


class Misused(Plugin):
    """What may go wrong beside."""

    async def on_request(self, exchange: Exchange) -> Response | None:
        match exchange.request.path:
            case "/nobody":
                async with exchange.gather() as g:
                    g.get("nobody", "/")
            case "/header":
                async with exchange.gather() as g:
                    g.get("users", "/", headers={"Connection": "x"})
            case "/caught":
                try:
                    async with exchange.gather() as g:
                        g.get("users", "/", type=int)
                except PartsFailed as failed:
                    return Response(418, json={name: one.reason for name, one in failed.parts.items()})
            case "/left":
                left = exchange.time_left
                await exchange.subrequest("users")
                return Response(json=[left, exchange.time_left])
            case "/retry":
                retry = RetryPolicy(on=["status"], statuses=[503], backoff_base_ns=1_000_000)
                own = "own" in exchange.request.raw_query
                async with exchange.gather() as g:
                    user = g.get("users", "/", type=User, retry=retry if own else None)
                return Response(json=user.value.name)
            case "/unsafe":
                unsafe = RetryPolicy(on=["reset"], unsafe="always", backoff_base_ns=1_000_000)
                always = "always" in exchange.request.raw_query
                async with exchange.gather() as g:
                    order = g.post("orders", "/", json={"a": 1}, type=None, retry=unsafe if always else None)
                return Response(json=order.status)
            case "/subrequest":
                return Response(json=(await exchange.subrequest("users")).status)
            case "/kept":
                async with exchange.gather() as g:
                    kept = g.get("users", "/", type=User, cache=60)
                return Response(json=kept.value.name)
            case "/late":
                async with exchange.gather(timeout=100) as g:
                    g.get("users", "/", timeout=100)
            case "/many":
                async with exchange.gather() as g:
                    them = g.map(
                        range(1000),
                        lambda i: g.get("users", "/{}", i, type=int),
                        max_items=1000,
                        concurrency=8,
                    )
                return Response(json=them.value)
            case "/two":
                async with exchange.gather() as g, exchange.gather() as h:
                    one, two = g.get("users", "/1", type=None), h.get("users", "/2", type=None)
                return Response(json=[one.ok, two.ok])
        return None

    async def on_response(self, exchange: Exchange, response: Response) -> None:
        if exchange.request.path == "/response":
            async with exchange.gather() as g:
                g.get("users", "/", type=int)


TABLES: dict[str, Any] = {
    "listeners": [{"bind": "127.0.0.1:0"}],
    "upstreams": {
        name: {"endpoints": [f"{name}.internal:80"], "retry": {"on": ["reset"], "backoff_base": "1ms"}}
        for name in ("users", "orders", "offers")
    },
    "routes": [
        {"name": "page", "match": {"path": "/page"}, "respond": {"status": 500}, "plugins": ["page"]},
        {"name": "other", "respond": {"status": 200}, "plugins": ["misused"]},
    ],
    "plugins": {"page": {"use": "Page"}, "misused": {"use": "Misused"}},
}


@pytest.fixture
async def gw() -> AsyncIterator[GatewayUnderTest]:
    async with run_gateway(TABLES, plugins=[Page, Misused]) as gateway:
        gateway.upstream("users").reply(json={"id": 7, "name": "a&b"})
        gateway.upstream("offers").reply(json=["one"])
        gateway.upstream("orders").reply(json=[{"id": 1}])
        yield gateway
        await under_way(gateway, 0)


async def under_way(gw: GatewayUnderTest, count: int) -> None:
    """Waits until so many exchanges are, clients' and parts."""
    async with asyncio.timeout(5):
        while gw.gateway._running().worker.exchanges != count:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_a_page(gw: GatewayUnderTest) -> None:
    answer = await gw.get("/page?id=7", headers={"traceparent": TRACE, "x-request-id": "abc"})
    assert answer.json() == {"user": {"id": 7, "name": "a&b"}, "offers": ["one"], "orders": [{"id": 1}]}
    [user] = gw.upstream("users").requests
    assert user.target == "/users/7"
    assert user.headers["traceparent"].startswith(TRACE[:36])
    [orders] = gw.upstream("orders").requests
    assert user.headers["x-request-id"] == orders.headers["x-request-id"]
    assert orders.target == "/orders?name=a%26b"


@pytest.mark.parametrize(
    ("given", "target"),
    [("a%2Fb", "/users/a%2Fb"), ("%3Fx=1", "/users/%3Fx%3D1"), ("%C3%A9", "/users/%C3%A9")],
)
async def test_values_of_the_client_stay_values(gw: GatewayUnderTest, given: str, target: str) -> None:
    assert (await gw.get(f"/page?id={given}")).status == 200
    assert gw.upstream("users").requests[0].target == target


@pytest.mark.parametrize("given", ["..", "", "..%2F..%2Fadmin", "%00"])
async def test_values_that_would_be_more(gw: GatewayUnderTest, given: str) -> None:
    answer = await gw.get(f"/page?id={given}")
    assert (answer.status, answer.code) == (502, "aggregate-failed")
    assert answer.json()["parts"] == [{"part": "users", "reason": "part-value"}]
    assert gw.upstream("users").requests == []


Plan = Callable[[Any], object]
FAULTS: dict[str, tuple[Plan, int, str, dict[str, Any]]] = {
    "refused": (lambda it: it.fail("refuse"), 502, "aggregate-failed", {"reason": "connect-refused"}),
    "reset": (lambda it: it.fail("reset"), 502, "aggregate-failed", {"reason": "upstream-reset"}),
    "cut": (
        lambda it: (it.reply(body="x" * 100), it.fail("truncate")),
        502,
        "aggregate-failed",
        {"reason": "upstream-truncated"},
    ),
    "500": (lambda it: it.reply(500), 502, "aggregate-failed", {"reason": "part-status", "status": 500}),
    "404": (lambda it: it.reply(404), 404, "aggregate-failed", {"reason": "part-status", "status": 404}),
    "bad JSON": (
        lambda it: it.reply(body="{"),
        502,
        "aggregate-failed",
        {"reason": "part-body", "status": 200},
    ),
    "wrong type": (
        lambda it: it.reply(json=[]),
        502,
        "aggregate-failed",
        {"reason": "part-type", "status": 200},
    ),
    "too large": (
        lambda it: it.reply(json={"id": 7, "name": "x" * 2000}),
        502,
        "aggregate-failed",
        {"reason": "part-too-large", "status": 200},
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_of_what_is_required(gw: GatewayUnderTest, fault: str) -> None:
    plan, status, code, told = FAULTS[fault]
    plan(gw.upstream("users"))
    gw.upstream("offers").fail("hang")
    answer = await gw.get("/page?id=7")
    assert (answer.status, answer.code) == (status, code)
    assert answer.json()["parts"] == [{"part": "users", **told}]
    assert answer.headers["cache-control"] == "no-store"
    assert gw.upstream("orders").requests == []
    assert gw.count()["plugins"]["page"].get("failures", 0) == 0


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_of_what_is_not(gw: GatewayUnderTest, fault: str) -> None:
    FAULTS[fault][0](gw.upstream("users"))
    FAULTS[fault][0](gw.upstream("offers"))
    answer = await gw.get("/page?id=7", headers={"x-needed": "no"})
    assert answer.status == 200
    assert answer.json()["user"] == {"id": 0, "name": "nobody"}
    assert answer.json()["offers"] == []


async def test_a_part_that_hangs(gw: GatewayUnderTest) -> None:
    gw.upstream("users").fail("hang")
    gw.upstream("offers").fail("hang")
    asking = asyncio.create_task(gw.get("/page?id=7"))
    await gw.upstream("users").received()
    gw.clock.advance(1.1)
    answer = await asking
    assert (answer.status, answer.code) == (504, "aggregate-timeout")
    assert answer.json()["parts"] == [{"part": "users", "reason": "part-timeout"}]


async def test_an_optional_part_that_hangs_as_long_as_the_whole_may(gw: GatewayUnderTest) -> None:
    gw.upstream("offers").fail("hang")
    asking = asyncio.create_task(gw.get("/page?id=7"))
    await gw.upstream("offers").received()
    await gw.upstream("orders").received()
    await under_way(gw, 2)
    gw.clock.advance(2.1)
    answer = await asking
    assert answer.status == 200
    assert answer.json()["offers"] == []


async def test_the_block_ends_before_the_plugins_time(gw: GatewayUnderTest) -> None:
    gw.upstream("users").fail("hang")
    asking = asyncio.create_task(gw.get("/late"))
    await gw.upstream("users").received()
    gw.clock.advance(4.95)  # of 5 s
    answer = await asking
    assert (answer.status, answer.code) == (504, "aggregate-timeout")


async def test_time_left(gw: GatewayUnderTest) -> None:
    async def slow(seen: Seen) -> Answer:
        gw.clock.advance(2)
        return Answer(200, Fields(()), b"")

    gw.upstream("users").handle(slow)
    before, after = (await gw.get("/left")).json()
    assert 4.5 < before <= 5
    assert 2.5 < after <= 3


async def test_the_client_leaves(gw: GatewayUnderTest) -> None:
    gw.upstream("users").fail("hang")
    gw.upstream("offers").fail("hang")
    host, _, port = gw.gateway.address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /page?id=7 HTTP/1.1\r\nHost: x\r\n\r\n")
    await gw.upstream("users").received()
    await gw.upstream("offers").received()
    await under_way(gw, 3)
    writer.close()
    await under_way(gw, 0)
    assert gw.upstream("orders").requests == []


async def test_a_thousand_elements(gw: GatewayUnderTest) -> None:
    active, most = 0, 0

    async def answer(seen: Seen) -> Answer:
        nonlocal active, most
        active += 1
        most = max(most, active)
        await asyncio.sleep(0)
        active -= 1
        return Answer(200, Fields(()), seen.target[1:].encode())

    gw.upstream("users").handle(answer)
    assert (await gw.get("/many")).json() == list(range(1000))
    assert most <= 8


async def test_a_failure_that_the_plugin_catches(gw: GatewayUnderTest) -> None:
    answer = await gw.get("/caught")
    assert (answer.status, answer.json()) == (418, {"users": "part-type"})


async def test_parts_are_tried_again_as_the_upstream_says(gw: GatewayUnderTest) -> None:
    gw.upstream("users").fail("reset", times=1)
    assert (await gw.get("/retry")).json() == "a&b"
    assert len(gw.upstream("users").requests) == 2
    gw.upstream("users").reply(503, times=1)
    assert (await gw.get("/retry")).code == "aggregate-failed"


async def test_a_part_has_a_retry_of_its_own(gw: GatewayUnderTest) -> None:
    gw.upstream("users").fail("reset", times=1)
    assert (await gw.get("/retry?own")).code == "aggregate-failed"
    gw.upstream("users").reply(503, times=1)
    assert (await gw.get("/retry?own")).json() == "a&b"
    assert len(gw.upstream("users").requests) == 3


async def test_only_who_says_so_sends_a_post_twice(gw: GatewayUnderTest) -> None:
    gw.upstream("orders").fail("reset", times=1)
    assert (await gw.get("/unsafe")).code == "aggregate-failed"
    assert len(gw.upstream("orders").requests) == 1
    gw.upstream("orders").fail("reset", times=1)
    assert (await gw.get("/unsafe?always")).json() == 200
    assert [seen.json() for seen in gw.upstream("orders").requests] == [{"a": 1}] * 3


async def test_a_subrequest_is_sent_once(gw: GatewayUnderTest) -> None:
    gw.upstream("users").fail("reset", times=1)
    assert (await gw.get("/subrequest")).status == 500
    assert len(gw.upstream("users").requests) == 1


async def test_an_answer_is_kept_for_other_exchanges_with_the_same_host(gw: GatewayUnderTest) -> None:
    for host in ("a.test", "a.test", "b.test"):
        assert (await gw.get("/kept", headers={"host": host})).json() == "a&b"
    assert [seen.headers["host"] for seen in gw.upstream("users").requests] == ["a.test", "b.test"]
    await gw.reload(TABLES)
    assert (await gw.get("/kept", headers={"host": "a.test"})).json() == "a&b"
    assert len(gw.upstream("users").requests) == 3


async def test_two_blocks(gw: GatewayUnderTest) -> None:
    assert (await gw.get("/two")).json() == [True, True]


async def test_a_failure_in_on_response(gw: GatewayUnderTest) -> None:
    answer = await gw.get("/response")
    assert (answer.status, answer.code) == (502, "aggregate-failed")


@pytest.mark.parametrize("path", ["/nobody", "/header"])
async def test_defects_of_a_plugin(gw: GatewayUnderTest, path: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.CRITICAL, "fastgate.plugins"):
        answer = await gw.get(path)
    assert (answer.status, answer.code) == (500, "plugin-failed")


async def test_report_only_lets_it_pass() -> None:
    tables = {
        **TABLES,
        "plugins": {**TABLES["plugins"], "page": {"use": "Page", "report_only": True}},
        "routes": [{"name": "page", "respond": {"status": 201}, "plugins": ["page"]}],
    }
    async with run_gateway(tables, plugins=[Page, Misused]) as gw:
        gw.upstream("users").fail("refuse")
        assert (await gw.get("/page?id=7")).status == 201
        assert gw.count()["plugins"]["page"]["reported"] == 1


async def test_an_error_for_a_client_that_takes_text(gw: GatewayUnderTest) -> None:
    gw.upstream("users").fail("refuse")
    answer = await gw.get("/page?id=7", headers={"Accept": "text/plain"})
    assert answer.status == 502
    assert answer.text.startswith("502 Bad Gateway\naggregate-failed: ")
