"""How it is found out which endpoints work: active checks, and outliers among the answers to clients."""

from typing import Annotated, Literal

from msgspec import Struct

from fastgate.config.model.basics import MINUTE, MS, SECOND, StatusRange, doc


class HealthCheck(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Active checks of each endpoint, made by one worker for all. Absent: there are none."""

    type: Annotated[
        Literal["http", "tcp"], doc('"http": a request is answered as expected; "tcp": a connection opens.')
    ] = "http"
    path: Annotated[str, doc("The path that is asked for.", "path")] = "/"
    method: Annotated[Literal["GET", "HEAD"], doc("The method of the request.")] = "GET"
    host: Annotated[
        str, doc("The Host of the request.", "authority", empty=True, default="the endpoint's address")
    ] = ""
    expect: Annotated[
        tuple[StatusRange, ...],
        doc(
            'Status codes of a good answer, each a code or a range such as "200-299".',
            "status-range",
            numbers=True,
            one_or_many=True,
            least=1,
        ),
    ] = (StatusRange(200, 399),)
    body: Annotated[
        str,
        doc("An RE2 expression that must be found in the first 64 KiB of the body.", "regex", empty=True),
    ] = ""
    interval: Annotated[
        int, doc("From one check of an endpoint to the next.", "duration", minimum=100 * MS)
    ] = 5 * SECOND
    jitter: Annotated[
        float,
        doc("Percent of the interval by which each check may come earlier or later.", ge=0, le=100),
    ] = 10
    timeout: Annotated[
        int, doc("How long a check may take, connecting included.", "duration", minimum=MS)
    ] = SECOND
    rise: Annotated[int, doc("Good checks in a row until an endpoint is up again.", ge=1, le=1000)] = 2
    fall: Annotated[int, doc("Bad checks in a row until an endpoint is down.", ge=1, le=1000)] = 3


class Outlier(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ejection of endpoints that answer clients badly (the defaults are Envoy's but for `max_ejected`).
    Absent: none is ejected."""

    consecutive_errors: Annotated[
        int,
        doc(
            "Answers of 5xx, gateway errors among them, in a row that eject an endpoint. 0: off.",
            ge=0,
            le=1_000_000,
        ),
    ] = 5
    consecutive_gateway_errors: Annotated[
        int,
        doc(
            "Connect failures, resets, time-outs and answers of 502, 503, 504 in a row that eject an "
            "endpoint. 0: off.",
            ge=0,
            le=1_000_000,
        ),
    ] = 5
    success_rate: Annotated[
        bool, doc("Eject endpoints whose rate of success is far below that of the others.")
    ] = True
    success_rate_stdev: Annotated[
        float, doc("How far: so many standard deviations below the mean.", ge=0.1, le=100)
    ] = 1.9
    min_endpoints: Annotated[
        int, doc("Endpoints with enough requests that success rates need.", ge=2, le=10_000)
    ] = 5
    min_requests: Annotated[
        int, doc("Requests of an endpoint in one interval that are enough.", ge=1, le=1_000_000_000)
    ] = 100
    interval: Annotated[
        int, doc("The length of the intervals of success rates.", "duration", minimum=100 * MS)
    ] = 10 * SECOND
    base_ejection: Annotated[
        int,
        doc(
            "Length of the first ejection; each further one lasts this much longer.",
            "duration",
            minimum=MS,
        ),
    ] = 30 * SECOND
    max_ejection: Annotated[int, doc("The longest ejection.", "duration", minimum=MS)] = 5 * MINUTE
    max_ejected: Annotated[
        float,
        doc("Percent of the endpoints that may be ejected at one time; never the last one.", ge=0, le=100),
    ] = 50
