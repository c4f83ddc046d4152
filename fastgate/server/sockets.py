"""Listening sockets, from what `bind` says."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
from contextlib import ExitStack, suppress
from typing import Protocol, Self

__all__ = ["Bind", "Listening", "OpenError"]


class OpenError(Exception):
    """An address, or the access log's file, can't be had. ``str()`` names it and the system's reason."""


class Bind(Protocol):
    """What is asked of a model.Listener or model.Admin."""

    @property
    def bind(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def unix_path(self) -> str | None: ...


class Listening:
    """A bind and its sockets, which listen: for one address, or two for every address of a port (IPv4 and
    IPv6); for each of these one, or one for each worker (`spread`).

    ``servers`` is the user's to fill; close() ends all. ``owner``: close() also takes a Unix socket's file
    away.
    """

    def __init__(self, bind: Bind, sockets: list[socket.socket], *, owner: bool = True) -> None:
        self.bind = bind
        self.sockets = sockets
        self.servers: list[asyncio.Server] = []
        self._owner = owner

    @classmethod
    def open(cls, bind: Bind, what: str, *, backlog: int, private: bool = False) -> Self:
        """``what`` names it in the OpenError that is raised when an address can't be had; then nothing is
        open. ``private``: a Unix socket is for its owner alone."""
        return cls(bind, _listen(bind, what, backlog, private))

    @property
    def addresses(self) -> list[str]:
        """As in "127.0.0.1:8080", "[::1]:8080" or "unix:/path", with the port that a bind to port 0 got."""
        return [_shown(group[0]) for group in self._groups()]

    def spread(self, count: int) -> None:
        """Opens as many sockets for each TCP address as there are workers, if the system lets us.

        The kernel then deals connections out by a hash of their addresses. All workers on one socket would
        take what they see first: measured with 64 connections on four workers, two of them had none, and one
        three quarters (`python -m bench.workers`). The first socket was bound without SO_REUSEPORT, so a
        second program on the same port still learns that it is in use.
        """
        for group in self._groups():
            first = group[0]
            if first.family == socket.AF_UNIX or len(group) >= count:
                continue
            first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            backlog = getattr(self.bind, "backlog", 128)
            with suppress(OSError):
                for _ in range(count - len(group)):
                    self.sockets.append(_another(first, backlog))

    def share(self, seat: int, count: int) -> list[socket.socket]:
        """Those of one of `count` workers, seats counted from 0: every socket is somebody's."""
        found: list[socket.socket] = []
        for group in self._groups():
            found += group[seat::count] or [group[seat % len(group)]]
        return found

    def _groups(self) -> list[list[socket.socket]]:
        """The sockets of each address."""
        groups: dict[object, list[socket.socket]] = {}
        for sock in self.sockets:
            groups.setdefault(sock.getsockname(), []).append(sock)
        return list(groups.values())

    def hand_over(self) -> None:
        """Another process has the sockets too, and goes on with them."""
        self._owner = False

    def close(self) -> None:
        for server in self.servers:
            server.close()
        for sock in self.sockets:
            sock.close()
        if self._owner and self.bind.unix_path is not None:
            with suppress(FileNotFoundError):
                os.unlink(self.bind.unix_path)


def _listen(bind: Bind, what: str, backlog: int, private: bool) -> list[socket.socket]:
    with ExitStack() as undo:
        try:
            sockets = _bound(bind, private)
            for sock in sockets:
                undo.enter_context(sock)
            if bind.unix_path is not None:
                undo.callback(os.unlink, bind.unix_path)
            for sock in sockets:
                # Linux tells some clashes here, not at bind().
                sock.listen(backlog)
        except OSError as error:
            raise OpenError(f"{what} {bind.bind}: {error.strerror or error}") from error
        undo.pop_all()
    return sockets


def _bound(bind: Bind, private: bool) -> list[socket.socket]:
    if bind.unix_path is not None:
        return [_unix_socket(bind.unix_path, private)]
    if bind.host:
        family = socket.AF_INET6 if ":" in bind.host else socket.AF_INET
        return [_tcp_socket(family, bind.host, bind.port)]
    # Every address. One dual-stack socket would show IPv4 clients as mapped addresses and needs IPv6 to be
    # there.
    first = _tcp_socket(socket.AF_INET, "0.0.0.0", bind.port)
    try:
        return [first, _tcp_socket(socket.AF_INET6, "::", first.getsockname()[1])]
    except OSError as error:
        if error.errno in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}:  # a machine without IPv6
            return [first]
        first.close()
        raise


def _tcp_socket(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


def _another(first: socket.socket, backlog: int) -> socket.socket:
    sock = socket.socket(first.family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if first.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(first.getsockname())
        sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    return sock


def _unix_socket(path: str, private: bool) -> socket.socket:
    # A socket file that a dead process left behind is in the way; one that answers belongs to somebody.
    try:
        left_behind = stat.S_ISSOCK(os.stat(path).st_mode)
    except FileNotFoundError:
        left_behind = False
    if left_behind:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
        if private:
            os.chmod(path, 0o600)  # before it listens: nobody can have connected
    except OSError:
        sock.close()
        raise
    return sock


def _shown(sock: socket.socket) -> str:
    name = sock.getsockname()
    if isinstance(name, str):
        return f"unix:{name}"
    host = f"[{name[0]}]" if sock.family == socket.AF_INET6 else name[0]
    return f"{host}:{name[1]}"
