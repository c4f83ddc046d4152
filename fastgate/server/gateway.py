"""The gateway in one event loop: opens its listeners, serves, drains."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Callable

from fastgate import _core
from fastgate.config import Config, model
from fastgate.server.build import Snapshot, build
from fastgate.upstreams.resolve import Resolver

__all__ = ["BindError", "Gateway"]

NS = 1e9


class BindError(Exception):
    """A listener's address can't be had. ``str()`` names it and the system's reason."""


class Gateway:
    """Serves one configuration until it is drained.

    start() opens the listeners; drain() finishes what runs and closes everything. Both are called once, in
    the loop that serves.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._servers: list[asyncio.Server] = []
        self._unix_paths: list[str] = []

    async def start(self) -> list[tuple[str, str]]:
        """Opens every listener and returns (address, listener's name) of each.

        Raises BindError; then nothing is open.
        """
        config = self.config
        loop = asyncio.get_running_loop()
        self.log = _core.AccessLog(config.access_log) if config.access_log.enabled else None
        self.counters = _core.Counters([route.name for route in config.routes], list(config.upstreams), 1)
        self.counters.use_worker(0)
        self.worker = _core.Worker(
            loop,
            self.log,
            self.counters,
            max_connections=config.server.max_connections,
            max_per_address=config.server.max_connections_per_ip,
            flush_interval=config.access_log.flush_interval,
        )
        self.snapshot: Snapshot = build(config, self.worker, Resolver(loop))
        self.worker.watch(self.snapshot.upstreams)
        opened: list[tuple[str, str]] = []
        try:
            for listener, compiled in zip(config.listeners, self.snapshot.listeners, strict=True):
                for sock in _sockets(listener):
                    server = await loop.create_server(
                        self._factory(compiled), sock=sock, backlog=listener.backlog
                    )
                    self._servers.append(server)
                    opened.append((_shown(sock), listener.name))
                if listener.unix_path is not None:
                    self._unix_paths.append(listener.unix_path)
        except OSError as error:
            await self._close_listeners()
            self.worker.close()
            raise BindError(f"listener {listener.bind}: {error.strerror or error}") from error
        return opened

    def _factory(self, compiled: _core.Listener) -> Callable[[], _core.Downstream1]:
        worker = self.worker
        return lambda: _core.Downstream1(worker, compiled)

    def reopen_log(self) -> None:
        """Opens the access log's file anew, after it was renamed (SIGUSR1)."""
        if self.log is not None:
            self.log.reopen()

    async def drain(self) -> dict[str, int]:
        """Takes nothing new, finishes what runs within server.drain_timeout, cuts the rest.

        Returns what was cut, what is still held (zeros, if nothing leaks) and what the log lost.
        """
        await self._close_listeners()
        await self.worker.drain(self.snapshot.upstreams, self.config.server.drain_timeout / NS)
        self.worker.close()
        dropped = 0
        if self.log is not None:
            await asyncio.to_thread(self.log.close, 5.0)
            dropped = self.log.dropped
        return {"cut": self.worker.cut, **self.worker.census(), "log_dropped": dropped}

    async def _close_listeners(self) -> None:
        for server in self._servers:
            server.close()
        self._servers.clear()
        for path in self._unix_paths:
            try:
                os.unlink(path)
            except FileNotFoundError:
                continue
        self._unix_paths.clear()


def _sockets(listener: model.Listener) -> list[socket.socket]:
    if listener.unix_path is not None:
        return [_unix_socket(listener.unix_path)]
    if listener.host:
        family = socket.AF_INET6 if ":" in listener.host else socket.AF_INET
        return [_tcp_socket(family, listener.host, listener.port)]
    # Every address. One dual-stack socket would show IPv4 clients as mapped addresses and needs IPv6 to be
    # there.
    first = _tcp_socket(socket.AF_INET, "0.0.0.0", listener.port)
    try:
        return [first, _tcp_socket(socket.AF_INET6, "::", first.getsockname()[1])]
    except OSError as error:
        if error.errno in {97, 99}:  # EAFNOSUPPORT, EADDRNOTAVAIL: a machine without IPv6
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


def _unix_socket(path: str) -> socket.socket:
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
