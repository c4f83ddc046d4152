"""Aggregations in Python without a socket: services that answer as told, in a time of their own.

async def test_page():
    services = FakeServices("users", "orders")
    services["users"].reply(json={"name": "ann"})
    services["orders"].fail("hang")
    async with services.gather(timeout=2.0) as g:
        page = await order_page(fake_exchange(services), g, id=7)
"""

from __future__ import annotations

import asyncio
import heapq
import inspect
import itertools
import math
from collections.abc import Coroutine, Mapping
from typing import Any, Final, cast
from urllib.parse import parse_qsl

import orjson

from fastgate import _core
from fastgate.aggregation.gather import Gather
from fastgate.aggregation.part_cache import PartCache
from fastgate.plugins import Exchange, Headers, Response, SubResponse
from fastgate.testing.client import Fields, HeaderInput
from fastgate.testing.upstreams import Planned, Seen, _Plan

__all__ = ["FakeService", "FakeServices", "fake_exchange"]

_REASONS: Final = {
    "refuse": "connect-refused",
    "reset": "upstream-reset",
    "truncate": "upstream-truncated",
}


class FakeService(Planned):
    """One of ``FakeServices``: ``reply``, ``handle``, ``fail``, ``requests``, as of a ``FakeUpstream``. A
    "hang" ends with its part's time; a "delay" is in the services' time."""

    def _refuse(self) -> None:
        self._plan(_Plan(self._standing.handler, None, "refuse"))


class FakeServices:
    """Upstreams by name. Their time stands still as long as anything can go on without it; nothing waits in
    real time."""

    def __init__(self, *names: str) -> None:
        self._services = {name: FakeService(name) for name in names}
        self._time = _Time()
        self._cache = PartCache()

    def __getitem__(self, name: str) -> FakeService:
        try:
            return self._services[name]
        except KeyError:
            raise LookupError(f'no upstream is named "{name}"') from None

    def now(self) -> float:
        """Seconds; it begins with 0."""
        return self._time.now

    def gather(self, **options: Any) -> Gather:
        """As ``exchange.gather``. Answers with ``cache`` are kept from block to block."""
        return Gather(self.ask, self.now, cache=self._cache, **options)

    def ask(
        self,
        upstream: str,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        timeout: float,
        limit: int,
        retry: _core.RetryPolicy | None = None,
    ) -> Coroutine[Any, Any, SubResponse]:
        """What a ``Gather`` asks by. Tries are the gateway's: there is one here, whatever ``retry`` says."""
        seen = Seen(method, path, Fields(headers.items()), body)
        return self._answer(self[upstream], seen, timeout, limit)

    async def _answer(self, service: FakeService, seen: Seen, timeout: float, limit: int) -> SubResponse:  # noqa: ASYNC109  # in its own time
        plan = service._next_plan()
        if plan.fault != "refuse":
            service._saw(seen)
        seconds = {"hang": math.inf, "delay": plan.seconds}.get(plan.fault or "", 0.0)
        await self._time.sleep(min(seconds, timeout))
        if seconds >= timeout:
            raise _core.SubrequestError("total-timeout")
        if plan.fault in _REASONS:
            raise _core.SubrequestError(_REASONS[plan.fault])
        made = plan.handler(seen)
        answer = await made if inspect.isawaitable(made) else made
        body = b"" if seen.method == "HEAD" else answer.body
        return SubResponse(answer.status, answer.headers.fields, body[:limit], len(body) > limit)


class _Time:
    """Goes on to the next moment for which somebody waits, when the loop has nothing else to do."""

    _QUIET: Final = 16  # turns of the loop in which nobody new has come to wait

    def __init__(self) -> None:
        self.now = 0.0
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._quiet = 0
        self._turning = False

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (self.now + seconds, next(self._order), future))
        self._quiet = 0
        if not self._turning:
            self._turning = True
            asyncio.get_running_loop().call_soon(self._turn)
        await future

    def _turn(self) -> None:
        while self._waiting and self._waiting[0][2].done():
            heapq.heappop(self._waiting)  # it was given up
        if not self._waiting:
            self._turning = False
            return
        self._quiet += 1
        if self._waiting[0][0] <= self.now or self._quiet > self._QUIET:
            due, _, future = heapq.heappop(self._waiting)
            self.now = max(self.now, due)
            self._quiet = 0
            future.set_result(None)
        asyncio.get_running_loop().call_soon(self._turn)


class _FakeRequest:
    def __init__(self, method: str, target: str, headers: HeaderInput, body: bytes) -> None:
        self.method = method
        self.target = target
        self.path, _, self.raw_query = target.partition("?")
        self.headers = Headers(headers)
        self.body = body

    @property
    def query(self) -> list[tuple[str, str]]:
        return parse_qsl(self.raw_query, keep_blank_values=True)

    @property
    def cookies(self) -> dict[str, str]:
        pairs = [pair.strip().partition("=") for pair in (self.headers.get("cookie") or "").split(";")]
        return {name: value for name, equals, value in pairs if equals}

    @property
    def content_type(self) -> str:
        return (self.headers.get("content-type") or "").partition(";")[0].strip().lower()

    @property
    def has_body(self) -> bool:
        return bool(self.body)

    async def read(self, limit: int = -1) -> bytes:
        return self.body

    async def json(self) -> Any:
        return orjson.loads(self.body)


class _FakeExchange:
    def __init__(self, services: FakeServices, request: _FakeRequest, captures: Mapping[str, str]) -> None:
        self._services = services
        self.request = request
        self.captures = dict(captures)
        self.context: dict[str, Any] = {}
        self.consumer: Any = None
        self.id = "test"
        self.route = "test"
        self.listener = "test"
        self.client_ip = "127.0.0.1"
        self.time_left = math.inf

    def gather(self, **options: Any) -> Gather:
        return self._services.gather(**options)

    async def subrequest(
        self,
        upstream: str,
        *,
        method: str = "GET",
        path: str = "/",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout: float = 5.0,  # noqa: ASYNC109  # in the services' time
        limit: int = 1048576,
    ) -> SubResponse:
        return await self._services.ask(upstream, method, path, headers or {}, body, timeout, limit)

    def refuse(self, status: int, code: str, detail: str = "", *, headers: HeaderInput = ()) -> Response:
        problem = {"type": "about:blank", "status": status, "code": code, "request_id": self.id}
        return Response(status, headers=headers, json=problem, content_type="application/problem+json")


def fake_exchange(
    services: FakeServices | None = None,
    *,
    method: str = "GET",
    target: str = "/",
    headers: HeaderInput = (),
    body: bytes = b"",
    captures: Mapping[str, str] | None = None,
) -> Exchange:
    """An exchange for a function or an ``on_request`` that is called without a gateway: its request, and what
    is asked of upstreams, is there; what else an exchange has is not. captures: as they came,
    percent-encoded."""
    request = _FakeRequest(method, target, headers, body)
    return cast(Exchange, _FakeExchange(services or FakeServices(), request, captures or {}))
