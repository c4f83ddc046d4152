"""The admin API: which request does what. Endpoints: docs/operations.md; the HTTP is admin_http's."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar
from urllib.parse import unquote_to_bytes

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from fastgate.server.operations import (
    EndpointChange,
    Operations,
    ReloadError,
    UnknownName,
)
from fastgate.versions import versions

__all__ = ["Api", "Refusal", "Request"]

T = TypeVar("T")
FAILURES = 100  # that are told at once


class SplitChange(Struct, frozen=True, forbid_unknown_fields=True):
    weights: dict[str, Annotated[int, Meta(ge=0, le=10_000)]] | UnsetType = UNSET
    clear: str | UnsetType = UNSET


class Nothing(Struct, frozen=True, forbid_unknown_fields=True):
    """`{}`."""


class Request(Struct, frozen=True):
    """What came. ``target``: as sent; ``content_type``: "" where there is none."""

    method: str
    target: bytes
    content_type: str = ""
    body: bytes = b""


class Refusal(Exception):
    """A request that is answered with an error. ``more``: further members of the problem (RFC 9457);
    ``allow``: of a 405."""

    def __init__(
        self, status: int, detail: str, *, more: dict[str, Any] | None = None, allow: str = ""
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.more = more or {}
        self.allow = allow


class Api:
    """Requests to operations."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        # A path's segments, those in braces being names, and what each method does.
        self._endpoints: list[tuple[tuple[str, ...], dict[str, Callable[..., Awaitable[Any]]]]] = [
            (("upstreams",), {"GET": self._upstreams}),
            (("upstreams", "{}"), {"GET": self._upstream}),
            (("upstreams", "{}", "endpoints", "{}"), {"PUT": self._set_endpoint}),
            (("routes", "{}", "split"), {"GET": self._split, "PUT": self._set_split}),
            (("counters",), {"GET": self._counters}),
            (("requests", "{}"), {"GET": self._why}),
            (("failures",), {"GET": self._failures}),
            (("reload",), {"POST": self._reload}),
            (("version",), {"GET": self._version}),
        ]

    async def answer(self, request: Request) -> object:
        """What the body of the 200 is made of. Raises Refusal."""
        act, arguments = self._find(request)
        if request.method != "GET":
            if request.content_type.partition(";")[0].strip().lower() != "application/json":
                raise Refusal(415, "what changes anything says Content-Type: application/json")
            arguments = (*arguments, request.body)
        try:
            return await act(*arguments)
        except UnknownName as error:
            raise Refusal(404, str(error)) from error
        except ReloadError as error:
            problems = [problem._asdict() for problem in error.problems]
            raise Refusal(422, str(error), more={"problems": problems}) from error

    def _find(self, request: Request) -> tuple[Callable[..., Awaitable[Any]], tuple[Any, ...]]:
        segments = _segments(request.target)
        for pattern, methods in self._endpoints:
            pairs = list(zip(pattern, segments, strict=False))
            if len(pattern) == len(segments) and all(word in ("{}", given) for word, given in pairs):
                if request.method not in methods:
                    allow = ", ".join(methods)
                    raise Refusal(405, f"this resource takes {allow}", allow=allow)
                return methods[request.method], tuple(given for word, given in pairs if word == "{}")
        raise Refusal(404, "there is no such resource")

    # -- what each does

    async def _upstreams(self) -> object:
        return {"upstreams": await self._operations.upstreams()}

    async def _upstream(self, name: str) -> object:
        for upstream in await self._operations.upstreams():
            if upstream.name == name:
                return upstream
        raise UnknownName(f'no upstream is named "{name}"')

    async def _set_endpoint(self, upstream: str, address: str, body: bytes) -> object:
        change = _decode(body, EndpointChange)
        if change == EndpointChange():
            raise Refusal(422, "give `state`, `weight` or both")
        return await self._operations.set_endpoint(upstream, address, change)

    async def _split(self, route: str) -> object:
        return await self._operations.split(route)

    async def _set_split(self, route: str, body: bytes) -> object:
        change = _decode(body, SplitChange)
        if isinstance(change.weights, UnsetType) == isinstance(change.clear, UnsetType):
            raise Refusal(422, "give `weights` or `clear`, one of them")
        try:
            if not isinstance(change.clear, UnsetType):
                return await self._operations.clear_split(route, change.clear)
            assert not isinstance(change.weights, UnsetType)
            return await self._operations.set_split(route, change.weights)
        except ValueError as error:
            raise Refusal(422, str(error)) from error

    async def _counters(self) -> object:
        return await self._operations.count()

    async def _why(self, request_id: str) -> object:
        return await self._operations.why(request_id)

    async def _failures(self) -> object:
        return {"failures": await self._operations.failures(FAILURES)}

    async def _reload(self, body: bytes) -> object:
        if body:
            _decode(body, Nothing)
        return await self._operations.reload()

    async def _version(self) -> object:
        return {**versions(), "pid": os.getpid()}


def _segments(target: bytes) -> tuple[str, ...]:
    path, question, _ = target.partition(b"?")
    if question:
        raise Refusal(400, "the admin API has no queries")
    try:
        return tuple(unquote_to_bytes(segment).decode() for segment in path.split(b"/")[1:])
    except UnicodeDecodeError:
        raise Refusal(400, "the path is not UTF-8") from None


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise Refusal(422, str(error)) from error
    except msgspec.DecodeError as error:
        raise Refusal(400, str(error)) from error
