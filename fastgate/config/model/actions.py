"""What a route does with a request, and what it does beside it or in place of it when that fails."""

from typing import Annotated, Literal

from msgspec import Struct

from fastgate.config.model.basics import KIB, MINUTE, MS, doc


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


class Fallback(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What answers when the upstream fails: one of `upstream` and `respond`. A fallback that itself fails is
    answered as that failure; there is no second one."""

    on: Annotated[
        tuple[Literal["no-endpoint", "connect-failure", "reset", "timeout", "overload", "status"], ...],
        doc(
            'Which failures: "no-endpoint" (none is in use), "connect-failure", "reset" (before the '
            'response\'s head), "timeout", "overload" (a limit, a queue or a breaker refused), '
            '"status" (one of `statuses`).',
            least=1,
        ),
    ] = ("no-endpoint", "connect-failure", "reset", "timeout", "overload")
    statuses: Annotated[
        tuple[int, ...],
        doc('Status codes that count as failures, with "status" in `on`.', ge=400, le=599, least=1),
    ] = (502, 503, 504)
    upstream: Annotated[str | None, doc("Name of the upstream that is asked then.", "upstream-ref")] = None
    respond: Respond | None = None


class Fault(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Faults on purpose, for those who test their own services. Absent: none."""

    delay: Annotated[
        int | None, doc("How long a request is held before it goes on.", "duration", minimum=MS)
    ] = None
    delay_percent: Annotated[float, doc("Percent of the requests that are held.", ge=0, le=100)] = 100
    abort: Annotated[
        int | None, doc("The status code with which a request is answered at once.", ge=400, le=599)
    ] = None
    abort_percent: Annotated[float, doc("Percent of the requests that are aborted.", ge=0, le=100)] = 100
    header: Annotated[
        str, doc("Only requests that carry this header.", "header-name", empty=True, default="all requests")
    ] = ""


class Mirror(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A copy of each request to a shadow upstream, whose answer is discarded. Absent: none."""

    upstream: Annotated[str, doc("Name of the shadow upstream.", "upstream-ref")]
    percent: Annotated[float, doc("Percent of the requests that are copied.", ge=0, le=100)] = 100
    max_active: Annotated[
        int, doc("Copies under way in one worker; what is more is not copied.", ge=1, le=1_000_000)
    ] = 64
    body_limit: Annotated[int, doc("A request with a longer body is not copied.", "size", minimum=0)] = (
        64 * KIB
    )


class Rollback(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When an arm is taken out by itself: it goes to weight 0, and stays there until an operator says
    otherwise. Absent: never."""

    error_percent: Annotated[
        float,
        doc("Its percentage of errors may be so many points above the baseline's. 0: off.", ge=0, le=100),
    ] = 5
    p99_factor: Annotated[
        float, doc("Its p99 may be so many times the baseline's. 0: off.", ge=0, le=1000)
    ] = 1.5
    min_samples: Annotated[
        int,
        doc(
            "Requests in a window, of each of the two, below which nothing is judged.", ge=1, le=1_000_000_000
        ),
    ] = 200
    window: Annotated[int, doc("The length of a window.", "duration", minimum=100 * MS)] = MINUTE
    baseline: Annotated[
        str,
        doc("The arm that it is compared with.", "name", empty=True, default="the heaviest other arm"),
    ] = ""


class SplitTarget(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One arm of a split."""

    name: Annotated[
        str, doc("How overrides, the log and the admin API call it.", "name", default="that of its upstream")
    ] = ""
    upstream: Annotated[str, doc("Name of the upstream.", "upstream-ref")]
    weight: Annotated[int, doc("Its share of the keys beside the other arms.", ge=0, le=10_000)]
    rollback: Rollback | None = None


class SplitOverride(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Lets a request choose its arm by naming it, also one of weight 0. Absent: it cannot."""

    header: Annotated[str, doc("The header that names the arm.", "header-name", empty=True)] = ""
    cookie: Annotated[str, doc("The cookie that names the arm.", "cookie-name", empty=True)] = ""


class Split(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Several upstreams by weight, the same one for the same key: versions of a service."""

    key: Annotated[
        tuple[str, ...],
        doc(
            'Who stays at one arm: the first of these that the request has; "cookie:NAME", "header:NAME", '
            '"consumer", "client-ip". If it has none, the client\'s address.',
            "split-key",
            one_or_many=True,
            least=1,
        ),
    ] = ("client-ip",)
    override: SplitOverride | None = None
    to: Annotated[tuple[SplitTarget, ...], doc("The arms.", least=1)]
