"""The records that all workers share: found by name, kept while somebody holds them, given to another name
when there is no other room."""

from __future__ import annotations

import gc
import time

import pytest
from fuzz.scenario import Rig
from support.forks import in_children

from fastgate._core import Seat, UpstreamHealth, endpoint_report, endpoint_states, upstream_states
from fastgate.upstreams.source import EndpointSpec

CAPACITY = 16
ROOM = 2 * CAPACITY  # a table is at most half full before records are given to others


def operator(seat: Seat) -> object:
    return endpoint_report(seat, 0)["operator"]


def test_endpoints_may_come_and_go_for_ever() -> None:
    """A service that is deployed anew gets new addresses each time."""
    table = endpoint_states(CAPACITY)
    stays = Seat("up", "10.0.0.1:80", table=table)
    health = UpstreamHealth("up", table=upstream_states())
    health.set_operator(stays, "draining", time.monotonic_ns())
    for number in range(20 * ROOM):
        comes = Seat("up", f"10.1.{number >> 8}.{number & 255}:80", table=table)
        assert operator(comes) == "auto", "what was there is another's"
        health.set_operator(comes, "down", time.monotonic_ns())
    assert operator(stays) == "draining"
    assert operator(Seat("up", "10.0.0.1:80", table=table)) == "draining"


def test_who_comes_back_is_known() -> None:
    """While there is room, and then as long as others have been gone for longer."""
    table = endpoint_states(CAPACITY)
    health = UpstreamHealth("up", table=upstream_states())
    for number in range(ROOM):
        health.set_operator(Seat("up", f"first-{number}:80", table=table), "down", 0)
    for number in range(ROOM):
        assert operator(Seat("up", f"first-{number}:80", table=table)) == "down"
    for number in range(ROOM // 2):
        Seat("up", f"second-{number}:80", table=table)
    kept = [operator(Seat("up", f"first-{number}:80", table=table)) for number in range(ROOM // 2, ROOM)]
    assert kept == ["down"] * (ROOM // 2)


def test_full_of_those_in_use() -> None:
    table = endpoint_states(CAPACITY)
    seats = [Seat("up", f"{number}:80", table=table) for number in range(ROOM)]
    with pytest.raises(MemoryError, match="in use"):
        Seat("up", "one more:80", table=table)
    del seats[5]
    gc.collect()
    assert operator(Seat("up", "one more:80", table=table)) == "auto"


def test_processes_agree() -> None:
    """Whoever gives a record to another name first, the others find it there; nobody loses one that is
    held."""
    table = endpoint_states(CAPACITY)
    upstreams = upstream_states()
    mine = Seat("up", "mine:80", table=table)

    def worker(number: int) -> int:
        health = UpstreamHealth("up", table=upstreams)
        own = Seat("up", f"own-{number}:80", table=table)
        health.set_operator(own, "ready", 0)
        for turn in range(300):
            common = Seat("up", f"{turn}:80", table=table)
            if operator(common) not in ("auto", "draining"):
                return 3
            health.set_operator(common, "draining", 0)
            if operator(own) != "ready" or operator(mine) != "auto":
                return 4
        return 0

    assert in_children(4, worker) == [0, 0, 0, 0]
    assert operator(mine) == "auto"


def test_upstream_without_room_for_all_endpoints_uses_the_others() -> None:
    rig = Rig(
        "[access_log]\nenabled = false\n[[listeners]]\nname = 'main'\nbind = '127.0.0.1:0'\n"
        "[upstreams.a]\nendpoints = ['127.0.0.1:1']\n[[routes]]\nname = 'all'\nupstream = 'a'\n"
    )
    running = rig.snapshot.upstreams["a"]
    running._estate.common.endpoints = endpoint_states(1)
    running._publish(tuple(EndpointSpec(f"10.0.0.{i}:80", f"10.0.0.{i}", 80, None) for i in range(5)))
    assert list(running.endpoints) == ["10.0.0.0:80", "10.0.0.1:80"]
    assert "3 endpoints are left out" in running._events.problems["state"]
    running._publish((EndpointSpec("10.0.0.0:80", "10.0.0.0", 80, None),))
    assert not running._events.problems
