"""Upstreams: their endpoints, how one is chosen, and the bounds of what they may do."""

from typing import Annotated, Literal

from msgspec import Struct

from fastgate.config.model.basics import KIB, MS, SECOND, UNLIMITED, Secret, derived, doc
from fastgate.config.model.health import HealthCheck, Outlier
from fastgate.config.model.resilience import Breaker, Concurrency, Hedge, Retry
from fastgate.config.model.tls import UpstreamTls


class Endpoint(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One address of an upstream."""

    address: Annotated[
        str,
        doc(
            '"127.0.0.1:9001", "[::1]:9001", "name:9001", "https://name" (port 443 and TLS), "http://name" '
            '(port 80), "unix:/path/x.sock", "srv:_http._tcp.orders.internal" for what its SRV records say '
            '(host, port, weight), or "asgi:module:app" for an ASGI application in this process.',
            "address",
        ),
    ]
    host: Annotated[str, derived("Host part, without brackets; empty where there is none.")] = ""
    port: Annotated[int, derived("Port part; 0 where there is none.")] = 0
    unix_path: Annotated[str | None, derived("The path of a Unix socket.")] = None
    srv: Annotated[str, derived('The SRV name, without "srv:"; empty for any other address.')] = ""
    asgi: Annotated[
        str, derived('"module:app" of an ASGI application, or its name; empty for any other address.')
    ] = ""
    scheme: Annotated[str, derived('"http" or "https" where it was written as a URL.')] = ""
    weight: Annotated[int, doc("Its share of the requests beside the other endpoints.", ge=1, le=1000)] = 1
    region: Annotated[str, doc("The region in which it stands.", "name", empty=True)] = ""
    zone: Annotated[str, doc("The zone in that region.", "name", empty=True)] = ""


class ListedEndpoint(Endpoint, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One endpoint of an endpoints file."""

    state: Annotated[
        Literal["ready", "draining", "down"],
        doc('"ready", "draining" (no new requests, what runs may finish) or "down".'),
    ] = "ready"


class EndpointsFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an endpoints file holds, as JSON or TOML; it may list none."""

    endpoints: Annotated[
        tuple[ListedEndpoint, ...],
        doc("Addresses, or tables with `address`, `weight`, `region`, `zone`, `state`.", shorthand="address"),
    ]


class Hash(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What chooses the endpoint with balance = "maglev" or "ring"."""

    key: Annotated[
        tuple[str, ...],
        doc(
            'The first of these that the request has: "header:NAME", "cookie:NAME", "path:NAME" (a {NAME} '
            'segment), "query:NAME", "client-ip", "consumer".',
            "hash-key",
            one_or_many=True,
            least=1,
        ),
    ] = ("client-ip",)
    bounded_load: Annotated[
        float,
        doc(
            "No endpoint gets more than this times its share of what is under way; the next one takes the "
            "rest. More than 1, or 0: no bound.",
            ge=0,
            le=100,
        ),
    ] = 1.25


class Sticky(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A signed cookie that keeps a client at its endpoint while that is in use. Absent: none."""

    cookie: Annotated[str, doc("Its name.", "cookie-name")] = "fg_sticky"
    secret: Annotated[
        str | Secret,
        doc(
            "Signs the cookie; the same at all replicas.",
            "header-value",
            secret=True,
            default="random at start: sessions move at every restart and between replicas",
        ),
    ] = ""
    ttl: Annotated[
        int, doc('How long a client keeps it, in whole seconds; "0s": until its session ends.', "duration")
    ] = 0
    path: Annotated[str, doc("Its Path.", "cookie-path")] = "/"
    domain: Annotated[str, doc("Its Domain.", "host", empty=True)] = ""
    secure: Annotated[bool, doc("Whether it is Secure: sent by clients over TLS alone.")] = False
    http_only: Annotated[bool, doc("Whether it is HttpOnly: not shown to scripts.")] = True
    same_site: Annotated[Literal["lax", "strict", "none"], doc("Its SameSite.")] = "lax"


class Regions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an upstream with endpoints in several regions is used: the nearest first (our zone, our region,
    then the others)."""

    order: Annotated[
        tuple[str, ...], doc("Regions after our own, the next one first; those not named come last.", "name")
    ] = ()
    spill_over: Annotated[
        float,
        doc(
            "Percent of its share that an endpoint can bear (Envoy's overprovisioning factor): with 140, "
            "what is too much goes to the next region when fewer than 72 % of a region are in use.",
            ge=100,
            le=1000,
        ),
    ] = 140
    failback_after: Annotated[
        int, doc("How long a region must be well again before requests come back to it.", "duration")
    ] = 30 * SECOND


class UpstreamTimeouts(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long an upstream may take."""

    connect: Annotated[int, doc("To open a connection; beyond it 504.", "duration", minimum=MS)] = 2 * SECOND
    head: Annotated[
        int, doc("From the request sent to the response's head; beyond it 504.", "duration", minimum=MS)
    ] = 60 * SECOND
    idle: Annotated[int, doc("Longest pause while a response body arrives.", "duration", minimum=MS)] = (
        60 * SECOND
    )


class Pool(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Connections to one endpoint, counted for each worker."""

    max_connections: Annotated[int, doc("Connections at one time.", ge=1, le=1_000_000)] = 1024
    max_idle: Annotated[int, doc("Unused connections that are kept.", ge=0, le=1_000_000)] = 256
    idle_timeout: Annotated[
        int,
        doc(
            "How long an unused one is kept. Stay below the upstream's own keep-alive time.",
            "duration",
            minimum=MS,
        ),
    ] = 4 * SECOND
    queue: Annotated[
        int, doc("Requests that may wait for a connection; one more gets 503.", ge=0, le=1_000_000)
    ] = 1024
    queue_timeout: Annotated[
        int, doc("How long a request waits for a connection; beyond it 503.", "duration", minimum=MS)
    ] = 2 * SECOND
    max_requests: Annotated[
        int, doc("Requests under way at one time. 0: no cap of its own.", ge=0, le=1_000_000)
    ] = 0


class UpstreamLimits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds on what an upstream may answer; beyond them 502."""

    header_bytes: Annotated[int, doc("All header fields together.", "size", minimum=64)] = 64 * KIB
    header_count: Annotated[int, doc("Number of header fields.", ge=1, le=10_000)] = 200
    body: Annotated[int, doc("Response body.", "size", unlimited=True)] = UNLIMITED


class Upstream(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A named group of endpoints."""

    name: Annotated[str, derived("Its name: the last part of its table's header.")] = ""
    endpoints: Annotated[
        tuple[Endpoint, ...],
        doc(
            "Where it is reached: addresses, or tables with `address`, `weight`, `region`, `zone`. "
            "Needed unless there is an `endpoints_file`.",
            shorthand="address",
        ),
    ] = ()
    endpoints_file: Annotated[
        str | None,
        doc(
            "More endpoints: a .json or .toml file, relative to the configuration and watched for changes.",
            "endpoints-file",
        ),
    ] = None
    dns_family: Annotated[
        Literal["v4-preferred", "v6-preferred", "v4", "v6"],
        doc("Which addresses of a name are used: those of one family first, or those of one alone."),
    ] = "v4-preferred"
    balance: Annotated[
        Literal["least-request", "round-robin", "peak-ewma", "random", "maglev", "ring"],
        doc(
            'How an endpoint is chosen: "least-request" (the less busy of two taken at random), '
            '"round-robin" (smooth), "peak-ewma" (the faster of two taken at random), "random", "maglev" '
            'and "ring" (consistent hashing by `hash`). All heed weights.'
        ),
    ] = "least-request"
    hash: Annotated[
        Hash | None,
        doc(
            "What consistent hashing goes by.", default='its own defaults with "maglev" and "ring", else none'
        ),
    ] = None
    sticky: Sticky | None = None
    slow_start: Annotated[
        int,
        doc(
            "How long the weight of an endpoint that came (back) into use grows from 10 % to its full.",
            "duration",
        ),
    ] = 0
    panic_threshold: Annotated[
        float,
        doc(
            "Percent of endpoints in use below which all are used, but those that an operator took out. "
            "0: never.",
            ge=0,
            le=100,
        ),
    ] = 50
    regions: Regions | None = None
    host: Annotated[
        str,
        doc(
            'The Host that it is sent: "client" (that of the request), "endpoint" (its address) or '
            "any other host.",
            "upstream-host",
        ),
    ] = "client"
    tls: Annotated[
        UpstreamTls | None,
        doc(
            "Its connections are encrypted; `true` stands for `{}`.",
            switch=True,
            default='off; `{}` with endpoints that are "https://"',
        ),
    ] = None
    timeouts: UpstreamTimeouts = UpstreamTimeouts()
    pool: Pool = Pool()
    limits: UpstreamLimits = UpstreamLimits()
    health: HealthCheck | None = None
    outlier: Outlier | None = None
    retry: Retry | None = None
    hedge: Hedge | None = None
    breaker: Breaker | None = None
    concurrency: Concurrency | None = None
