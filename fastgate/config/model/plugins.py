"""The plugins that ship with fastgate."""

from typing import Annotated, Literal

from msgspec import Struct

from fastgate.config.model.basics import Rate, derived, doc


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
