"""What a configuration does with a request, as far as no endpoint is asked: for many of them, one after the
other.

`explain` tells one request with all reasons; this tells the outcome, some hundred thousand times a minute.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from fastgate._core import (
    REASONS,
    IpFilterCore,
    Redirector,
    RouteTable,
    TargetError,
    parse_target,
    path_rewrite_of,
)
from fastgate.config.model import UNLIMITED, Config, IpFilter, Listener, PluginUse, Route
from fastgate.config.part_graph import asked_upstreams
from fastgate.routing.aggregation import request_of

__all__ = ["Asked", "Decider", "Decision"]

_STATUS: Final = {reason.code: reason.status for reason in REASONS}


class Asked(NamedTuple):
    """A request. target: as sent; host: None for none; client: "" where nothing is known of it; body: its
    length. scheme: in which it came."""

    method: str
    target: str
    host: str | None
    fields: tuple[tuple[str, str], ...] = ()
    client: str = ""
    body: int = 0
    scheme: str = "http"


class Decision(NamedTuple):
    """status: None where an endpoint decides it. reason: of an answer of the gateway's own. forwarded: the
    target that the endpoint sees; of an aggregation the requests of its parts, as they are written.
    location: of a redirect."""

    route: str | None = None
    upstream: str | None = None
    status: int | None = None
    reason: str = ""
    forwarded: str = ""
    location: str = ""

    def __str__(self) -> str:
        if self.status is None:
            return f"{self.route} -> {self.upstream} {self.forwarded}"
        what = f"{self.status} {self.reason}".rstrip()
        where = f" {self.location}" if self.location else ""
        return f"{self.route} -> {what}{where}" if self.route is not None else what


class Decider:
    """Raises ValueError for a route that cannot be compiled."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._listeners = {listener.name: _Listener(config, listener) for listener in config.listeners}
        self._rewrites = [path_rewrite_of(route) for route in config.routes]
        self._redirectors = [
            None if route.redirect is None else Redirector(route.match, route.redirect)
            for route in config.routes
        ]
        self._filters = {
            name: IpFilterCore(plugin)
            for name, plugin in config.plugins.items()
            if isinstance(plugin, IpFilter) and not plugin.consumers and not plugin.plan
        }
        self._upstreams = [_upstream_of(route) for route in config.routes]
        self._asked = [_asked_of(route) for route in config.routes]

    @property
    def listeners(self) -> tuple[str, ...]:
        return tuple(self._listeners)

    def conditions(self) -> set[str]:
        """The header fields that routes look at, in small letters."""
        found: set[str] = set()
        for route in self._config.routes:
            found.update(name.lower() for name in route.match.headers)
            if route.match.cookies:
                found.add("cookie")
        return found

    def decide(self, listener_name: str, asked: Asked) -> Decision:
        """KeyError for a listener that is not there."""
        listener = self._listeners[listener_name]
        if asked.method in ("CONNECT", "TRACE"):
            return _own("method-not-implemented")
        try:
            host = None if asked.host is None else asked.host.encode("latin-1", "replace")
            method = asked.method.encode("latin-1", "replace")
            target = parse_target(asked.target.encode("latin-1", "replace"), host, method)
        except TargetError as error:
            return _own(error.reason)
        fields = tuple(
            (name.encode("latin-1", "replace"), value.encode("latin-1", "replace"))
            for name, value in asked.fields
        )
        index, captures = listener.table.find(method, target.host, target.path, target.query, fields)
        if index < 0:
            return _own("no-route")
        route = self._config.routes[index]
        limit = route.limits.body if route.limits.body is not None else listener.config.limits.body
        if target.encoded_slash and route.encoded_slashes == "refuse":
            return _own("encoded-slash", route)
        if limit != UNLIMITED and asked.body > limit:
            return _own("body-too-large", route)
        if self._refused(listener.config, route, asked.client):
            return _own("address-refused", route)
        redirector = self._redirectors[index]
        if redirector is not None:
            port = None if target.port is None else b"%d" % target.port
            scheme = (target.scheme or asked.scheme).encode()
            location = redirector.location(scheme, target.host, target.path, target.query, captures, port)
            return Decision(
                route.name, status=redirector.status, reason="redirected", location=location.decode()
            )
        if route.respond is not None:
            return Decision(route.name, status=route.respond.status, reason="fixed-response")
        if route.aggregate is not None:
            return Decision(route.name, self._upstreams[index], forwarded=self._asked[index])
        forwarded = self._rewrites[index].apply(target.path, target.query, captures).decode()
        return Decision(route.name, self._upstreams[index], forwarded=forwarded)

    def _refused(self, listener: Listener, route: Route, client: str) -> bool:
        """By a filter of addresses that stands before the first plugin in Python."""
        if not self._filters or not client:
            return False
        for name in dict.fromkeys((*listener.plugins, *route.plugins)):
            if isinstance(self._config.plugins[name], PluginUse):
                return False
            lists = self._filters.get(name)
            try:
                if lists is not None and lists.refuses_address(client):
                    return True
            except ValueError:
                return False
        return False


class _Listener:
    def __init__(self, config: Config, listener: Listener) -> None:
        self.config = listener
        self.table: Any = RouteTable(
            [
                (i, route)
                for i, route in enumerate(config.routes)
                if not route.listeners or listener.name in route.listeners
            ]
        )


def _own(code: str, route: Route | None = None) -> Decision:
    return Decision(None if route is None else route.name, status=_STATUS[code], reason=code)


def _upstream_of(route: Route) -> str | None:
    if route.aggregate is not None:
        return " + ".join(asked_upstreams(route.aggregate))
    if route.split is None:
        return route.upstream
    total = sum(target.weight for target in route.split.to) or 1
    return ", ".join(f"{target.upstream} {100 * target.weight / total:g} %" for target in route.split.to)


def _asked_of(route: Route) -> str:
    parts = route.aggregate.parts.items() if route.aggregate is not None else ()
    return ", ".join(f"{name}: {request_of(part)}" for name, part in parts)
