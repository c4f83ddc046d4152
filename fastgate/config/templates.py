"""Texts with placeholders: what an aggregation's requests are made of.

    {path.NAME}              a {NAME} segment of `match.path`
    {query.NAME}             a parameter of the client's query, decoded; the first of that name
    {header.NAME}            a field of the client's request
    {cookie.NAME}            a cookie of it
    {body} {body.a.b}        its JSON body, or a value in that
    {method} {host} {client_ip} {request_id}
    {consumer.name} {consumer.plan}        the authenticated caller
    {claim.a.b}                            a claim of it
    {part.NAME} {part.NAME.a.b}            the decoded body of another part, as it came; a value in it
    {part_status.NAME} {part_header.NAME.FIELD}    the status of that answer, a field of it
    {item} {item.a.b} {index}              the element of `for_each`, or the one that `filter` looks at

"{{" and "}}" are braces. Behind "|" stands a type, to which a text is made: {query.limit|int}; there is
int, number, bool and string.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final, Literal, NamedTuple

from msgspec import Raw

from fastgate.config.json_paths import Path, read_path
from fastgate.config.problems import did_you_mean, quote
from fastgate.config.units import BadValue

__all__ = ["Placeholder", "Template", "placeholders_of", "read_json_template", "read_template"]

Cast = Literal["", "int", "number", "bool", "string"]
CASTS: Final = ("int", "number", "bool", "string")


class Placeholder(NamedTuple):
    """source: the word before the first dot. name: of a segment, parameter, field, cookie or part; "" for
    the others. path: within the JSON value; of ``part_header`` the field's name, in small letters."""

    source: str
    name: str = ""
    path: Path = ()
    cast: Cast = ""


Template = tuple[str | Placeholder, ...]

_NAMED: Final = ("path", "query", "header", "cookie")
_VALUES: Final = ("body", "item", "claim")
_PARTS: Final = ("part", "part_status", "part_header")
_PLAIN: Final = ("method", "host", "client_ip", "request_id", "index")
_CONSUMER: Final = ("name", "plan")
_WORDS: Final = (*_NAMED, *_VALUES, *_PARTS, *_PLAIN, "consumer")
_PIECE: Final = re.compile(r"\{\{|\}\}|\{((?:[^{}\"]|\"(?:[^\"\\]|\\.)*\")*)\}|[{}]")
_PART_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


def read_template(text: str) -> Template:
    """Its pieces, in order; neighbouring texts are joined. Raises BadValue."""
    pieces: list[str | Placeholder] = []
    at = 0

    def put(piece: str) -> None:
        if piece and pieces and isinstance(pieces[-1], str):
            pieces[-1] += piece
        elif piece:
            pieces.append(piece)

    for match in _PIECE.finditer(text):
        put(text[at : match.start()])
        at = match.end()
        if match[0] in ("{{", "}}"):
            put(match[0][0])
        elif match[1] is None:
            raise BadValue(
                f"{quote(text)} has a single brace at character {match.start() + 1}",
                '"{{" and "}}" stand for braces',
            )
        else:
            pieces.append(_placeholder(match[1]))
    put(text[at:])
    return tuple(pieces)


def _placeholder(text: str) -> Placeholder:
    inner, bar, cast = text.rpartition("|") if "|" in text else (text, "", "")
    if bar and cast.strip() not in CASTS:
        raise BadValue(f"{{{text}}}: {quote(cast.strip())} is no type", did_you_mean(cast.strip(), CASTS))
    word, dot, rest = inner.strip().partition(".")
    if word.partition("[")[0] in ("body", "item") and "[" in word:  # {item[0]}
        word, dot, rest = word.partition("[")[0], ".", inner.strip()[len(word.partition("[")[0]) :]
    made = _read(word, dot, rest, text)
    return made._replace(cast=cast.strip())  # type: ignore[arg-type]  # one of CASTS, or ""


