"""The floor: our C relay, which parses nothing."""

from __future__ import annotations

from typing import ClassVar

from bench.peers.base import NATIVE, Peer, Place


class Relay(Peer):
    """bench/native/relay.c: what the kernel charges for passing the same bytes on."""

    name = "relay"
    title = "C relay (floor)"
    features = frozenset()
    floor = True
    notes: ClassVar[tuple[str, ...]] = (
        "copies bytes between one downstream and one upstream connection; no HTTP, no routes, no log, no "
        "limit: the floor of every scenario and not a contestant",
        "an idle connection costs it two descriptors, so 4,000 are held instead of 10,000",
    )
    idle_connections = 4000

    def missing(self) -> str | None:
        return None if (NATIVE / "relay").exists() else "the compiled relay"

    def version(self) -> str:
        return "bench/native/relay.c"

    def command(self, place: Place) -> list[str]:
        return [str(NATIVE / "relay"), str(place.port), str(place.upstream_port)]
