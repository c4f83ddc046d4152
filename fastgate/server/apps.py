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
        self._running: dict[str, App] = {}
        self._ending: set[asyncio.Task[None]] = set()

    async def prepare(self, config: Config) -> dict[str, App]:
        """Those that a configuration wants: the ones that run already, and new ones. Raises OpenError; then
        no new one runs."""
        prepared: dict[str, App] = {}
        for name in _names(config):
            app = self._running.get(name)
            try:
                if app is None:
                    app = App(name, load_app(name, Path(config.source).parent, self._given))
                    await app.start()
            except AppError as error:
                await self.withdraw(prepared)
                raise OpenError(f"endpoint asgi:{name}: {error}") from error
            prepared[name] = app
        return prepared

    async def withdraw(self, prepared: Mapping[str, App]) -> None:
        """They are not wanted after all."""
        for name, app in prepared.items():
            if self._running.get(name) is not app:
                await app.close(0)

    def adopt(self, prepared: dict[str, App], patience: float) -> None:
        """From now on these; the others may finish what they do within ``patience`` seconds."""
        before, self._running = self._running, prepared
        for name, app in before.items():
            if prepared.get(name) is not app:
                task = asyncio.get_running_loop().create_task(app.close(patience), name=f"end of {name}")
                self._ending.add(task)
                task.add_done_callback(self._ending.discard)

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
