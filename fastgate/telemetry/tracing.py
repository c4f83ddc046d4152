"""Sends the spans of sampled exchanges to their receiver, from a thread of its own: the loop never waits.

The compiled core keeps what waits, up to `tracing.queue`; what is beyond is dropped and counted there, so a
receiver that is away costs nothing but spans.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from fastgate import _core
from fastgate.config.model import Secret, Tracing
from fastgate.telemetry.trail import read_trail

if TYPE_CHECKING:
    import httpx

__all__ = ["Exporter"]

NS: Final = 1e9
# OTLP 1.x, "Failures": those that may succeed when sent again.
_RETRYABLE: Final = frozenset((429, 502, 503, 504))
TRIES: Final = 5
FIRST_PAUSE: Final = 0.5  # seconds; doubled each time, by chance up to a half shorter
MOST_PAUSE: Final = 30.0
SLICE: Final = 32  # exchanges that are made into spans at once, before others may have the interpreter

log: Final = logging.getLogger("fastgate.tracing")


class _Refused(Exception):
    """An export that did not succeed. pause: what the receiver asks to be spared, in seconds."""

    def __init__(self, why: str, *, again: bool = False, pause: float = 0) -> None:
        super().__init__(why)
        self.again = again
        self.pause = pause


class Exporter:
    """From start() to end(). trails: of the worker. routes: the path pattern of each route, by name."""

    def __init__(self, trails: _core.Trails, config: Tracing, routes: Mapping[str, str]) -> None:
        self._trails = trails
        self._config = config
        self._routes = routes
        self._ending = threading.Event()
        self._end_by = 0.0  # of the monotonic clock
        self._last: list[bytes] = []
        self._troubled = False
        self._thread = threading.Thread(target=self._run, name="tracing", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self, timeout: float) -> None:
        """What there is now is its last: it is sent within so many seconds, or is lost, and counted. Does not
        wait for that. What comes later is another's."""
        self._last = self._trails.take_spans()
        self._end_by = time.monotonic() + timeout
        self._ending.set()

    def join(self) -> None:
        """Behind `end`: waits for the thread, as long as it may take."""
        self._thread.join(max(0.0, self._end_by - time.monotonic()) + 1)

    # -- the thread

    def _run(self) -> None:
        import httpx

        from fastgate.telemetry.otlp import resource_of

        config = self._config
        self._resource = resource_of(config.service_name)
        headers = {
            name: value.reveal() if isinstance(value, Secret) else value
            for name, value in config.headers.items()
        }
        headers |= {"Content-Type": "application/x-protobuf", "User-Agent": "fastgate"}
        with httpx.Client(headers=headers, trust_env=False, timeout=config.timeout / NS) as client:
            while not self._ending.wait(config.flush_interval / NS):
                self._flush(client, self._trails.take_spans())
            self._flush(client, self._last)

    def _flush(self, client: httpx.Client, blobs: list[bytes]) -> None:
        for start in range(0, len(blobs), self._config.batch):
            batch = blobs[start : start + self._config.batch]
            try:
                rejected = self._send(client, batch)
            except Exception as error:  # noqa: BLE001  # of whatever kind: told, and the next batch has its chance
                self._trails.spans_lost += len(batch)
                self._tell(error)
            else:
                self._trails.spans_lost += min(rejected, len(batch))
                self._trails.spans_exported += max(0, len(batch) - rejected)

    def _send(self, client: httpx.Client, batch: list[bytes]) -> int:
        """Returns how many spans the receiver did not take, of a batch that it took. Raises _Refused."""
        body = self._encode(batch)
        pause = FIRST_PAUSE
        for tries in range(1, TRIES + 1):
            try:
                rejected = self._post(client, body)
            except _Refused as refusal:
                if not refusal.again or tries == TRIES:
                    raise
                self._tell(refusal)
                wait = max(refusal.pause, pause * random.uniform(0.5, 1))  # against herds
                pause = min(MOST_PAUSE, 2 * pause)
                if self._ending.is_set():
                    if time.monotonic() + wait > self._end_by:
                        raise
                    time.sleep(wait)
                else:
                    self._ending.wait(wait)
            else:
                if self._troubled:
                    self._troubled = False
                    log.warning("spans are exported to %s again", self._config.endpoint)
                return rejected
        raise AssertionError("the last try returns or raises")

    def _encode(self, batch: list[bytes]) -> bytes:
        from fastgate.telemetry.otlp import request_of

        # Messages that are encoded one behind the other are one message with all their parts.
        parts: list[bytes] = []
        for start in range(0, len(batch), SLICE):
            traces = map(read_trail, batch[start : start + SLICE])
            parts.append(request_of(traces, self._resource, self._routes).SerializeToString())
            time.sleep(0)
        return b"".join(parts)

    def _post(self, client: httpx.Client, body: bytes) -> int:
        import httpx

        try:
            answer = client.post(self._config.endpoint, content=body)
        except httpx.TransportError as error:
            raise _Refused(str(error) or type(error).__name__, again=True) from error
        if answer.status_code != 200:
            raise _Refused(
                f"status {answer.status_code}",
                again=answer.status_code in _RETRYABLE,
                pause=_seconds(answer.headers.get("Retry-After", "")),
            )
        return _rejected(answer.content)

    def _tell(self, error: Exception) -> None:
        """Once, until it goes well again."""
        if not self._troubled:
            self._troubled = True
            log.error("spans can't be exported to %s: %s", self._config.endpoint, error)


def _seconds(text: str) -> float:
    return min(MOST_PAUSE, float(text)) if text.isdecimal() and len(text) < 10 else 0.0


def _rejected(body: bytes) -> int:
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    try:
        return int(ExportTraceServiceResponse.FromString(body).partial_success.rejected_spans)
    except DecodeError:
        return 0  # a receiver that says OK in its own words
