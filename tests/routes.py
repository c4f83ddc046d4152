"""Routes for the routing tests, in a line each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fastgate._core import RouteTable


@dataclass(frozen=True)
class Condition:
    kind: str
    value: str = ""


@dataclass(frozen=True)
class Match:
    host: tuple[str, ...] = ()
    path: str | None = None
    prefix: str | None = None
    regex: str | None = None
    methods: tuple[str, ...] = ()
    headers: dict[str, Condition] = field(default_factory=dict)
    query: dict[str, Condition] = field(default_factory=dict)
    cookies: dict[str, Condition] = field(default_factory=dict)


@dataclass(frozen=True)
class Route:
    name: str
    match: Match


def condition(value: object) -> Condition:
    """As the TOML writes it: "text", True or {"regex": ...}."""
    if value is True:
        return Condition("present")
    if isinstance(value, dict):
        return Condition("regex", value["regex"])
    return Condition("equal", str(value))


def route(name: str, host: str | tuple[str, ...] = (), **match: Any) -> Route:
    for place in ("headers", "query", "cookies"):
        if place in match:
            match[place] = {key: condition(value) for key, value in match[place].items()}
    return Route(name, Match(host=(host,) if isinstance(host, str) else host, **match))


class Routes:
    """A table that answers with names."""

    def __init__(self, *routes: Route) -> None:
        self.routes = routes
        self.table = RouteTable(enumerate(routes))
        self.captures: tuple[bytes, ...] = ()

    def match(
        self,
        path: str,
        host: str = "",
        method: str = "GET",
        query: str | None = None,
        fields: tuple[tuple[str, str], ...] = (),
    ) -> str | None:
        index, self.captures = self.table.find(
            method.encode(),
            host.encode(),
            path.encode(),
            None if query is None else query.encode(),
            [(name.encode(), value.encode("latin-1")) for name, value in fields],
        )
        return None if index < 0 else self.routes[index].name
