"""The harness against itself and against nginx: a reader that forgives, or a proxy that cuts nothing, proves
nothing."""

from __future__ import annotations

import socket
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import upstream as up
from support.client import Client, chunked, request
from support.faults import FaultProxy, Faults
from support.gateway import config, parse_address, to_toml
from support.handlers import BLOCK, Flow, drain_body, event_stream, pattern, stream_body
from support.peers import nginx
from support.upstream import Upstream
from support.wire import ConnectionEnded, FramingError, PeerTimeout, Stream, read_request_head, read_response


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    with left, right:
        yield left, right


BAD_RESPONSES = [
    b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: +0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA: b\r\n folded\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA: b\rc\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA: b\x00c\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2 \r\nab\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nbad trailer\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\nHTTP/1.1 204 No\r\n\r\n",
    b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 099 X\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
]


@pytest.mark.parametrize("data", BAD_RESPONSES, ids=range(len(BAD_RESPONSES)))
def test_reader_refuses(pair: tuple[socket.socket, socket.socket], data: bytes) -> None:
    pair[0].sendall(data)
    pair[0].shutdown(socket.SHUT_WR)
    with pytest.raises(FramingError):
        read_response(Stream(pair[1]), "GET")


def test_reader_refuses_chunked_to_http10(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    with pytest.raises(FramingError):
        read_response(Stream(pair[1]), "GET", http10=True)


def test_reader_says_when_nothing_comes(pair: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(PeerTimeout):
        read_response(Stream(pair[1], timeout=0.05), "GET")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_reader_reads_what_is_good(pair: tuple[socket.socket, socket.socket], method: str) -> None:
    body = b"" if method == "HEAD" else chunked(b"abc", b"de", trailers=b"T: 1\r\n")
    pair[0].sendall(
        b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body
    )
    pair[0].shutdown(socket.SHUT_WR)
    stream = Stream(pair[1])
    response = read_response(stream, method)
    assert [early.status for early in response.interim] == [103]
    if method == "GET":
        assert (response.body, response.trailers) == (b"abcde", (("T", "1"),))
    assert stream.rest("end") == b""


def test_request_reader_wants_one_host(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].sendall(b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n")
    with pytest.raises(FramingError):
        read_request_head(Stream(pair[1]))


@pytest.fixture
def service() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


def reach(upstream: Upstream) -> Client:
    address = parse_address(upstream.address)
    return Client(address, timeout=5)


def test_upstream_records_to_the_byte(service: Upstream) -> None:
    data = request("POST", "/a?b", body=b"hello", x_a="1") + request("POST", "/c", chunks=[b"x", b"yz"])
    with reach(service) as client:
        client.send(data)
        assert client.response().json()["body"] == "hello"
        assert client.response().json()["body"] == "xyz"
        assert service.connections[0].received == data
        assert service.requests[0].head == request("POST", "/a?b", x_a="1").replace(
            b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n"
        )
    service.connections[0].ended.wait(5)
    assert service.connections[0].how == "eof"


def test_upstream_scripts(service: Upstream) -> None:
    service.script(up.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"), up.reset())
    service.script(up.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"), up.close())
    for how in ("reset", "eof"):
        with reach(service) as client:
            client.send(request())
            assert client.cut_response().how == how
    service.on_accept(up.send(b"HTTP/1.1 408 Late\r\nContent-Length: 0\r\n\r\n"), up.close())
    with reach(service) as client:
        assert client.response().status == 408
        assert client.ended() == "eof"
    service.refuse()
    with pytest.raises(ConnectionRefusedError):
        reach(service)
    service.listen()
    with reach(service) as client:
        assert client.get().status == 200


def test_upstream_waits_for_the_test(service: Upstream) -> None:
    gates = [threading.Event(), threading.Event()]
    service.script(event_stream([b"data: 1\n\n", b"data: 2\n\n"], gates))
    with reach(service) as client:
        client.send(request())
        client.head()
        for number, gate in enumerate(gates, 1):
            gate.set()
            assert client.stream.exactly(14, "event") == b"9\r\ndata: %d\n\n\r\n" % number


def test_full_backlog_hangs() -> None:
    with up.full_backlog() as address:
        host, port = address.split(":")
        with pytest.raises(TimeoutError):
            socket.create_connection((host, int(port)), timeout=0.2)


def test_flow_shows_back_pressure(service: Upstream) -> None:
    flow, total = Flow(), 64 << 20
    service.script(stream_body(total, flow))
    with reach(service) as client:
        client.send(request())
        assert 0 < flow.stalled() < total
        assert client.response(keep=False).length == total
        assert flow.done.wait(5)
    assert len(BLOCK) == 1 << 20


def test_flow_counts_uploads(service: Upstream) -> None:
    flow, resume = Flow(), threading.Event()
    service.script(drain_body(3, flow, resume), up.reply())
    with reach(service) as client:
        client.send(request("POST", body=b"abc"))
        assert flow.moved == 0
        resume.set()
        assert client.response().status == 200
    assert flow.moved == 3


@pytest.mark.parametrize(
    ("faults", "how", "got"),
    [
        (Faults(reset_at=20), "reset", None),
        (Faults(close_at=20), "eof", 20),
        (Faults(trickle=7), None, None),
    ],
)
def test_fault_proxy(service: Upstream, faults: Faults, how: str | None, got: int | None) -> None:
    service.script(up.reply(200, b"x" * 100))
    with (
        FaultProxy(parse_address(service.address), response=faults) as proxy,
        Client(("127.0.0.1", proxy.port)) as client,
    ):
        client.send(request())
        if how is None:
            assert client.response().body == b"x" * 100
        else:
            assert client.cut_response().how == how
            assert proxy.counts.faults == 1
        if got is not None:
            assert len(client.stream.received) == got
        assert proxy.counts.connections == 1


def test_fault_proxy_holds_back(service: Upstream) -> None:
    gate = threading.Event()
    with (
        FaultProxy(
            parse_address(service.address), request=Faults(delay=gate), response=Faults(truncate_at=30)
        ) as proxy,
        Client(("127.0.0.1", proxy.port), timeout=0.2) as client,
    ):
        client.send(request())
        assert not service.requests
        gate.set()
        service.wait_requests(1)
        with pytest.raises(PeerTimeout):
            client.response()
        proxy.cut_all()
        client.stream.rest("the reset")
        assert client.stream.ended == "reset"


def test_nginx_between_client_and_upstream(service: Upstream, tmp_path: Path) -> None:
    """A known good proxy passes what the harness sends and reads: framing, pipelining, interim answers and
    faults."""
    site = (
        f"location / {{ proxy_pass http://{service.address}; proxy_http_version 1.1; proxy_buffering off; }}"
    )
    big = pattern(1_000_000)
    with nginx(tmp_path, site) as address, Client(address) as client:
        client.send(
            request("POST", "/one", body=big)
            + request("POST", "/two", chunks=[big, b"x"])
            + request(target="/three")
        )
        assert client.response().json()["body"] == big.decode("latin-1")
        assert client.response().json()["body"] == (big + b"x").decode("latin-1")
        assert client.response().json()["target"] == "/three"
        assert client.request(request("HEAD")).body == b""
        service.script(up.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"), up.reset())
        client.send(request())
        assert client.cut_response().how == "eof"
    with nginx(tmp_path, site) as address, Client(address) as client:
        assert client.request(b"GET / HTTP/1.1\r\n\r\n").status == 400
        assert client.ended() in ("eof", "reset")
        service.refuse()
    with nginx(tmp_path, site) as address, Client(address) as client:
        assert client.get().status == 502


def test_nginx_http10_upstream(service: Upstream, tmp_path: Path) -> None:
    service.script(up.send(b"HTTP/1.0 200 OK\r\n\r\nto the end"), up.close())
    with (
        nginx(tmp_path, f"location / {{ proxy_pass http://{service.address}; }}") as address,
        Client(address) as client,
    ):
        response = client.get()
        assert (response.framing, response.body) == ("chunked", b"to the end")
        service.script(up.send(b"HTTP/1.0 200 OK\r\n\r\nto the end"), up.close())
        old = client.request(request(version="1.0"))
        assert (old.framing, old.body) == ("eof", b"to the end")


def test_ended_fails_on_more_bytes(service: Upstream) -> None:
    service.on_accept(up.send(b"x"), up.close())
    with reach(service) as client, pytest.raises(AssertionError, match="had to end"):
        client.ended()


def test_cut_response_fails_on_a_whole_one(service: Upstream) -> None:
    with reach(service) as client:
        client.send(request())
        with pytest.raises(AssertionError, match="looks whole"):
            client.cut_response()
    assert issubclass(ConnectionEnded, AssertionError)


def test_configurations_are_toml() -> None:
    tables = config(
        "127.0.0.1:1", plugins={"limit": {"use": "rate-limit", "key": "client-ip", "rate": "1/s"}}
    )
    assert tomllib.loads(to_toml(tables)) == tables
