"""Outlier ejection and breakers of a running gateway: who is left out, for how long, and how he comes
back."""

from __future__ import annotations

import select
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import StartGateway
from support.admin import ADMIN, Admin
from support.answers import refused
from support.client import Client, request
from support.gateway import Gateway, config
from support.standing import Service, held, name_of, names, services, until
from support.upstream import Step, reply, reset


@pytest.fixture
def two() -> Iterator[list[Service]]:
    with services("a", "b") as found:
        yield found


def tables(found: list[Service], **options: Any) -> dict[str, Any]:
    balance = {"balance": "round-robin", **options}
    return config([service.address for service in found], upstream_options=balance) | ADMIN


def start(start_gateway: StartGateway, found: list[Service], **options: Any) -> tuple[Gateway, Admin]:
    gateway = start_gateway(tables(found, **options))
    return gateway, Admin(gateway)


def outlier(**options: Any) -> dict[str, Any]:
    """Nothing ejects but what a test names."""
    off = {"consecutive_errors": 0, "consecutive_gateway_errors": 0, "success_rate": False}
    return off | {"base_ejection": "1h", "max_ejection": "1h"} | options


def statuses(client: Client, count: int) -> list[int]:
    return [client.get().status for _ in range(count)]


# -- outliers


def test_errors_in_a_row(start_gateway: StartGateway, two: list[Service]) -> None:
    a = two[0]
    gateway, admin = start(start_gateway, two, outlier=outlier(consecutive_errors=3, base_ejection="300ms"))
    with gateway.client() as client:
        names(client, 4)
        a.answer = reply(500)
        assert sorted(statuses(client, 4)) == [200, 200, 500, 500]
        a.answer = a.tell_name
        names(client, 2)  # a success, and the row begins anew
        a.answer = reply(500)
        assert sorted(statuses(client, 6)) == [200] * 3 + [500] * 3
        assert admin.endpoint(a.address)["status"] == "ejected"
        served = len(a.served)
        a.answer = a.tell_name
        until(client, "a is back", lambda response: name_of(response) == "a")
        assert len(a.served) == served + 1, "nothing was sent to it meanwhile"
        assert admin.endpoint(a.address)["status"] == "ready"
        assert names(client, 10) == {"a": 5, "b": 5}


@pytest.mark.parametrize("fault", [reply(503), reset()], ids=["answered 503", "reset"])
def test_gateway_errors_in_a_row(start_gateway: StartGateway, two: list[Service], fault: Step) -> None:
    gateway, admin = start(start_gateway, two, outlier=outlier(consecutive_gateway_errors=2))
    a = two[0]
    with gateway.client() as client:
        a.answer = reply(500)
        statuses(client, 12)
        assert admin.endpoint(a.address)["status"] == "ready", "somebody answered"
        a.answer = fault
        until(client, "two errors", lambda _: admin.endpoint(a.address)["status"] == "ejected")
        assert names(client, 6) == {"b": 6}


def test_refused_connections_count(start_gateway: StartGateway, two: list[Service]) -> None:
    a = two[0]
    a.upstream.refuse()
    gateway, admin = start(start_gateway, two, outlier=outlier(consecutive_gateway_errors=2))
    with gateway.client() as client:
        assert sorted(statuses(client, 4)) == [200, 200, 502, 502]
        assert admin.endpoint(a.address)["status"] == "ejected"
        assert names(client, 6) == {"b": 6}


def test_half_of_the_answers(start_gateway: StartGateway) -> None:
    """Every second answer of one is 500: never a row, but a rate far from that of the others."""
    with services("a", "b", "c") as found:
        a = found[0]
        turns = iter(range(10**6))

        def every_second(connection: Any) -> None:
            (reply(500) if next(turns) % 2 else a.tell_name)(connection)

        a.answer = every_second
        rule = outlier(
            success_rate=True,
            success_rate_stdev=1.0,
            min_endpoints=3,
            min_requests=5,
            interval="500ms",
            base_ejection="500ms",
        )
        gateway, admin = start(start_gateway, found, outlier=rule)
        with gateway.client() as client:
            until(client, "it is ejected", lambda _: admin.endpoint(a.address)["status"] == "ejected")
            a.answer = a.tell_name
            until(client, "it is back", lambda response: name_of(response) == "a")
            assert set(names(client, 12)) == {"a", "b", "c"}


def test_never_the_last(start_gateway: StartGateway, two: list[Service]) -> None:
    for service in two:
        service.answer = reply(500)
    rule = outlier(consecutive_errors=2, max_ejected=100)
    gateway, admin = start(start_gateway, two, outlier=rule, panic_threshold=0)
    with gateway.client() as client:
        assert set(statuses(client, 30)) == {500}
    shown = sorted(admin.endpoint(service.address)["status"] for service in two)
    assert shown == ["ejected", "ready"]


def test_the_last_is_not_who_an_operator_took_out(start_gateway: StartGateway, two: list[Service]) -> None:
    a, b = two
    a.answer = reply(500)
    gateway, admin = start(start_gateway, two, outlier=outlier(consecutive_errors=1), panic_threshold=0)
    admin.set(b.address, state="down")
    with gateway.client() as client:
        assert statuses(client, 4) == [500] * 4
        assert admin.endpoint(a.address)["status"] == "ready"


