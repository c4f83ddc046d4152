"""Exchanges as OTLP spans, with the names of OpenTelemetry's semantic conventions for HTTP.

A client's exchange is a SERVER span, each of its attempts a CLIENT span under it; the attempts of a mirror's
copy and of a subrequest are CLIENT spans under the exchange that they are for.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping
from typing import Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from fastgate.telemetry.trail import ExchangeTrace, Step
from fastgate.versions import versions

__all__ = ["request_of", "resource_of"]

Value = str | int | float | bool
_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"))
# Flags of a span: what is known of its trace-flags, and that it is known whether the parent is remote.
_SAMPLED: Final = 0x01
_HAS_IS_REMOTE: Final = 0x100
_IS_REMOTE: Final = 0x200


def resource_of(service_name: str) -> Resource:
    found: dict[str, Value] = {
        "service.name": service_name,
        "service.version": versions()["fastgate"],
        "host.name": socket.gethostname(),
        "process.pid": os.getpid(),
    }
    return Resource(attributes=_attributes(found))


def request_of(
    traces: Iterable[ExchangeTrace], resource: Resource, routes: Mapping[str, str]
) -> ExportTraceServiceRequest:
    """routes: the path pattern of each route by its name, "" where it has none."""
    spans = [span for trace in traces for span in _spans(trace, routes)]
    scope = InstrumentationScope(name="fastgate", version=versions()["fastgate"])
    return ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(resource=resource, scope_spans=[ScopeSpans(scope=scope, spans=spans)])]
    )


def _spans(trace: ExchangeTrace, routes: Mapping[str, str]) -> list[Span]:
    attempts = [step for step in trace.steps if step.step == "attempt"]
    spans = [_attempt(trace, step, number) for number, step in enumerate(attempts)]
    return [_server(trace, routes), *spans] if trace.kind == "client" else spans


def _server(trace: ExchangeTrace, routes: Mapping[str, str]) -> Span:
    pattern = routes.get(trace.route or "", "")
    method = _method(trace)
    found: dict[str, Value | None] = {
        **_request(trace),
        "http.route": pattern,
        "url.scheme": "https" if trace.secure else "http",
        "url.path": trace.path,
        "url.query": trace.query,
        "server.address": trace.host,
        "client.address": trace.client,
        "user_agent.original": trace.user_agent,
        "http.request.body.size": trace.bytes_in,
        "http.response.body.size": trace.bytes_out,
        "http.response.status_code": trace.status or None,
        "error.type": _error(trace.status, trace.reason, 500),
        "fastgate.reason": trace.reason,
        "fastgate.detail": trace.detail,
        "fastgate.listener": trace.listener,
        "fastgate.route": trace.route,
        "fastgate.upstream": trace.upstream,
        "fastgate.attempts": trace.attempts,
        "fastgate.consumer": trace.consumer,
    }
    span = _span(trace, trace.span_id, trace.parent_id, _IS_REMOTE if trace.parent_id else 0)
    span.name = f"{method} {pattern}" if pattern else method
    span.kind = Span.SPAN_KIND_SERVER
    span.start_time_unix_nano = trace.start_ns
    span.end_time_unix_nano = trace.start_ns + trace.total_ns
    span.attributes.extend(_attributes(found))
    if _error(trace.status, trace.reason, 500):
        span.status.CopyFrom(Status(code=Status.STATUS_CODE_ERROR, message=trace.reason or ""))
    for step in trace.steps:
        if step.step == "attempt":
            _event(span, trace.start_ns + step.at, "endpoint chosen", {"fastgate.endpoint": step.endpoint})
        else:
            _event(span, trace.start_ns + step.at, step.step, _step(step))
    return span


def _attempt(trace: ExchangeTrace, step: Step, number: int) -> Span:
    address, port = _address(step.endpoint)
    found: dict[str, Value | None] = {
        **_request(trace),
        "server.address": address,
        "server.port": port,
        "network.peer.address": address,
        "network.peer.port": port,
        "http.request.resend_count": number or None,
        "http.response.status_code": step.status,
        "error.type": _error(step.status or 0, step.reason, 400),
        "fastgate.detail": step.detail,
        "fastgate.upstream": step.upstream,
        "fastgate.hedge": step.hedge or None,
        "fastgate.kind": trace.kind if trace.kind != "client" else None,
    }
    span = _span(trace, step.span or os.urandom(8).hex(), trace.span_id, 0)
    span.name = _method(trace)
    span.kind = Span.SPAN_KIND_CLIENT
    start = trace.start_ns + step.at
    span.start_time_unix_nano = start
    span.end_time_unix_nano = start + (step.took or 0)
    span.attributes.extend(_attributes(found))
    if _error(step.status or 0, step.reason, 400):
        span.status.CopyFrom(Status(code=Status.STATUS_CODE_ERROR, message=step.reason))
    if step.sent is not None:
        if step.connect is not None:
            _event(span, start + step.connect, "connected", {})
        _event(span, start + step.sent, "request sent", {})
        if step.head is not None:
            _event(span, start + step.sent + step.head, "response head", {})
    return span


def _span(trace: ExchangeTrace, span_id: str, parent_id: str, remote: int) -> Span:
    return Span(
        trace_id=bytes.fromhex(trace.trace_id),
        span_id=bytes.fromhex(span_id),
        parent_span_id=bytes.fromhex(parent_id),
        flags=_SAMPLED | _HAS_IS_REMOTE | remote,
    )


def _request(trace: ExchangeTrace) -> dict[str, Value | None]:
    original = trace.method if trace.method not in _METHODS else None
    return {
        "http.request.method": "_OTHER" if original else trace.method,
        "http.request.method_original": original,
        "network.protocol.name": "http",
        "network.protocol.version": trace.protocol.removeprefix("HTTP/"),
        "fastgate.request_id": trace.request_id,
    }


def _method(trace: ExchangeTrace) -> str:
    # The conventions' word in a name for methods that are not known.
    return trace.method if trace.method in _METHODS and trace.method else "HTTP"


def _error(status: int, reason: str | None, least: int) -> str | None:
    """What error.type says: the reason code, or the status of an answer that counts as an error."""
    if status >= least or status == 0:
        return reason or (str(status) if status else None)
    return None


def _address(endpoint: str) -> tuple[str, int | None]:
    host, colon, port = endpoint.rpartition(":")
    if not colon or not port.isdecimal():
        return endpoint, None  # a Unix socket, or an application
    return host.strip("[]"), int(port)


def _step(step: Step) -> dict[str, Value | None]:
    return {
        "fastgate.name": step.name,
        "fastgate.phase": step.phase,
        "fastgate.verdict": step.verdict,
        "fastgate.reason": step.reason,
        "fastgate.detail": step.detail,
        "fastgate.duration": None if step.took is None else step.took / 1e9,
    }


def _event(span: Span, at: int, name: str, found: Mapping[str, Value | None]) -> None:
    span.events.append(Span.Event(time_unix_nano=at, name=name, attributes=_attributes(found)))


def _attributes(found: Mapping[str, Value | None]) -> list[KeyValue]:
    """Of those that say something."""
    return [KeyValue(key=key, value=_value(value)) for key, value in found.items() if value not in (None, "")]


def _value(value: Value | None) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    return AnyValue(string_value=value or "")
