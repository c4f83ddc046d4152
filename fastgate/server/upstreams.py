"""The upstreams in use: their endpoints as discovery finds them, their checks, their state over reloads."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import secrets
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from fastgate import _core
from fastgate.config import Config, model
from fastgate.config.endpoints_file import parse_endpoints
from fastgate.server.compile_upstream import compile_health, compile_upstream
from fastgate.upstreams.discovery import Discovery, Wanted, sources_of
from fastgate.upstreams.dns import DnsSettings, Resolver
from fastgate.upstreams.events import Events
from fastgate.upstreams.files import FileSource
from fastgate.upstreams.health import MAX_PARALLEL, HealthChecker, ProbeAnswer, ProbeError
from fastgate.upstreams.names import Names
from fastgate.upstreams.source import EndpointSpec, Source

__all__ = ["Estate", "RunningUpstream"]

LEASE_NS: Final = 3_000_000_000


class Estate:
    """What outlives a configuration: the shared records of endpoints, upstreams and splits, and the upstreams that
    run. Made once, before any worker is forked.
    """

    def __init__(self) -> None:
        self.endpoints = _core.endpoint_states()
        self.upstreams = _core.upstream_states()
        self.loads = _core.load_states()
        self.splits = _core.split_states()
        self.windows = _core.rollback_windows()
        # For sticky cookies without a configured secret: the same for as long as the gateway lives.
        self.secret = secrets.token_bytes(32)
        self.running: dict[str, RunningUpstream] = {}
        self.check_slots = asyncio.Semaphore(MAX_PARALLEL)
        self._lease = _core.Lease("once for all", table=_core.leases())
        self._names: tuple[model.Dns, Names] | None = None

    def leads(self) -> bool:
        """Whether this process is the one that does what is done once for all workers."""
        return self._lease.hold(os.getpid(), time.monotonic_ns(), LEASE_NS)

    def names(self, dns: model.Dns) -> Names:
        """What resolves names; the records live on while its settings stay."""
        if self._names is None or self._names[0] != dns:
            self._names = dns, Names(Resolver(DnsSettings.of(dns)))
        return self._names[1]

    def prepare(
        self, config: Config, worker: _core.Worker, slots: Mapping[str, _core.Slot]
    ) -> dict[str, RunningUpstream]:
        """The upstreams of a configuration: those that run as it wants them already, and new ones, which `adopt`
        starts. slots: the counters' place of each."""
        prepared = {}
        for name, upstream in config.upstreams.items():
            wanted = (upstream, config.server.region, config.server.zone, config.dns)
            running = self.running.get(name)
            if running is None or running.wanted != wanted:
                running = RunningUpstream(self, wanted, worker, slots[name], Path(config.source).parent)
            prepared[name] = running
        return prepared

    def adopt(self, prepared: dict[str, RunningUpstream]) -> None:
        """Starts the new ones, and stops what keeps those up to date that are in use no more."""
        gone = [running for name, running in self.running.items() if prepared.get(name) is not running]
        self.running = prepared
        for running in prepared.values():
            running.start()
        for running in gone:
            running.stop()

    async def close(self) -> None:
        """Stops discovery and checks of all, and waits until they have ended."""
        tasks = [running.stop() for running in self.running.values()]
        await asyncio.gather(*tasks)
        self._lease.release(os.getpid())


class RunningUpstream:
    """One upstream in use: its compiled side, and the tasks that keep its endpoints up to date.

    wanted: the configuration that it was made from, and what of the rest it depends on: region and zone of the
    gateway, and DNS. folder: what an endpoints file is relative to.
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
        self.health = compile_health(config, estate.upstreams)
        self.core = compile_upstream(
            config,
            region,
            zone,
            self.health,
            slot,
            upstreams=estate.upstreams,
            loads=estate.loads,
            secret=estate.secret,
        )
        self.endpoints: dict[str, _core.Endpoint] = {}
        self._specs: dict[str, EndpointSpec] = {}
        self._events = Events(config.name)
        self._discovery: Discovery | None = None
        self._checks: asyncio.Task[None] | None = None
        self._checker: HealthChecker[EndpointSpec] | None = None

    def start(self) -> None:
        """Begins to follow its endpoints and to check them; nothing, if it does already."""
        if self._discovery is not None:
            return
        if self.config.health is not None:
            self._checker = HealthChecker(
                self.config.health,
                self._specs.values,
                self._probe,
                self._report,
                self._events,
                may_run=self._estate.leads,
                slots=self._estate.check_slots,
            )
            self._checks = asyncio.get_running_loop().create_task(
                self._checker.run(), name=f"checks of {self.config.name}"
            )
        self._discovery = Discovery(self._publish, self._events)
        self._discovery.follow(self._sources())

    def stop(self) -> asyncio.Future[list[object]]:
        """Ends discovery and checks, once what is awaited has ended; the endpoints stay as they are."""
        ending = []
        if self._discovery is not None:
            ending.append(asyncio.ensure_future(self._discovery.close()))
        if self._checks is not None:
            self._checks.cancel()
            ending.append(self._checks)
        return asyncio.gather(*ending, return_exceptions=True)

    def _sources(self) -> dict[object, Source]:
        names, family = self._estate.names(self._dns), self.config.dns_family

        def listed(wanted: Iterable[Wanted]) -> dict[object, Source]:
            return dict(sources_of(wanted, names, family))

        sources = listed(self.config.endpoints)
        if self.config.endpoints_file is not None:
            path = self._folder / self.config.endpoints_file
            sources[path] = FileSource(
                str(path), lambda text: parse_endpoints(text, path.suffix, str(path)), listed, self._events
            )
        return sources

    def _publish(self, specs: tuple[EndpointSpec, ...]) -> None:
        now = time.monotonic_ns()
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
                if not first:
                    self.health.joined(endpoint, now)
            if spec.state != ("auto" if before is None else before.state):
                # What a source says counts when it says something new: an operator may have spoken since.
                self.health.set_operator(endpoint, spec.state, now)
            endpoints[spec.address] = endpoint
        self.endpoints = endpoints
        self._specs.clear()
        self._specs.update({spec.address: spec for spec in specs if spec.address in endpoints})
        self._events.problem("state", f"{full}: {left_out} endpoints are left out" if full else "", len(endpoints))
        self.core.endpoints_found(tuple(endpoints.values()))
        if not endpoints:
            problems = [f"{source}: {text}" for source, text in self._events.problems.items()]
            self.core.endpoints_missing("; ".join(problems) or "no source knows an endpoint")
        if self._checker is not None:
            self._checker.look_again()

    def _endpoint(self, spec: EndpointSpec) -> _core.Endpoint:
        pool = self.config.pool
        hosts = () if spec.unix_path is not None else (spec.host, *(_host(text) for text in spec.alternates))
        return _core.Endpoint(
            self._worker,
            self.core,
            address=spec.address,
            hosts=hosts,
            port=spec.port,
            unix_path=spec.unix_path,
            table=self._estate.endpoints,
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
            status, fields, body = await _core.ask_endpoint(endpoint, head, int(timeout * 1e9), body_limit)
        except _core.SubrequestError as error:
            raise ProbeError(str(error)) from error
        return ProbeAnswer(status, fields, body)

    def _report(self, spec: EndpointSpec, ok: bool, why: str) -> bool | None:
        del why
        check, endpoint = self.config.health, self.endpoints.get(spec.address)
        if check is None or endpoint is None:
            return None
        changed = self.health.probe(endpoint, ok, check.rise, check.fall, time.monotonic_ns())
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
