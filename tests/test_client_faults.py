"""Bad days of clients: they cost the gateway nothing that stays, and the upstream nothing that looks
whole."""

from __future__ import annotations

import random
import threading
from contextlib import ExitStack
from typing import Any

import pytest
from support import upstream as up
from support.client import Client, chunked, request
from support.faults import FaultProxy, Faults
from support.gateway import Gateway, config
from support.handlers import pattern
from support.upstream import Upstream


def gateway_config(upstream: str) -> dict[str, Any]:
    return config(
        upstream,
        listener={
            "timeouts": {"head": "500ms", "body_idle": "500ms", "keep_alive": "5s", "write_idle": "500ms"}
        },
    )


@pytest.fixture(autouse=True)
def nothing_stays(gateway: Gateway, upstream: Upstream) -> Any:
    """Descriptors are as many after each test as before; one pooled connection may stand or have gone."""
    before = gateway.fds()
    yield
    gateway.wait_fds(before + len(upstream.open) + 1)
    with gateway.client() as client:
        assert client.get("/fine").json()["target"] == "/fine"


CHUNKED = request("POST", lines=("Transfer-Encoding: chunked",))
STAGES = {
    "at once": b"",
    "in the method": b"GE",
    "in the target": b"GET /a",
    "in the version": b"GET / HTTP/1.",
    "in a field": b"GET / HTTP/1.1\r\nHos",
    "before the empty line": b"GET / HTTP/1.1\r\nHost: a\r\n",
    "before the last LF": b"GET / HTTP/1.1\r\nHost: a\r\n\r",
    "before the body": request("POST", lines=("Content-Length: 10",)),
    "in the body": request("POST", lines=("Content-Length: 10",)) + b"hello",
    "in a chunk size": CHUNKED + b"5",
    "in a chunk": CHUNKED + b"5\r\nhel",
    "between chunks": CHUNKED + b"5\r\nhello\r\n",
    "in the last chunk": CHUNKED + b"5\r\nhello\r\n0\r\n",
    "in the trailers": CHUNKED + b"5\r\nhello\r\n0\r\nA: b\r\n",
}


@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
@pytest.mark.parametrize("stage", STAGES)
def test_leaves(gateway: Gateway, upstream: Upstream, stage: str, how: str) -> None:
    """Nothing whole goes upstream; what was begun there is cut."""
    mark = upstream.mark()
    with gateway.client() as client:
        client.send(STAGES[stage])
        if "body" in stage or "chunk" in stage or "trailers" in stage:
            mark.wait(1)
        if how == "close":
            client.close()
        elif how == "reset":
            client.reset()
        else:
            client.half_close()
            client.stream.rest("the end")
    for found in mark.requests:
        connection = next(c for c in upstream.connections if found in c.requests)
        assert connection.ended.wait(10)
    assert not any(found.complete for found in mark.requests)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_leaves_in_the_answer(gateway: Gateway, upstream: Upstream, how: str) -> None:
    mark, since = upstream.mark(), gateway.mark()
    upstream.script(up.reply(200, b"x" * 50_000_000))
    with gateway.client(receive_buffer=4096) as client:
        client.send(request())
        client.head()
        client.reset() if how == "reset" else client.close()
    connection = next(c for c in upstream.connections if mark.wait(1)[0] in c.requests)
    assert connection.ended.wait(10)
    assert gateway.wait_log(since)[0]["reason"] == "client-gone"


def test_leaves_with_pipelined_requests(gateway: Gateway, upstream: Upstream) -> None:
    """What waits behind the one in flight is dropped."""
    gate, mark = threading.Event(), upstream.mark()
    upstream.script(up.wait_for(gate), up.reply())
    with gateway.client() as client:
        client.send(request(target="/1") + request(target="/2") * 50)
        mark.wait(1)
    with gateway.client() as barrier:
        barrier.get("/barrier")
    gate.set()
    assert "/2" not in [found.target for found in mark.requests]


