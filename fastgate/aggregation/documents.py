"""JSON values that stay exact: opened level by level, and written back as they came.

What nothing looks into remains text (``msgspec.Raw``), numbers always do: 12345678901234567890, 1.10 and
1e400 reach the client as the upstream has written them. orjson and json would round them.
"""

from __future__ import annotations

import enum
from typing import Any, Final, TypeAlias, cast

from msgspec import DecodeError, Raw
from msgspec.json import Decoder, Encoder

from fastgate.aggregation.failures import PartFailure
from fastgate.config.json_paths import Path

__all__ = [
    "MISSING",
    "Missing",
    "Value",
    "decode_json",
    "encode",
    "find",
    "kind_of",
    "opened",
    "scalar_text",
    "size_of",
]

#: A ``Raw`` is JSON text that is valid, without white space around it, and not opened yet; or a number.
Value: TypeAlias = "Raw | dict[str, Value] | list[Value] | str | bool | None"


class Missing(enum.Enum):
    """The type of ``MISSING``, which is not null: that is a value, None."""

    MISSING = enum.auto()


MISSING: Final = Missing.MISSING

_RAW: Final[Any] = Decoder(Raw).decode
_OBJECT: Final[Any] = Decoder(dict[str, Raw]).decode
_LIST: Final[Any] = Decoder(list[Raw]).decode
_STRING: Final[Any] = Decoder(str).decode
_ENCODE: Final[Any] = Encoder().encode
_BOM: Final = b"\xef\xbb\xbf"
_OPEN_OBJECT, _OPEN_LIST, _QUOTE, _TRUE, _FALSE, _NULL = b'{["tfn'


def decode_json(body: bytes, *, opening: bool = False) -> Value:
    """The whole body as one valid value (RFC 8259); a byte order mark before it is ignored (8.1). opening:
    an object is opened at once, which spares what is opened anyway a second look.

    Of members that stand twice in one object the last counts, where that object is opened (RFC 8259 4).
    Raises PartFailure("part-body"): bad syntax, bad UTF-8, half a surrogate pair, nested too deep.
    """
    if body.startswith(_BOM):
        body = body[3:]
    try:
        if not body.isascii():
            body.decode()  # msgspec does not look into strings that it leaves as they are
        if opening and body.startswith(b"{"):
            return cast(Value, _OBJECT(body))
        return cast(Value, _RAW(body))
    except UnicodeDecodeError as error:
        raise PartFailure("part-body", f"no UTF-8 (RFC 8259 8.1): byte {error.start}") from None
    except DecodeError as error:
        raise PartFailure("part-body", f"no JSON: {error}") from None
    except RecursionError:
        raise PartFailure("part-body", "the JSON is nested too deep") from None


def opened(value: Value) -> Value:
    """One level of it: an object is a dict of values, a list a list, a string str, true, false and null are
    bool and None. A number stays Raw. What is open already is given back as it is; a Raw is opened anew
    each time.

    Raises PartFailure("part-body"): nested too deep to be opened here.
    """
    if type(value) is not Raw:
        return value
    first = memoryview(value)[0]
    try:
        if first == _OPEN_OBJECT:
            return cast(Value, _OBJECT(value))
        if first == _OPEN_LIST:
            return cast(Value, _LIST(value))
    except RecursionError:
        raise PartFailure("part-body", "the JSON is nested too deep") from None
    if first == _QUOTE:
        return cast(str, _STRING(value))
    if first == _TRUE:
        return True
    if first == _FALSE:
        return False
    return None if first == _NULL else value


def find(value: Value, path: Path) -> Value | Missing:
    """What stands there, which may be a Raw; MISSING if there is no such member or element. The path has no
    EACH."""
    for step in path:
        value = opened(value)
        if isinstance(step, str):
            if type(value) is not dict or step not in value:
                return MISSING
            value = value[step]
        elif step is None or type(value) is not list or step >= len(value):
            return MISSING
        else:
            value = value[step]
    return value


_KINDS: Final[dict[type, str]] = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "a boolean",
    type(None): "null",
    Raw: "a number",
}


def kind_of(value: Value) -> str:
    """For messages: "an object", "a list", "a string", "a number", "a boolean", "null"."""
    return _KINDS[type(opened(value))]


def scalar_text(value: Value) -> str:
    """The text of a string, a number as it is written, "true" or "false". Raises PartFailure("part-value")
    for null, objects and lists."""
    value = opened(value)
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Raw):
        return str(memoryview(value), "ascii")
    raise PartFailure("part-value", f"expected a string, a number or a boolean, got {kind_of(value)}")


def encode(value: Value) -> bytes:
    """As JSON: what was never opened byte for byte as it came. Raises PartFailure("part-body"): nested too
    deep."""
    try:
        return cast(bytes, _ENCODE(value))
    except RecursionError:
        raise PartFailure("part-body", "the JSON is nested too deep") from None


def size_of(value: Value) -> int:
    """About the bytes of its text."""
    size, todo = 0, [value]
    while todo:
        one = todo.pop()
        if isinstance(one, Raw):
            size += len(memoryview(one))
        elif isinstance(one, str):
            size += len(one) + 3
        elif isinstance(one, dict):
            size += 2 + sum(len(name) + 4 for name in one)
            todo.extend(one.values())
        elif isinstance(one, list):
            size += 2 + len(one)
            todo.extend(one)
        else:
            size += 5
    return size
