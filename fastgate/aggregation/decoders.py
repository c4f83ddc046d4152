"""Bodies to values: JSON, and what becomes JSON by a stated rule (docs/aggregation-shapes.md)."""

from __future__ import annotations

import binascii
import csv
import importlib.util
import io
from typing import Any, Final
from urllib.parse import parse_qsl

from msgspec import Raw

from fastgate.aggregation.documents import Value, decode_json, encode
from fastgate.aggregation.failures import PartFailure

__all__ = ["decode_body", "missing"]

MAX_FORM_FIELDS: Final = 1000
MAX_CSV_ROWS: Final = 100_000
MAX_CSV_COLUMNS: Final = 1000
MAX_XML_DEPTH: Final = 64
MAX_XML_NODES: Final = 50_000  # elements and attributes
#: Times the body that the JSON of a table may have: it names each column in each row.
MAX_CSV_GROWTH: Final = 20
_SMALL: Final = 64 * 1024

# Names of charsets (RFC 2978) that are read; what HTTP and XML have beside them is a museum.
_CHARSETS: Final = {
    "": "utf-8", "utf-8": "utf-8", "utf8": "utf-8", "us-ascii": "ascii", "ascii": "ascii",
    "iso-8859-1": "latin-1", "latin-1": "latin-1", "latin1": "latin-1",
}  # fmt: skip


def missing(how: str) -> str | None:
    """What has to be installed for this value of `decode`; None for nothing."""
    if how == "xml" and importlib.util.find_spec("defusedxml") is None:
        return "XML needs what is not installed here (pip install 'fastgate[aggregate]')"
    return None


def decode_body(body: bytes, content_type: str | None, how: str, *, opening: bool = False) -> Value:
    """how: of the part's `decode`; "auto" goes by the Content-Type, and an empty body without one is null.
    opening: as of ``decode_json``.

    Raises PartFailure("part-body") for what is not in its form or beyond the bounds of it,
    PartFailure("part-too-large") for a table whose JSON is much larger than itself.
    """
    if how == "json" or (how == "auto" and content_type == "application/json"):  # nearly all
        return decode_json(body, opening=opening)
    media, _, parameters = (content_type or "").partition(";")
    media = media.strip().lower()
    if how == "auto":
        # RFC 6839 3.1, RFC 8259 11. A charset has no meaning there.
        if media == "application/json" or media.endswith("+json") or media == "text/json":
            return decode_json(body, opening=opening)
        if not media and not body:
            return None
        how = "text" if media.startswith("text/") else "base64"
    if how == "base64":
        return binascii.b2a_base64(body, newline=False).decode("ascii")
    if how == "xml":
        return _xml(body, parameters)
    text = _text(body, _charset(parameters))
    if how == "form":
        return _form(text)
    return _csv(text, len(body)) if how == "csv" else text


def _charset(parameters: str) -> str:
    """The codec of a Content-Type's parameters (RFC 9110 8.3.1), UTF-8 where they name none."""
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            charset = value.strip().strip('"').lower()
            if charset not in _CHARSETS:
                raise PartFailure("part-body", f"charset {charset[:40]!r}: UTF-8, Latin-1 and ASCII are read")
            return _CHARSETS[charset]
    return "utf-8"


def _text(body: bytes, codec: str) -> str:
    try:
        return body.decode(codec)
    except UnicodeDecodeError as error:
        raise PartFailure("part-body", f"no {codec}: byte {error.start}") from None


def _put(into: dict[str, Value], name: str, value: Value) -> None:
    """A second one of a name makes a list."""
    if name not in into:
        into[name] = value
        return
    there = into[name]
    if isinstance(there, list):
        there.append(value)
    else:
        into[name] = [there, value]


