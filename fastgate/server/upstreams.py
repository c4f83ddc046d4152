"""The upstreams in use: their endpoints as discovery finds them, their checks, their state over reloads."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from fastgate import _core
from fastgate.config import Config, model
from fastgate.config.endpoints_file import parse_endpoints
from fastgate.server.apps import Apps
from fastgate.server.common import Common
from fastgate.server.compile_upstream import compile_health, compile_upstream
from fastgate.upstreams.discovery import Discovery, Wanted, sources_of
from fastgate.upstreams.events import Events
from fastgate.upstreams.files import FileSource
from fastgate.upstreams.health import MAX_PARALLEL, HealthChecker, ProbeAnswer, ProbeError
from fastgate.upstreams.names import Names
from fastgate.upstreams.source import EndpointSpec, Source

__all__ = ["Estate", "RunningUpstream"]

NS: Final = 1e9


class Estate:
    """What outlives a configuration in one worker: the upstreams that run."""

    def __init__(self, common: Common, apps: Apps | None = None) -> None:
        self.common = common
        self.apps = apps or Apps({})
        self.running: dict[str, RunningUpstream] = {}
        self.check_slots = asyncio.Semaphore(MAX_PARALLEL)
        self._counted: set[str] = set()
        self._names: tuple[model.Dns, Names] | None = None
        self._ending: set[asyncio.Task[None]] = set()

    def begin_count(self, upstream: _core.Upstream) -> None:
        """Of what is under way there: who was killed in this worker's place before has left its own."""
        if upstream.name not in self._counted:
            self._counted.add(upstream.name)
            upstream.load.reset()

    def names(self, dns: model.Dns) -> Names:
        """What resolves names; the records live on while its settings stay."""
        # Not with the others: it takes dnspython along, a fifth of the start, for those who have names alone.
        from fastgate.upstreams.dns import DnsSettings, Resolver

        if self._names is None or self._names[0] != dns:
            self._names = dns, Names(Resolver(DnsSettings.of(dns)))
        return self._names[1]

    def prepare(
        self, config: Config, worker: _core.Worker, slots: Mapping[str, _core.Slot]
    ) -> dict[str, RunningUpstream]:
        """The upstreams of a configuration: those that run as it wants them already, and new ones, which
        `adopt` starts. slots: the counters' place of each."""
        prepared = {}
        for name, upstream in config.upstreams.items():
            wanted = (upstream, config.server.region, config.server.zone, config.dns)
            running = self.running.get(name)
            if running is None or running.wanted != wanted:
                running = RunningUpstream(self, wanted, worker, slots[name], Path(config.source).parent)
            prepared[name] = running
        return prepared

    def adopt(self, prepared: dict[str, RunningUpstream]) -> None:
        """Starts the new ones, which go on with what those before them knew, and ends those that are in use
        no more."""
        before, self.running = self.running, prepared
        for name, running in prepared.items():
            running.start(before.get(name))
        for name, running in before.items():
            if prepared.get(name) is not running:
                task = asyncio.get_running_loop().create_task(running.leave(), name=f"end of {name}")
                self._ending.add(task)
                task.add_done_callback(self._ending.discard)

    async def end_checks(self) -> None:
        """No endpoint is checked any more."""
        await asyncio.gather(*(running.end_checks() for running in self.running.values()))

    async def close(self) -> None:
        """Stops discovery and checks of all, and waits until they have ended."""
        for task in self._ending:
            task.cancel()
        await asyncio.gather(*self._ending, return_exceptions=True)
        await asyncio.gather(*(running.close() for running in self.running.values()))
        self.common.give_up_lead()


