"""One question to name servers: what is taken for an answer, its bounds, the hosts file, search domains."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dns.rrset
import pytest
import uvloop
from support.discovery import World, scripted_world
from support.dns import (
    answer,
    dns_server,
    garbage,
    half,
    nxdomain,
    preceded_by,
    records,
    servfail,
    silence,
    truncated,
    wrong_id,
    wrong_question,
)

from fastgate.upstreams.dns import DnsSettings, Resolver
from fastgate.upstreams.records import DnsFailure


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with scripted_world(tmp_path) as world:
        yield world


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
