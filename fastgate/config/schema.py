"""The JSON Schema of the configuration file, made from the model."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from fastgate.config import reflect
from fastgate.config.forms import FORMS
from fastgate.config.model import Config, Fallback, SplitOverride, Upstream

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


def config_schema() -> dict[str, Any]:
    """A schema of draft 2020-12; checks of values that it cannot express are left to ``fastgate check``."""
    definitions: dict[str, Any] = {}
    root = _struct(Config, definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "fastgate configuration",
        **root,
        "required": ["listeners"],
        "$defs": dict(sorted(definitions.items())),
    }


def _struct(cls: type[Struct], definitions: dict[str, Any]) -> dict[str, Any]:
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
    if key.required or key.default_text or key.default in (None, "") or isinstance(key.default, Struct):
        return None
    if isinstance(key.node, reflect.Many) and len(key.default) < key.node.least:
        return None
    if isinstance(key.node, reflect.Scalar):
        text = FORMS[key.node.form].default(key.default)
        return text[1:-1]
    if isinstance(key.default, tuple):
        if isinstance(key.node, reflect.Many) and isinstance(key.node.item, reflect.Scalar):
            return [FORMS[key.node.item.form].default(item)[1:-1] for item in key.default]
        return list(key.default)
    if isinstance(key.default, float) and key.default.is_integer():
        return int(key.default)
    return key.default


def _reference(cls: type[Struct], definitions: dict[str, Any]) -> dict[str, Any]:
    if cls.__name__ not in definitions:
        definitions[cls.__name__] = {}
        definitions[cls.__name__] = _struct(cls, definitions)
    return {"$ref": f"#/$defs/{cls.__name__}"}


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
        case reflect.Table(cls, shorthand):
            reference = _reference(cls, definitions)
            return (
                {"oneOf": [_node(reflect.keys_of(cls)[shorthand].node, definitions), reference]}
                if shorthand
                else reference
            )
        case reflect.Tagged(tag, variants, _):
            return {"oneOf": [_variant(tag, word, cls, definitions) for word, cls in variants.items()]}


def _variant(tag: str, word: str, cls: type[Struct], definitions: dict[str, Any]) -> dict[str, Any]:
    if cls.__name__ not in definitions:
        schema = _struct(cls, definitions)
        schema["properties"] = {
            tag: {"const": word, "description": "Which plugin it is."},
            **schema["properties"],
        }
        schema["required"] = [tag, *schema.get("required", [])]
        definitions[cls.__name__] = schema
    return {"$ref": f"#/$defs/{cls.__name__}"}


def _scalar(node: reflect.Scalar) -> dict[str, Any]:
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
