"""Bodies both ways in every framing (RFC 9112 6), Expect, interim and early answers, HTTP/1.0, half-close."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from conftest import StartGateway, StartUpstream
from support import upstream as up
from support.answers import refused
from support.client import chunked, request
from support.gateway import Gateway, config
from support.handlers import event_stream, pattern
from support.upstream import Upstream
from support.wire import tokens


def gateway_config(upstream: str) -> dict[str, Any]:
    serve = {"name": "serve", "bind": "127.0.0.1:0", "half_close": "serve"}
    small = {"name": "small", "match": {"prefix": "/small"}, "upstream": "up", "limits": {"body": "10B"}}
    return config(
        upstream,
        listeners=[{"name": "main", "bind": "127.0.0.1:0"}, serve],
        routes=[small, {"name": "all", "upstream": "up"}],
    )


SIZES = [0, 1, 2, 1000, 16_384, 65_535, 65_536, 65_537, 300_000, 3_000_000]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("form", ["length", "chunks of 1000", "one chunk"])
def test_request_body(gateway: Gateway, upstream: Upstream, form: str, size: int) -> None:
    """The framing that came is the framing that goes on."""
    body, mark = pattern(size), upstream.mark()
    if form == "length":
        data = request("POST", body=body)
    else:
        step = 1000 if form == "chunks of 1000" else max(size, 1)
        data = request("POST", chunks=[body[at : at + step] for at in range(0, size, step)])
    upstream.script(up.read_body(), up.reply())
    with gateway.client() as client:
        client.send(data)
        assert client.response("POST").body == b"ok"
        assert client.get("/next").status == 200
    found = mark.requests[0]
    assert found.body == body
    assert found.framing == ("length" if form == "length" else "chunked")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("form", ["length", "chunks", "one chunk", "eof", "eof, HTTP/1.0"])
def test_response_body(gateway: Gateway, upstream: Upstream, form: str, size: int) -> None:
    body = pattern(size)
    if form == "length":
        upstream.script(up.reply(200, body))
    elif form.startswith("eof"):
        version = b"0" if "1.0" in form else b"1"
        upstream.script(up.send(b"HTTP/1." + version + b" 200 OK\r\nX: y\r\n\r\n" + body), up.close())
    else:
        step = 1000 if form == "chunks" else max(size, 1)
        chunks = chunked(*(body[at : at + step] for at in range(0, size, step)))
        upstream.script(up.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks))
    with gateway.client() as client:
        response = client.get()
        assert response.body == body
        assert response.framing == ("length" if form == "length" else "chunked")
        assert client.get("/next").status == 200, "the client's connection outlives the upstream's"


@pytest.mark.parametrize("form", ["length", "chunks", "eof"])
def test_response_body_to_http10(gateway: Gateway, upstream: Upstream, form: str) -> None:
    """No chunked coding for an HTTP/1.0 client (RFC 9112 6.1): the reader fails on it. The end is the
    connection's."""
    body = pattern(100_000)
    if form == "length":
        upstream.script(up.reply(200, body))
    elif form == "chunks":
        data = chunked(body[:50_000], body[50_000:], trailers=b"T: 1\r\n")
        upstream.script(up.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + data))
    else:
        upstream.script(up.send(b"HTTP/1.1 200 OK\r\n\r\n" + body), up.close())
    with gateway.client() as client:
        response = client.request(request(version="1.0"))
        assert response.body == body
        assert response.framing == ("length" if form == "length" else "eof")
        assert response.closes
        if form == "length":
            client.ended()


def test_http10_truncated_chunks_are_a_cut(gateway: Gateway, upstream: Upstream) -> None:
    """Where only the end of the connection ends the body, a truncated one must not end with a FIN."""
    upstream.script(
        up.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"), up.reset()
    )
    with gateway.client() as client:
        client.send(request(version="1.0"))
        client.head()
        client.stream.rest("the body")
        assert client.stream.ended == "reset"


