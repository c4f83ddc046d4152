"""What is measured: the shape of a gateway's work, the request through it, the scenario, one sample."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Literal

RATE_LIMIT = 1_000_000  # requests per second and client: above what one core can carry


class Feature(enum.Enum):
    """What a gateway is asked to do beside forwarding; a peer says which of these it can do."""

    ROUTES = "routes"
    ACCESS_LOG = "access log"
    RATE_LIMIT = "rate limit"
    IP_LIST = "IP list"
    ENDPOINTS = "several endpoints"
    SURVIVAL = "survival of endpoints that fail"
    PLUGINS = "hooks in a scripting language"
    TLS = "TLS with clients"
    AGGREGATION = "aggregation"


Limit = int | Literal["adaptive"] | None


@dataclass(frozen=True)
class Survival:
    """What a gateway does about endpoints that fail. Each peer has its own means; see the notes of each.

    retry: safe requests again, elsewhere, where the connection failed or `try_timeout` passed; others only
    where nothing was sent. outlier: endpoints that fail `FAILURES` times in a row are left out for
    `EJECTION` seconds and longer. breaker: caps far above the load and, where there is one, a breaker by
    error ratio. checks: each endpoint's /health is asked every half second. panic: the share of endpoints in
    use, in percent, below which all are used. limit: requests at one endpoint are bounded, by what the peer
    measures ("adaptive") or by a number that its operator knows. admin: it can be operated while it runs.
    """

    retry: bool = False
    outlier: bool = False
    breaker: bool = False
    checks: bool = False
    panic: int = 50
    limit: Limit = None
    admin: bool = False
    try_timeout: float = 1.0  # seconds


FAILURES = 5
EJECTION = 2


@dataclass(frozen=True)
class Shape:
    """The work of a gateway in a scenario; each peer turns it into its own configuration.

    Every route is a path prefix (`/svc/00042/`) that leads to the one upstream. The rate limit (per client
    IP) never refuses and the IP list always allows the client: what is measured is the deciding. Several
    endpoints are balanced by least requests.
    """

    routes: int = 1
    access_log: bool = False
    rate_limit: bool = False
    ip_prefixes: int = 0
    endpoints: int = 1
    survival: Survival | None = None
    # Hooks that see each request and do nothing, each in the language that the peer is scripted in.
    plugins: int = 0
    # Clients come with TLS, to a certificate with an ECDSA key (P-256).
    tls: bool = False
    # One answer of so many: for each part the end of the path that the upstream is asked for. The answer to
    # `AGGREGATE` under the first route's prefix is a JSON object with the parts' bodies by name.
    parts: tuple[str, ...] = ()
    # A test sets them to see both in force: requests per second, and whether the list has the client.
    rate: int = RATE_LIMIT
    client_listed: bool = True

    def prefixes(self) -> list[str]:
        """Distinct IPv4 prefixes of several lengths, the last one the client's (127.0.0.0/8)."""
        found = []
        for i in range(self.ip_prefixes - 1):
            if i % 3 == 0:
                found.append(f"10.{i // 256}.{i % 256}.0/24")
            elif i % 3 == 1:
                found.append(f"172.{16 + i // 256}.{i % 256}.64/26")
            else:
                found.append(f"192.168.{i // 256}.{i % 256}/32")
        return [*found, "127.0.0.0/8" if self.client_listed else "127.255.0.0/16"]

    def part_paths(self) -> dict[str, str]:
        """Member of the answer -> the path of its part."""
        return {name: f"/parts/{name}/{end}" for name, end in zip("abcdefghij", self.parts, strict=False)}

    def features(self) -> frozenset[Feature]:
        """What a peer must be able to do to take part; one route is no feature."""
        wanted = {
            Feature.ROUTES: self.routes > 1,
            Feature.ACCESS_LOG: self.access_log,
            Feature.RATE_LIMIT: self.rate_limit,
            Feature.IP_LIST: self.ip_prefixes > 0,
            Feature.ENDPOINTS: self.endpoints > 1,
            Feature.SURVIVAL: self.survival is not None,
            Feature.PLUGINS: self.plugins > 0,
            Feature.TLS: self.tls,
            Feature.AGGREGATION: bool(self.parts),
        }
        return frozenset(feature for feature, on in wanted.items() if on)


def route_prefix(index: int) -> str:
    """The path prefix of a route, without the last slash."""
    return f"/svc/{index:05d}"


AGGREGATE = "/page"  # the end of the path that is answered with all parts


