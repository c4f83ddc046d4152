"""``forward-auth``: a service of yours is asked whether a request may pass."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from typing import Annotated, Final, NamedTuple

from fastgate.plugins import (
    Consumer,
    Exchange,
    Headers,
    Host,
    Plugin,
    PluginConfig,
    Response,
    SubrequestError,
    SubResponse,
    doc,
)
from fastgate.plugins._consumers import SECOND
from fastgate.plugins._ttl import TtlCache

_CACHED: Final = 10_000
_MAX_GROUPS: Final = 256
# Fields that are not copied to the question: those of the connection (RFC 9110 7.6.1) and of the body, which
# is not sent; what would make the answer something else than a decision (a 304, a part, a packed body); and
# what others say of the client, which the gateway says itself.
_NOT_ASKED: Final = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
     "http2-settings", "content-length", "content-encoding", "content-range", "expect", "host", "range",
     "if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range", "accept-encoding",
     "forwarded", "x-real-ip", "via", "x-request-id", "max-forwards"}
)  # fmt: skip


class ForwardAuthConfig(PluginConfig, frozen=True, kw_only=True):
    upstream: Annotated[str, doc("The upstream that is asked.", "upstream-ref")]
    path: Annotated[str, doc("Its path.", "path")] = "/"
    method: Annotated[str, doc("The method of the question.", "method")] = "GET"
    answer_timeout: Annotated[int, doc("How long to wait for the answer.", "duration")] = 3 * SECOND
    request_headers: Annotated[
        tuple[str, ...],
        doc(
            "Request headers that are sent along; empty: all but those of the connection and the body.",
            "header-name",
        ),
    ] = ()
    response_headers: Annotated[
        tuple[str, ...],
        doc("Headers of a 2xx answer that the request gets for its service.", "set-header-name"),
    ] = ()
    consumer_header: Annotated[
        str, doc("Header of a 2xx answer that names the consumer.", "header-name", empty=True)
    ] = ""
    groups_header: Annotated[
        str,
        doc("Header of a 2xx answer with the consumer's groups, between commas.", "header-name", empty=True),
    ] = ""
    client_headers: Annotated[
        tuple[str, ...], doc("Headers of any other answer that the client gets with it.", "set-header-name")
    ] = (
        "www-authenticate", "location", "set-cookie", "content-type", "content-language", "cache-control",
        "retry-after",
    )  # fmt: skip
    add_cookies: Annotated[
        tuple[str, ...],
        doc(
            "Cookies that a 2xx answer sets and the client gets, with the service's response.", "cookie-name"
        ),
    ] = ()
    cache_ttl: Annotated[
        int,
        doc('How long a 2xx answer counts for the same question again; "0s": it is not kept.', "duration"),
    ] = 0
    cache_by: Annotated[
        tuple[str, ...],
        doc(
            "Request headers that the answer depends on, beside method, host, path and query.", "header-name"
        ),
    ] = ()
    body_limit: Annotated[
        int, doc("An answer's body up to this is given to the client; a longer one is left out.", "size")
    ] = 64 << 10


class _Passed(NamedTuple):
    """What a 2xx answer says."""

    headers: tuple[tuple[str, str], ...]
    consumer: Consumer | None


class ForwardAuth(Plugin):
    """Lets in what a service of yours lets in."""

    Config = ForwardAuthConfig
    config: ForwardAuthConfig

    @classmethod
    def check(cls, config: ForwardAuthConfig) -> Mapping[str, str]:
        if config.groups_header and not config.consumer_header:
            return {"groups_header": "groups are those of a consumer: set `consumer_header` too"}
        if config.cache_ttl and not config.cache_by:
            return {
                "cache_by": "name the headers that the answer depends on, such as authorization and cookie"
            }
        return {}

    @classmethod
    def identity_headers(cls, config: ForwardAuthConfig) -> tuple[str, ...]:
        # A field that the question is about must reach it, though the answer may replace it for the service.
        asked = {"authorization", "cookie", *config.request_headers, *config.cache_by}
        return tuple(name for name in config.response_headers if name.lower() not in asked)

    def provision(self, host: Host) -> None:
        self._clock = host.clock
        self._cache = TtlCache[bytes, _Passed](self.config.cache_ttl / SECOND, _CACHED)
        self._key = secrets.token_bytes(32)
        self._cookies = f"{self.name}.cookies"

    async def on_request(self, exchange: Exchange) -> Response | None:
        key = self._cache_key(exchange) if self.config.cache_ttl else b""
        now = self._clock.monotonic()
        passed = self._cache.get(key, now) if key else None
        if passed is None:
            try:
                answer = await exchange.subrequest(
                    self.config.upstream,
                    method=self.config.method,
                    path=self.config.path,
                    headers=self._question(exchange),
                    timeout=self.config.answer_timeout / SECOND,
                    limit=self.config.body_limit,
                )
            except SubrequestError as error:
                return exchange.refuse(503, "authentication-unavailable", f"{self.config.upstream}: {error}")
            if answer.status >= 500:
                # It has not refused: it could not decide.
                detail = f"{self.config.upstream} answered {answer.status}"
                return exchange.refuse(503, "authentication-unavailable", detail)
            if not 200 <= answer.status < 300:
                return self._refused(exchange, answer)
            passed = self._passed(answer)
            cookies = self._added(answer.headers)
            if cookies:
                exchange.context[self._cookies] = cookies
            elif key:
                # One with cookies is for this one client.
                self._cache.put(key, passed, now)
        headers = exchange.request.headers
        for name in self.config.response_headers:
            del headers[name]
        for name, value in passed.headers:
            headers.add(name, value)
        if passed.consumer:
            exchange.consumer = passed.consumer
        return None

    def on_response(self, exchange: Exchange, response: Response) -> None:
        for cookie in exchange.context.get(self._cookies, ()):
            response.headers.add("set-cookie", cookie)

    def _question(self, exchange: Exchange) -> dict[str, str]:
        request = exchange.request
        fields: dict[str, str] = {}
        for name in self.config.request_headers or request.headers:
            # A service may read "_" as "-": what the gateway says must not come from the client in disguise.
            plain = name.replace("_", "-")
            if name in request.headers and plain not in _NOT_ASKED and not plain.startswith("x-forwarded-"):
                fields[name] = ("; " if name == "cookie" else ", ").join(request.headers.get_all(name))
        query = f"?{request.raw_query}" if request.raw_query else ""
        return fields | {
            "x-forwarded-method": request.method,
            "x-forwarded-proto": request.scheme,
            "x-forwarded-host": request.authority,
            # In the normal form, which the route was matched with: one reading for all.
            "x-forwarded-uri": f"{request.path}{query}",
            "x-forwarded-for": exchange.client_ip,
        }

    def _refused(self, exchange: Exchange, answer: SubResponse) -> Response:
        wanted = {name.lower() for name in self.config.client_headers}
        kept = [(name, value) for name, value in answer.headers.items() if name in wanted]
        detail = f"{self.config.upstream} answered {answer.status}"
        response = exchange.refuse(
            max(answer.status, 400),
            "forward-auth-refused",
            detail,
            headers=[field for field in kept if field[0] != "content-type"],
        )
        # Such as a redirect to a login page.
        response.status = answer.status
        response.body = b"" if answer.truncated else answer.body
        content_type = next((value for name, value in kept if name == "content-type"), None)
        if content_type is None or not response.body:
            del response.headers["content-type"]
        else:
            response.headers["content-type"] = content_type
        return response

    def _passed(self, answer: SubResponse) -> _Passed:
        wanted = {name.lower() for name in self.config.response_headers}
        headers = tuple((name, value) for name, value in answer.headers.items() if name in wanted)
        name = answer.headers.get(self.config.consumer_header) if self.config.consumer_header else None
        if not name:
            return _Passed(headers, None)
        groups: list[str] = []
        if self.config.groups_header:
            text = ",".join(answer.headers.get_all(self.config.groups_header))
            groups = [group.strip() for group in text.split(",", _MAX_GROUPS)[:_MAX_GROUPS]]
        consumer = Consumer(name=name, groups=frozenset(filter(None, groups)), source=self.name)
        return _Passed(headers, consumer)

    def _added(self, headers: Headers) -> list[str]:
        wanted = self.config.add_cookies
        return [
            cookie for cookie in headers.get_all("set-cookie") if cookie.split("=", 1)[0].strip() in wanted
        ]

    def _cache_key(self, exchange: Exchange) -> bytes:
        request = exchange.request
        parts = [request.method, request.scheme, request.authority.lower(), request.path, request.raw_query]
        for name in self.config.cache_by:
            values = request.headers.get_all(name)
            parts += [str(len(values)), *values]
        # With its length before each part, no two lists of parts are one text.
        text = "".join(f"{len(part)}:{part}" for part in parts)
        return hashlib.blake2b(text.encode(), key=self._key).digest()
