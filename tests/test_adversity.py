"""What a hostile or unlucky peer makes of the moments between two states: each test is a defect that reading
found."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Any

import pytest
from conftest import StartGateway, StartUpstream
from support import upstream as up
from support.answers import reason_of
from support.client import Client, request
from support.gateway import config
from support.proxy_header import v1 as proxy_v1


def read_slowly(client: Client, size: int, pause: float) -> bytes:
    """Takes `size` bytes and then rests, until the end of the connection: the pace is the point."""
    got = bytearray()
    client.sock.settimeout(10)
    try:
        while part := client.sock.recv(size):
            got += part
            time.sleep(pause)
    except ConnectionResetError:
        pass
    return bytes(got)


# -- requests


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("pieces", [(b"hello",), (b"he", b"llo")])
def test_last_request_with_a_body_of_its_own_segment(
    start_gateway: StartGateway, start_upstream: StartUpstream, version: str, pieces: tuple[bytes, ...]
) -> None:
    """`Connection: close` says nothing of the body that still comes."""
    service = start_upstream()
    with start_gateway(config(service.address)).client() as client:
        client.send(request("POST", version=version, lines=("Connection: close", "Content-Length: 5")))
        service.wait_requests(1)
        client.send_pieces(*pieces)
        assert client.response(http10=version == "1.0").json()["body"] == "hello"
        client.ended()


def test_last_request_with_chunks(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    service = start_upstream()
    with start_gateway(config(service.address)).client() as client:
        response = client.request(request("POST", chunks=[b"hel", b"lo"], lines=("Connection: close",)))
        assert response.json()["body"] == "hello"


def test_bare_cr_before_the_request_line(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    """RFC 9112 2.2: an empty line may precede a request; a CR alone is none."""
    service = start_upstream()
    with start_gateway(config(service.address)).client() as client:
        client.send(b"\r" + request("UNLOCK"))
        assert reason_of(client.response()) == "bare-line-feed"
    assert not service.requests


@pytest.mark.parametrize(
    ("method", "given", "sent"),
    [("OPTIONS", "5", ["4"]), ("GET", "5", ["5"]), ("OPTIONS", "many", ["many"])],
)
def test_max_forwards_is_counted_down(
    start_gateway: StartGateway, start_upstream: StartUpstream, method: str, given: str, sent: list[str]
) -> None:
    """RFC 9110 7.6.2."""
    service = start_upstream()
    with start_gateway(config(service.address)).client() as client:
        client.request(request(method, lines=(f"Max-Forwards: {given}",)))
    assert service.requests[0].all("max-forwards") == sent


def test_trailers_in_segments_of_their_own(
    start_gateway: StartGateway, start_upstream: StartUpstream
) -> None:
    service = start_upstream()
    with start_gateway(config(service.address)).client() as client:
        client.send(request("POST", lines=("Transfer-Encoding: chunked",)) + b"0\r\nX-A: 1\r\nX-")
        service.wait_requests(1)
        client.send(b"B: 2\r\n\r\n" + request(target="/next"))
        assert client.response().json()["trailers"] == [["X-A", "1"], ["X-B", "2"]]
        assert client.response().json()["target"] == "/next"


# -- slow readers


def slow_config(service: up.Upstream, **options: Any) -> dict[str, Any]:
    return config(
        service.address,
        listener={
            "limits": {"body": "unlimited"},
            "timeouts": {"head": "5s", "body_idle": "20s", "keep_alive": "5s", "write_idle": "700ms"},
            **options,
        },
    )


def test_reader_that_is_slow_but_reads(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    """`write_idle` is for those who take nothing: a download may last many times as long."""
    size = 12 * 1024 * 1024
    service = start_upstream(record=False, timeout=60.0)
    service.default = (up.reply(200, b"x" * size),)
    gateway = start_gateway(slow_config(service))
    with gateway.client(receive_buffer=65536, record=False) as client:
        client.send(request())
        got = read_slowly(client, 1 << 20, 0.03)
    assert len(got) > size, f"{len(got)} bytes, cut"
    assert gateway.wait_log()[0]["reason"] in (None, "", "none")


@pytest.mark.parametrize("when", ["upload goes on", "upload ended"])
def test_reader_that_stops_after_an_early_answer(
    start_gateway: StartGateway, start_upstream: StartUpstream, when: str
) -> None:
    """An answer that began during the upload is watched like any other."""
    service = start_upstream(record=False)
    stuck = threading.Event()
    service.script(
        up.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        flood,
        up.tell(stuck),
        up.wait_close(),
    )
    gateway = start_gateway(slow_config(service))
    with gateway.client(receive_buffer=4096) as client:
        client.send(
            request(
                "POST",
                lines=("Content-Length: 100000000",) if when == "upload goes on" else ("Content-Length: 10",),
            )
            + b"x"
        )
        assert stuck.wait(10)
        if when == "upload ended":
            client.send(b"x" * 9)
        else:
            # On a busy machine the gateway may cut the connection while this is still sending.
            with contextlib.suppress(ConnectionError):
                send_until_blocked(client.sock)
        record = gateway.wait_log()[0]
    assert record["reason"] == "client-not-reading"


def flood(connection: up.Connection) -> None:
    """Sends until the gateway takes no more, and reads nothing."""
    send_until_blocked(connection.sock, b"10000\r\n" + b"x" * 65536 + b"\r\n")


def send_until_blocked(sock: socket.socket, data: bytes = b"x" * 65536) -> None:
    sock.settimeout(0.3)
    try:
        while True:
            sock.sendall(data)
    except TimeoutError:
        return


def test_abandoned_answer_does_not_look_whole(
    start_gateway: StartGateway, start_upstream: StartUpstream
) -> None:
    """To HTTP/1.0 the end of the connection is the end of the body: after a half-close it must be a reset."""
    service = start_upstream()
    service.script(
        up.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n"), up.wait_close()
    )
    with start_gateway(config(service.address)).client() as client:
        client.send(request(version="1.0"))
        assert "transfer-encoding" not in client.head()
        client.stream.exactly(4, "the part")
        client.half_close()
        assert client.ended() == "reset"


# -- the pool


def test_endpoint_that_hangs_up_at_once(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    """A connection that ends before it was handed over is counted out once: the bound of the pool stands."""
    service = start_upstream()
    for _ in range(8):
        service.on_accept(up.close())
    gateway = start_gateway(
        config(service.address, upstream_options={"pool": {"max_connections": 1, "queue_timeout": "5s"}})
    )
    for _ in range(8):
        with gateway.client() as client:
            client.get()
    let_go = threading.Event()
    for _ in range(4):
        service.script(up.wait_for(let_go), up.reply())
    clients = [gateway.client() for _ in range(4)]
    before = len(service.connections)
    for client in clients:
        client.send(request())
    service.wait_requests(1)
    with gateway.client() as other:
        other.send(b"GET /nothing HTTP/1.1\r\n\r\n")
        other.response()
    assert len(service.connections) - before <= 1
    let_go.set()
    for client in clients:
        assert client.response().status == 200
        client.close()


def test_failed_connect_leaves_nobody_waiting(start_gateway: StartGateway) -> None:
    """Those who wait behind a connect that fails get a connect of their own."""
    port = up.free_port()
    gateway = start_gateway(
        config(
            f"127.0.0.1:{port}",
            upstream_options={
                "pool": {"max_connections": 1, "queue_timeout": "8s"},
                "timeouts": {"connect": "8s"},
            },
        )
    )
    since = gateway.mark()
    clients = [gateway.client() for _ in range(5)]
    for client in clients:
        client.send(request())
    for client in clients:
        assert reason_of(client.response()) == "connect-refused"
        client.close()
    assert max(record["time_total"] for record in gateway.wait_log(since, 5)) < 4


def test_connect_timeout_longer_than_the_queue(start_gateway: StartGateway) -> None:
    """`queue_timeout` is for those who wait for a place, not for those whose connection is being made."""
    with up.full_backlog() as address:
        gateway = start_gateway(
            config(
                address,
                upstream_options={"pool": {"queue_timeout": "100ms"}, "timeouts": {"connect": "700ms"}},
            )
        )
        with gateway.client() as client:
            client.get()
        record = gateway.wait_log()[0]
    assert record["reason"] == "connect-timeout"
    assert record["time_total"] >= 0.6


def test_drain_while_a_connection_is_being_made(start_gateway: StartGateway) -> None:
    with up.full_backlog() as address:
        gateway = start_gateway(
            config(
                address,
                server={"drain_timeout": "200ms"},
                upstream_options={"timeouts": {"connect": "60s"}, "pool": {"queue_timeout": "60s"}},
            )
        )
        with gateway.client() as client:
            client.send(request())
            with gateway.client() as other:
                other.send(b"x\r\n\r\n")
                other.response()
            gateway.terminate()
            gateway.wait_stopped(cut=1)


# -- responses


@pytest.mark.parametrize("byte", [b"\0", b"\x01", b"\x7f", b"\r"])
def test_control_byte_in_the_reason_phrase(
    start_gateway: StartGateway, start_upstream: StartUpstream, byte: bytes
) -> None:
    """RFC 9112 4: HTAB, SP, VCHAR, obs-text."""
    service = start_upstream()
    service.script(up.send(b"HTTP/1.1 200 O" + byte + b"K\r\nContent-Length: 0\r\n\r\n"))
    with start_gateway(config(service.address)).client() as client:
        assert reason_of(client.get()) == "upstream-syntax"


def test_response_longer_than_the_limit_is_refused_whole(
    start_gateway: StartGateway, start_upstream: StartUpstream
) -> None:
    """A length that is known to be too much is answered with 502, not cut on the way."""
    service = start_upstream()
    service.script(up.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"), up.wait_close())
    gateway = start_gateway(config(service.address, upstream_options={"limits": {"body": "10KiB"}}))
    with gateway.client() as client:
        response = client.get()
    assert response.status == 502
    assert reason_of(response) == "upstream-body-too-large"


# -- caps


def test_cap_of_the_address_in_the_proxy_header(
    start_gateway: StartGateway, start_upstream: StartUpstream
) -> None:
    """The cap is for clients: the load balancer in front stands for many."""
    service = start_upstream()
    gateway = start_gateway(
        config(service.address, server={"max_connections_per_ip": 2}, listener={"proxy_protocol": True})
    )
    clients = []
    for number in range(4):
        client = gateway.client()
        clients.append(client)
        client.send(proxy_v1(f"192.0.2.{number}") + request())
        assert client.response().status == 200
    same = [gateway.client() for _ in range(3)]
    for number, client in enumerate(same):
        client.send(proxy_v1("192.0.2.99") + request())
        if number < 2:
            assert client.response().status == 200
        else:
            client.ended()
    for client in [*clients, *same]:
        client.close()
