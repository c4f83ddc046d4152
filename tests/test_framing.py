"""The grammar of requests (RFC 9112 2 to 7): what is refused, with which reason, and what must be
understood."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest
from support.answers import check_refused, refused
from support.client import Client, chunked, request
from support.gateway import Gateway, config
from support.upstream import Upstream
from support.wire import tokens


def gateway_config(upstream: str) -> dict[str, Any]:
    return config(upstream)


GET = b"GET / HTTP/1.1\r\nHost: test.example\r\n"
POST = b"POST / HTTP/1.1\r\nHost: test.example\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

LF, LINE, VERSION = "bare-line-feed", "request-line-syntax", "http-version"
FIELD, TARGET, ANY = "field-syntax", "target-syntax", "request-syntax"

REFUSED: dict[str, tuple[bytes, tuple[str, ...]]] = {
    # -- line ends (RFC 9112 2.2)
    "bare LF ends the request line": (b"GET / HTTP/1.1\nHost: test.example\r\n\r\n", (LF,)),
    "bare LF ends a field": (b"GET / HTTP/1.1\r\nHost: test.example\nA: b\r\n\r\n", (LF,)),
    "bare LF ends the head": (GET + b"\n", (LF,)),
    "bare LFs end the head": (b"GET / HTTP/1.1\nHost: test.example\n\n", (LF,)),
    "bare CR in the request line": (b"GET /\r HTTP/1.1\r\nHost: test.example\r\n\r\n", (LF, LINE, TARGET)),
    "bare CR behind the version": (b"GET / HTTP/1.1\rHost: test.example\r\n\r\n", (LF, LINE, VERSION)),
    "bare CR in a value": (GET + b"A: b\rc\r\n\r\n", (LF, FIELD)),
    "bare CR before a field": (GET + b"\rA: b\r\n\r\n", (LF, FIELD)),
    "CR CR LF ends a field": (GET + b"A: b\r\r\nB: c\r\n\r\n", (LF, FIELD)),
    "CR CR LF ends the head": (GET + b"\r\r\n", (LF, FIELD)),
    "bare CR in a name": (GET + b"A\rB: c\r\n\r\n", (LF, FIELD)),
    # -- the request line (RFC 9112 3)
    "no version": (b"GET /\r\nHost: test.example\r\n\r\n", (LINE, VERSION)),
    "no version, a space": (b"GET / \r\nHost: test.example\r\n\r\n", (LINE, VERSION)),
    "no target": (b"GET HTTP/1.1\r\nHost: test.example\r\n\r\n", (LINE, TARGET, VERSION)),
    "empty target": (b"GET  HTTP/1.1\r\nHost: test.example\r\n\r\n", (LINE, TARGET)),
    "two spaces before the target": (b"GET  / HTTP/1.1\r\nHost: test.example\r\n\r\n", (LINE, TARGET)),
    "two spaces behind the target": (b"GET /  HTTP/1.1\r\nHost: test.example\r\n\r\n", (LINE, VERSION)),
    "space in the target": (b"GET /a b HTTP/1.1\r\nHost: test.example\r\n\r\n", (LINE, VERSION)),
    "tab for a space": (b"GET\t/ HTTP/1.1\r\nHost: test.example\r\n\r\n", (LINE,)),
    "tab before the version": (b"GET /\tHTTP/1.1\r\nHost: test.example\r\n\r\n", (LINE, TARGET)),
    "space behind the version": (b"GET / HTTP/1.1 \r\nHost: test.example\r\n\r\n", (LINE, VERSION)),
    "space before the method": (b" GET / HTTP/1.1\r\nHost: test.example\r\n\r\n", (LINE,)),
    "method with a bad byte": (b"G@T / HTTP/1.1\r\nHost: test.example\r\n\r\n", (LINE,)),
    "method with a control byte": (b"GE\x01T / HTTP/1.1\r\nHost: test.example\r\n\r\n", (LINE,)),
    "method with NUL": (b"GET\x00 / HTTP/1.1\r\nHost: test.example\r\n\r\n", (LINE,)),
    "no method": (b"/ HTTP/1.1\r\nHost: test.example\r\n\r\n", (LINE,)),
    "a response": (b"HTTP/1.1 200 OK\r\nHost: test.example\r\n\r\n", (LINE,)),
    "a TLS handshake": (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x8a" * 64 + b"\r\n\r\n",
        (LINE, LF),
    ),
    "the HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (VERSION, LINE)),
    # -- the version (RFC 9112 2.3); a higher minor version is refused on purpose, see docs/rfc-conformance.md
    "HTTP/2.0": (b"GET / HTTP/2.0\r\nHost: test.example\r\n\r\n", (VERSION,)),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\nHost: test.example\r\n\r\n", (VERSION,)),
    "HTTP/0.9": (b"GET / HTTP/0.9\r\nHost: test.example\r\n\r\n", (VERSION,)),
    "HTTP/3.0": (b"GET / HTTP/3.0\r\nHost: test.example\r\n\r\n", (VERSION,)),
    "HTTP/1.": (b"GET / HTTP/1.\r\nHost: test.example\r\n\r\n", (LINE, VERSION)),
    "HTTP/1.10": (b"GET / HTTP/1.10\r\nHost: test.example\r\n\r\n", (LINE, VERSION)),
    "HTTP/01.1": (b"GET / HTTP/01.1\r\nHost: test.example\r\n\r\n", (LINE, VERSION)),
    "HTTP/11": (b"GET / HTTP/11\r\nHost: test.example\r\n\r\n", (LINE, VERSION)),
    "http/1.1": (b"GET / http/1.1\r\nHost: test.example\r\n\r\n", (LINE, VERSION)),
    "HTTPS/1.1": (b"GET / HTTPS/1.1\r\nHost: test.example\r\n\r\n", (LINE, VERSION)),
    "ICE/1.0": (b"SOURCE /x ICE/1.0\r\nHost: test.example\r\n\r\n", (LINE, VERSION)),
    "RTSP/1.0": (b"DESCRIBE / RTSP/1.0\r\nHost: test.example\r\n\r\n", (LINE, VERSION)),
    # -- the target (RFC 9112 3.2, RFC 3986 2)
    "fragment": (b"GET /a#b HTTP/1.1\r\nHost: test.example\r\n\r\n", (TARGET,)),
    "fragment behind a query": (b"GET /a?b#c HTTP/1.1\r\nHost: test.example\r\n\r\n", (TARGET,)),
    "control byte in the target": (b"GET /a\x01b HTTP/1.1\r\nHost: test.example\r\n\r\n", (TARGET, LINE)),
    "DEL in the target": (b"GET /a\x7fb HTTP/1.1\r\nHost: test.example\r\n\r\n", (TARGET, LINE)),
    "NUL in the target": (b"GET /a\x00b HTTP/1.1\r\nHost: test.example\r\n\r\n", (TARGET, LINE)),
    "UTF-8 in the path": (b"GET /caf\xc3\xa9 HTTP/1.1\r\nHost: test.example\r\n\r\n", (TARGET, LINE)),
    "latin-1 in the query": (b"GET /?q=\xe9 HTTP/1.1\r\nHost: test.example\r\n\r\n", (TARGET, LINE)),
    "backslash in the path": (b"GET /a\\b HTTP/1.1\r\nHost: test.example\r\n\r\n", (TARGET,)),
    "half a percent escape": (b"GET /a%4 HTTP/1.1\r\nHost: test.example\r\n\r\n", (TARGET,)),
    "no percent escape": (b"GET /a%zz HTTP/1.1\r\nHost: test.example\r\n\r\n", (TARGET,)),
    "above the root": (b"GET /../etc HTTP/1.1\r\nHost: test.example\r\n\r\n", (TARGET,)),
    "above the root, encoded": (
        b"GET /a/%2e%2e/%2E%2e/etc HTTP/1.1\r\nHost: test.example\r\n\r\n",
        (TARGET,),
    ),
    "encoded slash": (b"GET /a%2fb HTTP/1.1\r\nHost: test.example\r\n\r\n", ("encoded-slash",)),
    "encoded backslash": (b"GET /a%5Cb HTTP/1.1\r\nHost: test.example\r\n\r\n", ("encoded-slash",)),
    "relative target": (b"GET a/b HTTP/1.1\r\nHost: test.example\r\n\r\n", (TARGET, LINE)),
    "asterisk for GET": (b"GET * HTTP/1.1\r\nHost: test.example\r\n\r\n", (TARGET, LINE)),
    "authority for GET": (b"GET test.example:80 HTTP/1.1\r\nHost: test.example\r\n\r\n", (TARGET, LINE)),
    "unknown scheme": (b"GET ftp://test.example/ HTTP/1.1\r\nHost: test.example\r\n\r\n", (TARGET, LINE)),
    "absolute form without a host": (
        b"GET http:///a HTTP/1.1\r\nHost: test.example\r\n\r\n",
        (TARGET, LINE, "host-syntax"),
    ),
    "absolute form with a user": (
        b"GET http://me@test.example/ HTTP/1.1\r\nHost: test.example\r\n\r\n",
        (TARGET, LINE, "host-syntax"),
    ),
    # -- Host (RFC 9112 3.2)
    "no Host": (b"GET / HTTP/1.1\r\nA: b\r\n\r\n", ("host-missing",)),
    "no field at all": (b"GET / HTTP/1.1\r\n\r\n", ("host-missing",)),
    "two Hosts": (GET + b"Host: other.example\r\n\r\n", ("host-duplicate",)),
    "two equal Hosts": (GET + b"Host: test.example\r\n\r\n", ("host-duplicate",)),
    "two Hosts in one list": (b"GET / HTTP/1.1\r\nHost: a.example, b.example\r\n\r\n", ("host-syntax",)),
    "two Hosts, HTTP/1.0": (b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", ("host-duplicate",)),
    "Host with a space": (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", ("host-syntax",)),
    "Host with a path": (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", ("host-syntax",)),
    "Host with a user": (b"GET / HTTP/1.1\r\nHost: me@a\r\n\r\n", ("host-syntax",)),
    "Host with a query": (b"GET / HTTP/1.1\r\nHost: a?b\r\n\r\n", ("host-syntax",)),
    "Host with a fragment": (b"GET / HTTP/1.1\r\nHost: a#b\r\n\r\n", ("host-syntax",)),
    "Host with a scheme": (b"GET / HTTP/1.1\r\nHost: http://a\r\n\r\n", ("host-syntax",)),
    "Host with a bad port": (b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", ("host-syntax",)),
    "Host with a huge port": (b"GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", ("host-syntax",)),
    "Host with two ports": (b"GET / HTTP/1.1\r\nHost: a:1:2\r\n\r\n", ("host-syntax",)),
    "Host with an open bracket": (b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", ("host-syntax",)),
    "Host with a bad IPv6": (b"GET / HTTP/1.1\r\nHost: [::g]\r\n\r\n", ("host-syntax",)),
    "Host with a backslash": (b"GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n", ("host-syntax",)),
    "Host not ASCII": (b"GET / HTTP/1.1\r\nHost: caf\xc3\xa9\r\n\r\n", ("host-syntax",)),
    # -- field lines (RFC 9112 5, RFC 9110 5)
    "obs-fold with a space": (GET + b"A: b\r\n c\r\n\r\n", (FIELD,)),
    "obs-fold with a tab": (GET + b"A: b\r\n\tc\r\n\r\n", (FIELD,)),
    "white space before the first field": (
        b"GET / HTTP/1.1\r\n Host: test.example\r\n\r\n",
        (FIELD, LINE, ANY),
    ),
    "line of white space": (GET + b" \r\nA: b\r\n\r\n", (FIELD,)),
    "space before the colon": (GET + b"A : b\r\n\r\n", (FIELD,)),
    "tab before the colon": (GET + b"A\t: b\r\n\r\n", (FIELD,)),
    "space before the colon of Host": (b"GET / HTTP/1.1\r\nHost : test.example\r\n\r\n", (FIELD,)),
    "no colon": (GET + b"A\r\n\r\n", (FIELD,)),
    "no name": (GET + b": b\r\n\r\n", (FIELD,)),
    "NUL in a name": (GET + b"A\x00: b\r\n\r\n", (FIELD,)),
    "space in a name": (GET + b"A B: c\r\n\r\n", (FIELD,)),
    "parenthesis in a name": (GET + b"A(B): c\r\n\r\n", (FIELD,)),
    "slash in a name": (GET + b"A/B: c\r\n\r\n", (FIELD,)),
    "8-bit byte in a name": (GET + b"A\xe9: c\r\n\r\n", (FIELD,)),
    "quoted name": (GET + b'"A": c\r\n\r\n', (FIELD,)),
    "NUL in a value": (GET + b"A: b\x00c\r\n\r\n", (FIELD,)),
    "control byte in a value": (GET + b"A: b\x01c\r\n\r\n", (FIELD,)),
    "vertical tab in a value": (GET + b"A: b\x0bc\r\n\r\n", (FIELD,)),
    "escape in a value": (GET + b"A: \x1b[31m\r\n\r\n", (FIELD,)),
    "DEL in a value": (GET + b"A: b\x7fc\r\n\r\n", (FIELD,)),
    # -- what is not served
    "TRACE": (b"TRACE / HTTP/1.1\r\nHost: test.example\r\n\r\n", ("method-not-implemented",)),
    "expectation unknown": (GET + b"Expect: a-miracle\r\n\r\n", ("expect-unknown",)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_head_refused(gateway: Gateway, upstream: Upstream, name: str) -> None:
    data, reasons = REFUSED[name]
    heads = len(upstream.requests)
    # A fragment is in the list of traps that close; so is whatever leaves the end of the request in doubt.
    check_refused(gateway, upstream, data, *reasons, may_stay=not name.startswith("fragment"))
    assert len(upstream.requests) == heads + 1, "a head of the refused request reached the upstream"


@pytest.mark.parametrize("target", [b"test.example:443", b"/", b"http://test.example/"])
def test_connect_refused(gateway: Gateway, upstream: Upstream, target: bytes) -> None:
    data = b"CONNECT " + target + b" HTTP/1.1\r\nHost: test.example:443\r\n\r\n"
    check_refused(gateway, upstream, data, "method-not-implemented", TARGET, LINE, method="CONNECT")


# -- chunked bodies (RFC 9112 7.1)

CHUNKS_REFUSED: dict[str, bytes] = {
    "bare semicolon": b"5;\r\nhello\r\n0\r\n\r\n",
    "bare semicolon before another": b"5;;a\r\nhello\r\n0\r\n\r\n",
    "bare semicolon on the last chunk": b"5\r\nhello\r\n0;\r\n\r\n",
    "space behind the size": b"5 \r\nhello\r\n0\r\n\r\n",
    "tab behind the size": b"5\t\r\nhello\r\n0\r\n\r\n",
    "space before the size": b" 5\r\nhello\r\n0\r\n\r\n",
    "space in the size": b"1 0\r\n0123456789abcdef\r\n0\r\n\r\n",
    "plus sign": b"+5\r\nhello\r\n0\r\n\r\n",
    "minus sign": b"-5\r\nhello\r\n0\r\n\r\n",
    "minus zero": b"5\r\nhello\r\n-0\r\n\r\n",
    "0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "h suffix": b"5h\r\nhello\r\n0\r\n\r\n",
    "underscore": b"0_5\r\nhello\r\n0\r\n\r\n",
    "empty size": b"\r\nhello\r\n0\r\n\r\n",
    "size of an extension alone": b";a=b\r\nhello\r\n0\r\n\r\n",
    "no hex digit": b"g\r\nhello\r\n0\r\n\r\n",
    "17 digits": b"00000000000000005\r\nhello\r\n0\r\n\r\n",
    "17 digits, wrapping to 5": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "2**64 - 1": b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "LF behind the size": b"5\nhello\r\n0\r\n\r\n",
    "CR behind the size": b"5\rhello\r\n0\r\n\r\n",
    "CR CR LF behind the size": b"5\r\r\nhello\r\n0\r\n\r\n",
    "LF behind the data": b"5\r\nhello\n0\r\n\r\n",
    "CR behind the data": b"5\r\nhello\r0\r\n\r\n",
    "nothing behind the data": b"5\r\nhello0\r\n\r\n",
    "data too long": b"5\r\nhello!\r\n0\r\n\r\n",
    "data too short": b"6\r\nhello\r\n0\r\n\r\n\r\n",
    "LF behind the last chunk": b"5\r\nhello\r\n0\n\r\n",
    "LF ends the trailers": b"5\r\nhello\r\n0\r\n\n",
    "CR in an extension": b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "LF in an extension": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "LF ends an extension": b"5;a=b\nhello\r\n0\r\n\r\n",
    "NUL in an extension": b"5;a\x00b\r\nhello\r\n0\r\n\r\n",
    "control byte in an extension": b"5;a=\x01\r\nhello\r\n0\r\n\r\n",
    "8-bit byte in an extension name": b"5;\xe9=1\r\nhello\r\n0\r\n\r\n",
    "extension without a name": b"5;=b\r\nhello\r\n0\r\n\r\n",
    "extension without a value": b"5;a=\r\nhello\r\n0\r\n\r\n",
    "extension of two values": b"5;a=b=c\r\nhello\r\n0\r\n\r\n",
    "extension of two words": b"5;a b\r\nhello\r\n0\r\n\r\n",
    "extension without a semicolon": b"5a=b\r\nhello\r\n0\r\n\r\n",
    "extension quoted and open": b'5;a="b\r\nhello\r\n0\r\n\r\n',
    "extension quoted, CR in it": b'5;a="b\rc"\r\nhello\r\n0\r\n\r\n',
    "extension quoted, LF in it": b'5;a="b\nc"\r\nhello\r\n0\r\n\r\n',
    "extension quoted, CRLF in it": b'5;a="b\r\nc"\r\nhello\r\n0\r\n\r\n',
    "extension quoted, control byte in it": b'5;a="\x01"\r\nhello\r\n0\r\n\r\n',
    "extension quoted, control byte escaped": b'5;a="\\\x01"\r\nhello\r\n0\r\n\r\n',
    "extension quoted, more behind it": b'5;a="b"c\r\nhello\r\n0\r\n\r\n',
    "white space behind an extension": b"5;a=b \r\nhello\r\n0\r\n\r\n",
    "trailer without a colon": b"5\r\nhello\r\n0\r\nA\r\n\r\n",
    "trailer with a space before the colon": b"5\r\nhello\r\n0\r\nA : b\r\n\r\n",
    "trailer folded": b"5\r\nhello\r\n0\r\nA: b\r\n c\r\n\r\n",
    "trailer without a name": b"5\r\nhello\r\n0\r\n: b\r\n\r\n",
    "trailer with NUL": b"5\r\nhello\r\n0\r\nA: b\x00\r\n\r\n",
    "trailer with a control byte": b"5\r\nhello\r\n0\r\nA: b\x02\r\n\r\n",
    "trailer with a bare CR": b"5\r\nhello\r\n0\r\nA: b\rc\r\n\r\n",
    "trailer with a bare LF": b"5\r\nhello\r\n0\r\nA: b\nB: c\r\n\r\n",
    "trailer with a bad name": b"5\r\nhello\r\n0\r\nA(: b\r\n\r\n",
}


@pytest.mark.parametrize("split", [False, True], ids=["with the head", "after the head"])
@pytest.mark.parametrize("name", CHUNKS_REFUSED)
def test_chunk_refused(gateway: Gateway, upstream: Upstream, name: str, split: bool) -> None:
    reasons = ("chunk-syntax", "field-syntax") if name.startswith("trailer") else ("chunk-syntax",)
    if name == "2**64 - 1":
        reasons = ("chunk-syntax", "body-too-large")
    if not split:
        check_refused(gateway, upstream, CHUNKED + CHUNKS_REFUSED[name], *reasons, method="POST")
        return
    # The head and a good chunk have reached the upstream when the bad one comes: its request must never end
    # well.
    mark = upstream.mark()
    with gateway.client() as client:
        client.send(CHUNKED + b"3\r\nabc\r\n")
        mark.wait(1)
        client.send(CHUNKS_REFUSED[name])
        response = client.response("POST")
        assert response.status in (400, 413)
        assert response.closes
        client.ended()
    connection = next(c for c in upstream.connections if mark.requests[0] in c.requests)
    assert connection.ended.wait(10)
    assert not mark.requests[0].complete


CHUNKS_UNDERSTOOD: dict[str, bytes] = {
    "plain": b"5\r\nhello\r\n0\r\n\r\n",
    "several": b"1\r\nh\r\n2\r\nel\r\n2\r\nlo\r\n0\r\n\r\n",
    "upper case": b"1\r\nh\r\n4\r\nello\r\n0\r\n\r\n",
    "leading zeros": b"0005\r\nhello\r\n000\r\n\r\n",
    "16 digits": b"0000000000000005\r\nhello\r\n0\r\n\r\n",
    "extension": b"5;a\r\nhello\r\n0\r\n\r\n",
    "extension with a value": b"5;a=b\r\nhello\r\n0\r\n\r\n",
    "extensions": b"5;a=b;c;d=e\r\nhello\r\n0;z\r\n\r\n",
    "extension quoted": b'5;a="b c;\\"d\\"=\xe9"\r\nhello\r\n0\r\n\r\n',
    "extension quoted, empty": b'5;a=""\r\nhello\r\n0\r\n\r\n',
    "extension quoted, then another": b'5;a="b";c=d\r\nhello\r\n0\r\n\r\n',
}


@pytest.mark.parametrize("name", CHUNKS_UNDERSTOOD)
def test_chunk_understood(gateway: Gateway, upstream: Upstream, name: str) -> None:
    """The body arrives whole; extensions are for one hop and do not go on (RFC 9112 7.1.1)."""
    with gateway.client() as client:
        assert client.request(CHUNKED + CHUNKS_UNDERSTOOD[name]).json()["body"] == "hello"
        assert client.get("/next").json()["target"] == "/next"


@pytest.mark.parametrize(
    "body",
    [b"5 ;a=b\r\nhello\r\n0\r\n\r\n", b"5; a=b\r\nhello\r\n0\r\n\r\n", b"5;a = b\r\nhello\r\n0\r\n\r\n"],
)
def test_bad_white_space_in_extension(gateway: Gateway, upstream: Upstream, body: bytes) -> None:
    """BWS (RFC 9110 5.6.3) may be read past or refused; it must not change where the body ends."""
    mark = upstream.mark()
    with gateway.client() as client:
        response = client.request(CHUNKED + body)
        if response.status == 400:
            assert client.ended()
            assert not any(found.complete for found in mark.requests)
        else:
            assert response.json()["body"] == "hello"
            assert client.get("/next").json()["target"] == "/next"


def test_trailers_reach_the_upstream(gateway: Gateway, upstream: Upstream) -> None:
    body = chunked(b"hello", trailers=b"X-Checksum: 1\r\nX-Other: 2\r\n")
    with gateway.client() as client:
        assert client.request(CHUNKED + body).json()["trailers"] == [["X-Checksum", "1"], ["X-Other", "2"]]


@pytest.mark.parametrize(
    "line",
    [
        b"Content-Length: 1",
        b"Transfer-Encoding: chunked",
        b"Host: other.example",
        b"Trailer: x",
        b"Connection: close",
        b"Upgrade: x",
        b"TE: gzip",
        b"Keep-Alive: 5",
        b"Expect: 100-continue",
        b"X-Forwarded-For: 10.0.0.1",
        b"Forwarded: for=10.0.0.1",
    ],
    ids=lambda line: line.split(b":")[0].decode(),
)
def test_forbidden_trailers_dropped(gateway: Gateway, upstream: Upstream, line: bytes) -> None:
    """Fields for framing, routing and the next hop do not travel in trailers (RFC 9110 6.5.1)."""
    mark = upstream.mark()
    with gateway.client() as client:
        response = client.request(CHUNKED + chunked(b"hello", trailers=b"X-Good: 1\r\n" + line + b"\r\n"))
        if response.status == 400:
            assert not any(found.complete for found in mark.requests)
        else:
            assert response.json()["trailers"] == [["X-Good", "1"]]
            assert client.get("/next").json()["target"] == "/next"


# -- what must be understood

UNDERSTOOD: dict[str, tuple[bytes, dict[str, str]]] = {
    "leading empty line": (b"\r\n" + GET + b"\r\n", {"target": "/"}),
    "no white space behind the colon": (GET + b"A:b\r\n\r\n", {"a": "b"}),
    "white space around a value": (GET + b"A: \t b c \t \r\n\r\n", {"a": "b c"}),
    "empty value": (GET + b"A:\r\n\r\n", {"a": ""}),
    "value of white space": (GET + b"A: \t \r\n\r\n", {"a": ""}),
    "obs-text in a value": (GET + b"A: caf\xc3\xa9\r\n\r\n", {"a": "caf\xc3\xa9"}),
    "all token bytes in a name": (GET + b"!#$%&'*+-.^_`|~0aZ: b\r\n\r\n", {"!#$%&'*+-.^_`|~0az": "b"}),
    "Host in upper case, with a port": (
        b"GET / HTTP/1.1\r\nHOST: TEST.example:8080\r\n\r\n",
        {"target": "/"},
    ),
    "Host is an IPv6 address": (b"GET / HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n", {"target": "/"}),
    "absolute form": (
        b"GET http://test.example/a?b HTTP/1.1\r\nHost: test.example\r\n\r\n",
        {"target": "/a?b"},
    ),
    "absolute form, no path": (
        b"GET http://test.example HTTP/1.1\r\nHost: test.example\r\n\r\n",
        {"target": "/"},
    ),
    "absolute form, scheme in upper case": (
        b"GET HTTP://test.example/a HTTP/1.1\r\nHost: test.example\r\n\r\n",
        {"target": "/a"},
    ),
    "empty query": (b"GET /a? HTTP/1.1\r\nHost: test.example\r\n\r\n", {"target": "/a?"}),
    "slashes and dots in the query": (
        b"GET /?a=/../b HTTP/1.1\r\nHost: test.example\r\n\r\n",
        {"target": "/?a=/../b"},
    ),
    "what a URI may not hold is escaped": (
        b'GET /"a"<b> HTTP/1.1\r\nHost: test.example\r\n\r\n',
        {"target": "/%22a%22%3Cb%3E"},
    ),
    "dot segments": (b"GET /a/./b/../c HTTP/1.1\r\nHost: test.example\r\n\r\n", {"target": "/a/c"}),
}


@pytest.mark.parametrize("name", UNDERSTOOD)
def test_understood(gateway: Gateway, upstream: Upstream, name: str) -> None:
    data, wanted = UNDERSTOOD[name]
    with gateway.client() as client:
        response = client.request(data)
        assert response.status == 200, response.body
        seen = response.json()
        fields = {key.lower(): value for key, value in seen["fields"]}
        for key, value in wanted.items():
            assert (seen["target"] if key == "target" else fields[key]) == value
        assert client.get("/next").json()["target"] == "/next"


def test_empty_host(gateway: Gateway, upstream: Upstream) -> None:
    """RFC 9112 3.3: refused, or served by a default; the upstream's reader wants a Host all the same."""
    with gateway.client() as client:
        response = client.request(b"GET / HTTP/1.1\r\nHost:\r\n\r\n")
        assert response.status == 200 or refused(response, "host-syntax", "host-missing")


