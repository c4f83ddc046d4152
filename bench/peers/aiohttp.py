"""A reverse proxy written with aiohttp: what a Python user would otherwise write."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from typing import ClassVar

from bench.model import Feature
from bench.peers.base import Peer, Place


class Aiohttp(Peer):
    """bench/peers/aiohttp_app.py under uvloop, one process."""

    name = "aiohttp"
    title = "aiohttp proxy"
    features = frozenset({Feature.ROUTES, Feature.ACCESS_LOG})
    notes: ClassVar[tuple[str, ...]] = (
        "60 lines of aiohttp under uvloop: routes in a dict by first path elements, a line of log per "
        "request into a buffered file; no rate limit and no IP list, so it is not in browser-full",
    )

    def missing(self) -> str | None:
        return None if importlib.util.find_spec("aiohttp") else "aiohttp (PyPI)"

    def version(self) -> str:
        return f"aiohttp {importlib.metadata.version('aiohttp')}"

    def command(self, place: Place) -> list[str]:
        log = [str(place.log)] if place.shape.access_log else []
        return [
            sys.executable, "-m", "bench.peers.aiohttp_app",
            str(place.port), str(place.upstream_port), str(place.shape.routes), *log,
        ]  # fmt: skip
