"""Places that names keep over reloads, and the counters that lie there."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.upstream import Upstream

from fastgate._core import Counters, SampleExchange, Slot, SlotsFull, SlotTable
from fastgate.config import loads
from fastgate.server import common
from fastgate.server import gateway as server
from fastgate.server.operations import ReloadError

ROOM = 6


def places(slots: list[Slot]) -> list[int]:
    return [slot.index for slot in slots]


def test_a_name_that_comes_back_has_its_place() -> None:
    table = SlotTable(10)
    assert places(table.take(["a", "b", "c"])[0]) == [0, 1, 2]
    assert places(table.take(["c", "d"])[0]) == [2, 3]
    slots, again = table.take(["b", "a"])
    assert places(slots) == [1, 0]
    assert again == []


def test_the_longest_gone_goes_first_and_only_when_there_is_no_other() -> None:
    table = SlotTable(4)
    table.take(["a", "b"])
    table.take(["b", "c"])
    table.take(["c"])
    assert table.take(["c", "d"])[1] == [], "one place has never been used"
    slots, again = table.take(["c", "e"])
    assert (places(slots), again) == ([2, 0], [0])
    assert table.names == ["e", "b", "c", "d"]


def test_what_is_held_is_nobody_elses() -> None:
    table = SlotTable(2)
    held, _ = table.take(["a"])
    table.take(["b"])
    slots, again = table.take(["c"])
    assert (places(slots), again) == ([1], [1])
    with pytest.raises(SlotsFull):
        table.take(["c", "d"])
    assert table.names == ["a", "c"]
    held.clear()
    assert places(table.take(["c", "d"])[0]) == [1, 0]


@given(
    st.lists(st.tuples(st.sets(st.sampled_from("abcdefghij"), max_size=ROOM), st.integers(0, 3)), max_size=8)
)
@settings(max_examples=50, deadline=None)
def test_any_sequence(steps: list[tuple[set[str], int]]) -> None:
    """A name keeps its place while it is there; two never share one; one that is held is never given."""
    table = SlotTable(ROOM)
    generations: list[dict[str, Slot]] = []  # all that is held
    for names, kept in steps:
        generations = generations[len(generations) - min(kept, len(generations)) :]
        held = {slot.index: name for generation in generations for name, slot in generation.items()}
        before = list(table.names)
        try:
            generations.append(take(table, sorted(names)))
        except SlotsFull:
            known = {before.index(name) for name in names if name in before}
            assert ROOM - len(held.keys() | known) < len(names - set(before))
            assert table.names == before
            continue
        now = {name: slot.index for name, slot in generations[-1].items()}
        assert len(set(now.values())) == len(names)
        for name, place in now.items():
            assert table.names[place] == name
            assert held.get(place, name) == name
            assert name not in before or before.index(name) == place


def take(table: SlotTable, names: list[str]) -> dict[str, Slot]:
    """By name; the places that are said to have had another name before are those that had one."""
    before = list(table.names)
    slots, again = table.take(names)
    other = [
        slot.index
        for name, slot in zip(names, slots, strict=True)
        if slot.index < len(before) and before[slot.index] != name
    ]
    assert sorted(again) == sorted(other)
    return dict(zip(names, slots, strict=True))


def test_a_place_that_is_given_again_counts_from_zero() -> None:
    counters = Counters(["a"], ["u"], workers=2, spare_routes=0)
    for worker in (0, 1):
        counters.use_worker(worker)
        counters.count(
            SampleExchange(status=200, route_index=0, upstream_index=0, attempts=1, total_ns=10**6)
        )
    assert counters.snapshot()["routes"]["a"]["exchanges"] == 2
    routes, upstreams = counters.assign(["b"], ["v"])
    assert places(routes) == places(upstreams) == [0]
    seen = counters.snapshot()
    assert seen["routes"] == {}
    assert list(seen["upstreams"]) == ["v"]
    assert not any(seen["upstreams"]["v"].values())
    counters.count(SampleExchange(status=200, route_index=0))
    assert counters.snapshot()["routes"]["b"]["total"]["count"] == 0


CONFIG = """
[access_log]
enabled = false

[[listeners]]
bind = "127.0.0.1:0"

[upstreams.service]
endpoints = ["{address}"]
"""


def config(address: str, *names: str) -> Any:
    routes = [
        f'[[routes]]\nname = "{name}"\nmatch = {{ prefix = "/{name}" }}\nupstream = "service"\n'
        for name in names
    ]
    return loads(CONFIG.format(address=address) + "".join(routes)).config


async def get(address: str, target: str) -> None:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    writer.close()
    await writer.wait_closed()


async def test_routes_count_under_their_names() -> None:
    """Wherever they stand in the file; and what a reload took away is still there."""
    with Upstream() as service:
        gateway = server.Gateway(config(service.address, "a", "b"))
        (address, _), *_ = await gateway.start()
        await get(address, "/a")
        await gateway.reload(config(service.address, "c", "b", "a"))
        for target in ("/a", "/b", "/b", "/c"):
            await get(address, target)
        await gateway.reload(config(service.address, "b"))
        await get(address, "/b")
        seen = gateway.counted()
        assert {name: counts["exchanges"] for name, counts in seen["routes"].items()} == {
            "a": 2,
            "b": 3,
            "c": 1,
        }
        assert seen["upstreams"]["service"]["exchanges"] == 6
        assert not any((await gateway.drain()).values())


async def test_more_names_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reload is refused, in words, and nothing has changed. Names that come and go are never too many."""
    monkeypatch.setattr(common, "SPARE_NAMES", 3)
    with Upstream() as service:
        told: list[str] = []
        gateway = server.Gateway(config(service.address, "a"), told.append)
        (address, _), *_ = await gateway.start()
        with pytest.raises(ReloadError, match="7 names, and 1 that are still in use, for 7 places"):
            await gateway.reload(config(service.address, *"bcdefgh"))
        assert told[-1] == "fastgate: not reloaded"
        await get(address, "/a")
        for turn in range(20):
            await gateway.reload(config(service.address, *(f"{name}{turn}" for name in "bcd")))
        await get(address, "/b19")
        assert list(gateway.counted()["routes"]) == ["b19"]
        assert not any((await gateway.drain()).values())


async def test_connections_of_an_upstream_that_is_gone_are_still_shown(tmp_path: Path) -> None:
    """Until they end: a gauge goes down to zero, and does not stay where it was."""
    with Upstream() as service:
        gateway = server.Gateway(config(service.address, "a"))
        (address, _), *_ = await gateway.start()
        await get(address, "/a")
        assert gateway.counted()["upstreams"]["service"]["connections_open"] == 1
        other = loads(
            '[access_log]\nenabled = false\n[[listeners]]\nbind = "127.0.0.1:0"\n'
            '[[routes]]\nname = "a"\nrespond = {}\n'
        ).config
        await gateway.reload(other)
        assert gateway.counted()["upstreams"]["service"]["connections_open"] == 0
        assert not any((await gateway.drain()).values())