def test_absolute_form_wins_over_host(gateway: Gateway, upstream: Upstream) -> None:
    """RFC 9112 3.2.2: the Host that came is ignored and replaced by the target's authority."""
    with gateway.client() as client:
        seen = client.request(b"GET http://right.example/a HTTP/1.1\r\nHost: wrong.example\r\n\r\n").json()
    assert [value for name, value in seen["fields"] if name.lower() == "host"] == ["right.example"]


def test_http10_without_host(gateway: Gateway, upstream: Upstream) -> None:
    """The upstream is spoken to in HTTP/1.1 and so with a Host; the harness's reader asks for exactly one."""
    with gateway.client() as client:
        response = client.request(b"GET /old HTTP/1.0\r\n\r\n")
        assert response.json()["target"] == "/old"
        assert response.json()["version"] == "1.1"
        client.ended()


def test_options_asterisk(gateway: Gateway, upstream: Upstream) -> None:
    """Forwarded as it is (RFC 9112 3.2.4), or answered here; not refused as bad syntax and not sent as a
    path."""
    mark = upstream.mark()
    with gateway.client() as client:
        response = client.request(b"OPTIONS * HTTP/1.1\r\nHost: test.example\r\n\r\n")
        assert response.status < 500
        assert response.status != 400
    assert [found.target for found in mark.requests] in ([], ["*"])


