"""The route of the proxy.py peer, loaded by proxy.py itself."""

from __future__ import annotations

import os

from proxy.common.types import RePattern
from proxy.core.connection import TcpServerConnection
from proxy.http import Url
from proxy.http.parser import HttpParser
from proxy.http.server import ReverseProxyBasePlugin

UPSTREAM = f"http://127.0.0.1:{os.environ.get('BENCH_UPSTREAM_PORT', '0')}".encode()


class Bench(ReverseProxyBasePlugin):
    """Everything under /svc/ to the one upstream, its path kept."""

    def routes(self) -> list[str | tuple[str, list[bytes]]]:
        """One dynamic route: a static one would lose the path."""
        return [r"/svc/\d+/"]

    def handle_route(self, request: HttpParser, pattern: RePattern) -> Url | TcpServerConnection | memoryview:
        """The upstream's address with the request's path."""
        del pattern
        return Url.from_bytes(UPSTREAM + (request.path or b"/"))