def test_shown_and_kept_over_a_reload(start_gateway: StartGateway, two: list[Service]) -> None:
    a = two[0]
    rule = outlier(consecutive_errors=1)
    gateway, admin = start(start_gateway, two, outlier=rule)
    a.answer = reply(500)
    with gateway.client() as client:
        statuses(client, 2)
        shown = admin.endpoint(a.address)
        assert (shown["status"], shown["state"]) == ("ejected", "auto")
        assert 3500 < shown["ejected_for"] <= 3600
        gateway.reload(tables(two, outlier=rule, timeouts={"head": "9s"}))
        assert admin.endpoint(a.address)["status"] == "ejected"
        assert names(client, 6) == {"b": 6}
        # Away and back.
        gateway.reload(tables(two[1:], outlier=rule))
        gateway.reload(tables(two, outlier=rule))
        assert names(client, 6) == {"b": 6}
        a.answer = a.tell_name
        admin.set(a.address, state="ready")
        assert names(client, 6) == {"a": 3, "b": 3}


def test_a_failure_is_lived_down(start_gateway: StartGateway, two: list[Service]) -> None:
    """Not ejected, and well again: it is used again, also where requests are few."""
    a = two[0]
    gateway, admin = start(start_gateway, two, outlier=outlier(consecutive_errors=5), balance="least-request")
    with gateway.client() as client:
        a.answer = reply(500)
        until(client, "it has failed", lambda response: response.status == 500)
        a.answer = a.tell_name
        assert admin.endpoint(a.address)["status"] == "ready"
        assert names(client, 200)["a"] > 0


# -- breakers

BREAKER = {"error_percent": 50, "min_requests": 4, "window": "1h", "open_time": "1s", "trials": 2}


def test_breaker_of_the_upstream(start_gateway: StartGateway, two: list[Service]) -> None:
    a = two[0]
    gateway, admin = start(start_gateway, two[:1], breaker={**BREAKER, "per": "upstream"})
    with gateway.client() as client:
        statuses(client, 2)
        a.answer = reply(500)
        assert statuses(client, 2) == [500, 500]
        assert admin.upstream()["breaker"] == "open"
        refused(client.get(), "breaker-open")
        assert len(a.served) == 4, "nothing passes"
        # A trial that fails opens it again.
        until(client, "a trial", lambda response: response.status == 500)
        assert admin.upstream()["breaker"] == "open"
        refused(client.get(), "breaker-open")
        a.answer = a.tell_name
        until(client, "a trial", lambda response: response.status == 200)
        assert admin.upstream()["breaker"] == "half-open"
        assert client.get().status == 200
        assert admin.upstream()["breaker"] == "closed"
        assert statuses(client, 10) == [200] * 10


def test_half_open_lets_so_many_through(start_gateway: StartGateway, two: list[Service]) -> None:
    a, gate = two[0], threading.Event()
    gateway, admin = start(start_gateway, two[:1], breaker={**BREAKER, "per": "upstream"})
    a.answer = reply(500)
    with gateway.client() as client, gateway.client() as other, gateway.client() as third:
        statuses(client, 4)
        a.answer = held(gate, a.tell_name)
        for each in (client, other):
            send_trial(each, a)
        refused(third.get(), "breaker-open")
        gate.set()
        assert [name_of(each.response()) for each in (client, other)] == ["a", "a"]
        assert third.get().status == 200
        assert admin.upstream()["breaker"] == "closed"


def send_trial(client: Client, service: Service) -> None:
    """Sends requests until one of them is let through, and is under way."""
    while True:
        served = len(service.served)
        client.send(request())
        while len(service.served) == served:
            if select.select([client.sock], [], [], 0.005)[0]:
                refused(client.response(), "breaker-open")
                break
        else:
            return


def test_breaker_of_an_endpoint(start_gateway: StartGateway, two: list[Service]) -> None:
    a, b = two
    breaker = {**BREAKER, "per": "endpoint"}
    gateway, admin = start(start_gateway, two, breaker=breaker, panic_threshold=0)
    a.answer = reply(500)
    with gateway.client() as client:
        assert sorted(statuses(client, 8)) == [200] * 4 + [500] * 4
        shown = admin.endpoint(a.address)
        assert (shown["status"], shown["breaker"], shown["ejected_for"]) == ("ejected", "open", 0)
        assert names(client, 6) == {"b": 6}, "others are chosen"
        b.answer = reply(500)
        until(client, "both are open", lambda response: response.status == 503)
        refused(client.get(), "breaker-open")
        assert admin.upstream()["breaker"] == "closed", "it has none of its own"
        for service in two:
            service.answer = service.tell_name
        until(client, "trials of both", lambda _: both_closed(admin, two))
        assert names(client, 10) == {"a": 5, "b": 5}


def both_closed(admin: Admin, found: list[Service]) -> bool:
    return all(admin.endpoint(service.address)["breaker"] == "closed" for service in found)


def test_the_breaker_of_the_only_endpoint(start_gateway: StartGateway, two: list[Service]) -> None:
    gateway, admin = start(start_gateway, two[:1], breaker={**BREAKER, "per": "endpoint"})
    two[0].answer = reply(500)
    with gateway.client() as client:
        statuses(client, 4)
        assert admin.endpoint(two[0].address)["breaker"] == "open"
        refused(client.get(), "breaker-open")
