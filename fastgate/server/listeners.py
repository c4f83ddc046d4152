"""The listeners of one worker: sockets that are open, and the slot that their connections follow."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Collection, Mapping
from functools import partial

from fastgate import _core
from fastgate.config import Config, model
from fastgate.server.sockets import Listening

__all__ = [
    "Key",
    "Opened",
    "Opener",
    "RunningListener",
    "addresses_of",
    "listener_key",
    "open_listener",
    "taken_hint",
]

Key = tuple[object, ...]  # what makes two listeners the same socket: `listener_key`
Opened = list[tuple[str, str]]  # (address, name)

# Where a listener's sockets come from. Raises OpenError.
Opener = Callable[[model.Listener], Listening]


def listener_key(listener: model.Listener) -> Key:
    """What makes two listeners the same socket. Of a port that the system chose only its name knows."""
    free = listener.unix_path is None and listener.port == 0
    return (listener.host, listener.port, listener.unix_path, listener.name if free else "")


def open_listener(listener: model.Listener) -> Listening:
    """By its ``bind``, for a gateway that is one process."""
    return Listening.open(listener, "listener", backlog=listener.backlog)


def addresses_of(config: Config, listening: Mapping[Key, Listening]) -> Opened:
    """Of those listeners of the configuration that are in ``listening``, in its order."""
    return [
        (address, each.name)
        for each in config.listeners
        if listener_key(each) in listening
        for address in listening[listener_key(each)].addresses
    ]


def taken_hint(config: Config, open_ones: Collection[Key]) -> str:
    """What to add to "in use" where it may be ourselves: by one of the listeners that are open."""
    ours = {port for _, port, *_ in open_ones} - {0}
    added = {each.port for each in config.listeners if listener_key(each) not in open_ones}
    return " (by a listener that runs now: use another port, or start it anew)" if added & ours else ""


class RunningListener:
    """A listener whose sockets are open. It accepts from serve() to close()."""

    def __init__(self, config: model.Listener, listening: Listening) -> None:
        self.config = config
        self.listening = listening
        self._slot: _core.ListenerSlot | None = None
        self._borrowed: dict[int, list[tuple[asyncio.Server, socket.socket]]] = {}  # by seat

    async def serve(self, worker: _core.Worker, compiled: _core.Listener) -> None:
        self._slot = slot = _core.ListenerSlot(compiled)
        for sock in self.listening.sockets:
            self.listening.servers.append(await self._accept(worker, slot, sock))

    async def _accept(
        self, worker: _core.Worker, slot: _core.ListenerSlot, sock: socket.socket
    ) -> asyncio.Server:
        # partial: one Python frame less for each connection.
        return await asyncio.get_running_loop().create_server(
            partial(_core.accepted, worker, slot), sock=sock, backlog=self.config.backlog
        )

    async def borrow(self, worker: _core.Worker, seat: int, sock: socket.socket) -> None:
        """Accepts on a socket of another worker's seat, too, until `give_back` or the end."""
        assert self._slot is not None
        self._borrowed.setdefault(seat, []).append((await self._accept(worker, self._slot, sock), sock))

    def give_back(self, seat: int) -> None:
        for server, sock in self._borrowed.pop(seat, ()):
            server.close()
            sock.close()

    def follow(self, config: model.Listener, compiled: _core.Listener) -> None:
        assert self._slot is not None
        self._slot.follow(compiled)
        if config.backlog != self.config.backlog:
            for sock in self.listening.sockets:
                sock.listen(config.backlog)
        self.config = config

    def close(self, worker: _core.Worker) -> None:
        """No new connection; those that are open end after what runs on them."""
        self.stop_accepting()
        if self._slot is not None:
            worker.close_listener(self._slot)

    def stop_accepting(self) -> None:
        """No new connection; those that are open go on."""
        self.listening.close()
        for seat in tuple(self._borrowed):
            self.give_back(seat)
