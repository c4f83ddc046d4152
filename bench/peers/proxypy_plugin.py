"""The route of the proxy.py peer, loaded by proxy.py itself.

proxy.py's own way (a route that returns a Url) opens another upstream connection for each request, and its
threadless executor dies when the one before is collected (2.4.10). So the route hands out one connection for
the life of the downstream connection.
"""

from __future__ import annotations

import os

from proxy.common.types import RePattern
from proxy.core.connection import TcpServerConnection
from proxy.http import Url
from proxy.http.parser import HttpParser
from proxy.http.server import ReverseProxyBasePlugin

UPSTREAM_PORT = int(os.environ.get("BENCH_UPSTREAM_PORT", "0"))


class Bench(ReverseProxyBasePlugin):
    """Everything under /svc/ to the one upstream; there is an instance for each downstream connection."""

    kept: TcpServerConnection | None = None

    def routes(self) -> list[str | tuple[str, list[bytes]]]:
        """One dynamic route: a static one would lose the path."""
        return [r"/svc/\d+/"]

    def handle_route(self, request: HttpParser, pattern: RePattern) -> Url | TcpServerConnection | memoryview:
        """The upstream connection, the request already queued on it."""
        del pattern
        if self.kept is None or self.kept.closed:
            self.kept = TcpServerConnection("127.0.0.1", UPSTREAM_PORT)
            self.kept.connect()
        self.kept.queue(memoryview(request.build()))
        return self.kept
