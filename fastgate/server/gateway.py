"""The gateway in one event loop: opens its listeners, serves, takes up new configurations, drains."""

from __future__ import annotations

import asyncio
import logging
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

from msgspec import UNSET

from fastgate import _core
from fastgate.config import Config, ConfigError, Loaded, load, model
from fastgate.config.problems import report
from fastgate.server.admin import Api
from fastgate.server.admin_http import AdminServer
from fastgate.server.apps import Apps
from fastgate.server.build import Snapshot, build, inner, lay_ground, route_tables
from fastgate.server.operations import (
    EndpointChange,
    EndpointView,
    ReloadError,
    ReloadResult,
    SplitView,
    UnknownName,
    UpstreamView,
    changes,
)
from fastgate.server.plugin_services import SystemClock
from fastgate.server.plugins import PluginError, Plugins, PreparedPlugins
from fastgate.server.redis_limits import RedisLimits, redis_limits_of
from fastgate.server.shared_store import SharedValues
from fastgate.server.sockets import Listening, OpenError
from fastgate.server.upstreams import Estate
from fastgate.server.views import describe_verdict, view_endpoint, view_split, view_upstream
from fastgate.upstreams.asgi import Application

__all__ = ["Gateway", "OpenError", "PluginError"]

NS: Final = 1e9
log: Final = logging.getLogger("fastgate.splits")
# Names of routes and upstreams that reloads may add, beside three for each that is there at the start.
SPARE_NAMES = 4096

Opened = list[tuple[str, str]]  # (address, name)


class _Listener:
    """A listener that is open: its sockets, and the slot that their connections follow."""

    def __init__(self, config: model.Listener) -> None:
        self.config = config
        self.listening = Listening(config, "listener", backlog=config.backlog)
        self._slot: _core.ListenerSlot | None = None

    async def serve(self, worker: _core.Worker, compiled: _core.Listener) -> None:
        self._slot = slot = _core.ListenerSlot(compiled)
        for sock in self.listening.sockets:
            server = await asyncio.get_running_loop().create_server(
                lambda: _core.Downstream1(worker, slot), sock=sock, backlog=self.config.backlog
            )
            self.listening.servers.append(server)

    def follow(self, config: model.Listener, compiled: _core.Listener) -> None:
        assert self._slot is not None
        self._slot.follow(compiled)
        if config.backlog != self.config.backlog:
            for sock in self.listening.sockets:
                sock.listen(config.backlog)
        self.config = config

    def close(self, worker: _core.Worker) -> None:
        """No new connection; those that are open end after what runs on them."""
        self.listening.close()
        if self._slot is not None:
            worker.close_listener(self._slot)


def _key(listener: model.Listener) -> tuple[object, ...]:
    """What makes two listeners the same socket. Of a port that the system chose only its name knows."""
    free = listener.unix_path is None and listener.port == 0
    return (listener.host, listener.port, listener.unix_path, listener.name if free else "")