@pytest.mark.parametrize("head", [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b""])
def test_head(gateway: Gateway, upstream: Upstream, head: bytes) -> None:
    """The answer to HEAD ends with its head; its length is that of GET (RFC 9110 9.3.2, 8.6)."""
    upstream.script(up.send(b"HTTP/1.1 200 OK\r\n" + head + b"X: y\r\n\r\n"))
    with gateway.client() as client:
        response = client.request(request("HEAD"))
        assert response.get("x") == "y"
        if head.startswith(b"Content"):
            assert response.get("content-length") == "5"
        assert client.get("/next").json()["target"] == "/next"


@pytest.mark.parametrize(
    ("status", "head"),
    [
        (204, b""),
        (204, b"Content-Length: 0\r\n"),
        (304, b""),
        (304, b"Content-Length: 5\r\n"),
        (304, b"Transfer-Encoding: chunked\r\n"),
    ],
)
def test_no_body(gateway: Gateway, upstream: Upstream, status: int, head: bytes) -> None:
    upstream.script(up.send(b"HTTP/1.1 %d X\r\nETag: a\r\n%b\r\n" % (status, head)))
    with gateway.client() as client:
        response = client.get()
        assert (response.status, response.get("etag")) == (status, "a")
        assert client.get("/next").json()["target"] == "/next"


def test_205_and_other_statuses(gateway: Gateway, upstream: Upstream) -> None:
    """Any status that is well-formed goes through (RFC 9110 15), with its phrase or without one."""
    with gateway.client() as client:
        for status in (200, 205, 299, 302, 418, 451, 500, 503, 599):
            upstream.script(up.send(b"HTTP/1.1 %d \r\nContent-Length: 1\r\n\r\nx" % status))
            response = client.get()
            assert (response.status, response.body) == (status, b"x")


def test_empty_bodies_have_a_length(gateway: Gateway, upstream: Upstream) -> None:
    with gateway.client() as client:
        for data in (request("POST", body=b""), request("PUT", chunks=[])):
            assert client.request(data).json()["body"] == ""


def test_get_with_a_body(gateway: Gateway, upstream: Upstream) -> None:
    """Its framing holds for every method (RFC 9112 6); the content has no meaning, but it is not the next
    request."""
    with gateway.client() as client:
        assert (
            client.request(request("GET", body=b"GET /x HTTP/1.1\r\n\r\n"))
            .json()["body"]
            .startswith("GET /x")
        )
        assert client.request(request("DELETE", chunks=[b"abc"])).json()["body"] == "abc"
        assert client.get("/next").json()["target"] == "/next"


def test_response_trailers(gateway: Gateway, upstream: Upstream) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
    upstream.script(up.send(head + chunked(b"hello", trailers=b"X-Sum: 1\r\nX-More: 2\r\n")))
    with gateway.client() as client:
        response = client.request(request(lines=("TE: trailers", "Connection: TE")))
        assert response.body == b"hello"
        assert response.trailers == (("X-Sum", "1"), ("X-More", "2"))
        assert client.get("/next").status == 200


