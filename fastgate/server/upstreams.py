"""The upstreams in use: their endpoints as discovery finds them, their checks, their state over reloads."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Final

from fastgate import _core
from fastgate.config import Config, model
from fastgate.upstreams.discovery import Discovery, sources_of
from fastgate.upstreams.events import Events
from fastgate.upstreams.health import HealthChecker, ProbeAnswer, ProbeError
from fastgate.upstreams.names import Names
from fastgate.upstreams.source import EndpointSpec

__all__ = ["Estate", "RunningUpstream"]

LEASE_NS: Final = 3_000_000_000


class Estate:
    """What outlives a configuration: the shared records of endpoints, upstreams and splits, and the running
    upstreams themselves. Made once, before any worker is forked.

    workers: how many processes will share it.
    """

    def __init__(self, workers: int = 1) -> None:
        self.endpoints = _core.endpoint_states()
        self.upstreams = _core.upstream_states()
        self.loads = _core.upstream_loads(workers=workers)
        self.splits = _core.split_states()
        self.lease = _core.Lease("checks", table=_core.leases())
        # For sticky cookies without a configured secret: the same for as long as the gateway lives.
        self.secret = secrets.token_bytes(32)
        self.running: dict[str, RunningUpstream] = {}

    def leads(self) -> bool:
        """Whether this process is the one that does what is done once for all workers."""
        return self.lease.hold(os.getpid(), time.monotonic_ns(), LEASE_NS)

    def prepare(self, config: Config, worker: _core.Worker, slots: Mapping[str, int]) -> dict[str, RunningUpstream]:
        """The upstreams of a configuration: those that run as it wants them already, and new ones, which
        `adopt` starts. slots: the counters' place of each."""
        names = Names(config.dns) if any(_needs_names(upstream) for upstream in config.upstreams.values()) else None
        prepared = {}
        for name, upstream in config.upstreams.items():
            wanted = (upstream, config.server.region, config.server.zone, config.dns)
            running = self.running.get(name)
            if running is None or running.wanted != wanted:
                running = RunningUpstream(self, wanted, worker, slots[name], names)
            prepared[name] = running
        return prepared

    def adopt(self, prepared: dict[str, RunningUpstream]) -> list[RunningUpstream]:
        """Starts the new ones; returns those that are no longer in use, for the caller to `retire`."""
        gone = [running for name, running in self.running.items() if prepared.get(name) is not running]
        self.running = prepared
        for running in prepared.values():
            running.start()
        return gone

    async def close(self) -> None:
        """Stops discovery and checks of all."""
        for running in self.running.values():
            await running.stop()
        self.lease.release(os.getpid())


class RunningUpstream:
    """One upstream in use: its compiled side, and the tasks that keep its endpoints up to date.

    wanted: the configuration that it was made from, and what of the rest it depends on.
    """

    def __init__(
        self,
        estate: Estate,
        wanted: tuple[model.Upstream, str, str, model.Dns],
        worker: _core.Worker,
        slot: int,
        names: Names | None,
    ) -> None:
        self.wanted = wanted
        config, region, zone, _ = wanted
        self.config = config
        self._estate = estate
        self._worker = worker
        self._names = names
        self.health = _health(config, estate)
        self.core = _compiled(config, region, zone, estate, self.health, slot)
        self.endpoints: dict[str, _core.Endpoint] = {}
        self._specs: dict[str, EndpointSpec] = {}
        self._started = False
        self._events = Events(config.name, self._told)
        self._discovery = Discovery(self._publish, self._events)
        self._checker: HealthChecker[_core.Endpoint] | None = None

    def start(self) -> None:
        """Begins to follow its endpoints and to check them; nothing, if it does already."""
        if self._started:
            return
        self._started = True
        self._discovery.follow(sources_of(self.config, self._names))
        if self.config.health is not None:
            check = self.config.health
            self._checker = HealthChecker(
                check,
                endpoints=lambda: tuple(self.endpoints.values()),
                probe=self._probe,
                report=self._report(check, self._events),
                may_run=self._estate.leads,
            )
            self._checker.start()

    async def stop(self) -> None:
        """Ends discovery and checks; the endpoints stay as they are."""
        await self._discovery.close()
        if self._checker is not None:
            await self._checker.close()

    async def retire(self) -> None:
        """Out of use: idle connections are closed, what runs may finish."""
        await self.stop()
        for endpoint in self.endpoints.values():
            endpoint.retire()

    def _told(self, problems: Mapping[str, str]) -> None:
        if problems and not self.endpoints:
            self.core.endpoints_missing("; ".join(f"{source}: {text}" for source, text in problems.items()))

    def _publish(self, specs: tuple[EndpointSpec, ...]) -> None:
        now = time.monotonic_ns()
        first = not self._specs
        endpoints: dict[str, _core.Endpoint] = {}
        for spec in specs:
            before = self._specs.get(spec.address)
            endpoint = self.endpoints.get(spec.address)
            if endpoint is None or before is None or not _same_place(before, spec):
                endpoint = self._endpoint(spec)
                if not first:
                    self.health.joined(endpoint, now)
            if spec.state != ("auto" if before is None else before.state):
                # What the source says counts when it says something new: an operator may have spoken since.
                self.health.set_operator(endpoint, spec.state, now)
            endpoints[spec.address] = endpoint
        self.endpoints = endpoints
        self._specs = {spec.address: spec for spec in specs}
        self.core.endpoints_found(tuple(endpoints.values()))
        self._told(self._events.problems)

    def _endpoint(self, spec: EndpointSpec) -> _core.Endpoint:
        pool = self.config.pool
        return _core.Endpoint(
            self._worker,
            self.core,
            address=spec.address,
            hosts=() if spec.unix_path is not None else (spec.host, *(_host(text) for text in spec.alternates)),
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

    async def _probe(self, endpoint: _core.Endpoint, head: bytes, timeout: float, body_limit: int) -> ProbeAnswer:  # noqa: ASYNC109
        try:
            status, headers, body = await _core.ask_endpoint(endpoint, head, int(timeout * 1e9), body_limit)
        except _core.SubrequestError as error:
            raise ProbeError(str(error)) from error
        return ProbeAnswer(status, headers, body)

    def _report(
        self, check: model.HealthCheck, events: Events
    ) -> Callable[[_core.Endpoint, bool, str], None]:
        def report(endpoint: _core.Endpoint, ok: bool, why: str) -> None:
            if self.health.probe(endpoint, ok, check.rise, check.fall, time.monotonic_ns()):
                events.probed(endpoint.address, ok, why)

        return report


def _same_place(one: EndpointSpec, other: EndpointSpec) -> bool:
    """Whether connections and balance are the same for both: their words on its state may differ."""
    return (one.hosts_key(), one.weight, one.region, one.zone) == (
        other.hosts_key(),
        other.weight,
        other.region,
        other.zone,
    )


def _host(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")


def _needs_names(upstream: model.Upstream) -> bool:
    return upstream.endpoints_file is not None or any(
        endpoint.srv or (endpoint.host and not _is_ip(endpoint.host)) for endpoint in upstream.endpoints
    )


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
