"""From the checked configuration to the objects of the compiled core that run it."""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from fastgate import _core
from fastgate.aggregation.plan import Plan
from fastgate.config import Config, model
from fastgate.server.certificates import ListenerCertificates
from fastgate.server.common import Common, CounterPlaces
from fastgate.server.compile_upstream import compile_fallback, compile_fault, compile_retry
from fastgate.server.https_redirect import redirect_routes
from fastgate.server.plugins import PreparedPlugins
from fastgate.server.redis_limits import RedisLimits
from fastgate.server.tracing import trace_policy
from fastgate.server.upstreams import Estate, RunningUpstream

__all__ = ["Ground", "Snapshot", "build", "inner", "lay_ground"]

# In the order of the core's enum Priority.
PRIORITIES = ("critical", "normal", "sheddable")

# What a native plugin's buckets and lists live in; a rate limit's filter is made for each route.
Native = _core.RateLimiter | _core.IpFilter | _core.PendingFilter


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The configuration in force, compiled. ``listeners`` go with ``config.listeners``, in the same order."""

    config: Config
    listeners: tuple[_core.Listener, ...]
    upstreams: dict[str, RunningUpstream]
    plugins: dict[str, Native]
    splits: dict[str, _core.Splitter]
    aggregates: dict[str, Plan]


def route_tables(config: Config) -> list[_core.RouteTable]:
    """One for each listener: the costly part of `build`, and the one that may run in any thread."""
    return [_core.RouteTable(_routes_of(listener, config)) for listener in config.listeners]


def _routes_of(listener: model.Listener, config: Config) -> list[tuple[int, model.Route]]:
    if listener.redirects_to:
        return list(enumerate(redirect_routes(listener, config)))
    return [
        (index, route)
        for index, route in enumerate(config.routes)
        if not route.listeners or listener.name in route.listeners
    ]


@dataclass(frozen=True, slots=True)
class Ground:
    """What a configuration stands on: the counters' places of its routes, in their order, and its
    upstreams."""

    route_slots: list[_core.Slot]
    upstreams: dict[str, RunningUpstream]

    @property
    def cores(self) -> dict[str, _core.Upstream]:
        return {name: running.core for name, running in self.upstreams.items()}


def lay_ground(
    config: Config, worker: _core.Worker, estate: Estate, places: CounterPlaces | None = None
) -> Ground:
    """Upstreams of the ``estate`` whose configuration is equal are taken over. places: of all routes and
    upstreams, where another process has assigned them. Raises ``_core.SlotsFull`` when there are more new
    names of routes or upstreams than the counters have room for."""
    if places is None:
        route_slots, upstream_slots = worker.counters.assign(
            [route.name for route in config.routes], list(config.upstreams)
        )
    else:
        route_slots, upstream_slots = worker.counters.follow(*places)
    slots = dict(zip(config.upstreams, upstream_slots, strict=True))
    return Ground(route_slots, estate.prepare(config, worker, slots))


def build(
    config: Config,
    ground: Ground,
    estate: Estate,
    plugins: PreparedPlugins,
    limits: RedisLimits,
    previous: Snapshot | None = None,
    tables: list[_core.RouteTable] | None = None,
) -> Snapshot:
    """Compiles a configuration for one worker, beside the one that runs: nothing of that is changed.

    ``previous``: the one that runs, or None. Its native plugins are taken over, with their buckets and
    counts, where the configuration of that name is equal. ``plugins``: those in Python, provisioned.
    ``tables``: those of ``route_tables``, if they are there already. Nothing is expected to fail: the
    configuration has been checked.
    """
    native: dict[str, Native] = {}
    for name, plugin in config.plugins.items():
        if isinstance(plugin, model.PluginUse):
            continue
        if previous is not None and previous.config.plugins.get(name) == plugin:
            native[name] = previous.plugins[name]
        else:
            native[name] = _native(name, plugin, limits)
    splits = {
        route.name: _core.Splitter(
            route.name, route.split, states=estate.common.splits, windows=estate.common.windows
        )
        for route in config.routes
        if route.split is not None
    }
    counters = estate.common.counters
    aggregates = {
        route.name: Plan(route.name, route.aggregate, ground.cores, counters, compile_retry)
        for route in config.routes
        if route.aggregate is not None
    }
    parts = _Parts(
        config, ground.cores, native, plugins, splits, aggregates, estate.common, trace_policy(config)
    )
    listeners = tuple(
        _listener(listener, table, config, ground.route_slots, parts)
        for listener, table in zip(config.listeners, tables or route_tables(config), strict=True)
    )
    return Snapshot(config, listeners, ground.upstreams, native, splits, aggregates)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What routes are made of, by name."""

    config: Config
    upstreams: dict[str, _core.Upstream]
    native: dict[str, Native]
    plugins: PreparedPlugins
    splits: dict[str, _core.Splitter]
    aggregates: dict[str, Plan]
    common: Common
    tracing: _core.TracePolicy | None


