"""A table of the model, or of a plugin's configuration, with some of its texts changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from fastgate.config import reflect
from fastgate.config.model import PluginUse

# (form of the text, text) -> what stands in its place.
Change = Callable[[str, str], str]


def rewritten(table: Any, change: Change) -> Any:
    """The table itself where nothing changed."""
    changed: dict[str, Any] = {}
    for name, key in reflect.keys_of(type(table)).items():
        before = getattr(table, name)
        after = _value(key.node, before, change)
        if after is not before:
            changed[name] = after
    if isinstance(table, PluginUse) and table.config is not None:
        config = rewritten(table.config, change)
        if config is not table.config:
            changed["config"] = config
    if not changed:
        return table
    if isinstance(table, Struct):
        return msgspec.structs.replace(table, **changed)
    return dataclasses.replace(table, **changed)


def _value(node: reflect.Node, value: Any, change: Change) -> Any:
    if value is None:
        return None
    match node:
        case reflect.Scalar(form, _) if isinstance(value, str) and value:
            after = change(form, value)
            return value if after == value else after
        case reflect.Table() | reflect.Tagged():
            return rewritten(value, change)
        case reflect.Many(item, _, _):
            items = tuple(_value(item, one, change) for one in value)
            return value if all(a is b for a, b in zip(items, value, strict=True)) else items
        case reflect.Mapping(inner, _):
            table = {name: _value(inner, one, change) for name, one in value.items()}
            return value if all(table[name] is value[name] for name in value) else table
    return value