class Gateway:
    """Serves a configuration until it is drained. It implements ``operations.Operations``.

    start() opens the listeners; reload() puts another configuration in force; drain() finishes what runs and
    closes everything. All are called in the loop that serves, start() and drain() once.

    tell: takes each line that an operator should read of a reload. read: loads the file of a configuration
    anew, in any thread. apps: applications that endpoints may name without a module.
    """

    def __init__(
        self,
        config: Config,
        tell: Callable[[str], None] = lambda line: None,
        *,
        read: Callable[[str], Loaded] = load,
        apps: Mapping[str, Application] = {},  # not changed
    ) -> None:
        self.config = config
        self._tell = tell
        self._read = read
        self._listeners: dict[tuple[object, ...], _Listener] = {}
        self._admin: AdminServer | None = None
        self._api = Api(self)
        self._apps = Apps(apps)
        self._estate = Estate(self._apps)
        self._snapshot: Snapshot | None = None
        self._lost_lines = 0  # of logs that another one took the place of
        self._changing = asyncio.Lock()
        self._draining = False

    # -- life

    async def start(self) -> Opened:
        """Opens every listener and returns (address, listener's name) of each.

        Raises OpenError or PluginError; then nothing is open.
        """
        config = self.config
        loop = asyncio.get_running_loop()
        self.log = _open_log(config.access_log)
        self.counters = _core.Counters(
            [route.name for route in config.routes],
            list(config.upstreams),
            spare_routes=3 * len(config.routes) + SPARE_NAMES,
            spare_upstreams=3 * len(config.upstreams) + SPARE_NAMES,
        )
        self.counters.use_worker(0)
        self.worker = _core.Worker(
            loop,
            self.log,
            self.counters,
            max_connections=config.server.max_connections,
            max_per_address=config.server.max_connections_per_ip,
            flush_interval=config.access_log.flush_interval,
        )
        inner(self.worker)
        self._limits = RedisLimits()
        self._shared = SharedValues(config.source, config.shared)
        self._plugins = Plugins(self.worker, SystemClock(), self._shared.of)
        self._watching = loop.create_task(self._watch_splits(), name="splits")
        try:
            return await self._enforce(config)
        except BaseException:
            await self._end_watching()
            await self._end_plugins()
            self.worker.close()
            if self.log is not None:
                await self._close_log(self.log)
            raise

    async def drain(self, timeout: float | None = None) -> dict[str, int]:  # noqa: ASYNC109  # the core cuts
        """Takes nothing new, finishes what runs within ``timeout`` seconds (None: server.drain_timeout), cuts
        the rest.

        Returns what was cut, what is still held (zeros, if nothing leaks) and what the log lost.
        """
        self._draining = True
        async with self._changing:
            for listener in self._listeners.values():
                listener.close(self.worker)
            self._listeners.clear()
            patience = self.config.server.drain_timeout / NS if timeout is None else timeout
            # The worker in the same turn: who sees its idle connection end must find it draining. Discovery
            # goes on meanwhile: there may be requests that wait for endpoints.
            await asyncio.gather(self.worker.drain(patience), self._end_watching(), self._estate.end_checks())
            await self._end_plugins()
            await self._apps.close(patience)
            await self._estate.close()
            self.worker.close()
            if self._admin is not None:
                await self._admin.stop()
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

    async def reload(self, config: Config | None = None) -> ReloadResult:
        """Puts a configuration in force; None: that of the file, read anew.

        What is under way ends as it began. Connections, sockets with the same bind, upstreams and plugins
        whose configuration is equal live on. How it went is told. Raises ReloadError; then nothing has
        changed.
        """
        try:
            if self._draining:
                raise ReloadError("it is draining")
            async with self._changing:
                result = await self._reload(config)
        except ReloadError as error:
            for line in str(error).splitlines():
                self._tell(line if error.problems else f"fastgate: {line}")
            self._tell("fastgate: not reloaded")
            raise
        for line in result.warnings:
            self._tell(line)
        for address, name in result.listening:
            self._tell(f"fastgate: listening on {address} ({name})")
        self._tell(f"fastgate: reloaded ({result})")
        return result

    async def _reload(self, config: Config | None) -> ReloadResult:
        before = self.config
        warnings: list[str] = []
        if config is None:
            try:
                # A large file takes a while, in which the loop goes on.
                loaded = await asyncio.to_thread(self._read, before.source)
            except ConfigError as error:
                raise ReloadError("\n".join(report(error.problems, before.source)), error.problems) from error
            config, warnings = loaded.config, report(loaded.warnings)
        if self._draining:
            raise ReloadError("it is draining")
        try:
            opened = await self._enforce(config)
        except OpenError as error:
            raise ReloadError(f"{error}{self._hint(config)}") from error
        except PluginError as error:
            raise ReloadError(str(error)) from error
        except _core.SlotsFull as error:
            raise ReloadError(
                f"no room to count all routes and upstreams ({error}); a restart makes room"
            ) from error
        except Exception as error:
            # A defect of ours; the configuration in force is not touched by it.
            traceback.print_exc(file=sys.stderr)
            raise ReloadError(f"a defect: {error!r}") from error
        return ReloadResult(
            listeners=changes(*({each.name: each for each in c.listeners} for c in (before, config))),
            upstreams=changes(before.upstreams, config.upstreams),
            routes=changes(*({each.name: each for each in c.routes} for c in (before, config))),
            plugins=changes(before.plugins, config.plugins),
            listening=tuple(opened),
            warnings=tuple(warnings),
        )

    def _hint(self, config: Config) -> str:
        """For an address that is in use by ourselves."""
        ours = {listener.config.port for listener in self._listeners.values()} - {0}
        added = {each.port for each in config.listeners if _key(each) not in self._listeners}
        return " (by a listener that runs now: use another port, or start it anew)" if added & ours else ""

    async def _enforce(self, config: Config) -> Opened:
        """All or nothing: whatever may fail comes first, and beside what runs. Returns what was opened."""
        async with AsyncExitStack() as undo:
            added: dict[tuple[object, ...], _Listener] = {}
            for each in config.listeners:
                if _key(each) not in self._listeners:
                    added[_key(each)] = listener = _Listener(each)
                    undo.callback(listener.close, self.worker)
            admin = self._admin if config.admin is not None else None
            if config.admin is not None and (admin is None or admin.listening.bind != config.admin):
                admin = AdminServer(self._api, config.admin)
                undo.callback(admin.close)
            log = self.log
            if config.access_log != self.config.access_log:
                log = _open_log(config.access_log, log)
            tables = await asyncio.to_thread(route_tables, config)
            undo.push_async_callback(self._apps.withdraw)
            await self._apps.prepare(config)
            ground = lay_ground(config, self.worker, self._estate)
            plugins = await self._plugins.prepare(config, ground.cores)
            undo.push_async_callback(self._plugins.discard, plugins)
            undo.push_async_callback(self._limits.keep, redis_limits_of(self.config))
            snapshot = build(config, ground, self._estate, plugins, self._limits, self._snapshot, tables)
            for each, compiled in zip(config.listeners, snapshot.listeners, strict=True):
                if _key(each) in added:
                    await added[_key(each)].serve(self.worker, compiled)
            if admin is not None and admin is not self._admin:
                await admin.start()
            undo.pop_all()
        opened = [
            (address, each.name)
            for each in config.listeners
            if _key(each) in added
            for address in added[_key(each)].listening.addresses
        ]
        if admin is not None and admin is not self._admin:
            opened += [(address, "admin API") for address in admin.listening.addresses]
        self._follow(snapshot, plugins, added, admin)
        await self._limits.keep(redis_limits_of(config))
        if log is not self.log:
            await self._change_log(log)
        return opened

    def _follow(
        self,
        snapshot: Snapshot,
        plugins: PreparedPlugins,
        added: dict[tuple[object, ...], _Listener],
        admin: AdminServer | None,
    ) -> None:
        """Puts in force what was prepared. Nothing here fails, and no request comes between."""
        config = snapshot.config
        present: dict[tuple[object, ...], _Listener] = {}
        for each, compiled in zip(config.listeners, snapshot.listeners, strict=True):
            key = _key(each)
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
        self._plugins.adopt(plugins)
        self.worker.watch(tuple(running.core for running in snapshot.upstreams.values()))
        self.worker.limit(config.server.max_connections, config.server.max_connections_per_ip)
        if self._admin is not None and self._admin is not admin:
            self._admin.close()
        self._admin = admin
        self._snapshot = snapshot
        self.config = config

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

    def upstreams(self) -> list[UpstreamView]:
        assert self._snapshot is not None
        return [view_upstream(running) for running in self._snapshot.upstreams.values()]

    def set_endpoint(self, upstream: str, address: str, change: EndpointChange) -> EndpointView:
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

    def split(self, route: str) -> SplitView:
        return view_split(self._splitter(route))

    def set_split(self, route: str, weights: Mapping[str, int]) -> SplitView:
        splitter = self._splitter(route)
        for arm in weights:
            _has_arm(splitter, arm)
        splitter.set_weights(weights)
        return view_split(splitter)

    def clear_split(self, route: str, arm: str) -> SplitView:
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
        # One worker judges for all, once a second.
        while True:
            await asyncio.sleep(1)
            if self._snapshot is None or not self._snapshot.splits or not self._estate.leads():
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

    def count(self) -> dict[str, Any]:
        self.worker.show_gauges()
        plugins = {name: dict(one.slot.counts) for name, one in self._plugins.running.items()}
        if self._snapshot is not None:
            plugins |= {
                name: one.counts()
                for name, one in self._snapshot.plugins.items()
                if not isinstance(one, _core.PendingFilter)  # it is in the next line
            }
        plugins |= self._limits.counts()
        return {**self.counters.snapshot(), "plugins": plugins}


def _has_arm(splitter: _core.Splitter, arm: str) -> None:
    if arm not in splitter.names:
        raise UnknownName(f'route "{splitter.route}" has no arm "{arm}"')


def _open_log(config: model.AccessLog, previous: _core.AccessLog | None = None) -> _core.AccessLog | None:
    try:
        return _core.AccessLog(config, previous) if config.enabled else None
    except OSError as error:
        raise OpenError(f"access log {config.path}: {error.strerror or error}") from error
