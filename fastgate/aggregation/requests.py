"""A part's request, made of its templates. What placeholders give is escaped for where it stands, so that no
value can be more than a value:

    path      percent-encoded but for unreserved characters (RFC 3986 2.3): it stays within its segment, and
              a segment is never empty, "." or ".." because of it
    query     percent-encoded in the same way, name and value
    header    visible ASCII, and space and tab within (RFC 9110 5.5): anything else is refused
    form      application/x-www-form-urlencoded (WHATWG URL 5.2)
    JSON      encoded as JSON; what is nothing but a placeholder keeps its type
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import quote, quote_plus, unquote, unquote_plus

from msgspec import Raw

from fastgate.aggregation.documents import MISSING, Missing, Value, encode
from fastgate.aggregation.escaping import is_field_value
from fastgate.aggregation.failures import PartFailure
from fastgate.aggregation.values import Values, compile_placeholder, compile_text, of_client, shown
from fastgate.config.model import GraphQl, Part
from fastgate.config.templates import (
    Placeholder,
    Template,
    placeholders_of,
    read_json_template,
    read_template,
)

__all__ = ["MAX_HEAD", "PartRequest", "RequestTemplate", "compile_request"]

#: Bytes of target and fields together; a request of the gateway's own has 64 KiB for its head.
MAX_HEAD: Final = 60_000
_MAX_FIELDS: Final = 160  # of the 200 of such a head
# RFC 9110 5.5. What goes along as it came may have bytes beyond ASCII too.
_FIELD_AS_IT_CAME: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_QUERY_AS_IT_CAME: Final = re.compile(r"[!-~]*")
# "." or "..", for a server too that takes an escaped slash or a backslash for a slash, or drops parameters.
_DOT_SEGMENT: Final = re.compile(r"(?:\A|[/\\])\.\.?(?:[;/\\]|\Z)")
# RFC 6265 4.1.1: what ends a cookie, or its value in quotes.
_NO_COOKIE: Final = re.compile(r'[\s",;\\]')

_Text: TypeAlias = "str | Callable[[Values], str]"
_Pieces: TypeAlias = "Callable[[Values], Iterable[str]]"
_Body: TypeAlias = "bytes | Callable[[Values], bytes]"
_Json: TypeAlias = "Callable[[Values], Value | Missing]"


class PartRequest(NamedTuple):
    """target: path and query. fields: whole lines "name: value" CRLF, Content-Type included; Host,
    Content-Length and what a trace needs are not in them. Two that are equal are the same request."""

    method: str
    target: bytes
    fields: bytes
    body: bytes


class RequestTemplate:
    """``constant``: it names nothing, and each request is the same."""

    __slots__ = ("_body", "_fields", "_path", "_query", "constant", "method")

    def __init__(
        self, method: str, path: _Text, query: list[_Pieces], fields: bytes | list[_Pieces], body: _Body
    ) -> None:
        self.method: Final = method
        self._path: Final = path
        self._query: Final = query
        self._fields: Final = fields
        self._body: Final = body
        constant = isinstance(path, str) and isinstance(fields, bytes) and isinstance(body, bytes)
        self.constant: Final = self._make(_NOTHING) if constant and not query else None

    def build(self, values: Values) -> PartRequest:
        """Raises PartFailure("part-value") for a value that is missing or cannot stand where it should."""
        return self.constant or self._make(values)

    def _make(self, values: Any) -> PartRequest:
        path, fields, body = self._path, self._fields, self._body
        target = path if isinstance(path, str) else path(values)
        if self._query:
            query = "&".join([pair for pieces in self._query for pair in pieces(values)])
            if query:
                target = f"{target}?{query}"
        if not isinstance(fields, bytes):
            fields = "".join([line for pieces in fields for line in pieces(values)]).encode("latin-1")
        if len(target) + len(fields) > MAX_HEAD:
            raise PartFailure("part-value", f"the request's head is longer than {MAX_HEAD} bytes")
        return PartRequest(
            self.method, target.encode("ascii"), fields, body if isinstance(body, bytes) else body(values)
        )


_NOTHING: Final[Any] = None  # in place of values, for what looks at none


def compile_request(part: Part) -> RequestTemplate:
    """Of a part that has passed the configuration's rules."""
    fields = {name.lower() for name in (*part.headers, *part.pass_headers)}
    defaults = [("Accept-Encoding", "identity")]  # no coding is undone
    body, kind = _body(part)
    if part.graphql is not None:
        # GraphQL over HTTP, 6.1.
        defaults.append(("Accept", "application/graphql-response+json, application/json;q=0.9"))
    if kind:
        defaults.append(("Content-Type", kind))
    own = [f"{name}: {value}\r\n" for name, value in defaults if name.lower() not in fields]
    templates = {name: read_template(text) for name, text in part.headers.items()}
    own += [_line(name, template) for name, template in templates.items() if not _named(template)]
    lines = [_field(name, template) for name, template in templates.items() if _named(template)]
    passed = list(part.pass_headers)
    if part.pass_body and "content-type" not in fields:
        passed.append("Content-Type")
    if passed:
        lines.append(_passed_fields(passed))
    path: _Text = _path(read_template(part.path))
    parameters = {name: read_template(text) for name, text in part.query.items()}
    query = [_parameter(name, template) for name, template in parameters.items()]
    if part.pass_query:
        query.append(_passed_query(frozenset(part.pass_query)))
    elif isinstance(path, str) and query and not any(map(_named, parameters.values())):
        path = f"{path}?{'&'.join([pair for pieces in query for pair in pieces(_NOTHING)])}"
        query = []
    return RequestTemplate(
        part.method or ("POST" if part.pass_body or kind else "GET"),
        path,
        query,
        [_constant(own), *lines] if lines else "".join(own).encode("ascii"),
        body,
    )


