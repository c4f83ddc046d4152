"""The typed configuration: what the rest of fastgate reads, complete with defaults and free of doubt.

Every struct is frozen. Durations are integer nanoseconds, sizes integer bytes (``UNLIMITED`` is -1), arrays
are tuples. The same annotations make the decoder, the JSON Schema and docs/configuration.md, so each key says
here what it is: ``doc(description, form=...)`` names the textual form (see forms.py) where TOML and Python
differ, ``derived`` marks attributes that are computed and cannot be written.
"""

from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

__all__ = [
    "UNLIMITED",
    "AccessLog",
    "Admin",
    "Condition",
    "Config",
    "Endpoint",
    "HeaderRules",
    "IpFilter",
    "Listener",
    "ListenerLimits",
    "ListenerTimeouts",
    "Match",
    "Plugin",
    "Pool",
    "Rate",
    "RateLimit",
    "Redirect",
    "Respond",
    "Rewrite",
    "Route",
    "RouteLimits",
    "RouteTimeouts",
    "Secret",
    "Server",
    "Upstream",
    "UpstreamLimits",
    "UpstreamTimeouts",
]

UNLIMITED: Final = -1

MS: Final = 1_000_000
SECOND: Final = 1_000 * MS
MINUTE: Final = 60 * SECOND
KIB: Final = 1024
MIB: Final = 1024 * KIB


class Secret:
    """A value from an environment variable or a file. Only ``reveal()`` gives it out, repr and str never.

    ``source`` says where it came from ("env NAME", "file PATH") and may be shown.
    """

    __slots__ = ("_value", "source")

    def __init__(self, value: str, source: str) -> None:
        self._value = value
        self.source = source

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "<secret>"

    def __format__(self, spec: str) -> str:
        return format("<secret>", spec)

    def __eq__(self, other: object) -> bool:
        # A reload asks whether anything changed: two secrets are equal when their values are.
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(("fastgate.Secret", self._value))

    def __reduce__(self) -> Any:
        raise TypeError("a secret is not serialised")


def doc(description: str, form: str = "", **extra: Any) -> Meta:
    """The description of one key. ``form``: of its text, or of each item or value where it holds several.

    ``extra``: ``names`` (form of a table's own keys), ``one_or_many`` (a single item may stand without its
    array), ``default`` (shown in the reference where the default depends on something), ``derived``,
    ``minimum`` (of a duration or size), ``unlimited`` (the word is allowed for a size), ``shorthand`` (the
    key that a bare string fills), ``least`` (items of an array), ``secret`` (a table may say where the value
    comes from).
    """
    ge, le = extra.pop("ge", None), extra.pop("le", None)
    return Meta(description=description, ge=ge, le=le, extra={"form": form, **extra})


def derived(description: str) -> Meta:
    return doc(description, derived=True)


