"""The JSON Schema of the configuration file, made from the model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from fastgate.config import reflect
from fastgate.config.decode_plugin import COMMON
from fastgate.config.forms import FORMS
from fastgate.config.model import Config, Fallback, PluginUse, RateLimit, SplitOverride, Upstream
from fastgate.config.plugin_types import BUILT_IN, built_in, installed
from fastgate.config.units import BadValue

if TYPE_CHECKING:
    from fastgate.plugins import Plugin

_SECRET: dict[str, Any] = {
    "oneOf": [
        {
            "type": "object",
            "properties": {kind: {"type": "string", "minLength": 1, "description": text}},
            "required": [kind],
            "additionalProperties": False,
        }
        for kind, text in (
            ("env", "Environment variable that holds the value."),
            ("file", "File that holds the value, relative to the configuration."),
        )
    ]
}


def config_schema(plugins: Mapping[str, type[Plugin]] = {}) -> dict[str, Any]:
    """A schema of draft 2020-12; checks of values that it cannot express are left to ``fastgate check``.

    ``plugins``: more plugins than those that ship, by ``use``, whose keys are to be known.
    """
    definitions: dict[str, Any] = {}
    root = _struct(Config, definitions)
    root["properties"]["plugins"]["additionalProperties"]["oneOf"] += _plugins(plugins, definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "fastgate configuration",
        **root,
        "required": ["listeners"],
        "$defs": dict(sorted(definitions.items())),
    }


def _struct(cls: type[Any], definitions: dict[str, Any]) -> dict[str, Any]:
    keys = reflect.keys_of(cls)
    schema: dict[str, Any] = {
        "type": "object",
        "description": reflect.summary_of(cls),
        "properties": {key.name: _key(key, definitions) for key in keys.values()},
        "additionalProperties": False,
    }
    required = [key.name for key in keys.values() if key.required]
    if required:
        schema["required"] = required
    return schema | _ONE_OF.get(cls, {})


# Of which keys a table needs one.
_ONE_OF: dict[type[Struct], dict[str, Any]] = {
    Upstream: {
        "anyOf": [
            {"required": ["endpoints"], "properties": {"endpoints": {"minItems": 1}}},
            {"required": ["endpoints_file"]},
        ]
    },
    Fallback: {"oneOf": [{"required": ["upstream"]}, {"required": ["respond"]}]},
    RateLimit: {"anyOf": [{"required": ["rate"]}, {"required": ["quota"]}]},
    SplitOverride: {"anyOf": [{"required": ["header"]}, {"required": ["cookie"]}]},
}


def _key(key: reflect.Key, definitions: dict[str, Any]) -> dict[str, Any]:
    schema = _node(key.node, definitions)
    schema["description"] = key.description
    default = default_json(key)
    if default is not None:
        schema["default"] = default
    return schema


def default_json(key: reflect.Key) -> Any:
    """The default as TOML would have it; None where there is none, or where it depends on something."""
    if key.required or key.default_text or key.default in (None, ""):
        return None
    if isinstance(key.node, reflect.Many) and len(key.default) < key.node.least:
        return None
    return _json(key.node, key.default)


def _json(node: reflect.Node, value: Any) -> Any:
    match node:
        case reflect.Scalar(form, _):
            return FORMS[form].default(value)[1:-1]
        case reflect.Many(item, _, _):
            items = [_json(item, one) for one in value]
            return None if None in items else items
        case reflect.Mapping(inner, _):
            values = {name: _json(inner, one) for name, one in value.items()}
            return None if None in values.values() else values
        case reflect.Table() | reflect.Tagged() | reflect.ConditionNode():
            return None  # told by its own keys
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _name_of(cls: type[Any]) -> str:
    """Its name among the definitions: of plugins' classes with the module, since many are named Config."""
    model = cls.__module__.startswith("fastgate.config.")
    return cls.__name__ if model else f"{cls.__module__.removeprefix('fastgate.')}.{cls.__qualname__}"


def _reference(cls: type[Any], definitions: dict[str, Any]) -> dict[str, Any]:
    name = _name_of(cls)
    if name not in definitions:
        definitions[name] = {}
        definitions[name] = _struct(cls, definitions)
    return {"$ref": f"#/$defs/{name}"}


