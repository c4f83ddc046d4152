"""Redis for ACME: a connection, and the storage that all replicas share."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Sequence
from typing import Any, Final, cast

from redis import exceptions
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.sentinel import Sentinel

from fastgate.config.model import RedisPlace
from fastgate.server.acme.storage import MOST_BYTES, LockLost, StorageError

__all__ = ["Place", "RedisStorage"]

log: Final = logging.getLogger("fastgate.acme")
TIMEOUT: Final = 5.0  # seconds for an answer: nothing here is in a hurry, unlike a rate limit
LEASE: Final = 60.0  # seconds for which the lock is held at a time
RENEW: Final = 15.0

# KEYS: lock, record. ARGV: owner, value. Writing is the fence: who lost the lock writes nothing.
_WRITE: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[2])
return 1
"""
# KEYS: lock. ARGV: owner, milliseconds.
_RENEW: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
_RELEASE: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""


class Place:
    """Keys begin with the configured prefix and share a hash tag: one slot of a cluster has them all."""

    def __init__(self, config: RedisPlace) -> None:
        self._config = config
        self.prefix = f"{config.prefix}{{acme}}:"
        password = config.password
        options: dict[str, Any] = {
            "username": config.username or None,
            "password": password if isinstance(password, str | None) else password.reveal(),
            "socket_timeout": TIMEOUT,
            "socket_connect_timeout": TIMEOUT,
        }
        self._sentinel: Sentinel | None = None
        self._client: Any
        if config.cluster:
            self._client = RedisCluster.from_url(config.url, **options)
        elif config.sentinels:
            hosts = [(host, int(port)) for host, _, port in (s.rpartition(":") for s in config.sentinels)]
            database = config.url.rpartition("/")[2]
            options["db"] = int(database) if database.isdecimal() else 0
            self._sentinel = Sentinel(hosts, socket_timeout=TIMEOUT)  # type: ignore[no-untyped-call]
            self._client = self._sentinel.master_for(config.sentinel_master, **options)
        else:
            url = config.url
            self._client = Redis.from_url(f"unix://{url[5:]}" if url.startswith("unix:/") else url, **options)

    async def ask(self, *words: str | bytes | int) -> Any:
        """One command. Raises StorageError."""
        return await self._asked(self._client.execute_command(*words))

    async def run(self, script: str, keys: Sequence[str], *arguments: str | bytes | int) -> Any:
        """A script, its keys without the prefix. Raises StorageError."""
        names = [f"{self.prefix}{key}" for key in keys]
        return await self._asked(self._client.eval(script, len(names), *names, *arguments))

    async def _asked(self, answer: Any) -> Any:
        try:
            return await cast(Awaitable[Any], answer)
        # AttributeError: the client has closed the connection that it is just about to use (redis 8.1).
        except (exceptions.RedisError, OSError, TimeoutError, AttributeError) as error:
            raise StorageError(f"Redis: {error or type(error).__name__}") from error

    async def close(self) -> None:
        with contextlib.suppress(exceptions.RedisError, OSError):
            await self._client.aclose()
        if self._sentinel is not None:
            for each in self._sentinel.sentinels:
                await each.aclose()


class RedisStorage:
    """Records are strings; the lock is a key that expires with whoever does not renew it."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._owner = ""
        self._renewing: asyncio.Task[None] | None = None

    async def read(self, names: Sequence[str]) -> dict[str, bytes]:
        if not names:
            return {}
        found = await self._place.ask("MGET", *(f"{self._place.prefix}{name}" for name in names))
        return {
            name: value[: MOST_BYTES + 1]
            for name, value in zip(names, found, strict=True)
            if value is not None
        }

    async def write(self, name: str, value: bytes) -> None:
        if not await self._place.run(_WRITE, ["lock", name], self._owner or "nobody", value):
            raise LockLost("another one has the lock by now")

    async def acquire(self) -> bool:
        await self.release()
        owner = secrets.token_hex(16)
        lock = f"{self._place.prefix}lock"
        if await self._place.ask("SET", lock, owner, "NX", "PX", int(LEASE * 1000)) is None:
            return False
        self._owner = owner
        self._renewing = asyncio.get_running_loop().create_task(self._renew(), name="acme lock")
        return True

    async def _renew(self) -> None:
        # A Redis that does not answer for a while is asked again: what counts is the fence at each write.
        while True:
            await asyncio.sleep(RENEW)
            with contextlib.suppress(StorageError):
                if not await self._place.run(_RENEW, ["lock"], self._owner, int(LEASE * 1000)):
                    log.warning("acme: the lock in Redis was lost")
                    return

    async def release(self) -> None:
        owner, self._owner = self._owner, ""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait([self._renewing])
            self._renewing = None
        if owner:
            # Where it can't be given back it expires.
            with contextlib.suppress(StorageError):
                await self._place.run(_RELEASE, ["lock"], owner)

    async def close(self) -> None:
        await self.release()
