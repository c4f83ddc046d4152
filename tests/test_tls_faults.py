"""What goes wrong with TLS: peers that are slow, broken, cut off, or do not stop."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from support import upstream as up
from support.client import Client, connect, request
from support.gateway import Gateway, config
from support.handlers import Flow, stream_body
from support.tls import Pair, TlsClient, client_context, server_certificate
from support.upstream import Upstream

MIB = 1 << 20


@pytest.fixture(scope="module")
def module_gateway(
    module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory, tls_engine: dict[str, str]
) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    pair = Pair(folder, "first", server_certificate("test.example"))

    def listener(name: str, **tls: object) -> dict[str, object]:
        return {
            "name": name,
            "bind": "127.0.0.1:0",
            "limits": {"body": "1GiB"},
            "tls": {"certificates": [pair.table], **tls},
        }

    listeners: list[dict[str, Any]] = [
        listener("main"),
        listener("hasty", handshake_timeout="200ms"),
        listener("few", handshake_rate="5/s"),
        {**listener("serve"), "half_close": "serve"},
        {"name": "plain", "bind": "127.0.0.1:0"},
    ]
    tables = config(module_upstream.address, listeners=listeners, admin={"bind": "127.0.0.1:0"})
    with Gateway(tables, folder, env=tls_engine) as gateway:
        yield gateway


@pytest.fixture
def gateway(module_gateway: Gateway) -> Iterator[Gateway]:
    """It serves others behind each test."""
    yield module_gateway
    with TlsClient(module_gateway.addresses["main"]) as client:
        assert client.get().status == 200


def gauge(gateway: Gateway, name: str) -> int:
    return int(gateway.admin("/counters")["gauges"][name])


def wait_gauge(gateway: Gateway, name: str, value: int) -> None:
    deadline = time.monotonic() + 5
    while gauge(gateway, name) < value:
        assert time.monotonic() < deadline, f"{name}: {gauge(gateway, name)}, not {value}"
        time.sleep(0.01)


def hello() -> bytes:
    """A ClientHello."""
    out = ssl.MemoryBIO()
    session = client_context().wrap_bio(ssl.MemoryBIO(), out, server_hostname="test.example")
    with pytest.raises(ssl.SSLWantReadError):
        session.do_handshake()
    return out.read()


# -- handshakes


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00" + b"\x00" * 512,
        b"\x16\x03\x01\xff\xff" + b"\x01" * 65535,
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"\x17\x03\x03\x00\x10" + b"x" * 16,
        b"\x80\x2e\x01\x00\x02" + b"\x00" * 44,
        b"\x00" * 100,
        b"\xff" * 40_000,
        b"SSH-2.0-OpenSSH_9.2\r\n",
        hello()[:-40] + b"\xff" * 40,
        hello()[:10] + b"\x00" * 10 + hello()[20:],
    ],
    ids=["zeros", "long", "alert", "data", "sslv2", "nulls", "ones", "ssh", "end of hello", "start of hello"],
)
def test_garbage(gateway: Gateway, data: bytes) -> None:
    """Ends the connection, at once or by the deadline of handshakes, and is counted."""
    before = gauge(gateway, "tls_failed") + gauge(gateway, "tls_timeouts")
    with gateway.client("hasty") as client:
        client.try_send(data)
        answer = client.stream.rest("the end")
        # An alert or a hello, words in HTTP for what looks like that, or nothing.
        assert answer == b"" or answer[0] in (21, 22) or answer.startswith(b"HTTP/1.1 400")
    if not data.startswith(b"SSH"):
        deadline = time.monotonic() + 5
        while gauge(gateway, "tls_failed") + gauge(gateway, "tls_timeouts") == before:
            assert time.monotonic() < deadline
            time.sleep(0.01)


CHANGE = b"\x14\x03\x03\x00\x01\x01"  # change_cipher_spec (RFC 8446 D.4)


def test_a_name_that_is_none(gateway: Gateway, tls_engine: dict[str, str]) -> None:
    """A host name is ASCII (RFC 6066 3)."""
    if tls_engine:
        pytest.skip("Python's ssl module refuses it too, and complains on stderr")
    with Client(gateway.addresses["main"]) as client:
        client.send(hello().replace(b"test.example", b"test.\xffxample"))
        answer = client.stream.rest("the alert")
        assert answer[:1] == b"\x15"
        assert answer[-1] == 112, "unrecognized_name (RFC 6066 3)"


@pytest.mark.parametrize("first", [b"", hello()], ids=["at once", "behind the hello"])
def test_change_cipher_spec_without_end(gateway: Gateway, first: bytes) -> None:
    """One is read with what follows it; it is not waited for that for ever, and nothing grows by them."""
    failed = gauge(gateway, "tls_failed")
    with gateway.client("main") as client:
        client.send(first + CHANGE)
        if first:
            assert client.stream.some(65536, "the server's part of the handshake")[:1] == b"\x16"
        for _ in range(200):
            if not client.try_send(CHANGE):
                break
        client.stream.rest("the end")
    wait_gauge(gateway, "tls_failed", failed + 1)


def test_random_bytes_in_a_session(gateway: Gateway) -> None:
    """Records that nobody has sealed: the connection ends, and nothing of it reaches a request."""
    since = gateway.mark_on("plain")
    for size in (5, 100, 16_384, 40_000):
        with TlsClient(gateway.addresses["main"]) as client:
            assert client.get().status == 200
            raw = socket.socket(fileno=os.dup(client.sock.fileno()))
            with raw:
                raw.settimeout(5)
                raw.sendall(b"\x17\x03\x03" + min(size, 16_000).to_bytes(2, "big") + os.urandom(size))
                client.sock.shutdown(socket.SHUT_WR)
                while True:
                    try:
                        if not raw.recv(65536):
                            break
                    except ConnectionResetError:
                        break
    assert [line["path"] for line in gateway.wait_log(since, 4)] == ["/"] * 4


def test_slow_handshakes(gateway: Gateway) -> None:
    """Nothing, a part of a ClientHello, a ClientHello alone: each ends by the deadline, and others go on."""
    before = gauge(gateway, "tls_timeouts")
    whole = hello()
    with ExitStack() as stack:
        clients = [stack.enter_context(gateway.client("hasty")) for _ in range(9)]
        for at, client in enumerate(clients):
            client.send((b"", whole[:50], whole)[at % 3])
        with TlsClient(gateway.addresses["hasty"]) as other:
            assert other.get().status == 200
        for client in clients:
            client.stream.rest("the end")
    wait_gauge(gateway, "tls_timeouts", before + 9)


def test_a_hello_byte_by_byte(gateway: Gateway) -> None:
    with gateway.client("main") as client:
        whole = hello()
        client.send_pieces(*(whole[at : at + 1] for at in range(len(whole))))
        assert client.stream.fill("the server's hello")
        assert client.stream.received[:3] == b"\x16\x03\x03"


def test_more_than_the_rate(gateway: Gateway) -> None:
    """A burst of one second's worth, and what is beyond it is closed and counted."""
    before = gauge(gateway, "tls_refused")
    made = refused = 0
    for _ in range(20):
        try:
            with TlsClient(gateway.addresses["few"]) as client:
                assert client.get().status == 200
                made += 1
        except (ssl.SSLError, ConnectionError):
            refused += 1
    assert 5 <= made <= 10
    wait_gauge(gateway, "tls_refused", before + refused)