def inner(worker: _core.Worker) -> None:
    """Gives the worker what stands for listener and route of requests that the gateway makes itself."""
    listener = _compiled(model.Listener(name="gateway", bind="", forwarded=()), _core.RouteTable([]), ())
    timeouts = model.RouteTimeouts()
    worker.serve_inner(
        listener,
        _core.Route(
            slot=None,
            name="gateway",
            respond=(500, b"", b""),
            tunnel_idle_ns=timeouts.tunnel_idle,
            event_idle_ns=timeouts.event_stream_idle,
        ),
    )


def _native(name: str, plugin: model.RateLimit | model.IpFilter, limits: RedisLimits) -> Native:
    if isinstance(plugin, model.RateLimit):
        if plugin.scope == "redis":
            return limits.filter_for(plugin)
        return _core.RateLimiter(plugin)
    return _core.IpFilter(name, _core.IpFilterCore(plugin))


def _listener(
    listener: model.Listener,
    table: _core.RouteTable,
    config: Config,
    slots: list[_core.Slot],
    parts: _Parts,
) -> _core.Listener:
    if listener.redirects_to:
        fixed = tuple(map(_fixed_route, redirect_routes(listener, config)))
        return _compiled(listener, table, fixed, tracing=parts.tracing)
    # The table answers with the route's place in the file; routes of other listeners stay None there.
    routes: list[_core.Route | None] = [None] * len(config.routes)
    for index, route in _routes_of(listener, config):
        routes[index] = _route(slots[index], route, listener, parts)
    tls = None
    if listener.tls is not None:
        tls = ListenerCertificates(listener, parts.common.ticket_keys, parts.common.certificates)
    return _compiled(listener, table, tuple(routes), tls, parts.tracing)


def _fixed_route(route: model.Route) -> _core.Route:
    timeouts = model.RouteTimeouts()
    return _core.Route(
        slot=None,
        name=route.name,
        redirect=None if route.redirect is None else _core.Redirector(route.match, route.redirect),
        respond=None if route.respond is None else _respond(route.respond),
        tunnel_idle_ns=timeouts.tunnel_idle,
        event_idle_ns=timeouts.event_stream_idle,
    )


def _compiled(
    listener: model.Listener,
    table: _core.RouteTable,
    routes: tuple[_core.Route | None, ...],
    certificates: ListenerCertificates | None = None,
    tracing: _core.TracePolicy | None = None,
) -> _core.Listener:
    tls = listener.tls or model.ListenerTls()
    rate = tls.handshake_rate
    return _core.Listener(
        name=listener.name,
        table=table,
        routes=routes,
        request_line=listener.limits.request_line,
        header_bytes=listener.limits.header_bytes,
        header_count=listener.limits.header_count,
        body_limit=listener.limits.body,
        head_ns=listener.timeouts.head,
        body_idle_ns=listener.timeouts.body_idle,
        keep_alive_ns=listener.timeouts.keep_alive,
        write_idle_ns=listener.timeouts.write_idle,
        body_min_rate=listener.body_min_rate,
        trusted=_core.IpSet(listener.trusted_proxies) if listener.trusted_proxies else None,
        proxy_protocol=listener.proxy_protocol,
        forwarded=listener.forwarded,
        request_id=listener.request_id,
        half_close=listener.half_close,
        tls=certificates,
        handshake_ns=tls.handshake_timeout,
        handshake_rate=0 if rate is None else rate.count * 1e9 / rate.per_ns,
        tracing=tracing,
        strict_host=tls.client_auth is not None,
        hsts=_hsts(listener),
    )


