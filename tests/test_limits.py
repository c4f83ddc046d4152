"""Limits and their statuses: 414, 431, 413, 502, 503 (RFC 9110 15.5, RFC 6585 5)."""

from __future__ import annotations

import contextlib
from contextlib import ExitStack
from typing import Any

import pytest
from conftest import StartGateway, StartUpstream
from support import upstream as up
from support.answers import check_refused, reason_of, refused
from support.client import request
from support.gateway import Gateway, config
from support.upstream import Upstream
from support.wire import ConnectionEnded


def gateway_config(upstream: str) -> dict[str, Any]:
    small = {"name": "small", "match": {"prefix": "/small"}, "upstream": "up", "limits": {"body": "10B"}}
    return config(
        upstream,
        listener={
            "limits": {"request_line": "256B", "header_bytes": "1KiB", "header_count": 20, "body": "1000B"}
        },
        upstreams={
            "up": {"endpoints": [upstream]},
            "tight": {
                "endpoints": [upstream],
                "limits": {"header_bytes": "1KiB", "header_count": 20, "body": "1000B"},
            },
        },
        routes=[
            small,
            {"name": "tight", "match": {"prefix": "/tight"}, "upstream": "tight"},
            {"name": "all", "upstream": "up"},
        ],
    )


def line_of(length: int) -> bytes:
    """A request whose request line has so many bytes without its CRLF."""
    return request(target="/" + "a" * (length - len("GET / HTTP/1.1")))


@pytest.mark.parametrize("length", [200, 250])
def test_request_line_within(gateway: Gateway, upstream: Upstream, length: int) -> None:
    with gateway.client() as client:
        assert client.request(line_of(length)).status == 200


@pytest.mark.parametrize("length", [260, 900, 20_000])
def test_request_line_over(gateway: Gateway, upstream: Upstream, length: int) -> None:
    check_refused(gateway, upstream, line_of(length), "request-line-too-long")


def test_request_line_without_end(gateway: Gateway, upstream: Upstream) -> None:
    """The limit holds before the line has ended."""
    with gateway.client() as client:
        client.send(b"GET /" + b"a" * 300)
        refused(client.response(), "request-line-too-long")
        client.ended()


def test_long_method(gateway: Gateway, upstream: Upstream) -> None:
    check_refused(
        gateway,
        upstream,
        request("A" * 300),
        "request-line-too-long",
        "request-line-syntax",
        "method-not-implemented",
    )


def head_of(length: int, fields: int = 1) -> bytes:
    """A request with so many bytes of head, request line and empty line included."""
    lines = [f"X-{number}: " for number in range(fields)]
    short = len(request(lines=tuple(lines)))
    lines[0] += "v" * (length - short)
    return request(lines=tuple(lines))


@pytest.mark.parametrize("length", [500, 900])
def test_head_within(gateway: Gateway, upstream: Upstream, length: int) -> None:
    with gateway.client() as client:
        assert client.request(head_of(length)).status == 200


@pytest.mark.parametrize("length", [1100, 2000, 100_000])
def test_head_over(gateway: Gateway, upstream: Upstream, length: int) -> None:
    check_refused(gateway, upstream, head_of(length), "header-too-large")


def test_head_over_in_one_line_without_end(gateway: Gateway, upstream: Upstream) -> None:
    with gateway.client() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"v" * 1100)
        refused(client.response(), "header-too-large")
        client.ended()


@pytest.mark.parametrize(
    ("count", "reason"), [(18, None), (20, None), (21, "header-too-many"), (50, "header-too-many")]
)
def test_header_count(gateway: Gateway, upstream: Upstream, count: int, reason: str | None) -> None:
    """`count` with Host."""
    data = request(lines=tuple(f"X{number}: v" for number in range(count - 1)))
    if reason:
        check_refused(gateway, upstream, data, reason)
    else:
        with gateway.client() as client:
            assert client.request(data).status == 200


def test_limits_of_one_request_are_not_those_of_a_connection(gateway: Gateway, upstream: Upstream) -> None:
    with gateway.client() as client:
        for _ in range(10):
            assert client.request(head_of(900)).status == 200
        client.send(head_of(900, 15) * 5)
        for _ in range(5):
            assert client.response().status == 200


