"""From claims that are true to what the gateway and the service are told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from msgspec import field

from fastgate.plugins import Consumer, PluginConfig, doc
from fastgate.plugins._auth.claims import header_value, lookup, words
from fastgate.plugins._auth.strict import frozen

MAX_NAME: Final = 256

# Keys that several of them have, each with a default of its own.
Leeway = Annotated[int, doc("How far clocks may differ.", "duration")]
ClientAuth = Annotated[
    Literal["basic", "post"], doc("How the secret is sent: in Authorization, or in the form.")
]


class IdentityConfig(PluginConfig):
    """What claims say: the keys that all plugins have who take callers by their claims."""

    consumer_claim: Annotated[
        str, doc("The claim that names the consumer: sub, client_id, username or another.", "text")
    ] = "sub"
    groups_claim: Annotated[str, doc('The claim that holds its groups, such as "realm_access.roles".')] = ""
    plan_claim: Annotated[str, doc("The claim that names its plan.")] = ""
    claims_to_headers: Annotated[
        dict[str, str],
        doc(
            "Claims, and the request header in which the service gets each; arrays with commas between.",
            "set-header-name",
            names="text",
        ),
    ] = field(default_factory=dict)


def header_problems(config: IdentityConfig, *more: str) -> Iterator[tuple[str, str]]:
    """Key and message where two values go into one header. more: other headers that are set."""
    names = [name.lower() for name in (*config.claims_to_headers.values(), *more) if name]
    if len(set(names)) < len(names):
        yield "claims_to_headers", "two values go into one header"


class Identity:
    """Which claims say what. source: the plugin's name. prefix: in front of each name. Claims that are "" are
    not looked at."""

    def __init__(self, config: IdentityConfig, source: str, prefix: str = "") -> None:
        self._consumer, self._groups, self._plan = (
            config.consumer_claim,
            config.groups_claim,
            config.plan_claim,
        )
        self._headers, self._source, self._prefix = config.claims_to_headers, source, prefix

    def consumer(self, claims: Mapping[str, Any], scopes: frozenset[str]) -> Consumer:
        """Raises ValueError where the claims name none."""
        name = lookup(claims, self._consumer)
        if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= MAX_NAME:
            raise ValueError(f"the claim {self._consumer} names no consumer")
        plan = lookup(claims, self._plan) if self._plan else ""
        return Consumer(
            name=self._prefix + name,
            plan=plan if isinstance(plan, str) else "",
            groups=words(lookup(claims, self._groups)) if self._groups else frozenset(),
            scopes=scopes,
            claims=frozen(claims),
            source=self._source,
        )

    def headers(self, claims: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
        """Raises ValueError for a claim that would not arrive as what it is."""
        found = []
        for claim, name in self._headers.items():
            try:
                value = header_value(lookup(claims, claim))
            except ValueError as error:
                raise ValueError(f"the claim {claim} can't go into {name}: {error}") from None
            if value is not None:
                found.append((name, value))
        return tuple(found)
