"""Requests to an identity provider, by URL or by an upstream of the configuration; answers within bounds."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Coroutine, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import SplitResult, quote_plus, urlencode, urlsplit

from fastgate.plugins import Host, SubrequestError, SubResponse
from fastgate.plugins._auth.strict import json_object

T = TypeVar("T")

MAX_ANSWER: Final = 64 * 1024
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


class Unavailable(Exception):
    """Nobody answered, or not as the protocol says. The text is for the log, and holds no secret."""


def is_safe_url(url: str) -> bool:
    """An absolute https URL, or an http one of this machine; without credentials or a fragment."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return False
    plain = parts.scheme == "http" and host in _LOOPBACK
    sound = url.isascii() and url.isprintable() and not any(c in url for c in ' \\"<>#')
    return (
        bool(host) and port != 0 and "@" not in parts.netloc and sound and (plain or parts.scheme == "https")
    )


def basic(client: str, secret: str) -> str:
    """Authorization of a client (RFC 6749 2.3.1: each part is form-encoded before it becomes Basic)."""
    return "Basic " + b64encode(f"{quote_plus(client)}:{quote_plus(secret)}".encode()).decode()


async def within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """What ``work`` gives; it is cancelled when it takes longer. Raises Unavailable then."""
    task = asyncio.get_running_loop().create_task(work)
    try:
        await asyncio.wait([task], timeout=seconds)
        if not task.done():
            raise Unavailable(f"not done in {seconds:g} s")
        return task.result()
    finally:
        task.cancel()


class Asker:
    """Asks URLs. upstream: where their paths are asked instead, with the URL's host, if it has one, as Host;
    "": the URLs themselves. timeout: seconds."""

    def __init__(self, host: Host, upstream: str, timeout: float, limit: int = MAX_ANSWER) -> None:
        if not upstream:
            import httpx  # noqa: F401 - what fetch needs: now, since it takes a moment
        self._host, self._upstream, self._timeout, self._limit = host, upstream, timeout, limit

    async def fetch(
        self, url: str, *, form: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Status and body. form: makes it a POST. Redirects are not followed. Raises Unavailable."""
        fields = {"accept": "application/json", **(headers or {})}
        method, body = "GET", b""
        if form is not None:
            method, body = "POST", urlencode(form).encode()
            fields["content-type"] = "application/x-www-form-urlencoded"
        parts = urlsplit(url)
        try:
            answer = await self._send(parts, method, fields, body)
        except (SubrequestError, LookupError) as error:
            raise Unavailable(f"{parts.path}: {error}") from None
        if answer.truncated:
            raise Unavailable(f"{parts.path}: the answer has more than {self._limit} bytes")
        return answer.status, answer.body

    async def _send(self, url: SplitResult, method: str, headers: dict[str, str], body: bytes) -> SubResponse:
        if not self._upstream:
            return await self._host.fetch(
                url.geturl(),
                method=method,
                headers=headers,
                body=body,
                timeout=self._timeout,
                limit=self._limit,
            )
        return await self._host.subrequest(
            self._upstream,
            method=method,
            path=(url.path or "/") + (f"?{url.query}" if url.query else ""),
            headers={**headers, "host": url.netloc} if url.netloc else headers,
            body=body,
            timeout=self._timeout,
            limit=self._limit,
        )

    async def ask(
        self, url: str, *, form: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """As ``fetch``, of a JSON object; {} for an answer other than 200 without one. Raises Unavailable."""
        status, body = await self.fetch(url, form=form, headers=headers)
        try:
            return status, json_object(body)
        except ValueError as error:
            if status == 200:
                raise Unavailable(f"{urlsplit(url).path}: {error}") from None
            return status, {}
