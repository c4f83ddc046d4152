"""proxy.py as a reverse proxy: the Python proxy that is installed with one command."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from collections.abc import Mapping
from typing import ClassVar

from bench.model import Feature
from bench.peers.base import KEEP_ALIVE, Peer, Place


class ProxyPy(Peer):
    """proxy.py with the plugin of proxypy_plugin.py, one acceptor with its local executor."""

    name = "proxy.py"
    title = "proxy.py"
    features = frozenset({Feature.ACCESS_LOG})
    notes: ClassVar[tuple[str, ...]] = (
        "its reverse proxy has no upstream keep-alive of its own (and 2.4.10 dies of the second request of a "
        "connection); our plugin keeps one upstream connection for each downstream connection",
        "its access log is a line per connection, not per request",
        "one route alone: it compiles and tries its route expressions one after the other; no rate limit and "
        "no IP list; an idle connection costs it two descriptors, so 4,000 are held instead of 10,000",
    )
    idle_connections = 4000

    def missing(self) -> str | None:
        return None if importlib.util.find_spec("proxy") else "proxy.py (PyPI)"

    def version(self) -> str:
        return f"proxy.py {importlib.metadata.version('proxy.py')}"

    def command(self, place: Place) -> list[str]:
        return [
            sys.executable, "-m", "proxy", "--hostname", "127.0.0.1", "--port", str(place.port),
            "--num-workers", "1", "--num-acceptors", "1", "--threadless", "--backlog", "4096",
            "--open-file-limit", "19000", "--timeout", str(KEEP_ALIVE), "--data-dir", str(place.folder),
            "--disable-http-proxy", "--enable-web-server", "--enable-reverse-proxy",
            "--plugins", "bench.peers.proxypy_plugin.Bench",
            "--log-level", "INFO" if place.shape.access_log else "WARNING", "--log-file", str(place.log),
        ]  # fmt: skip

    def environment(self, place: Place) -> Mapping[str, str]:
        return {"BENCH_UPSTREAM_PORT": str(place.upstream_port)}
