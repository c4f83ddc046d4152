"""Base64url and JSON in one reading only: what two readers could understand differently is refused."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import orjson

MAX_DEPTH: Final = 16


def b64url_decode(text: str) -> bytes:
    """Base64url without padding (RFC 7515 2), in its one canonical spelling. Raises ValueError."""
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error as error:
        raise ValueError(f"no base64url: {error}") from None
    # Python's decoder skips foreign bytes and ignores bits left over in the last letter: encode again.
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode() != text:
        raise ValueError("no base64url, or not its canonical form")
    return data


def json_object(data: bytes, depth: int = MAX_DEPTH) -> dict[str, Any]:
    """The object that ``data`` holds. Raises ValueError for anything else: other values, broken UTF-8, lone
    surrogates, NaN, a member named twice (RFC 8259 4), nesting deeper than ``depth``."""
    try:
        orjson.loads(data)  # the judge of the syntax: json lets NaN, UTF-16 and lone surrogates pass
        value = json.loads(data.decode(), object_pairs_hook=_members)
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("no JSON object")
    if not _within(value, depth):
        raise ValueError("JSON is nested too deeply")
    return value


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a JSON member stands twice")
    return members


def _within(value: object, depth: int) -> bool:
    if isinstance(value, dict):
        return depth > 0 and all(_within(item, depth - 1) for item in value.values())
    if isinstance(value, list):
        return depth > 0 and all(_within(item, depth - 1) for item in value)
    return True


def frozen(value: Any) -> Any:
    """The same JSON value with nothing in it that can be changed: read-only mappings and tuples."""
    if isinstance(value, Mapping):
        return MappingProxyType({key: frozen(item) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return tuple(frozen(item) for item in value)
    return value
