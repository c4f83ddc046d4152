"""Routes: which requests, and what is done with them."""

from typing import Annotated, Literal

from msgspec import Struct

from fastgate.config.model.actions import Fallback, Fault, Mirror, Redirect, Respond, Split
from fastgate.config.model.aggregate import Aggregate
from fastgate.config.model.basics import MINUTE, MS, Secret, doc
from fastgate.config.model.resilience import Retry


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
    """Which requests, and what is done with them: exactly one of `upstream`, `split`, `aggregate`,
    `redirect` and `respond`."""

    name: Annotated[str, doc("How the log and `fastgate explain` call it. Unique.", "name")]
    listeners: Annotated[
        tuple[str, ...], doc("Names of the listeners that it serves.", "listener-ref", default="all")
    ] = ()
    match: Match = Match()
    upstream: Annotated[str | None, doc("Name of the upstream that answers.", "upstream-ref")] = None
    split: Split | None = None
    aggregate: Aggregate | None = None
    redirect: Redirect | None = None
    respond: Respond | None = None
    priority: Annotated[
        Literal["normal", "critical", "sheddable"],
        doc("Who goes first under overload: sheddable requests are refused first, critical ones last."),
    ] = "normal"
    retry: Annotated[Retry | None, doc("Further attempts, in place of what the upstream says.")] = None
    fallback: Fallback | None = None
    fault: Fault | None = None
    mirror: Mirror | None = None
    trace_sample: Annotated[
        float | None,
        doc(
            "The share of its traces that is sampled, of those that begin here.",
            ge=0,
            le=1,
            default="`tracing.sample`",
        ),
    ] = None
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
