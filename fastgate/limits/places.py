"""Where Redis is: one server, the master that Sentinel names, or the node of a Cluster that has a key."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any, Final, Protocol
from urllib.parse import unquote, urlsplit

from fastgate.config.model import RedisPlace, Secret
from fastgate.limits.resp import RespConnection, command

log: Final = logging.getLogger("fastgate.limits")
REFRESH_SECONDS: Final = 1.0
PORT: Final = 6379


class Place(Protocol):
    def connection(self, key: bytes) -> RespConnection | None:
        """Of the server that has ``key``; None while it is not known."""

    def moved(self) -> None:
        """A server has said that a key is elsewhere."""

    async def close(self) -> None: ...


def place_of(config: RedisPlace, scripts: tuple[str, ...]) -> Place:
    """scripts: loaded on each new connection."""
    if config.cluster:
        return ClusterPlace(config, scripts)
    return OnePlace(config, scripts)


def _greeting(config: RedisPlace, scripts: tuple[str, ...], database: int) -> list[bytes]:
    words: list[bytes] = []
    if config.password is not None:
        password = config.password.reveal() if isinstance(config.password, Secret) else config.password
        words.append(command("AUTH", *([config.username] if config.username else []), password))
    if database:
        words.append(command("SELECT", database))
    return [*words, *(command("SCRIPT", "LOAD", script) for script in scripts)]


def _credentials(config: RedisPlace) -> dict[str, Any]:
    password = config.password.reveal() if isinstance(config.password, Secret) else config.password
    return {"username": config.username or None, "password": password}


class OnePlace:
    """A server by its URL, or the master that Sentinel names each time that a connection is made."""

    def __init__(self, config: RedisPlace, scripts: tuple[str, ...]) -> None:
        parts = urlsplit(config.url)
        database = 0 if parts.scheme == "unix" else int(parts.path.strip("/") or 0)
        self._config = config
        self._one = RespConnection(
            config.url, self._open, _greeting(config, scripts, database), config.timeout / 1e9
        )

    def connection(self, key: bytes) -> RespConnection | None:
        return self._one

    def moved(self) -> None:
        """There is one server; what it says of others is an error of the configuration."""

    async def _open(self, make: Callable[[], asyncio.Protocol]) -> None:
        parts, loop = urlsplit(self._config.url), asyncio.get_running_loop()
        if self._config.sentinel_master:
            host, port = await self._ask_sentinel()
            await loop.create_connection(make, host, port)
        elif parts.scheme == "unix":
            await loop.create_unix_connection(make, unquote(parts.path))
        else:
            await loop.create_connection(make, str(parts.hostname), parts.port or PORT)

    async def _ask_sentinel(self) -> tuple[str, int]:
        from redis.asyncio.sentinel import Sentinel
        from redis.exceptions import RedisError

        nodes = []
        for each in self._config.sentinels:
            host, _, port = each.rpartition(":")
            nodes.append((host.strip("[]"), int(port)))
        sentinel = Sentinel(nodes, socket_timeout=1)  # type: ignore[no-untyped-call]
        try:
            found: tuple[str, int] = await sentinel.discover_master(self._config.sentinel_master)
        except RedisError as error:
            raise OSError(f"sentinel: {error}") from error
        finally:
            for client in sentinel.sentinels:
                await client.aclose()
        return found

    async def close(self) -> None:
        await self._one.close()


class ClusterPlace:
    """The nodes of a cluster; redis-py keeps the table of slots."""

    def __init__(self, config: RedisPlace, scripts: tuple[str, ...]) -> None:
        self._config = config
        self._greeting = _greeting(config, scripts, 0)
        self._nodes: dict[tuple[str, int], RespConnection] = {}
        self._slots: list[RespConnection | None] = [None] * 16384
        self._stale = asyncio.Event()
        self._stale.set()
        self._task = asyncio.get_running_loop().create_task(self._follow(), name="redis cluster")

    def connection(self, key: bytes) -> RespConnection | None:
        from redis.crc import key_slot

        found = self._slots[key_slot(key)]
        if found is None or not found.ready:
            self._stale.set()
        return found

    def moved(self) -> None:
        self._stale.set()

    async def _follow(self) -> None:
        from redis.exceptions import RedisError

        while True:
            await self._stale.wait()
            try:
                await self._read()
                self._stale.clear()
            except (OSError, RedisError) as error:
                log.warning("redis cluster %s: %s", self._config.url, error)
            await asyncio.sleep(REFRESH_SECONDS)

    async def _read(self) -> None:
        from redis.asyncio import RedisCluster

        parts = urlsplit(self._config.url)
        cluster = RedisCluster(host=parts.hostname, port=parts.port or PORT, **_credentials(self._config))
        try:
            await cluster.initialize()
            slots: list[RespConnection | None] = [None] * 16384
            used = {}
            for slot, nodes in cluster.nodes_manager.slots_cache.items():
                place = (str(nodes[0].host), int(nodes[0].port))
                if place not in self._nodes:
                    self._nodes[place] = self._connect(*place)
                used[place] = slots[slot] = self._nodes[place]
        finally:
            await cluster.aclose()
        self._slots = slots
        for place in set(self._nodes) - set(used):
            await self._nodes.pop(place).close()

    def _connect(self, host: str, port: int) -> RespConnection:
        async def open(make: Callable[[], asyncio.Protocol]) -> None:
            await asyncio.get_running_loop().create_connection(make, host, port)

        return RespConnection(f"{host}:{port}", open, self._greeting, self._config.timeout / 1e9)

    async def close(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        for each in self._nodes.values():
            await each.close()
