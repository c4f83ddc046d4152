"""Connections that stay: persistence, pipelining, and who closes when (RFC 9112 9)."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from support import upstream as up
from support.client import request
from support.gateway import Gateway, config
from support.upstream import Upstream
from support.wire import tokens


def gateway_config(upstream: str) -> dict[str, Any]:
    return config(upstream)


def test_many_requests_on_one_connection(gateway: Gateway, upstream: Upstream) -> None:
    with gateway.client() as client:
        for number in range(50):
            assert client.get(f"/{number}").json()["target"] == f"/{number}"


@pytest.mark.parametrize(
    ("version", "lines", "stays"),
    [
        ("1.1", (), True),
        ("1.1", ("Connection: keep-alive",), True),
        ("1.1", ("Connection: close",), False),
        ("1.1", ("Connection: Close",), False),
        ("1.1", ("Connection: x, close",), False),
        ("1.1", ("Connection: x", "Connection: close"), False),
        ("1.1", ("Connection: keep-alive, close",), False),
        ("1.1", ("Connection: closed",), True),
        ("1.1", ("Proxy-Connection: close",), True),
        ("1.0", (), False),
        ("1.0", ("Connection: close",), False),
    ],
)
def test_persistence(
    gateway: Gateway, upstream: Upstream, version: str, lines: tuple[str, ...], stays: bool
) -> None:
    """RFC 9112 9.3. What closes says so in its answer (9.6)."""
    with gateway.client() as client:
        response = client.request(request(version=version, lines=lines))
        assert response.status == 200
        if stays:
            assert "close" not in tokens(response.fields, "connection")
            assert client.get("/again").status == 200
        else:
            assert response.closes
            assert client.ended() == "eof"


def test_http10_keep_alive(gateway: Gateway, upstream: Upstream) -> None:
    """An HTTP/1.0 client may ask to stay: then the answer says so and has a length, or the connection
    closes."""
    with gateway.client() as client:
        response = client.request(request(version="1.0", lines=("Connection: keep-alive",)))
        if "keep-alive" in tokens(response.fields, "connection"):
            assert response.framing == "length"
            assert client.get("/again").status == 200
        else:
            assert client.ended() == "eof"


def test_answer_is_in_http11(gateway: Gateway, upstream: Upstream) -> None:
    """A server answers in its own version, whatever the client's and the upstream's (RFC 9110 6.2, 2.5)."""
    upstream.script(up.send(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"))
    with gateway.client() as client:
        assert client.get().version == "1.1"
    with gateway.client() as client:
        assert client.request(request(version="1.0")).version == "1.1"


def test_pipelining_keeps_the_order(gateway: Gateway, upstream: Upstream) -> None:
    """Answers come in the order of the requests (RFC 9112 9.3.2), the first one late."""
    gate = threading.Event()
    upstream.script(up.wait_for(gate), up.reply(200, b"slow"))
    with gateway.client() as client:
        client.send(b"".join(request(target=f"/{number}") for number in range(20)))
        gate.set()
        assert client.response().body == b"slow"
        for number in range(1, 20):
            assert client.response().json()["target"] == f"/{number}"


def test_pipelined_bodies_and_methods(gateway: Gateway, upstream: Upstream) -> None:
    with gateway.client() as client:
        client.send(
            request("POST", "/1", body=b"one")
            + request("HEAD", "/2")
            + request("POST", "/3", chunks=[b"thr", b"ee"])
            + request("PUT", "/4", body=b"")
            + request("GET", "/5", lines=("Connection: close",))
        )
        assert client.response("POST").json()["body"] == "one"
        assert client.response("HEAD").status == 200
        assert client.response("POST").json()["body"] == "three"
        assert client.response("PUT").json()["body"] == ""
        assert client.response("GET").json()["target"] == "/5"
        assert client.ended() == "eof"


def test_nothing_is_read_behind_close(gateway: Gateway, upstream: Upstream) -> None:
    """RFC 9112 9.6: no request behind one that said close is processed."""
    mark = upstream.mark()
    with gateway.client() as client:
        client.send(request(target="/last", lines=("Connection: close",)) + request(target="/never"))
        assert client.response().json()["target"] == "/last"
        client.ended()
    with gateway.client() as client:
        client.get("/barrier")
    assert sorted(found.target for found in mark.requests) == ["/barrier", "/last"]


def test_a_flood_of_pipelined_requests(gateway: Gateway, upstream: Upstream) -> None:
    """A whole buffer of requests is served one by one; the harness reads while it sends."""
    count = 2000
    with gateway.client() as client:
        sender = threading.Thread(target=client.send, args=(request(target="/f") * count,))
        sender.start()
        for _ in range(count):
            assert client.response().status == 200
        sender.join(10)
        assert client.get("/after").json()["target"] == "/after"


def test_pipelined_behind_a_slow_one_does_not_run(gateway: Gateway, upstream: Upstream) -> None:
    """Answers queue in order; a POST behind an unanswered request must not be lost or run twice (RFC 9112
    9.3.2)."""
    gate = threading.Event()
    upstream.script(up.wait_for(gate), up.reply(200, b"first"))
    mark = upstream.mark()
    with gateway.client() as client:
        client.send(request(target="/1") + request("POST", "/2", body=b"x"))
        mark.wait(1)
        gate.set()
        assert client.response().body == b"first"
        assert client.response("POST").json()["target"] == "/2"
    assert [found.target for found in mark.requests].count("/2") == 1


def test_upstream_close_does_not_close_the_client(gateway: Gateway, upstream: Upstream) -> None:
    """Connection is for one hop (RFC 9110 7.6.1)."""
    upstream.script(up.reply(200, b"bye", close_after=True))
    with gateway.client() as client:
        response = client.get()
        assert response.body == b"bye"
        assert "close" not in tokens(response.fields, "connection")
        assert client.get("/again").status == 200


def test_client_close_does_not_close_the_upstream(gateway: Gateway, upstream: Upstream) -> None:
    mark = upstream.mark()
    for _ in range(3):
        with gateway.client() as client:
            client.request(request(lines=("Connection: close",)))
            client.ended()
    assert all("close" not in tokens(found.fields, "connection") for found in mark.requests)
    assert len(mark.connections) <= 1, "the upstream's connection is used again"


def test_error_with_the_body_unread_closes(gateway: Gateway, upstream: Upstream) -> None:
    """An answer before the body's end either reads the body or closes (RFC 9112 9.3): the body is no
    request."""
    upstream.script(up.reply(403, b"no", close_after=True))
    mark = upstream.mark()
    with gateway.client() as client:
        client.send(request("POST", "/1", body=b"")[:-4] + b"\r\nX: y\r\n\r\n")
        assert client.response("POST").status == 403
    upstream.script(up.reply(403, b"no", close_after=True))
    with gateway.client() as client:
        client.send(b"POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 46\r\n\r\n")
        response = client.response("POST")
        assert response.status == 403
        client.try_send(b"GET /smuggled HTTP/1.1\r\nHost: test.example\r\n\r\n")
        client.try_send(request(target="/after"))
        rest = client.stream.rest("what follows")
        assert rest.count(b"HTTP/1.1 ") <= 1
    assert "/smuggled" not in [found.target for found in mark.requests]
