"""Active health checks of a running gateway: what goes out, what follows, and what they must not touch."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import StartGateway
from support.admin import ADMIN, Admin
from support.answers import refused
from support.client import request
from support.gateway import Gateway, config
from support.standing import HEALTH, Checks, Service, held, names, services
from support.upstream import reply


@pytest.fixture
def two() -> Iterator[list[Service]]:
    with services("a", "b") as found:
        yield found


def tables(found: list[Service], health: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    return (
        config(
            [service.address for service in found],
            upstream_options={"health": HEALTH | (health or {}), "balance": "round-robin", **options},
        )
        | ADMIN
    )


def start(start_gateway: StartGateway, found: list[Service], **options: Any) -> tuple[Gateway, Admin]:
    gateway = start_gateway(tables(found, **options))
    return gateway, Admin(gateway)


# -- when an endpoint goes down, and comes back


def test_down_after_fall_and_back_after_rise(start_gateway: StartGateway, two: list[Service]) -> None:
    a = two[0]
    checks = Checks(a)
    gateway, admin = start(start_gateway, two, health={"rise": 2, "fall": 3}, panic_threshold=0)
    checks.await_first()
    checks.answer(200)
    assert admin.endpoint(a.address)["probe"] == "up"
    with gateway.client() as client:
        checks.answer(503, 503, 200, 503, 503)
        assert admin.endpoint(a.address)["status"] == "ready", "three in a row, not three"
        checks.answer(503)
        assert admin.endpoint(a.address)["status"] == "down"
        assert names(client, 10) == {"b": 10}
        checks.answer(200, 503, 200)
        assert names(client, 10) == {"b": 10}, "two in a row, not two"
        checks.answer(200)
        assert admin.endpoint(a.address)["status"] == "ready"
        assert names(client, 10) == {"a": 5, "b": 5}
    told = [line for line in gateway.stderr if a.address in line]
    assert told == [
        f"fastgate: upstream up: endpoint {a.address} is up",
        f"fastgate: upstream up: endpoint {a.address} is down: status 503",
        f"fastgate: upstream up: endpoint {a.address} is up",
    ]
    checks.close()


@pytest.mark.parametrize(
    ("health", "status", "body", "well"),
    [
        ({"expect": [204]}, 200, b"", False),
        ({"expect": ["200-299", 418]}, 418, b"", True),
        ({}, 399, b"", True),
        ({}, 404, b"", False),
        ({"body": '"db":\\s*true'}, 200, b'{"db": true}', True),
        ({"body": '"db":\\s*true'}, 200, b'{"db": false}', False),
        ({"body": "^x{1000}$"}, 200, b"x" * 1000, True),
        ({"method": "HEAD"}, 200, b"never sent", True),
    ],
)
def test_what_a_good_answer_is(
    start_gateway: StartGateway, health: dict[str, Any], status: int, body: bytes, well: bool
) -> None:
    with services("a") as found:
        found[0].check = reply(status, body)
        _, admin = start(start_gateway, found, health=health)
        admin.wait_endpoint(found[0].address, probe="up" if well else "down")
        assert found[0].checks[0].method == health.get("method", "GET")


@pytest.mark.parametrize("host", ["", "check.internal"])
def test_what_is_asked(start_gateway: StartGateway, two: list[Service], host: str) -> None:
    _, admin = start(start_gateway, two[:1], health={"host": host})
    admin.wait_endpoint(two[0].address, probe="up")
    fields = dict(two[0].checks[0].fields)
    assert list(fields) == ["Host", "User-Agent", "Accept", "Via", "X-Request-ID"]
    assert (fields["Host"], fields["User-Agent"]) == (host or two[0].address, "fastgate-health")


def test_a_check_that_hangs_is_a_bad_one(start_gateway: StartGateway, two: list[Service]) -> None:
    a, gate = two[0], threading.Event()
    a.check = held(gate, reply())
    gateway, admin = start(start_gateway, two, health={"timeout": "100ms"})
    admin.wait_endpoint(a.address, status="down")
    gateway.wait_stderr(f"fastgate: upstream up: endpoint {a.address} is down: no answer within 0.1 s")
    gate.set()
    admin.wait_endpoint(a.address, status="ready")


def test_tcp(start_gateway: StartGateway, two: list[Service]) -> None:
    a = two[0]
    _, admin = start(start_gateway, two, health={"type": "tcp"})
    admin.wait_endpoint(a.address, probe="up")
    a.upstream.refuse()
    admin.wait_endpoint(a.address, status="down")
    a.upstream.listen()
    admin.wait_endpoint(a.address, status="ready")
    assert a.upstream.requests == [], "it is enough that a connection opens"


# -- checks and the traffic


def test_they_go_over_the_endpoints_pool(start_gateway: StartGateway, two: list[Service]) -> None:
    a = two[0]
    gateway, admin = start(start_gateway, two[:1])
    admin.wait_endpoint(a.address, probe="up")
    with gateway.client() as client:
        assert client.get().status == 200
    a.upstream.wait("more checks", lambda: len(a.checks) > 2)
    assert len(a.upstream.connections) == 1


def test_a_busy_pool_is_not_a_sick_endpoint(start_gateway: StartGateway, two: list[Service]) -> None:
    """Its only connection is a client's, and another client waits for one: a check gets one more, and leaves
    none behind."""
    a, gate = two[0], threading.Event()
    a.answer = held(gate, a.tell_name)
    caps = {"pool": {"max_connections": 1, "queue_timeout": "20s"}}
    gateway, admin = start(start_gateway, two[:1], **caps)
    admin.wait_endpoint(a.address, probe="up")
    with gateway.client() as first, gateway.client() as second:
        first.send(request())
        a.upstream.wait("request", lambda: bool(a.served))
        second.send(request())
        admin.wait_endpoint(a.address, waiting=1)
        a.check = reply(503)
        admin.wait_endpoint(a.address, status="down")
        a.check = reply(200)
        admin.wait_endpoint(a.address, status="ready")
        assert len(a.served) == 1, "the connection of a check is not a client's"
        gate.set()
        assert (first.response().status, second.response().status) == (200, 200)
        admin.wait_endpoint(a.address, open=1)


def test_a_check_takes_no_place_of_a_client(start_gateway: StartGateway, two: list[Service]) -> None:
    a, gate = two[0], threading.Event()
    a.check = held(gate, reply())
    caps = {"pool": {"max_requests": 1}, "breaker": {"max_pending": 1, "max_requests": 1}}
    gateway, admin = start(start_gateway, two[:1], **caps)
    a.upstream.wait("check", lambda: bool(a.checks))
    with gateway.client() as client:
        assert names(client, 3) == {"a": 3}
    assert admin.endpoint(a.address)["active"] == 0
    gate.set()


def test_they_are_no_requests_of_clients(start_gateway: StartGateway, two: list[Service]) -> None:
    """Neither in the log nor in the counters, and nothing to outliers and breakers."""
    a = two[0]
    a.check = reply(500)
    strict = {
        "health": {"fall": 1000},
        "outlier": {"consecutive_errors": 1},
        "breaker": {"error_percent": 1, "min_requests": 1},
    }
    gateway, admin = start(start_gateway, two, **strict)
    a.upstream.wait("checks", lambda: len(a.checks) > 3)
    with gateway.client() as client:
        assert names(client, 4) == {"a": 2, "b": 2}
    shown = admin.endpoint(a.address)
    assert (shown["status"], shown["breaker"], admin.upstream()["breaker"]) == ("ready", "closed", "closed")
    counted = admin.ask("GET", "counters")
    assert counted["routes"]["all"]["status"]["2xx"] == 4
    assert (counted["upstreams"]["up"]["exchanges"], counted["upstreams"]["up"]["attempts"]) == (4, 4)
    gateway.mark()
    assert [record["path"] for record in gateway.log[:-1]] == ["/id/0"] * 4


# -- when few are left


def test_all_down(start_gateway: StartGateway, two: list[Service]) -> None:
    """Answered at once: nothing is sent to who is known to be dead, and nobody is waited for."""
    for service in two:
        service.check = reply(503)
    gateway, admin = start(start_gateway, two, panic_threshold=0)
    for service in two:
        admin.wait_endpoint(service.address, status="down")
    with gateway.client() as client:
        refused(client.get(), "no-endpoint")
        assert [service.served for service in two] == [[], []]
        two[1].check = reply(200)
        admin.wait_endpoint(two[1].address, status="ready")
        assert names(client, 4) == {"b": 4}


def test_all_down_is_no_panic(start_gateway: StartGateway, two: list[Service]) -> None:
    for service in two:
        service.check = reply(503)
    gateway, admin = start(start_gateway, two)
    for service in two:
        admin.wait_endpoint(service.address, status="down")
    with gateway.client() as client:
        refused(client.get(), "no-endpoint")
    assert [service.served for service in two] == [[], []]


@pytest.mark.parametrize(("threshold", "used"), [(50, {"a", "b", "c"}), (30, {"c"}), (0, {"c"})])
def test_panic(start_gateway: StartGateway, threshold: int, used: set[str]) -> None:
    """One of three is well."""
    with services("a", "b", "c") as found:
        for service in found[:2]:
            service.check = reply(503)
        gateway, admin = start(start_gateway, found, panic_threshold=threshold)
        for service in found[:2]:
            admin.wait_endpoint(service.address, status="down")
        with gateway.client() as client:
            assert set(names(client, 12)) == used


# -- reload and stop


def test_over_reloads(start_gateway: StartGateway, two: list[Service]) -> None:
    a, b = two
    a.check = reply(503)
    gateway, admin = start(start_gateway, two, panic_threshold=0)
    admin.wait_endpoint(a.address, status="down")
    checks = Checks(a)  # from here on there is no verdict but the test's
    for change in ({}, {"timeouts": {"head": "7s"}}):  # nothing, and the upstream itself
        gateway.reload(tables(two, panic_threshold=0, **change))
        with gateway.client() as client:
            assert names(client, 6) == {"b": 6}
    checks.close()
    admin.wait_endpoint(a.address, status="ready")
    b.check = reply(503)
    admin.wait_endpoint(b.address, status="down")
    gateway.reload(config([s.address for s in two], upstream_options={"balance": "round-robin"}) | ADMIN)
    assert admin.endpoint(b.address)["status"] == "down", "no check has said otherwise"


def test_a_hanging_check_holds_up_no_drain(start_gateway: StartGateway, two: list[Service]) -> None:
    gate = threading.Event()
    for service in two:
        service.check = held(gate, reply())
    whole = tables(two, health={"timeout": "1h"})
    gateway = start_gateway(whole | {"server": {"drain_timeout": "1h"}})
    for service in two:
        service.upstream.wait("check", lambda: bool(service.checks))  # noqa: B023
    gateway.stop()
    gate.set()