@pytest.mark.parametrize("path", ["/", "/small"])
@pytest.mark.parametrize("form", ["body", "chunks"])
def test_body_within(gateway: Gateway, upstream: Upstream, form: str, path: str) -> None:
    body = b"x" * (10 if path == "/small" else 1000)
    data = (
        request("POST", path, body=body)
        if form == "body"
        else request("POST", path, chunks=[body[:4], body[4:]])
    )
    with gateway.client() as client:
        assert client.request(data).json()["body"] == body.decode()
        assert client.get("/next").status == 200


@pytest.mark.parametrize(("path", "size"), [("/", 1001), ("/small", 11), ("/small", 500)])
def test_length_over(gateway: Gateway, upstream: Upstream, path: str, size: int) -> None:
    """A length that is over the limit is refused before anything goes upstream, and before the body has
    come. The
    body is read and dropped then, or the connection closes (RFC 9110 15.5.14)."""
    mark = upstream.mark()
    with gateway.client() as client:
        client.send(request("POST", path, lines=(f"Content-Length: {size}",)))
        response = client.response("POST")
        refused(response, "body-too-large")
        if not response.closes:
            client.send(b"x" * size)
            assert client.get("/next").status == 200
    assert [found.target for found in mark.requests] in ([], ["/next"])
    data = request("POST", path, body=b"x" * size)
    check_refused(gateway, upstream, data, "body-too-large", method="POST", may_stay=True)


@pytest.mark.parametrize(("path", "size"), [("/", 1001), ("/small", 11)])
def test_chunks_over(gateway: Gateway, upstream: Upstream, path: str, size: int) -> None:
    """Counted as they come; the upstream never sees a whole request."""
    data = request("POST", path, chunks=[b"x" * 5] * (size // 5) + [b"y" * (size % 5)])
    check_refused(gateway, upstream, data, "body-too-large", method="POST", may_stay=True)


def test_a_refused_body_is_not_read_for_ever(gateway: Gateway, upstream: Upstream) -> None:
    """What is read and dropped has an end: a client that sends 300 MB behind a 413 is cut."""
    with gateway.client() as client:
        client.send(request("POST", lines=("Content-Length: 300000000",)))
        refused(client.response("POST"), "body-too-large")
        block = b"x" * 1_000_000
        assert not all(client.try_send(block) for _ in range(300))


def test_chunk_announced_over(gateway: Gateway, upstream: Upstream) -> None:
    with gateway.client() as client:
        client.send(request("POST", lines=("Transfer-Encoding: chunked",)) + b"7fffffffffffffff\r\n")
        refused(client.response("POST"), "body-too-large", "chunk-syntax")
        client.ended()


def test_client_reads_its_413_though_it_still_sends(gateway: Gateway, upstream: Upstream) -> None:
    """The answer must not be lost to a RST for bytes that are on their way (RFC 9112 9.6: lingering
    close)."""
    for _ in range(20):
        with gateway.client() as client:
            client.try_send(request("POST", body=b"x" * 200_000))
            refused(client.response("POST"), "body-too-large")


def test_trailers_over(gateway: Gateway, upstream: Upstream) -> None:
    head = request("POST", lines=("Transfer-Encoding: chunked",))
    big = head + b"1\r\nx\r\n0\r\nT: " + b"v" * 2000 + b"\r\n\r\n"
    many = head + b"1\r\nx\r\n0\r\n" + b"T: v\r\n" * 30 + b"\r\n"
    check_refused(gateway, upstream, big, "trailer-too-large", method="POST")
    check_refused(gateway, upstream, many, "trailer-too-large", "header-too-many", method="POST")


def test_chunk_extensions_over(gateway: Gateway, upstream: Upstream) -> None:
    """Extensions are bounded too, one and all of them (RFC 9112 7.1.1)."""
    head = request("POST", lines=("Transfer-Encoding: chunked",))
    one = head + b"1;a=" + b"b" * 100_000 + b"\r\nx\r\n0\r\n\r\n"
    check_refused(
        gateway, upstream, one, "chunk-syntax", "trailer-too-large", "header-too-large", method="POST"
    )


# -- responses


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (b"X: " + b"v" * 2000 + b"\r\nContent-Length: 0\r\n\r\n", "upstream-header-too-large"),
        (b"X: v\r\n" * 30 + b"Content-Length: 0\r\n\r\n", "upstream-header-too-large"),
        (b"X: " + b"v" * 5000, "upstream-header-too-large"),
        (b"Content-Length: 1001\r\n\r\n", "upstream-body-too-large"),
    ],
    ids=["bytes", "count", "no end", "length"],
)
def test_response_over(gateway: Gateway, upstream: Upstream, head: bytes, reason: str) -> None:
    upstream.script(up.send(b"HTTP/1.1 200 OK\r\n" + head), up.wait_close())
    with gateway.client() as client:
        refused(client.get("/tight"), reason)
        assert client.get("/next").status == 200