def _named(template: Any) -> bool:
    """It names something."""
    return any(placeholders_of(template))


def _line(name: str, template: Template) -> str:
    return f"{name}: {''.join(map(str, template))}\r\n"


def _constant(pieces: list[str]) -> _Pieces:
    return lambda values: pieces


def _refused(pieces: Iterable[Any], why: str) -> PartFailure:
    """Of a value that cannot stand where it should; it is the client's only if all of the text is."""
    named = list(placeholders_of(list(pieces)))
    return PartFailure(
        "part-value",
        f"{' '.join(map(shown, named))}: {why}",
        of_client=bool(named) and all(map(of_client, named)),
    )


# -- the target ----------------------------------------------------------------------------------------------


def _path(template: Template) -> _Text:
    """Segment by segment; neighbouring segments without placeholders are one text."""
    segments: list[list[str | Placeholder]] = [[]]
    for piece in template:
        if isinstance(piece, str):
            first, *others = piece.split("/")
            segments[-1].append(first)
            segments.extend([other] for other in others)
        else:
            segments[-1].append(piece)
    pieces: list[_Text] = []
    for place, segment in enumerate(segments):
        slash = "/" if place else ""
        own = [slash, *segment]
        made: list[_Text] = (
            [slash, _segment(tuple(filter(None, segment)))] if _named(segment) else ["".join(map(str, own))]
        )
        for one in made:
            if pieces and isinstance(one, str) and isinstance(pieces[-1], str):
                pieces[-1] += one
            else:
                pieces.append(one)
    if len(pieces) == 1 and isinstance(pieces[0], str):
        return pieces[0]
    if len(pieces) == 2:
        before, dynamic = pieces
        assert isinstance(before, str)
        assert not isinstance(dynamic, str)
        return lambda values: before + dynamic(values)
    return lambda values: "".join([one if isinstance(one, str) else one(values) for one in pieces])


def _segment(template: Template) -> Callable[[Values], str]:
    texts = [piece if isinstance(piece, str) else compile_text((piece,)) for piece in template]
    if len(texts) == 1:
        return _whole_segment(template)

    def segment(values: Values) -> str:
        made, plain = [], True
        for place, text in enumerate(texts):
            one = text if isinstance(text, str) else text(values)
            if one is MISSING:
                raise _refused((template[place],), "it has no value, and stands in a path")
            if text is not one and not (one.isalnum() and one.isascii()):
                plain = False
                one = _quoted(one, template)
            made.append(one)
        whole = made[0] if len(made) == 1 else "".join(made)
        if not plain:
            _check_segment(whole, template)
        return whole

    return segment


def _whole_segment(template: Template) -> Callable[[Values], str]:
    """Of nothing but a placeholder, as nearly all are."""
    text = compile_text(template)

    def segment(values: Values) -> str:
        value = text(values)
        if value is MISSING:
            raise _refused(template, "it has no value, and stands in a path")
        if value.isalnum() and value.isascii():
            return value
        value = _quoted(value, template)
        _check_segment(value, template)
        return value

    return segment


def _check_segment(whole: str, template: Template) -> None:
    """What core/target.pyx refuses too, of a segment as it is sent."""
    decoded = unquote(whole)
    if not decoded:
        raise _refused(template, "the segment of the path would be empty")
    if "\0" in decoded:
        raise _refused(template, "a NUL cannot stand in a path")
    if _DOT_SEGMENT.search(decoded):
        raise _refused(template, "the path would have a segment of dots (RFC 3986 3.3)")


def _quoted(text: str, template: Iterable[Any]) -> str:
    try:
        return quote(text, safe="")
    except UnicodeEncodeError:
        raise _refused(template, "half a surrogate pair is no character") from None


def _parameter(name: str, template: Template) -> _Pieces:
    start = quote(name, safe="") + "="
    if not _named(template):
        return _constant([start + quote("".join(map(str, template)), safe="")])
    text = compile_text(template)

    def pieces(values: Values) -> Iterable[str]:
        value = text(values)
        if value is MISSING:
            return ()
        return (start + (value if value.isalnum() and value.isascii() else _quoted(value, template)),)

    return pieces


