"""What an HTTP message signature signs (RFC 9421 2): the components of a request, line by line."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qsl, quote

from fastgate.plugins import Request
from fastgate.plugins._structured import (
    FieldError,
    InnerList,
    Item,
    parse_dictionary,
    parse_item,
    parse_list,
    write_bare,
    write_dictionary,
    write_list,
    write_member,
)


class SignatureError(ValueError):
    """Why a signature does not count."""


MAX_COMPONENTS: Final = 64

#: What covers others: who signed the whole has signed its parts.
COVERS: Final = {
    "@target-uri": frozenset({"@scheme", "@authority", "@path", "@query"}),
    "@request-target": frozenset({"@path", "@query"}),
}
# Field names are in lower case here (RFC 9421 2.1).
_FIELD: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-z]+")
_ABSOLUTE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[^/?]*")
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}
# ";sf" writes a field anew and needs its type (RFC 9421 2.1.1): these are the ones we know.
_DICTIONARIES: Final = frozenset(
    {"content-digest", "repr-digest", "want-content-digest", "want-repr-digest", "signature",
     "signature-input", "accept-signature", "priority", "cdn-cache-control"}
)  # fmt: skip
_LISTS: Final = frozenset({"accept-ch", "cache-status", "proxy-status", "client-cert-chain"})
_ITEMS: Final = frozenset({"client-cert", "idempotency-key"})


def signature_base(request: Request, covered: InnerList) -> bytes:
    """RFC 9421 2.5. Raises SignatureError."""
    if len(covered.items) > MAX_COMPONENTS:
        raise SignatureError(f"more than {MAX_COMPONENTS} covered components")
    lines: dict[str, str] = {}
    # Order of parameters makes no other component (RFC 9421 2), so duplicates are found without it.
    seen = set()
    for item in covered.items:
        identifier = write_member(item)
        what = (item.value, frozenset(item.params.items()))
        if what in seen:
            raise SignatureError(f"{identifier} is covered twice")
        seen.add(what)
        lines[identifier] = component_value(request, item)
    # A line feed in a value would let it pose as another component; no header or target has one here.
    text = "".join(f"{identifier}: {value}\n" for identifier, value in lines.items())
    text += f'"@signature-params": {write_member(covered)}'
    try:
        return text.encode("ascii")
    except UnicodeEncodeError:
        raise SignatureError("a covered component is not ASCII; `bs` may sign it") from None


def component_value(request: Request, item: Item) -> str:
    """RFC 9421 2.1 and 2.2. Raises SignatureError for what the request does not have or we do not support."""
    name = item.value
    if type(name) is not str:
        raise SignatureError("a covered component is no string")
    if not name.startswith("@"):
        return _field(request, name, item)
    if name == "@query-param":
        return _query_param(request, item)
    derive = _DERIVED.get(name)
    if derive is None:
        raise SignatureError(f"{name} is no component of a request that this gateway knows")
    if item.params:
        raise SignatureError(f"{name} has parameters that it does not take")
    return derive(request)


def is_component(name: str) -> bool:
    """Whether it may be asked for by its bare name."""
    return name in _DERIVED or _FIELD.fullmatch(name) is not None


def _field(request: Request, name: str, item: Item) -> str:
    if not _FIELD.fullmatch(name):
        raise SignatureError("a covered component is no field name in lower case")
    values = [value.strip(" \t") for value in request.headers.get_all(name)]
    if not values:
        raise SignatureError(f"the covered field {name} is not in the request")
    joined = ", ".join(values)
    match dict(item.params):
        case {} as none if not none:
            return joined
        case {"bs": True, **rest} if not rest:
            return ", ".join(write_bare(value.encode("latin-1")) for value in values)
        case {"sf": True, **rest} if not rest:
            return _rewritten(name, joined)
        case {"key": key, **rest} if type(key) is str and rest in ({}, {"sf": True}):
            return _dictionary_member(name, joined, key)
    # `req` is for responses and `tr` for trailers (RFC 9421 2.1.4, 2.4), which have not arrived yet.
    raise SignatureError(f"{name} has parameters that are not supported: sf, bs and key are, each alone")


def _rewritten(name: str, text: str) -> str:
    try:
        if name in _DICTIONARIES:
            return write_dictionary(parse_dictionary(text))
        if name in _LISTS:
            return write_list(parse_list(text))
        if name in _ITEMS:
            return write_member(parse_item(text))
    except FieldError as error:
        raise SignatureError(f"the field {name} is not structured: {error}") from None
    raise SignatureError(f"{name};sf: the field's type is not known")


def _dictionary_member(name: str, text: str, key: str) -> str:
    try:
        members = parse_dictionary(text)
    except FieldError as error:
        raise SignatureError(f"the field {name} is no dictionary: {error}") from None
    if key not in members:
        raise SignatureError(f"the field {name} has not the member that is covered")
    return write_member(members[key])


def _query_param(request: Request, item: Item) -> str:
    """RFC 9421 2.2.8."""
    wanted = item.params.get("name")
    if set(item.params) != {"name"} or type(wanted) is not str:
        raise SignatureError("@query-param needs its name, and nothing else")
    pairs = parse_qsl(_target(request)[1][1:], keep_blank_values=True, errors="surrogateescape")
    values = [_form_quoted(value) for name, value in pairs if _form_quoted(name) == wanted]
    if len(values) != 1:
        raise SignatureError(f"@query-param: the parameter stands {len(values)} times in the query, not once")
    return values[0]


def _form_quoted(text: str) -> str:
    """The percent-encode set of application/x-www-form-urlencoded, with %20 for a space."""
    return quote(text, safe="*", errors="surrogateescape").replace("~", "%7E")


def _authority(request: Request) -> str:
    """In the normal form of RFC 9110 4.2.3: lower case, without the scheme's own port."""
    return request.authority.lower().removesuffix(_DEFAULT_PORTS.get(request.scheme, ""))


def _target(request: Request) -> tuple[str, str]:
    """Path, and query with its "?" ("" where there is none), of the target as it was received: that is what
    the client has signed, whatever a plugin or a rewrite has made of it."""
    target = request.target
    if not target.startswith("/"):
        absolute = _ABSOLUTE.match(target)
        target = target[absolute.end() :] if absolute else ""
    path, mark, query = target.partition("?")
    return path or "/", mark + query


_DERIVED: Final[dict[str, Callable[[Request], str]]] = {
    "@method": lambda request: request.method,
    "@target-uri": lambda request: f"{request.scheme}://{_authority(request)}{''.join(_target(request))}",
    "@authority": _authority,
    "@scheme": lambda request: request.scheme,
    "@request-target": lambda request: request.target,
    "@path": lambda request: _target(request)[0],
    "@query": lambda request: _target(request)[1] or "?",
}
