"""What placeholders give: of the client's request, of other parts' answers, of the element at hand.

Each placeholder is compiled once to a closure; nothing of a request is parsed that no template names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple, Protocol, TypeAlias
from urllib.parse import unquote_plus, unquote_to_bytes

from msgspec import Raw

from fastgate.aggregation.documents import MISSING, Missing, Value, decode_json, find, opened, scalar_text
from fastgate.aggregation.failures import PartFailure
from fastgate.config.templates import Placeholder, Template

__all__ = [
    "MAX_TEXT",
    "ClientValues",
    "Getter",
    "PartValue",
    "Values",
    "compile_placeholder",
    "compile_text",
    "of_client",
    "shown",
]

#: Characters of one placeholder's text, at most. A JSON value that is nothing but a placeholder has no limit.
MAX_TEXT: Final = 8192
_INT: Final = re.compile(r"([+-]?)([0-9]{1,40})")
# RFC 8259 6.
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


class Lookup(Protocol):
    """The fields of an answer: ``_core.Headers``, or a dict with names in lower case."""

    def get(self, name: str, /) -> str | None: ...


_NO_FIELDS: Final[dict[str, str]] = {}


class PartValue(NamedTuple):
    """What a part has come to. value: its decoded body before shaping (of GraphQL its data; with for_each the
    list of them), or its default. status: 0 if there is no one status."""

    value: Value
    status: int = 0
    headers: Lookup = _NO_FIELDS


class ClientValues:
    """The client's request, by what an ``ExchangeView`` shows of it. body: all of it; None if no part reads
    it or there is none."""

    __slots__ = ("_captures", "_failure", "_json", "_opened", "_query", "body", "exchange", "request")

    def __init__(self, exchange: Any, body: bytes | None = None) -> None:
        self.exchange: Final = exchange
        self.request: Final = exchange.request
        self.body: Final = body
        self._captures: Mapping[str, str] | None = None
        self._query: dict[str, str] | None = None
        self._json: Value | Missing = MISSING
        self._opened: Value | Missing = MISSING
        self._failure = ""  # why it is no JSON

    def capture(self, name: str) -> str | None:
        """A {name} segment as it came, percent-encoded."""
        if self._captures is None:
            self._captures = self.exchange.captures
        return self._captures.get(name)

    def parameter(self, name: str) -> str | None:
        """The first of that name in the query, decoded. Bytes that are no UTF-8 are lone surrogates in it."""
        if self._query is None:
            found: dict[str, str] = {}
            for pair in self.request.raw_query.split("&"):
                key, _, value = pair.partition("=")
                if "%" in pair or "+" in pair:
                    key = unquote_plus(key, errors="surrogateescape")
                    value = unquote_plus(value, errors="surrogateescape")
                found.setdefault(key, value)
            self._query = found
        return self._query.get(name)

    def json(self) -> Value | Missing:
        """The body. MISSING if there is none; raises PartFailure if it is no JSON."""
        if self._json is MISSING:
            if not self.body:
                return MISSING
            if not self._failure:
                try:
                    self._json = decode_json(self.body)
                except PartFailure as failure:
                    self._failure = f"the client's body: {failure.detail}"
            if self._failure:
                raise PartFailure("part-value", self._failure, of_client=True)
        return self._json

    def members(self) -> Value | Missing:
        """As ``json``, opened once for all that look into it."""
        if self._opened is MISSING:
            whole = self.json()
            self._opened = whole if whole is MISSING else opened(whole)
        return self._opened


class Values:
    """All that the texts of one part may name. item: MISSING outside of for_each and filter."""

    __slots__ = ("client", "index", "item", "parts")

    def __init__(
        self,
        client: ClientValues,
        parts: Mapping[str, PartValue],
        item: Value | Missing = MISSING,
        index: int = -1,
    ) -> None:
        self.client: Final = client
        self.parts: Final = parts
        self.item = item
        self.index = index

    def at(self, item: Value, index: int) -> Values:
        """The same with an element."""
        return Values(self.client, self.parts, item, index)

    def get(self, placeholder: Placeholder) -> Value | Missing:
        """MISSING: there is none. Raises PartFailure("part-value") for one of another type than the
        placeholder says."""
        return compile_placeholder(placeholder)(self)


Getter: TypeAlias = "Callable[[Values], Value | Missing]"
TextGetter: TypeAlias = "Callable[[Values], str | Missing]"


def of_client(placeholder: Placeholder) -> bool:
    """It is the client's request that gives the value."""
    return not placeholder.source.startswith("part") and placeholder.source not in ("item", "index")


