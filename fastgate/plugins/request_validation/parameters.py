"""Parameters of an OpenAPI operation: from their text, by style, to the value that a schema judges."""

from __future__ import annotations

import math
import re
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, unquote_plus

from fastgate.plugins.request_validation.documents import BadDocumentError, parse_json
from fastgate.plugins.request_validation.schemas import Schema, Violation

MAX_PARAMETERS: Final = 1000
_INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,99})")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,99})(?:\.[0-9]{1,99})?(?:[eE][+-]?[0-9]{1,3})?")
_DEFAULT_STYLES: Final = {"path": "simple", "header": "simple", "query": "form", "cookie": "form"}
_STYLES: Final = {
    "path": ("simple", "label", "matrix"),
    "header": ("simple",),
    "query": ("form", "spaceDelimited", "pipeDelimited", "deepObject"),
    "cookie": ("form",),
}
_DELIMITERS: Final = {"spaceDelimited": re.compile(r" |%20|\+"), "pipeDelimited": re.compile(r"\||%7[Cc]")}
_DEEP: Final = re.compile(r"([^\[\]]+)\[([^\[\]]*)\]")

Pairs = list[tuple[str, str]]


class Types(NamedTuple):
    """What a schema says of types, as far as reading text needs it."""

    names: frozenset[str]
    items: Types | None = None
    properties: dict[str, Types] = {}  # noqa: RUF012 - of a NamedTuple, never changed


