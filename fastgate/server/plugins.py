"""The plugins of a configuration in one worker: made, provisioned, handed to the core, closed.

A plugin whose table is equal in the next configuration lives on. One that is replaced is closed when the last
exchange that began with its configuration has ended.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from fastgate import _core
from fastgate.config import Config, model
from fastgate.config.rules_plugins import references
from fastgate.plugins.api import PHASES, Clock, Plugin, Shared
from fastgate.server.plugin_services import PluginServices, Services

__all__ = ["PluginError", "Plugins", "PreparedPlugins", "RunningPlugin"]

log: Final = logging.getLogger("fastgate.plugins")
PROVISION_SECONDS: Final = 30.0
CLOSE_SECONDS: Final = 10.0


class PluginError(Exception):
    """A plugin could not be made ready. ``str()`` names it and says why."""


class RunningPlugin:
    """One plugin that was provisioned. holders: the configurations that have it, and are not over."""

    def __init__(self, use: model.PluginUse, services: Services, folder: Path, shared: Shared) -> None:
        self.use = use
        try:
            self.plugin: Plugin = use.plugin(use.config, use.name)
        except (Exception, SystemExit) as error:
            raise PluginError(_said(use, error)) from error
        self.holders = 0
        self.slot = _core.PluginSlot(
            use.name,
            self.plugin,
            {phase: getattr(self.plugin, phase) for phase in PHASES if _has(self.plugin, phase)},
            body_mode=self.plugin.response_body,
            body_limit=self.plugin.body_limit,
            open=use.on_failure == "open",
            report_only=use.report_only,
            timeout_ns=use.timeout,
            shared=shared,
        )
        self.host = PluginServices(services, use.name, folder, shared, self.slot.counts)

    @property
    def identity_headers(self) -> tuple[str, ...]:
        return self.plugin.identity_headers(self.use.config)

    async def provision(self) -> None:
        """Raises PluginError, and is closed then."""
        try:
            async with asyncio.timeout(PROVISION_SECONDS):
                await _finished(self.plugin.provision(self.host))
        except (Exception, SystemExit) as error:
            await self.close()
            raise PluginError(_said(self.use, error)) from error
        except asyncio.CancelledError as error:
            await self.close()
            if _is_cancelled():
                raise
            raise PluginError(_said(self.use, error)) from error

    async def close(self) -> None:
        await self.host.close()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await _finished(self.plugin.close())
        except (Exception, SystemExit):
            log.exception("plugin %s, while it was closed", self.use.name)
        except asyncio.CancelledError:
            if _is_cancelled():
                raise
            log.exception("plugin %s, while it was closed", self.use.name)


def _said(use: model.PluginUse, error: BaseException) -> str:
    # What is no Exception says its name: an exit status alone tells nobody anything.
    said = str(error) if isinstance(error, Exception) else ""
    return f"plugin {use.name}: {said or type(error).__name__}"


def _is_cancelled() -> bool:
    """We are, and not only something that a plugin has awaited."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _has(plugin: Plugin, phase: str) -> bool:
    return getattr(type(plugin), phase) is not getattr(Plugin, phase)


async def _finished(result: Awaitable[None] | None) -> None:
    if result is not None:
        await result


class PreparedPlugins:
    """Those of one configuration, ready: by name, and the core's set that their chains belong to."""

    def __init__(
        self, config: Config, running: dict[str, RunningPlugin], upstreams: dict[str, _core.Upstream]
    ) -> None:
        self.config = config
        self.running = running
        self.core = _core.PluginSet(upstreams)

    def find_plugin(self, name: str) -> Plugin:
        return self.running[name].plugin

    def identity_headers(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Of these plugins, and of those that they name."""
        found: list[str] = []
        for name in names:
            if name in self.running:
                found += self.running[name].identity_headers
                named = tuple(
                    one.name for one in references(name, self.config.plugins[name]) if one.noun == "plugin"
                )
                found += self.identity_headers(named)
        return tuple(dict.fromkeys(found))


class Plugins:
    """What outlives a configuration. shared: gives the ``Shared`` of a plugin by its name."""

    def __init__(self, worker: _core.Worker, clock: Clock, shared: Callable[[str], Shared]) -> None:
        self._services = Services(worker, clock)
        self._shared = shared
        self._current: PreparedPlugins | None = None
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def running(self) -> dict[str, RunningPlugin]:
        return {} if self._current is None else self._current.running

    async def prepare(self, config: Config, upstreams: dict[str, _core.Upstream]) -> PreparedPlugins:
        """Those of ``config``, new ones provisioned. Raises PluginError; then none of the new ones is
        left."""
        running: dict[str, RunningPlugin] = {}
        prepared = PreparedPlugins(config, running, upstreams)
        folder = Path(config.source).parent.absolute()
        try:
            # Each stands behind those that it names.
            for name, use in config.plugins.items():
                if not isinstance(use, model.PluginUse):
                    continue
                before = self.running.get(name)
                if before is not None and before.use == use and self._names_the_same(name, use, running):
                    running[name] = before
                    continue
                new = RunningPlugin(use, self._services, folder, self._shared(name))
                new.host.find_upstream = prepared.core.find_upstream
                new.host.find_plugin = prepared.find_plugin
                await new.provision()
                running[name] = new
        except BaseException:
            await self.discard(prepared)
            raise
        return prepared

    def _names_the_same(self, name: str, use: model.PluginUse, running: dict[str, RunningPlugin]) -> bool:
        """Whether the plugins that it took at ``provision`` are still the ones."""
        return all(
            running[one.name] is self.running.get(one.name)
            for one in references(name, use)
            if one.noun == "plugin"
        )

    async def discard(self, prepared: PreparedPlugins) -> None:
        """They are not put in force after all."""
        for name, plugin in prepared.running.items():
            if self.running.get(name) is not plugin:
                await plugin.close()

    def adopt(self, prepared: PreparedPlugins) -> None:
        """They are in force from now on; those before them end when nothing needs them any more."""
        for plugin in prepared.running.values():
            plugin.holders += 1
            plugin.host.find_upstream = prepared.core.find_upstream
            plugin.host.find_plugin = prepared.find_plugin
        before, self._current = self._current, prepared
        if before is not None:
            before.core.retire(lambda: self._let_go(before))

    def _let_go(self, prepared: PreparedPlugins) -> None:
        for plugin in prepared.running.values():
            plugin.holders -= 1
            if plugin.holders == 0:
                task = asyncio.get_running_loop().create_task(
                    plugin.close(), name=f"end of {plugin.use.name}"
                )
                self._ending.add(task)
                task.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        """After the drain: ends all plugins, those of earlier configurations first."""
        if self._current is not None:
            current, self._current = self._current, None
            current.core.retire(lambda: self._let_go(current))
        await asyncio.gather(*self._ending, return_exceptions=True)
        await self._services.close()
