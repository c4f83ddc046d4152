"""The tables of docs/configuration.md, made from the model, and those of docs/plugins/*.md, made from the
configuration classes of the plugins that ship: every key with its type, default and meaning.

``python -m fastgate.config.reference`` writes what follows the mark of these pages anew, and a test checks
that they are up to date. What stands before the mark is written by hand.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from fastgate.config import model, reflect
from fastgate.config.forms import FORMS
from fastgate.config.plugin_types import built_in
from fastgate.config.schema import default_json

MARK: Final = "<!-- Below: made by `python -m fastgate.config.reference` from fastgate/config/model. -->\n"
PLUGIN_MARK: Final = "<!-- Below: made by python -m fastgate.config.reference from the plugin's Config. -->\n"

# The order in which a reader meets the tables: (heading, struct).
_SECTIONS: Final[tuple[tuple[str, type[Struct]], ...]] = (
    ("[server]", model.Server),
    ("[admin]", model.Admin),
    ("admin.tls", model.AdminTls),
    ("[metrics]", model.Metrics),
    ("[dns]", model.Dns),
    ("[access_log]", model.AccessLog),
    ("[tracing]", model.Tracing),
    ("[why]", model.Why),
    ("[shared]", model.SharedValues),
    ("[[listeners]]", model.Listener),
    ("listeners.limits", model.ListenerLimits),
    ("listeners.timeouts", model.ListenerTimeouts),
    ("listeners.tls", model.ListenerTls),
    ("listeners.tls.certificates[]", model.Certificate),
    ("listeners.tls.client_auth", model.ClientAuth),
    ("[acme.NAME]", model.Acme),
    ("acme.NAME.storage", model.AcmeStorage),
    ("acme.NAME.eab", model.ExternalAccount),
    ("acme.NAME.renewal", model.AcmeRenewal),
    ("[upstreams.NAME]", model.Upstream),
    ("upstreams.NAME.endpoints[]", model.Endpoint),
    ("upstreams.NAME.tls", model.UpstreamTls),
    ("upstreams.NAME.timeouts", model.UpstreamTimeouts),
    ("upstreams.NAME.pool", model.Pool),
    ("upstreams.NAME.limits", model.UpstreamLimits),
    ("upstreams.NAME.hash", model.Hash),
    ("upstreams.NAME.sticky", model.Sticky),
    ("upstreams.NAME.regions", model.Regions),
    ("upstreams.NAME.health", model.HealthCheck),
    ("upstreams.NAME.outlier", model.Outlier),
    ("upstreams.NAME.retry, routes.retry", model.Retry),
    ("upstreams.NAME.hedge", model.Hedge),
    ("upstreams.NAME.breaker", model.Breaker),
    ("upstreams.NAME.concurrency", model.Concurrency),
    ("endpoints[] of an endpoints file", model.ListedEndpoint),
    ("[[routes]]", model.Route),
    ("routes.match", model.Match),
    ("routes.split", model.Split),
    ("routes.split.override", model.SplitOverride),
    ("routes.split.to[]", model.SplitTarget),
    ("routes.split.to[].rollback", model.Rollback),
    ("routes.aggregate", model.Aggregate),
    ("routes.aggregate.parts.NAME", model.Part),
    ("routes.aggregate.parts.NAME.when[]", model.When),
    ("routes.aggregate.parts.NAME.for_each", model.ForEach),
    ("routes.aggregate.parts.NAME.graphql", model.GraphQl),
    ("routes.aggregate.parts.NAME.filter[]", model.ListFilter),
    ("routes.redirect", model.Redirect),
    ("routes.respond", model.Respond),
    ("routes.rewrite", model.Rewrite),
    ("routes.fallback", model.Fallback),
    ("routes.fault", model.Fault),
    ("routes.mirror", model.Mirror),
    ("routes.request_headers, routes.response_headers", model.HeaderRules),
    ("routes.limits", model.RouteLimits),
    ("routes.timeouts", model.RouteTimeouts),
    ('[plugins.NAME] with use = "rate-limit"', model.RateLimit),
    ("plugins.NAME.redis, shared.redis, acme.NAME.storage.redis", model.RedisPlace),
    ('[plugins.NAME] with use = "ip-filter"', model.IpFilter),
    ("[plugins.NAME] in Python", model.PluginUse),
)


_HEAD: Final = "| key | type | default | meaning |\n| --- | --- | --- | --- |"


def reference() -> str:
    """The tables of docs/configuration.md, as Markdown."""
    return "".join(
        _section("##" if heading.startswith("[") else "###", heading, cls) for heading, cls in _SECTIONS
    )


def plugin_reference(use: str) -> str:
    """The tables of the plugin that ships by this name, as Markdown."""
    plugin = built_in(use)
    intro = (
        f'\n## Keys\n\nOf `[plugins.NAME]` with `use = "{use}"`, besides those of '
        "[every plugin in Python](../configuration.md#pluginsname-in-python).\n"
    )
    keys = reflect.keys_of(plugin.Config)
    nested: dict[type[Any], list[str]] = {}
    _find_nested(plugin.Config, "", nested)
    tables = "".join(_section("###", ", ".join(headings), cls) for cls, headings in nested.items())
    return intro + (f"\n{_table(plugin.Config)}" if keys else "\nIt has no keys of its own.\n") + tables


def _find_nested(cls: type[Any], above: str, found: dict[type[Any], list[str]]) -> None:
    """Adds each table in the table of ``cls``: its class, and how the keys are written that hold it."""
    for key in reflect.keys_of(cls).values():
        for heading, inner in _tables_of(key.node, f"{above}{key.name}"):
            new = inner not in found
            found.setdefault(inner, []).append(heading)
            if new:
                _find_nested(inner, f"{heading}.", found)


def _tables_of(node: reflect.Node, name: str) -> list[tuple[str, type[Any]]]:
    match node:
        case reflect.Table(cls):
            return [(name, cls)]
        case reflect.Many(item, _, _):
            return _tables_of(item, f"{name}[]")
        case reflect.Mapping(value, _):
            return _tables_of(value, f"{name}.NAME")
        case reflect.Tagged(tag, variants, _):
            return [(f'{name} with {tag} = "{word}"', cls) for word, cls in variants.items()]
    return []


def _section(level: str, heading: str, cls: type[Any]) -> str:
    summary = reflect.summary_of(cls)
    return f"\n{level} `{heading}`\n\n" + (f"{summary}\n\n" if summary else "") + _table(cls)


def _table(cls: type[Any]) -> str:
    rows = "\n".join(_row(key) for key in reflect.keys_of(cls).values())
    return f"{_HEAD}\n{rows}\n"


def renewed(page: str) -> str:
    """The text of docs/configuration.md with new tables below its mark. Raises ValueError if it has none."""
    return _below(page, MARK, reference())


def renewed_plugin(page: str, use: str) -> str:
    """The text of the page of a plugin that ships, likewise."""
    return _below(page, PLUGIN_MARK, plugin_reference(use))


def _below(page: str, mark: str, tables: str) -> str:
    before, found, _ = page.partition(mark)
    if not found:
        raise ValueError("the page has no mark")
    return before + mark + tables


def _row(key: reflect.Key) -> str:
    meaning = _cell(key.description.strip()).replace("*", "\\*")
    return f"| `{key.name}` | {_cell(_type(key.node))} | {_cell(_default(key))} | {meaning} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _default(key: reflect.Key) -> str:
    if key.required:
        return "*required*"
    if key.default_text:
        return key.default_text
    if key.default is None:
        return "none"
    if isinstance(key.node, reflect.Table):
        return "its own defaults"
    if key.default == {}:
        return "`{}`"
    if key.default == "":
        return "none" if isinstance(key.node, reflect.Scalar) else '`""`'
    default = default_json(key)
    return "see below" if default is None else f"`{json.dumps(default)}`"


def _type(node: reflect.Node) -> str:
    match node:
        case reflect.Boolean():
            return "boolean"
        case reflect.Text():
            return "string"
        case reflect.Integer(least, most):
            return f"integer{_bounds(least, most)}"
        case reflect.Number(low, high):
            return f"number{_bounds(low, high)}"
        case reflect.Choice(values):
            return " or ".join(f"`{json.dumps(value)}`" for value in values)
        case reflect.Scalar(form, options):
            label = FORMS[form].label
            least = options.get("minimum")
            label += f", at least {FORMS[form].default(least)}" if least else ""
            label += ', or "unlimited"' if options.get("unlimited") else ""
            if options.get("secret") == "only":
                return "secret"
            return label + (", or secret" if options.get("secret") else "")
        case reflect.ConditionNode():
            return "condition"
        case reflect.Many(item, one_or_many, _):
            inner = _type(item)
            return f"{inner}, or array of these" if one_or_many else f"array of: {inner}"
        case reflect.Mapping(value, names):
            return f"table: {FORMS[names].label} -> {_type(value)}"
        case reflect.Table(_, shorthand, switch):
            return "address or table" if shorthand else "boolean or table" if switch else "table"
        case reflect.Tagged(_, variants, other):
            return " or ".join([*variants, *(["a plugin in Python"] if other else [])])


def _bounds(least: float | None, most: float | None) -> str:
    if least is not None and most is not None:
        return f", {reflect.number_text(least)} to {reflect.number_text(most)}"
    if least is not None:
        return f", at least {reflect.number_text(least)}"
    return "" if most is None else f", at most {reflect.number_text(most)}"


if __name__ == "__main__":
    _docs = Path("docs")
    _page = _docs / "configuration.md"
    _page.write_text(renewed(_page.read_text()))
    for _page in sorted((_docs / "plugins").glob("*.md")):
        if PLUGIN_MARK in _page.read_text():
            _page.write_text(renewed_plugin(_page.read_text(), _page.stem))
