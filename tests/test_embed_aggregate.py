"""``@gateway.aggregate``: routes of an embedded gateway that async functions answer."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import httpx
import pytest
import uvloop
from msgspec import Meta, Raw, Struct
from support.gateway import ROOT, to_toml
from support.gateway import config as tables_of
from support.upstream import Upstream

from fastgate import ConfigError, Gateway, ReloadError
from fastgate.plugins import Exchange, Gather, PartsFailed, Plugin, Response
from fastgate.testing import FakeServices, GatewayUnderTest, fake_exchange, run_gateway


class Order(Struct):
    id: int
    total: Decimal
    user: int


class User(Struct):
    id: int
    name: str


@dataclass
class Page:
    order: Order
    name: str
    offers: Any


class Guard(Plugin):
    async def on_request(self, exchange: Exchange) -> Response | None:
        return None if "x-key" in exchange.request.headers else exchange.refuse(401, "no-key")


def tables(**more: Any) -> dict[str, Any]:
    return {
        "access_log": {"enabled": False},
        "listeners": [{"name": "main", "bind": "127.0.0.1:0"}],
        "upstreams": {name: {"endpoints": [f"{name}.internal:80"]} for name in ("orders", "users", "offers")},
        "routes": [{"name": "rest", "respond": {"status": 200, "body": "rest"}}],
        "plugins": {"guard": {"use": "Guard"}},
        **more,
    }


async def order_page(exchange: Exchange, g: Gather, id: int) -> Page:
    order = g.get("orders", "/orders/{}", id, type=Order, statuses={404: 404})
    offers = g.get("offers", "/", type=Raw, required=False, default=None)
    user = await g.get("users", "/users/{}", (await order).user, type=User)
    return Page(order=await order, name=user.name, offers=await offers)


@pytest.fixture
def gateway() -> Gateway:
    return Gateway(tables(), plugins=[Guard])


def healthy(gw: GatewayUnderTest | FakeServices) -> None:
    upstream = gw.upstream if isinstance(gw, GatewayUnderTest) else gw.__getitem__
    upstream("orders").reply(body='{"id":7,"total":2.50,"user":1}', headers={"cache-control": "max-age=60"})
    upstream("users").reply(
        json={"id": 1, "name": "ann"}, headers={"cache-control": "max-age=30", "set-cookie": "a=b"}
    )
    upstream("offers").reply(
        body='[1.10,{"n":123456789012345678901}]', headers={"cache-control": "max-age=90"}
    )


async def test_a_page(gateway: Gateway) -> None:
    assert gateway.aggregate("/pages/{id}")(order_page) is order_page
    assert gateway.explain("GET", "/pages/7").route == "order-page"
    assert gateway.explain("POST", "/pages/7").route == "rest"
    async with run_gateway(gateway.config) as gw:
        healthy(gw)
        answer = await gw.get("/pages/7")
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "private, max-age=30"
        assert "set-cookie" not in answer.headers
        assert answer.body == (
            b'{"order":{"id":7,"total":2.50,"user":1},"name":"ann","offers":[1.10,{"n":123456789012345678901}]}'
        )
        assert (await gw.get("/else")).text == "rest"


async def test_without_a_socket() -> None:
    services = FakeServices("orders", "users", "offers")
    healthy(services)
    services["offers"].fail("hang")
    async with services.gather() as g:
        page = await order_page(fake_exchange(services), g, 7)
    assert page == Page(Order(7, Decimal("2.50"), 1), "ann", None)
    services["orders"].reply(404)
    with pytest.raises(PartsFailed) as caught:
        async with services.gather() as g:
            await order_page(fake_exchange(services), g, 8)
    assert caught.value.status == 404


async def test_parts_that_fail(gateway: Gateway) -> None:
    gateway.aggregate("/pages/{id}")(order_page)
    async with run_gateway(gateway.config) as gw:
        healthy(gw)
        gw.upstream("offers").fail("refuse")
        answer = await gw.get("/pages/7")
        assert answer.json()["offers"] is None
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["fastgate-partial"] == '"offers";reason=connect-refused'
        gw.upstream("orders").reply(404)
        answer = await gw.get("/pages/7")
        assert (answer.status, answer.code) == (404, "aggregate-failed")
        assert answer.json()["parts"][0] == {"part": "orders", "reason": "part-status", "status": 404}


async def test_a_part_that_is_kept(gateway: Gateway) -> None:
    @gateway.aggregate("/users/{id}")
    async def user(exchange: Exchange, g: Gather, id: int) -> User:
        return await g.get("users", "/users/{}", id, type=User, cache=60)

    async with run_gateway(gateway.config) as gw:
        gw.upstream("users").reply(
            json={"id": 1, "name": "ann"}, headers={"cache-control": "max-age=30", "age": "10"}
        )
        for seconds, most, asked in ((0, 20, 1), (10, 10, 1), (10, 20, 2)):
            gw.clock.advance(seconds)
            answer = await gw.get("/users/1", headers={"host": "t.example"})
            assert answer.json() == {"id": 1, "name": "ann"}
            said, _, left = answer.headers["cache-control"].partition("=")
            assert said == "private, max-age"
            assert 0 < int(left) <= most
            assert len(gw.upstream("users").requests) == asked


async def answer(
    gateway: Gateway, function: Any, path: str = "/x", target: str = "/x", **options: Any
) -> Any:
    gateway.aggregate(path, **options)(function)
    async with run_gateway(gateway.config) as gw:
        return await gw.get(target)


@pytest.mark.parametrize(
    ("kind", "given", "value"),
    [
        (int, "7", 7),
        (int, "-7", -7),
        (str, "a%20b", "a b"),
        (str, "%C3%A9", "é"),
        (UUID, "00000000-0000-0000-0000-000000000001", UUID(int=1)),
        (bool, "true", True),
        (Literal["a", "b"], "b", "b"),
        (Annotated[int, Meta(ge=1)], "1", 1),
    ],
)
async def test_segments_have_types(gateway: Gateway, kind: Any, given: str, value: object) -> None:
    seen = []

    async def function(exchange: Exchange, g: Gather, id: Any) -> None:
        seen.append(id)

    function.__annotations__["id"] = kind
    got = await answer(gateway, function, "/x/{id}", f"/x/{given}")
    assert (got.status, got.body) == (200, b"null")
    assert seen == [value]


@pytest.mark.parametrize(
    ("kind", "given"),
    [(int, "x"), (int, "7x"), (int, "%FF"), (str, "%FF"), (Annotated[int, Meta(ge=1)], "0"), (bool, "yes!")],
)
async def test_segments_that_do_not_fit(gateway: Gateway, kind: Any, given: str) -> None:
    async def function(exchange: Exchange, g: Gather, id: Any) -> None:
        raise AssertionError

    function.__annotations__["id"] = kind
    got = await answer(gateway, function, "/x/{id}", f"/x/{given}")
    assert (got.status, got.code) == (400, "aggregate-request")


async def test_what_it_may_return(gateway: Gateway) -> None:
    async def struct(exchange: Exchange, g: Gather) -> User:
        return User(1, "ann")

    async def response(exchange: Exchange, g: Gather) -> Response:
        return Response(201, body="made", headers={"set-cookie": "a=b"})

    async def mapping(exchange: Exchange, g: Gather, *, more: int = 1) -> dict[str, Any]:
        return {"more": more}

    async def nothing(exchange: Exchange, g: Gather) -> object:
        return object()

    for function in (struct, response, mapping, nothing):
        gateway.aggregate(f"/{function.__name__}")(function)
    async with run_gateway(gateway.config) as gw:
        assert (await gw.get("/struct")).json() == {"id": 1, "name": "ann"}
        made = await gw.get("/response")
        assert (made.status, made.text, made.headers["set-cookie"]) == (201, "made", "a=b")
        assert (await gw.get("/mapping")).json() == {"more": 1}
        assert (await gw.get("/nothing")).code == "plugin-failed"


async def test_options(gateway: Gateway) -> None:
    @gateway.aggregate("/any", policy="any", timeout=1.0, methods=["GET", "HEAD"], name="some")
    async def function(exchange: Exchange, g: Gather) -> Any:
        parts = [g.get(name, "/") for name in ("users", "offers")]
        await g.wait()
        return [part.ok for part in parts]

    async with run_gateway(gateway.config) as gw:
        gw.upstream("users").fail("refuse")
        gw.upstream("offers").reply(json=1)
        assert (await gw.get("/any")).json() == [False, True]
        head = await gw.head("/any")
        assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "12")
        for name in ("users", "offers"):
            gw.upstream(name).fail("hang")
        asking = asyncio.create_task(gw.get("/any"))
        await gw.upstream("users").received()
        await gw.upstream("offers").received(3)
        gw.clock.advance(1.1)
        late = await asking
        assert (late.status, late.code) == (504, "aggregate-timeout")
        assert {"part": "offers", "reason": "part-timeout"} in late.json()["parts"]
    assert gateway.explain("GET", "/any").route == "some"


async def test_plugins_and_hosts_of_the_configuration(gateway: Gateway) -> None:
    @gateway.aggregate("/a", plugins=["guard"], host="api.example.com", listeners=["main"])
    async def function(exchange: Exchange, g: Gather) -> int:
        return 1

    async with run_gateway(gateway.config) as gw:
        assert (await gw.get("/a", host="api.example.com")).code == "no-key"
        assert (await gw.get("/a", host="api.example.com", headers={"x-key": "1"})).json() == 1
        assert (await gw.get("/a")).text == "rest"


def test_on_uvloop(gateway: Gateway) -> None:
    async def main() -> None:
        gateway.aggregate("/pages/{id}")(order_page)
        async with run_gateway(gateway.config) as gw:
            healthy(gw)
            assert (await gw.get("/pages/7")).json()["name"] == "ann"
            gw.upstream("users").fail("reset")
            assert (await gw.get("/pages/7")).json()["parts"] == [
                {"part": "users", "reason": "upstream-reset"}
            ]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


# -- what does not fit


async def zero(exchange: Exchange) -> None: ...


def plain(exchange: Exchange, g: Gather) -> None: ...


async def unknown(exchange: Exchange, g: Gather, other: int) -> None: ...


async def unresolved(exchange: Exchange, g: Gather, id: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821


async def fine(exchange: Exchange, g: Gather) -> int:
    return 1


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (zero, "the exchange and the block"),
        (plain, "no `async def`"),
        (unknown, r"no segment {other}"),
        (unresolved, "Nowhere"),
    ],
)
def test_functions_that_do_not_fit(gateway: Gateway, function: Any, said: str) -> None:
    before = gateway.config
    with pytest.raises(TypeError, match=said):
        gateway.aggregate("/x/{id}")(function)
    assert gateway.config is before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"path": "x"}, "match.path"),
        ({"path": "/{id"}, "whole segment"),
        ({"path": "/x", "methods": ["get it"]}, "methods"),
        ({"path": "/x", "name": "rest"}, "route rest is in the configuration already"),
        ({"path": "/x", "plugins": ["gard"]}, 'no plugin is named "gard"'),
        ({"path": "/x", "listeners": ["side"]}, 'no listener is named "side"'),
    ],
)
def test_routes_that_cannot_be(gateway: Gateway, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        gateway.aggregate(**options)(fine)
    assert len(gateway.config.routes) == 1


def test_options_that_are_none(gateway: Gateway) -> None:
    with pytest.raises(ValueError, match="policy"):
        gateway.aggregate("/x", policy="some")(fine)  # type: ignore[arg-type]


def test_a_name_is_given_once(gateway: Gateway) -> None:
    gateway.aggregate("/x")(fine)
    with pytest.raises(ConfigError, match="route fine is in the configuration already"):
        gateway.aggregate("/y")(fine)


# -- its life


async def test_it_lives_through_reloads(upstream: Upstream, tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(to_toml(tables_of(upstream.address, access_log={"enabled": False})))
    gateway = Gateway(file)

    @gateway.aggregate("/both")
    async def both(exchange: Exchange, g: Gather) -> Any:
        one, two = (g.get("up", "/{}", name, type=bytes) for name in ("a", "b"))
        return [len(await one) > 0, len(await two) > 0]

    async with gateway, httpx.AsyncClient(base_url=gateway.url) as client:
        assert (await client.get("/both")).json() == [True, True]
        with pytest.raises(RuntimeError, match="before the gateway runs"):
            gateway.aggregate("/x")(fine)
        file.write_text(file.read_text() + "\n[[routes]]\nname = 'new'\nrespond = { status = 204 }\n")
        assert (await gateway.reload()).routes.added == ("new",)
        assert (await client.get("/both")).json() == [True, True]
        await gateway.reload(gateway.config)
        assert (await client.get("/both")).json() == [True, True]
        taken = tables(routes=[{"name": "both", "respond": {"status": 200}}], plugins={})
        with pytest.raises(ReloadError, match="route both is in the configuration already"):
            await gateway.reload(taken)
        assert (await client.get("/both")).json() == [True, True]


def test_the_example() -> None:
    run = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "examples/aggregation.py"],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert run.returncode == 0, run.stderr
    page, problem = run.stdout.splitlines()
    assert page.startswith('200 {"customer":"Ann","products":[{"name":"tea"')
    assert problem.startswith(
        "404 aggregate-failed [{'part': 'orders', 'reason': 'part-status', 'status': 404}"
    )
