"""Requests that two readers could cut in two places: refused, or forwarded in one form that nobody can
misread."""

from __future__ import annotations

import re
from typing import Any

import pytest
from support import upstream as up
from support.answers import check_refused, reason_of
from support.client import request
from support.gateway import Gateway, config
from support.upstream import Connection, Upstream


def gateway_config(upstream: str) -> dict[str, Any]:
    ws = {"name": "ws", "match": {"prefix": "/ws"}, "upstream": "up", "upgrade": ["websocket"]}
    return config(upstream, routes=[ws, {"name": "all", "upstream": "up"}])


POST = b"POST /first HTTP/1.1\r\nHost: test.example\r\n"
WS = b"/ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: test.example\r\n\r\n"
END = b"\r\n0\r\n\r\n" + SMUGGLED
CL, TE, BOTH = "content-length-syntax", "transfer-encoding", "length-and-encoding"
FIELD = "field-syntax"

REFUSED: dict[str, tuple[bytes, tuple[str, ...]]] = {
    # -- both lengths (RFC 9112 6.1, 6.3)
    "CL.TE": (POST + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n" + END, (BOTH,)),
    "TE.CL": (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 6\r\n" + END, (BOTH,)),
    "CL of 0 and TE": (POST + b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n" + END, (BOTH,)),
    "CL and TE identity": (POST + b"Content-Length: 6\r\nTransfer-Encoding: identity\r\n" + END, (BOTH, TE)),
    "CL and TE hidden by case": (
        POST + b"content-length: 6\r\ntRANSFER-eNCODING: Chunked\r\n" + END,
        (BOTH,),
    ),
    # -- Content-Length (RFC 9112 6.3, RFC 9110 8.6)
    "two CLs that differ": (POST + b"Content-Length: 5\r\nContent-Length: 0\r\n\r\nhello" + SMUGGLED, (CL,)),
    "two CLs that agree": (POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello" + SMUGGLED, (CL,)),
    "CL list that agrees": (POST + b"Content-Length: 5, 5\r\n\r\nhello" + SMUGGLED, (CL,)),
    "CL list that differs": (POST + b"Content-Length: 5, 0\r\n\r\nhello" + SMUGGLED, (CL,)),
    "CL with a plus": (POST + b"Content-Length: +5\r\n\r\nhello" + SMUGGLED, (CL,)),
    "CL with a minus": (POST + b"Content-Length: -5\r\n\r\nhello" + SMUGGLED, (CL,)),
    "CL minus zero": (POST + b"Content-Length: -0\r\n\r\n" + SMUGGLED, (CL,)),
    "CL in hex": (POST + b"Content-Length: 0x5\r\n\r\nhello" + SMUGGLED, (CL,)),
    "CL in hex digits": (POST + b"Content-Length: a\r\n\r\nhellohello" + SMUGGLED, (CL,)),
    "CL with a space": (POST + b"Content-Length: 1 5\r\n\r\nhello" + SMUGGLED, (CL,)),
    "CL with a comma": (POST + b"Content-Length: 5,\r\n\r\nhello" + SMUGGLED, (CL,)),
    "CL with a point": (POST + b"Content-Length: 5.0\r\n\r\nhello" + SMUGGLED, (CL,)),
    "CL with an exponent": (POST + b"Content-Length: 5e0\r\n\r\nhello" + SMUGGLED, (CL,)),
    "CL with an underscore": (POST + b"Content-Length: 0_5\r\n\r\nhello" + SMUGGLED, (CL,)),
    "CL quoted": (POST + b'Content-Length: "5"\r\n\r\nhello' + SMUGGLED, (CL,)),
    "CL empty": (POST + b"Content-Length:\r\n\r\n" + SMUGGLED, (CL,)),
    "CL in other digits": (POST + b"Content-Length: \xd9\xa5\r\n\r\nhello" + SMUGGLED, (CL,)),
    "CL with a parameter": (POST + b"Content-Length: 5;a=b\r\n\r\nhello" + SMUGGLED, (CL,)),
    "CL of 2**64 + 5": (
        POST + b"Content-Length: 18446744073709551621\r\n\r\nhello" + SMUGGLED,
        (CL, "body-too-large"),
    ),
    "CL of 2**63": (
        POST + b"Content-Length: 9223372036854775808\r\n\r\nhello" + SMUGGLED,
        (CL, "body-too-large"),
    ),
    "CL of 100 digits": (
        POST + b"Content-Length: " + b"9" * 100 + b"\r\n\r\nhello" + SMUGGLED,
        (CL, "body-too-large"),
    ),
    "CL with a vertical tab": (POST + b"Content-Length: \x0b5\r\n\r\nhello" + SMUGGLED, (CL, FIELD)),
    "CL with NUL": (POST + b"Content-Length: 5\x00\r\n\r\nhello" + SMUGGLED, (CL, FIELD)),
    "CL space before the colon": (POST + b"Content-Length : 5\r\n\r\nhello" + SMUGGLED, (FIELD,)),
    "CL folded": (POST + b"Content-Length:\r\n 5\r\n\r\nhello" + SMUGGLED, (FIELD, CL)),
    # -- Transfer-Encoding (RFC 9112 6.1, 7)
    "TE gzip": (POST + b"Transfer-Encoding: gzip\r\n" + END, (TE,)),
    "TE gzip, chunked": (POST + b"Transfer-Encoding: gzip, chunked\r\n" + END, (TE,)),
    "TE chunked, gzip": (POST + b"Transfer-Encoding: chunked, gzip\r\n" + END, (TE,)),
    "TE chunked, chunked": (POST + b"Transfer-Encoding: chunked, chunked\r\n" + END, (TE,)),
    "TE chunked twice": (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n" + END, (TE,)),
    "TE in two fields": (POST + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n" + END, (TE,)),
    "TE chunked, then identity": (
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n" + END,
        (TE,),
    ),
    "TE xchunked": (POST + b"Transfer-Encoding: xchunked\r\n" + END, (TE,)),
    "TE chunkedx": (POST + b"Transfer-Encoding: chunkedx\r\n" + END, (TE,)),
    "TE identity": (POST + b"Transfer-Encoding: identity\r\n\r\n" + SMUGGLED, (TE,)),
    "TE empty": (POST + b"Transfer-Encoding:\r\n" + END, (TE,)),
    "TE with a comma before": (POST + b"Transfer-Encoding: , chunked\r\n" + END, (TE,)),
    "TE with a comma behind": (POST + b"Transfer-Encoding: chunked,\r\n" + END, (TE,)),
    "TE with a parameter": (POST + b"Transfer-Encoding: chunked;a=b\r\n" + END, (TE,)),
    "TE with a bare semicolon": (POST + b"Transfer-Encoding: chunked;\r\n" + END, (TE,)),
    "TE quoted": (POST + b'Transfer-Encoding: "chunked"\r\n' + END, (TE,)),
    "TE of two words": (POST + b"Transfer-Encoding: x chunked\r\n" + END, (TE,)),
    "TE with a vertical tab": (POST + b"Transfer-Encoding: \x0bchunked\r\n" + END, (FIELD, TE)),
    "TE with a form feed": (POST + b"Transfer-Encoding: chunked\x0c\r\n" + END, (FIELD, TE)),
    "TE with NUL": (POST + b"Transfer-Encoding: chunked\x00\r\n" + END, (FIELD, TE)),
    "TE with a byte order mark": (POST + b"Transfer-Encoding: \xef\xbb\xbfchunked\r\n" + END, (TE, FIELD)),
    "TE with a no-break space": (POST + b"Transfer-Encoding: \xa0chunked\r\n" + END, (TE, FIELD)),
    "TE space before the colon": (POST + b"Transfer-Encoding : chunked\r\n" + END, (FIELD,)),
    "TE folded": (POST + b"Transfer-Encoding:\r\n chunked\r\n" + END, (FIELD, TE)),
    "TE folded after a field": (POST + b"A: b\r\n Transfer-Encoding: chunked\r\n" + END, (FIELD,)),
    "TE behind a bare CR": (POST + b"A: b\rTransfer-Encoding: chunked\r\n" + END, ("bare-line-feed", FIELD)),
    "TE behind a bare LF": (POST + b"A: b\nTransfer-Encoding: chunked\r\n" + END, ("bare-line-feed",)),
    "TE on HTTP/1.0": (
        b"POST /first HTTP/1.0\r\nHost: test.example\r\nTransfer-Encoding: chunked\r\n" + END,
        ("encoding-http10",),
    ),
    "TE on HTTP/1.0, kept alive": (
        b"POST /first HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n" + END,
        ("encoding-http10",),
    ),
    "TE on HTTP/1.0 with a length": (
        b"POST /first HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n" + END,
        ("encoding-http10", BOTH),
    ),
    # -- Upgrade with a body: after an upgrade the parser reads no body (RFC 9110 7.8)
    "upgrade with a length": (
        b"POST " + WS + b"Content-Length: 46\r\n\r\n" + SMUGGLED,
        ("upgrade-with-body",),
    ),
    "upgrade with chunks": (
        b"POST " + WS + b"Transfer-Encoding: chunked\r\n" + END,
        ("upgrade-with-body",),
    ),
    "upgrade of GET with a length": (
        b"GET " + WS + b"Content-Length: 46\r\n\r\n" + SMUGGLED,
        ("upgrade-with-body",),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(gateway: Gateway, upstream: Upstream, name: str) -> None:
    data, reasons = REFUSED[name]
    heads = len(upstream.requests)
    check_refused(gateway, upstream, data, *reasons, method="POST")
    assert len(upstream.requests) == heads + 1, "a head of the refused request reached the upstream"


@pytest.mark.parametrize("value", ["chunked", "Chunked", "CHUNKED", " chunked", "chunked \t", "\tchunked"])
def test_chunked_has_one_form_upstream(gateway: Gateway, upstream: Upstream, value: str) -> None:
    """Codings are case-insensitive and the value's outer white space is no part of it (RFC 9112 7, RFC 9110
    5.5)."""
    mark = upstream.mark()
    data = POST + f"Transfer-Encoding:{value}\r\n\r\n5\r\nhello\r\n0\r\n\r\n".encode()
    with gateway.client() as client:
        response = client.request(data)
        if value.endswith("\t") and response.status == 400:
            assert response.closes
            assert not mark.requests, "refused on purpose, see docs/rfc-conformance.md"
            return
        assert response.json()["body"] == "hello"
    assert mark.one().get("transfer-encoding") == "chunked"


@pytest.mark.parametrize("value", ["5", "005", " 5", "5 \t"])
def test_length_has_one_form_upstream(gateway: Gateway, upstream: Upstream, value: str) -> None:
    with gateway.client() as client:
        client.send(POST + f"Content-Length:{value}\r\n\r\nhello".encode() + request(target="/second"))
        assert client.response("POST").json()["body"] == "hello"
        assert client.response().json()["target"] == "/second"


@pytest.mark.parametrize(
    "framing", ["Content-Length: 46\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"]
)
@pytest.mark.parametrize("protocol", ["websocket", "h2c", "TLS/1.0"])
def test_upgrade_not_allowed_with_body(
    gateway: Gateway, upstream: Upstream, protocol: str, framing: str
) -> None:
    """Where the route upgrades nothing the request is refused, or goes on without Upgrade and with its whole
    body."""
    assert len(SMUGGLED) == 46
    mark = upstream.mark()
    head = f"POST /first HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: {protocol}\r\n{framing}"
    with gateway.client() as client:
        client.send(head.encode() + SMUGGLED)
        response = client.response("POST")
        if response.status == 400:
            assert reason_of(response) == "upgrade-with-body"
            client.ended()
            assert not mark.requests
        else:
            assert "upgrade" not in mark.requests[0]
            if "Content-Length" in framing:
                assert response.json()["body"] == SMUGGLED.decode()
                assert [found.target for found in mark.requests] == ["/first"]


@pytest.mark.parametrize(
    "bad",
    [
        b"GET /bad HTTP/1.1\r\n\r\n",
        b"GET /bad HTTP/2.0\r\nHost: a\r\n\r\n",
        b"POST /bad HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /bad HTTP/1.1\nHost: a\n\n",
        b"\x00",
    ],
)
@pytest.mark.parametrize(
    "first", [request("POST", "/good", body=b"hello"), request("POST", "/good", chunks=[b"hello"])]
)
def test_pipelined_bad_second(gateway: Gateway, upstream: Upstream, first: bytes, bad: bytes) -> None:
    """The good one is answered first, then the bad one is refused, and what follows it is never read."""
    mark = upstream.mark()
    with gateway.client() as client:
        client.try_send(first + bad + SMUGGLED)
        assert client.response("POST").json()["body"] == "hello"
        response = client.response()
        assert response.status == 400
        assert response.closes
        client.ended()
    assert [found.target for found in mark.requests] == ["/good"]


def test_body_is_not_read_as_a_request(gateway: Gateway, upstream: Upstream) -> None:
    """A request that is answered by the gateway itself still ends where its body ends."""
    mark = upstream.mark()
    with gateway.client() as client:
        client.send(request("POST", "/one", body=SMUGGLED) + request("POST", "/two", chunks=[SMUGGLED]))
        assert client.response("POST").json()["body"] == SMUGGLED.decode()
        assert client.response("POST").json()["body"] == SMUGGLED.decode()
    assert [found.target for found in mark.requests] == ["/one", "/two"]


@pytest.mark.parametrize(
    "name", ["X-A", "Cookie", "User-Agent", "X-Forwarded-For", "X-Request-ID", "Referer"]
)
def test_values_cannot_split_the_forwarded_head(gateway: Gateway, upstream: Upstream, name: str) -> None:
    """Percent escapes stay escapes, and the upstream's strict reader sees exactly one request."""
    mark = upstream.mark()
    with gateway.client() as client:
        value = "a%0d%0aX-Evil: 1%0d%0a%0d%0aGET /smuggled HTTP/1.1"
        assert client.get("/a%0D%0AX-Evil:1?b=%0d%0a", f"{name}: {value}").status in (200, 400)
    for found in mark.requests:
        assert "x-evil" not in found
        assert found.target.startswith("/a%0D%0A")


def test_one_head_upstream_for_each_request(gateway: Gateway, upstream: Upstream) -> None:
    """The bytes that go upstream are those of the two requests and nothing else."""
    mark = upstream.mark()
    with gateway.client() as client:
        client.send(request("POST", "/alone", body=b"hello") + request(target="/alone/too"))
        client.response("POST")
        client.response()
    received = b"".join(connection.received for connection in upstream.connections)
    assert len(re.findall(rb"(?:GET|POST) /alone[a-z/]* HTTP/1\.1\r\n", received)) == 2
    assert [found.complete for found in mark.requests] == [True, True]


# -- responses: nothing of them may split or smuggle either (RFC 9112 6.3, 11.1)

RESPONSES_REFUSED: dict[str, tuple[bytes, str]] = {
    "CL and TE": (
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "upstream-framing",
    ),
    "two CLs that differ": (b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", "upstream-framing"),
    "two CLs that agree": (b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", "upstream-framing"),
    "CL list": (b"Content-Length: 5, 5\r\n\r\nhello", "upstream-framing"),
    "CL with a plus": (b"Content-Length: +5\r\n\r\nhello", "upstream-framing"),
    "CL with a minus": (b"Content-Length: -5\r\n\r\nhello", "upstream-framing"),
    "CL in hex": (b"Content-Length: 0x5\r\n\r\nhello", "upstream-framing"),
    "CL huge": (b"Content-Length: 18446744073709551621\r\n\r\nhello", "upstream-framing"),
    "CL empty": (b"Content-Length:\r\n\r\nhello", "upstream-framing"),
    "TE gzip": (b"Transfer-Encoding: gzip\r\n\r\nhello", "upstream-framing"),
    "TE gzip, chunked": (
        b"Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "upstream-framing",
    ),
    "TE chunked twice": (
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "upstream-framing",
    ),
    "TE xchunked": (b"Transfer-Encoding: xchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "upstream-framing"),
    "bare LF": (b"A: b\nContent-Length: 5\r\n\r\nhello", "upstream-syntax"),
    "bare LF ends the head": (b"Content-Length: 5\r\n\nhello", "upstream-syntax"),
    "bare CR in a value": (b"A: b\rSet-Cookie: evil=1\r\nContent-Length: 5\r\n\r\nhello", "upstream-syntax"),
    "NUL in a value": (b"A: b\x00\r\nContent-Length: 5\r\n\r\nhello", "upstream-syntax"),
    "control byte in a value": (b"A: \x01\r\nContent-Length: 5\r\n\r\nhello", "upstream-syntax"),
    "space before the colon": (b"A : b\r\nContent-Length: 5\r\n\r\nhello", "upstream-syntax"),
    "no colon": (b"A\r\nContent-Length: 5\r\n\r\nhello", "upstream-syntax"),
    "no name": (b": b\r\nContent-Length: 5\r\n\r\nhello", "upstream-syntax"),
    "bad name": (b"A(: b\r\nContent-Length: 5\r\n\r\nhello", "upstream-syntax"),
}


@pytest.mark.parametrize("name", RESPONSES_REFUSED)
def test_response_refused(gateway: Gateway, upstream: Upstream, name: str) -> None:
    data, reason = RESPONSES_REFUSED[name]
    upstream.script(up.send(b"HTTP/1.1 200 OK\r\n" + data), up.wait_close())
    mark = upstream.mark()
    with gateway.client() as client:
        response = client.get("/first")
        assert response.status == 502
        assert reason_of(response) in (reason, "upstream-syntax")
        assert client.get("/second").json()["target"] == "/second", "the client's connection is in order"
    assert mark.requests[0].target == "/first"


def test_obs_fold_in_a_response(gateway: Gateway, upstream: Upstream) -> None:
    """A gateway refuses it or writes spaces for it (RFC 9112 5.2); our reader fails on a fold."""
    upstream.script(up.send(b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 2\r\n\r\nok"), up.close())
    with gateway.client() as client:
        response = client.get()
        assert response.status == 502 or response.get("a") == "b c"


def test_two_responses_to_one_request(gateway: Gateway, upstream: Upstream) -> None:
    """The second belongs to nobody: not to the next request (RFC 9112 9.2), whichever client it is of."""
    evil = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    upstream.script(up.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood" + evil), up.wait_close())
    with gateway.client() as client, gateway.client() as other:
        assert client.get("/one").body == b"good"
        assert client.get("/two").json()["target"] == "/two"
        assert other.get("/three").json()["target"] == "/three"


def test_response_before_its_request(gateway: Gateway, upstream: Upstream) -> None:
    """Bytes on an idle pooled connection make it useless (RFC 9112 9.2: a response without a request)."""
    spoke: list[Connection] = []  # those of other tests had a request for /one, too
    upstream.script(
        spoke.append,
        up.reply(200, b"first"),
        up.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"),
        up.wait_close(),
    )
    with gateway.client() as client:
        assert client.get("/one").body == b"first"
        assert spoke[0].ended.wait(10), "the gateway keeps a connection that spoke out of turn"
        assert client.get("/two").json()["target"] == "/two"


@pytest.mark.parametrize(
    "tail",
    [b"hello" + b"world", b"hello" + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", b"hello\r\n"],
)
def test_more_than_content_length(gateway: Gateway, upstream: Upstream, tail: bytes) -> None:
    upstream.script(up.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + tail), up.wait_close())
    with gateway.client() as client:
        assert client.get("/one").body == b"hello"
        assert client.get("/two").json()["target"] == "/two"


def test_body_where_none_may_be(gateway: Gateway, upstream: Upstream) -> None:
    """HEAD, 204 and 304 have no body (RFC 9112 6.3): what follows the head is not one, and not the next
    answer."""
    for method, head in (
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
    ):
        upstream.script(up.send(head + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"), up.wait_close())
        with gateway.client() as client:
            assert client.request(request(method, "/one")).body == b""
            assert client.get("/two").json()["target"] == "/two"