def _route(
    slot: _core.Slot,
    route: model.Route,
    listener: model.Listener,
    parts: _Parts,
) -> _core.Route:
    upstreams = parts.upstreams
    filters, chain = _filters(tuple(dict.fromkeys([*listener.plugins, *route.plugins])), parts)
    split, mirror = route.split, route.mirror
    rewrite = route.rewrite
    path_changes = rewrite is not None and (
        rewrite.strip_prefix or rewrite.prefix is not None or rewrite.path is not None
    )
    return _core.Route(
        slot=slot,
        name=route.name,
        upstream=None if route.upstream is None else upstreams[route.upstream],
        split=parts.splits.get(route.name),
        split_upstreams=() if split is None else tuple(upstreams[arm.upstream] for arm in split.to),
        split_key=None if split is None else _core.RequestKey((*split.key, "client-ip")),
        aggregate=parts.aggregates.get(route.name),
        priority=PRIORITIES.index(route.priority),
        retry=None if route.retry is None else compile_retry(route.retry),
        fallback=None if route.fallback is None else _fallback(route, route.fallback, upstreams),
        fault=None if route.fault is None else compile_fault(route.fault),
        mirror=None
        if mirror is None
        else _core.Mirror(
            upstreams[mirror.upstream],
            percent=mirror.percent,
            max_active=mirror.max_active,
            body_limit=mirror.body_limit,
        ),
        captures=_core.parse_path_pattern(route.match.path).names if route.match.path is not None else (),
        redirect=None if route.redirect is None else _core.Redirector(route.match, route.redirect),
        respond=None if route.respond is None else _respond(route.respond),
        filters=filters,
        chain=chain,
        rewrite=_core.path_rewrite_of(route) if path_changes else None,
        rewrite_host=None if rewrite is None else rewrite.host,
        request_rules=_rules(route.request_headers),
        response_rules=_rules(_with_hsts(route.response_headers, listener)),
        upgrades=route.upgrade,
        trace_sample=-1 if route.trace_sample is None else route.trace_sample,
        keep_encoded_slash=route.encoded_slashes == "keep",
        body_limit=-2 if route.limits.body is None else route.limits.body,
        total_ns=-1 if route.timeouts.total is None else route.timeouts.total,
        tunnel_idle_ns=route.timeouts.tunnel_idle,
        event_idle_ns=route.timeouts.event_stream_idle,
    )


def _filters(
    names: tuple[str, ...], parts: _Parts
) -> tuple[tuple[_core.NativeFilter, ...], _core.PluginChain | None]:
    """The native filters that stand before the first plugin in Python, and the chain of the others."""
    steps: list[_core.NativeFilter | _core.PluginSlot] = []
    for name in names:
        if name in parts.native:
            steps.append(_filter(name, parts))
        else:
            steps.append(parts.plugins.running[name].slot)
    identity = parts.plugins.identity_headers(names)
    first = 0
    # What a client forges is removed when the chain begins: with such headers no filter goes before it.
    if not identity:
        while first < len(steps) and not _in_chain(steps[first]):
            first += 1
    before = tuple(step for step in steps[:first] if isinstance(step, _core.NativeFilter))
    chain = (
        _core.PluginChain(parts.plugins.core, tuple(steps[first:]), identity) if first < len(steps) else None
    )
    return before, chain


def _in_chain(step: _core.NativeFilter | _core.PluginSlot) -> bool:
    return isinstance(step, _core.PluginSlot) or step.in_chain


def _filter(name: str, parts: _Parts) -> _core.NativeFilter:
    native, config = parts.native[name], parts.config.plugins[name]
    assert not isinstance(config, model.PluginUse)
    one = _core.RateLimitFilter(name, native) if isinstance(native, _core.RateLimiter) else native
    return _core.OnlyFor(one, config.consumers, config.plan) if config.consumers or config.plan else one


def _fallback(
    route: model.Route, fallback: model.Fallback, upstreams: dict[str, _core.Upstream]
) -> _core.Fallback:
    return compile_fallback(
        fallback,
        route.retry,
        None if fallback.upstream is None else upstreams[fallback.upstream],
        None if fallback.respond is None else _respond(fallback.respond),
    )


def _respond(respond: model.Respond) -> tuple[int, bytes, bytes]:
    body = respond.body.encode()
    lines = [f"{name}: {value}\r\n" for name, value in respond.headers.items()]
    if body:
        lines.insert(0, f"Content-Type: {respond.content_type}\r\n")
    return respond.status, "".join(lines).encode("latin-1"), body


def _hsts(listener: model.Listener) -> str:
    return f"max-age={listener.tls.hsts // 10**9}" if listener.tls is not None and listener.tls.hsts else ""


def _with_hsts(rules: model.HeaderRules, listener: model.Listener) -> model.HeaderRules:
    said = _hsts(listener)
    if not said:
        return rules
    return replace(rules, set={"Strict-Transport-Security": said, **rules.set})


def _rules(rules: model.HeaderRules) -> _core.HeaderRules | None:
    if not (rules.set or rules.add or rules.remove):
        return None
    return _core.HeaderRules(_revealed(rules.set), _revealed(rules.add), rules.remove)


def _revealed(values: dict[str, str | model.Secret]) -> dict[str, str]:
    return {
        name: value.reveal() if isinstance(value, model.Secret) else value for name, value in values.items()
    }
