"""The scenarios and what fastgate must reach in them."""

from __future__ import annotations

from dataclasses import dataclass

from bench.model import AGGREGATE, BROWSER_HEADERS, Kind, Request, Scenario, Shape, Survival

SLOWEST_MS = 20  # of the parts in aggregate-wait
FULL = Shape(routes=1000, access_log=True, rate_limit=True, ip_prefixes=1000)

SCENARIOS = (
    Scenario("small-get", "small GET, access log on", shape=Shape(access_log=True)),
    Scenario(
        "browser-full",
        "browser-size GET, 1,000 routes, rate limit, IP list, access log",
        shape=FULL,
        request=Request(headers=BROWSER_HEADERS),
    ),
    Scenario(
        "browser-get",
        "browser-size GET, access log on",
        shape=Shape(access_log=True),
        request=Request(headers=BROWSER_HEADERS),
    ),
    Scenario("post-10k", "POST 10 KiB", request=Request(method="POST", body=10 << 10)),
    Scenario("response-100k", "response of 100 KiB", request=Request(tail="/100k")),
    Scenario(
        "download-100m",
        "download of 100 MiB",
        kind=Kind.DOWNLOAD,
        request=Request(tail="/100m"),
        connections=4,
    ),
    Scenario(
        "tls-small-get",
        "small GET with TLS, access log on",
        shape=Shape(access_log=True, tls=True),
        group="tls",
    ),
    Scenario(
        "tls-handshake-full",
        "a full handshake and a small GET on each connection",
        kind=Kind.HANDSHAKE,
        shape=Shape(access_log=True, tls=True),
        connections=16,
        rate=1200,
        group="tls",
    ),
    Scenario(
        "tls-handshake-resumed",
        "the same, resumed",
        kind=Kind.HANDSHAKE,
        shape=Shape(access_log=True, tls=True),
        connections=16,
        rate=2000,
        resume=True,
        group="tls",
    ),
    Scenario(
        "tls-handshake-browser",
        "the same, resumed, ciphers offered as by browsers",
        kind=Kind.HANDSHAKE,
        shape=Shape(access_log=True, tls=True),
        connections=16,
        rate=2000,
        resume=True,
        # Where each peer has its own idea of OpenSSL's order, all agree on the first of these.
        suites="TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_256_GCM_SHA384",
        group="tls",
    ),
    Scenario("plain-get", "small GET, no log", group="endpoints"),
    Scenario("plain-8", "small GET over 8 endpoints", shape=Shape(endpoints=8), group="endpoints"),
    Scenario(
        "resilient-8",
        "small GET over 8 endpoints: retries, outliers, breakers on, none firing",
        shape=Shape(endpoints=8, survival=Survival(retry=True, outlier=True, breaker=True)),
        group="endpoints",
    ),
    Scenario("plugin-0", "small GET, no hook", group="plugins"),
    Scenario(
        "plugin-1", "small GET through one hook that does nothing", shape=Shape(plugins=1), group="plugins"
    ),
    Scenario("plugin-5", "small GET through five of them", shape=Shape(plugins=5), group="plugins"),
    Scenario("routes-1", "small GET through 1 route", group="routes"),
    Scenario("routes-1000", "small GET through 1,000 routes", shape=Shape(routes=1000), group="routes"),
    Scenario("routes-10000", "small GET through 10,000 routes", shape=Shape(routes=10_000), group="routes"),
    Scenario("plain-2k", "GET of 2 KiB JSON", request=Request(tail="/2k"), group="aggregation"),
    Scenario(
        "aggregate-5",
        "one answer of 5 parallel parts, 2 KiB JSON each",
        shape=Shape(parts=("2k",) * 5),
        request=Request(tail=AGGREGATE),
        connections=16,  # 80 requests at a time to the upstream; plain-2k has 64
        group="aggregation",
    ),
    Scenario(
        "aggregate-wait",
        "the same, idle, whose parts take 5 to 20 ms",
        kind=Kind.WAITS,
        shape=Shape(parts=tuple(f"{ms}ms/2k" for ms in (5, 9, 13, 17, SLOWEST_MS))),
        request=Request(tail=AGGREGATE),
        connections=8,
    ),
    Scenario("idle-10000", "10,000 idle connections", kind=Kind.IDLE, connections=10_000),
    Scenario("half-load", "latency at half of the own peak", kind=Kind.HALF, shape=Shape(access_log=True)),
    Scenario(
        "overload", "twice the own peak", kind=Kind.OVERLOAD, shape=Shape(access_log=True), connections=1024
    ),
)
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
QUICK = ("small-get", "browser-full", "download-100m")


@dataclass(frozen=True)
class Target:
    """A bound on fastgate's main number: over a peer's, over its own in another scenario, or absolute.

    What it is taken over is `times` that number and `plus`, in its unit.
    """

    scenario: str
    limit: float
    peer: str = ""
    baseline: str = ""  # a scenario
    times: float = 1
    plus: float = 0

    def describe(self) -> str:
        """What is compared, in words."""
        if self.peer:
            return f"{self.scenario}: over {self.peer}"
        if self.plus:
            return f"{self.scenario}: over {self.times:g} x itself in {self.baseline} + {self.plus:g}"
        if self.baseline:
            return f"{self.scenario}: over itself in {self.baseline}"
        return f"{self.scenario}: absolute"


TARGETS = (
    Target("small-get", 0.95, peer="nginx"),
    Target("small-get", 0.95, peer="haproxy"),
    Target("small-get", 0.40, peer="envoy"),
    Target("browser-full", 1.00, peer="nginx"),
    Target("browser-full", 1.00, peer="haproxy"),
    Target("browser-full", 0.40, peer="envoy"),
    Target("download-100m", 1.3, peer="nginx"),
    Target("download-100m", 1.0, peer="envoy"),
    Target("tls-small-get", 1.15, peer="nginx"),
    # CPU for each: 0.9 of nginx's handshakes in the same time.
    Target("tls-handshake-full", 1.11, peer="nginx"),
    Target("tls-handshake-resumed", 1.11, peer="nginx"),
    Target("routes-10000", 1.05, baseline="routes-1"),
    Target("resilient-8", 1.05, baseline="plain-get"),
    Target("resilient-8", 1.05, baseline="plain-8"),
    Target("plugin-1", 1.25, baseline="plugin-0"),
    Target("plugin-5", 1.8, baseline="plugin-0"),
    Target("idle-10000", 0.33, peer="envoy"),
    Target("idle-10000", 4096),
    Target("aggregate-5", 1.0, baseline="plain-2k", times=5, plus=40),
    # CPU for each: five times as many in the same time.
    Target("aggregate-5", 0.2, peer="fastapi"),
    Target("aggregate-wait", 1.3),
    Target("half-load", 1.1, peer="nginx"),
    Target("half-load", 0.7, peer="envoy"),
)
