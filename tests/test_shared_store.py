"""Small values that workers, gateways and replicas share: in shared memory, and in a real Redis."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.forks import in_children
from support.redis import Redis

from fastgate.config.model import RedisPlace
from fastgate.plugins.api import Busy, Shared
from fastgate.server.host_store import MAX_VALUE, PAGE, SET, HostTable
from fastgate.server.redis_store import RedisShare

Stores = Callable[[str], Shared]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    # A Unix socket's path has 107 bytes at most, which pytest's folders of workers may exceed.
    with (
        tempfile.TemporaryDirectory(prefix="fg-redis-") as short,
        Redis(
            tmp_path_factory.mktemp("redis"), "--requirepass", "sesame", "--unixsocket", f"{short}/socket"
        ) as server,
    ):
        yield server


def place(url: str, password: str = "sesame", **others: Any) -> RedisPlace:
    return RedisPlace(url=url, password=password or None, **others)


@pytest.fixture(params=["host", "redis", "redis by its socket"])
async def stores(request: pytest.FixtureRequest, tmp_path: Path, redis: Redis) -> AsyncIterator[Stores]:
    if request.param == "host":
        table = HostTable(tmp_path / "store")
        yield table.store
        table.close()
        return
    share = RedisShare(place(redis.url if request.param == "redis" else f"unix:{redis.options[-1]}"))
    yield lambda plugin: share.store(f"{request.node.name}:{plugin}")
    await share.close()


async def test_values_and_counters(stores: Stores) -> None:
    store, other = stores("one"), stores("other")
    assert await store.get("k") is None
    await store.set("k", b"\x00v", 60)
    assert (await store.get("k"), await other.get("k")) == (b"\x00v", None), "a plugin's keys are its own"
    assert [await store.add("n", 5, 60), await store.add("n", -7, 60)] == [5, -2]
    await store.delete("k")
    await store.delete("k")
    assert await store.get("k") is None
    await store.set("k", b"x" * MAX_VALUE, 60)
    assert await store.get("k") == b"x" * MAX_VALUE
    with pytest.raises(ValueError, match="1024 bytes"):
        await store.set("k", b"x" * (MAX_VALUE + 1), 60)
    with pytest.raises(ValueError, match="ttl"):
        await store.set("k", b"x", 0)


async def test_once_for_all(stores: Stores) -> None:
    store, again = stores("one"), stores("one")
    assert await store.set_if_absent("nonce", b"1", 60)
    assert not await again.set_if_absent("nonce", b"2", 60)
    assert await again.get("nonce") == b"1"


async def test_it_is_forgotten(stores: Stores) -> None:
    store = stores("one")
    assert await store.set_if_absent("nonce", b"1", 0.03)
    async with asyncio.timeout(5):
        while not await store.set_if_absent("nonce", b"2", 60):  # noqa: ASYNC110 - only asking tells
            await asyncio.sleep(0.005)
    assert await store.get("nonce") == b"2"


async def test_names_do_not_run_into_each_other(stores: Stores) -> None:
    await stores("a").set("b:c", b"1", 60)
    assert await stores("a:b").get("c") is None
    assert await stores("a").get("b") is None


# -- the host's table


def test_processes_count_together(tmp_path: Path) -> None:
    """Forked ones, and those that open the file by themselves."""
    table = HostTable(tmp_path / "store")

    def worker(number: int) -> None:
        mine = table if number % 2 else HostTable(tmp_path / "store")
        store = mine.store("one")

        async def count() -> None:
            for _ in range(500):
                await store.add("n", 1, 60)

        asyncio.run(count())

    assert in_children(4, worker) == [0, 0, 0, 0]
    assert asyncio.run(table.store("one").get("n")) == b"2000"
    table.close()
    assert not (tmp_path / "store").exists(), "the last one removes it"


def test_one_of_many_is_the_first(tmp_path: Path) -> None:
    table = HostTable(None)

    def worker(number: int) -> None:
        store = table.store("one")

        async def race() -> None:
            for turn in range(200):
                if await store.set_if_absent(f"nonce {turn}", b"%d" % number, 60):
                    await store.add("won", 1, 60)

        asyncio.run(race())

    assert in_children(4, worker) == [0, 0, 0, 0]
    assert asyncio.run(table.store("one").get("won")) == b"200"


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """No lock stays held, and a value is whole or absent."""
    table = HostTable(tmp_path / "store", entries=32)
    values = [bytes([letter]) * MAX_VALUE for letter in b"abc"]

    def worker(number: int) -> None:
        store = table.store("one")

        async def write() -> None:
            while True:
                for value in values:
                    await store.set("k", value, 60)

        asyncio.run(write())

    for turn in range(20):
        pid = os.fork()
        if pid == 0:
            try:
                worker(turn)
            finally:
                os._exit(1)
        try:
            seen = asyncio.run(_until_changed(table.store("one"), turn))
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        assert seen in values
        assert asyncio.run(table.store("one").get("k")) in (None, *values)
        asyncio.run(table.store("one").set("k", b"ours", 60))
    table.close()


async def _until_changed(store: Shared, turn: int) -> bytes:
    async with asyncio.timeout(10):
        while (found := await store.get("k")) in (None, b"ours"):  # noqa: ASYNC110 - another process'
            await asyncio.sleep(0.0001 * turn)
    assert found is not None
    return found


async def test_full_forgets_what_ends_first_but_no_nonce() -> None:
    clock = [10**9]
    table = HostTable(None, entries=SET // 2, now=lambda: clock[0])
    store = table.store("one")
    for number in range(SET - 1):
        assert await store.set_if_absent(f"nonce {number}", b"1", 60)
    await store.set("soon", b"1", 1)
    await store.set("next", b"1", 1)
    assert await store.get("soon") is None
    assert await store.set_if_absent("last", b"1", 60)
    with pytest.raises(Busy):
        await store.set("one more", b"1", 60)
    assert not await store.set_if_absent("nonce 0", b"1", 60)
    clock[0] += 61 * 10**9
    assert await store.set_if_absent("one more", b"1", 60)


async def test_a_value_that_was_torn_is_absent() -> None:
    table = HostTable(None, entries=32)
    store = table.store("one")
    await store.set("k", b"value", 60)
    at = table._map.find(b"value")
    table._map[at : at + 1] = b"V"
    assert await store.get("k") is None
    await store.set("k", b"value", 60)
    assert await store.get("k") == b"value"


def _other_size(path: Path) -> None:
    HostTable(path, entries=SET)  # left open: it stays


def _noise(path: Path) -> None:
    size = PAGE + HostTable(None, entries=32)._length
    path.write_bytes(os.urandom(size))
    path.chmod(0o600)


def _link(path: Path) -> None:
    path.symlink_to(path.with_name("elsewhere"))


def _open_to_all(path: Path) -> None:
    table = HostTable(path, entries=32)
    asyncio.run(table.store("one").set("k", b"forged", 60))
    path.chmod(0o666)


@pytest.mark.parametrize("leave", [_other_size, _noise, _link, _open_to_all])
def test_files_that_are_not_believed(tmp_path: Path, leave: Callable[[Path], None]) -> None:
    path = tmp_path / "store"
    leave(path)
    table = HostTable(path, entries=32)
    assert asyncio.run(table.store("one").get("k")) is None
    asyncio.run(table.store("one").set("k", b"1", 60))
    again = HostTable(path, entries=32)
    assert asyncio.run(again.store("one").get("k")) == b"1"
    assert path.stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "elsewhere").exists()
    assert [each.name for each in tmp_path.iterdir()] == ["store"]


# -- Redis


async def test_redis_comes_back(tmp_path: Path) -> None:
    from redis.exceptions import RedisError

    with Redis(tmp_path) as server:
        share = RedisShare(place(server.url, ""))
        store = share.store("one")
        await store.set("k", b"1", 60)
        server.kill()
        with pytest.raises(RedisError):
            await store.get("k")
        server.start()
        assert await store.get("k") is None
        assert await store.set_if_absent("k", b"2", 60)
        await share.close()


async def test_wrong_password(redis: Redis) -> None:
    from redis.exceptions import RedisError

    share = RedisShare(place(redis.url, "wrong"))
    with pytest.raises(RedisError):
        await share.store("one").get("k")
    await share.close()


async def test_sentinel_names_the_master(tmp_path: Path) -> None:
    with Redis(tmp_path) as server:
        rules = tmp_path / "sentinel.conf"
        rules.write_text(f"sentinel monitor shop 127.0.0.1 {server.port} 1\n")
        with Redis(tmp_path, sentinel=rules) as sentinel:
            asks = place(
                "redis://unused:1/3", "", sentinels=(f"127.0.0.1:{sentinel.port}",), sentinel_master="shop"
            )
            share = RedisShare(asks)
            await share.store("one").set("k", b"1", 60)
            assert await share.store("one").get("k") == b"1"
            await share.close()


async def test_cluster(tmp_path: Path) -> None:
    """One node that has all slots."""
    with Redis(tmp_path, "--cluster-enabled", "yes") as node:
        node.ask("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        while b"cluster_state:ok" not in node.ask("CLUSTER", "INFO"):  # noqa: ASYNC110 - only asking tells
            await asyncio.sleep(0.01)
        share = RedisShare(place(node.url, "", cluster=True))
        store = share.store("one")
        assert await store.set_if_absent("k", b"1", 60)
        assert not await store.set_if_absent("k", b"1", 60)
        assert [await store.add(f"n{i}", i, 60) for i in range(3)] == [0, 1, 2]
        await share.close()
