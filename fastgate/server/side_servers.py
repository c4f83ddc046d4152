"""What serves an operator beside the traffic: the admin API, and the listener that has metrics alone."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final, NamedTuple

from fastgate.config import Config, model
from fastgate.server.admin import Api
from fastgate.server.admin_http import AdminServer, Serving
from fastgate.server.admin_resources import METRICS
from fastgate.server.inheritance import Heirloom, Inheritance
from fastgate.server.operations import Operations

__all__ = ["PreparedSides", "SideServers"]

# By the label that a socket is handed over with: what an operator is told of it.
_TITLES: Final = {"admin": "admin API", "metrics": "metrics"}


class PreparedSides(NamedTuple):
    """What follow() puts in force. close(): it is not wanted after all."""

    servers: dict[str, tuple[AdminServer, Serving]]
    undo: ExitStack

    def close(self) -> None:
        self.undo.close()


class SideServers:
    """Of one gateway, over all its configurations."""

    def __init__(self, operations: Operations) -> None:
        self._apis = {"admin": Api(operations), "metrics": Api(operations, (METRICS,))}
        self._servers: dict[str, AdminServer] = {}

    async def prepare(
        self,
        config: Config,
        inheritance: Inheritance | None = None,
    ) -> PreparedSides:
        """All that may fail. Raises OpenError; then nothing has changed."""
        with ExitStack() as undo:
            servers: dict[str, tuple[AdminServer, Serving]] = {}
            for label, wanted in _wanted(config).items():
                server = self._servers.get(label)
                if server is None or not server.serves(wanted):
                    taken = inheritance.take((label,), wanted) if inheritance is not None else None
                    server = AdminServer(self._apis[label], wanted, taken, _TITLES[label])
                    undo.callback(server.close)
                serving = await server.prepare(wanted)
                undo.callback(serving.close)
                servers[label] = (server, serving)
            return PreparedSides(servers, undo.pop_all())

    def follow(self, prepared: PreparedSides) -> list[tuple[str, str]]:
        """Puts it in force, and ends what it does not have. Returns (address, title) of what was opened."""
        prepared.undo.pop_all()
        before, self._servers = self._servers, {}
        opened: list[tuple[str, str]] = []
        for label, (server, serving) in prepared.servers.items():
            server.follow(serving)
            self._servers[label] = server
            if before.get(label) is not server:
                opened += [(address, _TITLES[label]) for address in server.listening.addresses]
        for label, server in before.items():
            if self._servers.get(label) is not server:
                server.close()
        return opened

    def heirlooms(self) -> list[Heirloom]:
        """Their sockets, for a program that takes this one's place."""
        return [
            Heirloom(label, sock)
            for label, server in self._servers.items()
            for sock in server.listening.sockets
        ]

    def hand_over(self) -> None:
        """They are another program's, which answers from now on."""
        for server in self._servers.values():
            server.listening.hand_over()
            server.close()

    async def stop(self) -> None:
        """Ends the requests under way too."""
        for server in self._servers.values():
            await server.stop()


def _wanted(config: Config) -> dict[str, model.Admin]:
    wanted = {} if config.admin is None else {"admin": config.admin}
    if (own := config.metrics) is not None:
        wanted["metrics"] = model.Admin(
            bind=own.bind, token=own.token, host=own.host, port=own.port, unix_path=own.unix_path
        )
    return wanted