class RunningUpstream:
    """One upstream in use: its compiled side, and the tasks that keep its endpoints up to date.

    wanted: the configuration that it was made from, and what of the rest it depends on: region and zone of
    the gateway, and DNS. folder: what an endpoints file is relative to.
    """

    def __init__(
        self,
        estate: Estate,
        wanted: tuple[model.Upstream, str, str, model.Dns],
        worker: _core.Worker,
        slot: _core.Slot,
        folder: Path,
    ) -> None:
        self.wanted = wanted
        config, region, zone, dns = wanted
        self.config = config
        self._estate = estate
        self._worker = worker
        self._folder = folder
        self._dns = dns
        self.health = compile_health(config, estate.common.upstreams)
        self.core = compile_upstream(config, region, zone, self.health, slot, estate.common)
        estate.begin_count(self.core)
        self.endpoints: dict[str, _core.Endpoint] = {}
        self._specs: dict[str, EndpointSpec] = {}
        self._events = Events(config.name, self._tell_problems)
        self._known = asyncio.Event()
        self._discovery: Discovery | None = None
        self._checks: asyncio.Task[None] | None = None
        self._checker: HealthChecker[EndpointSpec] | None = None

    def start(self, before: RunningUpstream | None) -> None:
        """Begins to follow its endpoints and to check them; nothing, if it does already. before: the one of
        its name that is in use until now."""
        if self._discovery is not None:
            return
        if before is not None:
            self._inherit(before)
        if self.config.health is not None:
            self._checker = HealthChecker(
                self.config.health,
                self._specs.values,
                self._probe,
                self._report,
                self._events,
                may_run=self._estate.common.leads,
                slots=self._estate.check_slots,
            )
            self._checks = asyncio.get_running_loop().create_task(
                self._checker.run(), name=f"checks of {self.config.name}"
            )
        if self._discovery is None:
            self._discovery = Discovery(self._publish, self._events)
        self._discovery.follow(self._sources())

    def _inherit(self, before: RunningUpstream) -> None:
        """A name that both have is not asked again, nor a file read: a reload while DNS is down takes nothing
        away. What is new is looked for beside that."""
        self._specs.update(before._specs)
        before._specs.clear()
        same = (before._dns, before.config.dns_family, before._folder) == (
            self._dns,
            self.config.dns_family,
            self._folder,
        )
        if before.core.known and before._discovery is not None and same:
            self._discovery, before._discovery = before._discovery, None
            self._events = before._events
            self._events.changed = self._tell_problems
            self._discovery.publish_to(self._publish)

    async def leave(self) -> None:
        """Ends discovery and checks, when another configuration is in force. Endpoints that requests wait
        for are awaited first."""
        self._withdraw(self._specs.values())
        await self.end_checks()
        try:
            if not self.core.known:
                # No request waits longer than that.
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.config.timeouts.connect / NS):
                        await self._known.wait()
                for endpoint in self.endpoints.values():
                    endpoint.retire()
        finally:
            await self.close()

    async def end_checks(self) -> None:
        """Its endpoints are not checked any more."""
        if self._checks is not None:
            self._checks.cancel()
            await asyncio.wait((self._checks,))

    async def close(self) -> None:
        """Ends discovery and checks; the endpoints stay as they are."""
        await self.end_checks()
        if self._discovery is not None:
            await self._discovery.close()

    def _sources(self) -> dict[object, Source]:
        def listed(wanted: Iterable[Wanted]) -> dict[object, Source]:
            return dict(sources_of(wanted, lambda: self._estate.names(self._dns), self.config.dns_family))

        sources = listed(self.config.endpoints)
        if self.config.endpoints_file is not None:
            path = self._folder / self.config.endpoints_file
            sources[path] = FileSource(
                str(path), lambda text: parse_endpoints(text, path.suffix, str(path)), listed, self._events
            )
        return sources

    def _publish(self, specs: tuple[EndpointSpec, ...]) -> None:
        now = _core.monotonic_ns()
        first = not self._specs
        endpoints: dict[str, _core.Endpoint] = {}
        full, left_out = "", 0
        for spec in specs:
            before = self._specs.get(spec.address)
            endpoint = self.endpoints.get(spec.address)
            if endpoint is None or before is None or not _same_place(before, spec):
                try:
                    endpoint = self._endpoint(spec)
                except MemoryError as error:
                    full, left_out = str(error), left_out + 1
                    continue
            if before is None and not first:
                self.health.joined(endpoint, now)
            if spec.state != ("auto" if before is None else before.state):
                # What a source says counts when it says something new: an operator may have spoken since.
                self.health.set_operator(endpoint, spec.state, now)
            endpoints[spec.address] = endpoint
        self._withdraw(spec for address, spec in self._specs.items() if address not in endpoints)
        self.endpoints = endpoints
        self._specs.clear()
        self._specs.update({spec.address: spec for spec in specs if spec.address in endpoints})
        self._events.problem(
            "state", f"{full}: {left_out} endpoints are left out" if full else "", len(endpoints)
        )
        self.core.endpoints_found(tuple(endpoints.values()), *self._why_none())
        self._known.set()
        if self._checker is not None:
            self._checker.look_again()

    def _tell_problems(self) -> None:
        if self.core.known and not self.endpoints:
            self.core.endpoints_found((), *self._why_none())

    def _why_none(self) -> tuple[str | None, bool]:
        """Why there is no endpoint, and whether a name is to blame."""
        if self.endpoints:
            return None, False
        problems = self._events.problems
        told = [f"{source}: {text}" for source, text in problems.items()]
        # As the sources call themselves: "name a:80", "service _http._tcp.a", "file a.json".
        unresolved = any(source.startswith(("name ", "service ")) for source in problems)
        return "; ".join(told) or "no source knows an endpoint", unresolved

    def _withdraw(self, specs: Iterable[EndpointSpec]) -> None:
        """What a source said of the state of endpoints that it no longer has; an operator's word stays."""
        now = _core.monotonic_ns()
        for spec in specs:
            if spec.state != "auto":
                seat = _core.Seat(self.config.name, spec.address, table=self._estate.common.endpoints)
                if _core.endpoint_report(seat, now)["operator"] == spec.state:
                    self.health.set_operator(seat, "auto", now)

    def _endpoint(self, spec: EndpointSpec) -> _core.Endpoint:
        pool = self.config.pool
        hosts = (spec.host, *(_host(text) for text in spec.alternates)) if spec.host else ()
        return _core.Endpoint(
            self._worker,
            self.core,
            address=spec.address,
            hosts=hosts,
            port=spec.port,
            unix_path=spec.unix_path,
            tls_name=self.config.tls.name or spec.name or spec.host or "localhost"
            if self.config.tls is not None
            else "",
            app=self._estate.apps.find(spec.asgi) if spec.asgi else None,
            table=self._estate.common.endpoints,
            weight=spec.weight,
            max_requests=pool.max_requests,
            region=spec.region,
            zone=spec.zone,
            max_open=pool.max_connections,
            max_idle=pool.max_idle,
            max_waiting=pool.queue,
            idle_ns=pool.idle_timeout,
            queue_ns=pool.queue_timeout,
        )

    async def _probe(
        self,
        spec: EndpointSpec,
        head: bytes,
        timeout: float,  # noqa: ASYNC109  # the core's clock ends it
        body_limit: int,
    ) -> ProbeAnswer:
        endpoint = self.endpoints.get(spec.address)
        if endpoint is None:
            raise ProbeError("it is an endpoint no more")
        try:
            answer = await _core.ask_endpoint(endpoint, head, int(timeout * 1e9), body_limit)
        except _core.SubrequestError as error:
            raise ProbeError(str(error)) from error
        return ProbeAnswer(answer.status, answer.headers.items(), answer.body)

    def _report(self, spec: EndpointSpec, ok: bool, why: str) -> bool | None:
        del why
        check, endpoint = self.config.health, self.endpoints.get(spec.address)
        if check is None or endpoint is None:
            return None
        changed = self.health.probe(endpoint, ok, check.rise, check.fall, _core.monotonic_ns())
        return ok if changed else None


def _same_place(one: EndpointSpec, other: EndpointSpec) -> bool:
    """Whether connections and balance are the same for both; what they say of its state may differ."""
    return (one.host, one.alternates, one.weight, one.region, one.zone) == (
        other.host,
        other.alternates,
        other.weight,
        other.region,
        other.zone,
    )


def _host(address: str) -> str:
    return str(ipaddress.ip_address(address.rpartition(":")[0].strip("[]")))
