"""What an operator says while the gateway runs: states and weights of endpoints, by API and by command."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import StartGateway
from support.admin import ADMIN, Admin, Refused
from support.answers import refused
from support.client import request
from support.gateway import ROOT, Gateway, config
from support.standing import HEALTH, Checks, Service, held, name_of, names, services
from support.upstream import reply


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


@pytest.mark.parametrize("state", ["draining", "down"])
def test_taken_out(start_gateway: StartGateway, two: list[Service], state: str) -> None:
    """What is under way there ends well; nothing new comes."""
    a, gate = two[0], threading.Event()
    a.answer = held(gate, a.tell_name)
    gateway, admin = start(start_gateway, two)
    with gateway.client() as client, gateway.client() as other:
        for each in (client, other):  # one each, in turn
            each.send(request())
        a.upstream.wait("request", lambda: bool(a.served))
        shown = admin.set(a.address, state=state)
        assert (shown["status"], shown["state"], shown["active"]) == (state, state, 1)
        with gateway.client() as third:
            assert names(third, 10) == {"b": 10}
        gate.set()
        assert {name_of(client.response()), name_of(other.response())} == {"a", "b"}
        admin.wait_endpoint(a.address, active=0)
        assert admin.set(a.address, state="auto")["status"] == "ready"
        assert names(client, 10) == {"a": 5, "b": 5}


@pytest.mark.parametrize("threshold", [0, 50, 100])
def test_all_taken_out(start_gateway: StartGateway, two: list[Service], threshold: float) -> None:
    """No panic brings back what an operator took out."""
    gateway, admin = start(start_gateway, two, panic_threshold=threshold)
    for service, state in zip(two, ("draining", "down"), strict=True):
        admin.set(service.address, state=state)
    with gateway.client() as client:
        refused(client.get(), "no-endpoint")
        admin.set(two[1].address, state="auto")
        assert names(client, 4) == {"b": 4}


def test_ready_over_checks_and_outliers(start_gateway: StartGateway, two: list[Service]) -> None:
    a = two[0]
    a.check = reply(503)
    strict = {"health": HEALTH, "outlier": {"consecutive_errors": 1}, "panic_threshold": 0}
    gateway, admin = start(start_gateway, two, **strict)
    admin.wait_endpoint(a.address, status="down")
    assert admin.set(a.address, state="ready")["status"] == "ready"
    with gateway.client() as client:
        assert names(client, 10) == {"a": 5, "b": 5}
        a.answer = reply(500)
        assert sorted(client.get().status for _ in range(8)) == [200] * 4 + [500] * 4
    shown = admin.set(a.address, state="auto")
    assert (shown["status"], shown["probe"]) == ("down", "down"), "what checks say was not forgotten"


def test_weights(start_gateway: StartGateway, two: list[Service]) -> None:
    a = two[0]
    gateway, admin = start(start_gateway, two)
    with gateway.client() as client:
        assert names(client, 8) == {"a": 4, "b": 4}
        assert admin.set(a.address, weight=3)["weight"] == 3
        assert names(client, 40) == {"a": 30, "b": 10}
        connections = len(a.upstream.connections)
        gateway.reload(tables(two))
        assert names(client, 40) == {"a": 30, "b": 10}
        assert len(a.upstream.connections) == connections, "nothing else was touched"
        admin.set(a.address, weight=None)
        assert names(client, 8) == {"a": 4, "b": 4}
    for weight in (0, 1001, "x"):
        with pytest.raises(Refused):
            admin.set(a.address, weight=weight)


def test_kept_over_reloads(start_gateway: StartGateway, two: list[Service]) -> None:
    """Also where the upstream itself has changed, and where it was away for a while."""
    a = two[0]
    gateway, admin = start(start_gateway, two)
    admin.set(a.address, state="draining", weight=7)
    for change in (
        tables(two, timeouts={"head": "9s"}),
        config(route={"respond": {"body": "x"}}) | ADMIN,
        tables(two),
    ):
        gateway.reload(change)
    shown = admin.endpoint(a.address)
    assert (shown["status"], shown["weight"]) == ("draining", 7)
    with gateway.client() as client:
        assert names(client, 4) == {"b": 4}


def test_slow_start(start_gateway: StartGateway, two: list[Service]) -> None:
    """Back in use it begins with a tenth of its weight."""
    a = two[0]
    gateway, admin = start(start_gateway, two, slow_start="1h")
    with gateway.client() as client:
        assert names(client, 10) == {"a": 5, "b": 5}, "not at the start"
        admin.set(a.address, state="down")
        names(client, 2)
        admin.set(a.address, state="auto")
        assert names(client, 22) == {"a": 2, "b": 20}
        gateway.reload(tables(two, slow_start="1h", timeouts={"head": "9s"}))
        assert names(client, 22) == {"a": 2, "b": 20}, "a reload is no return"


def test_a_check_that_hangs_over_a_change(start_gateway: StartGateway, two: list[Service]) -> None:
    """An operator's word is in force at once, whoever is waited for."""
    a = two[0]
    checks = Checks(a)
    gateway, admin = start(start_gateway, two, health=HEALTH)
    checks.await_first()
    admin.set(a.address, state="down")
    with gateway.client() as client:
        assert names(client, 4) == {"b": 4}
        checks.answer(200)
        assert names(client, 4) == {"b": 4}
    checks.close()


# -- by command


def ask(gateway: Gateway, command: str, *arguments: str) -> str:
    address = gateway.addresses["admin API"]
    done = subprocess.run(
        [sys.executable, "-m", "fastgate", command, "--admin", f"{address[0]}:{address[1]}", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def test_by_command(start_gateway: StartGateway, two: list[Service]) -> None:
    a, b = two
    gateway, _ = start(start_gateway, two)
    with gateway.client() as client:
        told = ask(gateway, "endpoint", "up", a.address, "draining")
        assert told == f"up {a.address}: draining, draining, weight 1\n"
        assert names(client, 4) == {"b": 4}
        told = ask(gateway, "endpoint", "up", a.address, "auto", "--weight", "3")
        assert told == f"up {a.address}: auto, ready, weight 3\n"
        assert names(client, 8) == {"a": 6, "b": 2}
        rows = [line.split() for line in ask(gateway, "upstreams").splitlines()]
        assert [row[:5] for row in rows[1:]] == [
            ["up", a.address, "ready", "auto", "3"],
            ["up", b.address, "ready", "auto", "1"],
        ]


def test_split_by_command(start_gateway: StartGateway, two: list[Service]) -> None:
    arms = [
        {"name": "stable", "upstream": "a", "weight": 100},
        {"name": "canary", "upstream": "b", "weight": 0},
    ]
    upstreams = {service.name: {"endpoints": [service.address]} for service in two}
    routes = [{"name": "all", "split": {"to": arms}}]
    gateway = start_gateway(config(upstreams=upstreams, routes=routes) | ADMIN)
    with gateway.client() as client:
        assert names(client, 4) == {"a": 4}
        rows = [line.split() for line in ask(gateway, "split", "all", "stable=0", "canary=100").splitlines()]
        assert rows == [
            ["ARM", "UPSTREAM", "WEIGHT", "CONFIGURED", "ROLLED", "BACK"],
            ["stable", "a", "0", "100", "-"],
            ["canary", "b", "100", "0", "-"],
        ]
        assert names(client, 4) == {"b": 4}
        with pytest.raises(Refused, match="one arm has a weight above 0"):
            Admin(gateway).set_split({"clear": "canary"})
        ask(gateway, "split", "all", "--clear", "stable")
        ask(gateway, "split", "all", "--clear", "canary")
        assert names(client, 4) == {"a": 4}
