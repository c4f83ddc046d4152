"""What tests of discovery share: a resolver that asks a scripted name server, and what sources say."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastgate.upstreams.dns import DnsSettings, Resolver
from fastgate.upstreams.names import DnsSource, Family, Names, SrvSource
from fastgate.upstreams.source import EndpointSpec
from support.clock import ManualClock
from support.dns import DnsServer, dns_server

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


@contextlib.asynccontextmanager
async def scripted_world(place: Path) -> AsyncIterator[World]:
    (place / "hosts").write_text("")
    (place / "resolv.conf").write_text("")
    async with dns_server() as server:
        settings = DnsSettings(
            servers=(("127.0.0.1", server.port),),
            timeout=5.0,
            resolv_conf=str(place / "resolv.conf"),
            hosts=str(place / "hosts"),
        )
        clock = ManualClock()
        names = Names(Resolver(settings), clock=clock, rng=random.Random(1))
        yield World(place, server, clock, settings, names)
