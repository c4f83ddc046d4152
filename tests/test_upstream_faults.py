"""Bad days of an upstream: each fault has its status and its reason, and costs no other client anything."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from conftest import StartGateway, StartUpstream
from support import upstream as up
from support.answers import proxy_details, refused
from support.client import chunked, request
from support.faults import FaultProxy, Faults
from support.gateway import Gateway, config, parse_address
from support.handlers import pattern
from support.upstream import Upstream
from support.wire import ConnectionEnded


def gateway_config(upstream: str) -> dict[str, Any]:
    return config(
        upstream, upstream_options={"timeouts": {"connect": "500ms", "head": "500ms", "idle": "500ms"}}
    )


def empty_pool(gateway: Gateway, upstream: Upstream) -> None:
    """The next connection will be a fresh one: nothing on it is the keep-alive race."""
    for connection in upstream.open:
        connection.close()
        assert connection.ended.wait(10)
    upstream.script(up.reply(200, b"last", close_after=True))
    with gateway.client() as client:
        assert client.get("/last").body == b"last"


def still_serves(gateway: Gateway) -> None:
    with gateway.client() as client:
        assert client.get("/fine").json()["target"] == "/fine"


# -- before the head: an answer of the gateway's own, and the client's connection stays

BEFORE_THE_HEAD: dict[str, tuple[tuple[up.Step, ...], tuple[str, ...]]] = {
    "closes": ((up.close(),), ("upstream-reset",)),
    "resets": ((up.reset(),), ("upstream-reset",)),
    "closes in the status line": (
        (up.send(b"HTTP/1.1 20"), up.close()),
        ("upstream-reset", "upstream-truncated"),
    ),
    "resets in the status line": (
        (up.send(b"HTTP/1.1 20"), up.reset()),
        ("upstream-reset", "upstream-truncated"),
    ),
    "closes in the fields": (
        (up.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"), up.close()),
        ("upstream-reset", "upstream-truncated"),
    ),
    "resets in the fields": (
        (up.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"), up.reset()),
        ("upstream-reset", "upstream-truncated"),
    ),
    "closes behind an interim answer": (
        (up.send(b"HTTP/1.1 103 E\r\n\r\n"), up.close()),
        ("upstream-reset", "upstream-truncated"),
    ),
    "hangs": ((up.wait_close(),), ("upstream-head-timeout",)),
    "hangs in the head": ((up.send(b"HTTP/1.1 200 OK\r\nA"), up.wait_close()), ("upstream-head-timeout",)),
    "garbage": ((up.send(b"\x00\x01\x02garbage\r\n\r\n"), up.wait_close()), ("upstream-syntax",)),
    "garbage and closes": (
        (up.send(b"SSH-2.0-OpenSSH_9.2\r\n"), up.close()),
        ("upstream-syntax", "upstream-reset"),
    ),
    "another protocol": (
        (up.send(b"220 mail ESMTP\r\n"), up.wait_close()),
        ("upstream-syntax", "upstream-head-timeout"),
    ),
    "a TLS alert": (
        (up.send(b"\x15\x03\x01\x00\x02\x02\x46"), up.close()),
        ("upstream-syntax", "upstream-reset"),
    ),
    "HTTP/0.9": ((up.send(b"<html>hello</html>\r\n"), up.close()), ("upstream-syntax", "upstream-reset")),
    "HTTP/2": ((up.send(b"HTTP/2 200\r\nContent-Length: 0\r\n\r\n"), up.wait_close()), ("upstream-syntax",)),
    "HTTP/2.0": (
        (up.send(b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"), up.wait_close()),
        ("upstream-syntax",),
    ),
    "HTTP/1.9": (
        (up.send(b"HTTP/1.9 200 OK\r\nContent-Length: 0\r\n\r\n"), up.wait_close()),
        ("upstream-syntax",),
    ),
    "a status of two digits": (
        (up.send(b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n"), up.wait_close()),
        ("upstream-syntax",),
    ),
    "a status of four digits": (
        (up.send(b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n"), up.wait_close()),
        ("upstream-syntax",),
    ),
    "status 000": (
        (up.send(b"HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n"), up.wait_close()),
        ("upstream-syntax",),
    ),
    "status 099": (
        (up.send(b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n"), up.wait_close()),
        ("upstream-syntax",),
    ),
    "a status with a sign": (
        (up.send(b"HTTP/1.1 +20 OK\r\nContent-Length: 0\r\n\r\n"), up.wait_close()),
        ("upstream-syntax",),
    ),
    "a control byte in the phrase": (
        (up.send(b"HTTP/1.1 200 O\x01K\r\nContent-Length: 0\r\n\r\n"), up.wait_close()),
        ("upstream-syntax",),
    ),
    "a bare CR in the phrase": (
        (up.send(b"HTTP/1.1 200 OK\rSet-Cookie: evil\r\nContent-Length: 0\r\n\r\n"), up.wait_close()),
        ("upstream-syntax",),
    ),
    "a request": ((up.send(request()), up.wait_close()), ("upstream-syntax",)),
    "a leading space": (
        (up.send(b" HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), up.wait_close()),
        ("upstream-syntax",),
    ),
    "100 with a length": (
        (up.send(b"HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\nhello"), up.wait_close()),
        ("upstream-framing", "upstream-syntax", "upstream-head-timeout"),
    ),
    "TE on HTTP/1.0": (
        (
            up.send(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
            up.wait_close(),
        ),
        ("upstream-framing",),
    ),
}


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("name", BEFORE_THE_HEAD)
def test_before_the_head(gateway: Gateway, upstream: Upstream, name: str, method: str) -> None:
    steps, reasons = BEFORE_THE_HEAD[name]
    empty_pool(gateway, upstream)
    mark, since = upstream.mark(), gateway.mark()
    upstream.script(up.read_body(), *steps)
    with gateway.client() as client:
        response = client.request(request(method, "/fault", body=b"hello" if method == "POST" else None))
        reason = refused(response, *reasons)
        assert client.get("/after").status == 200, "the client's connection is in order"
    assert [found.target for found in mark.requests].count("/fault") == 1, "delivered once"
    record = next(one for one in gateway.wait_log(since, 2) if one["reason"] == reason)
    assert record["status"] == response.status
    assert record["attempts"] == 1
    still_serves(gateway)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_refuses(start_gateway: StartGateway, method: str) -> None:
    gateway = start_gateway(config(f"127.0.0.1:{up.free_port()}"))
    with gateway.client() as client:
        for _ in range(3):
            response = client.request(request(method, body=b"hello" if method == "POST" else None))
            refused(response, "connect-refused")


def test_refuses_on_a_unix_socket(start_gateway: StartGateway, tmp_path: Any) -> None:
    gateway = start_gateway(config(f"unix:{tmp_path / 'nobody.sock'}"))
    with gateway.client() as client:
        refused(client.get(), "connect-failed", "connect-refused")


def test_one_of_two_refuses(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    """A connection that was never made has processed nothing: with another endpoint at hand the request may
    go
    there; without that, it is a 502. It is never lost in silence."""
    upstream = start_upstream()
    gateway = start_gateway(config([upstream.address, f"127.0.0.1:{up.free_port()}"]))
    with gateway.client() as client:
        statuses = [client.get().status for _ in range(10)]
    assert set(statuses) <= {200, 502}
    assert statuses.count(200) >= 5


def test_comes_back(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    upstream = start_upstream()
    gateway = start_gateway(config(upstream.address))
    with gateway.client() as client:
        assert client.get().status == 200
        upstream.refuse()
        for connection in upstream.connections:
            connection.close()
            assert connection.ended.wait(10)
        assert client.get().status == 502
        upstream.listen()
        assert client.get().status == 200


# -- in the body: the head has gone out, so the client's connection is cut, and never ends as if whole

CUT = {
    "length, closes": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello",
        up.close(),
        "upstream-truncated",
    ),
    "length, resets": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello",
        up.reset(),
        "upstream-truncated",
    ),
    "length, nothing of it": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n",
        up.close(),
        "upstream-truncated",
    ),
    "length, hangs": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello",
        up.wait_close(),
        "upstream-idle-timeout",
    ),
    "chunked, closes between chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        up.close(),
        "upstream-truncated",
    ),
    "chunked, closes in a chunk": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n50\r\nhello",
        up.close(),
        "upstream-truncated",
    ),
    "chunked, closes in a size": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5",
        up.close(),
        "upstream-truncated",
    ),
    "chunked, closes before the last CRLF": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        up.close(),
        "upstream-truncated",
    ),
    "chunked, closes in the trailers": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b",
        up.close(),
        "upstream-truncated",
    ),
    "chunked, resets": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        up.reset(),
        "upstream-truncated",
    ),
    "chunked, hangs": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        up.wait_close(),
        "upstream-idle-timeout",
    ),
    "eof, resets": (b"HTTP/1.1 200 OK\r\n\r\nhello", up.reset(), "upstream-truncated"),
    "eof, hangs": (b"HTTP/1.1 200 OK\r\n\r\nhello", up.wait_close(), "upstream-idle-timeout"),
}


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("name", CUT)
def test_cut_in_the_body(gateway: Gateway, upstream: Upstream, name: str, version: str) -> None:
    data, end, reason = CUT[name]
    since = gateway.mark()
    upstream.script(up.send(data), end)
    with gateway.client() as client:
        client.send(request(version=version))
        try:
            response = client.response(http10=version == "1.0")
        except ConnectionEnded as error:
            # A body that ends with the connection must not end in order (RFC 9112 8).
            assert error.how == "reset" or not (version == "1.0" and not name.startswith("length"))  # noqa: PT017
        else:
            # The fault came before the head was passed on: then the gateway may answer itself.
            assert response.status in (502, 504), f"looks whole: {response}"
            assert proxy_details(response) == [reason]
    assert gateway.wait_log(since)[0]["reason"] == reason
    still_serves(gateway)


BAD_CHUNKS = {
    "bare semicolon": b"5;\r\nhello\r\n0\r\n\r\n",
    "space behind the size": b"5 \r\nhello\r\n0\r\n\r\n",
    "sign": b"+5\r\nhello\r\n0\r\n\r\n",
    "0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "17 digits": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "2**64 - 1": b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "LF behind the size": b"5\nhello\r\n0\r\n\r\n",
    "no CRLF behind the data": b"5\r\nhello0\r\n\r\n",
    "LF behind the data": b"5\r\nhello\n0\r\n\r\n",
    "data too long": b"5\r\nhello world\r\n0\r\n\r\n",
    "CR in an extension": b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "LF in an extension": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "bad trailer": b"5\r\nhello\r\n0\r\nA : b\r\n\r\n",
    "trailer with a bare LF": b"5\r\nhello\r\n0\r\nA: b\nSet-Cookie: evil\r\n\r\n",
    "trailer with NUL": b"5\r\nhello\r\n0\r\nA: \x00\r\n\r\n",
    "no size": b"hello",
}


@pytest.mark.parametrize("split", [False, True], ids=["with the head", "later"])
@pytest.mark.parametrize("name", BAD_CHUNKS)
def test_bad_chunks(gateway: Gateway, upstream: Upstream, name: str, split: bool) -> None:
    """Cut, never mended and never passed on as they are; the connection is not used again."""
    since, gate = gateway.mark(), threading.Event()
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    if split:
        steps = (up.send(head + b"3\r\nabc\r\n"), up.wait_for(gate), up.send(BAD_CHUNKS[name]))
    else:
        steps = (up.send(head + BAD_CHUNKS[name]),)  # type: ignore[assignment]
    mark = upstream.mark()
    upstream.script(*steps, up.wait_close())
    with gateway.client() as client:
        client.send(request())
        if split:
            assert client.head().status == 200
            assert client.stream.exactly(8, "the first chunk") == b"3\r\nabc\r\n"
            gate.set()
            rest = client.stream.rest("the cut")
            assert not rest.endswith(b"0\r\n\r\n")
            assert b"evil" not in rest
        else:
            try:
                response = client.response()
            except ConnectionEnded:
                pass
            else:
                assert proxy_details(response) == ["upstream-chunk-syntax"], "looks whole"
    assert gateway.wait_log(since)[0]["reason"] in ("upstream-chunk-syntax", "upstream-body-too-large")
    connection = next(c for c in upstream.connections if mark.requests[0] in c.requests)
    assert connection.ended.wait(10)
    still_serves(gateway)


# -- slow, but right


@pytest.mark.parametrize("size", [1, 3])
def test_trickles(gateway: Gateway, upstream: Upstream, size: int) -> None:
    """Each byte in a segment of its own is still the same answer."""
    data = (
        b"HTTP/1.1 103 Early\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n"
    )
    upstream.script(up.trickle(data + chunked(b"hello", b"world", trailers=b"T: 1\r\n"), size))
    with gateway.client() as client:
        response = client.get()
        assert (response.body, response.trailers, response.get("x")) == (b"helloworld", (("T", "1"),), "y")
        assert len(response.interim) == 1
        assert client.get("/next").json()["target"] == "/next"


def test_split_at_every_byte(gateway: Gateway, upstream: Upstream) -> None:
    """The answer in two pieces, cut everywhere; the second is sent when the first one has been read, as a
    request on
    another connection shows."""
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n" + chunked(
        b"hello", trailers=b"T: 1\r\n"
    )
    gates = [threading.Event() for _ in data]
    with gateway.client() as barrier:
        for at in range(1, len(data)):
            mark = upstream.mark()
            upstream.script(up.send(data[:at]), up.wait_for(gates[at]), up.send(data[at:]))
            with gateway.client() as client:
                client.send(request())
                mark.wait(1)
                barrier.get("/barrier")
                gates[at].set()
                response = client.response()
                assert (response.body, response.trailers, response.get("x")) == (
                    b"hello",
                    (("T", "1"),),
                    "y",
                ), at


def test_half_closes_after_its_answer(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(up.reply(200, b"ok"), up.half_close(), up.wait_close())
    with gateway.client() as client:
        assert client.get().body == b"ok"
        assert client.get("/next").json()["target"] == "/next"


def test_resets_behind_its_answer(gateway: Gateway, upstream: Upstream) -> None:
    """The answer was whole: the reset concerns nobody."""
    for _ in range(20):
        upstream.script(up.reply(200, b"ok"), up.reset())
        with gateway.client() as client:
            assert client.get().body == b"ok"


def test_closes_during_the_upload(gateway: Gateway, upstream: Upstream) -> None:
    """The client gets a 502, or its connection is cut; it is never left hanging."""
    for end in (up.close(), up.reset()):
        upstream.script(up.read_some(1000), end)
        with gateway.client() as client:
            client.try_send(request("POST", body=b"x" * 5_000_000))
            try:
                refused(client.response("POST"), "upstream-reset", "upstream-truncated")
            except ConnectionEnded:
                assert client.stream.ended
    still_serves(gateway)


def test_many_fields_pass_within_the_limits(gateway: Gateway, upstream: Upstream) -> None:
    lines = tuple(f"X-{number}: {'v' * 200}" for number in range(150))
    upstream.script(up.reply(200, b"ok", *lines))
    with gateway.client() as client:
        assert [name for name, _ in client.get().fields if name.startswith("X-")] == [
            f"X-{n}" for n in range(150)
        ]


# -- through the fault proxy


@pytest.mark.parametrize("at", [1, 10, 40, 100, 1000, 50_000])
@pytest.mark.parametrize("kind", ["reset", "close"])
def test_faults_on_the_way_back(
    start_gateway: StartGateway, start_upstream: StartUpstream, kind: str, at: int
) -> None:
    """The response is cut at byte N: a 502 of our own while nothing was passed on, then a cut; never a whole
    one."""
    upstream = start_upstream()
    upstream.default = (up.read_body(), up.reply(200, pattern(100_000)))
    faults = Faults(reset_at=at) if kind == "reset" else Faults(close_at=at)
    with FaultProxy(parse_address(upstream.address), response=faults) as proxy:
        gateway = start_gateway(config(proxy.address))
        for _ in range(3):
            with gateway.client() as client:
                client.send(request("POST", body=b"once"))
                try:
                    response = client.response("POST")
                    assert response.status == 502
                except ConnectionEnded:
                    assert at > 40
        gateway.stop()
    assert len(upstream.requests) == 3, "a POST is delivered once"


@pytest.mark.parametrize("at", [1, 30, 200, 50_000])
def test_faults_on_the_way_there(start_gateway: StartGateway, start_upstream: StartUpstream, at: int) -> None:
    """The request is cut at byte N: the upstream sees no whole one, the client a 502."""
    upstream = start_upstream()
    with FaultProxy(parse_address(upstream.address), request=Faults(reset_at=at)) as proxy:
        gateway = start_gateway(config(proxy.address))
        with gateway.client() as client:
            client.try_send(request("POST", body=b"x" * 100_000))
            assert client.response("POST").status == 502
        gateway.stop()
    assert not any(found.complete for found in upstream.requests)


def test_trickle_both_ways(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    upstream = start_upstream()
    slow = Faults(trickle=50)
    with FaultProxy(parse_address(upstream.address), request=slow, response=slow) as proxy:
        gateway = start_gateway(config(proxy.address))
        with gateway.client() as client:
            assert client.request(request("POST", body=pattern(20_000))).status == 200
        gateway.stop()
        assert proxy.counts.to_target > 20_000


def test_blackhole(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    upstream = start_upstream()
    with FaultProxy(parse_address(upstream.address), request=Faults(blackhole=True)) as proxy:
        gateway = start_gateway(config(proxy.address, upstream_options={"timeouts": {"head": "200ms"}}))
        before = gateway.fds()
        with gateway.client() as client:
            refused(client.get(), "upstream-head-timeout")
        gateway.wait_fds(before)
        gateway.stop()


def test_faults_leave_nothing(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    """A hundred faults of all kinds: no descriptor stays, and the leak report at the end is one of zeros."""
    upstream = start_upstream()
    gateway = start_gateway(gateway_config(upstream.address))
    before = gateway.fds()
    for _ in range(10):
        for data, end, _reason in CUT.values():
            if end is not CUT["eof, hangs"][1] and "hangs" not in _reason and "timeout" not in _reason:
                upstream.script(up.send(data), end)
                with gateway.client() as client:
                    client.send(request())
                    client.stream.rest("the end") if data.startswith(b"HTTP/1.1 200 OK\r\n") else None
    gateway.wait_fds(before + 1)
