"""What a source of endpoints is, and the simplest one."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

__all__ = ["EndpointSpec", "Fail", "Publish", "Source", "State", "StaticSource", "is_ip", "with_port"]

# What a source itself says of an endpoint: "auto" leaves it to health checks and outlier ejection.
State = Literal["auto", "ready", "draining", "down"]


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    """One address that requests can be sent to: nothing in it is left to resolve.

    address: "ip:port", "[v6]:port", "unix:/path" or "asgi:NAME"; it alone says whether two endpoints are the
    same one. host: the IP address without brackets, "" where there is none. weight: 1 to 1000.
    alternates: addresses, in the form of `address`, to try in their order when connecting to it fails.
    name: the DNS name it came from, "" for none. asgi: that of an application, "" for none.
    """

    address: str
    host: str
    port: int
    unix_path: str | None
    weight: int = 1
    region: str = ""
    zone: str = ""
    alternates: tuple[str, ...] = ()
    name: str = ""
    state: State = "auto"
    asgi: str = ""


Publish = Callable[[tuple[EndpointSpec, ...]], None]
Fail = Callable[[str], None]


class Source(Protocol):
    """Says which endpoints there are: a list, a DNS name, a file; later Kubernetes' EndpointSlices.

    `run()` is called once for a source, and ends by being cancelled. What it owes:

    - `publish(endpoints)` with the whole set as soon as it is known and whenever it has changed; never with a
      part of it, and never with less because asking failed: the last good set stays until there is another.
      A source that has to list before it can watch publishes when the list is complete. The order is a
      function of the set: what only comes in another order is no change. An empty set is one that the origin
      has really said to be empty.
    - `fail(text)` with what is wrong at present, in words for an operator, each time that it is found;
      `fail("")` when nothing is wrong any more. The two are independent of each other: a set may be published
      while something about it is wrong, and trouble that is over need not have changed the set.
    - It raises nothing but CancelledError. It tries again by itself, with a growing and jittered pause.
    - It never blocks the loop, and bounds what the origin can make it hold.

    Both functions are called in the loop's thread, take no time and raise nothing.
    """

    @property
    def name(self) -> str:
        """What it is called in the log, such as `name orders.internal:80`."""

    async def run(self, publish: Publish, fail: Fail) -> None: ...


class StaticSource:
    """Endpoints that are known: published at once, before the first await."""

    name = "addresses"

    def __init__(self, endpoints: Sequence[EndpointSpec]) -> None:
        self.endpoints = tuple(endpoints)

    async def run(self, publish: Publish, fail: Fail) -> None:
        publish(self.endpoints)
        await asyncio.get_running_loop().create_future()


def is_ip(host: str) -> bool:
    """Whether it is an address, not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def with_port(host: str, port: int) -> str:
    """An IP address and a port in the form of `EndpointSpec.address`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