def shown(placeholder: Placeholder) -> str:
    """About as it was written."""
    text = ".".join(map(str, filter(None, (placeholder.source, placeholder.name, *placeholder.path))))
    return f"{{{text}|{placeholder.cast}}}" if placeholder.cast else f"{{{text}}}"


@lru_cache(maxsize=4096)
def compile_placeholder(placeholder: Placeholder) -> Getter:
    """The closure gives MISSING where there is no value, and raises PartFailure("part-value") where it is of
    another type than the placeholder says."""
    get = _SOURCES[placeholder.source](placeholder)
    return _with_cast(get, placeholder) if placeholder.cast else get


def compile_text(template: Template, *, optional: bool = False) -> TextGetter:
    """The text of a template. MISSING if it is nothing but a placeholder that has no value; one without a
    value within a longer text raises PartFailure("part-value"), or is MISSING too if ``optional``."""
    if len(template) == 1 and isinstance(template[0], Placeholder):
        return _text_of(template[0])
    pieces = [piece if isinstance(piece, str) else _text_of(piece) for piece in template]
    if all(isinstance(piece, str) for piece in pieces):
        constant = "".join(map(str, pieces))
        return lambda values: constant

    def text(values: Values) -> str | Missing:
        made = []
        for place, piece in enumerate(pieces):
            one = piece if isinstance(piece, str) else piece(values)
            if one is MISSING:
                if optional:
                    return MISSING
                raise _no_value(template[place])
            made.append(one)
        return "".join(made)

    return text


def _no_value(piece: str | Placeholder) -> PartFailure:
    assert isinstance(piece, Placeholder)
    return PartFailure("part-value", f"{shown(piece)} has no value", of_client=of_client(piece))


def _text_of(placeholder: Placeholder) -> TextGetter:
    get = compile_placeholder(placeholder)

    def text(values: Values) -> str | Missing:
        value = get(values)
        if value is MISSING:
            return MISSING
        if type(value) is not str:
            try:
                value = scalar_text(value)
            except PartFailure as failure:
                raise _wrong(placeholder, failure.detail) from None
        if len(value) > MAX_TEXT:
            raise _wrong(placeholder, f"its text is longer than {MAX_TEXT} characters")
        return value

    return text


def _wrong(placeholder: Placeholder, why: str) -> PartFailure:
    return PartFailure("part-value", f"{shown(placeholder)}: {why}", of_client=of_client(placeholder))


# -- types ---------------------------------------------------------------------------------------------------


def _int(text: str) -> Raw | None:
    match = _INT.fullmatch(text)
    if match is None:
        return None
    return Raw(f"{'-' if match[1] == '-' else ''}{match[2].lstrip('0') or '0'}".encode())


def _number(text: str) -> Raw | None:
    return Raw(text.encode()) if len(text) <= MAX_TEXT and _NUMBER.fullmatch(text) else None


def _bool(text: str) -> bool | None:
    return True if text == "true" else False if text == "false" else None


def _string(text: str) -> str:
    return text


_CASTS: Final[dict[str, Callable[[str], Value]]] = {
    "int": _int,
    "number": _number,
    "bool": _bool,
    "string": _string,
}


def _with_cast(get: Getter, placeholder: Placeholder) -> Getter:
    make = _CASTS[placeholder.cast]

    def cast(values: Values) -> Value | Missing:
        value = get(values)
        if value is MISSING:
            return MISSING
        try:
            made = make(scalar_text(value))
        except PartFailure as failure:
            raise _wrong(placeholder, failure.detail) from None
        if made is None:
            raise _wrong(placeholder, "its text is not of this type")
        return made

    return cast


# -- sources -------------------------------------------------------------------------------------------------


def _decoded(placeholder: Placeholder, text: str) -> str:
    """Text of a head: its characters are bytes, which must be UTF-8 to be characters of a value."""
    try:
        return text if text.isascii() else text.encode("latin-1").decode()
    except UnicodeError:
        raise _wrong(placeholder, "it is no UTF-8") from None


def _path(placeholder: Placeholder) -> Getter:
    name = placeholder.name

    def get(values: Values) -> Value | Missing:
        raw = values.client.capture(name)
        if raw is None:
            return MISSING
        if "%" not in raw:
            return _decoded(placeholder, raw)
        try:
            return unquote_to_bytes(raw.encode("latin-1")).decode()
        except UnicodeDecodeError:
            raise _wrong(placeholder, "it is no UTF-8") from None

    return get


