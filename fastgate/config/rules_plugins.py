"""Rules of plugins: what they name must be there, none may lead to itself, and what asks for consumers stands
behind what knows them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from fastgate.config import reflect
from fastgate.config.decode import label_of
from fastgate.config.model import Aggregate, IpFilter, Plugin, PluginUse, RateLimit
from fastgate.config.part_graph import texts_of
from fastgate.config.problems import Path, quote
from fastgate.config.rules_context import Context

_NOUNS = {"upstream-ref": "upstream", "plugin-ref": "plugin", "listener-ref": "listener"}


class Reference(NamedTuple):
    """A name in the configuration of a plugin, and where it stands."""

    path: Path
    noun: str
    name: str


def references(name: str, plugin: Plugin) -> list[Reference]:
    """What the own keys of the plugin ``name`` name: upstreams, listeners and other plugins."""
    if not isinstance(plugin, PluginUse) or plugin.config is None:
        return []
    return list(_of_table(plugin.config, ("plugins", name)))


def _of_table(table: Any, path: Path) -> Iterator[Reference]:
    for key in reflect.keys_of(type(table)).values():
        yield from _of(key.node, getattr(table, key.name), (*path, key.name))


def _of(node: reflect.Node, value: Any, path: Path) -> Iterator[Reference]:
    if value is None:
        return
    match node:
        case reflect.Scalar(form, _) if form in _NOUNS and isinstance(value, str) and value:
            yield Reference(path, _NOUNS[form], value)
        case reflect.Table() | reflect.Tagged():
            yield from _of_table(value, path)
        case reflect.Many(item, _, _):
            for i, one in enumerate(value):
                yield from _of(item, one, (*path, i))
        case reflect.Mapping(inner, _):
            for name, one in value.items():
                yield from _of(inner, one, (*path, name))


def check_references(context: Context) -> dict[str, Plugin]:
    """Reports names that are not there, and circles; gives the plugins, each behind those that it names."""
    plugins = context.config.plugins
    known = {
        "upstream": context.upstream_names,
        "plugin": context.plugin_names,
        "listener": context.listener_names,
    }
    named: dict[str, list[Reference]] = {}
    for name, plugin in plugins.items():
        for one in references(name, plugin):
            context.exists(one.path, one.noun, one.name, known[one.noun])
            if one.noun == "plugin" and _can_be_named(context, one):
                named.setdefault(name, []).append(one)
    ordered: dict[str, Plugin] = {}
    for name in plugins:
        _put(context, name, named, ordered, [])
    return ordered


def _can_be_named(context: Context, reference: Reference) -> bool:
    plugin = context.config.plugins.get(reference.name)
    if isinstance(plugin, RateLimit | IpFilter):
        kind = "a rate-limit" if isinstance(plugin, RateLimit) else "an ip-filter"
        context.problems.error(
            reference.path,
            f"{label_of(reference.path)}: {quote(reference.name)} is {kind}, which no other plugin can use",
            "name it among the `plugins` of a route or listener",
        )
    return isinstance(plugin, PluginUse)


def _put(
    context: Context,
    name: str,
    named: dict[str, list[Reference]],
    ordered: dict[str, Plugin],
    way: list[str],
) -> None:
    if name in ordered:
        return
    way = [*way, name]
    for one in named.get(name, ()):
        if one.name in way:
            circle = " -> ".join(map(quote, [*way[way.index(one.name) :], one.name]))
            what = "a plugin cannot name itself" if one.name == name else f"a circle: {circle}"
            context.problems.error(one.path, f"{label_of(one.path)}: {what}")
        else:
            _put(context, one.name, named, ordered, way)
    ordered[name] = context.config.plugins[name]


def check_order(context: Context) -> None:
    """Warns where a limit or filter for some consumers, or an aggregation that names them, runs before any
    plugin can have told who calls."""
    for path, listener in context.listeners:
        for i, name in enumerate(listener.plugins):
            if not _tells(context, listener.plugins[:i]):
                _warn_of(context, (*path, "plugins"), name)
    for path, route in context.routes:
        listeners = [
            listener
            for _, listener in context.listeners
            if not route.listeners or listener.name in route.listeners
        ]
        told = all(_tells(context, listener.plugins) for listener in listeners)
        for i, name in enumerate(route.plugins):
            if not told and not _tells(context, route.plugins[:i]):
                _warn_of(context, (*path, "plugins"), name)
        if route.aggregate is not None and not told and not _tells(context, route.plugins):
            _warn_of_parts(context, (*path, "aggregate", "parts"), route.aggregate)


def _tells(context: Context, names: Sequence[str]) -> bool:
    """Whether one of them may set the consumer; one that is not known any more may."""
    native = (RateLimit, IpFilter)
    return any(not isinstance(context.config.plugins.get(name), native) for name in names)


def _warn_of(context: Context, path: Path, name: str) -> None:
    plugin = context.config.plugins.get(name)
    if isinstance(plugin, RateLimit | IpFilter) and (plugin.consumers or plugin.plan):
        context.problems.warning(
            context.item(path, name),
            f"plugins: {quote(name)} is for some consumers, and no plugin before it can tell who calls",
            "name it behind the one that does",
        )


def _warn_of_parts(context: Context, path: Path, aggregate: Aggregate) -> None:
    """Of the first text alone: the others have the same reason."""
    if context.problems.failed(path):
        return
    for name, part in aggregate.parts.items():
        for text in texts_of(part):
            for one in text.placeholders():
                if one.source in ("consumer", "claim"):
                    at = (*path, name, *text.path)
                    context.problems.warning(
                        at,
                        f"{label_of(at)}: {{{one.source}}} has no value, since no plugin can tell who calls",
                        "name one in `plugins`, such as jwt or api-key",
                    )
                    return