@pytest.mark.parametrize("method", ["PROPFIND", "PURGE", "FROBNICATE", "get", "M-SEARCH"])
def test_other_methods(gateway: Gateway, upstream: Upstream, method: str) -> None:
    """Any token is a method: forwarded as it is, or 501 when the gateway does not know it (RFC 9110 9.1)."""
    mark = upstream.mark()
    with gateway.client() as client:
        response = client.request(request(method, "/m"))
        assert response.status in (200, 501), (response.status, response.body)
        if response.status == 200:
            assert mark.one().method == method
        else:
            assert not mark.requests


# -- the same answer however TCP cuts the bytes

WHOLE: dict[str, bytes] = {
    "GET": request(target="/a/b?c=d", lines=("Accept: */*", "X-Long: " + "v" * 20, "Cookie: a=b; c=d")),
    "Content-Length": request("POST", "/p", body=b"hello world"),
    "chunked": CHUNKED + b'5;a="b;c"\r\nhello\r\n6\r\n world\r\n0\r\nX-T: 1\r\n\r\n',
    "pipelined": request("POST", "/1", body=b"one")
    + request(target="/2")
    + request("POST", "/3", chunks=[b"three"]),
    "HTTP/1.0": request(target="/old", version="1.0"),
    "two Hosts": GET + b"Host: other.example\r\n\r\n",
    "bad chunk": CHUNKED + b"5;\r\nhello\r\n0\r\n\r\n",
    "CL and TE": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
}


