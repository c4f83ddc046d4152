"""fastgate itself, from the working tree or wherever `import fastgate` finds it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from typing import ClassVar

from bench.model import route_prefix
from bench.peers.base import KEEP_ALIVE, POOL, Peer, Place


class Fastgate(Peer):
    """One process, its TOML configuration."""

    name = "fastgate"
    title = "fastgate"
    install = "pip install ."
    notes: ClassVar[tuple[str, ...]] = (
        "access log in its default JSON format (the richest of all peers), 64 KiB buffer, 1 s flush",
        "rate limit per client IP, without RateLimit response fields, which nginx and HAProxy do not send",
    )

    def missing(self) -> str | None:
        for module in ("fastgate._core", "fastgate.cli"):
            try:
                found = importlib.util.find_spec(module)
            except ModuleNotFoundError:
                found = None
            if found is None:
                return f"module {module} (build it: python setup.py build_ext --inplace)"
        return None

    def version(self) -> str:
        import fastgate

        return f"fastgate {fastgate.__version__}"

    def command(self, place: Place) -> list[str]:
        shape = place.shape
        plugins = []
        if shape.ip_prefixes:
            plugins.append("office")
        if shape.rate_limit:
            plugins.append("limit")
        parts = [
            "[server]\nmax_connections = 20000\nmax_connections_per_ip = 0\n",
            f"[access_log]\nenabled = {str(shape.access_log).lower()}\npath = {str(place.log)!r}\n",
            f'[[listeners]]\nname = "bench"\nbind = "127.0.0.1:{place.port}"\nplugins = {plugins}\n'
            f'timeouts = {{ keep_alive = "{KEEP_ALIVE}s" }}\n',
            f'[upstreams.svc]\nendpoints = ["127.0.0.1:{place.upstream_port}"]\n'
            f"pool = {{ max_connections = {POOL}, max_idle = {POOL}, queue = 4096 }}\n",
        ]
        if shape.rate_limit:
            parts.append(
                f'[plugins.limit]\nuse = "rate-limit"\nkey = "client-ip"\nrate = "{shape.rate}/s"\n'
                f"burst = {shape.rate}\nheaders = []\n"
            )
        if shape.ip_prefixes:
            place.write("office.txt", "\n".join(shape.prefixes()) + "\n")
            parts.append('[plugins.office]\nuse = "ip-filter"\nallow_file = "office.txt"\n')
        parts += [
            f'[[routes]]\nname = "r{i}"\nmatch = {{ prefix = "{route_prefix(i)}" }}\nupstream = "svc"\n'
            for i in range(shape.routes)
        ]
        config = place.write("gateway.toml", "\n".join(parts))
        return [sys.executable, "-m", "fastgate", "run", "-c", str(config)]

    def environment(self, place: Place) -> Mapping[str, str]:
        del place
        return {"PYTHONDONTWRITEBYTECODE": "1"}
