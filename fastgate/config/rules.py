"""Rules that look at more than one value: references, uniqueness, actions, captures, and what is never
used."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable
from pathlib import Path as FilePath
from typing import Any

from msgspec.structs import replace

from fastgate.config.cidr_files import read_cidr_file
from fastgate.config.decode import label_of
from fastgate.config.model import (
    Config,
    HeaderRules,
    IpFilter,
    Listener,
    Plugin,
    Pool,
    RateLimit,
    Rewrite,
    Route,
    Upstream,
)
from fastgate.config.problems import Path, Problems, did_you_mean, either, quote
from fastgate.config.shadow import check_shadows
from fastgate.config.texts import NORMAL_FORM, normal_path, segment_names


def check_rules(config: Config, document: dict[str, Any], base: FilePath, problems: Problems) -> Config:
    """Reports what is wrong between values; gives the configuration with names and CIDR files filled in.

    ``document`` is what was parsed: names that are in the file count as defined even where their table has
    errors.
    """
    config = replace(
        config,
        upstreams={name: replace(upstream, name=name) for name, upstream in config.upstreams.items()},
        plugins={
            name: _named_plugin(plugin, name, base, problems) for name, plugin in config.plugins.items()
        },
    )
    rules = _Rules(config, document, problems)
    rules.check()
    return config


def _named_plugin(plugin: Plugin, name: str, base: FilePath, problems: Problems) -> Plugin:
    if isinstance(plugin, RateLimit):
        return replace(plugin, name=name)
    lists: dict[str, tuple[str, ...]] = {"allow": plugin.allow, "block": plugin.block}
    for kind, file in (("allow", plugin.allow_file), ("block", plugin.block_file)):
        if file:
            more = read_cidr_file(base, file, ("plugins", name, f"{kind}_file"), problems)
            lists[kind] = tuple(dict.fromkeys((*lists[kind], *more)))
    return replace(plugin, name=name, **lists)


def _names(document: dict[str, Any], table: str) -> tuple[str, ...]:
    value = document.get(table)
    return tuple(value) if isinstance(value, dict) else ()


class _Rules:
    def __init__(self, config: Config, document: dict[str, Any], problems: Problems) -> None:
        self._config = config
        self._problems = problems
        self._upstream_names = _names(document, "upstreams")
        self._plugin_names = _names(document, "plugins")
        self._used_plugins: set[str] = set()
        # Kinds of names that were not found, and arrays with items that are no tables: what then seems unused
        # is more likely misspelt where it is used.
        self._misspelt: set[str] = set()
        self._incomplete: set[str] = set()
        # A table that could not be decoded is missing from the tuples, and then positions and indexes differ.
        self._listeners = self._indexed("listeners", config.listeners, document)
        self._routes = self._indexed("routes", config.routes, document)
        self._listener_names = tuple(listener.name for _, listener in self._listeners)

    def _indexed(self, key: str, items: tuple[Any, ...], document: dict[str, Any]) -> list[tuple[Path, Any]]:
        written = document.get(key)
        places = (
            [i for i, v in enumerate(written) if isinstance(v, dict)] if isinstance(written, list) else []
        )
        if isinstance(written, list) and len(places) != len(written):
            self._incomplete.add(key)
        return [((key, i), item) for i, item in zip(places, items, strict=True)] if items else []

    def check(self) -> None:
        self._check_listeners()
        for name, upstream in self._config.upstreams.items():
            self._check_upstream(("upstreams", name), upstream)
        for name, plugin in self._config.plugins.items():
            self._check_plugin(("plugins", name), plugin)
        self._unique("routes", "route", self._routes)
        for path, route in self._routes:
            self._check_route(path, route)
        self._check_unused()
        check_shadows(self._routes, self._config, self._problems)

    def _unique(self, key: str, noun: str, items: list[tuple[Path, Any]]) -> None:
        seen: set[str] = set()
        for path, item in items:
            if not item.name or self._problems.failed((*path, "name")):
                continue
            if item.name in seen:
                at = (*path, "bind" if noun == "listener" and item.name == item.bind else "name")
                self._problems.error(at, f"another {noun} is already named {quote(item.name)}")
            seen.add(item.name)

    def _check_listeners(self) -> None:
        if not self._listeners and not self._problems.failed(("listeners",)):
            self._problems.error(
                (), "no [[listeners]]: there is nowhere to listen", 'add one with `bind = ":8080"`'
            )
        if not self._config.routes and not self._problems.failed(("routes",)):
            self._problems.warning((), "no [[routes]]: every request will be answered with 404")
        earlier: list[tuple[Path, Listener]] = []
        duplicates: set[Path] = set()
        for path, listener in self._listeners:
            self._plugins_exist((*path, "plugins"), listener.plugins)
            if self._problems.failed((*path, "bind")):
                continue
            clashes = [(other, _clash(listener, other)) for _, other in earlier]
            same = next((other for other, clash in clashes if clash == "same"), None)
            overlap = next((other for other, clash in clashes if clash == "overlap"), None)
            if same:
                self._problems.error(
                    (*path, "bind"), f"bind: listener {quote(same.name)} already has {quote(same.bind)}"
                )
                duplicates.add(path)
            elif overlap:
                self._problems.warning(
                    (*path, "bind"),
                    f"bind: {quote(listener.bind)} overlaps {quote(overlap.bind)} of listener "
                    f"{quote(overlap.name)}",
                )
            earlier.append((path, listener))
        self._unique("listeners", "listener", [item for item in self._listeners if item[0] not in duplicates])

    def _check_upstream(self, path: Path, upstream: Upstream) -> None:
        if self._problems.failed((*path, "endpoints")):
            return
        seen: set[str] = set()
        for i, endpoint in enumerate(upstream.endpoints):
            if endpoint.address in seen:
                self._problems.warning(
                    (*path, "endpoints", i),
                    f"endpoints[{i}]: {quote(endpoint.address)} is listed twice",
                    "give it a `weight` instead",
                )
            seen.add(endpoint.address)
        pool = upstream.pool
        if pool.max_connections < pool.max_idle != Pool().max_idle and not self._problems.failed(
            (*path, "pool")
        ):
            self._problems.warning(
                (*path, "pool", "max_idle"),
                f"pool.max_idle: {pool.max_idle} unused connections are never reached with "
                f"`max_connections` {pool.max_connections}",
            )

    def _check_plugin(self, path: Path, plugin: Plugin) -> None:
        if isinstance(plugin, IpFilter):
            if not (plugin.allow or plugin.block or self._problems.failed(path)):
                self._problems.warning(path, "an ip-filter without `allow` and `block` lets everyone in")
        elif "global" in plugin.key and len(plugin.key) > 1:
            self._problems.warning((*path, "key"), 'key: "global" adds nothing beside other keys')

    def _check_route(self, path: Path, route: Route) -> None:
        for i, name in enumerate(route.listeners):
            if name not in self._listener_names and not self._problems.failed(("listeners",)):
                self._unknown_name((*path, "listeners", i), "listener", name, self._listener_names)
        if route.upstream is not None and route.upstream not in self._upstream_names:
            self._unknown_name((*path, "upstream"), "upstream", route.upstream, self._upstream_names)
        self._plugins_exist((*path, "plugins"), route.plugins)
        self._check_action(path, route)
        self._check_match(path, route)
        self._check_targets(path, route)
        for name in ("request_headers", "response_headers"):
            self._check_header_rules((*path, name), getattr(route, name))

    def _unknown_name(self, path: Path, noun: str, name: str, known: Collection[str]) -> None:
        self._misspelt.add(noun)
        hint = did_you_mean(name, known)
        if not hint:
            hint = (
                f"there is {either(sorted(known)[:10], 'and')}" if known else f"the file defines no {noun}s"
            )
        self._problems.error(path, f"{label_of(path)}: no {noun} is named {quote(name)}", hint)

    def _plugins_exist(self, path: Path, names: Iterable[str]) -> None:
        for i, name in enumerate(names):
            self._used_plugins.add(name)
            if name not in self._plugin_names:
                self._unknown_name((*path, i), "plugin", name, self._plugin_names)

    def _check_action(self, path: Path, route: Route) -> None:
        actions = ("upstream", "redirect", "respond")
        given = [a for a in actions if getattr(route, a) is not None or self._problems.failed((*path, a))]
        if not given:
            self._problems.error(
                path, f"route {quote(route.name or '')} has no action", f"give it {either(actions)}"
            )
        elif len(given) > 1:
            self._problems.error(
                (*path, given[1]),
                f"{given[1]}: the route already has {quote(given[0])}, and takes one action only",
                at_key=True,
            )
        if given and given[0] != "upstream":
            if route.rewrite is not None:
                self._problems.error(
                    (*path, "rewrite"),
                    f"rewrite: only a route with `upstream` rewrites, this one has `{given[0]}`",
                    at_key=True,
                )
            for name in ("request_headers", "upgrade"):
                if getattr(route, name) not in ((), HeaderRules()):
                    self._problems.warning(
                        (*path, name),
                        f"{name} has no effect: this route has `{given[0]}`, no upstream",
                        at_key=True,
                    )

    def _check_match(self, path: Path, route: Route) -> None:
        given = [name for name in ("path", "prefix", "regex") if getattr(route.match, name) is not None]
        if len(given) > 1:
            self._problems.error(
                (*path, "match", given[1]),
                f"match.{given[1]}: the match already has {quote(given[0])}; give one of path, prefix "
                f"and regex",
                at_key=True,
            )
        for name in ("path", "prefix"):
            text = getattr(route.match, name)
            if text is None or self._problems.failed((*path, "match", name)):
                continue
            normal = normal_path(text)
            if normal != text:
                self._problems.warning(
                    (*path, "match", name),
                    f"match.{name}: {quote(text)} is not in the normal form of requests ({NORMAL_FORM})",
                    f"did you mean {quote(normal)}?",
                )

    def _check_targets(self, path: Path, route: Route) -> None:
        """What rewrites, redirects and rate limits take from the match must be there."""
        match_failed = self._problems.failed((*path, "match"))
        for name in ("rewrite", "redirect"):
            target = getattr(route, name)
            if target is None or self._problems.failed((*path, name)):
                continue
            here = (*path, name)
            ways = [w for w in ("strip_prefix", "prefix", "path") if getattr(target, w, None)]
            if len(ways) > 1:
                self._problems.error(
                    (*here, ways[1]),
                    f"{name}.{ways[1]}: {quote(ways[0])} is given already, and one is enough",
                    at_key=True,
                )
            if ways and ways[0] != "path" and route.match.prefix is None and not match_failed:
                self._problems.error(
                    (*here, ways[0]),
                    f"{name}.{ways[0]}: the match has no `prefix` that could be replaced",
                    at_key=True,
                )
            if target.path is not None and not match_failed:
                self._check_captures((*here, "path"), target.path, route)
        if route.redirect is not None and not self._problems.failed((*path, "redirect")):
            given = (
                route.redirect.scheme,
                route.redirect.host,
                route.redirect.port,
                route.redirect.path,
                route.redirect.prefix,
            )
            if all(part is None for part in given):
                self._problems.error(
                    (*path, "redirect"),
                    "redirect: it leads back to the same URL",
                    "give scheme, host, port, path or prefix",
                )
        rewrite_failed = self._problems.failed((*path, "rewrite"))
        if route.rewrite is not None and not rewrite_failed and route.rewrite == Rewrite():
            self._problems.warning((*path, "rewrite"), "rewrite has no effect: it says nothing to change")
        if route.respond is not None and route.respond.body and route.respond.status in (204, 205, 304):
            self._problems.error(
                (*path, "respond", "body"),
                f"respond.body: a {route.respond.status} response has no body (RFC 9110 15)",
            )
        if not match_failed:
            self._check_rate_keys(path, route)

    def _check_captures(self, path: Path, template: str, route: Route) -> None:
        known = segment_names(route.match.path or "")
        for name in segment_names(template):
            if name not in known:
                self._problems.error(
                    path, f"{label_of(path)}: match.path has no segment {{{name}}}", _braced_hint(name, known)
                )

    def _check_rate_keys(self, path: Path, route: Route) -> None:
        known = segment_names(route.match.path or "")
        for i, plugin_name in enumerate(route.plugins):
            plugin = self._config.plugins.get(plugin_name)
            if not isinstance(plugin, RateLimit):
                continue
            for key in plugin.key:
                kind, _, name = key.partition(":")
                if kind == "path" and name not in known:
                    self._problems.error(
                        (*path, "plugins", i),
                        f"plugins[{i}]: {quote(plugin_name)} counts by {quote(key)}, but match.path "
                        f"has no segment {{{name}}}",
                        _braced_hint(name, known),
                    )

    def _check_header_rules(self, path: Path, rules: HeaderRules) -> None:
        changed = {name.lower(): name for name in (*rules.set, *rules.add)}
        for i, name in enumerate(rules.remove):
            if name.lower() in changed:
                self._problems.warning(
                    (*path, "remove", i), f"{label_of(path)}.remove[{i}]: {quote(name)} is also set or added"
                )
        for name in rules.add:
            if name.lower() in {other.lower() for other in rules.set}:
                self._problems.warning(
                    (*path, "add", name), f"{label_of(path)}.add: {quote(name)} is also set", at_key=True
                )

    def _check_unused(self) -> None:
        if self._incomplete:
            return
        used = {route.upstream for route in self._config.routes}
        for name in self._config.upstreams:
            if name not in used and "upstream" not in self._misspelt:
                self._problems.warning(
                    ("upstreams", name), f"upstream {quote(name)} is used by no route", at_key=True
                )
        for name in self._config.plugins:
            if name not in self._used_plugins and "plugin" not in self._misspelt:
                self._problems.warning(
                    ("plugins", name),
                    f"plugin {quote(name)} is used by no route and no listener",
                    at_key=True,
                )


def _braced_hint(name: str, known: Collection[str]) -> str:
    hint = did_you_mean(name, known)
    if hint:
        return "did you mean {" + hint.removeprefix('did you mean "').removesuffix('"?') + "}?"
    return f"it has {', '.join('{' + k + '}' for k in known)}" if known else ""


def _clash(one: Listener, other: Listener) -> str:
    """ "same" socket, "overlap" (one of them on every address of the port), or nothing."""
    if one.unix_path is not None or other.unix_path is not None:
        return "same" if one.unix_path == other.unix_path else ""
    if one.port != other.port or one.port == 0:
        return ""
    first, second = _canonical(one.host), _canonical(other.host)
    if first == second:
        return "same"
    return "overlap" if {"", "::", "0.0.0.0"} & {first, second} else ""


def _canonical(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host
