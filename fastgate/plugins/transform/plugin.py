"""The plugin: see the package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Final, Literal

from fastgate.plugins import Busy, Exchange, Headers, Host, Plugin, PluginConfig, Response, doc
from fastgate.plugins.transform.json_steps import JsonDocumentError, JsonStep, change_json, check_step
from fastgate.plugins.transform.rules import (
    HeaderChange,
    HeaderRules,
    QueryChange,
    QueryRules,
    bad_headers,
    bad_template,
)
from fastgate.plugins.transform.templates import Template, TooLongError

# Beyond this a JSON body is read and written in a thread.
THREAD_BYTES: Final = 64 * 1024


class RequestRules(PluginConfig):
    """Changes to the request."""

    headers: Annotated[HeaderRules, doc("Header fields.")] = HeaderRules()
    query: Annotated[QueryRules, doc("Query parameters.")] = QueryRules()
    json: Annotated[tuple[JsonStep, ...], doc("Steps on a JSON body, one after the other.")] = ()


class ResponseRules(PluginConfig):
    """Changes to the answer."""

    headers: Annotated[HeaderRules, doc("Header fields.")] = HeaderRules()
    json: Annotated[
        tuple[JsonStep, ...],
        doc("Steps on a JSON body. With any, every answer of the route is held whole, up to `limit`."),
    ] = ()


class Transform(Plugin):
    """Changes what goes to the service and what comes back."""

    class Config(PluginConfig):
        request: Annotated[RequestRules, doc("Changes to the request.")] = RequestRules()
        response: Annotated[ResponseRules, doc("Changes to the answer.")] = ResponseRules()
        limit: Annotated[
            int, doc("Bytes of a JSON body at most: of requests 413, of answers 502.", "size")
        ] = 1024 * 1024
        content_types: Annotated[
            tuple[str, ...],
            doc("Media types that count as JSON, besides all that end in `+json`.", one_or_many=True),
        ] = ("application/json",)
        no_compression: Annotated[
            bool, doc("Ask the service for bodies that are not compressed: others are left as they are.")
        ] = False

    config: Config
    # As long as there are steps for it; else the instance says "none".
    response_body: ClassVar[Literal["none", "chunks", "buffered"]] = "buffered"

    @classmethod
    def check(cls, config: Config) -> Mapping[str, str]:
        wrong: dict[str, str] = {}
        for side, rules in (("request", config.request), ("response", config.response)):
            wrong.update(bad_headers(f"{side}.headers", rules.headers))
            for at, step in enumerate(rules.json):
                bad = check_step(step)
                if bad:
                    wrong[f"{side}.json.{at}.{bad[0]}"] = bad[1]
        for key in ("set", "add"):
            for name, value in getattr(config.request.query, key).items():
                if bad_text := bad_template(value):
                    wrong[f"request.query.{key}.{name}"] = bad_text
        return wrong

    @classmethod
    def identity_headers(cls, config: Config) -> tuple[str, ...]:
        rules = config.request.headers
        return tuple(
            name for name, value in (*rules.set.items(), *rules.add.items()) if Template(value).tells_who
        )

    def __init__(self, config: Config, name: str) -> None:
        super().__init__(config, name)
        if not config.response.json:
            self.response_body = "none"  # type: ignore[misc]
        self.body_limit = config.limit  # type: ignore[misc]
        self._media = frozenset(text.lower() for text in config.content_types)
        self._request_headers = HeaderChange(config.request.headers)
        self._response_headers = HeaderChange(config.response.headers)
        self._query = QueryChange(config.request.query)

    def provision(self, host: Host) -> None:
        self._host = host

    async def on_request(self, exchange: Exchange) -> Response | None:
        request, config = exchange.request, self.config
        try:
            if config.request.json and request.has_body and self._is_json(request.headers):
                if (request.content_length or 0) > config.limit:
                    return exchange.refuse(413, "body-too-large", f"JSON body over {config.limit} bytes")
                body = await request.read(config.limit)
                request.body = await self._changed(config.request.json, body, exchange)
            self._query.apply(request, exchange)
            self._request_headers.apply(request.headers, exchange)
        except JsonDocumentError as error:
            return exchange.refuse(400, "request-invalid", f"JSON body: {error}")
        except TooLongError as error:
            return exchange.refuse(400, "request-invalid", str(error))
        except Busy:
            return exchange.refuse(503, "overloaded", "no thread is free for the body")
        if config.no_compression:
            request.headers["accept-encoding"] = "identity"
        if config.response.json:
            # A part of a JSON document can't be changed by path.
            del request.headers["range"]
            del request.headers["if-range"]
        return None

    def on_response(self, exchange: Exchange, response: Response) -> None:
        if self.config.response.json and self._is_json(response.headers):
            # They speak of the body as it was (RFC 9110 8.8, RFC 9530).
            for name in ("etag", "content-md5", "digest", "content-digest", "repr-digest", "accept-ranges"):
                del response.headers[name]
        try:
            self._response_headers.apply(response.headers, exchange)
        except TooLongError as error:
            self._host.log.warning("answer %s: %s", exchange.id, error)

    async def on_response_body(self, exchange: Exchange, chunk: bytes, end: bool) -> bytes:
        response = exchange.response
        if response is None or not chunk or not self._is_json(response.headers):
            return chunk
        try:
            return await self._changed(self.config.response.json, chunk, exchange)
        except (JsonDocumentError, TooLongError, Busy) as error:
            self._host.count("unchanged_answers")
            self._host.log.warning("answer %s is left as it is: %s", exchange.id, error)
            return chunk

    async def _changed(self, steps: tuple[JsonStep, ...], body: bytes, exchange: Exchange) -> bytes:
        values = {name: Template(text)(exchange) for name, text in _texts(steps)}
        if len(body) <= THREAD_BYTES:
            return change_json(body, steps, values)
        return await self._host.in_thread(change_json, body, steps, values)

    def _is_json(self, headers: Headers) -> bool:
        types = headers.get_all("content-type")
        if len(types) != 1 or "content-encoding" in headers:
            return False
        media = types[0].partition(";")[0].strip().lower()
        return media in self._media or media.endswith("+json")


def _texts(steps: tuple[JsonStep, ...]) -> list[tuple[str, str]]:
    return [(step.value, step.value) for step in steps if step.value is not None]
