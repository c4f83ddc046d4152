"""From claims that are true to what the gateway and the service are told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fastgate.plugins import Consumer
from fastgate.plugins._auth.claims import header_value, lookup, words
from fastgate.plugins._auth.strict import frozen

MAX_NAME: Final = 256


class Identity:
    """Which claims say what. source: the plugin's name. Claims that are "" are not looked at."""

    def __init__(
        self, *, consumer: str, groups: str, plan: str, headers: Mapping[str, str], source: str
    ) -> None:
        self._consumer, self._groups, self._plan = consumer, groups, plan
        self._headers, self._source = headers, source

    def consumer(self, claims: Mapping[str, Any], scopes: frozenset[str]) -> Consumer:
        """Raises ValueError where the claims name none."""
        name = lookup(claims, self._consumer)
        if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= MAX_NAME:
            raise ValueError(f"the claim {self._consumer} names no consumer")
        plan = lookup(claims, self._plan) if self._plan else ""
        return Consumer(
            name=name,
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
