"""Rules of one route: its action, its match, and what rewrites, rate limits and retries take from them."""

from __future__ import annotations

from fastgate.config import reflect
from fastgate.config.decode import label_of
from fastgate.config.model import HeaderRules, RateLimit, Rewrite, Route
from fastgate.config.problems import Path, either, quote
from fastgate.config.rules_aggregate import check_aggregate
from fastgate.config.rules_context import Context, segment_hint, upstreams_of
from fastgate.config.rules_split import check_fallback, check_fault, check_mirror, check_split
from fastgate.config.rules_upstream import check_retry
from fastgate.config.texts import NORMAL_FORM, normal_path, segment_names
from fastgate.config.units import format_duration

# What has no effect on routes that ask no upstream.
_OF_UPSTREAMS = ("request_headers", "upgrade", "priority", "retry", "fallback", "fault", "mirror")


def check_route(context: Context, path: Path, route: Route) -> None:
    for i, name in enumerate(route.listeners):
        if not context.problems.failed(("listeners",)):
            context.exists((*path, "listeners", i), "listener", name, context.listener_names)
    if route.upstream is not None:
        context.exists((*path, "upstream"), "upstream", route.upstream, context.upstream_names)
    if route.split is not None:
        check_split(context, (*path, "split"), route.split)
    if route.aggregate is not None:
        check_aggregate(context, (*path, "aggregate"), route.aggregate, route)
    if route.fallback is not None:
        check_fallback(context, (*path, "fallback"), route.fallback, route)
    if route.mirror is not None:
        check_mirror(context, (*path, "mirror"), route.mirror, route)
    if route.fault is not None:
        check_fault(context, (*path, "fault"), route.fault)
    _check_retries(context, path, route)
    context.plugins_exist((*path, "plugins"), route.plugins)
    _check_action(context, path, route)
    _check_match(context, path, route)
    _check_targets(context, path, route)
    for name in ("request_headers", "response_headers"):
        _check_header_rules(context, (*path, name), getattr(route, name))


def _check_action(context: Context, path: Path, route: Route) -> None:
    problems = context.problems
    actions = ("upstream", "split", "aggregate", "redirect", "respond")
    given = [a for a in actions if getattr(route, a) is not None or problems.failed((*path, a))]
    if not given:
        problems.error(path, f"route {quote(route.name or '')} has no action", f"give it {either(actions)}")
    elif len(given) > 1:
        problems.error(
            (*path, given[1]),
            f"{given[1]}: the route already has {quote(given[0])}, and takes one action only",
            at_key=True,
        )
    if given and given[0] not in ("upstream", "split"):
        if route.rewrite is not None:
            problems.error(
                (*path, "rewrite"),
                f"rewrite: only a route with `upstream` or `split` rewrites, this one has `{given[0]}`",
                at_key=True,
            )
        keys = reflect.keys_of(Route)
        for name in _OF_UPSTREAMS:
            if getattr(route, name) != keys[name].default:
                context.no_effect((*path, name), f"this route has `{given[0]}`, no upstream")


def _check_retries(context: Context, path: Path, route: Route) -> None:
    if route.retry is not None:
        check_retry(context, (*path, "retry"), route.retry)
    total = route.timeouts.total
    if total is None or context.problems.failed((*path, "timeouts")):
        return
    if route.retry is not None:
        limit = route.retry.per_try_timeout
        if limit is not None and limit >= total and not context.problems.failed((*path, "retry")):
            context.problems.warning(
                (*path, "retry", "per_try_timeout"),
                f"retry.per_try_timeout: {format_duration(limit)} leaves no time for a second try within "
                f"`timeouts.total` of {format_duration(total)}",
            )
        return
    for name in dict.fromkeys(upstreams_of(route)):
        upstream = context.config.upstreams.get(name)
        retry = upstream.retry if upstream is not None else None
        if retry is not None and retry.per_try_timeout is not None and retry.per_try_timeout >= total:
            context.problems.warning(
                (*path, "timeouts", "total"),
                f"timeouts.total: {format_duration(total)} leaves no time for a second try: "
                f"`retry.per_try_timeout` of upstream {quote(name)} is "
                f"{format_duration(retry.per_try_timeout)}",
            )


