"""``acl``: who of the consumers that were found out may do what."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import field

from fastgate.plugins import Consumer, Exchange, Host, Plugin, PluginConfig, Request, Response, doc
from fastgate.plugins._auth.claims import mismatch


class Who(PluginConfig):
    """Conditions on a consumer. All that are given have to hold; without any they hold for every consumer."""

    consumers: Annotated[tuple[str, ...], doc("It has one of these names.", one_or_many=True)] = ()
    groups: Annotated[tuple[str, ...], doc("It is in one of these groups.", one_or_many=True)] = ()
    scopes: Annotated[tuple[str, ...], doc("It has all of these scopes.", one_or_many=True)] = ()
    any_scope: Annotated[tuple[str, ...], doc("It has one of these scopes.", one_or_many=True)] = ()
    claims: Annotated[
        dict[str, tuple[str, ...]],
        doc(
            "Claims (dots lead into nested ones) and the values of which each has one.",
            names="text",
            one_or_many=True,
            least=1,
        ),
    ] = field(default_factory=dict)

    def holds(self, consumer: Consumer) -> bool:
        """Whether ``consumer`` meets all of them."""
        return (
            (not self.consumers or consumer.name in self.consumers)
            and (not self.groups or not consumer.groups.isdisjoint(self.groups))
            and consumer.scopes.issuperset(self.scopes)
            and (not self.any_scope or not consumer.scopes.isdisjoint(self.any_scope))
            and not mismatch(consumer.claims, self.claims)
        )


class Rule(Who):
    """Says what happens to the requests that it describes, if the consumer meets its conditions."""

    effect: Annotated[Literal["allow", "deny"], doc("What it says.")] = "allow"
    methods: Annotated[
        tuple[str, ...],
        doc("Only requests with one of these methods. GET does not bring HEAD.", "method", one_or_many=True),
    ] = ()
    path: Annotated[str | None, doc("Only requests for exactly this path.", "path")] = None
    prefix: Annotated[
        str | None, doc("Only requests for this path and those below: /a is not /ab.", "path")
    ] = None

    def describes(self, request: Request) -> bool:
        """Whether it is about this request."""
        if self.methods and request.method not in self.methods:
            return False
        if self.path is not None and request.path != self.path:
            return False
        return self.prefix is None or _is_below(request.path, self.prefix)


def _is_below(path: str, prefix: str) -> bool:
    prefix = prefix.rstrip("/")
    return path == prefix or path.startswith(prefix + "/")


class AclConfig(PluginConfig):
    """Decides by the consumer that a plugin before it has found out. Asked in this order: `deny`, `rules`
    (the first that holds), `allow`, `default`."""

    deny: Annotated[Who | None, doc("Consumers that may do nothing, whatever else is said.")] = None
    rules: Annotated[tuple[Rule, ...], doc("Rules; the first that holds decides.")] = ()
    allow: Annotated[Who | None, doc("Consumers that may do what no rule speaks of.")] = None
    default: Annotated[Literal["deny", "allow"], doc("What holds for all others.")] = "deny"
    challenge: Annotated[
        str, doc("WWW-Authenticate of the 401 for a request without a consumer.", "header-value")
    ] = "Bearer"


class Acl(Plugin):
    """See docs/plugins/acl.md."""

    Config = AclConfig
    config: AclConfig

    @classmethod
    def check(cls, config: AclConfig) -> dict[str, str]:
        wrong = {}
        for name in ("deny", "allow"):
            who = getattr(config, name)
            if who is not None and who == Who():
                wrong[name] = f"it has no condition, and would {name} everyone"
        for at, rule in enumerate(config.rules):
            if rule.path is not None and rule.prefix is not None:
                wrong[f"rules.{at}.path"] = "a rule has a path or a prefix"
        if not wrong and config.default == "deny" and config.allow is None and not config.rules:
            wrong[""] = "nobody is allowed anything: it has neither `allow` nor `rules`"
        return wrong

    def provision(self, host: Host) -> None:
        self._count = host.count

    def on_request(self, exchange: Exchange) -> Response | None:
        consumer = exchange.consumer
        if consumer is None:
            headers = {"www-authenticate": self.config.challenge}
            return exchange.refuse(401, "authentication-required", "no consumer", headers=headers)
        effect, why = self._decide(consumer, exchange.request)
        if effect == "allow":
            return None
        self._count("refused")
        return exchange.refuse(403, "forbidden", f"consumer {consumer.name!r}: {why}")

    def _decide(self, consumer: Consumer, request: Request) -> tuple[str, str]:
        """The effect, and what has brought it about."""
        config = self.config
        if config.deny is not None and config.deny.holds(consumer):
            return "deny", "deny"
        for at, rule in enumerate(config.rules):
            if rule.describes(request) and rule.holds(consumer):
                return rule.effect, f"rule {at}"
        if config.allow is not None and config.allow.holds(consumer):
            return "allow", "allow"
        return config.default, "default"
