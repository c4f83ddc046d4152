"""The plugin: see the package."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal
from urllib.parse import unquote_plus

import orjson

from fastgate.plugins import Busy, Exchange, Host, Plugin, PluginConfig, Request, Response, doc
from fastgate.plugins.request_validation.documents import BadDocumentError, load_file, parse_json
from fastgate.plugins.request_validation.openapi import Match, MediaType, OpenApi
from fastgate.plugins.request_validation.parameters import Given, Types, decoded, read_query, scalar
from fastgate.plugins.request_validation.schemas import Schema, Violation

_CHARSET: Final = re.compile(r';\s*charset\s*=\s*"?([^";\s]*)', re.IGNORECASE)
_CHARSETS: Final = frozenset({"utf-8", "utf8", "us-ascii"})
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})
_FORM: Final = "application/x-www-form-urlencoded"


class RequestValidation(Plugin):
    """Refuses requests that do not have the form of a schema. Needs the extra ``fastgate[validation]``."""

    class Config(PluginConfig):
        schema: Annotated[
            str, doc("A JSON Schema (2020-12) that JSON bodies must match: JSON or YAML.", "file")
        ] = ""
        openapi: Annotated[str, doc("An OpenAPI document (3.0 or 3.1) instead: JSON or YAML.", "file")] = ""
        base_path: Annotated[
            str | None,
            doc("What stands before the document's paths; otherwise the path of its first server.", "path"),
        ] = None
        unknown: Annotated[
            Literal["refuse", "pass"], doc("What happens to requests that are no operation of the document.")
        ] = "refuse"
        unknown_query: Annotated[
            Literal["refuse", "pass"],
            doc("What happens to query parameters that the operation does not have."),
        ] = "pass"
        body_required: Annotated[
            bool, doc("With `schema`: whether POST, PUT and PATCH must have a body.")
        ] = True
        limit: Annotated[int, doc("Bytes of a body at most (413).", "size")] = 1024 * 1024
        max_depth: Annotated[int, doc("Levels of a JSON body at most.", ge=1, le=200)] = 64
        max_errors: Annotated[int, doc("Errors that an answer names at most.", ge=1, le=64)] = 8
        thread_above: Annotated[
            int, doc("Bodies larger than this are checked in a thread, so that others need not wait.", "size")
        ] = 32 * 1024

        check_interval: Annotated[
            int, doc("How often to look whether the file was replaced.", "duration", minimum=1_000_000)
        ] = 5 * 1_000_000_000

    config: Config

    @classmethod
    def check(cls, config: Config) -> Mapping[str, str]:
        if bool(config.schema) == bool(config.openapi):
            return {"": "needs either schema or openapi"}
        return {}

    async def provision(self, host: Host) -> None:
        self._host = host
        self._path = host.folder / (self.config.schema or self.config.openapi)
        self._schema: Schema | None = None
        self._api: OpenApi | None = None
        self._version = (0, 0, 0)
        await host.in_thread(self._refresh)
        host.spawn(self._watch(), "watch the file")

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self.config.check_interval / 1e9)
            try:
                if await self._host.in_thread(self._refresh):
                    self._host.log.info("%s was read anew", self._path.name)
            except (OSError, ValueError, Busy) as error:
                self._host.log.warning("%s stays as it was: %s", self._path.name, error)
                self._host.count("reload_failures")

    def _refresh(self) -> bool:
        """Reads the file if it is another than before. Raises OSError or ValueError; then nothing changes,
        and this version is not tried again."""
        stat = self._path.stat()
        version = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        if version == self._version:
            return False
        self._version = version
        document = load_file(self._path)
        if self.config.schema:
            self._schema = Schema(document)
        else:
            self._api = OpenApi(document, self.config.base_path)
        return True

    async def on_request(self, exchange: Exchange) -> Response | None:
        request = exchange.request
        try:
            if self._api is not None:
                return await self._operation(exchange, self._api)
            if request.has_body:
                return await self._body(exchange, (MediaType("application/json", self._schema, _NO_TYPES),))
        except Busy:
            return exchange.refuse(503, "overloaded", "no thread is free for the body")
        if self.config.body_required and request.method in _WITH_BODY:
            return self._refuse(exchange, [Violation("body", "", "is required")])
        return None

    async def _operation(self, exchange: Exchange, api: OpenApi) -> Response | None:
        request = exchange.request
        match = api.find(request.method, request.path)
        operation = match.operation if match else None
        if match is None or operation is None:
            if self.config.unknown == "pass":
                return None
            if match is None:
                return exchange.refuse(404, "request-invalid", "the document has no such path")
            allow = {"allow": ", ".join(match.methods)}
            return exchange.refuse(405, "request-invalid", "the path has no such method", headers=allow)
        wrong = self._parameters(request, match)
        if wrong:
            return self._refuse(exchange, wrong)
        if request.has_body:
            return await self._body(exchange, operation.media)
        if operation.body_required:
            return self._refuse(exchange, [Violation("body", "", "is required")])
        return None

    def _parameters(self, request: Request, match: Match) -> list[Violation]:
        operation, most = match.operation, self.config.max_errors
        assert operation is not None
        headers: dict[str, list[str]] = {}
        for name, value in request.headers.items():
            headers.setdefault(name, []).append(value)
        cookies = [
            (name, value)
            for field in headers.get("cookie", [])
            for name, _, value in (pair.strip(" \t").partition("=") for pair in field.split(";"))
        ]
        try:
            query = read_query(request.raw_query)
        except BadDocumentError as error:
            return [Violation("query", "", str(error))]
        size = len(request.target) + sum(len(value) for values in headers.values() for value in values)
        given = Given(match.values, query, headers, cookies, size)
        wrong: list[Violation] = []
        for parameter in operation.parameters:
            wrong += parameter.check(given, most)
        if self.config.unknown_query == "refuse":
            mine = [one for one in operation.parameters if one.place == "query"]
            known = frozenset().union(*(one.keys() for one in mine))
            deep = tuple(f"{one.name}[" for one in mine if one.style == "deepObject")
            names = dict.fromkeys(key for key, _ in query if key not in known and not key.startswith(deep))
            wrong += [Violation("query", name, "is not known here") for name in names]
        return wrong[:most]

    async def _body(self, exchange: Exchange, allowed: tuple[MediaType, ...]) -> Response | None:
        request, config = exchange.request, self.config
        if (request.content_length or 0) > config.limit:
            return exchange.refuse(413, "body-too-large", f"body over {config.limit} bytes")
        types = request.headers.get_all("content-type")
        media = _find(request.content_type, allowed) if len(types) == 1 else None
        if media is None:
            known = {"accept": ", ".join(one.range for one in allowed)} if allowed else {}
            return exchange.refuse(415, "request-invalid", "no such Content-Type here", headers=known)
        charset = _CHARSET.search(types[0])
        if "content-encoding" in request.headers or (charset and charset[1].lower() not in _CHARSETS):
            # The service would see another body than the one that was checked.
            return exchange.refuse(
                415, "request-invalid", "a body in a coding or charset that is not read here"
            )
        body = await request.read(config.limit)
        if media.schema is None:
            return None
        if len(body) > config.thread_above:
            wrong = await self._host.in_thread(self._judge, body, request.content_type, media)
        else:
            wrong = self._judge(body, request.content_type, media)
        return self._refuse(exchange, wrong) if wrong else None

    def _judge(self, body: bytes, content_type: str, media: MediaType) -> list[Violation]:
        """What is wrong with a body. Nothing is known of the form of media types other than these."""
        try:
            if _is_json(content_type):
                value = parse_json(body, self.config.max_depth)
            elif content_type == _FORM:
                value = _form(body, media.types)
            elif content_type.startswith("text/"):
                value = body.decode()
            else:
                return []
        except BadDocumentError as error:
            return [Violation("body", "", str(error))]
        except UnicodeDecodeError:
            return [Violation("body", "", "not UTF-8")]
        assert media.schema is not None
        return media.schema.check(value, len(body), self.config.max_errors)

    def _refuse(self, exchange: Exchange, wrong: list[Violation]) -> Response:
        first = wrong[0]
        shown = [one.shown() for one in wrong]
        # Names of members may be the client's: what a log line may hold is ASCII on one line.
        detail = ascii(f"{first.where} {shown[0].get('name') or first.at[:200]}: {shown[0]['message']}")[1:-1]
        answer = exchange.refuse(400, "request-invalid", detail)
        answer.body = orjson.dumps(orjson.loads(answer.body) | {"errors": shown})
        return answer


_NO_TYPES: Final = Types(frozenset())


def _is_json(content_type: str) -> bool:
    return content_type == "application/json" or content_type.endswith("+json")


def _find(content_type: str, allowed: tuple[MediaType, ...]) -> MediaType | None:
    """The most specific that holds it; ``application/json`` stands for its kin too."""
    kind, slash, _ = content_type.partition("/")
    if not slash:
        return None
    for wanted in (content_type, f"{kind}/*", "*/*"):
        for media in allowed:
            if media.range == wanted:
                return media
    if content_type.endswith("+json"):
        return next((media for media in allowed if media.range == "application/json"), None)
    return None


def _form(body: bytes, types: Types) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, raw in read_query(body.decode("latin-1")):
        wanted = types.properties.get(key)
        text = decoded(raw, unquote_plus)
        if wanted is not None and "array" in wanted.names:
            found.setdefault(key, []).append(scalar(text, wanted.items))
        elif key in found:
            raise BadDocumentError("a form gives one name several times")
        else:
            found[key] = scalar(text, wanted)
    return found