def _node(node: reflect.Node, definitions: dict[str, Any]) -> dict[str, Any]:
    match node:
        case reflect.Boolean():
            return {"type": "boolean"}
        case reflect.Text():
            return {"type": "string"}
        case reflect.Integer(least, most):
            bounds = {"minimum": least, "maximum": most}
            return {"type": "integer"} | {name: bound for name, bound in bounds.items() if bound is not None}
        case reflect.Number(low, high):
            limits = {"minimum": low, "maximum": high}
            return {"type": "number"} | {name: bound for name, bound in limits.items() if bound is not None}
        case reflect.Choice(values):
            return {"enum": list(values)}
        case reflect.Scalar():
            return _scalar(node)
        case reflect.ConditionNode():
            return _condition()
        case reflect.Many(item, one_or_many, least):
            inner = _node(item, definitions)
            array: dict[str, Any] = {"type": "array", "items": inner}
            if least:
                array["minItems"] = least
            return {"oneOf": [inner, array]} if one_or_many else array
        case reflect.Mapping(value, names):
            mapping: dict[str, Any] = {"type": "object", "additionalProperties": _node(value, definitions)}
            if FORMS[names].pattern:
                mapping["propertyNames"] = {"pattern": FORMS[names].pattern}
            return mapping
        case reflect.Table(cls, shorthand, switch):
            short = [_node(reflect.keys_of(cls)[shorthand].node, definitions)] if shorthand else []
            if switch:
                short.append({"type": "boolean"})
            reference = _reference(cls, definitions)
            return {"oneOf": [*short, reference]} if short else reference
        case reflect.Tagged(tag, variants, _):
            return {"oneOf": [_variant(tag, word, cls, definitions) for word, cls in variants.items()]}


def _variant(tag: str, word: str, cls: type[Any], definitions: dict[str, Any]) -> dict[str, Any]:
    name = _name_of(cls)
    if name not in definitions:
        definitions[name] = {}
        schema = _struct(cls, definitions)
        schema["properties"] = {
            tag: {"const": word, "description": "Which one it is."},
            **schema["properties"],
        }
        schema["required"] = [tag, *schema.get("required", [])]
        definitions[name] = schema
    return {"$ref": f"#/$defs/{name}"}


# Files and "module:Class"; what more there is to these forms, `fastgate check` tells.
_USE_PATTERN = r"^(\.{0,2}/.+\.py(:[^:]+)?|[A-Za-z_][\w.]*:[A-Za-z_][\w.]*)$"


def _plugins(given: Mapping[str, type[Plugin]], definitions: dict[str, Any]) -> list[dict[str, Any]]:
    """The tables of plugins in Python: one for each that ships or is given, and one for all others.

    Those that lack what they need here are among the others, as are those of other packages: their code is
    not executed for this.
    """
    known = dict(given)
    others = {point.name for point in installed()}
    for use in BUILT_IN:
        try:
            known[use] = built_in(use)
        except BadValue:
            others.add(use)
    common = {key.name: _key(key, definitions) for key in COMMON.values()}
    names = []
    for use, plugin in known.items():
        schema = _struct(plugin.Config, definitions)
        schema["description"] = reflect.summary_of(plugin) or f'The plugin "{use}".'
        schema["properties"] = {
            **common,
            "use": {"const": use, "description": "Which one it is."},
            **schema["properties"],
        }
        schema["required"] = ["use", *schema.get("required", [])]
        names.append("plugins." + re.sub(r"[^\w.-]", "_", use))
        definitions[names[-1]] = schema
    definitions["OtherPlugin"] = {
        "type": "object",
        "description": reflect.summary_of(PluginUse),
        "properties": {
            **common,
            "use": {
                "anyOf": [
                    {"enum": sorted(others - known.keys())},
                    {"type": "string", "pattern": _USE_PATTERN},
                ],
                "not": {"enum": sorted(known)},
                "description": COMMON["use"].description,
            },
        },
        "required": ["use"],
        "additionalProperties": True,
    }
    return [{"$ref": f"#/$defs/{name}"} for name in (*names, "OtherPlugin")]


def _scalar(node: reflect.Scalar) -> dict[str, Any]:
    if node.options.get("secret") == "only":
        return {"oneOf": _SECRET["oneOf"]}
    pattern = FORMS[node.form].pattern
    schema: dict[str, Any] = {"type": "string"}
    if pattern:
        if node.options.get("unlimited"):
            pattern = f"{pattern}|^unlimited$"
        if node.options.get("empty"):
            pattern = f"{pattern}|^$"
        schema["pattern"] = pattern
    if node.options.get("numbers"):
        return {"oneOf": [schema, {"type": "integer"}]}
    return {"oneOf": [schema, *_SECRET["oneOf"]]} if node.options.get("secret") else schema


def _condition() -> dict[str, Any]:
    return {
        "oneOf": [
            {"type": "string", "description": "Equal to this."},
            {"const": True, "description": "Present, whatever it holds."},
            {
                "type": "object",
                "properties": {
                    "regex": {"type": "string", "minLength": 1, "description": "RE2, over the whole value."}
                },
                "required": ["regex"],
                "additionalProperties": False,
            },
        ]
    }