SMALL_HEADERS = (("User-Agent", "bench/1"), ("Accept", "*/*"))
# Twelve fields with Host, about 700 bytes with the request line: what a browser sends to an API.
BROWSER_HEADERS = (
    ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
    ("Accept", "application/json, text/plain, */*;q=0.8"),
    ("Accept-Language", "en-GB,en;q=0.7,de-DE;q=0.3"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Referer", "https://shop.example.com/customers/4711/orders?page=2&sort=date"),
    ("Origin", "https://shop.example.com"),
    (
        "Cookie",
        "session=7f3a9c1e5b8d2046a1c3e5f7092b4d6e; theme=dark; consent=necessary.statistics; cart=88412; "
        "_shop_id=GA1.2.1837465920.1763821000; csrftoken=Zt9Qx2vLm4Rk7Wp1Ys6Nb3Hd8Jf5Cg0A; "
        "locale=en_GB; tz=Europe%2FBerlin",
    ),
    ("Sec-Fetch-Dest", "empty"),
    ("Sec-Fetch-Mode", "cors"),
    ("Sec-Fetch-Site", "same-site"),
    ("Cache-Control", "no-cache"),
)


@dataclass(frozen=True)
class Request:
    """The request of a scenario: method, end of its path (it chooses the upstream's answer), fields, body."""

    method: str = "GET"
    tail: str = "/items"
    headers: tuple[tuple[str, str], ...] = SMALL_HEADERS
    body: int = 0  # bytes

    def encode(self, route: int) -> bytes:
        """The whole request for a route as it goes over the wire."""
        lines = [f"{self.method} {route_prefix(route)}{self.tail} HTTP/1.1", "Host: api.example.com"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        if self.body:
            lines += ["Content-Type: application/octet-stream", f"Content-Length: {self.body}"]
        return ("\r\n".join(lines) + "\r\n\r\n").encode() + b"x" * self.body


class Kind(enum.Enum):
    """How a scenario is driven and what its main number is."""

    CLOSED = "closed loop"  # wrk, as fast as answers come: CPU per request
    DOWNLOAD = "download"  # large bodies: CPU per MiB
    IDLE = "idle connections"  # memory per connection that has served one request
    HALF = "half of peak"  # constant rate at half of the own peak: p99 from when a request was due
    HANDSHAKE = "handshakes"  # a connection for each request: CPU per connection at a constant rate
    WAITS = "parts that take their time"  # low constant rate: p50 over that of the slowest part
    OVERLOAD = "overload"  # constant rate at twice the own peak: answers in time, as a share of the peak


@dataclass(frozen=True)
class Metric:
    """A number of a sample: its key, how it is called, its unit, and whether less is better."""

    key: str
    title: str
    unit: str
    less_is_better: bool = True


MAIN_METRIC = {
    Kind.CLOSED: Metric("cpu_us", "CPU per request", "us"),
    Kind.DOWNLOAD: Metric("cpu_us_per_mib", "CPU per MiB", "us"),
    Kind.HANDSHAKE: Metric("cpu_us", "CPU per connection", "us"),
    Kind.IDLE: Metric("bytes_per_connection", "memory per idle connection", "B"),
    Kind.HALF: Metric("p99_us", "p99 at half of own peak", "us"),
    Kind.WAITS: Metric("p50_of_slowest", "p50 over the slowest part", ""),
    Kind.OVERLOAD: Metric(
        "goodput_of_peak", "goodput at twice the peak, of the peak", "", less_is_better=False
    ),
}


@dataclass(frozen=True)
class Scenario:
    """One piece of work that every peer able to do it is measured on."""

    name: str
    title: str
    kind: Kind = Kind.CLOSED
    shape: Shape = field(default_factory=Shape)
    request: Request = field(default_factory=Request)
    connections: int = 64
    rate: float = 0  # HANDSHAKE: connections per second at which CPU is taken
    resume: bool = False  # HANDSHAKE: each connection offers the ticket of one before it
    suites: str = ""  # HANDSHAKE: of TLS 1.3, as the client offers them; "": in OpenSSL's order
    group: str = ""  # scenarios of one group are measured side by side in each round, for ratios among them

    @property
    def metric(self) -> Metric:
        """The number that this scenario compares."""
        return MAIN_METRIC[self.kind]

    def requests(self) -> list[bytes]:
        """The requests to send in turn: one for each route."""
        return [self.request.encode(route) for route in range(self.shape.routes)]


@dataclass
class Sample:
    """One measurement of one peer in one round. Numbers are invalid where `problems` is not empty."""

    scenario: str
    peer: str
    round: int
    values: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def valid(self) -> bool:
        """Whether the numbers may be used."""
        return not self.problems
