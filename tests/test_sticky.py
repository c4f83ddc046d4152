"""The sticky cookie: set once, kept, signed, and given up when its endpoint can't be used."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from conftest import StartGateway
from support import upstream as up
from support.client import Client, request
from support.fleet import Fleet
from support.gateway import Gateway, config, to_toml
from support.wire import Response


def tables(addresses: list[Any], *, sticky: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    return config(
        addresses,
        admin={"bind": "127.0.0.1:0"},
        upstream_options={
            "balance": "round-robin",  # without a cookie nobody is asked twice in a row
            "sticky": {"secret": "swordfish", **(sticky or {})},
            **options,
        },
    )


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with Fleet(3) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def module_gateway(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(tables(fleet.addresses), tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


@pytest.fixture
def sticky(module_gateway: Gateway, fleet: Fleet) -> Iterator[Gateway]:
    fleet.clear()
    yield module_gateway
    fleet.check()
    for upstream in fleet.upstreams:
        state(module_gateway, upstream.address, "auto")


def state(gateway: Gateway, address: str, to: str) -> None:
    gateway.admin(f"/upstreams/up/endpoints/{address}", "PUT", {"state": to})


def cookie_of(response: Response) -> tuple[str, dict[str, str]]:
    """What the one Set-Cookie says: "name=value" and the attributes."""
    (line,) = response.all("set-cookie")
    pair, *attributes = line.split("; ")
    return pair, {name: value for name, _, value in (each.partition("=") for each in attributes)}


def where(response: Response) -> str:
    assert response.status == 200, response
    return str(response.json()["upstream"])


def begin(client: Client) -> tuple[str, str]:
    """A first request without a cookie: the cookie and the endpoint."""
    response = client.get("/first")
    return cookie_of(response)[0], where(response)


def back(client: Client, cookie: str) -> str:
    """A request with the cookie: where it went; no cookie is set again."""
    response = client.get("/back", f"Cookie: {cookie}")
    assert not response.all("set-cookie")
    return where(response)


def test_set_once_and_kept(sticky: Gateway) -> None:
    with sticky.client() as client:
        found = {}
        for _ in range(3):
            cookie, at = begin(client)
            found[cookie] = at
        assert sorted(found.values()) == ["0", "1", "2"], "each has its own"
        for _ in range(3):
            assert {cookie: back(client, cookie) for cookie in found} == found
            assert {cookie: back(client, f"a=b; {cookie}; c=d") for cookie in found} == found


def test_the_cookie_says_nothing_of_the_endpoint(sticky: Gateway, fleet: Fleet) -> None:
    with sticky.client() as client:
        cookie, at = begin(client)
    value = cookie.partition("=")[2]
    assert len(value) == 32
    assert int(value, 16)
    assert str(sticky.tables["upstreams"]["up"]["endpoints"][int(at)]).rpartition(":")[2] not in value


FORGED = [
    "fg_sticky=",
    "fg_sticky=0",
    "fg_sticky=127.0.0.1:80",
    "fg_sticky=" + "0" * 32,
    'fg_sticky="' + "0" * 32 + '"',
    "fg_sticky=" + "x" * 4000,
    "other=1",
]


@pytest.mark.parametrize("cookie", FORGED)
def test_a_forged_one_is_ignored(sticky: Gateway, cookie: str) -> None:
    with sticky.client() as client:
        at = set()
        for _ in range(3):
            response = client.get("/forged", f"Cookie: {cookie}")
            at.add(where(response))
            assert len(cookie_of(response)[0]) == len("fg_sticky=") + 32
        assert at == {"0", "1", "2"}


def test_one_bit_of_it_is_wrong(sticky: Gateway) -> None:
    with sticky.client() as client:
        cookie, _ = begin(client)
        forged = cookie[:-1] + ("0" if cookie[-1] != "0" else "1")
        assert client.get("/forged", f"Cookie: {forged}").all("set-cookie")


@pytest.mark.parametrize("to", ["draining", "down"])
def test_an_endpoint_that_is_taken_out(sticky: Gateway, fleet: Fleet, to: str) -> None:
    """Another one, with its cookie; and that one is kept when the first is back."""
    with sticky.client() as client:
        cookie, at = begin(client)
        state(sticky, fleet[int(at)].address, to)
        response = client.get("/over", f"Cookie: {cookie}")
        moved = where(response)
        assert moved != at
        other, _ = cookie_of(response)
        assert other != cookie
        assert {back(client, other) for _ in range(4)} == {moved}
        state(sticky, fleet[int(at)].address, "auto")
        assert back(client, other) == moved
        assert back(client, cookie) == at, "who still has the old one goes there"


def test_answers_of_the_gateway_carry_none(sticky: Gateway, fleet: Fleet) -> None:
    fleet.default = (up.reset(),)
    with sticky.client() as client:
        response = client.request(request("POST", "/first"))
        assert response.status == 502
        assert not response.all("set-cookie")
    fleet.clear()


# -- beyond one process


def test_the_secret_is_shared(start_gateway: StartGateway, fleet: Fleet) -> None:
    """By two gateways, and by one before and after a restart. Another secret's cookies are forged ones; so
    are those of another upstream's name."""
    fleet.clear()
    first, second = start_gateway(tables(fleet.addresses)), start_gateway(tables(fleet.addresses))
    other = start_gateway(tables(fleet.addresses, sticky={"secret": "marlin"}))
    renamed = tables(fleet.addresses)
    renamed["upstreams"] = {"else": renamed["upstreams"]["up"]}
    renamed["routes"][0]["upstream"] = "else"
    with first.client() as client:
        cookie, at = begin(client)
    first.stop()
    again = start_gateway(tables(fleet.addresses))
    for gateway in (second, again):
        with gateway.client() as client:
            assert {back(client, cookie) for _ in range(4)} == {at}
    for gateway in (other, start_gateway(renamed)):
        with gateway.client() as client:
            assert client.get("/", f"Cookie: {cookie}").all("set-cookie")


