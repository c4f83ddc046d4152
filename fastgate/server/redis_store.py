"""``Shared`` for all replicas: values in Redis, by redis-py, which knows Sentinel and Cluster."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

from fastgate.config.model import RedisPlace, Secret
from fastgate.server.host_store import check_value, life_ns

# One step, so that no counter is ever left without its end. KEYS[1], ARGV: by, milliseconds.
ADD: Final = (
    "local n = redis.call('INCRBY', KEYS[1], ARGV[1]) redis.call('PEXPIRE', KEYS[1], ARGV[2]) return n"
)


class RedisShare:
    """The client of all plugins. It connects when it is first needed, and again by itself.

    timeout: seconds that an answer may take; what is late or unreachable raises redis.exceptions.RedisError
    in the plugin that asks. A command whose connection ends is sent once more: a counter may then count
    twice, and who was the first in ``set_if_absent`` may be told that it was not."""

    def __init__(self, place: RedisPlace, timeout: float = 1.0) -> None:
        from redis.asyncio import Redis, RedisCluster, Sentinel
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
        from redis.exceptions import ConnectionError as NoConnection

        self.prefix = place.prefix
        self._client: Any
        self._sentinels: list[Any] = []
        password = place.password.reveal() if isinstance(place.password, Secret) else place.password
        options: dict[str, Any] = {
            "username": place.username or None,
            "password": password,
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            # Once more, on a new connection: those of before Redis was restarted are dead, which only asking
            # tells.
            "retry": Retry(NoBackoff(), 1, supported_errors=(NoConnection,)),
        }
        if place.cluster:
            self._client = RedisCluster.from_url(place.url, **options)
        elif place.sentinels:
            nodes = (each.rpartition(":") for each in place.sentinels)
            hosts = [(host.strip("[]"), int(port)) for host, _, port in nodes]
            sentinel: Any = Sentinel(hosts, socket_timeout=timeout)  # type: ignore[no-untyped-call]
            self._sentinels = sentinel.sentinels
            database = urlsplit(place.url).path.strip("/")
            options["db"] = int(database) if database.isdecimal() else 0
            self._client = sentinel.master_for(place.sentinel_master, **options)
        else:
            # redis-py's form of a path has two slashes more.
            url = place.url.replace("unix:/", "unix:///", 1) if "://" not in place.url else place.url
            self._client = Redis.from_url(url, max_connections=32, **options)

    def store(self, plugin: str) -> RedisStore:
        return RedisStore(self._client, f"{self.prefix}shared:{len(plugin)}:{plugin}:")

    async def close(self) -> None:
        for each in (self._client, *self._sentinels):
            await each.aclose()


class RedisStore:
    """The ``Shared`` of one plugin."""

    def __init__(self, client: Any, prefix: str) -> None:
        self._client = client
        self._prefix = prefix

    def _name(self, key: str) -> bytes:
        return (self._prefix + key).encode("utf-8", "surrogatepass")

    async def get(self, key: str) -> bytes | None:
        found: bytes | None = await self._client.get(self._name(key))
        return found

    async def set(self, key: str, value: bytes, ttl: float) -> None:
        check_value(value)
        await self._client.set(self._name(key), value, px=_milliseconds(ttl))

    async def add(self, key: str, by: int, ttl: float) -> int:
        return int(await self._client.eval(ADD, 1, self._name(key), by, _milliseconds(ttl)))

    async def set_if_absent(self, key: str, value: bytes, ttl: float) -> bool:
        check_value(value)
        return bool(await self._client.set(self._name(key), value, px=_milliseconds(ttl), nx=True))

    async def delete(self, key: str) -> None:
        await self._client.delete(self._name(key))


def _milliseconds(ttl: float) -> int:
    return life_ns(ttl) // 1_000_000