def _check_match(context: Context, path: Path, route: Route) -> None:
    given = [name for name in ("path", "prefix", "regex") if getattr(route.match, name) is not None]
    if len(given) > 1:
        context.problems.error(
            (*path, "match", given[1]),
            f"match.{given[1]}: the match already has {quote(given[0])}; give one of path, prefix and regex",
            at_key=True,
        )
    for name in ("path", "prefix"):
        text = getattr(route.match, name)
        if text is None or context.problems.failed((*path, "match", name)):
            continue
        normal = normal_path(text)
        if normal != text:
            context.problems.warning(
                (*path, "match", name),
                f"match.{name}: {quote(text)} is not in the normal form of requests ({NORMAL_FORM})",
                f"did you mean {quote(normal)}?",
            )


def _check_targets(context: Context, path: Path, route: Route) -> None:
    """What rewrites, redirects and rate limits take from the match must be there."""
    match_failed = context.problems.failed((*path, "match"))
    for name in ("rewrite", "redirect"):
        target = getattr(route, name)
        if target is None or context.problems.failed((*path, name)):
            continue
        here = (*path, name)
        ways = [w for w in ("strip_prefix", "prefix", "path") if getattr(target, w, None)]
        if len(ways) > 1:
            context.problems.error(
                (*here, ways[1]),
                f"{name}.{ways[1]}: {quote(ways[0])} is given already, and one is enough",
                at_key=True,
            )
        if ways and ways[0] != "path" and route.match.prefix is None and not match_failed:
            context.problems.error(
                (*here, ways[0]),
                f"{name}.{ways[0]}: the match has no `prefix` that could be replaced",
                at_key=True,
            )
        if target.path is not None and not match_failed:
            _check_captures(context, (*here, "path"), target.path, route)
    if route.redirect is not None and not context.problems.failed((*path, "redirect")):
        given = (
            route.redirect.scheme,
            route.redirect.host,
            route.redirect.port,
            route.redirect.path,
            route.redirect.prefix,
        )
        if all(part is None for part in given):
            context.problems.error(
                (*path, "redirect"),
                "redirect: it leads back to the same URL",
                "give scheme, host, port, path or prefix",
            )
    rewrite_failed = context.problems.failed((*path, "rewrite"))
    if route.rewrite is not None and not rewrite_failed and route.rewrite == Rewrite():
        context.problems.warning((*path, "rewrite"), "rewrite has no effect: it says nothing to change")
    if route.respond is not None and route.respond.body and route.respond.status in (204, 205, 304):
        context.problems.error(
            (*path, "respond", "body"),
            f"respond.body: a {route.respond.status} response has no body (RFC 9110 15)",
        )
    if not match_failed:
        _check_rate_keys(context, path, route)


def _check_captures(context: Context, path: Path, template: str, route: Route) -> None:
    known = segment_names(route.match.path or "")
    for name in segment_names(template):
        if name not in known:
            context.problems.error(
                path, f"{label_of(path)}: match.path has no segment {{{name}}}", segment_hint(name, known)
            )


def _check_rate_keys(context: Context, path: Path, route: Route) -> None:
    known = segment_names(route.match.path or "")
    for i, plugin_name in enumerate(route.plugins):
        plugin = context.config.plugins.get(plugin_name)
        if not isinstance(plugin, RateLimit):
            continue
        for key in plugin.key:
            kind, _, name = key.partition(":")
            if kind == "path" and name not in known:
                context.problems.error(
                    (*path, "plugins", i),
                    f"plugins[{i}]: {quote(plugin_name)} counts by {quote(key)}, but match.path "
                    f"has no segment {{{name}}}",
                    segment_hint(name, known),
                )


def _check_header_rules(context: Context, path: Path, rules: HeaderRules) -> None:
    changed = {name.lower(): name for name in (*rules.set, *rules.add)}
    for i, name in enumerate(rules.remove):
        if name.lower() in changed:
            context.problems.warning(
                (*path, "remove", i), f"{label_of(path)}.remove[{i}]: {quote(name)} is also set or added"
            )
    for name in rules.add:
        if name.lower() in {other.lower() for other in rules.set}:
            context.problems.warning(
                (*path, "add", name), f"{label_of(path)}.add: {quote(name)} is also set", at_key=True
            )
