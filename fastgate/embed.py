"""The gateway inside of a Python program: ``from fastgate import Gateway``.

    async with Gateway("gateway.toml", plugins=[MyPlugin]) as gateway:
        print(gateway.url)

It serves in the loop that runs, uvloop's or asyncio's own; several in one process are independent of each
other. It installs no signal handlers and configures no logging.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from fastgate.config import (
    Config,
    ConfigError,
    Loaded,
    Problem,
    Sources,
    load,
    load_sources,
    load_tables,
    model,
)
from fastgate.config.model.basics import MIB
from fastgate.routing.explain import Explanation, explain
from fastgate.server.gateway import Gateway as Server
from fastgate.server.operations import Operations, ReloadError, ReloadResult
from fastgate.server.plugins import PluginError
from fastgate.server.sockets import OpenError
from fastgate.upstreams.asgi import Application

if TYPE_CHECKING:
    from fastgate.aggregation.gather import Policy
    from fastgate.plugins import Plugin
    from fastgate.plugins._aggregate import Aggregation

__all__ = [
    "ConfigError",
    "ConfigSource",
    "Explanation",
    "Gateway",
    "OpenError",
    "PluginError",
    "ReloadError",
    "ReloadResult",
]

#: A TOML file's path; what such a file holds, as tables; or a configuration that was loaded already.
ConfigSource = str | os.PathLike[str] | Mapping[str, Any] | Config

Answering = TypeVar("Answering", bound=Callable[..., Coroutine[Any, Any, Any]])

log: Final = logging.getLogger("fastgate.gateway")


class Gateway:
    """A gateway that this program starts, changes and stops.

    config: what it serves; see ``ConfigSource``. plugins: classes that the configuration may name as
    ``use = "ClassName"``; a mapping gives them other names. apps: ASGI applications that endpoints may name
    as "asgi:NAME". folder: what paths in tables are relative to, by default the current directory; a file's
    are relative to its own.

    Raises ConfigError at once for a configuration that can't be used; ``warnings`` holds what is doubtful in
    it, a line each. Nothing is opened before ``start()``.
    """

    def __init__(
        self,
        config: ConfigSource,
        *,
        plugins: Iterable[type[Plugin]] | Mapping[str, type[Plugin]] = (),
        apps: Mapping[str, Application] | None = None,
        folder: str | os.PathLike[str] = "",
    ) -> None:
        self._plugins = (
            dict(plugins) if isinstance(plugins, Mapping) else {plugin.__name__: plugin for plugin in plugins}
        )
        self._apps = dict(apps or {})
        self._folder = Path(folder)
        self._server: Server | None = None
        self._aggregations: dict[str, Aggregation] = {}
        loaded = self._load(config)
        self._config = loaded.config
        self.warnings: tuple[str, ...] = tuple(map(str, loaded.warnings))

    # -- aggregations in Python

    def aggregate(
        self,
        path: str,
        *,
        methods: Collection[str] = ("GET",),
        name: str = "",
        host: str | Collection[str] = (),
        listeners: Collection[str] = (),
        plugins: Collection[str] = (),
        timeout: float = 10.0,
        policy: Policy = "required",
        quorum: int = 1,
        max_parts: int = 64,
        max_memory: int = 16 * MIB,
    ) -> Callable[[Answering], Answering]:
        """A route that an async function answers:

            @gateway.aggregate("/orders/{id}")
            async def order_page(exchange: Exchange, g: Gather, id: int) -> Page: ...

        The function is called within the block of its parts (``exchange.gather``, with the same options), and
        returns a Response, or what msgspec encodes as JSON. Its further parameters are segments of the path,
        converted to their types; one that does not fit is answered by 400 ``aggregate-request``.

        path: "/orders/{id}", as ``match.path``. name: of the route, by default the function's. host,
        listeners, plugins: as of a route in the configuration; what is named is looked up there.

        It is there in every configuration that this gateway loads, before the routes of the same precedence.
        Raises RuntimeError while the gateway runs; the decorator raises TypeError for a function that does
        not fit, ValueError for options that are none, ConfigError for a route that can't be.
        """

        def add(function: Answering) -> Answering:
            # A program without aggregations needs nothing of the plugins.
            from fastgate.plugins._aggregate import aggregation_of

            if self._server is not None:
                raise RuntimeError("aggregations are added before the gateway runs")
            made = aggregation_of(
                function,
                path,
                methods=methods,
                name=name,
                host=host,
                listeners=listeners,
                plugins=plugins,
                timeout=timeout,
                options={
                    "policy": policy,
                    "quorum": quorum,
                    "max_parts": max_parts,
                    "max_memory": max_memory,
                },
            )
            self._config = _with(self._config, [made])
            self._aggregations[made.route.name] = made
            return function

        return add

    # -- life

    async def __aenter__(self) -> Gateway:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            await (self.drain() if kind is None else self.stop())

    async def start(self) -> None:
        """Opens the listeners and serves. Raises OpenError or PluginError, and then nothing is open;
        RuntimeError where it runs already. It may be started again when it was drained or stopped."""
        if self._server is not None:
            raise RuntimeError("the gateway runs already")
        self._server = server = Server(
            self._config, _tell, read=self._read, again=self._again, apps=self._apps
        )
        try:
            await server.start()
        except BaseException:
            self._server = None
            raise

    async def reload(self, config: ConfigSource | None = None) -> ReloadResult:
        """Puts another configuration in force; None: that of its file, read anew. What is under way ends as
        it began. Raises ReloadError; then nothing has changed."""
        server = self._running()
        if config is None:
            result = await server.reload()
            self.warnings = result.warnings
        else:
            try:
                loaded = self._load(config)
            except ConfigError as error:
                raise ReloadError(str(error), error.problems) from error
            result = await server.reload(loaded.config)
            self.warnings = tuple(map(str, loaded.warnings))
        self._config = server.config
        return result

    async def drain(self, timeout: float | None = None) -> dict[str, int]:  # noqa: ASYNC109  # not a deadline
        """Takes nothing new, finishes what runs, cuts what is left after ``timeout`` seconds (by default
        ``server.drain_timeout``) and closes everything.

        Returns how many exchanges were cut, what is still held (zeros) and how many lines the log lost.
        """
        server = self._running()
        self._server = None
        return await server.drain(timeout)

    async def stop(self) -> dict[str, int]:
        """As ``drain``, without patience: what runs is cut."""
        return await self.drain(0)

    # -- where

    @property
    def addresses(self) -> dict[str, tuple[str, ...]]:
        """By listener, in the order of the configuration: "127.0.0.1:8080", "[::1]:8080" or "unix:/path",
        with the port that a bind to port 0 got. One on every address has two."""
        return self._running().addresses()

    @property
    def address(self) -> str:
        """The first of ``addresses``."""
        return next(iter(self.addresses.values()))[0]

    @property
    def url(self) -> str:
        """ "http://host:port" of the first listener that is no Unix socket. LookupError: there is none."""
        for addresses in self.addresses.values():
            if not addresses[0].startswith("unix:"):
                return "http://" + addresses[0].replace("0.0.0.0:", "127.0.0.1:")
        raise LookupError("every listener is a Unix socket")

    # -- what it is and does

    @property
    def config(self) -> Config:
        """The configuration in force; before ``start()`` the one that it will begin with."""
        return self._config if self._server is None else self._server.config

    @property
    def operations(self) -> Operations:
        """What the admin API offers: states and weights of endpoints, splits. All of it is awaited."""
        return self._running()

    def count(self) -> dict[str, Any]:
        """The counters, as in docs/access-log.md."""
        return self._running().counted()

    def explain(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        host: str = "",
        listener: str | None = None,
    ) -> Explanation:
        """What it would do with a request, as ``fastgate explain``: ``.route`` is the name of the route that
        wins, None for none. It need not run.

        url: absolute, or a path; then ``host`` may say which host is asked. listener: the name of the one
        that the request comes to, by default the first. Raises ValueError (an ExplainError) for a request
        that the gateway would refuse.
        """
        fields = list(headers.items() if isinstance(headers, Mapping) else headers)
        if host:
            fields.append(("Host", host))
        return explain(self.config, method, url, fields, listener)

    # -- within

    def _running(self) -> Server:
        if self._server is None:
            raise RuntimeError("the gateway does not run")
        return self._server

    def _load(self, config: ConfigSource) -> Loaded:
        if isinstance(config, Config):
            return self._whole(Loaded(config, ()))
        if isinstance(config, Mapping):
            return self._whole(load_tables(config, str(self._folder / "<tables>"), plugins=self._plugins))
        return self._whole(load(os.fspath(config), plugins=self._plugins))

    def _whole(self, loaded: Loaded) -> Loaded:
        """With the aggregations in Python."""
        return loaded._replace(config=_with(loaded.config, self._aggregations.values()))

    def _read(self, config: Config) -> Loaded:
        """The files that the configuration in force came from, read anew."""
        if not config.sources.roots:
            told = "it came from no file: pass the new configuration"
            raise ConfigError([Problem(config.source, 0, 0, told)])
        return self._whole(load(*config.sources.roots, plugins=self._plugins))

    def _again(self, sources: Sources) -> Loaded:
        return self._whole(load_sources(sources, plugins=self._plugins))


def _with(config: Config, aggregations: Iterable[Aggregation]) -> Config:
    """Raises ConfigError for names that are taken, or not there."""
    problems = []
    routes, plugins = list(config.routes), dict(config.plugins)
    listeners = {listener.name for listener in config.listeners}
    added: list[model.Route] = []
    for route, plugin in aggregations:
        if route in routes:
            continue  # it came with a configuration of this gateway
        said = [f"route {route.name} is in the configuration already"] * any(
            one.name == route.name for one in (*routes, *added)
        )
        plugins[plugin.name] = plugin
        said += [f'no plugin is named "{name}"' for name in route.plugins if name not in plugins]
        said += [f'no listener is named "{name}"' for name in route.listeners if name not in listeners]
        problems += [Problem(config.source, 0, 0, f"aggregate {route.name}: {one}") for one in said]
        added.append(route)
    if problems:
        raise ConfigError(problems)
    return msgspec.structs.replace(config, routes=(*added, *routes), plugins=plugins) if added else config


def _tell(line: str) -> None:
    log.info("%s", line.removeprefix("fastgate: "))