class Parameter(NamedTuple):
    """One of an operation. json: it is described by ``content`` instead of a style."""

    name: str
    place: str
    required: bool
    style: str
    explode: bool
    types: Types
    schema: Schema
    json: bool

    def read(self, given: Given) -> Any:
        """Its value, or MISSING. Raises BadDocumentError."""
        if self.place == "query" and self.style == "deepObject":
            return self._deep(given.query)
        if self.place == "query":
            return self._form(given.query, unquote_plus)
        if self.place == "cookie":
            return self._form(given.cookies, unquote)
        if self.place == "path":
            text = given.path.get(self.name, "")
            return self._simple(text, unquote) if text else MISSING
        # RFC 9110 5.3: several fields of one name are one list.
        fields = given.headers.get(self.name.lower())
        return self._simple(", ".join(fields), lambda text: text.strip(" \t")) if fields else MISSING

    def _value(self, text: str) -> Any:
        if self.json:
            return parse_json(text.encode("utf-8", "replace"), 32)
        return scalar(text, self.types)

    def _form(self, pairs: Pairs, decode: Any) -> Any:
        if self.explode and "object" in self.types.names and not self.json:
            known = [(key, value) for key, value in pairs if key in self.types.properties]
            return self._object(known, decode) if known else MISSING
        texts = [value for key, value in pairs if key == self.name]
        if not texts:
            return MISSING
        if "array" in self.types.names and not self.json:
            if self.explode:
                return [scalar(decoded(one, decode), self.types.items) for one in texts]
            return self._list(_only(texts), decode)
        if "object" in self.types.names and not self.json:
            return self._flat_object(_only(texts).split(","), decode)
        return self._value(decoded(_only(texts), decode))

    def _list(self, text: str, decode: Any) -> list[Any]:
        # Split before it is decoded: an encoded comma is part of an item.
        delimiter = _DELIMITERS.get(self.style)
        parts = delimiter.split(text) if delimiter else text.split(",")
        return [scalar(decoded(part, decode), self.types.items) for part in parts]

    def _simple(self, text: str, decode: Any) -> Any:
        separator = ","
        if self.style == "label":
            text, separator = _after(text, "."), "." if self.explode else ","
        elif self.style == "matrix":
            return self._matrix(text, decode)
        if "array" in self.types.names and not self.json:
            return [scalar(decoded(part, decode), self.types.items) for part in text.split(separator)]
        if "object" in self.types.names and not self.json:
            parts = text.split(separator)
            if self.explode:
                return self._object([_pair(part) for part in parts], decode)
            return self._flat_object(parts, decode)
        return self._value(decoded(text, decode))

    def _matrix(self, text: str, decode: Any) -> Any:
        pairs = [_pair(part) for part in _after(text, ";").split(";")]
        if "object" in self.types.names and self.explode:
            return self._object(pairs, decode)
        if any(key != self.name for key, _ in pairs):
            raise BadDocumentError("not of the style matrix")
        if "array" in self.types.names and self.explode:
            return [scalar(decoded(value, decode), self.types.items) for _, value in pairs]
        value = _only([value for _, value in pairs])
        if "array" in self.types.names:
            return self._list(value, decode)
        if "object" in self.types.names:
            return self._flat_object(value.split(","), decode)
        return self._value(decoded(value, decode))

    def _deep(self, pairs: Pairs) -> Any:
        found = []
        for key, value in pairs:
            if key == self.name or key.startswith(f"{self.name}["):
                match = _DEEP.fullmatch(key)
                if not match:
                    raise BadDocumentError("not of the style deepObject")
                found.append((match[2], value))
        return self._object(found, unquote_plus) if found else MISSING

    def _flat_object(self, parts: list[str], decode: Any) -> dict[str, Any]:
        if len(parts) % 2:
            raise BadDocumentError("not pairs of name and value")
        return self._object(list(zip(parts[::2], parts[1::2], strict=True)), decode)

    def _object(self, pairs: Pairs, decode: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, text in pairs:
            name = decoded(key, decode)
            if name in found:
                raise BadDocumentError("given several times")
            found[name] = scalar(decoded(text, decode), self.types.properties.get(name))
        return found

    def check(self, given: Given, most: int) -> list[Violation]:
        """What is wrong with it in this request."""
        try:
            value = self.read(given)
        except BadDocumentError as error:
            return [Violation(self.place, self.name, str(error))]
        if value is MISSING:
            return [Violation(self.place, self.name, "is required")] if self.required else []
        return self.schema.check(value, given.size, most, self.place, self.name)

    def keys(self) -> frozenset[str]:
        """Its names in the query, but for ``deepObject``."""
        if self.style == "deepObject":
            return frozenset()
        if self.explode and "object" in self.types.names and not self.json:
            return frozenset(self.types.properties)
        return frozenset({self.name})


class Given(NamedTuple):
    """What a request brings. Names of the query are decoded, values are not yet, nor those of path and
    cookies."""

    path: dict[str, str]
    query: Pairs
    headers: dict[str, list[str]]
    cookies: Pairs
    size: int


MISSING: Final = object()


def style_of(place: str, style: str) -> str:
    """Raises ValueError for a style that is not one of the place."""
    found = style or _DEFAULT_STYLES[place]
    if found not in _STYLES[place]:
        raise ValueError(f'style "{found}" is none of a parameter in {place}')
    return found


def read_query(raw: str) -> Pairs:
    """The pairs of a query or a form, values as they came. Raises BadDocumentError."""
    if raw.count("&") >= MAX_PARAMETERS:
        raise BadDocumentError(f"more than {MAX_PARAMETERS} parameters")
    pairs = [part.partition("=") for part in raw.split("&") if part]
    return [(decoded(key, unquote_plus), value) for key, _, value in pairs]


def scalar(text: str, types: Types | None) -> Any:
    """The text as what the schema asks for; as text where it is nothing of that."""
    names = types.names if types else frozenset()
    if {"integer", "number"} & names and _INTEGER.fullmatch(text):
        return int(text)
    if "number" in names and _NUMBER.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    if "boolean" in names and text in ("true", "false"):
        return text == "true"
    if "null" in names and text == "" and "string" not in names:
        return None
    return text


def decoded(raw: str, decode: Any) -> str:
    """Percent escapes and UTF-8 read. Raises BadDocumentError."""
    try:
        # From the octets of the field (latin-1) to UTF-8, which is what percent escapes stand for.
        text: str = decode(raw) if raw.isascii() else decode(raw.encode("latin-1").decode())
    except ValueError:
        raise BadDocumentError("not UTF-8") from None
    if "\ufffd" in text:
        raise BadDocumentError("not UTF-8")
    return text


def _only(texts: list[str]) -> str:
    if len(texts) != 1:
        # Which of them the service takes is not known.
        raise BadDocumentError("given several times")
    return texts[0]


def _pair(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    return key, value


def _after(text: str, mark: str) -> str:
    if not text.startswith(mark):
        raise BadDocumentError(f'does not begin with "{mark}"')
    return text[1:]
