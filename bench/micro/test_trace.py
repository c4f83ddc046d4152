"""Traces: what a request pays that is not sampled. Its fields are looked through, a traceparent is read or
one is made, and written where it is ours to write.

The loop runs inside the compiled module; a round is ROUNDS requests, with what a route without [tracing] pays
beside it. `python -m pytest bench/micro --benchmark-only`.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bench.model import BROWSER_HEADERS
from fastgate import _core
from fastgate.config import loads
from fastgate.server.tracing import trace_policy

ROUNDS = 1000
HEAD = (
    b"GET /small HTTP/1.1\r\nHost: api.example.com\r\n"
    + "".join(f"{name}: {value}\r\n" for name, value in BROWSER_HEADERS).encode()
)
PARENT = b"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00\r\n"
STATE = b"tracestate: rojo=00f067aa0ba902b7,congo=t61rcWkgMzE\r\n"
TRACING = '[tracing]\nendpoint = "http://127.0.0.1:9"\nsample = 0.0\ntrust = "all"\n'


def listener(tracing: str) -> _core.Listener:
    config = loads('[[listeners]]\nbind = ":0"\n' + tracing).config
    return _core.Listener(
        name="bench",
        table=_core.RouteTable([]),
        routes=(),
        request_line=8192,
        header_bytes=32768,
        header_count=100,
        body_limit=-1,
        head_ns=1,
        body_idle_ns=1,
        keep_alive_ns=1,
        write_idle_ns=1,
        body_min_rate=0,
        trusted=None,
        proxy_protocol=False,
        forwarded=(),
        request_id="always-new",
        half_close="abandon",
        tracing=trace_policy(config),
    )


@pytest.mark.parametrize(
    ("tracing", "fields", "written"),
    [("", PARENT, 0), (TRACING, b"", 70), (TRACING, PARENT, 0), (TRACING, PARENT + STATE, 0)],
    ids=["off", "begins-here", "goes-on", "goes-on-with-state"],
)
def test_unsampled(benchmark: Any, tracing: str, fields: bytes, written: int) -> None:
    loop = asyncio.new_event_loop()
    counters = _core.Counters([], [], 1)
    worker = _core.Worker(loop, None, counters, max_connections=0, max_per_address=0, flush_interval=10**9)
    try:
        head = HEAD + fields + b"\r\n"
        assert benchmark(_core.measure_trace, worker, listener(tracing), head, ROUNDS) == written
    finally:
        worker.close()
        loop.close()
