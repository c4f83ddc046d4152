"""Endpoints of a service (SRV): priorities, weights, ports, and targets that fail."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.discovery import Heard, World, addresses, running, scripted_world
from support.dns import records, servfail

from fastgate.upstreams.records import DnsFailure


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with scripted_world(tmp_path) as world:
        yield world


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