def answers(client: Client, data: bytes) -> list[Any]:
    """What came back, without that which differs from one request to the next."""
    found: list[Any] = []
    for _ in range(3 if data == WHOLE["pipelined"] else 1):
        response = client.response(http10=data == WHOLE["HTTP/1.0"])
        if response.status != 200:
            found.append(
                (response.status, response.all("proxy-status"), tokens(response.fields, "connection"))
            )
            continue
        seen = response.json()
        fields = [field for field in seen["fields"] if field[0].lower() != "x-request-id"]
        found.append((seen["method"], seen["target"], fields, seen["body"], seen["trailers"]))
    return found


@pytest.mark.parametrize("name", WHOLE)
def test_split_at_every_byte(gateway: Gateway, upstream: Upstream, name: str) -> None:
    """All first parts are sent, then a request on another connection makes sure that the gateway has read
    them."""
    data = WHOLE[name]
    with ExitStack() as stack:
        clients = [stack.enter_context(gateway.client()) for _ in range(len(data))]
        expected = answers(clients[0].send(data), data)
        for at in range(1, len(data)):
            clients[at].send(data[:at])
        with gateway.client() as barrier:
            assert barrier.get("/barrier").status == 200
        for at in range(1, len(data)):
            clients[at].try_send(data[at:])
        for at in range(1, len(data)):
            assert answers(clients[at], data) == expected, f"split at {at}: {data[:at]!r} | {data[at:]!r}"


@pytest.mark.parametrize("name", ["GET", "Content-Length", "chunked", "pipelined"])
def test_byte_by_byte(gateway: Gateway, upstream: Upstream, name: str) -> None:
    data = WHOLE[name]
    with gateway.client() as whole:
        expected = answers(whole.send(data), data)
    with gateway.client() as client:
        client.send_pieces(*(data[at : at + 1] for at in range(len(data))))
        assert answers(client, data) == expected
