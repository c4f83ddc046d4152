"""A worker's traces: what is kept of exchanges, and the thread that exports the sampled ones."""

from __future__ import annotations

import asyncio
from typing import Final

from msgspec.structs import replace

from fastgate import _core
from fastgate.config import Config, model
from fastgate.telemetry.asking import Asked
from fastgate.telemetry.tracing import Exporter
from fastgate.telemetry.trail import ExchangeTrace, read_trail

__all__ = ["Traces", "trace_policy"]

NS: Final = 1e9
LAST_EXPORT: Final = 3.0  # seconds, at the end or when another receiver is configured


def trace_policy(config: Config) -> _core.TracePolicy | None:
    """Which requests are traced; None: none is, and a request pays nothing for it."""
    tracing, why = config.tracing, config.why
    if tracing is None and not why.keep and why.key is None:
        return None
    key = why.key.reveal() if isinstance(why.key, model.Secret) else why.key
    return _core.TracePolicy(
        propagate=tracing is not None,
        trust="none" if tracing is None else tracing.trust,
        sample=0 if tracing is None else tracing.sample,
        keep=why.keep,
        asked=None if key is None else Asked(key, why.key_lifetime / NS),
    )


class Traces:
    """Follows each configuration; close() when the worker has drained."""

    def __init__(self, worker: _core.Worker) -> None:
        self._worker = worker
        self._trails: _core.Trails | None = None
        self._exporter: Exporter | None = None
        self._exported: tuple[model.Tracing, dict[str, str]] | None = None
        self._closing: set[asyncio.Future[None]] = set()

    def follow(self, config: Config) -> None:
        """Puts it in force; what is kept stays."""
        tracing, room = config.tracing, config.why.memory
        # What the log hides is hidden here too.
        lines = _core.AccessLog(replace(config.access_log, enabled=False, format="json", headers=()))
        queue = 0 if tracing is None else tracing.queue
        if self._trails is not None:
            self._trails.follow(lines, room, queue)
        elif room or tracing is not None:
            self._trails = _core.Trails(lines, room, queue)
            self._worker.trail_to(self._trails)
        exported = None if tracing is None else (tracing, _patterns(config))
        if exported == self._exported:
            return
        self._end_exporter()
        self._exported = exported
        if exported is not None and self._trails is not None:
            self._exporter = Exporter(self._trails, *exported)
            self._exporter.start()

    def _end_exporter(self) -> None:
        exporter, self._exporter = self._exporter, None
        if exporter is not None:
            exporter.end(LAST_EXPORT)  # now: what comes next is its successor's
            closing = asyncio.ensure_future(asyncio.to_thread(exporter.join))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Exports what is left, for a few seconds at most."""
        self._end_exporter()
        if self._closing:
            await asyncio.wait(tuple(self._closing))

    # -- what is kept

    def find(self, request_id: str) -> ExchangeTrace | None:
        """The last one with that id."""
        blob = None if self._trails is None else self._trails.find(request_id)
        return None if blob is None else read_trail(blob)

    def failures(self, limit: int) -> list[ExchangeTrace]:
        """The last ones, the latest first."""
        blobs = [] if self._trails is None else self._trails.failures(limit)
        return latest(list(map(read_trail, blobs)), limit)


def latest(traces: list[ExchangeTrace], limit: int) -> list[ExchangeTrace]:
    return sorted(traces, key=lambda trace: -trace.start_ns)[:limit]


def _patterns(config: Config) -> dict[str, str]:
    return {
        route.name: route.match.path or route.match.prefix or ""
        for route in config.routes
        if route.match.path or route.match.prefix
    }
