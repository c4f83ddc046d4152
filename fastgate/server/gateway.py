"""The gateway in one event loop: opens its listeners, serves, takes up new configurations, drains."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from msgspec import UNSET

from fastgate import _core
from fastgate.config import Config, Loaded, Sources, load_sources, model
from fastgate.config.diff import Difference
from fastgate.server.acme.answers import OwnAnswers
from fastgate.server.acme.plan import Wanted, wanted
from fastgate.server.acme.views import AcmeView
from fastgate.server.apps import Apps
from fastgate.server.build import Snapshot, build, inner, lay_ground, route_tables
from fastgate.server.common import Common, CounterPlaces
from fastgate.server.history import history_of
from fastgate.server.keeper import Applied, Keeper, read_again
from fastgate.server.listeners import (
    Key,
    Opened,
    Opener,
    RunningListener,
    addresses_of,
    listener_key,
    open_listener,
    taken_hint,
)
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
    ReloadError,
    ReloadResult,
    SplitView,
    Unavailable,
    UnknownName,
    UpstreamView,
    VersionView,
    WhyNot,
    WorkerView,
    no_room,
)
from fastgate.server.plugin_services import SystemClock
from fastgate.server.plugins import PluginError, Plugins, PreparedPlugins
from fastgate.server.redis_limits import RedisLimits, redis_limits_of
from fastgate.server.shared_store import SharedValues
from fastgate.server.side_servers import PreparedSides, SideServers
from fastgate.server.sockets import OpenError
from fastgate.server.tickets import TicketRotation
from fastgate.server.tracing import Traces
from fastgate.server.upstreams import Estate
from fastgate.server.views import describe_verdict, view_endpoint, view_split, view_upstream
from fastgate.server.watch import Watcher
from fastgate.server.why import explained
from fastgate.telemetry.metrics import ProcessFact
from fastgate.telemetry.trail import ExchangeTrace
from fastgate.upstreams.asgi import Application

if TYPE_CHECKING:
    from fastgate.server.acme.engine import Engine

__all__ = ["Gateway", "OpenError", "PluginError"]

NS: Final = 1e9
HOUR: Final = 3_600 * 10**9
log: Final = logging.getLogger("fastgate.splits")


@dataclass(slots=True)
class Prepared:
    """A configuration that can be put in force: made beside the one that is. `commit` or `abort` follows."""

    snapshot: Snapshot
    plugins: PreparedPlugins
    added: dict[Key, RunningListener]
    sides: PreparedSides | None  # None: the supervisor has them
    log: _core.AccessLog | None
    undo: AsyncExitStack

    @property
    def config(self) -> Config:
        return self.snapshot.config


class Gateway:
    """Serves a configuration until it is drained. It implements ``operations.Operations``.

    start() opens the listeners; reload() puts another configuration in force; drain() finishes what runs and
    closes everything. All are called in the loop that serves, start() and drain() once.

    tell: takes each line that an operator should read of a reload. read: loads the files of a configuration
    anew; again: what was kept of one; both in any thread. apps: applications that endpoints may name without
    a module. common: what was made before the fork, for a gateway that is one of several workers; then the
    supervisor has the admin API.
    """

    def __init__(
        self,
        config: Config,
        tell: Callable[[str], None] = lambda line: None,
        *,
        read: Callable[[Config], Loaded] = read_again,
        again: Callable[[Sources], Loaded] = load_sources,
        apps: Mapping[str, Application] = {},  # not changed
        common: Common | None = None,
    ) -> None:
        self.config = config
        self._alone = common is None
        self._common = common or Common(config)
        self._tell = tell
        self._listeners: dict[Key, RunningListener] = {}
        self._sides = SideServers(self)
        self._apps = Apps(apps)
        self._estate = Estate(self._common, self._apps)
        self._snapshot: Snapshot | None = None
        self._started = time.time()
        # A program that embeds the gateway has its history on the disk where it says so.
        kept = history_of(config, tell, on_disk=common is None and bool(config.server.state_dir))
        self.keeper = Keeper(config, self._apply, tell, kept, read=read, again=again)
        self._metrics = self._common.metrics()
        self._shown: dict[str, dict[str, int]] = {}  # what the counters have of each plugin
        self._lost_lines = 0  # of logs that another one took the place of
        self._acme: Engine | None = None
        self._rotation = TicketRotation(self._common.ticket_keys)
        self._watcher: Watcher | None = None
        self._changing = asyncio.Lock()
        self._draining = False
        self.draining = asyncio.Event()  # nothing new is taken any more

    # -- life

    async def start(self, opener: Opener = open_listener, places: CounterPlaces | None = None) -> Opened:
        """Opens every listener and returns (address, listener's name) of each.

        opener, places: of a worker, what its supervisor has opened and assigned. Raises OpenError or
        PluginError; then nothing is open.
        """
        config = self.config
        loop = asyncio.get_running_loop()
        self.log = _open_log(config.access_log)
        self.counters = self._common.counters
        self.worker = _core.Worker(
            loop,
            self.log,
            self.counters,
            max_connections=config.server.max_connections,
            max_per_address=config.server.max_connections_per_ip,
            flush_interval=config.access_log.flush_interval,
        )
        inner(self.worker)
        self._traces = Traces(self.worker)
        self._common.answers.attach(self.worker)
        self._limits = RedisLimits()
        self._shared = SharedValues(config.source, config.shared)
        self._plugins = Plugins(self.worker, SystemClock(), self._shared.of)
        self._watching = loop.create_task(self._watch_splits(), name="splits")
        try:
            opened = await self.commit(await self.prepare(config, opener, places))
            if self._alone:
                await self.keeper.begin()
                if config.server.watch:
                    self._watcher = Watcher(self.keeper, self._tell)
                    self._watcher.start()
            return opened
        except BaseException:
            await self._end_watching()
            await self._end_plugins()
            await self._traces.close()
            self.worker.close()
            if self.log is not None:
                await self._close_log(self.log)
            raise

    async def drain(
        self,
        timeout: float | None = None,  # noqa: ASYNC109  # the core cuts
        *,
        grace: float = 0,
    ) -> dict[str, int]:
        """Takes nothing new, finishes what runs within ``timeout`` seconds (None: server.drain_timeout), cuts
        the rest. grace: for so many seconds each connection may still bring a last request.

        Returns what was cut, what is still held (zeros, if nothing leaks) and what the log lost.
        """
        self._draining = True
        if self._watcher is not None:
            await self._watcher.stop()
        async with self._changing:
            self._rotation.close()
            for listener in self._listeners.values():
                if grace:
                    listener.stop_accepting()
                else:
                    listener.close(self.worker)
            if grace:
                await asyncio.sleep(0)  # what was accepted before is admitted
            self._listeners.clear()
            patience = self.config.server.drain_timeout / NS if timeout is None else timeout
            # The worker in the same turn: who sees its idle connection end must find it draining. Discovery
            # goes on meanwhile: there may be requests that wait for endpoints.
            draining = asyncio.ensure_future(self.worker.drain(patience, grace))
            await asyncio.sleep(0)
            self.draining.set()
            if self._acme is not None:
                await self._acme.close()
            await asyncio.gather(draining, self._end_watching(), self._estate.end_checks())
            await self._end_plugins()
            await self._apps.close(patience)
            await self._estate.close()
            await self._traces.close()
            self.worker.close()
            await self._sides.stop()
            if self.log is not None:
                await self._close_log(self.log)
        return {"cut": self.worker.cut, **self.worker.census(), "log_dropped": self._lost_lines}

    async def _end_watching(self) -> None:
        self._watching.cancel()
        await asyncio.wait((self._watching,))

    async def _end_plugins(self) -> None:
        """With what they share, and the limits that others decide."""
        await self._plugins.close()
        await self._limits.keep([])
        await self._shared.close()

    async def borrow(self, seat: int, sockets: list[tuple[Key, socket.socket]]) -> None:
        """Accepts on another worker's sockets too, as long as that is not there. With each the listener's
        key."""
        for key, sock in sockets:
            if (listener := self._listeners.get(key)) is not None:
                await listener.borrow(self.worker, seat, sock)

    def give_back(self, seat: int) -> None:
        for listener in self._listeners.values():
            listener.give_back(seat)

    def reopen_log(self) -> None:
        """Opens the access log's file anew, after it was renamed (SIGUSR1)."""
        if self.log is not None:
            self.log.reopen()

    async def _close_log(self, log: _core.AccessLog) -> None:
        await asyncio.to_thread(log.close, 5.0)
        self._lost_lines += log.dropped

    def addresses(self) -> dict[str, tuple[str, ...]]:
        """Of each listener, by its name, in the order of the configuration."""
        return {
            listener.config.name: tuple(listener.listening.addresses) for listener in self._listeners.values()
        }

    # -- reload

    async def reload(
        self, config: Config | None = None, *, cause: Cause = "program", expected: str | None = None
    ) -> ReloadResult:
        """Puts a configuration in force; None: that of the files, read anew.

        What is under way ends as it began. Connections, sockets with the same bind, upstreams and plugins
        whose configuration is equal live on. How it went is told. expected: the etag of the one that it is to
        take the place of. Raises Outdated where that is not in force, and ReloadError; then nothing has
        changed.
        """
        return await self.keeper.reload(config, cause=cause, expected=expected)

    async def reload_certificates(self, *, expected: str | None = None) -> ReloadResult:
        return await self.keeper.reload_certificates(expected=expected)

    async def _apply(self, config: Config) -> Applied:
        if self._draining:
            raise ReloadError("it is draining")
        async with self._changing:
            return Applied(await self.commit(await self.prepare_or_tell(config)), [])

    async def prepare_or_tell(
        self, config: Config, opener: Opener = open_listener, places: CounterPlaces | None = None
    ) -> Prepared:
        """`prepare`, with every failure as a ReloadError that says why."""
        try:
            return await self.prepare(config, opener, places)
        except OpenError as error:
            raise ReloadError(f"{error}{taken_hint(config, self._listeners)}") from error
        except PluginError as error:
            raise ReloadError(str(error)) from error
        except _core.SlotsFull as error:
            raise no_room(error) from error
        except Exception as error:
            # A defect of ours; the configuration in force is not touched by it.
            traceback.print_exc(file=sys.stderr)
            raise ReloadError(f"a defect: {error!r}") from error

    async def prepare(
        self, config: Config, opener: Opener = open_listener, places: CounterPlaces | None = None
    ) -> Prepared:
        """All that may fail, beside what runs. Raises OpenError, PluginError or ``_core.SlotsFull``; then
        nothing has changed."""
        async with AsyncExitStack() as undo:
            added: dict[Key, RunningListener] = {}
            for each in config.listeners:
                if listener_key(each) not in self._listeners:
                    added[listener_key(each)] = listener = RunningListener(each, opener(each))
                    undo.callback(listener.close, self.worker)
            sides = None
            if self._alone:
                sides = await self._sides.prepare(config)
                undo.callback(sides.close)
            log = self.log
            if config.access_log != self.config.access_log:
                log = _open_log(config.access_log, log)
            tables = await asyncio.to_thread(route_tables, config)
            undo.push_async_callback(self._apps.withdraw)
            await self._apps.prepare(config)
            ground = lay_ground(config, self.worker, self._estate, places)
            plugins = await self._plugins.prepare(config, ground.cores)
            undo.push_async_callback(self._plugins.discard, plugins)
            undo.push_async_callback(self._limits.keep, redis_limits_of(self.config))
            snapshot = build(config, ground, self._estate, plugins, self._limits, self._snapshot, tables)
            return Prepared(snapshot, plugins, added, sides, log, undo.pop_all())

    async def abort(self, prepared: Prepared) -> None:
        await prepared.undo.aclose()

    async def commit(self, prepared: Prepared) -> Opened:
        """Puts it in force. Nothing here is expected to fail. Returns what was opened."""
        prepared.undo.pop_all()
        config, added = prepared.config, prepared.added
        opened = addresses_of(config, {key: each.listening for key, each in added.items()})
        opened += self._follow(prepared)
        for each, compiled in zip(config.listeners, prepared.snapshot.listeners, strict=True):
            if listener_key(each) in added:
                await added[listener_key(each)].serve(self.worker, compiled)
        await self._limits.keep(redis_limits_of(config))
        if prepared.log is not self.log:
            await self._change_log(prepared.log)
        if self._alone:
            self._rotation.follow(config.server.ticket_rotation / NS)
            await self._follow_acme(wanted(config))
        return opened

    async def _follow_acme(self, plan: Mapping[str, Wanted]) -> None:
        if self._acme is None and plan:
            from fastgate.server.acme.engine import Engine  # takes the library along

            answers = OwnAnswers(self._common.answers)
            self._acme = Engine(answers, answers)
        if self._acme is not None:
            await self._acme.follow(plan)

    def _follow(self, prepared: Prepared) -> Opened:
        """No request comes between. Returns which servers for operators were opened."""
        snapshot, added = prepared.snapshot, prepared.added
        config = snapshot.config
        present: dict[Key, RunningListener] = {}
        for each, compiled in zip(config.listeners, snapshot.listeners, strict=True):
            key = listener_key(each)
            if key in added:
                present[key] = added[key]
            else:
                present[key] = self._listeners.pop(key)
                present[key].follow(each, compiled)
        gone, self._listeners = self._listeners, present
        for listener in gone.values():
            listener.close(self.worker)
        self._apps.adopt(config.server.drain_timeout / NS)
        self._estate.adopt(snapshot.upstreams)
        self._plugins.adopt(prepared.plugins)
        self.worker.watch(tuple(running.core for running in snapshot.upstreams.values()))
        self.worker.limit(config.server.max_connections, config.server.max_connections_per_ip)
        self._traces.follow(config)
        self._snapshot = snapshot
        self.config = config
        return [] if prepared.sides is None else self._sides.follow(prepared.sides)

    async def _change_log(self, log: _core.AccessLog | None) -> None:
        before, self.log = self.log, log
        every = self.config.access_log.flush_interval
        if before is not None and log is not None and log.writer is before.writer:
            self._lost_lines += before.unwritten  # what their writer lost the next one tells too
        elif before is not None:
            self.worker.log_to(log, every, self._lost_lines + before.dropped)
            await self._close_log(before)
        self.worker.log_to(log, every, self._lost_lines)

    # -- operations

    async def in_force(self) -> InForce:
        return InForce(self.config, self.keeper.version, self.keeper.etag, self.keeper.applied)

    async def history(self) -> list[VersionView]:
        return self.keeper.versions()

    async def sources(self, version: int | None = None) -> Sources:
        return self.keeper.entry(version).sources

    async def diff(self, old: int, new: int) -> Difference:
        return self.keeper.compare(old, new)

    async def rollback(self, version: int | None = None, *, expected: str | None = None) -> ReloadResult:
        return await self.keeper.rollback(version, expected=expected)

    async def health(self) -> Health:
        if self._draining:
            return Health(ready=False, reasons=(WhyNot(code="draining", detail="it takes nothing new"),))
        if self._snapshot is None:
            return Health(ready=False, reasons=(WhyNot(code="starting", detail="nothing is open yet"),))
        return Health(ready=True)

    async def workers(self) -> list[WorkerView]:
        state: Literal["starting", "serving", "draining"] = (
            "draining" if self._draining else "serving" if self._snapshot is not None else "starting"
        )
        return [WorkerView(id=1, pid=os.getpid(), started=self._started, state=state)]

    async def listeners(self) -> list[ListenerView]:
        return [
            ListenerView(
                name=each.config.name,
                bind=each.config.bind,
                addresses=tuple(each.listening.addresses),
                proxy_protocol=each.config.proxy_protocol,
                plugins=each.config.plugins,
            )
            for each in self._listeners.values()
        ]

    async def acme(self) -> list[AcmeView]:
        return [] if self._acme is None else self._acme.views()

    async def upgrade(self) -> int:
        raise Unavailable("this gateway is part of another program, which has to be started anew itself")

    async def begin_drain(self) -> None:
        raise Unavailable("the program that embeds the gateway drains it")

    async def log_level(self) -> LogLevel:
        return logged_from()

    async def set_log_level(self, level: LogLevel) -> LogLevel:
        log_from(level)
        return logged_from()

    async def upstreams(self) -> list[UpstreamView]:
        assert self._snapshot is not None
        return [view_upstream(running) for running in self._snapshot.upstreams.values()]

    async def set_endpoint(self, upstream: str, address: str, change: EndpointChange) -> EndpointView:
        assert self._snapshot is not None
        running = self._snapshot.upstreams.get(upstream)
        if running is None:
            raise UnknownName(f'no upstream is named "{upstream}"')
        endpoint = running.endpoints.get(address)
        if endpoint is None:
            raise UnknownName(f'upstream "{upstream}" has no endpoint "{address}"')
        if change.state is not UNSET:
            running.health.set_operator(endpoint, change.state, _core.monotonic_ns())
        if change.weight is not UNSET:
            running.health.set_weight(endpoint, change.weight)
        return view_endpoint(endpoint)

    async def split(self, route: str) -> SplitView:
        return view_split(self._splitter(route))

    async def set_split(self, route: str, weights: Mapping[str, int]) -> SplitView:
        splitter = self._splitter(route)
        for arm in weights:
            _has_arm(splitter, arm)
        splitter.set_weights(weights)
        return view_split(splitter)

    async def clear_split(self, route: str, arm: str) -> SplitView:
        splitter = self._splitter(route)
        _has_arm(splitter, arm)
        splitter.set_weights({arm: None})  # that takes a rollback back, too
        return view_split(splitter)

    def _splitter(self, route: str) -> _core.Splitter:
        assert self._snapshot is not None
        splitter = self._snapshot.splits.get(route)
        if splitter is None:
            known = any(each.name == route for each in self.config.routes)
            raise UnknownName(f'route "{route}" has no split' if known else f'no route is named "{route}"')
        return splitter

    async def _watch_splits(self) -> None:
        # One worker judges for all, once a second; and looks once an hour which certificates expire.
        look_at = _core.monotonic_ns() + HOUR
        while True:
            await asyncio.sleep(1)
            if _core.monotonic_ns() >= look_at and self._common.leads():
                look_at = _core.monotonic_ns() + HOUR
                self._common.certificates.warn(self.config.listeners)
            self._show_plugins()
            if self._snapshot is None or not self._snapshot.splits or not self._common.leads():
                continue
            now = _core.monotonic_ns()
            for splitter in self._snapshot.splits.values():
                for verdict in splitter.rollback.evaluate(now) if splitter.rollback is not None else ():
                    log.error(
                        "route %s: arm %s rolled back: %s",
                        verdict.route,
                        verdict.arm,
                        describe_verdict(verdict),
                    )

    async def why(self, request_id: str) -> ExchangeTrace:
        for found in await self.find_traces(request_id):
            return found
        raise UnknownName(f'nothing is kept of a request "{request_id}"')

    async def find_traces(self, request_id: str) -> list[ExchangeTrace]:
        """As ``why``; empty where it has none."""
        found = self._traces.find(request_id)
        return [] if found is None else [await asyncio.to_thread(explained, self.config, found)]

    async def failures(self, limit: int) -> list[ExchangeTrace]:
        return self._traces.failures(limit)

    async def count(self) -> dict[str, Any]:
        return self.counted()

    def counted(self) -> dict[str, Any]:
        """The counters; see docs/access-log.md."""
        plugins = self.plugin_counts()
        return {**self.counters.snapshot(), "plugins": plugins}

    def _show_plugins(self) -> None:
        """What plugins have counted since the last time goes into the memory that outlives this process."""
        found = self.plugin_counts()
        for name, counts in found.items():
            before = self._shown.get(name, {})
            # A plugin that was made anew has begun to count anew.
            if any(number < before.get(what, 0) for what, number in counts.items()):
                before = {}
            for what, number in counts.items():
                if more := number - before.get(what, 0):
                    self.counters.add_plugin(name, what, more)
        self._shown = found

    async def metrics(self, openmetrics: bool) -> bytes:
        self._show_plugins()
        place = self._common.place
        facts = facts_of(
            self.keeper,
            await self.acme(),
            tuple(ProcessFact(str(each.id), each.pid, each.state, place) for each in await self.workers()),
            started=self._started,
            ready=(await self.health()).ready,
        )
        return await self._metrics.render(facts, openmetrics)

    def plugin_counts(self) -> dict[str, dict[str, int]]:
        """By plugin; and the gauges are up to date."""
        self.worker.show_gauges()
        plugins = {name: dict(one.slot.counts) for name, one in self._plugins.running.items()}
        if self._snapshot is not None:
            plugins |= {
                name: one.counts()
                for name, one in self._snapshot.plugins.items()
                if not isinstance(one, _core.PendingFilter)  # it is in the next line
            }
        return plugins | self._limits.counts()


def _has_arm(splitter: _core.Splitter, arm: str) -> None:
    if arm not in splitter.names:
        raise UnknownName(f'route "{splitter.route}" has no arm "{arm}"')


def _open_log(config: model.AccessLog, previous: _core.AccessLog | None = None) -> _core.AccessLog | None:
    try:
        return _core.AccessLog(config, previous) if config.enabled else None
    except OSError as error:
        raise OpenError(f"access log {config.path}: {error.strerror or error}") from error
