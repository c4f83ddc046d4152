"""DNS names as sources of endpoints: the addresses of a name, and the instances of a service."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar
from weakref import WeakValueDictionary

from fastgate.upstreams.clock import Clock, SystemClock
from fastgate.upstreams.records import Answer, Outcome, Record, RecordType, Service
from fastgate.upstreams.source import EndpointSpec, Fail, Publish, with_port

if TYPE_CHECKING:
    from fastgate.upstreams.dns import Resolver

__all__ = ["DnsSource", "Family", "Names", "SrvSource"]

Family = Literal["v4-preferred", "v6-preferred", "v4", "v6"]
T = TypeVar("T")

# How long the addresses of the preferred family wait for those of the other one.
_OTHER_FAMILY_SECONDS: Final = 0.25
MAX_WEIGHT: Final = 1000
MAX_ENDPOINTS: Final = 256


class Names:
    """The records that sources use, shared by them: two upstreams with one name ask once, and a source that
    is made anew in a reload begins with what was known."""

    def __init__(
        self, resolver: Resolver, *, clock: Clock | None = None, rng: random.Random | None = None
    ) -> None:
        self._resolver = resolver
        self.clock: Clock = clock or SystemClock()
        self.rng = rng or random.Random()
        self._records: WeakValueDictionary[tuple[str, str], Record[Any]] = WeakValueDictionary()

    def addresses(self, name: str, kind: RecordType) -> Record[str]:
        return self._record(name, kind, lambda: self._resolver.addresses(name, kind))

    def services(self, name: str) -> Record[Service]:
        return self._record(name, "SRV", lambda: self._resolver.services(name))

    def _record(self, name: str, kind: str, ask: Callable[[], Awaitable[Answer[T]]]) -> Record[T]:
        record = self._records.get((name, kind))
        if record is None:
            record = self._records[name, kind] = Record(ask, self.clock, self.rng)
        return record


@dataclass(frozen=True, slots=True)
class _Found(Generic[T]):
    """values: what to use now. problem: what is wrong, "" for nothing. due: when to look again."""

    values: tuple[T, ...]
    problem: str
    due: float


class _Host:
    """Addresses of one name in the order of a family: (address, alternates) each."""

    def __init__(self, names: Names, name: str, family: Family) -> None:
        self._clock = names.clock
        first: RecordType = "AAAA" if family in ("v6", "v6-preferred") else "A"
        self._first = names.addresses(name, first)
        self._other: Record[str] | None = None
        if family in ("v4-preferred", "v6-preferred"):
            self._other = names.addresses(name, "A" if first == "AAAA" else "AAAA")
        self._last: tuple[tuple[str, tuple[str, ...]], ...] = ()

    async def look(self) -> _Found[tuple[str, tuple[str, ...]]]:
        first, other = self._first, self._other
        late = False
        if other is not None:
            other.begin()
        await first.fresh()
        if other is not None:
            # RFC 8305 3 in spirit: there are name servers that never answer for AAAA; they must not hold up
            # A.
            limit = _OTHER_FAMILY_SECONDS if first.outcome is Outcome.OK else None
            try:
                async with asyncio.timeout(limit):
                    await other.fresh()
            except TimeoutError:
                late = True
        return self._joined(late)

    def _joined(self, late: bool) -> _Found[tuple[str, tuple[str, ...]]]:
        first, other = self._first, self._other
        due = first.due
        if late:
            due = min(due, self._clock.now() + 1.0)
        elif other is not None and (other.outcome is Outcome.OK or first.outcome is not Outcome.OK):
            due = min(due, other.due)
        if first.outcome is Outcome.OK:
            # An absent family is believed where the other one answers: a name may well move from one to the
            # other.
            spare = other.values if other is not None and other.outcome is not Outcome.ABSENT else ()
            self._last = tuple((address, spare[at : at + 1]) for at, address in enumerate(first.values))
            return _Found(self._last, first.note, due)
        if other is not None and other.outcome is Outcome.OK and first.outcome is Outcome.ABSENT:
            self._last = tuple((address, ()) for address in other.values)
            return _Found(self._last, other.note, other.due)
        failed = first.outcome is Outcome.FAILED or other is None or other.outcome is Outcome.ABSENT
        problem = first.problem if failed else other.problem if other is not None else ""
        if not self._last:
            kept = first.values or (other.values if other is not None else ())
            spare = other.values if other is not None and first.values else ()
            self._last = tuple((address, spare[at : at + 1]) for at, address in enumerate(kept))
        return _Found(self._last, problem, due)


def _placed(model: EndpointSpec, name: str, port: int, found: tuple[str, tuple[str, ...]]) -> EndpointSpec:
    address, alternates = found
    return replace(
        model,
        address=with_port(address, port),
        host=address,
        port=port,
        name=name,
        alternates=tuple(with_port(alternate, port) for alternate in alternates),
    )


async def _follow(
    look: Callable[[], Awaitable[_Found[EndpointSpec]]], publish: Publish, fail: Fail, clock: Clock
) -> None:
    known: tuple[EndpointSpec, ...] = ()
    while True:
        found = await look()
        if found.values != known:
            known = found.values
            publish(known)
        fail(found.problem)
        await clock.sleep(max(found.due - clock.now(), 0.001))


class DnsSource:
    """The A and AAAA records of a name, as endpoints with the port, weight and place of `model`.

    family: with "v4-preferred" (or "v6-preferred") the addresses of that family are the endpoints, and the
    i-th of the other family is the alternate of the i-th; where the name has only the other family, that one
    is used. With "v4" or "v6" the other family is not asked for.
    """

    def __init__(self, names: Names, model: EndpointSpec, family: Family) -> None:
        self.name = f"name {model.host}:{model.port}"
        self._model = model
        self._clock = names.clock
        self._host = _Host(names, model.host, family)

    async def run(self, publish: Publish, fail: Fail) -> None:
        await _follow(self._look, publish, fail, self._clock)

    async def _look(self) -> _Found[EndpointSpec]:
        found = await self._host.look()
        model = self._model
        specs = tuple(_placed(model, model.host, model.port, pair) for pair in found.values)
        return _Found(specs, found.problem, found.due)


class SrvSource:
    """The SRV records of a service (RFC 2782), with the addresses of their targets.

    Only the targets of the best priority (the lowest number) are endpoints; those of the next one are looked
    at if none of these has an address. A target's weight goes to each of its addresses, times the weight of
    `model`; weight 0 ("hardly ever" in the RFC) counts as 1. Where a weight would be above 1000, all are
    scaled down.
    """

    def __init__(self, names: Names, service: str, model: EndpointSpec, family: Family) -> None:
        self.name = f"service {service}"
        self._names = names
        self._model = model
        self._family = family
        self._clock = names.clock
        self._services = names.services(service)
        self._hosts: dict[str, _Host] = {}
        self._last: tuple[EndpointSpec, ...] = ()

    async def run(self, publish: Publish, fail: Fail) -> None:
        await _follow(self._look, publish, fail, self._clock)

    async def _look(self) -> _Found[EndpointSpec]:
        services = self._services
        await services.fresh()
        problems = [services.problem or services.note]
        due = services.due
        targets = {service.target for service in services.values}
        self._hosts = {
            target: self._hosts.get(target) or _Host(self._names, target, self._family) for target in targets
        }
        for _priority, group in groupby(services.values, key=lambda service: service.priority):
            members = list(group)
            wanted = list(dict.fromkeys(service.target for service in members))
            hosts = await asyncio.gather(*(self._hosts[target].look() for target in wanted))
            found = dict(zip(wanted, hosts, strict=True))
            due = min(due, *(host.due for host in hosts))
            problems += [f"{target} {host.problem}" for target, host in found.items() if host.problem]
            specs = self._specs(members, found)
            if len(specs) > MAX_ENDPOINTS:
                problems.insert(0, f"{len(specs)} endpoints, the first {MAX_ENDPOINTS} are used")
            if specs:
                self._last = specs[:MAX_ENDPOINTS]
                break
        return _Found(self._last, "; ".join(list(filter(None, problems))[:3]), due)

    def _specs(
        self, services: list[Service], found: dict[str, _Found[tuple[str, tuple[str, ...]]]]
    ) -> tuple[EndpointSpec, ...]:
        weights = [max(1, service.weight) * self._model.weight for service in services]
        scale = min(1.0, MAX_WEIGHT / max(weights))
        specs: dict[str, EndpointSpec] = {}
        for service, weight in zip(services, weights, strict=True):
            for pair in found[service.target].values:
                spec = _placed(self._model, service.target.rstrip("."), service.port, pair)
                specs.setdefault(spec.address, replace(spec, weight=max(1, round(weight * scale))))
        return tuple(specs.values())
