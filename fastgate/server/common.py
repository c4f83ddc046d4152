"""What all workers of a gateway share: memory that is mapped before the first of them is forked."""

from __future__ import annotations

import os
import secrets
from collections.abc import Collection
from typing import Final

from fastgate import _core
from fastgate.config import Config
from fastgate.server.acme.answers import Answers
from fastgate.server.certificates import CertificateStore
from fastgate.server.tickets import TicketKeys, TicketSecrets
from fastgate.telemetry.metrics import Metrics

__all__ = ["Common", "CounterPlaces"]

# Places of the counters by name, of routes and of upstreams, in the order of the configuration.
CounterPlaces = tuple[dict[str, int], dict[str, int]]

LEASE_NS: Final = 3_000_000_000
# Names of routes and upstreams that reloads may add, beside three for each that is there at the start.
SPARE_NAMES: Final = 4096


class Common:
    """Counters, and the records of endpoints, upstreams and splits, which outlive every configuration.

    places: how many processes there may be, those that stand in for others included. place: which of them
    this one is. tickets: of a program that this one takes over from.
    """

    def __init__(self, config: Config, places: int = 1, tickets: TicketSecrets | None = None) -> None:
        self.places = places
        self.place = 0
        self.counters = _core.Counters(
            [route.name for route in config.routes],
            list(config.upstreams),
            places,
            spare_routes=3 * len(config.routes) + SPARE_NAMES,
            spare_upstreams=3 * len(config.upstreams) + SPARE_NAMES,
        )
        self.endpoints = _core.endpoint_states()
        self.upstreams = _core.upstream_states()
        self.loads = _core.load_states(4096 * places)
        self.splits = _core.split_states()
        self.windows = _core.rollback_windows()
        # For sticky cookies without a configured secret: the same for as long as the gateway lives.
        self.secret = secrets.token_bytes(32)
        self.ticket_keys = TicketKeys(tickets)
        self.certificates = CertificateStore()
        self.answers = Answers(self.certificates)
        self._lease = _core.Lease("once for all", table=_core.leases())

    def take_place(self, place: int) -> None:
        """To be called behind the fork, before anything else is."""
        self.place = place
        self.counters.use_worker(place)

    def assign(self, config: Config, held: tuple[Collection[int], Collection[int]]) -> CounterPlaces:
        """For the workers to follow. held: places that any of them still holds. Raises
        ``_core.SlotsFull``."""
        routes = [route.name for route in config.routes]
        upstreams = list(config.upstreams)
        of_routes, of_upstreams = self.counters.assign(routes, upstreams, held)
        return (
            dict(zip(routes, (slot.index for slot in of_routes), strict=True)),
            dict(zip(upstreams, (slot.index for slot in of_upstreams), strict=True)),
        )

    def metrics(self) -> Metrics:
        """What tells all that lies here."""
        return Metrics(self.counters, self.endpoints, self.upstreams, self.loads, self.places)

    def leads(self) -> bool:
        """Whether this process is the one that does what is done once for all workers."""
        return self._lease.hold(os.getpid(), _core.monotonic_ns(), LEASE_NS)

    def give_up_lead(self) -> None:
        self._lease.release(os.getpid())
