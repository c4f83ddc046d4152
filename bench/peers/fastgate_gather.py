"""fastgate, its aggregation written in Python: a plugin with `exchange.gather()`."""

from __future__ import annotations

from typing import ClassVar

from bench.model import AGGREGATE, Feature, Shape, route_prefix
from bench.peers.base import Place
from bench.peers.fastgate import Fastgate

PLUGIN = """\
from fastgate.plugins import Exchange, Plugin, Response

PARTS = {parts!r}


class Page(Plugin):
    async def on_request(self, exchange: Exchange) -> Response:
        async with exchange.gather() as gather:
            found = {{name: gather.get("svc", path) for name, path in PARTS.items()}}
        return Response(json={{name: part.value for name, part in found.items()}})
"""


class FastgateGather(Fastgate):
    """As fastgate, but for who puts the answer together."""

    name = "fastgate-python"
    title = "fastgate, Python"
    notes: ClassVar[tuple[str, ...]] = (
        "a plugin's `async def on_request` with exchange.gather(); bodies are decoded to Python's own types",
    )

    def lacks(self, shape: Shape) -> frozenset[Feature]:
        """In everything else it is fastgate."""
        return super().lacks(shape) if shape.parts else frozenset({Feature.AGGREGATION})

    def aggregate_lines(self, place: Place) -> list[str]:
        if not place.shape.parts:
            return []
        place.write("page.py", PLUGIN.format(parts=place.shape.part_paths()))
        return [
            '[plugins.page]\nuse = "./page.py"\n',
            f'[[routes]]\nname = "page"\nmatch = {{ path = "{route_prefix(0)}{AGGREGATE}" }}\n'
            'respond = { status = 500 }\nplugins = ["page"]\n',
        ]