def _passed_query(names: frozenset[str]) -> _Pieces:
    def pieces(values: Values) -> Iterable[str]:
        raw = values.client.request.raw_query
        if not raw:
            return ()
        if "#" in raw or not _QUERY_AS_IT_CAME.fullmatch(raw):
            raise PartFailure("part-value", "the client's query is none (RFC 3986 3.4)", of_client=True)
        return [pair for pair in raw.split("&") if unquote_plus(pair.partition("=")[0]) in names]

    return pieces


# -- the fields ----------------------------------------------------------------------------------------------


def _field(name: str, template: Template) -> _Pieces:
    text = compile_text(template)
    # A value is one cookie's alone; a whole Cookie field may have many.
    cookie = name.lower() == "cookie" and len(template) > 1
    values_of = [compile_text((one,)) for one in placeholders_of(template)] if cookie else []

    def pieces(values: Values) -> Iterable[str]:
        value = text(values)
        if value is MISSING:
            return ()
        if not is_field_value(value):
            raise _refused(template, f"it cannot stand in the header {name} (RFC 9110 5.5)")
        if any(_NO_COOKIE.search(str(one(values))) for one in values_of):
            raise _refused(template, "it cannot stand in a cookie (RFC 6265 4.1.1)")
        return (f"{name}: {value}\r\n",)

    return pieces


def _passed_fields(names: list[str]) -> _Pieces:
    def pieces(values: Values) -> Iterable[str]:
        get_all = values.client.request.headers.get_all
        lines = []
        for name in names:
            for value in get_all(name):
                if not _FIELD_AS_IT_CAME.fullmatch(value):
                    raise PartFailure("part-value", f"the client's {name} is no field value", of_client=True)
                lines.append(f"{name}: {value}\r\n")
        if len(lines) > _MAX_FIELDS:
            raise PartFailure("part-value", f"more than {_MAX_FIELDS} fields of the client", of_client=True)
        return lines

    return pieces


# -- the body ------------------------------------------------------------------------------------------------


def _body(part: Part) -> tuple[_Body, str]:
    """It and its media type; that of the client's body comes with it."""
    if part.graphql is not None:
        return _graphql(part.graphql), "application/json"
    if part.json is not None:
        template = read_json_template(part.json)
        return _encoded(_json(template), template, b""), "application/json"
    if part.form:
        return _form(part.form), "application/x-www-form-urlencoded"
    if part.pass_body:
        return lambda values: values.client.body or b"", ""
    return b"", ""


def _form(fields: dict[str, str]) -> _Body:
    made = [(quote_plus(name), read_template(text)) for name, text in fields.items()]
    compiled = [(name, template, compile_text(template)) for name, template in made]

    def body(values: Values) -> bytes:
        pairs = []
        for name, template, text in compiled:
            value = text(values)
            if value is MISSING:
                continue
            try:
                pairs.append(f"{name}={quote_plus(value)}")
            except UnicodeEncodeError:
                raise _refused(template, "half a surrogate pair is no character") from None
        return "&".join(pairs).encode("ascii")

    return body if _named([template for _, template in made]) else body(_NOTHING)


def _graphql(graphql: GraphQl) -> _Body:
    """GraphQL over HTTP, 5.4: query, operationName, variables."""
    request: dict[str, Value] = {"query": graphql.query}
    if graphql.operation:
        request["operationName"] = graphql.operation
    if not graphql.variables:
        return encode(request)
    start = encode(request)[:-1] + b',"variables":'
    variables = {name: read_template(text) for name, text in graphql.variables.items()}
    return _encoded(_json(variables), variables, start, b"}")


def _encoded(made: Value | _Json, template: Any, start: bytes, end: bytes = b"") -> _Body:
    if not callable(made):
        return start + encode(made) + end
    build = made

    def body(values: Values) -> bytes:
        value = build(values)
        if value is MISSING:
            raise _refused((template,), "it has no value, and is the whole body")
        try:
            return start + encode(value) + end
        except UnicodeEncodeError:
            raise _refused((template,), "half a surrogate pair is no character") from None
        except PartFailure as failure:
            raise _refused((template,), failure.detail) from None

    return body


def _json(node: Any) -> Value | _Json:
    """Of what ``read_json_template`` makes: a constant, encoded already, or what gives a value."""
    if isinstance(node, tuple):
        if len(node) == 1 and isinstance(node[0], Placeholder):
            return compile_placeholder(node[0])
        return compile_text(node) if _named(node) else "".join(node)
    if isinstance(node, dict):
        members = [(name, _json(child)) for name, child in node.items()]
        if not any(callable(child) for _, child in members):
            return Raw(encode(dict(members)))  # type: ignore[arg-type]
        return lambda values: {
            name: value
            for name, child in members
            if (value := child(values) if callable(child) else child) is not MISSING
        }
    if isinstance(node, list):
        elements = [_json(child) for child in node]
        if not any(map(callable, elements)):
            return Raw(encode(elements))  # type: ignore[arg-type]
        return lambda values: [
            value
            for child in elements
            if (value := child(values) if callable(child) else child) is not MISSING
        ]
    constant: Value = node
    return constant