def _form(text: str) -> Value:
    """application/x-www-form-urlencoded (WHATWG URL 5.1), strict in its escapes' UTF-8."""
    fields: dict[str, Value] = {}
    try:
        for name, value in parse_qsl(
            text, keep_blank_values=True, errors="strict", max_num_fields=MAX_FORM_FIELDS
        ):
            _put(fields, name, value)
    except UnicodeDecodeError:
        raise PartFailure("part-body", "no UTF-8 in a field of the form") from None
    except ValueError:
        raise PartFailure("part-body", f"a form of more than {MAX_FORM_FIELDS} fields") from None
    return fields


def _csv(text: str, size: int) -> Value:
    """RFC 4180 with a header row: a list of objects. It is written as JSON row by row, which takes less
    memory than dicts do."""
    rows = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    limit = MAX_CSV_GROWTH * size + _SMALL
    made: list[bytes] = []
    try:
        header = next(rows, [])
        if len(header) > MAX_CSV_COLUMNS or len(set(header)) < len(header):
            raise PartFailure("part-body", f"a table has {MAX_CSV_COLUMNS} columns at most, each once")
        for row in rows:
            if not row:  # an empty line, which the last one often is
                continue
            if len(row) != len(header):
                raise PartFailure(
                    "part-body", f"line {rows.line_num} has {len(row)} fields, the first {len(header)}"
                )
            if len(made) == MAX_CSV_ROWS:
                raise PartFailure("part-body", f"a table of more than {MAX_CSV_ROWS} rows")
            one = encode(dict(zip(header, row, strict=True)))
            limit -= len(one)
            if limit < 0:
                raise PartFailure("part-too-large", f"a table whose JSON has {MAX_CSV_GROWTH} times its size")
            made.append(one)
    except csv.Error as error:
        raise PartFailure("part-body", f"no CSV: {error} (line {rows.line_num})") from None
    return Raw(b"[" + b",".join(made) + b"]")


class _Element:
    __slots__ = ("members", "name", "pieces")

    def __init__(self, name: str) -> None:
        self.name = name
        self.members: dict[str, Value] = {}
        self.pieces: list[str] = []


class _Tree:
    """What expat calls. Names are without namespaces."""

    def __init__(self) -> None:
        self._path = [_Element("")]
        self._nodes = 0

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self._nodes += 1 + len(attributes)
        if self._nodes > MAX_XML_NODES or len(self._path) > MAX_XML_DEPTH:
            raise PartFailure(
                "part-body", f"more than {MAX_XML_NODES} elements and attributes, or {MAX_XML_DEPTH} levels"
            )
        element = _Element(tag.rpartition("}")[2])
        for name, value in attributes.items():
            _put(element.members, "@" + name.rpartition("}")[2], value)
        self._path.append(element)

    def data(self, text: str) -> None:
        self._path[-1].pieces.append(text)

    def end(self, tag: str) -> None:
        element = self._path.pop()
        text = "".join(element.pieces)
        value: Value = text
        if element.members:
            value = element.members
            if text := text.strip():
                element.members["#text"] = text
        _put(self._path[-1].members, element.name, value)

    def close(self) -> Value:
        return self._path[0].members


def _xml(body: bytes, parameters: str) -> Value:
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import ParseError, XMLParser

    # RFC 7303 3.2: a byte order mark stands above the charset, and that above the document's own word.
    marked = body.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"))
    encoding = _charset(parameters) if "charset" in parameters.lower() and not marked else None
    # No DTD at all: with it go entities, their expansion, and what is fetched from elsewhere.
    parser: Any = XMLParser(target=_Tree(), encoding=encoding, forbid_dtd=True)
    try:
        parser.feed(body)
        return parser.close()  # type: ignore[no-any-return]
    except ParseError as error:
        raise PartFailure("part-body", f"no XML: {error}") from None
    except DefusedXmlException as error:
        raise PartFailure("part-body", f"XML with what is not read: {type(error).__name__}") from None
    except (LookupError, ValueError) as error:  # an encoding that is none
        raise PartFailure("part-body", f"no XML: {error}") from None
