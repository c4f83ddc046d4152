"""The pool of connections to an endpoint: reuse, its bounds, its queue, the keep-alive race, balancing."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import ExitStack
from typing import Any

import pytest
from conftest import StartGateway, StartUpstream
from support import upstream as up
from support.answers import refused
from support.client import request
from support.gateway import Gateway, config
from support.upstream import Upstream


def pooled(upstream: Upstream, **pool: Any) -> dict[str, Any]:
    return config(upstream.address, upstream_options={"pool": pool})


def test_reuse(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    """One after the other, from one client or from many: one connection."""
    upstream = start_upstream()
    gateway = start_gateway(config(upstream.address))
    for _ in range(5):
        with gateway.client() as client:
            for _ in range(5):
                assert client.get().status == 200
    assert len(upstream.connections) == 1
    assert len(upstream.requests) == 25


def test_reuse_after_each_framing(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    upstream = start_upstream()
    gateway = start_gateway(config(upstream.address))
    with gateway.client() as client:
        upstream.script(
            up.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nT: 1\r\n\r\n")
        )
        client.get()
        upstream.script(up.send(b"HTTP/1.1 204 No Content\r\n\r\n"))
        client.get()
        upstream.script(up.send(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"))
        client.get()
        upstream.script(up.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"))
        client.request(request("HEAD"))
        upstream.script(up.send(b"HTTP/1.1 103 E\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
        client.get()
        client.request(request("POST", chunks=[b"x" * 100_000]))
        client.get()
    assert len(upstream.connections) == 1


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokX",
        b"HTTP/1.1 401 No\r\nConnection: x, Close\r\nContent-Length: 2\r\n\r\nok",
    ],
    ids=["close", "HTTP/1.0", "more than its length", "close in a list"],
)
def test_not_reused(start_gateway: StartGateway, start_upstream: StartUpstream, response: bytes) -> None:
    upstream = start_upstream()
    gateway = start_gateway(config(upstream.address))
    upstream.script(up.send(response), up.wait_close())
    with gateway.client() as client:
        assert client.get().body == b"ok"
        assert client.get().status == 200
    assert len(upstream.connections) == 2
    assert upstream.connections[0].ended.wait(10)


def test_http10_upstream_that_stays(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    upstream = start_upstream()
    gateway = start_gateway(config(upstream.address))
    for _ in range(2):
        upstream.script(up.send(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"))
    with gateway.client() as client:
        assert client.get().body == b"ok"
        assert client.get().body == b"ok"
    assert len(upstream.connections) in (1, 2)


def test_idle_timeout(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    upstream = start_upstream()
    gateway = start_gateway(pooled(upstream, idle_timeout="150ms"))
    before = gateway.fds()
    with gateway.client() as client:
        client.get()
    assert upstream.connections[0].ended.wait(10)
    gateway.wait_fds(before)


def concurrent(gateway: Gateway, upstream: Upstream, count: int, held: int) -> None:
    """`count` requests at once; the upstream answers none before `held` of them have arrived."""
    gate = threading.Event()
    for _ in range(count):
        upstream.script(up.wait_for(gate), up.reply())
    mark = upstream.mark()
    with ExitStack() as stack:
        clients = [stack.enter_context(gateway.client()) for _ in range(count)]
        for client in clients:
            client.send(request())
        mark.wait(held)
        with gateway.client() as barrier:
            # Whatever it is answered, the gateway has by then read what was sent before.
            barrier.request(b"GET / HTTP/1.1\r\n\r\n")
        assert len(mark.requests) == held
        gate.set()
        for client in clients:
            assert client.response().status == 200


def test_max_connections(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    """Never more than that many; the others wait their turn and are served."""
    upstream = start_upstream()
    gateway = start_gateway(pooled(upstream, max_connections=3))
    concurrent(gateway, upstream, 10, held=3)
    assert len(upstream.connections) == 3


def test_max_idle(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    upstream = start_upstream()
    gateway = start_gateway(pooled(upstream, max_idle=2))
    concurrent(gateway, upstream, 5, held=5)
    upstream.wait("three closed", lambda: len(upstream.open) <= 2)
    assert len(upstream.open) == 2


def test_queue_full(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    upstream = start_upstream()
    gateway = start_gateway(pooled(upstream, max_connections=1, queue=2))
    gate = threading.Event()
    upstream.script(up.wait_for(gate), up.reply())
    with ExitStack() as stack:
        clients = [stack.enter_context(gateway.client()) for _ in range(3)]
        for client in clients:
            client.send(request())
            upstream.wait_requests(1)
        with gateway.client() as barrier:
            barrier.request(b"GET / HTTP/1.1\r\n\r\n")
        for _ in range(3):
            with gateway.client() as extra:
                refused(extra.get(), "queue-full")
                assert extra.request(b"GET / HTTP/1.1\r\n\r\n").status == 400, "a full queue closes nobody"
        gate.set()
        for client in clients:
            assert client.response().status == 200
    assert len(upstream.connections) == 1


def test_queue_timeout(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    upstream = start_upstream()
    gateway = start_gateway(pooled(upstream, max_connections=1, queue_timeout="150ms"))
    gate = threading.Event()
    upstream.script(up.wait_for(gate), up.reply())
    with gateway.client() as first, gateway.client() as second:
        first.send(request())
        upstream.wait_requests(1)
        refused(second.get(), "queue-timeout")
        gate.set()
        assert first.response().status == 200
        assert second.get().status == 200
    record = next(one for one in gateway.wait_log(0, 3) if one["reason"] == "queue-timeout")
    assert record["status"] == 503
    assert len(upstream.requests) == 2


def test_client_gone_in_the_queue(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    """It is taken out: nothing is sent for it."""
    upstream = start_upstream()
    gateway = start_gateway(pooled(upstream, max_connections=1))
    gate = threading.Event()
    upstream.script(up.wait_for(gate), up.reply())
    with gateway.client() as first:
        first.send(request(target="/first"))
        upstream.wait_requests(1)
        with gateway.client() as second:
            second.send(request(target="/second"))
            with gateway.client() as barrier:
                barrier.request(b"GET / HTTP/1.1\r\n\r\n")
        gateway.wait_log(0, 2)
        gate.set()
        assert first.response().status == 200
        assert first.get("/third").status == 200
    assert [found.target for found in upstream.requests] == ["/first", "/third"]


# -- the keep-alive race (RFC 9112 9.3.1, RFC 9110 9.2.2)


def warm(gateway: Gateway) -> None:
    with gateway.client() as client:
        assert client.get("/warm").status == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_race_retried(
    start_gateway: StartGateway, start_upstream: StartUpstream, method: str, how: str
) -> None:
    """An idempotent request on a reused connection that ends without a byte is sent once more, on a new
    one."""
    upstream = start_upstream()
    gateway = start_gateway(config(upstream.address))
    warm(gateway)
    upstream.script(up.close() if how == "close" else up.reset())
    with gateway.client() as client:
        assert client.request(request(method, "/race")).status == 200
    assert [found.target for found in upstream.requests] == ["/warm", "/race", "/race"]
    assert len(upstream.connections) == 2
    record = gateway.wait_log(0, 2)[1]
    assert (record["status"], record["attempts"]) == (200, 2)


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_race_not_retried(start_gateway: StartGateway, start_upstream: StartUpstream, method: str) -> None:
    """What is not idempotent and was sent may have been done: delivered once, and the client is told."""
    upstream = start_upstream()
    gateway = start_gateway(config(upstream.address))
    warm(gateway)
    upstream.script(up.read_body(), up.close())
    with gateway.client() as client:
        refused(client.request(request(method, "/race", body=b"pay")), "upstream-reset")
    assert [found.target for found in upstream.requests] == ["/warm", "/race"]


def test_race_retried_once_alone(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    upstream = start_upstream()
    gateway = start_gateway(config(upstream.address))
    warm(gateway)
    upstream.script(up.close()).script(up.close())
    with gateway.client() as client:
        refused(client.get("/race"), "upstream-reset")
    assert [found.target for found in upstream.requests].count("/race") == 2


def test_fresh_connection_not_retried(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    """No race here: the endpoint took a new connection, read the request and closed."""
    upstream = start_upstream()
    gateway = start_gateway(config(upstream.address))
    upstream.script(up.close())
    with gateway.client() as client:
        refused(client.get("/fresh"), "upstream-reset")
    assert [found.target for found in upstream.requests] == ["/fresh"]


def test_no_retry_after_a_byte_of_the_answer(
    start_gateway: StartGateway, start_upstream: StartUpstream
) -> None:
    upstream = start_upstream()
    gateway = start_gateway(config(upstream.address))
    warm(gateway)
    upstream.script(up.send(b"H"), up.close())
    with gateway.client() as client:
        refused(client.get("/race"), "upstream-reset", "upstream-syntax", "upstream-truncated")
    assert [found.target for found in upstream.requests] == ["/warm", "/race"]


def test_no_retry_after_an_interim_answer(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    upstream = start_upstream()
    gateway = start_gateway(config(upstream.address))
    warm(gateway)
    upstream.script(up.send(b"HTTP/1.1 103 Early Hints\r\n\r\n"), up.close())
    with gateway.client() as client:
        assert client.get("/race").status == 502
    assert [found.target for found in upstream.requests] == ["/warm", "/race"]


def test_a_streamed_body_is_not_sent_twice(
    start_gateway: StartGateway, start_upstream: StartUpstream
) -> None:
    """PUT is idempotent, but its body has gone by: it cannot be sent again whole, so it is not sent again."""
    upstream = start_upstream()
    gateway = start_gateway(config(upstream.address))
    warm(gateway)
    upstream.script(up.read_body(), up.close())
    with gateway.client() as client:
        response = client.request(request("PUT", "/race", body=b"x" * 5_000_000))
        assert response.status in (200, 502)
    for found in upstream.requests[1:]:
        assert not found.complete or found.length == 5_000_000


def test_closed_while_idle(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    """A FIN on an idle connection takes it out of the pool; no request is tried on it, so a POST works."""
    upstream = start_upstream()
    gateway = start_gateway(config(upstream.address))
    before = gateway.fds()
    upstream.script(up.reply(200, b"ok"), up.close())
    with gateway.client() as client:
        assert client.get().body == b"ok"
        gateway.wait_fds(before + 1)
        assert client.request(request("POST", body=b"x")).status == 200
    assert len(upstream.requests) == 2


# -- endpoints


def test_round_robin_and_weights(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    one, two, three = (start_upstream(name=name) for name in ("one", "two", "three"))
    endpoints = [one.address, {"address": two.address, "weight": 3}, {"address": three.address, "zone": "a"}]
    gateway = start_gateway(config(endpoints, upstream_options={"balance": "round-robin"}))
    with gateway.client() as client:
        got = [client.get().json()["upstream"] for _ in range(50)]
    assert Counter(got) == {"one": 10, "two": 30, "three": 10}
    assert "two two two two" not in " ".join(got), "smooth: the heavy one is spread"


def test_named_endpoint(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    upstream = start_upstream()
    gateway = start_gateway(config(upstream.address.replace("127.0.0.1", "localhost")))
    with gateway.client() as client:
        assert client.get().status == 200


def test_unknown_name(start_gateway: StartGateway) -> None:
    """The gateway starts all the same (one name must not block it) and says why it cannot serve."""
    gateway = start_gateway(config("no-such-host.invalid:80"))
    with gateway.client() as client:
        refused(client.get(), "dns-failure")
        refused(client.get(), "dns-failure")
