"""Metrics, straight from the memory that the workers share.

Whoever has it mapped can tell them, right over all workers and after one has died.
"""

from __future__ import annotations

import asyncio
import platform
import time
from collections import Counter
from collections.abc import Iterable
from typing import Final, NamedTuple

import fastgate
from fastgate import _core
from fastgate.config import Config
from fastgate.telemetry.families import BY_KEY
from fastgate.telemetry.processes import usage_of
from fastgate.telemetry.text import in_order, samples

__all__ = ["AcmeFact", "Facts", "Metrics", "ProcessFact"]

#: Routes, upstreams or places of endpoints between two turns of the loop, which may have to serve.
SLICE: Final = 100
_WORKER_STATES: Final = ("starting", "serving", "hung", "draining")
_ACME_STATES: Final = ("pending", "valid", "expired")
Rows = list[tuple[tuple[str, ...], float]]


class ProcessFact(NamedTuple):
    """name: the number of its seat, or "supervisor"; state: of a worker, "" of the supervisor; place: where
    it writes in shared memory, -1: nowhere."""

    name: str
    pid: int
    state: str
    place: int


class AcmeFact(NamedTuple):
    """A certificate from an ACME directory. state: "pending", "valid" or "expired"; not_after: seconds since
    the epoch, None while there is none yet; failures: in a row, to get the next one."""

    directory: str
    domain: str
    state: str
    not_after: float | None
    failures: int


class Facts(NamedTuple):
    """What no counter tells. applied, started: seconds since the epoch. reloads, refused: attempts to put a
    configuration in force that did, and that changed nothing; ok: the last one did."""

    config: Config
    version: int
    applied: float
    reloads: int
    refused: int
    ok: bool
    started: float
    ready: bool
    processes: tuple[ProcessFact, ...]
    restarts: int
    acme: tuple[AcmeFact, ...] = ()


class Metrics:
    """counters: see there. endpoints, upstreams, loads: the tables of their states. places: of how many
    processes the last one has records."""

    def __init__(
        self,
        counters: _core.Counters,
        endpoints: _core.SharedTable,
        upstreams: _core.SharedTable,
        loads: _core.SharedTable,
        places: int,
    ) -> None:
        self._counters = counters
        self._endpoints = endpoints
        self._upstreams = upstreams
        self._loads = loads
        self._places = places
        self._compiled = _core.MetricsText(counters, {key: BY_KEY[key].name for key in _core.METRIC_FAMILIES})
        self._scraping = asyncio.Lock()
        self._known: dict[str, tuple[str, _core.UpstreamLoad, _core.UpstreamHealth]] = {}
        self._certificates: tuple[Config | None, Rows] = (None, [])

    async def render(self, facts: Facts, openmetrics: bool) -> bytes:
        """The text. It is made in slices, between which the loop turns; of several scrapes one at a time."""
        async with self._scraping:
            return await self._render(facts, openmetrics)

    async def _render(self, facts: Facts, openmetrics: bool) -> bytes:
        began = time.perf_counter()
        live = {process.place for process in facts.processes if process.place >= 0}
        compiled = self._compiled
        compiled.begin(openmetrics=openmetrics, live=live)
        compiled.add_no_route()
        routes = [route.name for route in facts.config.routes]
        for start in range(0, len(routes), SLICE):
            compiled.add_routes(routes[start : start + SLICE])
            await asyncio.sleep(0)
        upstreams = self._known_upstreams(facts.config)
        for start in range(0, len(upstreams), SLICE):
            compiled.add_upstreams(upstreams[start : start + SLICE])
            await asyncio.sleep(0)
        place = 0
        while compiled.add_endpoints(self._endpoints, _core.monotonic_ns(), place, place + SLICE):
            place += SLICE
            await asyncio.sleep(0)
        compiled.add_parts()
        compiled.add_plugins()
        rows = self._rows(facts, live)
        rows["scrape"] = [((), time.perf_counter() - began)]
        texts: dict[str, bytes | str] = {key: key for key in _core.METRIC_FAMILIES if compiled.has(key)}
        texts.update((key, samples(BY_KEY[key], found)) for key, found in rows.items())
        return compiled.join(in_order(texts, openmetrics))

    def _known_upstreams(self, config: Config) -> list[tuple[str, _core.UpstreamLoad, _core.UpstreamHealth]]:
        known, self._known = self._known, {}
        for name in config.upstreams:
            self._known[name] = known.get(name) or (
                name,
                _core.UpstreamLoad(name, table=self._loads, worker=0, workers=self._places),
                _core.UpstreamHealth(name, table=self._upstreams),
            )
        return list(self._known.values())

    def _rows(self, facts: Facts, live: set[int]) -> dict[str, Rows]:
        config = facts.config
        rows: dict[str, Rows] = {
            key: [((), number)] for key, number in self._counters.sum_gauges(live).items()
        }
        states = [process.state for process in facts.processes if process.state]
        rows |= {
            "listeners": [((each.name, each.bind), 1) for each in config.listeners],
            "certificate": self._expiries(config)
            + [(("", each.directory, each.domain), each.not_after) for each in facts.acme if each.not_after],
            "acme_certificates": _by_state(facts.acme),
            "acme": [((each.directory, each.domain), each.failures) for each in facts.acme],
            "config_version": [((), facts.version)],
            "config_applied": [((), facts.applied)],
            "config_reloads": [(("applied",), facts.reloads), (("refused",), facts.refused)],
            "config_ok": [((), int(facts.ok))],
            "config_routes": [((), len(config.routes))],
            "config_upstreams": [((), len(config.upstreams))],
            "build": [((fastgate.__version__, platform.python_version()), 1)],
            "started": [((), facts.started)],
            "ready": [((), int(facts.ready))],
            "workers": [((state,), states.count(state)) for state in _WORKER_STATES],
            "restarts": [((), facts.restarts)],
        }
        return rows | _of_processes(facts.processes)

    def _expiries(self, config: Config) -> Rows:
        if self._certificates[0] is not config:
            self._certificates = (config, _expiries(config))
        return self._certificates[1]


def _expiries(config: Config) -> Rows:
    found: Rows = []
    for listener in config.listeners:
        for number, each in enumerate(listener.tls.certificates if listener.tls is not None else ()):
            # A heavy import, which a configuration with certificates has made already.
            from fastgate.config.certificates import not_after

            labels = (listener.name, str(number), each.names[0] if each.names else "")
            found.append((labels, not_after(each.cert_pem).timestamp()))
    return found


def _by_state(facts: Iterable[AcmeFact]) -> Rows:
    counts = Counter((each.directory, each.state) for each in facts)
    directories = dict.fromkeys(directory for directory, _ in counts)
    return [((name, state), counts[name, state]) for name in directories for state in _ACME_STATES]


def _of_processes(processes: tuple[ProcessFact, ...]) -> dict[str, Rows]:
    """Of two workers in one seat, the one that came last."""
    rows: dict[str, Rows] = {"cpu": [], "rss": [], "fds": [], "max_fds": []}
    for name, pid in {process.name: process.pid for process in processes}.items():
        usage = usage_of(pid)
        if usage is None:
            continue
        for key, number in zip(rows, usage, strict=True):
            if number >= 0:
                rows[key].append(((name,), number))
    return rows