@pytest.mark.parametrize("kind", ["head", "body", "chunks"])
def test_trickles_and_is_served(gateway: Gateway, upstream: Upstream, kind: str) -> None:
    """A byte at a time, but within the deadlines."""
    body = pattern(200)
    data = {
        "head": request(target="/t", lines=("X: " + "y" * 100,)),
        "body": request("POST", "/t", body=body),
        "chunks": request("POST", "/t", chunks=[body[:7], body[7:]]),
    }[kind]
    with gateway.client() as client:
        client.send_pieces(*(data[at : at + 1] for at in range(len(data))))
        assert client.response().json()["target"] == "/t"


def test_many_slow_heads_do_not_stop_others(gateway: Gateway, upstream: Upstream) -> None:
    """Slowloris with 200 connections: others are served meanwhile, and all of them end by the deadline."""
    with ExitStack() as stack:
        slow = [stack.enter_context(gateway.client()) for _ in range(200)]
        for client in slow:
            client.send(b"GET / HTTP/1.1\r\nX: ")
        with gateway.client() as client:
            for _ in range(20):
                assert client.get().status == 200
        for client in slow:
            client.stream.rest("the end")


def test_many_that_do_not_read(gateway: Gateway, upstream: Upstream) -> None:
    since = gateway.mark()
    with ExitStack() as stack:
        clients = [stack.enter_context(gateway.client(receive_buffer=4096)) for _ in range(10)]
        for client in clients:
            upstream.script(up.reply(200, b"x" * 10_000_000))
            client.send(request())
        records = gateway.wait_log(since, 10)
        assert {record["reason"] for record in records} == {"client-not-reading"}


def test_reads_nothing_and_pipelines(gateway: Gateway, upstream: Upstream) -> None:
    """Requests without end and no answer taken: the gateway stops reading, its memory stays bounded, it
    hangs up."""
    base = gateway.memory()
    with gateway.client(receive_buffer=4096, timeout=2) as client:
        block, sent = request(target="/p" + "x" * 1000) * 100, 0
        try:
            while sent < 300_000_000 and client.try_send(block):
                sent += len(block)
        except TimeoutError:
            pass
        assert sent < 300_000_000, "the gateway reads without end"
    assert gateway.memory("VmHWM") - base < 32 << 20


def test_resets_through_the_fault_proxy(gateway: Gateway, upstream: Upstream) -> None:
    """RST at every 7th byte of a conversation, on the way there."""
    data = request("POST", "/f", body=b"hello") + request("POST", "/f", chunks=[b"abc", b"def"])
    for at in range(1, len(data), 7):
        with (
            FaultProxy(gateway.address, request=Faults(reset_at=at)) as proxy,
            Client(("127.0.0.1", proxy.port)) as client,
        ):
            client.try_send(data)
            client.stream.rest("the end")


def test_connects_and_leaves(gateway: Gateway, upstream: Upstream) -> None:
    for _ in range(200):
        with gateway.client():
            pass


def test_random_bytes(gateway: Gateway, upstream: Upstream) -> None:
    """Seeded noise, and good requests with one byte changed: an answer or an end, never a hang, never two
    readings:
    the upstream's strict reader fails the test on anything that it would have to guess."""
    rnd = random.Random(9112)
    good = [
        request(target="/a?b", lines=("A: b", "Cookie: c=d")),
        request("POST", "/p", body=b"hello"),
        request("POST", "/c", lines=("Transfer-Encoding: chunked",))
        + chunked(b"hello", b"x", trailers=b"T: 1\r\n"),
    ]
    for _ in range(400):
        data = bytearray(rnd.choice(good))
        if rnd.random() < 0.2:
            data = bytearray(rnd.randbytes(rnd.randrange(1, 200)))
        else:
            for _ in range(rnd.randrange(1, 3)):
                at = rnd.randrange(len(data))
                kind = rnd.randrange(3)
                if kind == 0:
                    data[at] = rnd.randrange(256)
                elif kind == 1:
                    data[at:at] = bytes([rnd.choice(b"\r\n \t:;,\x00\x7f\xff0A")])
                else:
                    del data[at]
        with gateway.client() as client:
            client.try_send(bytes(data))
            client.half_close()
            client.stream.rest("the end")
