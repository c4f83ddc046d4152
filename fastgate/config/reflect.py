"""The annotations of the model and of plugins' configurations, read once into a small tree that decoder, JSON
Schema and reference all walk."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Hashable, Iterator
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

from fastgate.config.forms import FORMS
from fastgate.config.model import Condition, Secret


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
    """An integer or a float, but no infinity."""

    least: float | None
    most: float | None


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
    """A struct or a dataclass; ``shorthand``: the key that a bare string fills; ``switch``: true may stand
    for one without keys, false for none."""

    cls: type[Any]
    shorthand: str = ""
    switch: bool = False


class Tagged(NamedTuple):
    """One of several structs, told apart by the key ``tag``; ``other``: what any other word stands for."""

    tag: str
    variants: dict[str, type[Struct]]
    other: type[Struct] | None


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


class UnreadableError(TypeError):
    """A key of ``cls`` has a type that the configuration cannot hold."""

    def __init__(self, cls: type[Any], key: str, why: str) -> None:
        super().__init__(f"{cls.__qualname__}.{key}: {why}" if key else f"{cls.__qualname__}: {why}")


class _Unknown(TypeError):
    """What is wrong with one annotation."""


def keys_of(cls: type[Any]) -> dict[str, Key]:
    """The keys that may be written in the table of ``cls``, in the order of its fields.

    Raises UnreadableError, which only the class of a plugin can cause.
    """
    return _keys_of(typing.cast(Hashable, cls))  # mypy takes a type for unhashable


# Bounded, since classes of plugins come anew with each version of their source.
@functools.lru_cache(maxsize=1024)
def _keys_of(cls: type[Any]) -> dict[str, Key]:
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except NameError as error:
        raise UnreadableError(cls, "", f"{error} where its types are looked up: in its module") from None
    keys = {}
    for name, required, default in _fields(cls):
        hint, meta = _unwrap(hints[name])
        extra = (meta.extra if meta else None) or {}
        if extra.get("derived"):
            continue
        try:
            node = _node(hint, meta, extra)
        except _Unknown as error:
            raise UnreadableError(cls, name, str(error)) from None
        description = (meta.description if meta else None) or _summary(node)
        keys[name] = Key(name, node, description, required, default, str(extra.get("default", "")))
    return keys


def check_readable(cls: type[Any]) -> None:
    """Raises UnreadableError for ``cls`` and for every table in it."""
    seen: set[type[Any]] = set()
    left: list[Node] = [Table(cls)]
    while left:
        match left.pop():
            case Table(inner) if inner not in seen:
                seen.add(inner)
                left += [key.node for key in keys_of(inner).values()]
            case Tagged(_, variants, _):
                left += [Table(variant) for variant in variants.values()]
            case Many(item, _, _):
                left.append(item)
            case Mapping(value, _):
                left.append(value)


def is_table(cls: object) -> bool:
    """Whether a table can be read into it: a frozen struct or dataclass."""
    if not isinstance(cls, type):
        return False
    if issubclass(cls, Struct):
        return cls.__struct_config__.frozen
    parameters = getattr(cls, "__dataclass_params__", None)
    return parameters is not None and bool(parameters.frozen)


def _fields(cls: type[Any]) -> Iterator[tuple[str, bool, Any]]:
    """Name, whether it is required, default (None where there is none). Those that several kinds of tables
    share, and inherit, come last."""
    if issubclass(cls, Struct):
        shared = {name for base in cls.__bases__ for name in getattr(base, "__struct_fields__", ())}
        for field in sorted(msgspec.structs.fields(cls), key=lambda field: field.name in shared):
            made = field.default_factory is not msgspec.NODEFAULT
            default = field.default_factory() if made else None if field.required else field.default
            yield field.name, field.required, default
        return
    for one in dataclasses.fields(cls):
        if one.init:
            if one.default_factory is not dataclasses.MISSING:
                yield one.name, False, one.default_factory()
            elif one.default is not dataclasses.MISSING:
                yield one.name, False, one.default
            else:
                yield one.name, True, None


def _unwrap(hint: Any) -> tuple[Any, Meta | None]:
    if get_origin(hint) is Annotated:
        base, *metas = get_args(hint)
        return base, next((m for m in metas if isinstance(m, Meta)), None)
    return hint, None


def _summary(node: Node) -> str:
    return summary_of(node.cls) if isinstance(node, Table) else ""


def number_text(value: float) -> str:
    """A bound as it is written."""
    return str(int(value)) if float(value).is_integer() else f"{value:g}"


def summary_of(cls: type[Any]) -> str:
    """Its docstring on one line; nothing for the one that a dataclass gets by itself."""
    text = " ".join((cls.__doc__ or "").split())
    return "" if text.startswith(f"{cls.__name__}(") else text


def _node(hint: Any, meta: Meta | None, extra: dict[str, Any]) -> Node:
    if get_origin(hint) is Annotated:
        # That of an item or a value: it says what it is itself.
        hint, meta = _unwrap(hint)
        extra = (meta.extra if meta else None) or {}
    _check_meta(hint, meta, extra)
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _union(hint, meta, extra)
    if origin is tuple:
        items = get_args(hint)
        if len(items) != 2 or items[1] is not Ellipsis:
            raise _Unknown(f"{_shown(hint)}: an array is tuple[TYPE, ...]")
        return Many(_node(items[0], meta, extra), bool(extra.get("one_or_many")), extra.get("least", 0))
    if origin is dict:
        key, value = get_args(hint)
        if key is not str:
            raise _Unknown(f"{_shown(hint)}: the keys of a table are str")
        return Mapping(_node(value, meta, extra), extra.get("names", "text"))
    if hint is Condition:
        return ConditionNode()
    if hint is Secret:
        return Scalar(extra.get("form") or "text", {**extra, "secret": "only"})
    if extra.get("form") or extra.get("secret"):
        return Scalar(extra.get("form") or "text", extra)
    if origin is Literal:
        if not all(isinstance(value, str | int) and not isinstance(value, bool) for value in get_args(hint)):
            raise _Unknown(f"{_shown(hint)}: one of a few words is a Literal of str or int")
        return Choice(get_args(hint))
    if hint is bool:
        return Boolean()
    if hint is int:
        return Integer(meta.ge if meta else None, meta.le if meta else None)  # type: ignore[arg-type]
    if hint is float:
        return Number(meta.ge if meta else None, meta.le if meta else None)
    if hint is str:
        return Text()
    if is_table(hint):
        return Table(hint, extra.get("shorthand", ""), bool(extra.get("switch")))
    why = " is no type that the configuration can hold"
    if dataclasses.is_dataclass(hint) or _is_struct(hint):
        why = " must be frozen"
    elif (origin or hint) in (list, set, frozenset, tuple):
        why += ": an array is tuple[TYPE, ...]"
    raise _Unknown(f"{_shown(hint)}{why}")


def _union(hint: Any, meta: Meta | None, extra: dict[str, Any]) -> Node:
    members = [arg for arg in get_args(hint) if arg is not types.NoneType]
    structs = [arg for arg in members if _is_struct(arg)]
    tagged = {str(cls.__struct_config__.tag): cls for cls in structs if cls.__struct_config__.tag is not None}
    if len(structs) > 1 and tagged:
        tag = next(iter(tagged.values())).__struct_config__.tag_field
        return Tagged(str(tag), tagged, next((cls for cls in structs if cls not in tagged.values()), None))
    # The other unions are "or None" (a default) and "str | Secret" (a matter of the form).
    plain = [arg for arg in members if arg is not Secret]
    if len(plain) > 1:
        raise _Unknown(f"{_shown(hint)}: a key has one type, or that and None")
    if Secret in members and plain == [str]:
        return Scalar(extra.get("form") or "text", {**extra, "secret": True})
    return _node(members[0], meta, extra)


def _is_struct(cls: object) -> bool:
    return isinstance(cls, type) and issubclass(cls, Struct)


def _check_meta(hint: Any, meta: Meta | None, extra: dict[str, Any]) -> None:
    """What plugins' authors may have written, and nothing would read."""
    for name in ("gt", "lt", "multiple_of", "pattern", "min_length", "max_length"):
        if getattr(meta, name, None) is not None:
            raise _Unknown(f"the configuration does not read {name}; it has ge, le and doc(...) with a form")
    for form in (extra.get("form"), extra.get("names")):
        if form and form not in FORMS:
            raise _Unknown(f'there is no form "{form}"')


def _shown(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
