"""What the admin API is made of: what comes, what goes back, and a row of the table of resources."""

from __future__ import annotations

import http
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Generic, NamedTuple, TypeVar

import msgspec
from msgspec import Struct

from fastgate.server.operations import Operations

__all__ = ["Call", "Problem", "Refusal", "Reply", "Request", "Resource", "expected", "problem"]

Query = TypeVar("Query")
Body = TypeVar("Body")
_ETAG: Final = re.compile(r'"[!#-~]*"')


class Request(Struct, frozen=True):
    """What came. ``target``: as sent; ``headers``: by their names in small letters, of several the first."""

    method: str
    target: bytes
    headers: Mapping[str, str] = {}
    body: bytes = b""


class Reply(Struct, frozen=True):
    """What goes back. ``headers`` stand beside those that every answer has; Content-Type is among them."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


class Refusal(Exception):
    """A request that is answered with an error. ``more``: further members of the problem (RFC 9457);
    ``headers``: such as the Allow of a 405."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        more: Mapping[str, Any] | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.more = more or {}
        self.headers = headers


class Problem(Struct, frozen=True, kw_only=True):
    """An error (RFC 9457). A refused reload has also `problems`: what is wrong with the file."""

    type: str
    title: str
    status: int
    detail: str
    problems: list[dict[str, str | int]] = []


def problem(refusal: Refusal) -> Reply:
    body = {
        "type": "about:blank",
        "title": http.HTTPStatus(refusal.status).phrase,
        "status": refusal.status,
        "detail": str(refusal),
        **refusal.more,
    }
    headers = (("Content-Type", "application/problem+json"), *refusal.headers)
    return Reply(refusal.status, msgspec.json.encode(body), headers)


class Call(NamedTuple, Generic[Query, Body]):
    """A request that fits a row of the table. ``names``: what stood in the place of each {name} of its path;
    ``query`` and ``body``: of the row's types, None where it has none. ``owner``: whether the caller may
    read the gateway's files anyway: it has reached a Unix socket."""

    request: Request
    names: dict[str, str]
    query: Query
    body: Body
    owner: bool = False


def expected(call: Call[Any, Any]) -> str | None:
    """If-Match (RFC 9110 13.1.1). "*" is any, and there is always one."""
    given = call.request.headers.get("if-match")
    if given is None or given == "*":
        return None
    if not _ETAG.fullmatch(given):
        raise Refusal(400, 'If-Match is one ETag in quotes, or "*"')
    return given


class Resource(Struct, frozen=True, kw_only=True):
    """A row of the table: what one method does on one path.

    path: with names in braces, each of them a whole segment. act: gives what the JSON of the answer is made
    of, or a Reply. answer: the type of that, for the description; None: it is no JSON, but ``media``. body,
    query: types (of a Struct) of what may be given; ``need_body``: whether an empty one is refused. open: it
    needs no token. conditional: it minds If-Match. errors: statuses beside those that follow from the rest.
    """

    method: str
    path: str
    summary: str
    act: Callable[[Operations, Call[Any, Any]], Awaitable[object]]
    answer: Any
    status: int = 200
    media: str = "application/json"
    body: type[Struct] | None = None
    need_body: bool = True
    query: type[Struct] | None = None
    open: bool = False
    conditional: bool = False
    errors: tuple[int, ...] = ()

    @property
    def segments(self) -> tuple[str, ...]:
        return tuple(self.path.split("/")[1:])
