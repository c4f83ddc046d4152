"""Where endpoints come from: addresses, names, services, and a union of them that is kept whole."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dns.rrset
import pytest
import uvloop
from support.clock import ManualClock
from support.dns import (
    DnsServer,
    answer,
    dns_server,
    garbage,
    half,
    held,
    nxdomain,
    preceded_by,
    records,
    servfail,
    silence,
    truncated,
    wrong_id,
    wrong_question,
)

from fastgate.upstreams.discovery import MAX_ENDPOINTS, Discovery, sources_of
from fastgate.upstreams.dns import DnsSettings, Resolver
from fastgate.upstreams.events import Events
from fastgate.upstreams.names import DnsSource, Family, Names, SrvSource
from fastgate.upstreams.records import DnsFailure
from fastgate.upstreams.source import EndpointSpec, Fail, Publish, Source, StaticSource

Specs = tuple[EndpointSpec, ...]


def spec(address: str = "a.test:80", **fields: Any) -> EndpointSpec:
    host, _, port = address.rpartition(":")
    return EndpointSpec(address, host.strip("[]"), int(port), None, **fields)


def addresses(specs: Specs) -> list[str]:
    return [endpoint.address for endpoint in specs]


class Heard:
    """What a source or a discovery says, to be awaited."""

    def __init__(self) -> None:
        self.sets: asyncio.Queue[Specs] = asyncio.Queue()
        self.problems: asyncio.Queue[str] = asyncio.Queue()

    def publish(self, endpoints: Specs) -> None:
        self.sets.put_nowait(endpoints)

    def fail(self, text: str) -> None:
        self.problems.put_nowait(text)

    async def set(self) -> Specs:
        return await asyncio.wait_for(self.sets.get(), 10)

    async def problem(self) -> str:
        return await asyncio.wait_for(self.problems.get(), 10)

    @property
    def silent(self) -> bool:
        return self.sets.empty()


@contextlib.asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.get_running_loop().create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def server() -> AsyncIterator[DnsServer]:
    async with dns_server() as server:
        yield server


@pytest.fixture
async def clock() -> ManualClock:
    return ManualClock()


@dataclass
class World:
    """A resolver that asks the scripted server, with files of its own."""

    place: Path
    server: DnsServer
    clock: ManualClock
    settings: DnsSettings
    names: Names

    @property
    def resolver(self) -> Resolver:
        return Resolver(self.settings)

    def source(self, name: str = "a.test:80", family: Family = "v4", **fields: Any) -> DnsSource:
        return DnsSource(self.names, spec(name, **fields), family)

    def service(self, family: Family = "v4", **fields: Any) -> SrvSource:
        return SrvSource(self.names, "_http._tcp.a.test", spec("srv:0", **fields), family)


@pytest.fixture
async def world(tmp_path: Path, server: DnsServer, clock: ManualClock) -> World:
    (tmp_path / "hosts").write_text("")
    (tmp_path / "resolv.conf").write_text("")
    settings = DnsSettings(
        servers=(("127.0.0.1", server.port),),
        timeout=5.0,
        resolv_conf=str(tmp_path / "resolv.conf"),
        hosts=str(tmp_path / "hosts"),
    )
    return World(tmp_path, server, clock, settings, names(settings, clock))


def names(settings: DnsSettings, clock: ManualClock) -> Names:
    return Names(Resolver(settings), clock=clock, rng=random.Random(1))


# -- one question


async def test_addresses_are_sorted_and_the_ttl_is_kept_within_bounds(world: World) -> None:
    world.server.zone("a.test.", "A", "192.0.2.10", "192.0.2.9", "192.0.2.9", ttl=60)
    world.server.zone("a.test.", "AAAA", "2001:db8::2", "2001:db8::1", ttl=0)
    world.server.zone("b.test.", "A", "192.0.2.1", ttl=86_400)
    a = await world.resolver.addresses("a.test", "A")
    assert (a.values, a.ttl, a.note) == (("192.0.2.9", "192.0.2.10"), 60, "")
    aaaa = await world.resolver.addresses("a.test", "AAAA")
    assert (aaaa.values, aaaa.ttl) == (("2001:db8::1", "2001:db8::2"), 1)
    assert (await world.resolver.addresses("b.test", "A")).ttl == 300


async def test_an_alias_is_followed_and_its_ttl_counts(world: World) -> None:
    alias = dns.rrset.from_text("a.test.", 7, "IN", "CNAME", "b.test.")
    world.server.script(
        "a.test.", "A", answer(alias, dns.rrset.from_text("b.test.", 60, "IN", "A", "192.0.2.1"))
    )
    found = await world.resolver.addresses("a.test", "A")
    assert (found.values, found.ttl) == (("192.0.2.1",), 7)


async def test_what_is_not_the_answer_is_ignored(world: World) -> None:
    world.server.script(
        "a.test.",
        "A",
        preceded_by(wrong_id, garbage, half, wrong_question, then=records("A", "192.0.2.1")),
    )
    assert (await world.resolver.addresses("a.test", "A")).values == ("192.0.2.1",)
    assert world.server.asked("a.test.", "A") == 1


async def test_a_truncated_answer_is_asked_again_over_tcp(world: World) -> None:
    world.server.script("a.test.", "A", truncated)
    world.server.zone("a.test.", "A", "192.0.2.1")
    assert (await world.resolver.addresses("a.test", "A")).values == ("192.0.2.1",)
    assert [query.over for query in world.server.queries] == ["udp", "tcp"]


async def test_an_answer_over_tcp_to_another_question(world: World) -> None:
    world.server.script("a.test.", "A", truncated, lambda query: [wrong_id(query)])
    with pytest.raises(DnsFailure, match="does not respond to the question"):
        await world.resolver.addresses("a.test", "A")


async def test_answers_are_bounded(world: World) -> None:
    world.server.zone("a.test.", "A", *(f"10.0.{at // 200}.{at % 200 + 1}" for at in range(300)))
    found = await world.resolver.addresses("a.test", "A")
    assert (len(found.values), found.values[0], found.note) == (
        256,
        "10.0.0.1",
        "300 records, the first 256 are used",
    )
    world.server.zone("b.test.", "A", *(f"10.0.{at // 200}.{at % 200 + 1}" for at in range(2000)))
    with pytest.raises(DnsFailure, match="more than 16384") as failed:
        await world.resolver.addresses("b.test", "A")
    assert not failed.value.absent


@pytest.mark.parametrize(
    ("kind", "unfit", "fit"),
    [
        ("A", ["0.0.0.0", "0.1.2.3", "224.0.0.1", "255.255.255.255"], "10.0.0.1"),
        ("A", ["239.1.1.1"], "127.0.0.1"),
        ("AAAA", ["::", "ff02::1", "fe80::1", "::ffff:192.0.2.1"], "fd00::1"),
    ],
)
async def test_addresses_that_are_none_to_connect_to(
    world: World, kind: Any, unfit: list[str], fit: str
) -> None:
    world.server.script("a.test.", kind, records(kind, *unfit, fit), *(records(kind, one) for one in unfit))
    found = await world.resolver.addresses("a.test", kind)
    assert found.values == (fit,)
    assert "no address to connect to" in found.note
    for _ in unfit:
        with pytest.raises(DnsFailure, match="no address to connect to") as failed:
            await world.resolver.addresses("a.test", kind)
        assert failed.value.absent


@pytest.mark.parametrize(
    ("step", "absent", "words"),
    [
        (nxdomain, True, "NXDOMAIN: there is no such name"),
        (answer(), True, "the name has no A record"),
        (servfail, False, "127.0.0.1:{port} answers SERVFAIL"),
    ],
)
async def test_failures_have_words(world: World, step: Any, absent: bool, words: str) -> None:
    world.server.script("a.test.", "A", step)
    with pytest.raises(DnsFailure) as failed:
        await world.resolver.addresses("a.test", "A")
    assert (str(failed.value), failed.value.absent) == (words.format(port=world.server.port), absent)


async def test_a_server_that_does_not_answer(world: World) -> None:
    settings = replace(world.settings, timeout=0.05)
    world.server.script("a.test.", "A", *[silence] * 10)
    with pytest.raises(DnsFailure, match=f"127.0.0.1:{world.server.port} does not answer") as failed:
        await Resolver(settings).addresses("a.test", "A")
    assert not failed.value.absent


@pytest.mark.parametrize("bad", [servfail, silence])
async def test_the_next_server_is_asked_when_one_fails(world: World, bad: Any) -> None:
    async with dns_server() as other:
        world.server.script("a.test.", "A", bad)
        other.zone("a.test.", "A", "192.0.2.1")
        servers = (("127.0.0.1", world.server.port), ("127.0.0.1", other.port))
        settings = replace(world.settings, servers=servers, timeout=0.5)
        assert (await Resolver(settings).addresses("a.test", "A")).values == ("192.0.2.1",)


async def test_the_hosts_file_comes_first_and_is_read_anew(world: World) -> None:
    hosts = world.place / "hosts"
    hosts.write_text("192.0.2.1  A.test other # comment\n192.0.2.2 a.test.\nnonsense a.test\n::1 six.test\n")
    resolver = world.resolver
    assert (await resolver.addresses("a.TEST", "A")).values == ("192.0.2.1", "192.0.2.2")
    with pytest.raises(DnsFailure, match="the hosts file has no IPv6 address") as failed:
        await resolver.addresses("a.test", "AAAA")
    assert failed.value.absent
    assert (await resolver.addresses("six.test", "AAAA")).values == ("::1",)
    assert not world.server.queries
    hosts.write_text("192.0.2.77 a.test\n")
    assert (await resolver.addresses("a.test", "A")).values == ("192.0.2.77",)


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST.", "app.localhost"])
async def test_localhost_never_asks_dns(world: World, name: str) -> None:
    (world.place / "hosts").write_text("127.0.0.1 localhost\n")
    assert (await world.resolver.addresses(name, "A")).values == ("127.0.0.1",)
    assert (await world.resolver.addresses(name, "AAAA")).values == ("::1",)
    assert not world.server.queries


async def test_search_domains(world: World) -> None:
    (world.place / "resolv.conf").write_text("search one.test two.test\noptions ndots:2\n")
    world.server.zone("a.two.test.", "A", "192.0.2.1")
    world.server.zone("b.c.d.", "A", "192.0.2.2")
    resolver = world.resolver
    assert (await resolver.addresses("a", "A")).values == ("192.0.2.1",)
    assert [query.name for query in world.server.queries] == ["a.one.test.", "a.two.test."]
    assert (await resolver.addresses("b.c.d", "A")).values == ("192.0.2.2",)
    assert world.server.queries[2].name == "b.c.d."
    with pytest.raises(DnsFailure):
        await resolver.addresses("a.", "A")
    assert [query.name for query in world.server.queries[3:]] == ["a."]


def test_settings_of_the_configuration() -> None:
    table = SimpleNamespace(
        servers=("10.0.0.2:53", "[fd00::2]:5353"),
        timeout=500_000_000,
        min_ttl=2_000_000_000,
        max_ttl=60_000_000_000,
    )
    assert DnsSettings.of(table) == DnsSettings((("10.0.0.2", 53), ("fd00::2", 5353)), 0.5, 2.0, 60.0)


async def test_without_a_name_server(world: World) -> None:
    settings = DnsSettings(resolv_conf=str(world.place / "none"), hosts=world.settings.hosts)
    with pytest.raises(DnsFailure, match="none names no name server") as failed:
        await Resolver(settings).addresses("a.test", "A")
    assert not failed.value.absent


def test_it_runs_on_uvloop(tmp_path: Path) -> None:
    async def ask() -> tuple[str, ...]:
        async with dns_server() as server:
            server.script("a.test.", "A", truncated)
            server.zone("a.test.", "A", "192.0.2.1")
            settings = DnsSettings(servers=(("127.0.0.1", server.port),), hosts=str(tmp_path / "none"))
            return (await Resolver(settings).addresses("a.test", "A")).values

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(ask()) == ("192.0.2.1",)


# -- a name


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


# -- a service


async def test_a_service(world: World) -> None:
    world.server.zone(
        "_http._tcp.a.test.",
        "SRV",
        "10 60 8080 one.test.",
        "10 0 8081 two.test.",
        "20 5 9090 spare.test.",
        ttl=120,
    )
    world.server.zone("one.test.", "A", "192.0.2.1", "192.0.2.2", ttl=30)
    world.server.zone("two.test.", "A", "192.0.2.3", ttl=60)
    world.server.zone("spare.test.", "A", "192.0.2.9")
    heard = Heard()
    async with running(world.service(zone="a").run(heard.publish, heard.fail)):
        found = await heard.set()
        assert [(one.address, one.weight, one.name, one.port, one.zone) for one in found] == [
            ("192.0.2.1:8080", 60, "one.test", 8080, "a"),
            ("192.0.2.2:8080", 60, "one.test", 8080, "a"),
            ("192.0.2.3:8081", 1, "two.test", 8081, "a"),
        ]
        # The shortest TTL of all that it was made of.
        await world.clock.wait_asleep(1)
        assert 30 <= world.clock.asked[-1] <= 33
        assert world.server.asked("spare.test.", "A") == 0


async def test_large_weights_are_scaled_down(world: World) -> None:
    world.server.zone("_http._tcp.a.test.", "SRV", "1 60000 80 one.test.", "1 30000 80 two.test.")
    world.server.zone("one.test.", "A", "192.0.2.1")
    world.server.zone("two.test.", "A", "192.0.2.2")
    heard = Heard()
    async with running(world.service().run(heard.publish, heard.fail)):
        assert [endpoint.weight for endpoint in await heard.set()] == [1000, 500]


async def test_weight_0_is_1_and_multiplied(world: World) -> None:
    world.server.zone("_http._tcp.a.test.", "SRV", "1 0 80 one.test.")
    world.server.zone("one.test.", "A", "192.0.2.1")
    heard = Heard()
    async with running(world.service(weight=3).run(heard.publish, heard.fail)):
        assert [endpoint.weight for endpoint in await heard.set()] == [3]


async def test_a_service_is_bounded(world: World) -> None:
    ports = (f"1 1 {port} one.test." for port in range(1, 100))
    world.server.zone("_http._tcp.a.test.", "SRV", *ports)
    world.server.zone("one.test.", "A", "192.0.2.1", "192.0.2.2", "192.0.2.3")
    heard = Heard()
    async with running(world.service().run(heard.publish, heard.fail)):
        assert len(await heard.set()) == 256
        assert await heard.problem() == "297 endpoints, the first 256 are used"


async def test_the_next_priority_serves_when_no_target_of_the_best_has_an_address(world: World) -> None:
    world.server.zone("_http._tcp.a.test.", "SRV", "1 1 80 gone.test.", "2 1 80 spare.test.", ttl=10)
    world.server.zone("spare.test.", "A", "192.0.2.9", ttl=10)
    heard = Heard()
    async with running(world.service().run(heard.publish, heard.fail)):
        assert addresses(await heard.set()) == ["192.0.2.9:80"]
        assert await heard.problem() == "gone.test. NXDOMAIN: there is no such name"
        world.server.zone("gone.test.", "A", "192.0.2.1", ttl=10)
        await world.clock.pass_time(11)
        assert addresses(await heard.set()) == ["192.0.2.1:80"]
        assert await heard.problem() == ""


async def test_a_target_that_fails_keeps_its_last_addresses(world: World) -> None:
    world.server.zone("_http._tcp.a.test.", "SRV", "1 1 80 one.test.", "2 1 80 spare.test.", ttl=10)
    world.server.zone("spare.test.", "A", "192.0.2.9")
    world.server.script("one.test.", "A", records("A", "192.0.2.1", ttl=10), *[servfail] * 3)
    heard = Heard()
    async with running(world.service().run(heard.publish, heard.fail)):
        assert addresses(await heard.set()) == ["192.0.2.1:80"]
        await world.clock.pass_time(11)
        assert await heard.problem() == ""
        assert "one.test." in await heard.problem()
        assert heard.silent


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ("1 1 80 .", "not available"),
        ("1 1 0 one.test.", "port 0"),
        ("1 1 80 127.0.0.1.", "no host name"),
        ("1 1 80 a\\032b.test.", "no host name"),
        ("1 1 80 a\\000.test.", "no host name"),
    ],
)
async def test_targets_that_are_none(world: World, record: str, words: str) -> None:
    world.server.zone("one.test.", "A", "192.0.2.1")
    world.server.script(
        "_http._tcp.a.test.", "SRV", records("SRV", record), records("SRV", record, "1 1 80 one.test.")
    )
    with pytest.raises(DnsFailure, match=words) as failed:
        await world.resolver.services("_http._tcp.a.test")
    assert failed.value.absent
    heard = Heard()
    async with running(world.service().run(heard.publish, heard.fail)):
        assert addresses(await heard.set()) == ["192.0.2.1:80"]
        assert words in await heard.problem()


# -- the union


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
