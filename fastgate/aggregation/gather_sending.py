"""Requests of an aggregation in Python: what asks, who waits for the answer, and which answers are kept."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Any, Protocol

from fastgate import _core
from fastgate.aggregation.gather_part import Part
from fastgate.aggregation.part_cache import PartCache

__all__ = ["Ask", "KeptAnswers", "Sending"]


class Ask(Protocol):
    """Asks an upstream. It keeps ``timeout`` (seconds) itself, and gives at most ``limit`` bytes of the body.
    retry: in place of the upstream's own; None: that.

    Raises SubrequestError; LookupError for an upstream that is not there; ValueError for what is no request.
    When what it returns is cancelled, the request is given up.
    """

    def __call__(
        self,
        upstream: str,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        timeout: float,
        limit: int,
        retry: _core.RetryPolicy | None,
    ) -> Awaitable[_core.SubResponse]: ...


class Sending:
    """A request, for one part or for several that are the same. key: what is the same request; None: nothing
    is. response: what came, kept for those that follow."""

    def __init__(self, key: Hashable, future: asyncio.Future[_core.SubResponse]) -> None:
        self.key = key
        self.future = future
        self.lifetime = 0.0  # seconds for which the good answer is kept for other exchanges
        self.waiting: list[Part[Any]] = []
        self.response: _core.SubResponse | None = None


class KeptAnswers:
    """Good answers that other exchanges have left, or are left for them.

    told: what upstreams are told of the client's request by the gateway itself, and may stand in an answer.
    now: seconds.
    """

    def __init__(self, cache: PartCache, told: Hashable, now: Callable[[], float]) -> None:
        self._cache = cache
        self._told = told
        self._now = now

    def get(self, key: Hashable) -> _core.SubResponse | None:
        now_ns = self._now_ns()
        kept = self._cache.get((key, self._told), now_ns)
        return None if kept is None else _core.SubResponse(kept.status, kept.aged(now_ns), kept.body)

    def put(self, key: Hashable, response: _core.SubResponse, lifetime: float) -> None:
        """Unless it forbids that. lifetime: seconds."""
        self._cache.put(
            (key, self._told),
            response.status,
            [(name.lower(), value) for name, value in response.headers.items()],
            response.body,
            int(lifetime * 1e9),
            self._now_ns(),
            len(repr(key)),
        )

    def _now_ns(self) -> int:
        return int(self._now() * 1e9)
