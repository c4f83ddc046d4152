"""Storage that several share: one issues, all have it; in a directory and in a real Redis."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.acme import Replica, Responder, acme_config, until
from support.directory import Directory, problem
from support.pebble import Pebble
from support.redis import Redis

from fastgate.config import model
from fastgate.server.acme.redis_place import Place, RedisStorage
from fastgate.server.acme.storage import LockLost, Names, Storage
from fastgate.server.acme.storage_directory import DirectoryStorage

NAMES = ("a.example.com", "b.example.com", "c.example.com")


@pytest.fixture
def pebble(tmp_path: Path) -> Iterator[Pebble]:
    folder = tmp_path / "pebble"
    folder.mkdir()
    with Pebble(folder) as pebble:
        yield pebble


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    with Redis(tmp_path) as redis:
        yield redis


@pytest.fixture(params=["directory", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """The table `storage`."""
    if request.param == "directory":
        return {"path": str(tmp_path / "store")}
    redis: Redis = request.getfixturevalue("redis")
    return {"redis": {"url": redis.url}}


@pytest.fixture
async def open_storage(place: dict[str, Any]) -> AsyncIterator[Any]:
    opened: list[Any] = []

    def another() -> Storage:
        if "path" in place:
            return DirectoryStorage(place["path"])
        connection = Place(model.RedisPlace(**place["redis"]))
        storage = RedisStorage(connection)
        opened.extend((storage, connection))
        return storage

    yield another
    for each in opened:
        await each.close()


async def test_two_replicas_issue_once(pebble: Pebble, place: dict[str, Any]) -> None:
    config = acme_config(pebble.directory, pebble.ca_file, place)
    one, other = Replica(config, *NAMES), Replica(config, *NAMES)
    other.board = one.board  # either may be asked
    async with one, other, Responder(pebble, one.board):
        await asyncio.gather(one.wait_shown(), other.wait_shown())
        assert one.shown == other.shown
        assert len(one.history) == len(other.history) == len(NAMES)
    assert pebble.log().count("Issued certificate serial") == len(NAMES)


async def test_what_another_has_renewed_is_taken(pebble: Pebble, place: dict[str, Any]) -> None:
    config = acme_config(pebble.directory, pebble.ca_file, place)
    one, other = Replica(config, "a.example.com"), Replica(config, "a.example.com")
    other.board = one.board
    async with one, other, Responder(pebble, one.board):
        await asyncio.gather(one.wait_shown(), other.wait_shown())

        def put_back(domain: str) -> None:
            one.clock.later = 0

        one.on_set = put_back
        renew_at = one.of("a.example.com").renew_at
        assert renew_at is not None
        one.clock.later = renew_at - one.clock() + 1
        one.wake()
        await asyncio.gather(one.wait_shown(times=2), other.wait_shown(times=2))
        assert one.shown == other.shown
        assert len({serial for _, serial in other.history}) == 2


async def test_any_replica_answers_what_another_has_ordered(pebble: Pebble, redis: Redis) -> None:
    config = acme_config(pebble.directory, pebble.ca_file, {"redis": {"url": redis.url}})
    # One that orders nothing: all that is on its board is the other's.
    bystander = Replica(config)
    async with bystander, Responder(pebble, bystander.board):
        async with Replica(config, *NAMES) as orders:
            await orders.wait_shown()
            assert not any(one.failures for one in orders.view().certificates)
        await until(lambda: not bystander.board.tokens)


async def test_one_has_the_lock(open_storage: Any) -> None:
    one, other = open_storage(), open_storage()
    with pytest.raises(LockLost):
        await one.write("x/record", b"1")
    assert await one.acquire()
    assert not await other.acquire()
    await one.write("x/record", b"1")
    with pytest.raises(LockLost):
        await other.write("x/record", b"2")
    assert await other.read(["x/record", "x/none"]) == {"x/record": b"1"}
    await one.release()
    assert await other.acquire()
    await other.write("x/record", b"2")
    assert await one.read(["x/record"]) == {"x/record": b"2"}
    await other.close()


async def test_who_lost_the_lock_writes_nothing(redis: Redis) -> None:
    place = Place(model.RedisPlace(url=redis.url))
    one, other = RedisStorage(place), RedisStorage(place)
    assert await one.acquire()
    redis.ask("DEL", "fastgate:{acme}:lock")  # as if it had stood still for a minute
    assert await other.acquire()
    with pytest.raises(LockLost):
        await one.write("x/record", b"late")
    await one.release()  # and the other's lock stays
    assert not await one.acquire()
    await other.write("x/record", b"fine")
    await other.close()
    await one.close()
    await place.close()


async def test_redis_that_comes_later_is_used(pebble: Pebble, redis: Redis) -> None:
    redis.kill()
    config = acme_config(pebble.directory, pebble.ca_file, {"redis": {"url": redis.url}})
    async with Replica(config, "a.example.com") as replica, Responder(pebble, replica.board):
        view = await replica.wait_view(lambda view: bool(view.problem))
        assert view.problem.startswith("Redis: ")
        redis.start()
        await replica.wait_shown()
        await replica.wait_view(lambda view: not view.problem)


@pytest.mark.parametrize("damage", ["", "{", '{"version": 1}', '{"version": 9}', "[]", "\x00\xff"])
async def test_damaged_records_are_replaced(pebble: Pebble, tmp_path: Path, damage: str) -> None:
    config = acme_config(pebble.directory, pebble.ca_file, {"path": str(tmp_path / "store")})
    names = Names(config.directory)
    for name in (names.account, names.certificate("a.example.com")):
        file = tmp_path / "store" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(damage)
    async with Replica(config, "a.example.com") as replica, Responder(pebble, replica.board):
        await replica.wait_shown()
        await replica.wait_view(lambda view: replica.of("a.example.com").problem == "")
        for name in (names.account, names.certificate("a.example.com")):
            assert json.loads((tmp_path / "store" / name).read_bytes())["version"] == 1


async def test_a_key_of_another_certificate_is_damage(pebble: Pebble, tmp_path: Path) -> None:
    config = acme_config(pebble.directory, pebble.ca_file, {"path": str(tmp_path / "store")})
    async with Replica(config, "a.example.com", "b.example.com") as replica, Responder(pebble, replica.board):
        await replica.wait_shown()
    names = Names(config.directory)
    a, b = (tmp_path / "store" / names.certificate(name) for name in ("a.example.com", "b.example.com"))
    mixed = {**json.loads(a.read_bytes()), "key": json.loads(b.read_bytes())["key"]}
    a.write_text(json.dumps(mixed))
    async with Replica(config, "a.example.com") as again, Responder(pebble, again.board):
        await again.wait_shown()
        assert again.history[0] not in replica.history


async def test_a_storage_that_cannot_be_written_orders_nothing(pebble: Pebble, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    config = acme_config(pebble.directory, pebble.ca_file, {"path": str(tmp_path / "file" / "store")})
    async with Replica(config, "a.example.com") as replica, Responder(pebble, replica.board):
        view = await replica.wait_view(lambda view: bool(view.problem))
        assert "Not a directory" in view.problem
        assert "newOrder" not in pebble.log().replace("/newOrder", "")
        (tmp_path / "file").unlink()
        await replica.wait_shown()


async def test_what_could_not_be_saved_is_used_and_saved_later(pebble: Pebble, tmp_path: Path) -> None:
    config = acme_config(pebble.directory, pebble.ca_file, {"path": str(tmp_path / "store")})
    names = Names(config.directory)
    async with Replica(config, "a.example.com") as replica, Responder(pebble, replica.board) as responder:

        async def fill() -> None:
            # In the middle of the order, a file where the directory of certificates would be.
            blocker.parent.mkdir(parents=True, exist_ok=True)
            blocker.write_text("")

        blocker = (tmp_path / "store" / names.certificate("a.example.com")).parent
        responder.before = fill
        await replica.wait_shown()
        await replica.wait_view(lambda view: "not saved" in replica.of("a.example.com").problem)
        responder.before = None
        blocker.unlink()
        await replica.wait_view(lambda view: replica.of("a.example.com").problem == "")
        assert len(replica.history) == 1
        assert pebble.log().count("Issued certificate serial") == 1
    record = (tmp_path / "store" / names.certificate("a.example.com")).read_bytes()
    assert names.read_certificate("a.example.com", record).serial == replica.history[0][1]


async def test_a_rate_limit_is_respected(tmp_path: Path) -> None:
    with Directory(tmp_path) as directory:
        limited = problem("rateLimited", "too many certificates for example.com\nthis week")
        directory.answers["/newOrder"] = (429, {"Retry-After": "5000"}, limited)
        config = acme_config(f"{directory.url}/dir", directory.ca_file, {"path": str(tmp_path / "store")})
        async with Replica(config, "a.example.com") as replica:
            await replica.wait_view(lambda view: replica.of("a.example.com").failures == 1)
            one = replica.of("a.example.com")
            assert one.problem == "rateLimited: too many certificates for example.com this week"
            assert one.next_try is not None
            assert 4990 < one.next_try - replica.clock() <= 5000
            for _ in range(3):  # not even when it is made to look
                replica.wake()
                await asyncio.sleep(0.05)
            assert directory.asked["/newOrder"] == 1
            replica.clock.later = 5001
            replica.wake()
            await replica.wait_view(lambda view: replica.of("a.example.com").failures == 2)
            assert directory.asked["/newOrder"] == 2


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ((503, {"Retry-After": "700"}, b"down"), "503"),
        ((200, {}, b"<html>"), "directory"),
        ((200, {}, b"[1]"), "not understood"),
        ((200, {}, b'"' + b"x" * (2 << 20) + b'"'), "an answer of more than"),
        ((500, {}, {"type": 7, "detail": [1]}), "7: (1,)"),
    ],
)
async def test_a_directory_that_answers_nonsense_is_told_of(
    tmp_path: Path, answer: tuple[int, dict[str, str], Any], told: str
) -> None:
    with Directory(tmp_path) as directory:
        directory.answers["/dir"] = answer
        config = acme_config(f"{directory.url}/dir", directory.ca_file, {"path": str(tmp_path / "store")})
        async with Replica(config, "a.example.com") as replica:
            view = await replica.wait_view(lambda view: bool(view.problem))
            assert told in view.problem
            assert len(view.problem) <= 1000
            assert directory.asked["/dir"] == 1