def test_leaves_in_the_handshake(gateway: Gateway) -> None:
    before = gauge(gateway, "tls_failed")
    connect(gateway.addresses["main"]).close()  # a check of the port: nothing has failed
    for how in ("close", "reset"):
        with gateway.client("main") as client:
            client.send(hello())
            assert client.stream.fill("the server's hello")
            client.reset() if how == "reset" else client.close()
    wait_gauge(gateway, "tls_failed", before + 1)
    assert gauge(gateway, "tls_failed") <= before + 2


# -- cut off


def test_a_cut_request_is_no_request(gateway: Gateway, upstream: Upstream) -> None:
    """FIN without close_notify in a body, and while an answer is due."""
    mark, since = upstream.mark(), gateway.mark_on("plain")
    with TlsClient(gateway.addresses["main"]) as client:
        client.send(request("POST", lines=("Content-Length: 10",)) + b"hello")
        mark.wait(1)
        client.cut()
        connection = next(c for c in upstream.connections if mark.requests[0] in c.requests)
        assert connection.ended.wait(5)
    assert not mark.requests[0].complete
    (line,) = gateway.wait_log(since)
    assert (line["reason"], line["detail"]) == ("client-gone", "closed without close_notify (TLS)")
    upstream.script(up.wait_close())
    with TlsClient(gateway.addresses["main"]) as client:
        client.send(request())
        mark.wait(2)
        client.cut()
        assert gateway.wait_log(since, 2)[1]["reason"] == "client-gone"


