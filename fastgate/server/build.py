"""From the checked configuration to the objects of the compiled core that run it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from fastgate import _core
from fastgate.config import Config, model
from fastgate.upstreams.resolve import Resolver

__all__ = ["Snapshot", "build"]

# What a plugin's buckets and lists live in; a rate limit's filter is made for each route.
Plugin = _core.RateLimiter | _core.IpFilter


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The configuration in force, compiled. ``listeners`` go with ``config.listeners``, in the same order."""

    config: Config
    listeners: tuple[_core.Listener, ...]
    upstreams: dict[str, _core.Upstream]
    plugins: dict[str, Plugin]


def route_tables(config: Config) -> list[_core.RouteTable]:
    """One for each listener: the costly part of `build`, and the one that may run in any thread."""
    return [_core.RouteTable(_routes_of(listener, config)) for listener in config.listeners]


def _routes_of(listener: model.Listener, config: Config) -> list[tuple[int, model.Route]]:
    return [
        (index, route)
        for index, route in enumerate(config.routes)
        if not route.listeners or listener.name in route.listeners
    ]


def build(
    config: Config,
    worker: _core.Worker,
    resolver: Resolver,
    previous: Snapshot | None = None,
    tables: list[_core.RouteTable] | None = None,
) -> Snapshot:
    """Compiles a configuration for one worker, beside the one that runs: nothing of that is changed.

    ``previous``: the one that runs, or None. Its upstreams and plugins are taken over, with their
    connections, buckets and counts, where the configuration of that name is equal. ``tables``: those of
    ``route_tables``, if they are there already. Raises ``_core.SlotsFull`` when there are more new names of
    routes or upstreams than the counters have room for; beside that nothing is expected to fail: the
    configuration has been checked.
    """
    route_slots, upstream_slots = worker.counters.assign(
        [route.name for route in config.routes], list(config.upstreams)
    )
    upstreams: dict[str, _core.Upstream] = {}
    for (name, upstream), slot in zip(config.upstreams.items(), upstream_slots, strict=True):
        if previous is not None and previous.config.upstreams.get(name) == upstream:
            upstreams[name] = previous.upstreams[name]
        else:
            upstreams[name] = _upstream(slot, upstream, worker, resolver)
    plugins: dict[str, Plugin] = {}
    for name, plugin in config.plugins.items():
        if previous is not None and previous.config.plugins.get(name) == plugin:
            plugins[name] = previous.plugins[name]
        else:
            plugins[name] = _plugin(name, plugin)
    listeners = tuple(
        _listener(listener, table, config, route_slots, upstreams, plugins)
        for listener, table in zip(config.listeners, tables or route_tables(config), strict=True)
    )
    return Snapshot(config, listeners, upstreams, plugins)


def _upstream(
    slot: _core.Slot, upstream: model.Upstream, worker: _core.Worker, resolver: Resolver
) -> _core.Upstream:
    built = _core.Upstream(
        slot=slot,
        name=upstream.name,
        weights=[endpoint.weight for endpoint in upstream.endpoints],
        connect_ns=upstream.timeouts.connect,
        head_ns=upstream.timeouts.head,
        idle_ns=upstream.timeouts.idle,
        header_bytes=upstream.limits.header_bytes,
        header_count=upstream.limits.header_count,
        body_limit=upstream.limits.body,
        host=upstream.host,
    )
    for endpoint in upstream.endpoints:
        built.add(
            _core.Endpoint(
                worker,
                built,
                address=endpoint.address,
                host=endpoint.host or None,
                port=endpoint.port,
                unix_path=endpoint.unix_path,
                resolver=resolver if endpoint.host and not _is_address(endpoint.host) else None,
                max_open=upstream.pool.max_connections,
                max_idle=upstream.pool.max_idle,
                max_waiting=upstream.pool.queue,
                idle_ns=upstream.pool.idle_timeout,
                queue_ns=upstream.pool.queue_timeout,
            )
        )
    return built


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _plugin(name: str, plugin: model.Plugin) -> Plugin:
    if isinstance(plugin, model.RateLimit):
        return _core.RateLimiter(plugin)
    return _core.IpFilter(name, _core.IpFilterCore(plugin))


def _listener(
    listener: model.Listener,
    table: _core.RouteTable,
    config: Config,
    slots: list[_core.Slot],
    upstreams: dict[str, _core.Upstream],
    plugins: dict[str, Plugin],
) -> _core.Listener:
    # The table answers with the route's place in the file; routes of other listeners stay None there.
    routes: list[_core.Route | None] = [None] * len(config.routes)
    for index, route in _routes_of(listener, config):
        routes[index] = _route(slots[index], route, listener, upstreams, plugins)
    return _core.Listener(
        name=listener.name,
        table=table,
        routes=tuple(routes),
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
    )


def _route(
    slot: _core.Slot,
    route: model.Route,
    listener: model.Listener,
    upstreams: dict[str, _core.Upstream],
    plugins: dict[str, Plugin],
) -> _core.Route:
    names = _core.parse_path_pattern(route.match.path).names if route.match.path is not None else ()
    filters: list[_core.NativeFilter] = []
    for name in dict.fromkeys([*listener.plugins, *route.plugins]):
        plugin = plugins[name]
        if isinstance(plugin, _core.RateLimiter):
            filters.append(_core.RateLimitFilter(name, plugin, route.name, names))
        else:
            filters.append(plugin)
    rewrite = route.rewrite
    path_changes = rewrite is not None and (
        rewrite.strip_prefix or rewrite.prefix is not None or rewrite.path is not None
    )
    return _core.Route(
        slot=slot,
        name=route.name,
        upstream=None if route.upstream is None else upstreams[route.upstream],
        redirect=None if route.redirect is None else _core.Redirector(route.match, route.redirect),
        respond=None if route.respond is None else _respond(route.respond),
        filters=tuple(filters),
        rewrite=_core.path_rewrite_of(route) if path_changes else None,
        rewrite_host=None if rewrite is None else rewrite.host,
        request_rules=_rules(route.request_headers),
        response_rules=_rules(route.response_headers),
        upgrades=route.upgrade,
        keep_encoded_slash=route.encoded_slashes == "keep",
        body_limit=-2 if route.limits.body is None else route.limits.body,
        total_ns=-1 if route.timeouts.total is None else route.timeouts.total,
        tunnel_idle_ns=route.timeouts.tunnel_idle,
        event_idle_ns=route.timeouts.event_stream_idle,
    )


def _respond(respond: model.Respond) -> tuple[int, bytes, bytes]:
    body = respond.body.encode()
    lines = [f"{name}: {value}\r\n" for name, value in respond.headers.items()]
    if body:
        lines.insert(0, f"Content-Type: {respond.content_type}\r\n")
    return respond.status, "".join(lines).encode("latin-1"), body


def _rules(rules: model.HeaderRules) -> _core.HeaderRules | None:
    if not (rules.set or rules.add or rules.remove):
        return None
    return _core.HeaderRules(_revealed(rules.set), _revealed(rules.add), rules.remove)


def _revealed(values: dict[str, str | model.Secret]) -> dict[str, str]:
    return {
        name: value.reveal() if isinstance(value, model.Secret) else value for name, value in values.items()
    }
