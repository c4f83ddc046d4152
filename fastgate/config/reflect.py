"""The model's annotations, read once into a small tree that decoder, JSON Schema and reference all walk."""

from __future__ import annotations

import functools
import types
import typing
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

from fastgate.config.model import Condition


class Scalar(NamedTuple):
    """A string in one of the forms of forms.py."""

    form: str
    options: dict[str, Any]


class Text(NamedTuple):
    """Any string."""


class Boolean(NamedTuple):
    """true or false."""


class Integer(NamedTuple):
    least: int | None
    most: int | None


class Number(NamedTuple):
    """An integer or a float."""

    least: float
    most: float


class Choice(NamedTuple):
    """One of a few words or numbers."""

    values: tuple[str | int, ...]


class Many(NamedTuple):
    """An array; ``one_or_many``: a single item may stand without it."""

    item: Node
    one_or_many: bool
    least: int


class Mapping(NamedTuple):
    """A table whose keys the user chooses, in the form ``names``."""

    value: Node
    names: str


class Table(NamedTuple):
    """A struct; ``shorthand``: the key that a bare string fills."""

    cls: type[Struct]
    shorthand: str


class Tagged(NamedTuple):
    """One of several structs, told apart by the key ``tag``."""

    tag: str
    variants: dict[str, type[Struct]]


class ConditionNode(NamedTuple):
    """What a header, query parameter or cookie must be."""


Node = Scalar | Text | Boolean | Integer | Number | Choice | Many | Mapping | Table | Tagged | ConditionNode


class Key(NamedTuple):
    name: str
    node: Node
    description: str
    required: bool
    default: Any
    default_text: str


@functools.cache
def keys_of(cls: type[Struct]) -> dict[str, Key]:
    """The keys that may be written in the table of ``cls``, in the order of the model."""
    hints = typing.get_type_hints(cls, include_extras=True)
    keys = {}
    for field in msgspec.structs.fields(cls):
        hint, meta = _unwrap(hints[field.name])
        extra = (meta.extra if meta else None) or {}
        if extra.get("derived"):
            continue
        node = _node(hint, meta, extra)
        default = field.default
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        description = (meta.description if meta else None) or _summary(node)
        keys[field.name] = Key(
            field.name, node, description, field.required, default, str(extra.get("default", ""))
        )
    return keys


def _unwrap(hint: Any) -> tuple[Any, Meta | None]:
    if get_origin(hint) is Annotated:
        base, *metas = get_args(hint)
        return base, next((m for m in metas if isinstance(m, Meta)), None)
    return hint, None


def _summary(node: Node) -> str:
    return summary_of(node.cls) if isinstance(node, Table) else ""


def summary_of(cls: type[Struct]) -> str:
    """Its docstring on one line."""
    return " ".join((cls.__doc__ or "").split())


def _node(hint: Any, meta: Meta | None, extra: dict[str, Any]) -> Node:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        members = [arg for arg in get_args(hint) if arg is not types.NoneType]
        structs = [arg for arg in members if isinstance(arg, type) and issubclass(arg, Struct)]
        if len(structs) > 1:
            configs = [cls.__struct_config__ for cls in structs]
            return Tagged(
                str(configs[0].tag_field), {str(c.tag): cls for c, cls in zip(configs, structs, strict=True)}
            )
        # The other unions are "or None" (a default) and "str | Secret" (a matter of the form).
        return _node(members[0], meta, extra)
    if origin is tuple:
        return Many(
            _node(get_args(hint)[0], meta, extra), bool(extra.get("one_or_many")), extra.get("least", 0)
        )
    if origin is dict:
        return Mapping(_node(get_args(hint)[1], meta, extra), extra["names"])
    if hint is Condition:
        return ConditionNode()
    if extra.get("form"):
        return Scalar(extra["form"], extra)
    if origin is Literal:
        return Choice(get_args(hint))
    if hint is bool:
        return Boolean()
    if hint is int:
        return Integer(meta.ge if meta else None, meta.le if meta else None)  # type: ignore[arg-type]
    if hint is float and meta and meta.ge is not None and meta.le is not None:
        return Number(float(meta.ge), float(meta.le))
    if hint is str:
        return Text()
    if isinstance(hint, type) and issubclass(hint, Struct):
        return Table(hint, extra.get("shorthand", ""))
    raise TypeError(f"the model has a type that the configuration cannot hold: {hint!r}")
