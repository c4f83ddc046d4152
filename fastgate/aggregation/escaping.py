"""Values where they stand in a part's request: whatever a value is, it stays a value.

    path      percent-encoded but for unreserved characters (RFC 3986 2.3): it stays within its segment, and
              no segment is empty, "." or ".." because of it
    query     percent-encoded in the same way, name and value
    header    visible ASCII, and space and tab within (RFC 9110 5.5): anything else is refused

All raise ``PartFailure("part-value")`` for what can't stand there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from typing import Final, TypeAlias
from urllib.parse import quote, unquote
from uuid import UUID

from fastgate import _core
from fastgate.aggregation.failures import PartFailure
from fastgate.aggregation.values import MAX_TEXT

__all__ = ["Scalar", "header_value", "is_field_value", "path_of", "query_of", "text_of"]

#: What may stand for a placeholder.
Scalar: TypeAlias = "str | int | float | Decimal | UUID | date | Enum"

_FIELD: Final = re.compile(r"[\t\x20-\x7e]*")
_PLACEHOLDER: Final = "{}"
_DOTS: Final = ("", ".", "..")


def text_of(value: object) -> str:
    """As JSON writes it; strings as they are."""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, str):
        text = value
    elif isinstance(value, int | float | Decimal | UUID):
        text = str(value)
    elif isinstance(value, date):
        text = value.isoformat()
    else:
        raise PartFailure("part-value", f"{type(value).__name__} stands where a text or a number should")
    if len(text) > MAX_TEXT:
        raise PartFailure("part-value", f"a value is longer than {MAX_TEXT} characters")
    return text


def path_of(template: str, values: Sequence[object]) -> str:
    """The path, with a value for each ``{}``. Raises ValueError for a template that is none, TypeError for
    another number of values.

    A template without placeholders may have been made of values already (an f-string): what it holds is
    looked at as if it were one.
    """
    if not values and "{" not in template and "}" not in template:
        path = template
    else:
        pieces = _pieces_of(template)
        if len(values) != sum(segment.count(_PLACEHOLDER) for segment in pieces):
            raise TypeError(f"{template!r} and {len(values)} values")
        rest = iter(values)
        path = "/".join([_segment(segment, rest) for segment in pieces])
    return _checked(path)


@lru_cache(maxsize=512)
def _pieces_of(template: str) -> tuple[str, ...]:
    without = template.replace(_PLACEHOLDER, "")
    if "{" in without or "}" in without:
        raise ValueError(f'{template!r}: a placeholder is "{{}}", and its value is passed behind the path')
    if "?" in template:
        raise ValueError(f"{template!r}: parameters go by `query=`")
    return tuple(template.split("/"))


def _segment(template: str, values: Iterable[object]) -> str:
    first, *others = template.split(_PLACEHOLDER)
    if not others:
        return template
    made = first + "".join(
        [_quoted(text_of(value)) + text for value, text in zip(values, others, strict=False)]
    )
    # Dots of values are themselves, those of the template may be percent-encoded (RFC 3986 6.2.2.2).
    if unquote(made) in _DOTS:
        raise PartFailure("part-value", f'a segment of the path would be "{made}"')
    return made


def _quoted(text: str) -> str:
    if text.isascii() and text.isalnum():
        return text
    if "\0" in text:
        raise PartFailure("part-value", "a NUL cannot stand in a path or a query")
    try:
        return quote(text, safe="")
    except UnicodeEncodeError:
        raise PartFailure("part-value", "half a surrogate pair is no character") from None


def _checked(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError(f'{path!r} is no path: it begins with "/"')
    if "?" in path or "#" in path:
        raise PartFailure("part-value", "a path holds no query and no fragment")
    if "/." in path or "%" in path:
        # Also behind an encoded slash, where a service that decodes it first would see them.
        segments = re.split(r"[/\\]", unquote(path))
        if "." in segments or ".." in segments:
            raise PartFailure("part-value", "a path holds no dot segments")
    try:
        _core.parse_target(path.encode("ascii"))
    except ValueError as error:
        raise PartFailure("part-value", f"no path: {error}") from None
    return path


def query_of(query: Mapping[str, object] | str | None) -> str:
    """Without "?". A value of None is left out, a list or tuple repeats its name. A text is a query
    already."""
    if not query:
        return ""
    if isinstance(query, str):
        if not query.isascii() or not query.isprintable() or "#" in query or " " in query:
            raise PartFailure("part-value", "no query (RFC 3986 3.4)")
        return query
    pairs: list[str] = []
    for name, value in query.items():
        start = quote(name, safe="") + "="
        several = value if isinstance(value, list | tuple) else (value,)
        pairs += [start + _quoted(text_of(one)) for one in several if one is not None]
    return "&".join(pairs)


def is_field_value(text: str) -> bool:
    return _FIELD.fullmatch(text) is not None and text == text.strip(" \t")


def header_value(name: str, value: object) -> str:
    text = text_of(value)
    if not is_field_value(text):
        raise PartFailure("part-value", f"a value cannot stand in the header {name} (RFC 9110 5.5)")
    return text