def test_status_line_over(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(
        up.send(b"HTTP/1.1 200 " + b"O" * 5000 + b"\r\nContent-Length: 0\r\n\r\n"), up.wait_close()
    )
    with gateway.client() as client:
        refused(client.get("/tight"), "upstream-header-too-large", "upstream-syntax")


def test_response_chunks_over(gateway: Gateway, upstream: Upstream) -> None:
    """Its head has gone out already: the client's connection is cut so that it knows."""
    since = gateway.mark()
    chunks = b"1f4\r\n" + b"x" * 500 + b"\r\n"
    upstream.script(
        up.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks * 3), up.wait_close()
    )
    with gateway.client() as client:
        client.send(request(target="/tight"))
        try:
            response = client.response()
            assert reason_of(response) == "upstream-body-too-large"
        except ConnectionEnded:
            pass
    assert gateway.wait_log(since)[0]["reason"] == "upstream-body-too-large"


def test_endless_response_is_cut(gateway: Gateway, upstream: Upstream) -> None:
    since = gateway.mark()
    upstream.script(up.send(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 5000), up.wait_close())
    with gateway.client() as client:
        client.send(request(target="/tight"))
        with contextlib.suppress(ConnectionEnded):
            assert client.response().status == 502
    assert gateway.wait_log(since)[0]["reason"] == "upstream-body-too-large"


def test_interim_responses_over(gateway: Gateway, upstream: Upstream) -> None:
    """Endless 1xx are no way round a limit."""
    upstream.script(up.send(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000), up.wait_close())
    with gateway.client() as client:
        client.send(request())
        response = client.response()
        assert len(response.interim) < 1000
        assert reason_of(response) == "upstream-too-many-interim"


# -- connections


def test_connections_per_ip(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    """Over the cap a connection gets a 503 with its reason or is closed at once; when one goes, one may
    come."""
    gateway = start_gateway(config(start_upstream().address, server={"max_connections_per_ip": 5}))
    check_cap(gateway, 5)


def test_connections_of_a_worker(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    gateway = start_gateway(config(start_upstream().address, server={"max_connections": 5}))
    check_cap(gateway, 5)


def check_cap(gateway: Gateway, cap: int) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(gateway.client()) for _ in range(cap)]
        for client in clients:
            assert client.get().status == 200
        for _ in range(3):
            with gateway.client() as extra:
                assert extra.try_send(request())
                with pytest.raises(ConnectionEnded):
                    extra.response()
                assert extra.stream.ended or extra.ended()
        for client in clients:
            assert client.get().status == 200, "those that are within the cap are left alone"
        clients[0].half_close()
        clients[0].ended()
        with gateway.client() as client:
            assert client.get().status == 200, "one has gone, one may come"


def test_trusted_proxies_have_no_cap(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    gateway = start_gateway(
        config(
            start_upstream().address,
            server={"max_connections_per_ip": 2},
            listener={"trusted_proxies": ["127.0.0.0/8"]},
        )
    )
    with ExitStack() as stack:
        for _ in range(6):
            assert stack.enter_context(gateway.client()).get().status == 200
