"""Deadlines, set short here: a slow peer holds nothing (408, 504), and a slow but honest one is served."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from conftest import StartGateway, StartUpstream
from support import upstream as up
from support.answers import proxy_details, refused
from support.client import request
from support.gateway import Gateway, config
from support.upstream import Upstream
from support.wire import ConnectionEnded


def gateway_config(upstream: str) -> dict[str, Any]:
    total = {"name": "total", "match": {"prefix": "/total"}, "upstream": "up", "timeouts": {"total": "300ms"}}
    return config(
        upstream,
        listener={
            "timeouts": {"head": "200ms", "body_idle": "200ms", "keep_alive": "300ms", "write_idle": "300ms"},
            "body_min_rate": "0B/s",
        },
        upstream_options={"timeouts": {"connect": "200ms", "head": "250ms", "idle": "250ms"}},
        routes=[total, {"name": "all", "upstream": "up"}],
    )


# -- downstream


def test_head_that_stops(gateway: Gateway, upstream: Upstream) -> None:
    mark, since = upstream.mark(), gateway.mark()
    with gateway.client() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
        response = client.response()
        refused(response, "head-timeout")
        assert response.closes
        client.ended()
    assert not mark.requests
    assert gateway.wait_log(since)[0]["reason"] == "head-timeout"


def test_head_that_trickles(gateway: Gateway, upstream: Upstream) -> None:
    """Slowloris: the deadline is for the whole head, a byte now and then does not move it."""
    stop = threading.Event()
    with gateway.client() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n")

        def drip() -> None:
            while not stop.wait(0.05):
                if not client.try_send(b"X: y\r\n"):
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            refused(client.response(), "head-timeout")
        finally:
            stop.set()
            thread.join()


def test_second_head_that_stops(gateway: Gateway, upstream: Upstream) -> None:
    with gateway.client() as client:
        assert client.get().status == 200
        client.send(b"GET / HT")
        refused(client.response(), "head-timeout")
        client.ended()


def test_connection_that_says_nothing(gateway: Gateway, upstream: Upstream) -> None:
    """No request was begun: closed, with or without a 408."""
    with gateway.client() as client:
        try:
            assert client.response().status == 408
        except ConnectionEnded as error:
            assert error.how == "eof"  # noqa: PT017


def test_keep_alive_idle(gateway: Gateway, upstream: Upstream) -> None:
    """Closed in silence: an unasked 408 could be taken for the answer to the next request."""
    with gateway.client() as client:
        assert client.get().status == 200
        assert client.ended() == "eof"


def test_body_that_stops(gateway: Gateway, upstream: Upstream) -> None:
    mark = upstream.mark()
    for data in (
        request("POST", lines=("Content-Length: 10",)) + b"hello",
        request("POST", lines=("Transfer-Encoding: chunked",)) + b"5\r\nhello\r\n",
        request("POST", lines=("Transfer-Encoding: chunked",)) + b"5\r\nhel",
        request("POST", lines=("Transfer-Encoding: chunked",)) + b"5\r\nhello\r\n0\r\n",
    ):
        with gateway.client() as client:
            client.send(data)
            response = client.response("POST")
            refused(response, "body-timeout")
            assert response.closes
            client.ended()
    assert not any(found.complete for found in mark.requests)


def test_slow_body_that_moves(gateway: Gateway, upstream: Upstream) -> None:
    """An idle deadline is no deadline for the whole: 10 pieces, each within it, take longer than it
    together."""
    with gateway.client() as client:
        client.send(request("POST", lines=("Content-Length: 10",)))
        pause = threading.Event()
        for _ in range(10):
            pause.wait(0.05)
            client.send(b"x")
        assert client.response("POST").json()["body"] == "x" * 10


def test_waiting_for_an_answer_is_not_idle(gateway: Gateway, upstream: Upstream) -> None:
    """The client's deadlines do not run while it waits for the upstream."""
    upstream.script(
        up.trickle(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", size=36, pause=0.2), up.send(b"ok")
    )
    with gateway.client() as client:
        assert client.get().body == b"ok"


def test_body_min_rate(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    """After a grace of 5 s, fewer bytes than asked a second end the request. (The one slow test: the grace
    is fixed.)"""
    upstream = start_upstream()
    gateway = start_gateway(config(upstream.address, listener={"body_min_rate": "1KiB/s"}))
    stop = threading.Event()
    with gateway.client(timeout=15) as client:
        client.send(request("POST", lines=("Content-Length: 100000",)))

        def drip() -> None:
            while not stop.wait(0.1):
                if not client.try_send(b"x" * 10):
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            refused(client.response("POST"), "body-too-slow")
        finally:
            stop.set()
            thread.join()


# -- upstream


def test_upstream_accepts_and_says_nothing(gateway: Gateway, upstream: Upstream) -> None:
    since = gateway.mark()
    upstream.script(up.wait_close())
    with gateway.client() as client:
        refused(client.get(), "upstream-head-timeout")
        assert client.get("/next").status == 200
    record = gateway.wait_log(since)[0]
    assert (record["status"], record["reason"], record["attempts"]) == (504, "upstream-head-timeout", 1)


def test_upstream_head_trickles(gateway: Gateway, upstream: Upstream) -> None:
    """The head's deadline is for the whole head."""
    done = threading.Event()
    upstream.script(
        up.trickle(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100, size=1, pause=0.05, until=done),
        up.wait_close(),
    )
    with gateway.client() as client:
        refused(client.get(), "upstream-head-timeout")
    done.set()


def test_head_deadline_starts_with_the_sent_request(gateway: Gateway, upstream: Upstream) -> None:
    """A long upload does not eat the time that the upstream has for its answer."""
    with gateway.client() as client:
        client.send(request("POST", lines=("Content-Length: 8",)))
        pause = threading.Event()
        for _ in range(8):
            pause.wait(0.06)
            client.send(b"x")
        assert client.response("POST").status == 200


def test_upstream_body_stops(gateway: Gateway, upstream: Upstream) -> None:
    since = gateway.mark()
    upstream.script(up.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"), up.wait_close())
    with gateway.client() as client:
        client.send(request())
        client.cut_response()
    assert gateway.wait_log(since)[0]["reason"] == "upstream-idle-timeout"


def test_upstream_body_trickles(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(
        up.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"),
        up.trickle(b"0123456789", size=1, pause=0.04),
    )
    with gateway.client() as client:
        assert client.get().body == b"0123456789"


def test_upstream_takes_no_body(gateway: Gateway, upstream: Upstream) -> None:
    """The endpoint reads nothing of a body that fills all buffers."""
    upstream.script(up.wait_for(stop := threading.Event()), up.close())
    with gateway.client() as client:
        client.try_send(request("POST", body=b"x" * 9_000_000))
        response = client.response("POST")
        refused(response, "upstream-idle-timeout", "upstream-head-timeout", "body-timeout")
        assert response.status == 504, "the endpoint stalls, not the client"
    stop.set()


def test_connect_timeout(start_gateway: StartGateway) -> None:
    with up.full_backlog() as address:
        gateway = start_gateway(config(address, upstream_options={"timeouts": {"connect": "200ms"}}))
        with gateway.client() as client:
            refused(client.get(), "connect-timeout")


@pytest.mark.parametrize("stage", ["interim", "body"])
def test_total(gateway: Gateway, upstream: Upstream, stage: str) -> None:
    """The route's total holds however busy the exchange is: the pauses here keep all other deadlines away."""
    since, done = gateway.mark(), threading.Event()
    if stage == "interim":
        steps = up.trickle(b"HTTP/1.1 103 E\r\n\r\n" * 8, size=18, pause=0.1, until=done)
    else:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
        steps = up.trickle(head + b"x" * 1000, size=42, pause=0.1, until=done)
    upstream.script(steps, up.wait_close())
    with gateway.client() as client:
        client.send(request(target="/total"))
        if stage == "body":
            client.cut_response()
        else:
            response = client.response()
            assert response.status == 504
            assert proxy_details(response)[0] in ("total-timeout", "upstream-head-timeout")
    done.set()
    record = gateway.wait_log(since)[0]
    assert record["reason"] in (
        ("total-timeout",) if stage == "body" else ("total-timeout", "upstream-head-timeout")
    )


def test_total_before_the_head(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    upstream = start_upstream()
    gateway = start_gateway(config(upstream.address, route={"timeouts": {"total": "200ms"}}))
    upstream.script(up.wait_close())
    with gateway.client() as client:
        refused(client.get(), "total-timeout")
        assert client.get("/next").status == 200


def test_client_that_does_not_read(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    """The third form of slowloris: the answer fills the buffers and nobody takes it."""
    upstream = start_upstream()
    gateway = start_gateway(config(upstream.address, listener={"timeouts": {"write_idle": "200ms"}}))
    before = gateway.fds()
    upstream.script(
        up.send(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n"), up.send(b"x" * 50_000_000)
    )
    with gateway.client(receive_buffer=4096) as client:
        client.send(request())
        record = gateway.wait_log()[0]
        assert record["reason"] == "client-not-reading"
        assert upstream.connections[0].ended.wait(10), "the upstream attempt is abandoned"
        gateway.wait_fds(before)


def test_deadlines_leave_nothing(gateway: Gateway, upstream: Upstream) -> None:
    """A hundred stalled heads at once: all end, and no descriptor stays."""
    before = gateway.fds()
    clients = [gateway.client() for _ in range(100)]
    for client in clients:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n")
    for client in clients:
        assert client.response().status == 408
        client.close()
    gateway.wait_fds(before)
