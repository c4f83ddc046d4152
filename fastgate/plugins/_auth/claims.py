"""Claims: found by a dotted path, compared with what a configuration writes, read as lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def lookup(claims: Mapping[str, Any], path: str) -> Any:
    """The claim at ``path``, or None. A member may have dots in its own name ("https://example.com/roles"):
    the longest name that is there is taken first."""
    if path in claims:
        return claims[path]
    at = path.rfind(".")
    while at > 0:
        inner = claims.get(path[:at])
        if isinstance(inner, Mapping) and (found := lookup(inner, path[at + 1 :])) is not None:
            return found
        at = path.rfind(".", 0, at)
    return None


def text_of(value: Any) -> str | None:
    """A string, number or boolean as a configuration writes it; None for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    return None


def matches(value: Any, wanted: tuple[str, ...]) -> bool:
    """Whether the claim is one of ``wanted``, or an array that holds one of them."""
    if isinstance(value, list | tuple):
        return any(text_of(item) in wanted for item in value)
    return text_of(value) in wanted


def mismatch(claims: Mapping[str, Any], wanted: Mapping[str, tuple[str, ...]]) -> str:
    """The path of the first claim that is not as ``wanted``; "" where all are."""
    return next((path for path, values in wanted.items() if not matches(lookup(claims, path), values)), "")


def words(value: Any) -> frozenset[str]:
    """Groups or roles: an array's strings, or the string as the only one."""
    if isinstance(value, str):
        return frozenset((value,)) if value else frozenset()
    if isinstance(value, list | tuple):
        return frozenset(item for item in value if isinstance(item, str) and item)
    return frozenset()


def scopes_of(claims: Mapping[str, Any]) -> frozenset[str]:
    """Those of ``scope`` (RFC 8693 4.2: separated by spaces) and ``scp``; either may be an array as well."""
    found: set[str] = set()
    for name in ("scope", "scp"):
        value = claims.get(name)
        found.update(value.split(" ") if isinstance(value, str) else words(value))
    found.discard("")
    return frozenset(found)


def header_value(value: Any) -> str | None:
    """A claim as a field value, in UTF-8 (RFC 9110 5.5); an array's items with "," between them. None where
    there is no such claim. Raises ValueError for what would not arrive as what it is."""
    if value is None:
        return None
    several = isinstance(value, list | tuple)
    items = value if several else [value]
    texts = []
    for item in items:
        text = text_of(item)
        if text is None or not text or text != text.strip() or any(c < " " or c == "\x7f" for c in text):
            raise ValueError("no text for a header field")
        if several and "," in text:
            raise ValueError("an item of an array holds a comma")
        texts.append(text)
    # Headers take their octets as latin-1.
    return ",".join(texts).encode().decode("latin-1")
