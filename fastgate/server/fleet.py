"""What an operator may see and do, over all workers: each is asked, and their answers are one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from fastgate.config import Config
from fastgate.server.operations import (
    EndpointChange,
    EndpointView,
    ReloadResult,
    SplitView,
    UnknownName,
    UpstreamView,
)
from fastgate.server.tracing import latest
from fastgate.server.why import explained
from fastgate.server.worker_handle import WorkerGone
from fastgate.telemetry.trail import ExchangeTrace

if TYPE_CHECKING:
    from fastgate.server.supervisor import Supervisor

__all__ = ["Fleet"]

T = TypeVar("T")


class Fleet:
    """Implements ``operations.Operations``. States, weights and splits lie in memory that the workers share,
    so any of them can tell and change them; what each has under way is added up."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    async def upstreams(self) -> list[UpstreamView]:
        return merge_upstreams(await self._all(list[UpstreamView], "upstreams"))

    async def set_endpoint(self, upstream: str, address: str, change: EndpointChange) -> EndpointView:
        return merge_endpoint(await self._all(EndpointView, "set_endpoint", upstream, address, change))

    async def split(self, route: str) -> SplitView:
        return (await self._all(SplitView, "split", route))[0]

    async def set_split(self, route: str, weights: Mapping[str, int]) -> SplitView:
        return (await self._all(SplitView, "set_split", route, dict(weights)))[0]

    async def clear_split(self, route: str, arm: str) -> SplitView:
        return (await self._all(SplitView, "clear_split", route, arm))[0]

    async def count(self) -> dict[str, Any]:
        plugins: dict[str, dict[str, int]] = {}
        for counts in await self._all(dict[str, dict[str, int]], "plugin_counts"):
            for name, numbers in counts.items():
                into = plugins.setdefault(name, {})
                for key, number in numbers.items():
                    into[key] = into.get(key, 0) + number
        return {**self._supervisor.common.counters.snapshot(), "plugins": plugins}

    async def why(self, request_id: str) -> ExchangeTrace:
        found = [
            trace
            for trace in await self._all(ExchangeTrace | None, "find_trace", request_id)  # type: ignore[arg-type]
            if trace is not None
        ]
        if not found:
            raise UnknownName(f'nothing is kept of a request "{request_id}"')
        return await asyncio.to_thread(explained, self._supervisor.config, latest(found, 1)[0])

    async def failures(self, limit: int) -> list[ExchangeTrace]:
        of_all = await self._all(list[ExchangeTrace], "failures", limit)
        return latest([trace for each in of_all for trace in each], limit)

    async def reload(self, config: Config | None = None) -> ReloadResult:
        return await self._supervisor.reload(config)

    async def _all(self, result: type[T], method: str, *args: object) -> list[T]:
        """Of every worker that is ready and does not end meanwhile. Raises what one raises."""
        answers = await asyncio.gather(
            *(handle.ask(result, method, *args) for handle in self._supervisor.workers.ready),
            return_exceptions=True,
        )
        found: list[T] = []
        for answer in answers:
            if isinstance(answer, WorkerGone):
                continue
            if isinstance(answer, BaseException):
                raise answer
            found.append(answer)
        if not found:
            raise WorkerGone("no worker is ready to answer")
        return found


def merge_upstreams(views: list[list[UpstreamView]]) -> list[UpstreamView]:
    """In the order of the first; a worker that has just changed over may have others."""
    by_name: dict[str, list[UpstreamView]] = {view.name: [] for view in views[0]}
    for view in (view for each in views for view in each if view.name in by_name):
        by_name[view.name].append(view)
    return [_merge_upstream(each) for each in by_name.values()]


def _merge_upstream(views: list[UpstreamView]) -> UpstreamView:
    by_address: dict[str, list[EndpointView]] = {}
    for endpoint in (endpoint for view in views for endpoint in view.endpoints):
        by_address.setdefault(endpoint.address, []).append(endpoint)
    return msgspec.structs.replace(
        views[0],
        limit=sum(view.limit for view in views),
        queued=sum(view.queued for view in views),
        problem=next((view.problem for view in views if view.problem), ""),
        endpoints=tuple(merge_endpoint(each) for each in by_address.values()),
    )


def merge_endpoint(views: list[EndpointView]) -> EndpointView:
    return msgspec.structs.replace(
        views[0],
        active=sum(view.active for view in views),
        open=sum(view.open for view in views),
        idle=sum(view.idle for view in views),
        waiting=sum(view.waiting for view in views),
    )
