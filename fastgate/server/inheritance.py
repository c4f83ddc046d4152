"""Sockets that were open before this process began: from systemd, or from the program that this one replaces.

systemd's: socket activation (sd_listen_fds(3)); one that is named as the listener is its, otherwise one that
is bound as the listener asks. A predecessor's: each is labelled with the listener that it belongs to, so that
a port that the system chose is kept too.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec

from fastgate.config import Sources
from fastgate.server.sockets import Bind
from fastgate.server.tickets import TicketSecrets

__all__ = ["HANDOVER", "Heirloom", "Inheritance"]

T = TypeVar("T")
HANDOVER: Final = "FASTGATE_HANDOVER"
_FIRST: Final = 3  # sd_listen_fds: descriptors begin here


@dataclass(frozen=True, slots=True)
class Heirloom:
    """A listening socket, and whose it is."""

    label: str
    sock: socket.socket


class Inheritance:
    """What may be taken, each once. ready_fd: where a predecessor waits to hear that we serve; -1: there is
    none. sources: of the configuration that it had in force. tickets: the secrets of its session tickets."""

    def __init__(
        self,
        heirlooms: Iterable[Heirloom] = (),
        ready_fd: int = -1,
        sources: Sources | None = None,
        tickets: TicketSecrets | None = None,
    ) -> None:
        self.sources = sources
        self.tickets = tickets
        self._left = list(heirlooms)
        self._ready_fd = ready_fd

    @classmethod
    def of(cls, environ: MutableMapping[str, str]) -> Inheritance:
        """What the environment tells of; that is taken out of it, so that no child believes it too."""
        if (text := environ.pop(HANDOVER, None)) is not None:
            told = json.loads(text)
            sources = _read(told["sources"], Sources)
            # A predecessor of an earlier version has none to give.
            tickets = _read(told["tickets"], TicketSecrets) if "tickets" in told else None
            # What passes them on has made them inheritable; ours are not.
            os.set_inheritable(told["ready"], False)
            sockets = (Heirloom(label, _socket(fd)) for label, fd in told["sockets"])
            return cls(sockets, told["ready"], sources, tickets)
        pid, count, names = (environ.pop(f"LISTEN_{each}", "") for each in ("PID", "FDS", "FDNAMES"))
        if pid != str(os.getpid()) or not count.isdecimal():
            return cls()
        labels = names.split(":") + [""] * int(count)
        return cls(Heirloom(labels[at], _socket(_FIRST + at)) for at in range(int(count)))

    def take(self, labels: tuple[str, ...], bind: Bind) -> list[socket.socket]:
        """The sockets of what is called one of these, or bound so; empty: it opens its own."""
        found = [each for each in self._left if each.label in labels]
        found = found or [each for each in self._left if _is_bound(each.sock, bind)]
        self._left = [each for each in self._left if each not in found]
        return [each.sock for each in found]

    def close_rest(self) -> None:
        """What nobody asked for."""
        for each in self._left:
            each.sock.close()
        self._left.clear()

    def tell_ready(self) -> None:
        """The predecessor may go."""
        if self._ready_fd >= 0:
            with suppress(OSError):
                os.write(self._ready_fd, b"ready")
            os.close(self._ready_fd)
            self._ready_fd = -1


def _read(fd: int, kind: type[T]) -> T:
    os.lseek(fd, 0, os.SEEK_SET)
    with open(fd, "rb") as file:
        return msgspec.json.decode(file.read(), type=kind)


def _socket(fd: int) -> socket.socket:
    sock = socket.socket(fileno=fd)
    sock.set_inheritable(False)
    sock.setblocking(False)
    return sock


def _is_bound(sock: socket.socket, bind: Bind) -> bool:
    name = sock.getsockname()
    if bind.unix_path is not None or isinstance(name, str | bytes):
        return bind.unix_path is not None and name == bind.unix_path
    hosts = (bind.host,) if bind.host else ("0.0.0.0", "::")
    return name[0] in hosts and bind.port == name[1]
