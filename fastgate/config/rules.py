"""Rules that look at more than one value: references, uniqueness, what has no effect, and what is never used.

Those of one upstream are in rules_upstream.py, those of one route in rules_route.py and rules_split.py.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path as FilePath
from typing import Any

from msgspec.structs import replace

from fastgate.config.addresses import parse_bind
from fastgate.config.cidr_files import read_cidr_file
from fastgate.config.document import Document
from fastgate.config.model import Config, IpFilter, Listener, Plugin, RateLimit, Secret
from fastgate.config.problems import Path, Problems, quote
from fastgate.config.rules_acme import check_acme, with_places
from fastgate.config.rules_admin import check_admin, check_metrics, clash_of, with_files
from fastgate.config.rules_context import Context, every_upstream_of
from fastgate.config.rules_plugins import check_order, check_references, references
from fastgate.config.rules_route import check_route
from fastgate.config.rules_tls import check_listener_tls, check_upstream_tls
from fastgate.config.rules_upstream import check_upstream
from fastgate.config.shadow import check_shadows

TRACING_NEEDS = ("opentelemetry.proto.collector.trace.v1.trace_service_pb2", "httpx")


def check_rules(
    config: Config,
    document: Document,
    problems: Problems,
    *,
    read_endpoints: bool = False,
) -> Config:
    """Reports what is wrong between values; gives the configuration with names and CIDR files filled in, and
    each plugin behind those that it names.

    ``document``: what was written. ``read_endpoints``: endpoints files are read and checked too.
    """
    config = replace(
        config,
        admin=None if config.admin is None else with_files(config.admin, document.folder(("admin",))),
        listeners=tuple(
            check_listener_tls(each, document.folder(("listeners", at)), ("listeners", at), problems)
            for at, each in enumerate(config.listeners)
        ),
        upstreams={
            name: check_upstream_tls(
                replace(upstream, name=name),
                document.folder(("upstreams", name)),
                ("upstreams", name),
                problems,
            )
            for name, upstream in config.upstreams.items()
        },
        acme={name: with_places(acme, document.folder(("acme", name))) for name, acme in config.acme.items()},
        plugins={
            name: _named_plugin(plugin, name, document, problems) for name, plugin in config.plugins.items()
        },
    )
    context = Context(config, document, problems, read_endpoints)
    _check_listeners(context)
    _check_server(context)
    check_acme(context)
    _check_tracing(context)
    for name, upstream in config.upstreams.items():
        check_upstream(context, ("upstreams", name), upstream)
    for name, plugin in config.plugins.items():
        _check_plugin(context, ("plugins", name), plugin)
    config = replace(config, plugins=check_references(context))
    _unique(context, "route", context.routes)
    for path, route in context.routes:
        check_route(context, path, route)
    check_order(context)
    _check_unused(context)
    check_shadows(context.routes, config, problems)
    return _with_redirects(context, config)


def _with_redirects(context: Context, config: Config) -> Config:
    """And the plain listeners that send their clients to those with TLS."""
    added: list[Listener] = []
    for path, listener in context.listeners:
        if listener.tls is None or listener.tls.redirect_from is None:
            continue
        at = (*path, "tls", "redirect_from")
        if context.problems.failed(at):
            continue
        address = parse_bind(listener.tls.redirect_from, {})
        plain = replace(
            listener,
            name=f"{listener.name} (http)",
            bind=listener.tls.redirect_from,
            host=address.host,
            port=address.port,
            unix_path=address.unix_path,
            tls=None,
            redirects_to=listener.name,
            plugins=(),
        )
        others = (*config.listeners, *added)
        if clash := next((other for other in others if clash_of(plain, other) == "same"), None):
            context.problems.error(
                at, f"redirect_from: listener {quote(clash.name)} already has {quote(clash.bind)}"
            )
        added.append(plain)
    return replace(config, listeners=(*config.listeners, *added))


def _named_plugin(plugin: Plugin, name: str, document: Document, problems: Problems) -> Plugin:
    if isinstance(plugin, RateLimit):
        # Text that came from no file belongs to nobody else.
        source = FilePath(problems.file)
        return replace(plugin, name=name, shared_as=str(source.resolve()) if source.is_file() else "")
    if not isinstance(plugin, IpFilter):
        return replace(plugin, name=name)
    lists: dict[str, tuple[str, ...]] = {"allow": plugin.allow, "block": plugin.block}
    for kind, file in (("allow", plugin.allow_file), ("block", plugin.block_file)):
        if file:
            more = read_cidr_file(document, file, ("plugins", name, f"{kind}_file"), problems)
            lists[kind] = tuple(dict.fromkeys((*lists[kind], *more)))
    return replace(plugin, name=name, **lists)


def _unique(context: Context, noun: str, items: list[tuple[Path, Any]]) -> None:
    seen: dict[str, Path] = {}
    for path, item in items:
        if not item.name or context.problems.failed((*path, "name")):
            continue
        if item.name in seen:
            at = (*path, "bind" if noun == "listener" and item.name == item.bind else "name")
            told = f"another {noun} is already named {quote(item.name)}"
            context.problems.error(at, told, context.other(at, seen[item.name]))
        seen.setdefault(item.name, path)


def _check_listeners(context: Context) -> None:
    problems = context.problems
    if not context.listeners and not problems.failed(("listeners",)):
        problems.error((), "no [[listeners]]: there is nowhere to listen", 'add one with `bind = ":8080"`')
    if not context.config.routes and not problems.failed(("routes",)):
        problems.warning((), "no [[routes]]: every request will be answered with 404")
    earlier: list[tuple[Path, Listener]] = []
    duplicates: set[Path] = set()
    for path, listener in context.listeners:
        context.plugins_exist((*path, "plugins"), listener.plugins)
        if problems.failed((*path, "bind")):
            continue
        clashes = [(other, clash_of(listener, other)) for _, other in earlier]
        same = next((each for each in earlier if clash_of(listener, each[1]) == "same"), None)
        overlap = next((other for other, clash in clashes if clash == "overlap"), None)
        if same:
            problems.error(
                (*path, "bind"),
                f"bind: listener {quote(same[1].name)} already has {quote(same[1].bind)}",
                context.other(path, same[0]),
            )
            duplicates.add(path)
        elif overlap:
            problems.warning(
                (*path, "bind"),
                f"bind: {quote(listener.bind)} overlaps {quote(overlap.bind)} of listener "
                f"{quote(overlap.name)}",
            )
        earlier.append((path, listener))
    _unique(context, "listener", [item for item in context.listeners if item[0] not in duplicates])


def _check_server(context: Context) -> None:
    admin, dns, problems = context.config.admin, context.config.dns, context.problems
    if admin is not None and not problems.failed(("admin",)):
        check_admin(context, admin)
    metrics = context.config.metrics
    if metrics is not None and not problems.failed(("metrics",)):
        check_metrics(context, metrics)
    if dns.min_ttl > dns.max_ttl and not problems.failed(("dns",)):
        problems.error(("dns",), "dns: `min_ttl` is longer than `max_ttl`")


def _check_tracing(context: Context) -> None:
    config, problems = context.config, context.problems
    if config.tracing is not None and not all(map(_installed, TRACING_NEEDS)):
        problems.error(
            ("tracing",), "[tracing] needs what is not installed here", "pip install 'fastgate[otlp]'"
        )
    key = config.why.key
    text = key.reveal() if isinstance(key, Secret) else key
    if text is not None and len(text) < 32 and not problems.failed(("why", "key")):
        problems.error(("why", "key"), "why.key: at least 32 characters: who guesses it sees traces")
    if config.tracing is None and context.written(("tracing",)) is None:
        for path, route in context.routes:
            if route.trace_sample is not None:
                context.no_effect((*path, "trace_sample"), "there is no table [tracing]")


def _installed(module: str) -> bool:
    # Imported, not only looked for: what a worker imports while it serves stops it for a moment.
    try:
        import_module(module)
    except ImportError:
        return False
    return True


def _check_plugin(context: Context, path: Path, plugin: Plugin) -> None:
    if isinstance(plugin, IpFilter):
        if not (plugin.allow or plugin.block or context.problems.failed(path)):
            context.problems.warning(path, "an ip-filter without `allow` and `block` lets everyone in")
    elif isinstance(plugin, RateLimit):
        if "global" in plugin.key and len(plugin.key) > 1:
            context.problems.warning((*path, "key"), 'key: "global" adds nothing beside other keys')
        _check_limit_scope(context, path, plugin)
        if plugin.cost > plugin.burst and not context.problems.failed(path):
            context.problems.error(
                (*path, "cost"),
                f"cost: {plugin.cost} is more than `burst` ({plugin.burst}), so no request would ever pass",
            )


def _check_limit_scope(context: Context, path: Path, limit: RateLimit) -> None:
    problems, redis = context.problems, limit.redis
    if limit.scope != "redis":
        for key in ("redis", "on_error", "lease"):
            if context.written((*path, key)) is not None:
                context.no_effect((*path, key), f'`scope` is "{limit.scope}"', 'write scope = "redis"')
        if limit.algorithm != "token-bucket":
            problems.error(
                (*path, "algorithm"),
                f"algorithm: {quote(limit.algorithm)} is Redis' alone",
                'write scope = "redis", with `redis`',
            )
    elif redis is None and not problems.failed((*path, "redis")):
        problems.error(path, 'scope: "redis" needs the table `redis`, which says where it is')
    if redis is not None:
        context.check_redis((*path, "redis"), redis)
    if (limit.algorithm == "quota") != bool(limit.quota) and not problems.failed((*path, "quota")):
        problems.error(path, '`quota` and algorithm = "quota" go together')
    if limit.lease and limit.algorithm != "token-bucket":
        context.no_effect((*path, "lease"), "only a token bucket lends tokens")


def _check_unused(context: Context) -> None:
    if context.incomplete:
        return
    config = context.config
    if any(context.problems.failed(("plugins", name)) for name in context.plugin_names):
        return
    named = [one for name, plugin in config.plugins.items() for one in references(name, plugin)]
    upstreams = {name for route in config.routes for name in every_upstream_of(route)}
    upstreams |= {one.name for one in named if one.noun == "upstream"}
    for name in config.upstreams:
        here: Path = ("upstreams", name)
        if (
            name not in upstreams
            and "upstream" not in context.misspelt
            and not context.document.included(here)
        ):
            context.problems.warning(here, f"upstream {quote(name)} is used by no route", at_key=True)
    plugins = {name for listener in config.listeners for name in listener.plugins}
    plugins |= {name for route in config.routes for name in route.plugins}
    plugins |= {one.name for one in named if one.noun == "plugin"}
    for name in config.plugins:
        here = ("plugins", name)
        if name not in plugins and "plugin" not in context.misspelt and not context.document.included(here):
            context.problems.warning(
                here, f"plugin {quote(name)} is used by no route and no listener", at_key=True
            )
