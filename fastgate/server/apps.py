"""The applications of a configuration: each is loaded and started once for a gateway, however many endpoints
name it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path

from fastgate.config import Config
from fastgate.server.sockets import OpenError
from fastgate.upstreams.asgi import App, AppError, Application, load_app

__all__ = ["Apps"]


class Apps:
    """given: applications that the configuration may name without a module."""

    def __init__(self, given: Mapping[str, Application]) -> None:
        self._given = given
        self._wanted: dict[str, App] = {}  # by the configuration in force, or the one that is about to be
        self._running: dict[str, App] = {}
        self._leaving: dict[str, App] = {}
        self._ending: set[asyncio.Task[None]] = set()

    async def prepare(self, config: Config) -> None:
        """Loads and starts those that a configuration wants and that do not run already. Raises OpenError.
        `withdraw` or `adopt` follows."""
        self._wanted = {}
        for name in _names(config):
            app = self._running.get(name)
            try:
                if app is None:
                    app = App(name, load_app(name, Path(config.source).parent, self._given))
                    await app.start()
            except AppError as error:
                raise OpenError(f"endpoint asgi:{name}: {error}") from error
            self._wanted[name] = app

    async def withdraw(self) -> None:
        """The configuration is not put in force after all."""
        new = [app for name, app in self._wanted.items() if self._running.get(name) is not app]
        self._wanted = self._running
        for app in new:
            await app.close(0)

    def adopt(self, patience: float) -> None:
        """It is in force; what it wants no more may finish what it does within ``patience`` seconds."""
        self._leaving, self._running = self._running, self._wanted
        for name, app in self._leaving.items():
            if self._wanted.get(name) is not app:
                task = asyncio.get_running_loop().create_task(app.close(patience), name=f"end of {name}")
                self._ending.add(task)
                task.add_done_callback(self._ending.discard)

    def find(self, name: str) -> App:
        """For an endpoint; one that the configuration before this one had may be asked for as well."""
        return self._wanted.get(name) or self._leaving[name]

    async def close(self, patience: float) -> None:
        """All end, after at most so many seconds."""
        await asyncio.gather(*self._ending, *(app.close(patience) for app in self._running.values()))


def _names(config: Config) -> Iterator[str]:
    yield from dict.fromkeys(
        endpoint.asgi
        for upstream in config.upstreams.values()
        for endpoint in upstream.endpoints
        if endpoint.asgi
    )
