"""SIGTERM: nothing new, finish what runs within the deadline, say what was cut."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from conftest import StartGateway, StartUpstream
from support import upstream as up
from support.client import Client, request
from support.gateway import Gateway, config
from support.wire import ConnectionEnded, tokens


def test_idle_gateway_stops_at_once(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    """Idle connections, downstream and pooled, are no reason to wait for the deadline."""
    upstream = start_upstream()
    gateway = start_gateway(config(upstream.address, server={"drain_timeout": "1h"}))
    with gateway.client() as used, gateway.client() as fresh:
        assert used.get().status == 200
        gateway.terminate()
        assert used.ended() == "eof"
        fresh.ended()
        stopped = gateway.wait_stopped()
    assert stopped["connections"] == 0
    assert upstream.connections[0].ended.wait(10)


def test_running_exchange_is_finished(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    upstream, gate = start_upstream(), threading.Event()
    gateway = start_gateway(config(upstream.address, server={"drain_timeout": "1h"}))
    upstream.script(up.wait_for(gate), up.reply(200, b"late"))
    with gateway.client() as client:
        client.send(request())
        upstream.wait_requests(1)
        gateway.terminate()
        gateway.wait_stderr("fastgate: draining")
        gate.set()
        response = client.response()
        assert response.body == b"late"
        assert "close" in tokens(response.fields, "connection"), "it says that it closes (RFC 9112 9.6)"
        assert client.ended() == "eof"
        gateway.wait_stopped()


def test_stream_and_upload_are_finished(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    upstream, gate = start_upstream(), threading.Event()
    gateway = start_gateway(config(upstream.address, server={"drain_timeout": "1h"}))
    upstream.script(
        up.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc"), up.wait_for(gate), up.send(b"def")
    )
    with gateway.client() as down, gateway.client() as upload:
        down.send(request(target="/down"))
        down.head()
        upload.send(request("POST", "/up", lines=("Content-Length: 6",)) + b"abc")
        upstream.wait_requests(2)
        gateway.terminate()
        gateway.wait_stderr("fastgate: draining")
        gate.set()
        assert down.stream.exactly(6, "body") == b"abcdef"
        upload.send(b"def")
        assert upload.response("POST").json()["body"] == "abcdef"
        gateway.wait_stopped()


def test_no_new_connection(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    upstream, gate = start_upstream(), threading.Event()
    gateway = start_gateway(config(upstream.address, server={"drain_timeout": "1h"}))
    upstream.script(up.wait_for(gate), up.reply())
    address = gateway.address
    with gateway.client() as client:
        client.send(request())
        upstream.wait_requests(1)
        gateway.terminate()
        gateway.wait_stderr("fastgate: draining")
        try:
            with Client(address) as late:
                late.try_send(request())
                assert late.response().status == 503
        except (ConnectionRefusedError, ConnectionResetError, ConnectionEnded):
            pass
        gate.set()
        assert client.response().status == 200
        gateway.wait_stopped()
    assert len(upstream.requests) == 1


def test_no_next_request(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    """What is pipelined behind the running one is not begun."""
    upstream, gate = start_upstream(), threading.Event()
    gateway = start_gateway(config(upstream.address, server={"drain_timeout": "1h"}))
    upstream.script(up.wait_for(gate), up.reply(200, b"first"))
    with gateway.client() as client:
        client.send(request() + request(target="/second"))
        upstream.wait_requests(1)
        gateway.terminate()
        gateway.wait_stderr("fastgate: draining")
        gate.set()
        assert client.response().body == b"first"
        client.ended()
        gateway.wait_stopped()
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("stage", ["head", "body"])
def test_cut_at_the_deadline(start_gateway: StartGateway, start_upstream: StartUpstream, stage: str) -> None:
    """What does not end in time is cut and counted: an answer with its reason if none has begun, else a
    cut."""
    upstream = start_upstream()
    gateway = start_gateway(config(upstream.address, server={"drain_timeout": "200ms"}))
    head = [] if stage == "head" else [up.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")]
    upstream.script(*head, up.wait_close())
    with gateway.client() as client:
        client.send(request())
        upstream.wait_requests(1)
        if stage == "body":
            client.head()
        gateway.terminate()
        rest = client.stream.rest("the cut")
        assert rest == b"abc" if stage == "body" else rest == b"" or rest.startswith(b"HTTP/1.1 503 ")
        gateway.wait_stopped(cut=1)
    assert gateway.log[-1]["reason"] == "drain-cut"


def test_tunnel_is_cut_at_the_deadline(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    upstream = start_upstream()
    tables = config(upstream.address, server={"drain_timeout": "200ms"}, route={"upgrade": ["websocket"]})
    gateway = start_gateway(tables)
    switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    upstream.script(up.send(switch), up.wait_close())
    with gateway.client() as client:
        client.send(request(lines=("Connection: upgrade", "Upgrade: websocket")))
        assert client.response().status == 101
        gateway.terminate()
        client.ended()
        gateway.wait_stopped(cut=1)
    assert upstream.connections[0].ended.wait(10)


def test_second_signal_ends_it_at_once(start_upstream: StartUpstream, tmp_path: Path) -> None:
    """SIGTERM twice: whoever asks again does not want to wait. It ends, says so, and does not exit with 0."""
    upstream = start_upstream()
    upstream.script(up.wait_close())
    gateway = Gateway(config(upstream.address, server={"drain_timeout": "1h"}), tmp_path).start()
    try:
        with gateway.client() as client:
            client.send(request())
            upstream.wait_requests(1)
            gateway.terminate()
            gateway.wait_stderr("fastgate: draining")
            gateway.terminate()
            assert gateway.process is not None
            assert gateway.process.wait(10) == 1
            gateway.wait_stderr("fastgate: stopped")
            gateway.check_stderr()
    finally:
        gateway.kill()


def test_the_log_is_written_out(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    """Lines that wait in the buffer are written before the end."""
    upstream = start_upstream()
    gateway = start_gateway(config(upstream.address, access_log={"flush_interval": "1h", "buffer": "1MiB"}))
    with gateway.client() as client:
        for number in range(50):
            assert client.get(f"/{number}").status == 200
    gateway.stop()
    assert [record["path"] for record in gateway.log] == [f"/{number}" for number in range(50)]


def test_waiting_in_the_queue(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    """An exchange that waits for a connection was accepted: it is finished too."""
    upstream, gate = start_upstream(), threading.Event()
    gateway = start_gateway(
        config(upstream.address, upstream_options={"pool": {"max_connections": 1, "queue_timeout": "5s"}})
    )
    upstream.script(up.wait_for(gate), up.reply())
    with gateway.client() as first, gateway.client() as second:
        first.send(request(target="/first"))
        upstream.wait_requests(1)
        second.send(request(target="/second"))
        with gateway.client() as barrier:
            barrier.request(b"GET / HTTP/1.1\r\n\r\n")
        gateway.terminate()
        gateway.wait_stderr("fastgate: draining")
        gate.set()
        assert first.response().status == 200
        assert second.response().status == 200
        gateway.wait_stopped()
