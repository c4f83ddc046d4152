"""ACME's storage in more than one Redis: behind a Sentinel, through its failovers, and in a Cluster."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.acme import Replica, Responder, acme_config, until
from support.pebble import Pebble
from support.redis import Redis, RedisCluster, replica_of, sentinel_of

NAME = "a.example.com"
PREFIX = "fastgate:{acme}:"


@pytest.fixture
def pebble(tmp_path: Path) -> Iterator[Pebble]:
    folder = tmp_path / "pebble"
    folder.mkdir()
    with Pebble(folder) as pebble:
        yield pebble


class Watched(NamedTuple):
    master: Redis
    replica: Redis
    sentinel: Redis
    place: dict[str, Any]

    def master_port(self) -> int:
        """Of whom the Sentinel names now."""
        told = self.sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "acme")
        return int(told.split(b"\r\n")[4])


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    """A master and its replica, which a Sentinel knows."""
    folders = [tmp_path / name for name in ("master", "replica", "sentinel")]
    for folder in folders:
        folder.mkdir()
    with Redis(folders[0]) as master, replica_of(master, folders[1]) as replica:
        deadline = time.monotonic() + 20
        while b"master_link_status:up" not in replica.ask("INFO", "replication"):
            assert time.monotonic() < deadline, "the replica does not follow"
            time.sleep(0.02)
        with sentinel_of(master, folders[2], "acme") as sentinel:
            while str(replica.port).encode() not in sentinel.ask("SENTINEL", "REPLICAS", "acme"):
                assert time.monotonic() < deadline, "the Sentinel does not know the replica"
                time.sleep(0.02)
            place = {"sentinels": [f"127.0.0.1:{sentinel.port}"], "sentinel_master": "acme"}
            yield Watched(
                master, replica, sentinel, {"redis": {"url": "redis://sentinel.invalid/0", **place}}
            )


async def due(replica: Replica) -> None:
    """Its certificate is to be renewed now."""
    renew_at = replica.of(NAME).renew_at
    assert renew_at is not None

    def put_back(domain: str) -> None:
        replica.clock.later = 0

    replica.on_set = put_back
    replica.clock.later = renew_at - replica.clock() + 1
    replica.wake()


@pytest.mark.parametrize("how", ["killed", "told"])
async def test_a_failover_of_the_sentinels(pebble: Pebble, watched: Watched, how: str) -> None:
    """Before it a certificate is issued, which outlives it; behind it the next one is. killed: the master.
    told: the Sentinel, to make it a replica, which goes on to answer, and refuses to be written."""
    config = acme_config(pebble.directory, pebble.ca_file, watched.place)
    async with Replica(config, NAME) as replica, Responder(pebble, replica.board):
        await replica.wait_shown()
        await replica.wait_view(lambda view: not view.problem and not replica.of(NAME).problem)
        # Replicated, that the lock was given back too: else it is held until its lease is over.
        await until(lambda: b"$-1" in watched.replica.ask("GET", f"{PREFIX}lock"))
        if how == "killed":
            watched.master.kill()
        else:
            assert watched.sentinel.ask("SENTINEL", "FAILOVER", "acme") == b"+OK\r\n"
        await until(lambda: watched.master_port() == watched.replica.port)
        # Another one finds there what was issued before, and orders nothing.
        async with Replica(config, NAME) as other:
            await other.wait_shown()
            assert other.shown == replica.shown
        await due(replica)
        await replica.wait_shown(times=2)
        await until(lambda: not replica.of(NAME).problem and not replica.view().problem)
        assert len({serial for _, serial in replica.history}) == 2
    assert PREFIX.encode() in watched.replica.ask("KEYS", f"{PREFIX}*/certificates/*")
    assert pebble.log().count("Issued certificate serial") == 2


async def test_a_cluster_has_them_in_one_slot(pebble: Pebble, tmp_path: Path) -> None:
    """Two replicas that know different nodes order once, and the slot may move to another node meanwhile."""
    with RedisCluster(tmp_path) as cluster:
        urls = [node.url for node in cluster.nodes[:2]]
        one, other = (
            Replica(acme_config(pebble.directory, pebble.ca_file, place), NAME)
            for place in ({"redis": {"url": url, "cluster": True}} for url in urls)
        )
        other.board = one.board  # either may be asked
        async with one, other, Responder(pebble, one.board):
            await asyncio.gather(one.wait_shown(), other.wait_shown())
            assert one.shown == other.shown
            assert pebble.log().count("Issued certificate serial") == 1
            [here] = cluster.holders(PREFIX)
            there = next(node for node in cluster.nodes if node is not here)
            cluster.move(f"{PREFIX}replicas", there)
            await due(one)
            await asyncio.gather(one.wait_shown(times=2), other.wait_shown(times=2))
            assert one.shown == other.shown
            await until(lambda: not one.view().problem and not one.of(NAME).problem)
        assert cluster.holders(PREFIX) == [there]


async def test_a_cluster_without_the_node_of_the_slot_is_told_of(pebble: Pebble, tmp_path: Path) -> None:
    """And once another one has the slot, a certificate that could not be kept anywhere is ordered."""
    with RedisCluster(tmp_path) as cluster:
        place = {"redis": {"url": cluster.url, "cluster": True}}
        config = acme_config(pebble.directory, pebble.ca_file, place)
        async with Replica(config, NAME) as replica, Responder(pebble, replica.board):
            await replica.wait_shown()
            [holder] = cluster.holders(PREFIX)
            holder.kill()
            replica.wake()
            view = await replica.wait_view(lambda view: bool(view.problem))
            assert view.problem.startswith("Redis: ")
            assert view.certificates[0].state == "valid", "it serves on"
            holder.start()  # with what it knows of the cluster, and without data
            await due(replica)
            await replica.wait_shown(times=2)
            await replica.wait_view(lambda view: not view.problem)
        assert cluster.holders(PREFIX) == [holder]