@pytest.mark.parametrize(
    "line",
    [b"Content-Length: 7", b"Transfer-Encoding: gzip", b"Connection: close", b"Upgrade: x", b"Trailer: x"],
)
def test_forbidden_response_trailers(gateway: Gateway, upstream: Upstream, line: bytes) -> None:
    """Those that would change framing or the hop do not go on (RFC 9110 6.5.1): dropped, or a 502."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    upstream.script(up.send(head + chunked(b"hello", trailers=b"X-Sum: 1\r\n" + line + b"\r\n")))
    with gateway.client() as client:
        response = client.get()
        assert response.status == 502 or response.trailers == (("X-Sum", "1"),)
        assert client.get("/next").json()["target"] == "/next"


def test_response_extensions_are_dropped(gateway: Gateway, upstream: Upstream) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    upstream.script(up.send(head + b'5;a="b\\"c"\r\nhello\r\n0;z\r\n\r\n'))
    with gateway.client() as client:
        assert client.get().body == b"hello"


def test_bodies_both_ways_at_once(gateway: Gateway, upstream: Upstream) -> None:
    """The answer streams while the upload still runs: each piece comes back before the next one is sent."""

    def ping_pong(connection: up.Connection) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(10):
            piece = connection.stream.exactly(4, "a piece")
            connection.send(b"4\r\n" + piece + b"\r\n")
        connection.send(b"0\r\n\r\n")
        connection.request.complete = True

    upstream.script(ping_pong)
    with gateway.client() as client:
        client.send(request("POST", lines=("Content-Length: 40",)))
        client.head()
        for number in range(10):
            client.send(b"%04d" % number)
            assert client.stream.exactly(9, "its echo") == b"4\r\n%04d\r\n" % number


def test_events_are_not_held_back(gateway: Gateway, upstream: Upstream) -> None:
    """Each event reaches the client before the next one is made (WHATWG HTML 9.2)."""
    gates = [threading.Event() for _ in range(3)]
    upstream.script(event_stream([b"data: %d\n\n" % number for number in range(3)], gates))
    with gateway.client() as client:
        client.send(request(lines=("Accept: text/event-stream",)))
        assert client.head().get("content-type") == "text/event-stream"
        for number, gate in enumerate(gates):
            gate.set()
            assert client.stream.exactly(14, "event") == b"9\r\ndata: %d\n\n\r\n" % number
        assert client.stream.exactly(5, "end") == b"0\r\n\r\n"


def test_event_stream_has_its_own_idle_timeout(
    start_gateway: StartGateway, start_upstream: StartUpstream
) -> None:
    upstream = start_upstream()
    gateway = start_gateway(
        config(
            upstream.address,
            upstream_options={"timeouts": {"idle": "100ms"}},
            route={"timeouts": {"event_stream_idle": "400ms"}},
        )
    )
    kind = b"Content-Type: text/event-stream; charset=utf-8\r\n"
    head = b"HTTP/1.1 200 OK\r\n" + kind + b"Transfer-Encoding: chunked\r\n\r\n"
    upstream.script(up.trickle(head + b"3\r\na\n\n\r\n3\r\nb\n\n\r\n", len(head) + 8, 0.25), up.wait_close())
    with gateway.client() as client:
        client.send(request())
        client.head()
        assert client.stream.exactly(16, "events") == b"3\r\na\n\n\r\n3\r\nb\n\n\r\n"
        client.stream.rest("the end")
    assert gateway.wait_log()[0]["reason"] == "upstream-idle-timeout"


# -- interim responses (RFC 9110 15.2, RFC 8297)


def test_interim_responses_go_on(gateway: Gateway, upstream: Upstream) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n"
    upstream.script(up.send(b"HTTP/1.1 102 Processing\r\n\r\n" + early * 2), up.reply(200, b"ok"))
    with gateway.client() as client:
        response = client.get()
        assert [one.status for one in response.interim] == [102, 103, 103]
        assert response.interim[1].get("link") == "</a>; rel=preload"
        assert response.body == b"ok"
        assert client.get("/next").status == 200


def test_interim_response_comes_at_once(gateway: Gateway, upstream: Upstream) -> None:
    gate = threading.Event()
    upstream.script(up.send(b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"), up.wait_for(gate), up.reply())
    with gateway.client() as client:
        client.send(request())
        assert client.head().status == 103
        gate.set()
        assert client.response().status == 200


def test_no_interim_to_http10(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(up.send(b"HTTP/1.1 103 Early Hints\r\n\r\n"), up.reply())
    with gateway.client() as client:
        response = client.request(request(version="1.0"))
        assert (response.status, response.interim) == (200, [])


def test_101_that_nobody_asked_for(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(
        up.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
        up.wait_close(),
    )
    with gateway.client() as client:
        refused(client.get(), "upstream-upgrade")
        assert client.get("/next").status == 200


# -- Expect: 100-continue (RFC 9110 10.1.1)

EXPECT = request("POST", lines=("Content-Length: 5", "Expect: 100-continue"))


def test_continue_from_the_upstream(gateway: Gateway, upstream: Upstream) -> None:
    """The upstream decides; it sees the expectation, and the client gets exactly one 100."""
    upstream.script(up.send(b"HTTP/1.1 100 Continue\r\n\r\n"), up.read_body(), up.echo())
    mark = upstream.mark()
    with gateway.client() as client:
        client.send(EXPECT)
        assert client.head().status == 100
        client.send(b"hello")
        response = client.response("POST")
        assert response.interim == []
        assert response.json()["body"] == "hello"
        assert client.get("/next").status == 200
    assert mark.requests[0].get("expect") == "100-continue"


def test_upstream_refuses_the_expectation(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(up.reply(403, b"no", close_after=True))
    with gateway.client() as client:
        client.send(EXPECT)
        response = client.response("POST")
        assert (response.status, response.body, response.interim) == (403, b"no", [])


def test_gateway_refuses_the_expectation(gateway: Gateway, upstream: Upstream) -> None:
    mark = upstream.mark()
    with gateway.client() as client:
        client.send(request("POST", "/small", lines=("Content-Length: 11", "Expect: 100-continue")))
        response = client.response("POST")
        refused(response, "body-too-large")
        assert response.interim == []
    assert not mark.requests


def test_body_that_does_not_wait(gateway: Gateway, upstream: Upstream) -> None:
    """A client may send its body without waiting (RFC 9110 10.1.1); the upstream may never send 100."""
    with gateway.client() as client:
        response = client.request(EXPECT + b"hello")
        assert response.json()["body"] == "hello"
        assert client.get("/next").status == 200


def test_upstream_that_ignores_the_expectation(gateway: Gateway, upstream: Upstream) -> None:
    """It waits for the body and sends no 100; a client that waits with a limit then sends it all the same."""
    mark = upstream.mark()
    with gateway.client() as client:
        client.send(EXPECT)
        mark.wait(1)
        client.send(b"hello")
        assert client.response("POST").json()["body"] == "hello"


def test_expectation_of_http10_is_ignored(gateway: Gateway, upstream: Upstream) -> None:
    """RFC 9110 10.1.1: an expectation in an HTTP/1.0 request is ignored; no 100 is sent."""
    with gateway.client() as client:
        data = request("POST", version="1.0", body=b"hello", lines=("Expect: 100-continue",))
        response = client.request(data)
        assert (response.status, response.interim) == (200, [])


def test_expect_in_another_case(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(up.send(b"HTTP/1.1 100 Continue\r\n\r\n"), up.read_body(), up.echo())
    with gateway.client() as client:
        client.send(request("POST", lines=("Content-Length: 5", "expect: 100-Continue")))
        assert client.head().status == 100
        client.send(b"hello")
        assert client.response("POST").status == 200


# -- early answers (RFC 9112 9.5)


def test_answer_during_the_upload(gateway: Gateway, upstream: Upstream) -> None:
    """The final answer comes before the body has ended: it goes to the client at once."""
    upstream.script(up.read_some(5), up.reply(401, b"who?", close_after=True))
    with gateway.client() as client:
        client.send(request("POST", lines=("Content-Length: 1000000",)) + b"hello")
        response = client.response("POST")
        assert (response.status, response.body) == (401, b"who?")


def test_answer_during_the_upload_and_the_upstream_reads_on(gateway: Gateway, upstream: Upstream) -> None:
    """The upload may be finished; then the connection may be used again, in step."""
    upstream.script(up.read_some(5), up.reply(200, b"early"))
    with gateway.client() as client:
        client.send(request("POST", lines=("Content-Length: 10",)) + b"hello")
        response = client.response("POST")
        assert response.body == b"early"
        client.try_send(b"world")
        if not response.closes:
            assert client.get("/next").json()["target"] == "/next"


def test_early_answer_to_a_big_upload(gateway: Gateway, upstream: Upstream) -> None:
    """A client that sends on and reads late still gets the answer (RFC 9112 9.6)."""
    for _ in range(5):
        upstream.script(up.reply(413, b"too big", close_after=True))
        with gateway.client() as client:
            client.try_send(request("POST", body=b"x" * 5_000_000))
            assert client.response("POST").status in (413, 502)


# -- the client goes


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("when", ["before the head", "in the body"])
def test_client_gone_abandons_the_attempt(gateway: Gateway, upstream: Upstream, how: str, when: str) -> None:
    mark, since = upstream.mark(), gateway.mark()
    steps = (
        [] if when == "before the head" else [up.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")]
    )
    upstream.script(*steps, up.wait_close())
    with gateway.client() as client:
        client.send(request())
        mark.wait(1)
        if steps:
            client.head()
            client.stream.exactly(5, "half the body")
        client.reset() if how == "reset" else client.close()
        connection = next(c for c in upstream.connections if mark.requests[0] in c.requests)
        assert connection.ended.wait(10), "the attempt goes on for nobody"
    assert gateway.wait_log(since)[0]["reason"] == "client-gone"


def test_client_gone_in_the_upload(gateway: Gateway, upstream: Upstream) -> None:
    """The upstream must see a cut body, never one that looks whole."""
    for data in (
        request("POST", lines=("Content-Length: 10",)) + b"hello",
        request("POST", lines=("Transfer-Encoding: chunked",)) + b"5\r\nhello\r\n",
    ):
        mark, since = upstream.mark(), gateway.mark()
        with gateway.client() as client:
            client.send(data)
            mark.wait(1)
        connection = next(c for c in upstream.connections if mark.requests[0] in c.requests)
        assert connection.ended.wait(10)
        assert not mark.requests[0].complete
        assert gateway.wait_log(since)[0]["reason"] == "client-gone"


def test_half_close_abandon(gateway: Gateway, upstream: Upstream) -> None:
    """The default: FIN while an answer is due means that the client has gone."""
    mark, since = upstream.mark(), gateway.mark()
    upstream.script(up.wait_close())
    with gateway.client() as client:
        client.send(request())
        mark.wait(1)
        client.half_close()
        client.ended()
    assert gateway.wait_log(since)[0]["reason"] == "client-gone"


def test_half_close_serve(gateway: Gateway, upstream: Upstream) -> None:
    """By configuration: whoever has sent FIN still reads its answers, those of pipelined requests too."""
    gate = threading.Event()
    upstream.script(up.wait_for(gate), up.reply(200, b"late"))
    mark = upstream.mark()
    with gateway.client("serve") as client:
        client.send(request() + request(target="/second")).half_close()
        mark.wait(1)
        gate.set()
        assert client.response().body == b"late"
        assert client.response().json()["target"] == "/second"
        assert client.ended() == "eof"


def test_half_close_in_a_request_is_no_request(gateway: Gateway, upstream: Upstream) -> None:
    """FIN in the middle of a head or body: nothing whole goes upstream, whatever the setting."""
    mark, since = upstream.mark(), gateway.mark()
    for listener in ("main", "serve"):
        for data in (
            b"GET / HTTP/1.1\r\nHost: a\r\n",
            request("POST", lines=("Content-Length: 10",)) + b"hello",
        ):
            with gateway.client(listener) as client:
                client.send(data).half_close()
                rest = client.stream.rest("the end")
                assert rest == b"" or rest.startswith(b"HTTP/1.1 400")
    assert [record["reason"] for record in gateway.wait_log(since, 2)] == ["client-gone"] * 2
    upstream.wait_cut()
    assert not any(found.complete for found in mark.requests)


def test_half_close_between_requests(gateway: Gateway, upstream: Upstream) -> None:
    for listener in ("main", "serve"):
        with gateway.client(listener) as client:
            assert client.get().status == 200
            client.half_close()
            assert client.ended() == "eof"


def test_answer_names_no_framing_twice(gateway: Gateway, upstream: Upstream) -> None:
    """Transfer-Encoding is written by the gateway, once, and never beside a length (RFC 9112 6.1, 6.2)."""
    mark = upstream.mark()
    with gateway.client() as client:
        client.request(request("POST", chunks=[b"a"]))
        client.request(request("POST", body=b"a"))
    first, second = mark.requests
    assert tokens(first.fields, "transfer-encoding") == ["chunked"]
    assert "content-length" not in first
    assert second.all("content-length") == ["1"]
    assert "transfer-encoding" not in second
