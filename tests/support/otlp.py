"""A receiver of OTLP over HTTP: it reads what it is sent as protobuf, and keeps the spans."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

TIMEOUT = 15.0


class Receiver:
    """A context manager. `statuses`: of the next answers, 200 once it is empty. `requests`: (header fields,
    names in lower case, and message) of each that was answered with 200; `refused`: how many were not."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], ExportTraceServiceRequest]] = []
        self.statuses: deque[int] = deque()
        self.begun = 0  # requests that came, answered or not
        self.refused = 0
        self.rejects = 0  # spans that the answer says were not taken
        self.hold: threading.Event | None = None  # no answer before it is set
        self._changed = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                receiver._take(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.hold is not None:
            self.hold.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def _take(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        with self._changed:
            self.begun += 1
            self._changed.notify_all()
        if self.hold is not None:
            self.hold.wait(TIMEOUT)
        status = self.statuses.popleft() if self.statuses else 200
        answer = b""
        with self._changed:
            if status == 200 and handler.path == "/v1/traces":
                message = ExportTraceServiceRequest.FromString(body)
                self.requests.append(({k.lower(): v for k, v in handler.headers.items()}, message))
                response = ExportTraceServiceResponse()
                response.partial_success.rejected_spans = self.rejects
                answer = response.SerializeToString()
            else:
                self.refused += 1
            self._changed.notify_all()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/x-protobuf")
        handler.send_header("Content-Length", str(len(answer)))
        handler.end_headers()
        handler.wfile.write(answer)

    @property
    def spans(self) -> list[Span]:
        return [
            span
            for _, message in list(self.requests)
            for resource in message.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def trace(self, trace_id: str) -> list[Span]:
        """Its spans, by their start."""
        found = [span for span in self.spans if span.trace_id.hex() == trace_id]
        return sorted(found, key=lambda span: span.start_time_unix_nano)

    def wait(self, ready: Callable[[], bool], what: str) -> None:
        with self._changed:
            if not self._changed.wait_for(ready, TIMEOUT):
                raise AssertionError(f"within {TIMEOUT} s the receiver did not have {what}")

    def wait_trace(self, trace_id: str, count: int) -> list[Span]:
        self.wait(lambda: len(self.trace(trace_id)) >= count, f"{count} spans of {trace_id}")
        return self.trace(trace_id)


def attributes(holder: Span | Span.Event | Any) -> dict[str, Any]:
    return {each.key: _plain(each) for each in holder.attributes}


def _plain(each: KeyValue) -> Any:
    value: AnyValue = each.value
    return getattr(value, value.WhichOneof("value") or "string_value")
