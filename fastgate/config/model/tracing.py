"""What is told of single exchanges: traces, and decisions kept for `fastgate why`."""

from typing import Annotated, Literal

from msgspec import Struct

from fastgate.config.model.basics import MIB, MINUTE, MS, SECOND, Secret, doc


class Tracing(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The gateway takes part in W3C traces and exports spans by OTLP. Absent: traceparent and tracestate pass
    as they came. Needs the extra `fastgate[otlp]`."""

    endpoint: Annotated[
        str,
        doc(
            'Where spans are sent, OTLP over HTTP with protobuf: "http://127.0.0.1:4318"; without a path it '
            "is /v1/traces.",
            "otlp-url",
        ),
    ]
    headers: Annotated[
        dict[str, str | Secret],
        doc("Fields of each export.", "header-value", secret=True, names="set-header-name"),
    ] = {}
    service_name: Annotated[str, doc("What the spans' resource says as `service.name`.", "text")] = "fastgate"
    sample: Annotated[
        float,
        doc(
            "The share of traces that is sampled, of those that begin here; 1 is all. A trace that goes on "
            "is sampled if its caller's part is. A route may set its own.",
            ge=0,
            le=1,
        ),
    ] = 0.01
    trust: Annotated[
        Literal["trusted-proxies", "all", "none"],
        doc(
            "Whose trace context is gone on with: that of the listener's `trusted_proxies`, anyone's, or "
            "nobody's. For all others a trace begins here."
        ),
    ] = "trusted-proxies"
    batch: Annotated[int, doc("Exchanges in one export, at most.", ge=1, le=10_000)] = 256
    queue: Annotated[
        int,
        doc(
            "Sampled exchanges of one worker that may wait for their export; one more is dropped and "
            "counted.",
            ge=1,
            le=100_000,
        ),
    ] = 2048
    flush_interval: Annotated[
        int, doc("The longest time that one waits for others.", "duration", minimum=10 * MS)
    ] = SECOND
    timeout: Annotated[int, doc("How long an export may take.", "duration", minimum=MS)] = 10 * SECOND


class Why(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `fastgate why` can tell: failures, whole traces, and what is kept by chance."""

    memory: Annotated[
        int,
        doc(
            "What each worker may keep, a third of it errors, a third refusals; the oldest go first. "
            '"0B": nothing.',
            "size",
        ),
    ] = MIB
    keep: Annotated[
        float, doc("The share of requests that is kept, with all steps, however they end.", ge=0, le=1)
    ] = 0
    key: Annotated[
        str | Secret | None,
        doc(
            "Who has it can ask for the trace of a request, by a signed X-Fastgate-Trace (`fastgate why "
            "--sign`); at least 32 characters.",
            "header-value",
            secret=True,
            default="none: that field passes as it came",
        ),
    ] = None
    key_lifetime: Annotated[
        int, doc("How far ahead the expiry of a signature may lie.", "duration", minimum=SECOND)
    ] = 10 * MINUTE