def _query(placeholder: Placeholder) -> Getter:
    name = placeholder.name

    def get(values: Values) -> Value | Missing:
        text = values.client.parameter(name)
        if text is None:
            return MISSING
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                raise _wrong(placeholder, "it is no UTF-8") from None
        return text

    return get


def _header(placeholder: Placeholder) -> Getter:
    name = placeholder.name

    def get(values: Values) -> Value | Missing:
        text = values.client.request.headers.get(name)
        return MISSING if text is None else _decoded(placeholder, text)

    return get


def _cookie(placeholder: Placeholder) -> Getter:
    name = placeholder.name

    def get(values: Values) -> Value | Missing:
        text = values.client.request.cookies.get(name)
        return MISSING if text is None else _decoded(placeholder, text)

    return get


def _body(placeholder: Placeholder) -> Getter:
    path = placeholder.path

    def get(values: Values) -> Value | Missing:
        if not path:
            return values.client.json()
        try:
            body = values.client.members()
            return body if body is MISSING else find(body, path)
        except PartFailure as failure:
            if failure.of_client:
                raise
            raise _wrong(placeholder, failure.detail) from None

    return get


def _item(placeholder: Placeholder) -> Getter:
    path = placeholder.path

    def get(values: Values) -> Value | Missing:
        item = values.item
        return item if not path or item is MISSING else find(item, path)

    return get


def _index(placeholder: Placeholder) -> Getter:
    return lambda values: MISSING if values.index < 0 else Raw(b"%d" % values.index)


def _claim(placeholder: Placeholder) -> Getter:
    path = placeholder.path

    def get(values: Values) -> Value | Missing:
        consumer = values.client.exchange.consumer
        here: Any = None if consumer is None else consumer.claims
        for step in path:
            if isinstance(step, str):
                known = isinstance(here, Mapping) and step in here
            else:
                known = isinstance(here, list | tuple) and isinstance(step, int) and step < len(here)
            if not known:
                return MISSING
            here = here[step]
        if here is None or isinstance(here, str | bool):
            return here
        try:
            return Raw(json.dumps(here, ensure_ascii=False, allow_nan=False).encode())
        except (TypeError, ValueError, RecursionError):
            raise _wrong(placeholder, "it is no JSON value") from None

    return get


def _consumer(placeholder: Placeholder) -> Getter:
    name = placeholder.name

    def get(values: Values) -> Value | Missing:
        consumer = values.client.exchange.consumer
        return (None if consumer is None else getattr(consumer, name)) or MISSING

    return get


def _method(placeholder: Placeholder) -> Getter:
    return lambda values: str(values.client.request.method)


def _host(placeholder: Placeholder) -> Getter:
    return lambda values: values.client.request.host or MISSING


def _client_ip(placeholder: Placeholder) -> Getter:
    return lambda values: values.client.exchange.client_ip or MISSING


def _request_id(placeholder: Placeholder) -> Getter:
    return lambda values: values.client.exchange.id or MISSING


def _part(placeholder: Placeholder) -> Getter:
    name, path = placeholder.name, placeholder.path

    def get(values: Values) -> Value | Missing:
        part = values.parts.get(name)
        if part is None:
            return MISSING
        return find(part.value, path) if path else part.value

    return get


def _part_status(placeholder: Placeholder) -> Getter:
    name = placeholder.name

    def get(values: Values) -> Value | Missing:
        part = values.parts.get(name)
        return MISSING if part is None or not part.status else Raw(b"%d" % part.status)

    return get


def _part_header(placeholder: Placeholder) -> Getter:
    name, field = placeholder.name, str(placeholder.path[0])

    def get(values: Values) -> Value | Missing:
        part = values.parts.get(name)
        text = None if part is None else part.headers.get(field)
        return MISSING if text is None else _decoded(placeholder, text)

    return get


_SOURCES: Final[dict[str, Callable[[Placeholder], Getter]]] = {
    "path": _path,
    "query": _query,
    "header": _header,
    "cookie": _cookie,
    "body": _body,
    "item": _item,
    "index": _index,
    "claim": _claim,
    "consumer": _consumer,
    "method": _method,
    "host": _host,
    "client_ip": _client_ip,
    "request_id": _request_id,
    "part": _part,
    "part_status": _part_status,
    "part_header": _part_header,
}
