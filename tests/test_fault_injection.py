"""Faults on purpose: delays, aborts, their percentages and the header that asks for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from support import upstream as up
from support.answers import proxy_details
from support.client import request
from support.gateway import Gateway, config
from support.upstream import Upstream

RULES: dict[str, dict[str, Any]] = {
    "abort": {"abort": 503},
    "teapot": {"abort": 418},
    "gone": {"abort": 410},
    "never": {"abort": 503, "abort_percent": 0, "delay": "10s", "delay_percent": 0.0},
    "half": {"abort": 503, "abort_percent": 50},
    "delay": {"delay": "100ms"},
    "both": {"delay": "60ms", "abort": 500},
    "long": {"delay": "1m"},
    "header": {"abort": 503, "header": "X-Chaos"},
    "late": {"delay": "1m"},
}


def gateway_config(upstream: str) -> dict[str, Any]:
    return config(
        admin={"bind": "127.0.0.1:0"},
        upstreams={"up": {"endpoints": [upstream]}},
        routes=[
            {
                "name": name,
                "match": {"prefix": f"/{name}"},
                "upstream": "up",
                "fault": rule,
                **({"timeouts": {"total": "70ms"}} if name == "late" else {}),
            }
            for name, rule in RULES.items()
        ],
    )


@pytest.fixture(autouse=True)
def nothing_left(gateway: Gateway) -> Iterator[None]:
    yield
    gateway.assert_idle()


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize(("name", "status"), [("abort", 503), ("teapot", 418), ("gone", 410)])
def test_abort(gateway: Gateway, upstream: Upstream, name: str, status: int, method: str) -> None:
    mark, since = upstream.mark(), gateway.mark()
    with gateway.client() as client:
        for _ in range(2):
            response = client.request(request(method, f"/{name}", body=b"pay" if method == "POST" else None))
            assert (response.status, proxy_details(response)) == (status, ["fault-injected"])
            if method != "HEAD":
                assert response.json()["code"] == "fault-injected"
    record = gateway.wait_log(since)[0]
    assert (record["status"], record["reason"], record["attempts"]) == (status, "fault-injected", 0)
    assert not mark.requests


def test_percent(gateway: Gateway, upstream: Upstream) -> None:
    with gateway.client() as client:
        assert {client.get("/never").status for _ in range(200)} == {200}
        assert {client.get("/abort").status for _ in range(200)} == {503}
        aborted = sum(client.get("/half").status == 503 for _ in range(400))
    assert 120 < aborted < 280, "8 standard deviations"


def test_header(gateway: Gateway, upstream: Upstream) -> None:
    with gateway.client() as client:
        assert client.get("/header").status == 200
        assert client.get("/header", "x-chaos: monkey").status == 503
        assert client.get("/header", "x-chaos2: monkey").status == 200


@pytest.mark.parametrize("body", [None, b"hello"])
def test_delay(gateway: Gateway, upstream: Upstream, body: bytes | None) -> None:
    start = time.monotonic()
    with gateway.client() as client:
        response = client.request(request("POST" if body else "GET", "/delay", body=body))
        assert response.json()["body"] == (body or b"").decode()
        assert time.monotonic() - start >= 0.1
        assert client.get("/never").status == 200


def test_a_body_that_comes_during_the_delay(gateway: Gateway, upstream: Upstream) -> None:
    since = gateway.mark()
    with gateway.client() as client:
        client.send(request("POST", "/delay", lines=("Content-Length: 10",)))
        client.send(b"hello")
        client.send(b"world")
        assert client.response().json()["body"] == "helloworld"
    assert gateway.wait_log(since)[0]["time_total"] >= 0.1


@pytest.mark.parametrize("part", [b"", b"hello"])
def test_abort_behind_a_delay(gateway: Gateway, upstream: Upstream, part: bytes) -> None:
    """Also in the middle of a request's body."""
    mark, start = upstream.mark(), time.monotonic()
    with gateway.client() as client:
        lines = ("Content-Length: 10",) if part else ()
        client.send(request("POST" if part else "GET", "/both", lines=lines) + part)
        response = client.response()
        assert (response.status, proxy_details(response)) == (500, ["fault-injected"])
    assert time.monotonic() - start >= 0.06
    assert not mark.requests


def test_the_client_leaves_during_the_delay(gateway: Gateway, upstream: Upstream) -> None:
    since = gateway.mark()
    with gateway.client() as client:
        client.send(request(target="/long"))
        client.half_close()
        client.ended()
    record = gateway.wait_log(since)[0]
    assert (record["reason"], record["attempts"]) == ("client-gone", 0)


def test_the_total_deadline_ends_a_delay(gateway: Gateway, upstream: Upstream) -> None:
    with gateway.client() as client:
        assert proxy_details(client.get("/late")) == ["total-timeout"]


def test_a_delayed_request_holds_nobody_else(gateway: Gateway, upstream: Upstream) -> None:
    begun = threading.Event()
    upstream.script(up.tell(begun), up.reply(200, b"quick"))
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(gateway.client()).send(request(target="/long"))
        assert stack.enter_context(gateway.client()).get("/never").body == b"quick"
    assert begun.is_set()
