"""A union of endpoints from several sources, which is kept whole, and the sources of a configuration."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.clock import ManualClock
from support.discovery import Heard, World, addresses, scripted_world, spec
from support.dns import servfail

from fastgate.upstreams.discovery import MAX_ENDPOINTS, Discovery, sources_of
from fastgate.upstreams.events import Events
from fastgate.upstreams.names import DnsSource, SrvSource
from fastgate.upstreams.source import Fail, Publish, Source, StaticSource


@pytest.fixture
async def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with scripted_world(tmp_path) as world:
        yield world


class Scripted:
    """A source that the test drives."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ready = asyncio.Event()
        self.runs = 0
        self.ended = False
        self.publish: Publish
        self.fail: Fail

    async def run(self, publish: Publish, fail: Fail) -> None:
        self.publish, self.fail = publish, fail
        self.runs += 1
        self.ready.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.ended = True


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.INFO, "fastgate.upstreams"):
        yield caplog


def discovery(heard: Heard, clock: ManualClock, events: Events | None = None) -> Discovery:
    return Discovery(
        heard.publish, events or Events("orders"), patience=2.0, clock=clock, rng=random.Random(1)
    )


async def follow(found: Discovery, *sources: Source) -> None:
    found.follow({source.name: source for source in sources})
    for source in sources:
        if isinstance(source, Scripted):
            await source.ready.wait()


async def test_known_addresses_are_there_at_once(clock: ManualClock) -> None:
    heard = Heard()
    found = discovery(heard, clock)
    found.follow({"x": StaticSource([spec("192.0.2.1:80"), spec("192.0.2.2:80")])})
    assert addresses(heard.sets.get_nowait()) == ["192.0.2.1:80", "192.0.2.2:80"]
    await found.close()


async def test_a_static_source_publishes_before_it_waits() -> None:
    heard = Heard()
    work = StaticSource([spec("192.0.2.1:80")]).run(heard.publish, heard.fail)
    work.send(None)
    assert addresses(heard.sets.get_nowait()) == ["192.0.2.1:80"]
    work.close()


async def test_the_union_waits_for_all_and_is_whole(clock: ManualClock) -> None:
    heard, a, b = Heard(), Scripted("a"), Scripted("b")
    found = discovery(heard, clock)
    await follow(found, a, StaticSource([spec("192.0.2.9:80")]), b)
    a.publish((spec("192.0.2.1:80"), spec("192.0.2.2:80", weight=2)))
    assert heard.silent
    b.fail("no such name")
    assert addresses(await heard.set()) == ["192.0.2.1:80", "192.0.2.2:80", "192.0.2.9:80"]
    # An address that two sources name is one endpoint, as the first of them says it.
    b.publish((spec("192.0.2.2:80", weight=7), spec("192.0.2.3:80")))
    union = await heard.set()
    assert addresses(union) == ["192.0.2.1:80", "192.0.2.2:80", "192.0.2.9:80", "192.0.2.3:80"]
    assert union[1].weight == 2
    # A failure takes nothing away; the same set again is no change.
    a.fail("SERVFAIL")
    b.publish((spec("192.0.2.2:80", weight=7), spec("192.0.2.3:80")))
    assert heard.silent
    await found.close()
    assert a.ended
    assert b.ended


async def test_patience_ends(clock: ManualClock) -> None:
    heard, slow = Heard(), Scripted("slow")
    found = discovery(heard, clock)
    await follow(found, slow, StaticSource([spec("192.0.2.9:80")]))
    await clock.wait_asleep(1)
    assert heard.silent
    clock.advance(2.1)
    assert addresses(await heard.set()) == ["192.0.2.9:80"]
    slow.publish((spec("192.0.2.1:80"),))
    assert addresses(await heard.set()) == ["192.0.2.1:80", "192.0.2.9:80"]
    await found.close()


