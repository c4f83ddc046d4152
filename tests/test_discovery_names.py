"""Endpoints of a name: asked again in time, kept through failures, of two address families."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.discovery import Heard, World, addresses, running, scripted_world
from support.dns import answer, held, nxdomain, records, servfail

from fastgate.upstreams.names import Family
from fastgate.upstreams.source import EndpointSpec


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with scripted_world(tmp_path) as world:
        yield world


async def test_a_name_is_asked_again_when_its_ttl_ends(world: World) -> None:
    world.server.zone("a.test.", "A", "192.0.2.2", "192.0.2.1", ttl=60)
    heard = Heard()
    source = world.source(weight=3, region="eu", zone="a")
    async with running(source.run(heard.publish, heard.fail)):
        first = await heard.set()
        assert first[0] == EndpointSpec(
            "192.0.2.1:80", "192.0.2.1", 80, None, weight=3, region="eu", zone="a", name="a.test"
        )
        assert addresses(first) == ["192.0.2.1:80", "192.0.2.2:80"]
        await world.clock.wait_asleep(1)
        assert 60 <= world.clock.asked[-1] <= 66
        world.server.zone("a.test.", "A", "192.0.2.3", ttl=60)
        await world.clock.pass_time(59.9)
        assert world.server.asked("a.test.", "A") == 1
        world.clock.advance(6.2)
        assert addresses(await heard.set()) == ["192.0.2.3:80"]
        assert world.server.asked("a.test.", "A") == 2


async def test_another_order_is_no_change(world: World) -> None:
    turns = [("192.0.2.1", "192.0.2.2"), ("192.0.2.2", "192.0.2.1"), ("192.0.2.1", "192.0.2.2", "192.0.2.3")]
    world.server.script("a.test.", "A", *(records("A", *turn, ttl=10) for turn in turns))
    heard = Heard()
    async with running(world.source().run(heard.publish, heard.fail)):
        assert len(await heard.set()) == 2
        await world.clock.pass_time(11)
        assert world.server.asked("a.test.", "A") == 2
        assert heard.silent
        await world.clock.pass_time(11)
        assert len(await heard.set()) == 3


async def test_the_last_good_answer_outlives_failures(world: World) -> None:
    world.server.zone("a.test.", "A", "192.0.2.2", ttl=10)
    world.server.script(
        "a.test.", "A", records("A", "192.0.2.1", ttl=10), servfail, nxdomain, answer(), *[servfail] * 5
    )
    heard = Heard()
    async with running(world.source().run(heard.publish, heard.fail)):
        assert addresses(await heard.set()) == ["192.0.2.1:80"]
        assert await heard.problem() == ""
        told = []
        pauses = []
        await world.clock.pass_time(11)
        for _ in range(8):
            told.append(await heard.problem())
            pauses.append(world.clock.asked[-1])
            await world.clock.pass_time(30)
        assert [words.split()[-1] for words in told[:3]] == ["SERVFAIL", "name", "record"]
        # It backs off, with jitter, up to 30 s.
        longest = [1, 2, 4, 8, 16, 30, 30, 30]
        assert all(most / 2 <= pause <= most for pause, most in zip(pauses, longest, strict=True))
        # What fails is asked again until it answers.
        assert addresses(await heard.set()) == ["192.0.2.2:80"]
        assert await heard.problem() == ""
        # The next failure begins with a short pause again.
        world.server.script("a.test.", "A", servfail)
        await world.clock.pass_time(11)
        assert "SERVFAIL" in await heard.problem()
        assert world.clock.asked[-1] <= 1


async def test_two_sources_of_one_name_ask_once(world: World) -> None:
    world.server.zone("a.test.", "A", "192.0.2.1", ttl=60)
    one, other = Heard(), Heard()
    first, second = world.source("a.test:80"), world.source("a.test:81")
    async with running(first.run(one.publish, one.fail)), running(second.run(other.publish, other.fail)):
        assert addresses(await one.set()) == ["192.0.2.1:80"]
        assert addresses(await other.set()) == ["192.0.2.1:81"]
        await world.clock.wait_asleep(2)
    assert world.server.asked("a.test.", "A") == 1


async def test_a_source_that_ends_does_not_take_the_look_up_from_another(world: World) -> None:
    go = asyncio.Event()
    world.server.script("a.test.", "A", held(go, records("A", "192.0.2.1")))
    heard = Heard()
    async with running(world.source().run(heard.publish, heard.fail)):
        async with running(world.source().run(Heard().publish, Heard().fail)):
            await world.server.wait_asked("a.test.", "A", 1)
        go.set()
        assert addresses(await heard.set()) == ["192.0.2.1:80"]
    assert world.server.asked("a.test.", "A") == 1


V4 = ["192.0.2.1", "192.0.2.2"]
V6 = ["2001:db8::1", "2001:db8::2", "2001:db8::3"]


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("v4", [("192.0.2.1:80", ()), ("192.0.2.2:80", ())]),
        (
            "v4-preferred",
            [("192.0.2.1:80", ("[2001:db8::1]:80",)), ("192.0.2.2:80", ("[2001:db8::2]:80",))],
        ),
        ("v6", [("[2001:db8::1]:80", ()), ("[2001:db8::2]:80", ()), ("[2001:db8::3]:80", ())]),
        (
            "v6-preferred",
            [
                ("[2001:db8::1]:80", ("192.0.2.1:80",)),
                ("[2001:db8::2]:80", ("192.0.2.2:80",)),
                ("[2001:db8::3]:80", ()),
            ],
        ),
    ],
)
async def test_families(world: World, family: Family, expected: list[tuple[str, tuple[str, ...]]]) -> None:
    world.server.zone("a.test.", "A", *V4)
    world.server.zone("a.test.", "AAAA", *V6)
    heard = Heard()
    async with running(world.source(family=family).run(heard.publish, heard.fail)):
        found = await heard.set()
    assert [(endpoint.address, endpoint.alternates) for endpoint in found] == expected
    kinds = {"v4": {"A"}, "v6": {"AAAA"}}.get(family, {"A", "AAAA"})
    assert {query.kind for query in world.server.queries} == kinds


async def test_a_name_with_the_other_family_alone(world: World) -> None:
    world.server.zone("a.test.", "AAAA", *V6)
    heard = Heard()
    async with running(world.source(family="v4-preferred").run(heard.publish, heard.fail)):
        found = await heard.set()
        assert addresses(found) == ["[2001:db8::1]:80", "[2001:db8::2]:80", "[2001:db8::3]:80"]
        assert found[0].host == "2001:db8::1"
        assert await heard.problem() == ""


async def test_a_name_that_moves_to_the_other_family(world: World) -> None:
    world.server.zone("a.test.", "A", *V4, ttl=10)
    heard = Heard()
    async with running(world.source(family="v4-preferred").run(heard.publish, heard.fail)):
        assert addresses(await heard.set()) == ["192.0.2.1:80", "192.0.2.2:80"]
        world.server.zone("a.test.", "A")
        world.server.zone("a.test.", "AAAA", V6[0], ttl=10)
        await world.clock.pass_time(40)
        assert addresses(await heard.set()) == ["[2001:db8::1]:80"]
        # Now nothing is left at all: what was last in use stays, not what was there before.
        world.server.zone("a.test.", "AAAA")
        await world.clock.pass_time(40)
        assert [await heard.problem() for _ in range(3)] == ["", "", "NXDOMAIN: there is no such name"]
        assert heard.silent


async def test_an_alternate_that_is_gone(world: World) -> None:
    world.server.zone("a.test.", "A", V4[0], ttl=10)
    world.server.script("a.test.", "AAAA", records("AAAA", V6[0], ttl=10), servfail, answer())
    heard = Heard()
    async with running(world.source(family="v4-preferred").run(heard.publish, heard.fail)):
        assert (await heard.set())[0].alternates == ("[2001:db8::1]:80",)
        await world.clock.pass_time(11)
        assert heard.silent
        await world.clock.pass_time(11)
        assert (await heard.set())[0].alternates == ()
        # None of this is trouble: the name serves.
        assert [await heard.problem() for _ in range(3)] == ["", "", ""]


async def test_failing_v4_does_not_drop_v4(world: World) -> None:
    """A name server that answers for AAAA alone has not said that the IPv4 addresses are gone."""
    world.server.zone("a.test.", "AAAA", V6[0], ttl=10)
    world.server.script("a.test.", "A", records("A", *V4, ttl=10), servfail)
    heard = Heard()
    async with running(world.source(family="v4-preferred").run(heard.publish, heard.fail)):
        assert addresses(await heard.set()) == ["192.0.2.1:80", "192.0.2.2:80"]
        await world.clock.pass_time(11)
        assert await heard.problem() == ""
        assert "SERVFAIL" in await heard.problem()
        assert heard.silent


async def test_a_silent_second_family_holds_up_nothing(world: World) -> None:
    go = asyncio.Event()
    world.server.zone("a.test.", "A", V4[0], ttl=60)
    world.server.script("a.test.", "AAAA", held(go, records("AAAA", V6[0])))
    heard = Heard()
    async with running(world.source(family="v4-preferred").run(heard.publish, heard.fail)):
        assert (await heard.set())[0].alternates == ()
        go.set()
        await world.clock.pass_time(1.1)
        assert (await heard.set())[0].alternates == ("[2001:db8::1]:80",)