def test_a_reload_keeps_it_and_a_gone_endpoint_moves(start_gateway: StartGateway, fleet: Fleet) -> None:
    fleet.clear()
    gateway = start_gateway(tables(fleet.addresses))
    with gateway.client() as client:
        cookie, at = begin(client)
        # The endpoints in another order: places do not count.
        gateway.reload(tables(fleet.addresses[::-1]))
        assert {back(client, cookie) for _ in range(4)} == {at}
        left = [address for index, address in enumerate(fleet.addresses) if str(index) != at]
        gateway.reload(tables(left))
        response = client.get("/", f"Cookie: {cookie}")
        assert where(response) != at
        assert cookie_of(response)[0] != cookie


def test_without_a_secret(start_gateway: StartGateway, fleet: Fleet) -> None:
    """A random one, which a reload keeps."""
    fleet.clear()
    whole = tables(fleet.addresses)
    del whole["upstreams"]["up"]["sticky"]["secret"]
    gateway = start_gateway(whole)
    with gateway.client() as client:
        cookie, at = begin(client)
        assert {back(client, cookie) for _ in range(4)} == {at}
        gateway.write(to_toml(whole) + "# changed\n")
        gateway.reload()
        assert {back(client, cookie) for _ in range(4)} == {at}


@pytest.mark.parametrize(
    ("sticky", "attributes"),
    [
        ({}, {"Path": "/", "HttpOnly": "", "SameSite": "Lax"}),
        (
            {
                "cookie": "where",
                "ttl": "90s",
                "path": "/shop",
                "domain": "shop.example",
                "secure": True,
                "http_only": False,
                "same_site": "none",
            },
            {"Path": "/shop", "Domain": "shop.example", "Max-Age": "90", "Secure": "", "SameSite": "None"},
        ),
    ],
)
def test_attributes(
    start_gateway: StartGateway, fleet: Fleet, sticky: dict[str, Any], attributes: dict[str, str]
) -> None:
    fleet.clear()
    gateway = start_gateway(tables(fleet.addresses, sticky=sticky))
    with gateway.client() as client:
        cookie, found = cookie_of(client.get())
        assert found == attributes
        assert cookie.startswith(sticky.get("cookie", "fg_sticky") + "=")
        at = back(client, cookie)
        assert {back(client, cookie) for _ in range(4)} == {at}


# -- together with what else happens to an exchange


def test_a_retry_moves_the_client(start_gateway: StartGateway, fleet: Fleet) -> None:
    """The endpoint of the cookie fails: the answer of another one brings that one's cookie, once."""
    fleet.clear()
    gateway = start_gateway(
        tables(
            fleet.addresses,
            retry={"on": ["status"], "attempts": 3, "backoff_base": "1ms"},
        )
    )
    with gateway.client() as client:
        cookie, at = begin(client)
        fleet.script(up.reply(503)).script(up.reply(503))
        response = client.get("/retry", f"Cookie: {cookie}")
        moved = where(response)
        assert str(fleet.deliveries("/retry")[0].at) == at
        assert moved != at
        assert back(client, cookie_of(response)[0]) == moved
    fleet.check()


def test_a_full_endpoint_moves_the_client(start_gateway: StartGateway, fleet: Fleet) -> None:
    fleet.clear()
    gateway = start_gateway(tables(fleet.addresses, pool={"max_requests": 1}))
    release = threading.Event()
    with ExitStack() as stack:
        holder, client = (stack.enter_context(gateway.client()) for _ in range(2))
        cookie, at = begin(client)
        fleet.script(up.wait_for(release), up.reply())
        holder.send(request(target="/hold", lines=(f"Cookie: {cookie}",)))
        assert str(fleet.wait(1, "/hold")[0].at) == at
        response = client.get("/full", f"Cookie: {cookie}")
        assert where(response) != at
        release.set()
        assert holder.response().status == 200
    fleet.check()


def test_an_ejected_endpoint_moves_the_client(start_gateway: StartGateway, fleet: Fleet) -> None:
    """And only so many trials go to one whose breaker is half-open, cookie or not."""
    fleet.clear()
    gateway = start_gateway(
        tables(
            fleet.addresses,
            breaker={
                "error_percent": 50,
                "min_requests": 2,
                "open_time": "100ms",
                "trials": 1,
                "per": "endpoint",
            },
        )
    )
    release = threading.Event()
    with ExitStack() as stack:
        client, trial = (stack.enter_context(gateway.client()) for _ in range(2))
        cookie, at = begin(client)
        address = fleet[int(at)].address
        for _ in range(8):
            fleet.script(up.reply(500))
            client.get("/fail", f"Cookie: {cookie}")
            if one_of(gateway, address)["status"] == "ejected":
                break
        assert one_of(gateway, address)["status"] == "ejected"
        assert where(client.get("/open", f"Cookie: {cookie}")) != at
        gateway.wait_upstream(lambda shown: one_of(gateway, address)["status"] == "ready")
        fleet.script(up.wait_for(release), up.reply())
        trial.send(request(target="/trial", lines=(f"Cookie: {cookie}",)))
        assert str(fleet.wait(1, "/trial")[0].at) == at
        assert where(client.get("/beside", f"Cookie: {cookie}")) != at
        release.set()
        assert trial.response().status == 200
        assert back(client, cookie) == at
    fleet.check()


def one_of(gateway: Gateway, address: str) -> Any:
    return next(one for one in gateway.upstream()["endpoints"] if one["address"] == address)