async def test_who_may_be_the_first_to_know_is_awaited(clock: ManualClock) -> None:
    """An empty set would be an answer, and nobody has given one."""
    heard, slow, empty = Heard(), Scripted("slow"), Scripted("empty")
    found = discovery(heard, clock)
    await follow(found, slow, empty)
    empty.publish(())
    await clock.wait_asleep(1)
    clock.advance(2.1)
    await asyncio.sleep(0)
    assert heard.silent
    slow.fail("no such name")
    assert await heard.set() == ()
    await found.close()


async def test_it_can_be_handed_over(clock: ManualClock) -> None:
    heard, heir, a = Heard(), Heard(), Scripted("a")
    found = discovery(heard, clock)
    found.publish_to(heard.publish)
    await follow(found, a)
    assert heard.silent
    a.publish((spec("192.0.2.1:80"),))
    assert addresses(await heard.set()) == ["192.0.2.1:80"]
    found.publish_to(heir.publish)
    assert addresses(await heir.set()) == ["192.0.2.1:80"]
    a.publish((spec("192.0.2.2:80"),))
    assert addresses(await heir.set()) == ["192.0.2.2:80"]
    assert heard.silent
    await found.close()


async def test_nothing_but_failures_is_an_empty_set(clock: ManualClock) -> None:
    heard, a = Heard(), Scripted("a")
    found = discovery(heard, clock)
    await follow(found, a)
    a.fail("no such name")
    assert await heard.set() == ()
    await found.close()


async def test_other_sources_in_a_reload(clock: ManualClock) -> None:
    events = Events("orders")
    heard, a, b, c = Heard(), Scripted("a"), Scripted("b"), Scripted("c")
    found = discovery(heard, clock, events)
    await follow(found, a, b)
    a.publish((spec("192.0.2.1:80"),))
    b.publish((spec("192.0.2.2:80"),))
    assert len(await heard.set()) == 2
    b.fail("SERVFAIL")
    assert events.problems == {"b": "SERVFAIL"}
    again = Scripted("a")
    found.follow({"a": again, "c": c})
    await c.ready.wait()
    # The source with the same key goes on; what is gone serves until the new one has said something.
    assert (a.ended, again.runs, b.ended) == (False, 0, True)
    assert events.problems == {}
    assert heard.silent
    b.publish((spec("192.0.2.77:80"),))
    b.fail("out of turn")
    assert events.problems == {}
    c.publish((spec("192.0.2.3:80"),))
    assert addresses(await heard.set()) == ["192.0.2.1:80", "192.0.2.3:80"]
    found.follow({})
    assert await heard.set() == ()
    found.follow({"c": again})
    await again.ready.wait()
    again.publish((spec("192.0.2.4:80"),))
    assert addresses(await heard.set()) == ["192.0.2.4:80"]
    await found.close()
    again.publish((spec("192.0.2.77:80"),))
    assert heard.silent


async def test_a_source_that_breaks_is_started_anew(
    clock: ManualClock, logged: pytest.LogCaptureFixture
) -> None:
    class Broken(Scripted):
        async def run(self, publish: Publish, fail: Fail) -> None:
            if self.runs == 1:
                self.runs += 1
                raise ValueError("a defect")
            await super().run(publish, fail)
            return

    heard, broken = Heard(), Broken("broken")
    broken.runs = 1
    found = discovery(heard, clock)
    found.follow({"broken": broken, "x": StaticSource([spec("192.0.2.9:80")])})
    assert addresses(await heard.set()) == ["192.0.2.9:80"]
    assert "a defect" in logged.text
    await clock.wait_asleep(1)
    clock.advance(1.1)
    await broken.ready.wait()
    broken.publish((spec("192.0.2.1:80"),))
    assert addresses(await heard.set()) == ["192.0.2.1:80", "192.0.2.9:80"]
    await found.close()


async def test_endpoints_are_bounded(clock: ManualClock) -> None:
    events = Events("orders")
    heard = Heard()
    found = discovery(heard, clock, events)
    found.follow({"x": StaticSource([spec(f"192.0.2.1:{port}") for port in range(1, MAX_ENDPOINTS + 3)])})
    assert len(await heard.set()) == MAX_ENDPOINTS
    assert events.problems == {"endpoints": "4098 endpoints, the first 4096 are used"}
    await found.close()


