"""Versions side by side in a running gateway: who goes where, weights at run time, and a canary that goes
back."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from conftest import StartGateway
from support.admin import ADMIN, Admin
from support.client import Client
from support.gateway import Gateway, config
from support.processes import Crowd
from support.standing import Service, name_of, names, services
from support.upstream import Connection, reply

USERS = 250  # each has an IPv4 address


@pytest.fixture
def two() -> Iterator[list[Service]]:
    with services("stable", "canary") as found:
        yield found


def tables(
    found: list[Service],
    weights: Mapping[str, int],
    *,
    rollback: Mapping[str, Any] | None = None,
    split: Mapping[str, Any] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """An upstream and an arm for each service. options: of the upstreams; split: keys beside `to`."""
    arms = [
        {"name": name, "upstream": name, "weight": weight}
        | ({"rollback": rollback} if rollback is not None and name == "canary" else {})
        for name, weight in weights.items()
    ]
    upstreams = {service.name: {"endpoints": [service.address], **options} for service in found}
    routes = [{"name": "all", "split": {**(split or {}), "to": arms}}]
    listener = {"trusted_proxies": ["127.0.0.0/8"]}
    return config(upstreams=upstreams, routes=routes, listener=listener) | ADMIN


def chosen(client: Client, line: str) -> list[str]:
    """The arms of users 0, 1, ...; line: what tells who it is, such as "Cookie: uid={}"."""
    return [name_of(client.get("/", line.format(user))) for user in range(USERS)]


# -- who goes where


@pytest.mark.parametrize(
    ("key", "line"),
    [
        (["cookie:uid"], "Cookie: a=b; uid={}"),
        (["cookie:uid", "header:x-user"], "X-User: {}"),
        (["cookie:uid", "client-ip"], "X-Forwarded-For: 192.0.2.{}"),
        (None, "X-Forwarded-For: 2001:db8:0:{}::1"),
    ],
)
def test_users_stay_at_their_version(
    start_gateway: StartGateway, two: list[Service], key: list[str] | None, line: str
) -> None:
    """A share as the weights say, the same users over reloads, and a change moves only who must move."""
    split = {} if key is None else {"key": key}
    gateway = start_gateway(tables(two, {"stable": 80, "canary": 20}, split=split))
    with gateway.client() as client:
        before = chosen(client, line)
        # Of 250 with 20 %: 50, and 5 standard deviations of 6.3.
        assert 20 < before.count("canary") < 80
        gateway.reload(tables(two, {"stable": 80, "canary": 20}, split=split, timeouts={"head": "9s"}))
        assert chosen(client, line) == before
        gateway.reload(tables(two, {"stable": 60, "canary": 40}, split=split))
        after = chosen(client, line)
        assert all(now == "canary" for was, now in zip(before, after, strict=True) if was == "canary")
        assert 60 < after.count("canary") < 140


def test_override(start_gateway: StartGateway, two: list[Service]) -> None:
    split = {"key": ["cookie:uid"], "override": {"header": "x-version", "cookie": "version"}}
    gateway = start_gateway(tables(two, {"stable": 100, "canary": 0}, split=split))
    with gateway.client() as client:
        assert names(client, 5) == {"stable": 5}
        assert names(client, 5, "X-Version: canary") == {"canary": 5}
        assert names(client, 5, "Cookie: version=canary") == {"canary": 5}
        assert names(client, 5, "X-Version: none") == {"stable": 5}


# -- weights at run time


def test_weights_touch_nothing_else(start_gateway: StartGateway, two: list[Service]) -> None:
    """Pools and plugins live on, and the weights hold over a reload."""
    gateway = start_gateway(tables(two, {"stable": 50, "canary": 50}, split={"key": ["header:x-user"]}))
    admin = Admin(gateway)
    with gateway.client() as client:
        seen = {name: client.get("/", f"X-User: {user}") for user, name in user_of_each(client).items()}
        assert len(seen) == 2
        connections = [len(service.upstream.connections) for service in two]
        for weights in ({"stable": 0, "canary": 10}, {"stable": 10, "canary": 0}):
            admin.set_split({"weights": weights})
            wanted = "canary" if weights["canary"] else "stable"
            assert names(client, 20) == {wanted: 20}
        assert [len(service.upstream.connections) for service in two] == connections
        changed = tables(
            two, {"stable": 50, "canary": 50}, split={"key": ["header:x-user"]}, timeouts={"head": "9s"}
        )
        gateway.reload(changed)
        assert names(client, 20) == {"stable": 20}
        assert admin.split()["canary"] == {
            "name": "canary",
            "upstream": "canary",
            "weight": 0,
            "configured": 50,
            "rolled_back": None,
        }


def user_of_each(client: Client) -> dict[int, str]:
    """A user for each arm."""
    found: dict[str, int] = {}
    for user in range(100):
        found.setdefault(name_of(client.get("/", f"X-User: {user}")), user)
    return {user: name for name, user in found.items()}


def test_blue_green_under_load(start_gateway: StartGateway, two: list[Service]) -> None:
    gateway = start_gateway(tables(two, {"stable": 100, "canary": 0}))
    admin = Admin(gateway)
    with Crowd(gateway.address, ("GET", "POST"), clients=4) as crowd:
        for there, away in (("canary", "stable"), ("stable", "canary")):
            crowd.wait_more(50)
            admin.set_split({"weights": {there: 100, away: 0}})
            crowd.wait_used(there)
            crowd.wait_unused(away, 50)
    assert crowd.failures == []


# -- automatic rollback

RULE = {"error_percent": 5, "p99_factor": 0, "min_samples": 20, "window": "1h"}
OVERRIDE = {"key": ["header:x-user"], "override": {"header": "x-version"}}
LINE = "fastgate: route all: arm canary rolled back: "


def feed(gateway: Gateway, arm: str, count: int) -> None:
    """So many requests to an arm, ten at a time."""

    def some(share: int) -> None:
        with gateway.client() as client:
            for _ in range(share):
                client.get("/", f"X-Version: {arm}")

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(some, [count // 10] * 10))


def test_a_canary_that_fails_goes_back(start_gateway: StartGateway, two: list[Service]) -> None:
    canary = two[1]
    whole = tables(two, {"stable": 50, "canary": 50}, rollback=RULE, split=OVERRIDE)
    gateway = start_gateway(whole)
    admin = Admin(gateway)
    canary.answer = reply(500)
    feed(gateway, "stable", 30)
    feed(gateway, "canary", 30)
    told = gateway.wait_stderr(LINE)
    assert told.startswith(
        f"{LINE}more than 5 points above stable within 3600 s: errors 100.00 % of 30, p99 "
    )
    assert " against 0.00 % of 30, " in told
    assert " chance " in told
    canary.answer = canary.tell_name
    with gateway.client() as client:
        assert names(client, 20) == {"stable": 20}
        shown = admin.split()["canary"]
        assert shown["weight"] == 0
        assert "errors 100.00 % of 30" in shown["rolled_back"]
        # It stays there, over reloads too; testers still reach it.
        for change in (whole, tables(two, {"stable": 40, "canary": 60}, rollback=RULE, split=OVERRIDE)):
            gateway.reload(change)
            assert names(client, 20) == {"stable": 20}
        assert names(client, 3, "X-Version: canary") == {"canary": 3}
        # Until an operator says otherwise; then it is judged by what comes from now on.
        admin.set_split({"clear": "canary"})
        shown = admin.split()["canary"]
        assert (shown["weight"], shown["rolled_back"]) == (60, None)
        assert len(user_of_each(client)) == 2
    gateway.stop()
    assert len([line for line in gateway.stderr if line.startswith(LINE)]) == 1


def test_a_canary_as_bad_as_the_others_stays(start_gateway: StartGateway, two: list[Service]) -> None:
    """Where both fail the canary is not to blame; only when the other one gets better it is."""
    for service in two:
        service.answer = reply(500)
    gateway = start_gateway(tables(two, {"stable": 50, "canary": 50}, rollback=RULE, split=OVERRIDE))
    admin = Admin(gateway)
    feed(gateway, "stable", 30)
    feed(gateway, "canary", 30)
    two[0].answer = two[0].tell_name
    assert admin.split()["canary"]["rolled_back"] is None
    feed(gateway, "stable", 60)
    gateway.wait_stderr(LINE)


def test_a_slow_canary_goes_back(start_gateway: StartGateway, two: list[Service]) -> None:
    pause = threading.Event()

    def slowly(connection: Connection) -> None:
        pause.wait(1)  # it is never set: this is how slow it is
        two[1].tell_name(connection)

    two[1].answer = slowly
    rule = {"error_percent": 0, "p99_factor": 1.2, "min_samples": 20, "window": "1h"}
    gateway = start_gateway(tables(two, {"stable": 50, "canary": 50}, rollback=rule, split=OVERRIDE))
    feed(gateway, "stable", 30)
    feed(gateway, "canary", 20)
    told = gateway.wait_stderr(LINE)
    assert "a p99 more than 1.2 times that of stable within 3600 s: errors 0.00 % of 20, p99 " in told
    assert Admin(gateway).split()["canary"]["weight"] == 0


# -- nobody else's logging


def test_embedding_configures_no_logging() -> None:
    """The lines on stderr are the commands' doing: whoever embeds the gateway has handlers of his own."""
    code = """
import asyncio, logging
from fastgate.config import loads
from fastgate.server.gateway import Gateway

async def main():
    text = '[[listeners]]\\nname = "main"\\nbind = "127.0.0.1:0"\\n'
    text += '[[routes]]\\nname = "all"\\nrespond = {}\\n'
    gateway = Gateway(loads(text, "gateway.toml").config)
    await gateway.start()
    await gateway.drain()

asyncio.run(main())
for name in ("", "fastgate", "fastgate.upstreams", "fastgate.splits"):
    logger = logging.getLogger(name)
    assert not logger.handlers and logger.propagate, name
    assert logger.level == (logging.WARNING if name == "" else logging.NOTSET), name
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
