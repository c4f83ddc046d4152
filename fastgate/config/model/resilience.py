"""What keeps a failure small: retries, hedging, circuit breakers, limits of concurrency."""

from typing import Annotated, Literal

from msgspec import Struct

from fastgate.config.model.basics import KIB, MS, SECOND, doc


class Retry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Further attempts after one that failed, each on another endpoint where there is one. Absent: none."""

    attempts: Annotated[int, doc("Tries in all, the first one included.", ge=2, le=10)] = 2
    on: Annotated[
        tuple[Literal["connect-failure", "refused", "reset", "timeout", "status"], ...],
        doc(
            'Which failures: "connect-failure" (no connection, refused or otherwise), "refused" (refused '
            'alone), "reset" (the connection ended before the response\'s head), "timeout" (of a try), '
            '"status" (one of `statuses`).',
            least=1,
        ),
    ] = ("connect-failure", "reset")
    statuses: Annotated[
        tuple[int, ...],
        doc('Status codes that are tried again, with "status" in `on`.', ge=400, le=599, least=1),
    ] = (502, 503, 504)
    per_try_timeout: Annotated[
        int | None,
        doc(
            "From the beginning of a try to its response's head; the exchange's own timeouts hold beside it.",
            "duration",
            minimum=MS,
            default="none",
        ),
    ] = None
    backoff_base: Annotated[
        int, doc("The pause before try n is random, below this times 2^(n-2).", "duration", minimum=MS)
    ] = 25 * MS
    backoff_max: Annotated[int, doc("And below this.", "duration", minimum=MS)] = 250 * MS
    budget_percent: Annotated[
        float,
        doc("Retries under way may be this percent of the upstream's active requests.", ge=0, le=100),
    ] = 20
    budget_min: Annotated[int, doc("So many retries under way are always allowed.", ge=0, le=1_000_000)] = 3
    body_limit: Annotated[int, doc("A request with a longer body is sent once.", "size")] = 64 * KIB
    retry_after_max: Annotated[
        int,
        doc("The longest Retry-After that is waited for; a longer one ends the tries.", "duration"),
    ] = SECOND
    unsafe: Annotated[
        Literal["never", "idempotency-key", "always"],
        doc(
            "Only on routes: whether requests whose method is not safe to repeat are tried again after "
            'they may have been delivered: "never", "idempotency-key" (those with that header), "always".'
        ),
    ] = "never"


class Hedge(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A second attempt beside a slow first one; the first answer wins. For idempotent methods without body.
    Absent: there is none."""

    quantile: Annotated[
        float, doc("Percent of recent requests that are faster than what counts as slow.", ge=50, le=99.99)
    ] = 95
    min_delay: Annotated[int, doc("No second attempt is made earlier than this.", "duration", minimum=MS)] = (
        10 * MS
    )
    max_percent: Annotated[float, doc("Percent of the requests that may be hedged.", ge=0, le=100)] = 10


class Breaker(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Circuit breakers: caps, and an error ratio that stops requests for a while. Absent: there are none."""

    max_connections: Annotated[int, doc("Connections to the upstream. 0: no cap.", ge=0, le=10_000_000)] = 0
    max_pending: Annotated[
        int, doc("Requests that wait for a connection. 0: no cap.", ge=0, le=10_000_000)
    ] = 0
    max_requests: Annotated[int, doc("Requests under way. 0: no cap.", ge=0, le=10_000_000)] = 0
    max_retries: Annotated[int, doc("Retries under way. 0: no cap.", ge=0, le=10_000_000)] = 0
    error_percent: Annotated[
        float, doc("Percent of failures in a window that opens the breaker. 0: off.", ge=0, le=100)
    ] = 0
    min_requests: Annotated[
        int, doc("Requests in a window below which it stays closed.", ge=1, le=1_000_000_000)
    ] = 20
    window: Annotated[int, doc("The length of a window.", "duration", minimum=100 * MS)] = 10 * SECOND
    open_time: Annotated[
        int, doc("How long an open breaker lets nothing through.", "duration", minimum=MS)
    ] = 5 * SECOND
    trials: Annotated[
        int, doc("Requests that must succeed, half-open, until it closes.", ge=1, le=1_000_000)
    ] = 3
    per: Annotated[
        Literal["both", "endpoint", "upstream"], doc("What has a breaker for its error ratio.")
    ] = "both"


class Concurrency(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many requests may be under way at an upstream; more wait in a queue. Absent: no limit."""

    limit: Annotated[int, doc("A fixed limit. 0: none.", ge=0, le=10_000_000)] = 0
    adaptive: Annotated[bool, doc("In place of `limit`: one that follows the latency (gradient).")] = False
    min: Annotated[int, doc("The lowest adaptive limit.", ge=1, le=10_000_000)] = 4
    max: Annotated[int, doc("The highest adaptive limit.", ge=1, le=10_000_000)] = 1000
    queue: Annotated[int, doc("Requests that may wait; one more gets 503.", ge=0, le=100_000)] = 128
    queue_timeout: Annotated[int, doc("How long a request waits; beyond it 503.", "duration", minimum=MS)] = (
        500 * MS
    )
    order: Annotated[
        Literal["adaptive", "oldest-first", "newest-first"],
        doc(
            'Who of those who wait is next: "oldest-first", "newest-first", or "adaptive": oldest first, and '
            "newest first while the queue does not empty."
        ),
    ] = "adaptive"