async def test_one_line_for_each_change(clock: ManualClock, logged: pytest.LogCaptureFixture) -> None:
    heard, a = Heard(), Scripted("name a.test:80")
    found = discovery(heard, clock)
    await follow(found, a)
    a.publish((spec("192.0.2.1:80"), spec("192.0.2.2:80")))
    assert not logged.messages
    a.fail("SERVFAIL\nforged line")
    a.fail("no answer")
    a.fail("SERVFAIL\nforged line")
    a.fail("")
    a.fail("")
    a.publish((spec("192.0.2.2:80", weight=2), spec("192.0.2.3:80")))
    assert logged.messages == [
        "upstream orders: name a.test:80: SERVFAIL\\x0aforged line; endpoints in use: 2",
        "upstream orders: name a.test:80: in order again",
        "upstream orders: endpoints changed: +192.0.2.3:80 -192.0.2.1:80 ~192.0.2.2:80 (now 2)",
    ]
    await found.close()


@dataclass(frozen=True)
class Configured:
    address: str
    host: str = ""
    port: int = 0
    unix_path: str | None = None
    weight: int = 1
    region: str = ""
    zone: str = ""
    srv: str = ""
    asgi: str = ""


async def test_sources_of_a_configuration(world: World) -> None:
    world.server.zone("a.test.", "A", "192.0.2.5")
    world.server.zone("_http._tcp.a.test.", "SRV", "1 1 81 a.test.")
    configured = [
        Configured("a.test:80", "a.test", 80, weight=2),
        Configured("192.0.2.1:80", "192.0.2.1", 80, zone="b"),
        Configured("[::1]:80", "::1", 80),
        Configured("unix:/run/x.sock", unix_path="/run/x.sock"),
        Configured("srv:_http._tcp.a.test", srv="_http._tcp.a.test"),
    ]
    sources = sources_of(configured, lambda: world.names, "v4")
    assert [type(source) for source in sources.values()] == [
        DnsSource,
        StaticSource,
        StaticSource,
        StaticSource,
        SrvSource,
    ]
    assert sources_of(configured, lambda: world.names, "v4").keys() == sources.keys()
    assert not sources_of(configured[:1], lambda: world.names, "v6").keys() & sources.keys()
    heard = Heard()
    found = discovery(heard, world.clock)
    found.follow(sources)
    assert [(one.address, one.weight, one.zone, one.unix_path, one.state) for one in await heard.set()] == [
        ("192.0.2.5:80", 2, "", None, "auto"),
        ("192.0.2.1:80", 1, "b", None, "auto"),
        ("[::1]:80", 1, "", None, "auto"),
        ("unix:/run/x.sock", 1, "", "/run/x.sock", "auto"),
        ("192.0.2.5:81", 1, "", None, "auto"),
    ]
    await found.close()


async def test_a_name_of_a_reload_begins_with_what_was_known(world: World) -> None:
    """Its weight has changed while the name server is away."""
    world.server.zone("a.test.", "A", "192.0.2.5", ttl=10)
    heard = Heard()
    found = discovery(heard, world.clock)
    found.follow(sources_of([Configured("a.test:80", "a.test", 80)], lambda: world.names, "v4"))
    assert [(one.address, one.weight) for one in await heard.set()] == [("192.0.2.5:80", 1)]
    world.server.script("a.test.", "A", *[servfail] * 20)
    await world.clock.wait_asleep(1)
    world.clock.advance(20)
    await world.server.wait_asked("a.test.", "A", 2)
    found.follow(sources_of([Configured("a.test:80", "a.test", 80, weight=2)], lambda: world.names, "v4"))
    assert [(one.address, one.weight) for one in await heard.set()] == [("192.0.2.5:80", 2)]
    await found.close()
