"""Limits of one route's requests, below those of the listener: URL, headers, cookies, body, media types."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from fastgate.plugins import Exchange, Headers, Plugin, PluginConfig, Request, Response, doc

_MEDIA: Final = re.compile(r"[a-z0-9!#$&^_.+-]+/(?:\*|\*\+[a-z0-9.-]+|[a-z0-9!#$&^_.+-]+)")


class Size(Plugin):
    """Refuses what is larger than its service needs."""

    class Config(PluginConfig):
        url: Annotated[int | None, doc("Bytes of path and query, as received.", "size")] = None
        query_parameters: Annotated[int | None, doc("Parameters in the query.", ge=0)] = None
        headers: Annotated[int | None, doc("Header fields.", ge=1)] = None
        header_bytes: Annotated[int | None, doc("Bytes of all header fields, names and values.", "size")] = (
            None
        )
        field_bytes: Annotated[int | None, doc("Bytes of one header field.", "size")] = None
        cookies: Annotated[int | None, doc("Cookies.", ge=0)] = None
        body: Annotated[int | None, doc("Bytes of the body.", "size")] = None
        unknown_length: Annotated[
            Literal["read", "refuse", "pass"],
            doc(
                "What to do, with a limit of the body, if a body's length is not told beforehand (chunked): "
                "read it first, refuse it (411), or let it pass unchecked."
            ),
        ] = "read"
        content_types: Annotated[
            tuple[str, ...],
            doc(
                "Media types that bodies may have, such as `application/json`, `image/*` or "
                "`application/*+json`.",
                one_or_many=True,
            ),
        ] = ()

    config: Config

    @classmethod
    def check(cls, config: Config) -> Mapping[str, str]:
        return {
            f"content_types.{at}": "expected a media type such as application/json or image/*"
            for at, text in enumerate(config.content_types)
            if not _MEDIA.fullmatch(text.lower())
        }

    def __init__(self, config: Config, name: str) -> None:
        super().__init__(config, name)
        self._media = tuple(text.lower() for text in config.content_types)
        limits = (config.headers, config.header_bytes, config.field_bytes, config.cookies)
        self._looks_at_fields = any(limit is not None for limit in limits)

    async def on_request(self, exchange: Exchange) -> Response | None:
        config, request = self.config, exchange.request
        if config.url is not None and len(request.target) > config.url:
            return exchange.refuse(414, "request-line-too-long", f"URL over {config.url} bytes")
        most = config.query_parameters
        if most is not None and _parameters(request.raw_query) > most:
            return exchange.refuse(414, "request-line-too-long", f"more than {most} query parameters")
        if self._looks_at_fields:
            wrong = self._fields(request.headers)
            if wrong:
                return exchange.refuse(431, *wrong)
        return await self._body(exchange, request) if request.has_body else None

    def _fields(self, headers: Headers) -> tuple[str, str] | None:
        config, fields = self.config, headers.items()
        if config.headers is not None and len(fields) > config.headers:
            return "header-too-many", f"more than {config.headers} fields"
        sizes = [len(name) + len(value) for name, value in fields]
        if config.field_bytes is not None and max(sizes, default=0) > config.field_bytes:
            return "header-too-large", f"a field over {config.field_bytes} bytes"
        if config.header_bytes is not None and sum(sizes) > config.header_bytes:
            return "header-too-large", f"header over {config.header_bytes} bytes"
        if config.cookies is not None:
            pairs = (pair for value in headers.get_all("cookie") for pair in value.split(";"))
            if sum(1 for pair in pairs if pair.strip()) > config.cookies:
                return "header-too-large", f"more than {config.cookies} cookies"
        return None

    async def _body(self, exchange: Exchange, request: Request) -> Response | None:
        limit, length = self.config.body, request.content_length
        if self._media and not _is_one_of(request, self._media):
            # RFC 9110 15.5.16: the answer may say what would do.
            accept = {"accept": ", ".join(self._media)}
            return exchange.refuse(415, "request-invalid", "Content-Type is not allowed", headers=accept)
        if limit is None:
            return None
        if length is not None:
            if length > limit:
                return exchange.refuse(413, "body-too-large", f"body over {limit} bytes")
        elif self.config.unknown_length == "refuse":
            return exchange.refuse(411, "request-invalid", "no Content-Length")
        elif self.config.unknown_length == "read":
            await request.read(limit)
        return None


def _parameters(query: str) -> int:
    return query.count("&") + 1 if query else 0


def _is_one_of(request: Request, allowed: tuple[str, ...]) -> bool:
    if len(request.headers.get_all("content-type")) != 1:
        return False  # which of two the service would read is not known
    media = request.content_type
    kind, slash, subtype = media.partition("/")
    if not slash:
        return False
    suffix = f"{kind}/*+{subtype.rpartition('+')[2]}" if "+" in subtype else ""
    return media in allowed or f"{kind}/*" in allowed or suffix in allowed
