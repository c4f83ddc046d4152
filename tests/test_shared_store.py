"""What plugins share on a machine, and through Redis: for processes that come, go and are killed."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.redis import Redis

from fastgate.config import model
from fastgate.plugins import Busy, Shared
from fastgate.server.shared_store import PLACES, HostMemory, HostStore, SharedValues


def memory(tmp_path: Path, entries: int = 64) -> HostMemory:
    return HostMemory(str(tmp_path / "gateway.toml"), entries)


def files() -> list[Path]:
    return list(Path("/dev/shm").glob(f"fastgate-{os.geteuid()}-shared-*"))


async def holds(one: Shared, other: Shared, foreign: Shared) -> None:
    assert await one.get("a") is None
    await one.set("a", b"1", 5)
    assert await other.get("a") == b"1"
    assert await foreign.get("a") is None, "a plugin's keys are its own"
    await other.set("a", b"22", 0.05)
    assert await one.get("a") == b"22"
    assert [await each.set_if_absent("once", b"x", 5) for each in (one, other)] == [True, False]
    assert await other.get("once") == b"x"
    assert [await each.add("count", 2, 5) for each in (one, other, one)] == [2, 4, 6]
    assert await one.get("count") == b"6"
    await one.delete("once")
    assert await other.set_if_absent("once", b"y", 5)
    with pytest.raises(ValueError, match="at most 1024 bytes, not 1025"):
        await one.set("long", b"x" * 1025, 1)
    await one.set("long", b"x" * 1024, 1)
    assert await other.get("long") == b"x" * 1024
    await asyncio.sleep(0.06)  # the clock is the kernel's, or Redis'
    assert await one.get("a") is None


async def test_on_a_machine(tmp_path: Path) -> None:
    before = set(files())
    first, second = memory(tmp_path), memory(tmp_path)
    await holds(HostStore(first, "p"), HostStore(second, "p"), HostStore(second, "q"))
    first.close()
    second.close()
    assert set(files()) <= before, "the last one tidies up"


async def test_in_redis(tmp_path: Path) -> None:
    with Redis(tmp_path) as redis:
        place = model.RedisPlace(url=redis.url, timeout=1_000_000_000)
        values = SharedValues("", model.SharedValues(redis=place))
        one = values.of("p")
        deadline = time.monotonic() + 5
        while True:
            try:
                await one.get("x")
                break
            except OSError:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)
        await holds(one, values.of("p"), values.of("q"))
        redis.kill()
        with pytest.raises(OSError, match="Redis"):
            await one.get("a")
        await values.close()


async def test_what_is_full_forgets_what_ends_soonest(tmp_path: Path) -> None:
    kept = memory(tmp_path, PLACES // 2)
    store = HostStore(kept, "p")
    for number in range(PLACES):
        await store.set(str(number), b"x", 100 - number)
    await store.set("new", b"x", 50)
    last = str(PLACES - 1)
    assert (await store.get(last), await store.get("0"), await store.get("new")) == (None, b"x", b"x")
    kept.close()


async def test_what_is_full_forgets_no_nonce(tmp_path: Path) -> None:
    kept = memory(tmp_path, PLACES // 2)
    store = HostStore(kept, "p")
    for number in range(PLACES):
        assert await store.set_if_absent(str(number), b"x", 100)
    with pytest.raises(Busy):
        await store.set_if_absent("one more", b"x", 100)
    with pytest.raises(Busy):
        await store.set("one more", b"x", 100)
    assert not await store.set_if_absent("0", b"x", 100)
    await store.delete("0")
    assert await store.set_if_absent("one more", b"x", 100)
    kept.close()


def test_what_the_killed_have_left_goes(tmp_path: Path) -> None:
    left = Path(f"/dev/shm/fastgate-{os.geteuid()}-shared-{'0' * 24}")
    left.write_bytes(b"")
    memory(tmp_path).close()
    assert not left.exists()


def test_nobody_can_know_where_a_key_is(tmp_path: Path) -> None:
    """But those who share the file do."""
    one, same, other = memory(tmp_path), memory(tmp_path), memory(tmp_path / "other")
    assert one.digest("p", "k") == same.digest("p", "k") != other.digest("p", "k")
    for each in (one, same, other):
        each.close()


@contextlib.contextmanager
def held(file: Path) -> Iterator[None]:
    """By a process that does not go on; all of it, where one of the gateway's would hold one set."""
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        fcntl.lockf(os.open(file, os.O_RDWR), fcntl.LOCK_EX)
        os.write(told, b"held")
        signal.pause()
        os._exit(1)
    try:
        assert os.read(ready, 4) == b"held"
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(told)


async def test_who_is_stopped_with_the_lock_holds_up_others_for_a_while(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = set(files())
    kept = memory(tmp_path)
    [file] = set(files()) - before
    store = HostStore(kept, "p")
    await store.set("a", b"x", 60)
    with held(file):
        waiting = [asyncio.ensure_future(store.get("a")), asyncio.ensure_future(store.add("n", 1, 60))]
        await asyncio.sleep(0)  # the loop is not held up: it gets here, and both have begun
        assert not any(each.done() for each in waiting)
        for each in waiting:
            with pytest.raises(TimeoutError, match="is one stopped"):
                await each
        own = memory(tmp_path)
        assert "they are this gateway's alone" in caplog.text
        assert await HostStore(own, "p").get("a") is None
        own.close()
    assert await store.get("a") == b"x"
    kept.close()


def test_who_is_killed_leaves_no_lock(tmp_path: Path) -> None:
    kept = memory(tmp_path)
    for _ in range(5):
        child = os.fork()
        if child == 0:
            own = HostStore(memory(tmp_path), "p")
            while True:
                asyncio.run(own.set("a", b"x" * 1000, 5))
        time.sleep(0.02)  # in the middle of it
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        store = HostStore(kept, "p")
        asyncio.run(store.set("b", b"there", 5))
        assert asyncio.run(store.get("a")) in (b"x" * 1000, None)
        assert asyncio.run(store.get("b")) == b"there"
    kept.close()