def test_a_cut_answer_looks_cut(gateway: Gateway, upstream: Upstream) -> None:
    """An answer that ends with the connection, and is not whole, has no close_notify behind it."""
    upstream.script(up.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"), up.reset())
    with TlsClient(gateway.addresses["main"]) as client:
        client.send(request(version="1.0"))
        assert client.cut_response().how == "reset"
    upstream.script(up.send(b"HTTP/1.1 200 OK\r\n\r\nall"), up.close())
    with TlsClient(gateway.addresses["main"]) as client:
        client.send(request(version="1.0"))
        assert client.response(http10=True).body == b"all"
        assert client.ended() == "eof"


def test_the_end_is_said(gateway: Gateway) -> None:
    """close_notify at the end of a connection that was asked for."""
    with TlsClient(gateway.addresses["main"]) as client:
        client.send(request(lines=("Connection: close",)))
        assert client.response(keep=False).status == 200
        assert client.ended() == "eof"


def leave(client: TlsClient, *, fin: bool) -> None:
    """close_notify with FIN or without, in one segment with what was sent since the socket was corked."""
    client.half_close()
    with socket.socket(fileno=os.dup(client.sock.fileno())) as plain:  # which knows nothing of TLS
        if fin:
            plain.shutdown(socket.SHUT_WR)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)


@pytest.mark.parametrize("fin", [False, True])
def test_the_end_is_answered(gateway: Gateway, fin: bool) -> None:
    """close_notify by close_notify, but not where FIN came with it: then nobody is there to read it."""
    with TlsClient(gateway.addresses["main"]) as client:
        assert client.get().status == 200
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        leave(client, fin=fin)
        assert client.ended() == ("reset" if fin else "eof")


def test_an_answer_that_is_owed_has_an_end(gateway: Gateway) -> None:
    """Who asks and ends its side, by FIN too, is there still."""
    with TlsClient(gateway.addresses["serve"]) as client:
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        client.send(request())
        leave(client, fin=True)
        assert client.response(keep=False).status == 200
        assert client.ended() == "eof"


# -- too much


def test_a_download_that_is_not_read(gateway: Gateway, upstream: Upstream) -> None:
    """The service is held back, memory stays, and the rest comes when it is asked for."""
    total, flow = 64 * MIB, Flow()
    upstream.script(stream_body(total, flow))
    base = gateway.memory()
    with TlsClient(gateway.addresses["main"], receive_buffer=65536, record=False) as client:
        client.send(request())
        client.head()
        assert flow.stalled() < total // 2
        assert gateway.memory() - base < 8 * MIB
        assert client.stream.skip_length(total, "the body") == total


def test_an_upload_that_is_not_read(gateway: Gateway, upstream: Upstream) -> None:
    """What came already waits within bounds, and goes on when the service reads."""
    gate, total = threading.Event(), 64 * MIB
    upstream.script(up.wait_for(gate), up.read_body(keep=False), up.reply(200, b"all"))
    base = gateway.memory()
    sent = 0
    with TlsClient(gateway.addresses["main"], record=False) as client:
        client.send(request("POST", lines=(f"Content-Length: {total}",)))
        client.sock.settimeout(0.5)
        block = b"x" * MIB
        try:
            while sent < total:
                sent += client.sock.send(block[: min(MIB, total - sent)])
        except TimeoutError:
            pass
        assert sent < 32 * MIB
        assert gateway.memory() - base < 8 * MIB
        gate.set()
        client.sock.settimeout(10)
        while sent < total:
            sent += client.sock.send(block[: min(MIB, total - sent)])
        assert client.response("POST").body == b"all"


def test_new_keys(gateway: Gateway) -> None:
    """A key update (RFC 8446 4.6.3) that asks for one in return, and a request behind it."""
    address = gateway.addresses["main"]
    there = ["-connect", f"127.0.0.1:{address[1]}", "-servername", "test.example"]
    process = subprocess.Popen(
        ["openssl", "s_client", "-tls1_3", *there],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        for _ in range(5):
            process.stdin.write(b"K\n")
            process.stdin.flush()
            while b"KEYUPDATE" not in process.stderr.readline():
                pass
        process.stdin.write(request(lines=("Connection: close",)))
        process.stdin.flush()
        assert b"HTTP/1.1 200" in process.stdout.read()


def test_idle_connections_are_small(gateway: Gateway, upstream: Upstream) -> None:
    """Also those that have carried a large body: no buffer is kept."""
    context = client_context()
    with ExitStack() as stack:
        clients = [
            stack.enter_context(TlsClient(gateway.addresses["main"], context=context)) for _ in range(5)
        ]
        base = gateway.memory()
        clients += [
            stack.enter_context(TlsClient(gateway.addresses["main"], context=context)) for _ in range(40)
        ]
        for client in clients:
            upstream.script(up.read_body(keep=False), up.reply(200, b"y" * MIB))
            assert client.request(request("POST", body=b"x" * MIB)).status == 200
        assert (gateway.memory() - base) / 40 < 100_000
