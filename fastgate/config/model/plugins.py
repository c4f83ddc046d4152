"""The tables of plugins: the two native ones, and what every plugin in Python has besides its own keys."""

from typing import Annotated, Any, Literal

from msgspec import Struct

from fastgate.config.model.basics import MS, SECOND, Rate, Secret, derived, doc


class RedisPlace(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where Redis is. Needs the extra `fastgate[redis]`."""

    url: Annotated[
        str,
        doc(
            '"redis://host:6379/0" or "unix:/path/redis.sock"; with `sentinels` only its database counts, '
            "with `cluster` any of its nodes will do.",
            "redis-url",
        ),
    ] = "redis://127.0.0.1:6379/0"
    username: Annotated[str, doc("For AUTH; empty: the default user.")] = ""
    password: Annotated[
        str | Secret | None, doc("For AUTH.", "header-value", secret=True, default="none: no AUTH")
    ] = None
    sentinels: Annotated[
        tuple[str, ...], doc("Addresses of Sentinels, which name the master.", "authority")
    ] = ()
    sentinel_master: Annotated[str, doc("The name of the master there.")] = ""
    cluster: Annotated[bool, doc("It is a Redis Cluster.")] = False
    prefix: Annotated[str, doc("What every key begins with.")] = "fastgate:"
    timeout: Annotated[int, doc("How long a decision may take.", "duration", minimum=MS)] = 5 * MS


class SharedValues(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where plugins keep what they share (used nonces, logins under way). Read at the start; a reload does
    not change it."""

    redis: Annotated[
        RedisPlace | None, doc("Shared by all that use this Redis; absent: by the gateways of this machine.")
    ] = None
    max_entries: Annotated[
        int, doc("Values that are kept on this machine, of 1 KiB each.", ge=8, le=1_000_000)
    ] = 8192


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
    rate: Annotated[
        Rate,
        doc(
            'Tokens that come back: "100/s", "10/m" or "1000/h". Needed but for a quota.',
            "rate",
            default="that of the quota",
        ),
    ] = None  # type: ignore[assignment]  # filled in, or an error
    burst: Annotated[
        int,
        doc("Tokens of a full bucket.", ge=1, le=1_000_000_000, default="one second's worth, at least 1"),
    ] = 0
    scope: Annotated[
        Literal["worker", "host", "redis"],
        doc(
            'Whose requests count together: those of one worker; "host": of all workers and gateways of this '
            'machine that run the same configuration file; "redis": of all that use the same Redis.'
        ),
    ] = "host"
    per: Annotated[
        Literal["plugin", "route"],
        doc('"plugin": one set of buckets wherever the plugin is used; "route": a set for each route.'),
    ] = "plugin"
    cost: Annotated[int, doc("Tokens that a request takes.", ge=1, le=1_000_000)] = 1
    cost_header: Annotated[
        str,
        doc(
            "Header of the service's answer that tells, as a whole number, what the request really cost; the "
            "difference is taken then.",
            "header-name",
            empty=True,
        ),
    ] = ""
    algorithm: Annotated[
        Literal["token-bucket", "sliding-window", "quota"],
        doc(
            '"sliding-window": `rate` within any window, without a burst; "quota": `quota` in each calendar '
            'period. Both with scope = "redis" only.'
        ),
    ] = "token-bucket"
    quota: Annotated[
        str, doc('"10000/day"; also "/hour" and "/month". Periods are of UTC.', "quota", empty=True)
    ] = ""
    quota_count: Annotated[int, derived("The number in `quota`.")] = 0
    quota_period: Annotated[str, derived("The period in `quota`.")] = ""
    redis: RedisPlace | None = None
    on_error: Annotated[
        Literal["local", "open", "closed"],
        doc(
            'While Redis can\'t be asked: "local" holds the limit in each worker by itself, "open" lets all '
            'pass, "closed" refuses all (503).'
        ),
    ] = "local"
    lease: Annotated[
        int,
        doc(
            "Tokens that a worker takes ahead from Redis for a key that it was asked for less than 100 ms "
            "ago. So much, for each worker, may go unused.",
            ge=0,
            le=1_000_000,
        ),
    ] = 0
    ipv6_prefix: Annotated[int, doc("IPv6 clients count together by this many bits.", ge=1, le=128)] = 64
    max_keys: Annotated[int, doc("Buckets that are kept; the oldest go first.", ge=1, le=10_000_000)] = (
        100_000
    )
    report_only: Annotated[bool, doc("Count what would be refused, but refuse nobody.")] = False
    headers: Annotated[
        tuple[Literal["ratelimit", "x-ratelimit"], ...],
        doc('Response fields: "ratelimit" (RateLimit and RateLimit-Policy), "x-ratelimit" (X-RateLimit-*).'),
    ] = ("ratelimit",)
    consumers: Annotated[tuple[str, ...], doc("Only these consumers; empty: everyone.")] = ()
    plan: Annotated[str, doc("Only consumers of this plan; empty: of any.")] = ""
    shared_as: Annotated[
        str, derived("What gateways have in common that share it: the path of the file.")
    ] = ""


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
    report_only: Annotated[bool, doc("Count what would be refused, but refuse nobody.")] = False
    consumers: Annotated[tuple[str, ...], doc("Only these consumers; empty: everyone.")] = ()
    plan: Annotated[str, doc("Only consumers of this plan; empty: of any.")] = ""


class PluginUse(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A plugin in Python: its table has these keys, and those of the plugin itself."""

    # Two are equal where a reload may keep the plugin that runs: a class is loaded once for each version of
    # its source, so equal versions have the same class.

    name: Annotated[str, derived("Its name: the last part of its table's header.")] = ""
    use: Annotated[
        str,
        doc(
            'Which plugin: one that ships ("jwt"), one that an installed package offers by this name, '
            '"module:Class", or a file relative to the configuration ("./my_plugin.py" or '
            '"./my_plugin.py:Class"). A reload takes its code anew where the file that defines the class has '
            "changed."
        ),
    ]
    plugin: Annotated[type[Any], derived("The class: a fastgate.plugins.Plugin.")]
    config: Annotated[Any, derived("An instance of the class's Config.")]
    version: Annotated[str, derived("Digest of the source of the class; empty for those that ship.")] = ""
    on_failure: Annotated[
        Literal["closed", "open"],
        doc(
            'When the plugin raises or exceeds its time: "closed" answers 500, "open" goes on as if it were '
            "not there."
        ),
    ] = "closed"
    timeout: Annotated[int, doc("How long one phase of it may take.", "duration", minimum=MS)] = 5 * SECOND
    report_only: Annotated[bool, doc("Log and count what it refuses, but let it pass.")] = False


Plugin = RateLimit | IpFilter | PluginUse