class Server(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The process as a whole."""

    drain_timeout: Annotated[
        int, doc("After SIGTERM, what runs may finish within this; then it is cut and counted.", "duration")
    ] = 30 * SECOND
    max_connections: Annotated[
        int,
        doc(
            "Downstream connections of one worker. One more is closed at once and counted.",
            ge=1,
            le=10_000_000,
        ),
    ] = 10_000
    max_connections_per_ip: Annotated[
        int,
        doc(
            "Downstream connections of one client address; trusted proxies are exempt. 0: no cap.",
            ge=0,
            le=10_000_000,
        ),
    ] = 1024


class Admin(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The admin API. Absent: there is none."""

    bind: Annotated[
        str,
        doc(
            'Where it listens: a loopback address such as "127.0.0.1:9901", or "unix:/path/x.sock". It asks '
            "nobody who they are, so no other address is allowed.",
            "admin-bind",
        ),
    ]
    host: Annotated[str, derived("Host part of `bind`, without brackets; empty for a Unix socket.")] = ""
    port: Annotated[int, derived("Port part of `bind`; 0 for a Unix socket.")] = 0
    unix_path: Annotated[str | None, derived("The path of a Unix socket.")] = None


class AccessLog(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line for each exchange."""

    enabled: Annotated[bool, doc("Whether exchanges are logged.")] = True
    path: Annotated[
        str, doc('"stdout", "stderr" or the path of a file. Files are opened anew on SIGUSR1.', "log-path")
    ] = "stdout"
    format: Annotated[
        str,
        doc(
            '"json", or a template of $names, as in \'$time $client "$method $path" $status '
            "$bytes_out $time_total'.",
            "log-format",
        ),
    ] = "json"
    redact_headers: Annotated[
        tuple[str, ...],
        doc('Headers (of those in `headers`) whose value is logged as "[redacted]".', "header-name"),
    ] = ()
    redact_query: Annotated[
        tuple[str, ...], doc('Query parameters whose value is logged as "[redacted]".', "query-name")
    ] = ()
    headers: Annotated[
        tuple[str, ...], doc("Request headers that are logged beside the fixed fields.", "header-name")
    ] = ()
    buffer: Annotated[
        int,
        doc("Lines are written when this much has gathered, or after `flush_interval`.", "size", minimum=1),
    ] = 64 * KIB
    flush_interval: Annotated[
        int, doc("The longest time that a line waits in the buffer.", "duration", minimum=MS)
    ] = SECOND


class ListenerLimits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds on what a client may send."""

    request_line: Annotated[int, doc("Longest request line; beyond it 414.", "size", minimum=64)] = 8 * KIB
    header_bytes: Annotated[int, doc("All header fields together; beyond it 431.", "size", minimum=64)] = (
        32 * KIB
    )
    header_count: Annotated[int, doc("Number of header fields; beyond it 431.", ge=1, le=10_000)] = 100
    body: Annotated[
        int, doc("Request body; beyond it 413. A route may set its own.", "size", unlimited=True)
    ] = 10 * MIB


class ListenerTimeouts(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long a client may take."""

    head: Annotated[
        int,
        doc(
            "From the first byte of a request to the end of its head; beyond it 408.", "duration", minimum=MS
        ),
    ] = 10 * SECOND
    body_idle: Annotated[
        int, doc("Longest pause while a request body arrives; beyond it 408.", "duration", minimum=MS)
    ] = 30 * SECOND
    keep_alive: Annotated[
        int, doc("How long a connection may stay open between two requests.", "duration", minimum=MS)
    ] = 75 * SECOND
    write_idle: Annotated[
        int,
        doc("How long a client may read nothing of a response before it is cut off.", "duration", minimum=MS),
    ] = 30 * SECOND


class Listener(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A place where clients connect."""

    name: Annotated[
        str, doc("How routes and the log call it. Unique.", "name", default="the text of `bind`")
    ] = ""
    bind: Annotated[
        str,
        doc(
            'Where it listens: "127.0.0.1:8080", "[::1]:8080", ":8080" (every address, IPv4 and IPv6) or '
            '"unix:/path/x.sock". Port 0 takes a free one.',
            "bind",
        ),
    ]
    host: Annotated[
        str, derived("Host part of `bind`, without brackets; empty: every address, or a Unix socket.")
    ] = ""
    port: Annotated[int, derived("Port part of `bind`; 0 for a Unix socket.")] = 0
    unix_path: Annotated[str | None, derived("The path of a Unix socket.")] = None
    backlog: Annotated[int, doc("Connections that the kernel keeps waiting.", ge=1, le=65_535)] = 4096
    proxy_protocol: Annotated[
        bool, doc("A PROXY protocol header (v1 or v2) is required on each connection.")
    ] = False
    trusted_proxies: Annotated[
        tuple[str, ...],
        doc(
            "Networks whose X-Forwarded-*, Forwarded and X-Request-ID are believed, and who alone may"
            " send a PROXY "
            "header (empty with `proxy_protocol`: anyone).",
            "cidr",
        ),
    ] = ()
    forwarded: Annotated[
        tuple[Literal["x-forwarded", "forwarded"], ...],
        doc(
            'What tells the upstream of the client: "x-forwarded" (X-Forwarded-For, -Proto, -Host), '
            '"forwarded" '
            "(RFC 7239). Empty: neither."
        ),
    ] = ("x-forwarded",)
    request_id: Annotated[
        Literal["keep-trusted", "keep", "always-new"],
        doc(
            'Whose X-Request-ID is kept: "keep-trusted" (that of trusted proxies), "keep" (anyone\'s,'
            " if well-formed), "
            '"always-new".'
        ),
    ] = "keep-trusted"
    half_close: Annotated[
        Literal["abandon", "serve"],
        doc(
            'When a client closes its sending side before it has its answer: "abandon" the exchange, '
            'or "serve" it.'
        ),
    ] = "abandon"
    plugins: Annotated[
        tuple[str, ...], doc("Names of plugins that run before those of the route.", "plugin-ref")
    ] = ()
    limits: ListenerLimits = ListenerLimits()
    timeouts: ListenerTimeouts = ListenerTimeouts()
    body_min_rate: Annotated[
        int,
        doc(
            'The slowest that a request body may arrive, after a grace of 5 s; below it 408. "0B/s": '
            "no minimum.",
            "byte-rate",
        ),
    ] = 500


class Endpoint(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One address of an upstream."""

    address: Annotated[
        str, doc('"127.0.0.1:9001", "[::1]:9001", "name:9001" or "unix:/path/x.sock".', "address")
    ]
    host: Annotated[str, derived("Host part, without brackets; empty for a Unix socket.")] = ""
    port: Annotated[int, derived("Port part; 0 for a Unix socket.")] = 0
    unix_path: Annotated[str | None, derived("The path of a Unix socket.")] = None
    weight: Annotated[int, doc("Its share of the requests beside the other endpoints.", ge=1, le=1000)] = 1
    zone: Annotated[str, doc("The zone in which it stands.", "name")] = ""


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
            "Where it is reached: addresses, or tables with `address`, `weight`, `zone`.",
            shorthand="address",
            least=1,
        ),
    ]
    balance: Annotated[
        Literal["round-robin"], doc("How an endpoint is chosen: smooth weighted round robin.")
    ] = "round-robin"
    host: Annotated[
        str,
        doc(
            'The Host that it is sent: "client" (that of the request), "endpoint" (its address) or '
            "any other host.",
            "upstream-host",
        ),
    ] = "client"
    timeouts: UpstreamTimeouts = UpstreamTimeouts()
    pool: Pool = Pool()
    limits: UpstreamLimits = UpstreamLimits()


class Condition(Struct, frozen=True):
    """What a header, query parameter or cookie must be; ``value`` is empty for "present"."""

    kind: Literal["equal", "present", "regex"]
    value: str = ""


class Match(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The conditions of a route; all given ones must hold, and an empty table matches every request."""

    host: Annotated[
        tuple[str, ...],
        doc(
            'One or several of "api.example.com" and "*.example.com" (without port).',
            "host-pattern",
            one_or_many=True,
        ),
    ] = ()
    path: Annotated[
        str | None,
        doc(
            'The whole path, in normal form; "{name}" stands for one segment, as in "/users/{id}".',
            "path-template",
        ),
    ] = None
    prefix: Annotated[
        str | None, doc('Leading path elements: "/orders" matches "/orders/7" and not "/orders-old".', "path")
    ] = None
    regex: Annotated[str | None, doc("An RE2 expression that the whole path must match.", "regex")] = None
    methods: Annotated[tuple[str, ...], doc('Methods, as in ["GET", "POST"].', "method")] = ()
    headers: Annotated[
        dict[str, Condition],
        doc(
            'Header name -> condition: "text" (equal), true (present) or { regex = "..." }.',
            names="header-name",
        ),
    ] = {}
    query: Annotated[
        dict[str, Condition], doc("Query parameter -> condition, as for headers.", names="query-name")
    ] = {}
    cookies: Annotated[
        dict[str, Condition], doc("Cookie -> condition, as for headers.", names="cookie-name")
    ] = {}


class Redirect(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sends the client elsewhere; what is not given stays as requested, and the query is kept."""

    status: Annotated[Literal[301, 302, 303, 307, 308], doc("The status code.")] = 302
    scheme: Annotated[Literal["http", "https"] | None, doc("Another scheme.")] = None
    host: Annotated[str | None, doc("Another host, without port.", "host")] = None
    port: Annotated[int | None, doc("Another port.", ge=1, le=65_535)] = None
    path: Annotated[
        str | None, doc("Another path; {name} is replaced by what the match captured.", "path-template")
    ] = None
    prefix: Annotated[str | None, doc("Replaces the prefix that matched.", "path")] = None


class Respond(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fixed response."""

    status: Annotated[int, doc("The status code.", ge=200, le=599)] = 200
    body: Annotated[str, doc("The body, as UTF-8.")] = ""
    content_type: Annotated[str, doc("Content-Type of the body.", "header-value")] = (
        "text/plain; charset=utf-8"
    )
    headers: Annotated[
        dict[str, str], doc("Further header fields.", "header-value", names="set-header-name")
    ] = {}


class Rewrite(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Changes the request on its way to the upstream. At most one of `strip_prefix`, `prefix` and `path`."""

    strip_prefix: Annotated[bool, doc("Takes away the prefix that matched.")] = False
    prefix: Annotated[str | None, doc("Replaces the prefix that matched.", "path")] = None
    path: Annotated[
        str | None, doc("Replaces the whole path; {name} is what the match captured.", "path-template")
    ] = None
    host: Annotated[str | None, doc("The Host that the upstream is sent.", "authority")] = None


class HeaderRules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Changes of header fields. A value may be a secret: `{ env = "NAME" }` or `{ file = "path" }`."""

    set: Annotated[
        dict[str, str | Secret],
        doc(
            "Fields that get this one value, whatever they had.",
            "header-value",
            secret=True,
            names="set-header-name",
        ),
    ] = {}
    add: Annotated[
        dict[str, str | Secret],
        doc(
            "Fields that are added beside what is there.",
            "header-value",
            secret=True,
            names="set-header-name",
        ),
    ] = {}
    remove: Annotated[tuple[str, ...], doc("Fields that are taken out.", "set-header-name")] = ()


class RouteLimits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds on the requests of a route."""

    body: Annotated[
        int | None,
        doc("Request body; beyond it 413.", "size", unlimited=True, default="that of the listener"),
    ] = None


class RouteTimeouts(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long an exchange of a route may take."""

    total: Annotated[
        int | None,
        doc(
            "The whole exchange, from the request's head to the response's last byte; beyond it 504.",
            "duration",
            minimum=MS,
            default="none",
        ),
    ] = None
    tunnel_idle: Annotated[int, doc("Longest silence in an upgraded connection.", "duration", minimum=MS)] = (
        10 * MINUTE
    )
    event_stream_idle: Annotated[
        int, doc("Longest silence in a text/event-stream response.", "duration", minimum=MS)
    ] = 10 * MINUTE


class Route(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which requests, and what is done with them: exactly one of `upstream`, `redirect` and `respond`."""

    name: Annotated[str, doc("How the log and `fastgate explain` call it. Unique.", "name")]
    listeners: Annotated[
        tuple[str, ...], doc("Names of the listeners that it serves.", "listener-ref", default="all")
    ] = ()
    match: Match = Match()
    upstream: Annotated[str | None, doc("Name of the upstream that answers.", "upstream-ref")] = None
    redirect: Redirect | None = None
    respond: Respond | None = None
    rewrite: Rewrite | None = None
    request_headers: HeaderRules = HeaderRules()
    response_headers: HeaderRules = HeaderRules()
    encoded_slashes: Annotated[
        Literal["refuse", "keep"],
        doc(
            '%2F and %5C in the path: "refuse" with 400, or "keep" them as they are (they never part '
            "segments)."
        ),
    ] = "refuse"
    upgrade: Annotated[
        tuple[str, ...],
        doc(
            'Protocols that a request may upgrade to, as in ["websocket"]. Any other Upgrade is taken out.',
            "protocol",
        ),
    ] = ()
    limits: RouteLimits = RouteLimits()
    timeouts: RouteTimeouts = RouteTimeouts()
    plugins: Annotated[
        tuple[str, ...], doc("Names of plugins, in the order in which they run.", "plugin-ref")
    ] = ()


class Rate(Struct, frozen=True):
    """``count`` in ``per_ns`` nanoseconds."""

    count: int
    per_ns: int


class RateLimit(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="use", tag="rate-limit"
):
    """A token bucket for each key; a request without a token gets 429."""

    name: Annotated[str, derived("Its name: the last part of its table's header.")] = ""
    key: Annotated[
        tuple[str, ...],
        doc(
            'What is counted, one or several: "client-ip", "consumer", "header:NAME", "cookie:NAME", '
            '"path:NAME" (a '
            '{NAME} segment), "global".',
            "rate-key",
            one_or_many=True,
            least=1,
        ),
    ] = ("client-ip",)
    rate: Annotated[Rate, doc('Tokens that come back: "100/s", "10/m" or "1000/h".', "rate")]
    burst: Annotated[
        int,
        doc("Tokens of a full bucket.", ge=1, le=1_000_000_000, default="one second's worth, at least 1"),
    ] = 0
    scope: Annotated[
        Literal["plugin", "route"],
        doc('"plugin": one set of buckets wherever the plugin is used; "route": a set for each route.'),
    ] = "plugin"
    ipv6_prefix: Annotated[int, doc("IPv6 clients count together by this many bits.", ge=1, le=128)] = 64
    max_keys: Annotated[int, doc("Buckets that are kept; the oldest go first.", ge=1, le=10_000_000)] = (
        100_000
    )
    report_only: Annotated[bool, doc("Count and log, but refuse nobody.")] = False
    headers: Annotated[
        tuple[Literal["ratelimit", "x-ratelimit"], ...],
        doc('Response fields: "ratelimit" (RateLimit and RateLimit-Policy), "x-ratelimit" (X-RateLimit-*).'),
    ] = ("ratelimit",)


class IpFilter(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="use", tag="ip-filter"
):
    """Lets clients in, or keeps them out (403), by their address."""

    name: Annotated[str, derived("Its name: the last part of its table's header.")] = ""
    allow: Annotated[
        tuple[str, ...], doc("Networks that are let in. If there are any, all others are refused.", "cidr")
    ] = ()
    block: Annotated[
        tuple[str, ...],
        doc("Networks that are refused. Wins over `allow` where its prefix is longer or equal.", "cidr"),
    ] = ()
    allow_file: Annotated[
        str | None,
        doc(
            "More of `allow`: a file with one network a line and # comments, relative to the configuration.",
            "file",
        ),
    ] = None
    block_file: Annotated[str | None, doc("More of `block`, likewise.", "file")] = None
    report_only: Annotated[bool, doc("Log, but refuse nobody.")] = False


Plugin = RateLimit | IpFilter


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One whole configuration file."""

    server: Server = Server()
    admin: Admin | None = None
    access_log: AccessLog = AccessLog()
    listeners: Annotated[tuple[Listener, ...], doc("Where clients connect.", least=1)] = ()
    upstreams: Annotated[dict[str, Upstream], doc("Groups of endpoints, by name.", names="name")] = {}
    routes: Annotated[
        tuple[Route, ...],
        doc("Which requests go where. The order counts only between equally specific routes."),
    ] = ()
    plugins: Annotated[
        dict[str, Plugin],
        doc("Filters that listeners and routes use, by name; `use` says which.", names="name"),
    ] = {}
    source: Annotated[str, derived("The path of the file.")] = ""
