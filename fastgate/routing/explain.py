"""What the gateway would do with one request, and why: `fastgate explain`.

The winner comes from the compiled table, the reasons from the reference matcher; that the two agree is
checked each time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from fastgate._core import (
    REASONS,
    Redirector,
    RouteTable,
    TargetError,
    parse_path_pattern,
    parse_target,
    path_rewrite_of,
)
from fastgate.config.model import Config, HeaderRules, Listener, Route
from fastgate.routing.aggregation import AggregateShown, aggregate_of, rows_of
from fastgate.routing.plugins import PluginShown, describe_plugin, plugins_of
from fastgate.routing.policies import (
    EndpointShown,
    SplitShown,
    endpoints_of,
    forwarded_host,
    route_policies,
    split_of,
    upstream_policies,
)
from fastgate.routing.reference import Request, Verdict, compare, judge_all, winner

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# RFC 9110 5.5; what the gateway accepts in a value.
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


class ExplainError(ValueError):
    """The request cannot be made, or the gateway would refuse it before any route is looked at."""


class Loser(Struct, frozen=True, kw_only=True):
    """A route that did not win, and the reason: the condition that failed, or what has precedence over it."""

    route: str
    reason: str


class Explanation(Struct, frozen=True, kw_only=True):
    """The whole answer; its fields are those of `--json`.

    `route` None: no route matches. `path`, `query`, `host`: the request in normal form. `refused`: the reason
    code with which the winning route still refuses the request. One of `upstream`, `split`, `aggregate`,
    `redirect`, `respond` is set when a route won. `policies`: what is done about failures, by the key of its
    table; with a split, those of an arm's upstream stand there. `forwarded_host` None: the arms differ in
    it.
    """

    listener: str
    method: str
    host: str
    path: str
    query: str | None
    route: str | None
    why: tuple[str, ...]
    captures: dict[str, str]
    refused: str | None
    plugins: tuple[PluginShown, ...]
    upstream: str | None
    split: SplitShown | None
    aggregate: AggregateShown | None
    policies: dict[str, str]
    endpoints: tuple[EndpointShown, ...]
    forwarded: str | None
    forwarded_host: str | None
    request_headers: tuple[str, ...]
    response_headers: tuple[str, ...]
    redirect: str | None
    redirect_status: int | None
    respond: int | None
    lost: tuple[Loser, ...]


def explain(
    config: Config,
    method: str,
    url: str,
    headers: Iterable[tuple[str, str]] = (),
    listener_name: str | None = None,
) -> Explanation:
    """Explain one request.

    url: absolute, a path, or "*" with OPTIONS. listener_name: where it comes in, by default the first.
    Raises ExplainError for a request that the gateway would refuse, with the reason.
    """
    listener = _listener(config, listener_name)
    fields = _read_fields(headers)
    if not _TOKEN.fullmatch(method):
        raise ExplainError(f"{method!r} is not a method (RFC 9110 9.1)")
    if method in ("CONNECT", "TRACE"):
        raise ExplainError(f"the gateway does not serve {method} (method-not-implemented)")
    hosts = [value for name, value in fields if name.lower() == b"host"]
    if len(hosts) > 1:
        raise ExplainError("more than one Host (host-duplicate)")
    try:
        target = parse_target(_latin1(url, "the URL"), hosts[0] if hosts else None, method.encode())
    except TargetError as error:
        raise ExplainError(f"the gateway refuses this request: {error} ({error.reason})") from None
    routes = [
        (i, route)
        for i, route in enumerate(config.routes)
        if not route.listeners or listener.name in route.listeners
    ]
    request = Request(method.encode(), target.host, target.path, target.query, fields)
    verdicts = judge_all(routes, request)
    best = winner(verdicts)
    index, captures = RouteTable(routes).find(*request)
    if (index, captures) != ((-1, ()) if best is None else (best.index, best.captures)):
        raise AssertionError(f"the route table says {index}, the reference {best}: please report this")
    route = None if best is None else config.routes[best.index]
    scheme = target.scheme or "http"
    shown: dict[str, Any] = dict.fromkeys(
        (
            "refused", "upstream", "split", "aggregate", "forwarded", "forwarded_host", "redirect",
            "redirect_status", "respond",
        )
    )  # fmt: skip
    shown.update(captures={}, plugins=(), policies={}, endpoints=(), request_headers=(), response_headers=())
    if route is not None:
        names = parse_path_pattern(route.match.path).names if route.match.path is not None else ()
        shown["captures"] = {name: value.decode() for name, value in zip(names, captures, strict=True)}
        shown["plugins"] = plugins_of(config, listener, route)
        shown["response_headers"] = _rules(route.response_headers)
        if target.encoded_slash and route.encoded_slashes == "refuse":
            shown["refused"] = "encoded-slash"
        if route.upstream is not None or route.split is not None:
            rewrite = path_rewrite_of(route)
            shown["forwarded"] = rewrite.apply(target.path, target.query, captures).decode()
            shown["request_headers"] = _rules(route.request_headers)
            shown.update(_upstreams(config, route, request, target.authority.decode()))
        elif route.aggregate is not None:
            shown["aggregate"] = aggregate_of(route.aggregate, config)
            shown["policies"] = route_policies(route)
        elif route.redirect is not None:
            redirector = Redirector(route.match, route.redirect)
            port = None if target.port is None else b"%d" % target.port
            shown["redirect_status"] = redirector.status
            shown["redirect"] = redirector.location(
                scheme.encode(), target.host, target.path, target.query, captures, port
            ).decode()
        elif route.respond is not None:
            shown["respond"] = route.respond.status
    return Explanation(
        listener=listener.name,
        method=method,
        host=target.host.decode(),
        path=target.path.decode(),
        query=None if target.query is None else target.query.decode(),
        route=None if route is None else route.name,
        why=() if best is None else best.why or ("it has no conditions",),
        lost=tuple(_losers(verdicts, best)),
        **shown,
    )


def _upstreams(config: Config, route: Route, request: Request, authority: str) -> dict[str, Any]:
    """The fields of the upstream or of the split."""
    split = split_of(route, config, request, authority)
    if split is not None:
        hosts = {arm.forwarded_host for arm in split.arms}
        return {
            "split": split,
            "policies": route_policies(route),
            "forwarded_host": hosts.pop() if len(hosts) == 1 else None,
        }
    assert route.upstream is not None
    upstream = config.upstreams[route.upstream]
    return {
        "upstream": upstream.name,
        "endpoints": endpoints_of(upstream),
        "policies": upstream_policies(upstream, route) | route_policies(route),
        "forwarded_host": forwarded_host(route, upstream, authority),
    }


def describe(found: Explanation) -> str:
    """The explanation as text, without a newline at its end."""
    query = "" if found.query is None else f"?{found.query}"
    lines = [
        f"{found.method} {found.path}{query}, host {found.host or '(none)'}, listener {found.listener}",
        "",
    ]
    if found.route is None:
        reason = next(one for one in REASONS if one.code == "no-route")
        lines.append(f"no route matches: {reason.status} ({reason.code})")
    else:
        rows = [("route", found.route), ("why", "; ".join(found.why))]
        rows += [(f"{{{name}}}", value) for name, value in found.captures.items()]
        if found.refused:
            rows.append(("refused", f'400 ({found.refused}): the route has encoded_slashes = "refuse"'))
        rows.append(("plugins", ", ".join(map(describe_plugin, found.plugins)) or "none"))
        if found.forwarded is not None:
            if found.upstream is not None:
                rows.append(("upstream", found.upstream))
                rows += [("endpoint", _endpoint(one)) for one in found.endpoints]
            if found.split is not None:
                rows += _split(found.split, hosts=found.forwarded_host is None)
            rows += [(name, text) for name, text in found.policies.items()]
            rows.append(("forwards", f"{found.method} {found.forwarded}"))
            if found.forwarded_host is not None:
                rows.append(("Host", found.forwarded_host or "(none)"))
            rows += [("request", rule) for rule in found.request_headers]
        elif found.aggregate is not None:
            rows += rows_of(found.aggregate)
            rows += [
                ("endpoint", f"{name}: {_endpoint(one)}")
                for name, endpoints in found.aggregate.endpoints.items()
                for one in endpoints
            ]
            rows += list(found.policies.items())
        elif found.redirect is not None:
            rows.append(("redirects", f"{found.redirect_status} {found.redirect}"))
        else:
            rows.append(("responds", str(found.respond)))
        rows += [("response", rule) for rule in found.response_headers]
        lines += [f"{name:<10} {text}" for name, text in rows]
    if found.lost:
        lines += ["", "the other routes:"]
        width = min(30, max(len(loser.route) for loser in found.lost))
        lines += [f"  {loser.route:<{width}}  {loser.reason}" for loser in found.lost]
    return "\n".join("".join(c if c.isprintable() else "?" for c in line) for line in lines)


def _listener(config: Config, name: str | None) -> Listener:
    names = [listener.name for listener in config.listeners]
    if name is None:
        return config.listeners[0]
    if name not in names:
        raise ExplainError(f"no listener is named {name!r}; there is {', '.join(names)}")
    return config.listeners[names.index(name)]


def _read_fields(headers: Iterable[tuple[str, str]]) -> tuple[tuple[bytes, bytes], ...]:
    fields = []
    for name, value in headers:
        if not _TOKEN.fullmatch(name):
            raise ExplainError(f"{name!r} is not a header name (RFC 9110 5.1)")
        if not _FIELD_VALUE.fullmatch(value):
            raise ExplainError(
                f"the value of {name} holds a byte that no field value may hold (RFC 9110 5.5)"
            )
        fields.append((name.encode(), _latin1(value, f"the value of {name}").strip(b" \t")))
    return tuple(fields)


def _latin1(text: str, what: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise ExplainError(f"{what} holds characters beyond bytes; percent-encode them") from None


def _losers(verdicts: Iterable[Verdict], best: Verdict | None) -> Iterable[Loser]:
    for verdict in verdicts:
        if best is not None and verdict.index == best.index:
            continue
        if verdict.rank is None or best is None:
            yield Loser(route=verdict.route.name, reason=verdict.failed)
        else:
            yield Loser(route=verdict.route.name, reason=f"lower precedence: {compare(verdict, best)}")


def _rules(rules: HeaderRules) -> tuple[str, ...]:
    # A Secret shows itself as "<secret>".
    return (
        *(f"remove {name}" for name in rules.remove),
        *(f"set {name}: {value}" for name, value in rules.set.items()),
        *(f"add {name}: {value}" for name, value in rules.add.items()),
    )


def _split(split: SplitShown, hosts: bool) -> Iterable[tuple[str, str]]:
    """`hosts`: each arm says the Host that it is sent."""
    override = f"; named by {' or '.join(split.override)}" if split.override else ""
    yield "split", f"by {', then '.join(split.key)}{override}"
    if split.chosen is not None:
        yield "chosen", f"{split.chosen}, which the request names"
    for arm in split.arms:
        yield "arm", f"{arm.name}: {arm.percent:g} % to upstream {arm.upstream}"
        if arm.rollback is not None:
            yield "  rollback", arm.rollback
        for one in arm.endpoints:
            yield "  endpoint", _endpoint(one)
        for name, text in arm.policies.items():
            yield f"  {name}", text
        if hosts:
            yield "  Host", arm.forwarded_host or "(none)"


def _endpoint(one: EndpointShown) -> str:
    details = [f"weight {one.weight}"] if one.weight != 1 else []
    details += [f"region {one.region}"] if one.region else []
    details += [f"zone {one.zone}"] if one.zone else []
    return f"{one.address} ({', '.join(details)})" if details else one.address
