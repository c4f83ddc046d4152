"""A gateway of FastAPI and httpx: what many teams begin with."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import sys
from typing import ClassVar

from bench.model import Feature
from bench.peers.base import Peer, Place


class FastApi(Peer):
    """bench/peers/fastapi_app.py under uvicorn with uvloop and httptools, one process."""

    name = "fastapi"
    title = "FastAPI + httpx"
    features = frozenset({Feature.ROUTES, Feature.PLUGINS, Feature.AGGREGATION})
    notes: ClassVar[tuple[str, ...]] = (
        "one catch-all route that streams through an httpx client; each hook is a dependency with an empty "
        "`async def`; an aggregation is asyncio.gather over its parts, orjson both ways",
    )

    def missing(self) -> str | None:
        needed = ("fastapi", "uvicorn", "httpx")
        absent = [name for name in needed if importlib.util.find_spec(name) is None]
        return f"{', '.join(absent)} (PyPI)" if absent else None

    def version(self) -> str:
        return f"FastAPI {importlib.metadata.version('fastapi')}, httpx {importlib.metadata.version('httpx')}"

    def command(self, place: Place) -> list[str]:
        return [
            sys.executable, "-m", "bench.peers.fastapi_app",
            str(place.port), str(place.upstream_port), str(place.shape.routes), str(place.shape.plugins),
            json.dumps(place.shape.part_paths()),
        ]  # fmt: skip
