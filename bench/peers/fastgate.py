"""fastgate itself, from the working tree or wherever `import fastgate` finds it."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterable, Mapping
from typing import ClassVar

from bench.model import AGGREGATE, EJECTION, FAILURES, Feature, Survival, route_prefix
from bench.peers.base import (
    CHECK_MS,
    CHECK_TIMEOUT_MS,
    CHECK_TIMES,
    CONNECT_MS,
    KEEP_ALIVE,
    POOL,
    TRIES,
    Peer,
    Place,
)


def endpoints_json(ports: Iterable[int]) -> str:
    """The file that `endpoints_file` names."""
    return json.dumps({"endpoints": [f"127.0.0.1:{port}" for port in ports]})


def survival_lines(survival: Survival) -> list[str]:
    """Keys of the upstream's table."""
    lines = [
        f'timeouts = {{ connect = "{CONNECT_MS}ms", head = "10s" }}',
        f"panic_threshold = {survival.panic}",
    ]
    if survival.checks:
        lines.append(
            f'health = {{ path = "/health", interval = "{CHECK_MS}ms", timeout = "{CHECK_TIMEOUT_MS}ms", '
            f"rise = {CHECK_TIMES}, fall = {CHECK_TIMES} }}"
        )
    if survival.outlier:
        lines.append(
            f"outlier = {{ consecutive_errors = {FAILURES}, consecutive_gateway_errors = {FAILURES}, "
            f'interval = "1s", base_ejection = "{EJECTION}s" }}'
        )
    if survival.retry:
        lines.append(
            f'retry = {{ attempts = {TRIES}, on = ["connect-failure", "refused", "reset", "timeout"], '
            f'per_try_timeout = "{survival.try_timeout * 1000:.0f}ms" }}'
        )
    if survival.breaker:
        lines.append(
            "breaker = { max_connections = 20000, max_pending = 20000, max_requests = 20000, "
            f'max_retries = 1000, error_percent = 50, open_time = "{EJECTION}s" }}'
        )
    if survival.limit == "adaptive":
        lines.append("concurrency = { adaptive = true }")
    elif survival.limit:
        lines.append(f"concurrency = {{ limit = {survival.limit} }}")
    return lines


def tls_lines(place: Place) -> list[str]:
    """Of the listener."""
    if not place.shape.tls:
        return []
    cert, key = place.certificate()
    return [f'tls = {{ certificates = [{{ cert = "{cert}", key = "{key}" }}] }}\n']


NO_OP = """\
from fastgate.plugins import Exchange, Plugin


class NoOp(Plugin):
    async def on_request(self, exchange: Exchange) -> None:
        return None
"""


class Fastgate(Peer):
    """One process, its TOML configuration."""

    name = "fastgate"
    title = "fastgate"
    features = frozenset(Feature)
    install = "pip install ."
    notes: ClassVar[tuple[str, ...]] = (
        "access log in its default JSON format (the richest of all peers), 64 KiB buffer, 1 s flush",
        "endpoints: balance and the tables retry, outlier, breaker, health, concurrency of the upstream",
        "TLS 1.3: AES-128-GCM with SHA-256 unless a client prefers ChaCha20; nginx leaves it to the client, "
        "which has AES-256-GCM with SHA-384 first if it is OpenSSL's",
        "hooks: a plugin with one `async def on_request` that returns None",
        "an aggregation is a route's `aggregate`, each part under its `group`",
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

    def aggregate_lines(self, place: Place) -> list[str]:
        """The route that answers with all parts, grouped."""
        if not place.shape.parts:
            return []
        path = f"{route_prefix(0)}{AGGREGATE}"
        lines = [f'[[routes]]\nname = "page"\nmatch = {{ path = "{path}" }}\n[routes.aggregate.parts]']
        lines += [
            f'{name} = {{ upstream = "svc", path = "{asked}", group = "{name}" }}'
            for name, asked in place.shape.part_paths().items()
        ]
        return ["\n".join(lines)]

    def command(self, place: Place) -> list[str]:
        shape = place.shape
        plugins = []
        if shape.ip_prefixes:
            plugins.append("office")
        if shape.rate_limit:
            plugins.append("limit")
        hooks = [f"hook{i}" for i in range(shape.plugins)]
        plugins += hooks
        parts = [
            "[server]\nmax_connections = 20000\nmax_connections_per_ip = 0\n",
            f"[access_log]\nenabled = {str(shape.access_log).lower()}\npath = {str(place.log)!r}\n",
            f'[[listeners]]\nname = "bench"\nbind = "127.0.0.1:{place.port}"\nplugins = {plugins}\n'
            f'timeouts = {{ keep_alive = "{KEEP_ALIVE}s" }}\n',
            *tls_lines(place),
            f"[upstreams.svc]\npool = {{ max_connections = {POOL}, max_idle = {POOL}, queue = 4096 }}\n",
        ]
        if shape.survival is not None and shape.survival.admin:
            place.write("endpoints.json", endpoints_json(place.upstream_ports))
            parts.append('endpoints_file = "endpoints.json"')
            parts.insert(0, f'[admin]\nbind = "127.0.0.1:{place.admin_port}"\n')
        else:
            parts.append(f"endpoints = {[f'127.0.0.1:{port}' for port in place.upstream_ports]}")
        if shape.survival is not None:
            parts += survival_lines(shape.survival)
        if shape.rate_limit:
            parts.append(
                f'[plugins.limit]\nuse = "rate-limit"\nkey = "client-ip"\nrate = "{shape.rate}/s"\n'
                f"burst = {shape.rate}\nheaders = []\n"
            )
        if shape.ip_prefixes:
            place.write("office.txt", "\n".join(shape.prefixes()) + "\n")
            parts.append('[plugins.office]\nuse = "ip-filter"\nallow_file = "office.txt"\n')
        if hooks:
            place.write("no_op.py", NO_OP)
            parts += [f'[plugins.{hook}]\nuse = "./no_op.py"\n' for hook in hooks]
        parts += [
            f'[[routes]]\nname = "r{i}"\nmatch = {{ prefix = "{route_prefix(i)}" }}\nupstream = "svc"\n'
            for i in range(shape.routes)
        ]
        parts += self.aggregate_lines(place)
        config = place.write("gateway.toml", "\n".join(parts))
        return [sys.executable, "-m", "fastgate", "run", "-c", str(config)]

    def environment(self, place: Place) -> Mapping[str, str]:
        del place
        return {"PYTHONDONTWRITEBYTECODE": "1"}
