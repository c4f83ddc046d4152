"""The tables of docs/configuration.md, made from the model: every key with its type, default and meaning.

``python -m fastgate.config.reference docs/configuration.md`` writes what follows the page's mark anew, and a
test checks that it is up to date. What stands before the mark is written by hand.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

from msgspec import Struct

from fastgate.config import model, reflect
from fastgate.config.forms import FORMS
from fastgate.config.schema import default_json

MARK: Final = (
    "<!-- Below: made by `python -m fastgate.config.reference FILE` from fastgate/config/model. -->\n"
)

# The order in which a reader meets the tables: (heading, struct).
_SECTIONS: Final[tuple[tuple[str, type[Struct]], ...]] = (
    ("[server]", model.Server),
    ("[admin]", model.Admin),
    ("[dns]", model.Dns),
    ("[access_log]", model.AccessLog),
    ("[[listeners]]", model.Listener),
    ("listeners.limits", model.ListenerLimits),
    ("listeners.timeouts", model.ListenerTimeouts),
    ("[upstreams.NAME]", model.Upstream),
    ("upstreams.NAME.endpoints[]", model.Endpoint),
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
    ('[plugins.NAME] with use = "ip-filter"', model.IpFilter),
)


_HEAD: Final = "| key | type | default | meaning |\n| --- | --- | --- | --- |"


def reference() -> str:
    """The tables, as Markdown."""
    parts = []
    for heading, cls in _SECTIONS:
        level = "##" if heading.startswith("[") else "###"
        summary = reflect.summary_of(cls)
        rows = "\n".join(_row(key) for key in reflect.keys_of(cls).values())
        parts.append(f"\n{level} `{heading}`\n\n{summary}\n\n{_HEAD}\n{rows}\n")
    return "".join(parts)


def renewed(page: str) -> str:
    """``page`` with new tables below its mark. Raises ValueError where it has none."""
    before, mark, _ = page.partition(MARK)
    if not mark:
        raise ValueError("the page has no mark")
    return before + mark + reference()


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
    if isinstance(key.default, Struct):
        return "its own defaults"
    if key.default == {}:
        return "`{}`"
    if key.default == "":
        return "none" if isinstance(key.node, reflect.Scalar) else '`""`'
    return f"`{json.dumps(default_json(key))}`"


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
            return label + (", or secret" if options.get("secret") else "")
        case reflect.ConditionNode():
            return "condition"
        case reflect.Many(item, one_or_many, _):
            inner = _type(item)
            return f"{inner}, or array of these" if one_or_many else f"array of: {inner}"
        case reflect.Mapping(value, names):
            return f"table: {FORMS[names].label} -> {_type(value)}"
        case reflect.Table(_, shorthand):
            return "address or table" if shorthand else "table"
        case reflect.Tagged(_, variants, other):
            return " or ".join([*variants, *(["a plugin in Python"] if other else [])])


def _bounds(least: float | None, most: float | None) -> str:
    if least is not None and most is not None:
        return f", {reflect.number_text(least)} to {reflect.number_text(most)}"
    if least is not None:
        return f", at least {reflect.number_text(least)}"
    return "" if most is None else f", at most {reflect.number_text(most)}"


if __name__ == "__main__":
    _page = Path(sys.argv[1])
    _page.write_text(renewed(_page.read_text()))
