"""The admin API: which request does what. The resources are admin_resources', the HTTP is admin_http's."""

from __future__ import annotations

from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec
from msgspec import Struct

from fastgate.server.admin_guard import Caller, Guard
from fastgate.server.admin_resources import RESOURCES
from fastgate.server.admin_types import Call, Refusal, Reply, Request, Resource
from fastgate.server.operations import Operations, Outdated, ReloadError, Unavailable, UnknownName

__all__ = ["Api"]

QUERY_FIELDS: Final = 16
JSON: Final = (("Content-Type", "application/json"),)
T = TypeVar("T", bound=Struct)


class Api:
    """Requests to operations."""

    def __init__(self, operations: Operations, resources: tuple[Resource, ...] = RESOURCES) -> None:
        self._operations = operations
        self._resources = resources

    async def answer(self, request: Request, caller: Caller, guard: Guard) -> Reply:
        """What goes back. Raises Refusal."""
        guard.check_host(request, caller)
        raw_path, question, raw_query = request.target.partition(b"?")
        resource, names = self._find(request, raw_path, guard)
        if not resource.open:
            guard.check_page(request, caller)
        if resource.method != "GET" and not _is_json(request):
            raise Refusal(415, "what changes anything says Content-Type: application/json")
        call: Call[Any, Any] = Call(
            request,
            names,
            _query(resource, question, raw_query),
            _body(resource, request),
            caller.unix,
        )
        try:
            found = await resource.act(self._operations, call)
        except UnknownName as error:
            raise Refusal(404, str(error)) from error
        except Outdated as error:
            raise Refusal(412, str(error)) from error
        except Unavailable as error:
            raise Refusal(409, str(error)) from error
        except ReloadError as error:
            problems = [problem._asdict() for problem in error.problems]
            raise Refusal(422, str(error), more={"problems": problems}) from error
        if isinstance(found, Reply):
            return found
        return Reply(resource.status, msgspec.json.encode(found), JSON)

    def _find(self, request: Request, raw_path: bytes, guard: Guard) -> tuple[Resource, dict[str, str]]:
        segments = _segments(raw_path)
        there = [each for each in self._resources if _fits(each.segments, segments)]
        # Who may not ask is told nothing of what is there.
        if not any(each.open for each in there):
            guard.check_token(request)
        if not there:
            raise Refusal(404, "there is no such resource")
        for resource in there:
            if resource.method == request.method:
                pairs = zip(resource.segments, segments, strict=True)
                return resource, {word[1:-1]: given for word, given in pairs if word[:1] == "{"}
        allow = ", ".join(dict.fromkeys(each.method for each in there))
        raise Refusal(405, f"this resource takes {allow}", headers=(("Allow", allow),))


def _is_json(request: Request) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"


def _fits(pattern: tuple[str, ...], segments: tuple[str, ...]) -> bool:
    return len(pattern) == len(segments) and all(
        word[:1] == "{" or word == given for word, given in zip(pattern, segments, strict=True)
    )


def _segments(path: bytes) -> tuple[str, ...]:
    try:
        return tuple(unquote_to_bytes(segment).decode() for segment in path.split(b"/")[1:])
    except UnicodeDecodeError:
        raise Refusal(400, "the path is not UTF-8") from None


def _query(resource: Resource, question: bytes, raw: bytes) -> Struct | None:
    if resource.query is None:
        if question:
            raise Refusal(400, "this resource has no queries")
        return None
    try:
        pairs = parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, strict_parsing=bool(raw), encoding="utf-8",
            errors="strict", max_num_fields=QUERY_FIELDS,
        )  # fmt: skip
    except ValueError:
        raise Refusal(400, "the query can't be read") from None
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise Refusal(400, "a parameter of the query is there twice")
    try:
        return msgspec.convert(fields, resource.query, strict=False)
    except msgspec.ValidationError as error:
        raise Refusal(400, f"query: {error}") from error


def _body(resource: Resource, request: Request) -> Struct | None:
    if resource.body is None:
        if request.body:
            raise Refusal(400, "this request has no body")
        return None
    if not request.body and not resource.need_body:
        return None
    try:
        return msgspec.convert(_whole(msgspec.json.decode(request.body)), resource.body)
    except msgspec.ValidationError as error:
        raise Refusal(422, str(error)) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refusal(400, str(error)) from error


def _whole(value: object, depth: int = 3) -> object:
    """With 602.0 as the integer that it is to a JSON Schema; what lies deeper than ours stays."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict) and depth:
        return {key: _whole(item, depth - 1) for key, item in value.items()}
    return value
