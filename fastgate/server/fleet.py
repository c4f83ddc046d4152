"""What an operator may see and do, over all workers: each is asked, and their answers are one."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import msgspec

from fastgate.config import Config, Sources
from fastgate.config.diff import Difference
from fastgate.server.acme.views import AcmeView
from fastgate.server.log_level import log_from, logged_from
from fastgate.server.measured import facts_of
from fastgate.server.operations import (
    Cause,
    EndpointChange,
    EndpointView,
    Health,
    InForce,
    ListenerView,
    LogLevel,
    ReloadResult,
    SplitView,
    Unavailable,
    UnknownName,
    UpstreamView,
    VersionView,
    WhyNot,
    WorkerView,
)
from fastgate.server.tracing import latest
from fastgate.server.worker_handle import State, WorkerGone
from fastgate.telemetry.metrics import ProcessFact
from fastgate.telemetry.trail import ExchangeTrace

if TYPE_CHECKING:
    from fastgate.server.supervisor import Supervisor

__all__ = ["Fleet"]

T = TypeVar("T")
_STATES: Final[dict[State, Literal["starting", "serving", "hung", "draining"]]] = {
    State.STARTING: "starting",
    State.READY: "serving",
    State.HUNG: "hung",
    State.LEAVING: "draining",
}


class Fleet:
    """Implements ``operations.Operations``. States, weights and splits lie in memory that the workers share,
    so any of them can tell and change them; what each has under way is added up."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._metrics = supervisor.common.metrics()

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
        # A worker explains it: that takes a thread, and what forks has none.
        of_all = await self._all(list[ExchangeTrace], "find_traces", request_id)
        if found := latest([trace for each in of_all for trace in each], 1):
            return found[0]
        raise UnknownName(f'nothing is kept of a request "{request_id}"')

    async def failures(self, limit: int) -> list[ExchangeTrace]:
        of_all = await self._all(list[ExchangeTrace], "failures", limit)
        return latest([trace for each in of_all for trace in each], limit)

    async def metrics(self, openmetrics: bool) -> bytes:
        supervisor = self._supervisor
        workers = (
            # One that starts may not have cleared yet what a dead one has left in its place.
            ProcessFact(
                str(each.seat),
                each.pid,
                _STATES[each.state],
                -1 if each.state is State.STARTING else each.place,
            )
            for each in supervisor.workers.all
            if each.state is not State.GONE
        )
        facts = facts_of(
            supervisor.keeper,
            await self.acme(),
            (ProcessFact("supervisor", os.getpid(), "", -1), *workers),
            started=supervisor.started,
            ready=(await self.health()).ready,
            restarts=supervisor.workers.restarts,
        )
        return await self._metrics.render(facts, openmetrics)

    async def reload(
        self, config: Config | None = None, *, cause: Cause = "program", expected: str | None = None
    ) -> ReloadResult:
        return await self._supervisor.reload(config, cause=cause, expected=expected)

    async def reload_certificates(self, *, expected: str | None = None) -> ReloadResult:
        return await self._supervisor.keeper.reload_certificates(expected=expected)

    async def in_force(self) -> InForce:
        keeper = self._supervisor.keeper
        return InForce(keeper.config, keeper.version, keeper.etag, keeper.applied)

    async def history(self) -> list[VersionView]:
        return self._supervisor.keeper.versions()

    async def sources(self, version: int | None = None) -> Sources:
        return self._supervisor.keeper.entry(version).sources

    async def diff(self, old: int, new: int) -> Difference:
        return self._supervisor.keeper.compare(old, new)

    async def rollback(self, version: int | None = None, *, expected: str | None = None) -> ReloadResult:
        return await self._supervisor.keeper.rollback(version, expected=expected)

    async def health(self) -> Health:
        reasons = []
        if self._supervisor.draining:
            reasons.append(WhyNot(code="draining", detail="it takes nothing new"))
        elif not self._supervisor.workers.ready:
            reasons.append(WhyNot(code="no-worker", detail="no worker is ready to serve"))
        return Health(ready=not reasons, reasons=tuple(reasons))

    async def workers(self) -> list[WorkerView]:
        ago = time.time() - time.monotonic()
        return [
            WorkerView(
                id=each.seat, pid=each.pid, started=round(each.born + ago, 3), state=_STATES[each.state]
            )
            for each in self._supervisor.workers.all
            if each.state is not State.GONE
        ]

    async def listeners(self) -> list[ListenerView]:
        supervisor = self._supervisor
        return [
            ListenerView(
                name=each.name,
                bind=each.bind,
                addresses=supervisor.listening.get(each.name, ()),
                proxy_protocol=each.proxy_protocol,
                plugins=each.plugins,
            )
            for each in supervisor.config.listeners
        ]

    async def acme(self) -> list[AcmeView]:
        return await self._supervisor.acme.views()

    async def upgrade(self) -> int:
        return await self._supervisor.upgrade()

    async def begin_drain(self) -> None:
        # The answer goes first.
        asyncio.get_running_loop().call_soon(self._supervisor.stopping.set)

    async def log_level(self) -> LogLevel:
        return logged_from()

    async def set_log_level(self, level: LogLevel) -> LogLevel:
        log_from(level)  # who is forked from now on has it
        self._supervisor.acme.set_log_level(level)
        await self._all(str, "set_log_level", level)
        return logged_from()

    async def _all(self, result: type[T], method: str, *args: object) -> list[T]:
        """Of every worker that is ready and does not end meanwhile. Raises what one raises, and Unavailable
        where there is none."""
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
            raise Unavailable("no worker is ready to answer")
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
