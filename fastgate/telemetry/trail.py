"""What is kept of one exchange: the access log's line, its part in a trace, and each step that was noted."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

__all__ = ["ExchangeTrace", "Step", "read_trail"]

Kind = Literal["client", "mirror", "subrequest"]


class Step(Struct, frozen=True, kw_only=True):
    """One thing that happened. Times in nanoseconds.

    at: since the exchange began. took: how long, where that is known. step: `matched` (a route was looked
    for), `filter` and `plugin` (name, phase, verdict), `delayed`, `queued`, `unresolved`, `backoff`,
    `fallback`, `answering` (the answer's head goes to the client), `attempt`, `part` (a request of an
    aggregation: name, with its place where it is one of several; attempts, if more than one). Of an attempt:
    sent (since `at`: its request went out; None: it never did), connect (a connection was made for it), head
    (from `sent` to the answer's head).
    """

    step: str
    at: int
    took: int | None = None
    # -- of a filter or plugin
    name: str = ""
    phase: str = ""
    verdict: str = ""
    # -- of an attempt
    upstream: str = ""
    endpoint: str = ""
    sent: int | None = None
    connect: int | None = None
    head: int | None = None
    hedge: bool = False
    span: str = ""
    # -- of a part
    attempts: int | None = None
    # -- how it went
    status: int | None = None
    reason: str = ""
    detail: str = ""


class ExchangeTrace(Struct, frozen=True, kw_only=True):
    """One exchange. The fields up to `consumer` are those of the access log (docs/access-log.md); steps in
    the order in which they began. route_why: why that route, as `fastgate explain` tells it; filled in by who
    knows the configuration. asked: the request had asked for its trace."""

    time: str
    request_id: str
    listener: str
    client: str | None
    client_port: int | None
    method: str | None
    path: str | None
    query: str | None
    host: str | None
    protocol: str
    route: str | None
    upstream: str | None
    endpoint: str | None
    attempts: int
    status: int
    reason: str | None
    detail: str | None
    bytes_in: int
    bytes_out: int
    time_queue: float | None
    time_connect: float | None
    time_upstream_head: float | None
    time_total: float
    tls: str | None
    user_agent: str | None
    consumer: str | None
    kind: Kind = "client"
    secure: bool = False
    asked: bool = False
    start_ns: int  # Unix time
    total_ns: int
    trace_id: str = ""
    span_id: str = ""
    parent_id: str = ""
    steps_lost: int = 0
    steps: tuple[Step, ...] = ()
    route_why: tuple[str, ...] = ()


_decoder = msgspec.json.Decoder(ExchangeTrace)


def read_trail(blob: bytes) -> ExchangeTrace:
    """What the compiled core has kept."""
    trace = _decoder.decode(blob)
    return msgspec.structs.replace(trace, steps=tuple(sorted(trace.steps, key=lambda step: step.at)))