def _read(word: str, dot: str, rest: str, text: str) -> Placeholder:
    if word not in _WORDS:
        raise BadValue(
            f"there is no placeholder {{{text}}}",
            did_you_mean(word, _WORDS) or f"a segment of the path is {{path.{word}}}",
        )
    if word in _PLAIN:
        if dot:
            raise BadValue(f"{{{text}}}: {word} has no members", f"did you mean {{{word}}}?")
        return Placeholder(word)
    if word in ("body", "item") and not dot:
        return Placeholder(word)
    if not rest:
        raise BadValue(f"{{{text}}}: of what? Expected {{{word}.NAME}}")
    if word in _NAMED:
        return Placeholder(word, _unquoted(rest).lower() if word == "header" else _unquoted(rest))
    if word == "consumer":
        if rest not in _CONSUMER:
            raise BadValue(f"there is no placeholder {{{text}}}", did_you_mean(rest, _CONSUMER))
        return Placeholder(word, rest)
    if word in _VALUES:
        return Placeholder(word, "", read_path(rest, each=False))
    name = _PART_NAME.match(rest)
    if name is None:
        raise BadValue(f"{{{text}}}: expected the name of a part behind {quote(word + '.')}")
    behind = rest[name.end() :]
    if word == "part_status" and behind:
        raise BadValue(f"{{{text}}}: a status has no members")
    if word == "part_header":
        if not behind.startswith(".") or len(behind) == 1:
            raise BadValue(f"{{{text}}}: expected {{part_header.PART.FIELD}}")
        return Placeholder(word, name[0], (_unquoted(behind[1:]).lower(),))
    if behind and not behind.startswith((".", "[")):
        raise BadValue(f"{{{text}}}: expected a dot behind the part {quote(name[0])}")
    return Placeholder(word, name[0], read_path(behind.removeprefix("."), each=False))


def _unquoted(text: str) -> str:
    if len(text) > 2 and text[0] == text[-1] == '"':
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    return text


def placeholders_of(template: Any) -> Iterator[Placeholder]:
    """All in a template, or in what ``read_json_template`` has made."""
    if isinstance(template, Placeholder):
        yield template
    elif isinstance(template, tuple | list):
        for piece in template:
            yield from placeholders_of(piece)
    elif isinstance(template, dict):
        for value in template.values():
            yield from placeholders_of(value)


def read_json_template(text: str) -> Any:
    """A JSON document as dict, list, bool and None; each string of it is a Template, each number
    ``msgspec.Raw``, so that it stays as it is written. Raises BadValue."""
    try:
        return _strings(
            json.loads(text, parse_constant=_no_constant, parse_int=_number, parse_float=_number), 0
        )
    except RecursionError:
        raise BadValue("the JSON is nested too deep") from None
    except json.JSONDecodeError as error:
        raise BadValue(f"no JSON: {error.msg} (line {error.lineno}, character {error.colno} of it)") from None


def _strings(value: Any, depth: int) -> Any:
    if depth > 32:
        raise BadValue("the JSON is nested too deep")
    if isinstance(value, str):
        return read_template(value)
    if isinstance(value, list):
        return [_strings(one, depth + 1) for one in value]
    if isinstance(value, dict):
        return {name: _strings(one, depth + 1) for name, one in value.items()}
    return value


def _number(text: str) -> Raw:
    return Raw(text.encode())


def _no_constant(text: str) -> None:
    raise BadValue(f"{text} is no JSON (RFC 8259 6)")


# -- forms of keys -------------------------------------------------------------------------------------------


def parse_template(text: str, options: dict[str, Any]) -> str:
    read_template(text)
    return text


def parse_template_json(text: str, options: dict[str, Any]) -> str:
    read_json_template(text)
    return text


def parse_template_path(text: str, options: dict[str, Any]) -> str:
    """Of an aggregation's request: its own text is as it is sent, what placeholders give is encoded."""
    pieces = read_template(text)
    if not pieces or not isinstance(pieces[0], str) or not pieces[0].startswith("/"):
        raise BadValue(f'a path begins with "/", got {quote(text)}')
    own = "".join(piece for piece in pieces if isinstance(piece, str))
    bad = re.search(r"[^!-~]|[?#\"<>\\^`|]", own)
    if bad:
        hint = "parameters stand in `query`" if bad[0] == "?" else "other characters are percent-encoded"
        raise BadValue(f"{quote(text)}: no path has {quote(bad[0])} (RFC 3986 3.3)", hint)
    return text


def parse_json(text: str, options: dict[str, Any]) -> str:
    """A JSON document without placeholders."""
    try:
        json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise BadValue("the JSON is nested too deep") from None
    except json.JSONDecodeError as error:
        raise BadValue(f"no JSON: {error.msg} (character {error.colno} of it)") from None
    return text


def parse_part_name(text: str, options: dict[str, Any]) -> str:
    if not _PART_NAME.fullmatch(text):
        raise BadValue(
            f"{quote(text)} is no name of a part: a letter or _, then letters, digits, _ and -, 64 at most"
        )
    return text


def parse_failure_class(text: str, options: dict[str, Any]) -> str:
    if not re.fullmatch(r"[1-5][0-9]{2}|[1-5]xx|timeout|failure", text):
        raise BadValue(f'expected a status as "404", "4xx", "timeout" or "failure", got {quote(text)}')
    return text
