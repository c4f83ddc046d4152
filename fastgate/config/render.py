"""A configuration in force, as tables of a file again, with its secrets covered."""

from __future__ import annotations

import re
from typing import Any, Final

from fastgate.config import reflect
from fastgate.config.forms import FORMS
from fastgate.config.model import Condition, PluginUse

__all__ = ["COVERED", "render"]

#: Stands in the place of each secret, and of each value that might have been one: the file allows both.
COVERED: Final = "<secret>"
_TELLING: Final = re.compile(r"auth|cookie|key|token|secret|password|credential", re.IGNORECASE)


def render(table: Any) -> dict[str, Any]:
    """The keys of a table of the model, or of a plugin's configuration, that differ from their defaults.

    Tables in it likewise, those without any such key left out. Values are as in the file ("30s")."""
    found: dict[str, Any] = {}
    tag = getattr(getattr(table, "__struct_config__", None), "tag", None)
    if tag is not None:
        found[table.__struct_config__.tag_field] = tag
    for name, key in reflect.keys_of(type(table)).items():
        value = getattr(table, name)
        if value is None or (not key.required and value == key.default):
            continue
        shown = _value(key.node, value)
        if shown != {} or key.required or key.default is None:
            found[name] = shown
    if isinstance(table, PluginUse):
        found |= render(table.config)
    return found


def _value(node: reflect.Node, value: Any) -> Any:
    match node:
        case reflect.Scalar(form, options):
            return COVERED if options.get("secret") else _scalar(form, value)
        case reflect.Many(item, one_or_many, _):
            items = [_value(item, one) for one in value]
            return items[0] if one_or_many and len(items) == 1 else items
        case reflect.Mapping(inner, _):
            return {name: _named_value(name, inner, one) for name, one in value.items()}
        case reflect.Table() | reflect.Tagged():
            return render(value)
        case reflect.ConditionNode():
            return _condition(value)
    return value


def _named_value(name: str, node: reflect.Node, value: Any) -> Any:
    """Of header rules: what is no secret stands there as it is, unless its field's name tells of one."""
    if isinstance(value, str) and not _TELLING.search(name):
        return value
    return _value(node, value)


def _scalar(form: str, value: Any) -> Any:
    write = FORMS[form].default
    if write is not repr:
        return write(value)[1:-1]
    return value if isinstance(value, str | int | float | bool) else str(value)


def _condition(condition: Condition) -> Any:
    if condition.kind == "equal":
        return condition.value
    return True if condition.kind == "present" else {"regex": condition.value}
