"""A slow reader on either side bounds memory: 1 GiB each way through a gateway whose memory hardly moves.

The bound: 150 MiB resident at the most, with two such streams at once, of which the interpreter and the loop
take
about 40.
"""

from __future__ import annotations

import threading
from typing import Any

import pytest
from support import upstream as up
from support.client import request
from support.gateway import Gateway, config
from support.handlers import BLOCK, Flow, drain_body, stream_body
from support.upstream import Upstream

GIB = 1 << 30
BOUND = 150 << 20


def gateway_config(upstream: str) -> dict[str, Any]:
    return config(
        upstream,
        listener={"limits": {"body": "unlimited"}, "timeouts": {"body_idle": "30s", "write_idle": "30s"}},
    )


@pytest.fixture(scope="module")
def module_upstream() -> Any:
    """Keeps no record: a gibibyte of it would be the harness's own memory."""
    with Upstream(record=False, timeout=30) as upstream:
        yield upstream


@pytest.mark.parametrize("size", [GIB])
def test_download(gateway: Gateway, upstream: Upstream, size: int) -> None:
    """The client stops reading after 64 MiB; the upstream must come to a stand, then all of it arrives."""
    flow = Flow()
    upstream.script(stream_body(size, flow))
    with gateway.client(record=False, timeout=30) as client:
        client.send(request())
        assert client.head().get("content-length") == str(size)
        client.stream.skip_length(64 << 20, "the first part")
        moved = flow.stalled(least=64 << 20)
        assert moved < 128 << 20, "the upstream was not stopped"
        assert gateway.memory() < BOUND
        client.stream.skip_length(size - (64 << 20), "the rest")
        assert flow.done.wait(10)
    assert gateway.memory("VmHWM") < BOUND


@pytest.mark.parametrize("size", [GIB])
def test_upload(gateway: Gateway, upstream: Upstream, size: int) -> None:
    """The upstream reads nothing at first; the client must come to a stand, then all of it arrives."""
    flow, sent, resume = Flow(), Flow(), threading.Event()
    upstream.script(drain_body(size, flow, resume), up.reply())
    with gateway.client(record=False, timeout=30) as client:
        client.send(request("POST", lines=(f"Content-Length: {size}",)))

        def send() -> None:
            for _ in range(size // len(BLOCK)):
                view = memoryview(BLOCK)
                while view:
                    count = client.sock.send(view)
                    sent.add(count)
                    view = view[count:]

        thread = threading.Thread(target=send)
        thread.start()
        moved = sent.stalled(least=1)
        assert moved < 64 << 20, "the client was not stopped"
        assert gateway.memory() < BOUND
        resume.set()
        thread.join(30)
        assert client.response("POST").status == 200
    assert flow.moved == size
    assert gateway.memory("VmHWM") < BOUND


def test_chunked_both_ways(gateway: Gateway, upstream: Upstream) -> None:
    """256 MiB in chunks up and down at once, each byte counted."""
    total, chunk = 256 << 20, b"%x\r\n%b\r\n" % (len(BLOCK), BLOCK)

    def send_chunks(connection: up.Connection) -> None:
        for _ in range(total // len(BLOCK)):
            connection.send(chunk)

    def turn_round(connection: up.Connection) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer = threading.Thread(target=send_chunks, args=(connection,))
        writer.start()
        connection.read_body(keep=False)
        writer.join(30)
        connection.send(b"0\r\n\r\n")

    upstream.script(turn_round)
    with gateway.client(record=False, timeout=30) as client:

        def send() -> None:
            client.sock.sendall(request("POST", lines=("Transfer-Encoding: chunked",)))
            for _ in range(total // len(BLOCK)):
                client.sock.sendall(chunk)
            client.sock.sendall(b"0\r\n\r\n")

        thread = threading.Thread(target=send)
        thread.start()
        response = client.response("POST", keep=False)
        thread.join(30)
        assert response.length == total
    assert gateway.memory("VmHWM") < BOUND


def test_many_slow_readers(gateway: Gateway, upstream: Upstream) -> None:
    """50 clients that read nothing of 20 MiB each: what the gateway holds for one is about a buffer, not the
    body."""
    base, flows, clients = gateway.memory(), [], []
    for _ in range(50):
        flow = Flow()
        upstream.script(stream_body(20 << 20, flow))
        client = gateway.client(record=False, receive_buffer=65536)
        client.send(request())
        client.head()
        flows.append(flow)
        clients.append(client)
    for flow in flows:
        flow.stalled(quiet=0.05)
    assert gateway.memory() - base < 50 << 20, "a mebibyte for each is too much"
    for client in clients:
        client.close()
    upstream.wait("abandoned attempts", lambda: len(upstream.open) <= 1)
