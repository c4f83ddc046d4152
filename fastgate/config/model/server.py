"""The process and where clients connect: server, admin, dns, access log, listeners."""

from typing import Annotated, Literal

from msgspec import Struct

from fastgate.config.model.basics import HOUR, KIB, MIB, MINUTE, MS, SECOND, Secret, derived, doc
from fastgate.config.model.tls import ListenerTls


class Server(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The process as a whole."""

    workers: Annotated[
        int,
        doc(
            'Processes that serve; "auto": one for each core that may be used. A change needs a restart or '
            "`fastgate upgrade`.",
            "workers",
            numbers=True,
        ),
    ] = 1
    user: Annotated[
        str,
        doc(
            'Whom the workers run as, "name" or "name:group", where the gateway is started as root: sockets '
            "and files are opened before.",
            "user",
            empty=True,
        ),
    ] = ""
    hang_timeout: Annotated[
        int,
        doc(
            "A worker whose loop stands still gets a substitute within a second; after this it is killed.",
            "duration",
            minimum=SECOND,
        ),
    ] = 10 * SECOND
    region: Annotated[
        str,
        doc("The region in which this gateway stands; upstreams prefer endpoints of it.", "name", empty=True),
    ] = ""
    zone: Annotated[str, doc("The zone in that region, likewise.", "name", empty=True)] = ""
    watch: Annotated[
        bool,
        doc(
            "Whether a change of the files (this one, included ones, certificates, code of plugins) is taken "
            "up by itself, as by `fastgate reload`. A change of this key needs a restart."
        ),
    ] = False
    history: Annotated[
        int,
        doc("How many configurations that were in force are kept, for `fastgate rollback`.", ge=1, le=1000),
    ] = 20
    state_dir: Annotated[
        str,
        doc(
            "Where they are kept.",
            "folder",
            empty=True,
            default="/var/lib/fastgate for root, else $XDG_STATE_HOME/fastgate",
        ),
    ] = ""
    drain_timeout: Annotated[
        int, doc("After SIGTERM, what runs may finish within this; then it is cut and counted.", "duration")
    ] = 30 * SECOND
    ticket_rotation: Annotated[
        int,
        doc(
            "How often the keys of TLS session tickets change. Those before the last change are accepted "
            "until the next one.",
            "duration",
            minimum=SECOND,
        ),
    ] = 12 * HOUR
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


class AdminTls(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """TLS of the admin API. The files are read again at each reload."""

    cert: Annotated[str, doc("The certificate and those of its issuers, PEM.", "file")]
    key: Annotated[str, doc("Its key, PEM, not encrypted.", "file")]
    client_ca: Annotated[
        str,
        doc(
            "Certificates (PEM) of those that issue the clients'. With it, who has none is not let in.",
            "file",
            empty=True,
        ),
    ] = ""


class Admin(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The admin API and its page. Absent: there is none."""

    bind: Annotated[
        str,
        doc(
            'Where it listens: a loopback address such as "127.0.0.1:9901", or "unix:/path/x.sock". Any '
            "other address needs `tls`, and `token` or `tls.client_ca`.",
            "admin-bind",
        ),
    ]
    token: Annotated[
        Secret | None,
        doc(
            'What callers say, as in "Authorization: Bearer TOKEN": at least 16 characters.',
            "bearer-token",
            secret=True,
            default="none: who reaches it may call it",
        ),
    ] = None
    tls: AdminTls | None = None
    host: Annotated[
        str, derived("Host part of `bind`, without brackets; empty: every address, or a Unix socket.")
    ] = ""
    port: Annotated[int, derived("Port part of `bind`; 0 for a Unix socket.")] = 0
    unix_path: Annotated[str | None, derived("The path of a Unix socket.")] = None


class Metrics(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A listener of its own for `/metrics`, for a Prometheus that may not reach the admin API, which has it
    too. Absent: there is none."""

    bind: Annotated[
        str,
        doc(
            'Where it listens: an address such as "10.0.0.5:9100" or ":9100", or "unix:/path/x.sock". It is '
            "not encrypted; who reaches it reads names of routes, upstreams and endpoints, and their counts.",
            "admin-bind",
        ),
    ]
    token: Annotated[
        Secret | None,
        doc(
            'What callers say, as in "Authorization: Bearer TOKEN": at least 16 characters.',
            "bearer-token",
            secret=True,
            default="none: who reaches it may read it",
        ),
    ] = None
    host: Annotated[
        str, derived("Host part of `bind`, without brackets; empty: every address, or a Unix socket.")
    ] = ""
    port: Annotated[int, derived("Port part of `bind`; 0 for a Unix socket.")] = 0
    unix_path: Annotated[str | None, derived("The path of a Unix socket.")] = None


class Dns(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How names of endpoints are resolved."""

    servers: Annotated[
        tuple[str, ...],
        doc(
            'Addresses of name servers, as in "10.0.0.2:53"; without a port it is 53.',
            "dns-server",
            default="those of the system",
        ),
    ] = ()
    timeout: Annotated[
        int, doc("How long one server may take before the next is asked.", "duration", minimum=MS)
    ] = 2 * SECOND
    min_ttl: Annotated[
        int, doc("An answer is used at least this long, whatever its TTL.", "duration", minimum=MS)
    ] = SECOND
    max_ttl: Annotated[int, doc("And at most this long.", "duration", minimum=MS)] = 5 * MINUTE


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
    tls: Annotated[ListenerTls | None, doc("Its connections are encrypted. Absent: they are not.")] = None
    redirects_to: Annotated[
        str, derived("Of a listener that `tls.redirect_from` makes: the one that it sends clients to.")
    ] = ""
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
