"""What a configuration's files say, with all that has no meaning taken away: order of keys, ways to write a
value, defaults that are written out. Nothing is resolved and no code is executed, so that any configuration
that was ever kept can be compared with any other.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from fastgate.config import reflect
from fastgate.config.addresses import Address
from fastgate.config.files import Kept
from fastgate.config.forms import FORMS
from fastgate.config.including import read_document, tables_document
from fastgate.config.model import Config, PluginUse, Sources
from fastgate.config.plugin_types import BUILT_IN, built_in
from fastgate.config.units import BadValue

__all__ = ["COVERED", "TELLING", "Covered", "Ordered", "holds_secrets", "outline"]

COVERED: Final = "<secret>"
#: Names of what may be a secret.
TELLING: Final = re.compile(r"auth|cookie|key|token|secret|password|credential", re.IGNORECASE)
_NAMED: Final = ("listeners", "routes", "upstreams", "plugins", "acme")

# Kind ("routes") to name to keys; a table of the process under the name "".
Outline = dict[str, dict[str, Any]]


class Covered:
    """Stands for a secret that is written in a file: it can be compared, and is never shown."""

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Covered) and other._value == self._value

    def __hash__(self) -> int:
        return hash(("fastgate.Covered", repr(self._value)))

    def __repr__(self) -> str:
        return COVERED


class Ordered(dict[str, Any]):
    """A table that means something else in another order."""

    def __eq__(self, other: object) -> bool:
        return dict.__eq__(self, other) and (not isinstance(other, Ordered) or list(self) == list(other))

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # as that of each dict


def outline(sources: Sources) -> Outline:
    """Names as in the log: those of several gateways have their file's stem before them."""
    found: Outline = {}
    files = Kept(sources)
    if sources.tables is not None:
        documents = [tables_document(json.loads(sources.tables[1]), sources.tables[0], files)]
    else:
        documents = [read_document(root, files) for root in sources.roots]
    for document in documents:
        prefix = f"{Path(document.root.name).stem}/" if len(documents) > 1 else ""
        for kind, value in document.tables.items():
            if kind == "include":
                continue
            key = reflect.keys_of(Config)[kind]
            if kind in _NAMED:
                items = found.setdefault(kind, {})
                for name, item in _items(kind, value):
                    shared = kind == "upstreams" and document.included((kind, name))
                    items[name if shared else prefix + name] = _value(_item_of(key.node), item)
            else:
                found[kind] = {"": _value(key.node, value)}
    return found


def holds_secrets(sources: Sources) -> bool:
    """Whether a secret stands in the text itself, or what may be one."""
    return _covers(outline(sources))


def _covers(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_covers, value.values()))
    return any(map(_covers, value)) if isinstance(value, list) else isinstance(value, Covered)


def _items(kind: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return list(value.items())
    field = "bind" if kind == "listeners" else "name"
    return [(str(item.get("name") or item.get(field)), item) for item in value]


def _item_of(node: reflect.Node) -> reflect.Node:
    match node:
        case reflect.Many(item, _, _):
            return item
        case reflect.Mapping(value, _):
            return value
    return node


def _value(node: reflect.Node, value: Any) -> Any:
    match node:
        case reflect.Scalar(form, options):
            return _scalar(form, options, value)
        case reflect.Many(item, _, _):
            items = value if isinstance(value, list) else [value]
            return [_value(item, one) for one in items]
        case reflect.Mapping(inner, "part-name") if isinstance(value, dict):
            return Ordered((name, _value(inner, one)) for name, one in value.items())
        case reflect.Mapping(inner, _) if isinstance(value, dict):
            return {
                name: Covered(one) if isinstance(one, str) and TELLING.search(name) else _value(inner, one)
                for name, one in sorted(value.items())
            }
        case reflect.Table(_, _, True) if value is False:
            return None
        case reflect.Table(cls, _, True) if value is True:
            return _table(cls, {})
        case reflect.Table(cls, shorthand):
            return _table(cls, {shorthand: value} if isinstance(value, str) else value)
        case reflect.Tagged(tag, variants, other) if isinstance(value, dict):
            variant = variants.get(value.get(tag, ""), other)
            rest = _table(variant, {k: v for k, v in value.items() if k != tag or variant is other})
            return {tag: value.get(tag), **rest}
    return value


def _table(cls: type[Any] | None, value: Any) -> Any:
    if cls is None or not isinstance(value, dict):
        return _unknown(value)
    keys = dict(reflect.keys_of(cls))
    if cls is PluginUse:
        use = value.get("use")
        if use in BUILT_IN:
            with suppress(BadValue):  # what it needs is not installed here
                keys |= reflect.keys_of(built_in(use).Config)
    found = {}
    for name, item in sorted(value.items()):
        key = keys.get(name)
        shown = _unknown({name: item})[name] if key is None else _value(key.node, item)
        if key is None or key.required or shown != _written(key):
            found[name] = shown
    return found


def _written(key: reflect.Key) -> Any:
    """Its default, as `_value` would give it."""
    default = key.default
    match key.node:
        case reflect.Scalar(form, _) if default is not None and FORMS[form].default is not repr:
            return FORMS[form].default(default)[1:-1]
        case reflect.Many() if isinstance(default, tuple):
            return list(default)
    return default


def _scalar(form: str, options: dict[str, Any], value: Any) -> Any:
    if isinstance(value, dict):
        return value  # where a secret comes from is none
    if options.get("secret"):
        return Covered(value)
    text = str(value) if options.get("numbers") and isinstance(value, int) else value
    if not isinstance(text, str) or FORMS[form].default is repr:
        return text
    try:
        parsed = FORMS[form].parse(text, options)
        return parsed.text if isinstance(parsed, Address) else FORMS[form].default(parsed)[1:-1]
    except (BadValue, TypeError):
        return text


def _unknown(value: Any) -> Any:
    """Of a plugin whose keys are not known here: what may be a secret is covered."""
    if isinstance(value, dict):
        return {
            name: Covered(one) if isinstance(one, str) and TELLING.search(name) else _unknown(one)
            for name, one in sorted(value.items())
        }
    return [_unknown(one) for one in value] if isinstance(value, list) else value
