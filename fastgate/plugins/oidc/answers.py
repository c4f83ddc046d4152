"""What the plugin answers itself: redirects and refusals."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from fastgate.plugins import Exchange, Request, Response
from fastgate.plugins._auth.challenge import challenge

# The URLs of such answers, which may hold a code, are nobody else's business. Refusals have no-store already.
_QUIET: Final = ("referrer-policy", "no-referrer")
RETRY_AFTER: Final = "5"


class Answers:
    def __init__(self, realm: str) -> None:
        # No scheme is registered for cookies; RFC 9110 15.5.2 wants a challenge all the same.
        self._challenge = challenge("Cookie", realm=realm)

    def redirect(self, status: int, location: str, cookies: Iterable[str] = ()) -> Response:
        return Response(
            status, headers=[("location", location), ("cache-control", "no-store"), _QUIET, *_set(cookies)]
        )

    def to_login(self, exchange: Exchange, location: str, cookies: Iterable[str], why: str) -> Response:
        """A redirect that log and metrics know as login-required."""
        response = exchange.refuse(401, "login-required", why, headers=[_QUIET, *_set(cookies)])
        response.status = 302
        response.headers["location"] = location
        del response.headers["content-type"]
        response.body = b""
        return response

    def required(self, exchange: Exchange, detail: str, cookies: Iterable[str] = ()) -> Response:
        return self._unauthorized(exchange, "authentication-required", detail, cookies)

    def failed(self, exchange: Exchange, detail: str, cookies: Iterable[str] = ()) -> Response:
        return self._unauthorized(exchange, "authentication-failed", detail, cookies)

    def unavailable(self, exchange: Exchange, detail: str) -> Response:
        headers = [("retry-after", RETRY_AFTER), _QUIET]
        return exchange.refuse(503, "authentication-unavailable", detail, headers=headers)

    def _unauthorized(self, exchange: Exchange, code: str, detail: str, cookies: Iterable[str]) -> Response:
        headers = [("www-authenticate", self._challenge), _QUIET, *_set(cookies)]
        return exchange.refuse(401, code, detail, headers=headers)


def _set(cookies: Iterable[str]) -> list[tuple[str, str]]:
    return [("set-cookie", line) for line in cookies]


def is_navigation(request: Request) -> bool:
    """Whether a person's browser is about to show the answer as a page, so that it can be sent to log in. A
    script that follows such a redirect gets nothing of use."""
    if request.method not in ("GET", "HEAD") or "x-requested-with" in request.headers:
        return False
    mode = request.headers.get("sec-fetch-mode")
    if mode is not None and mode != "navigate":
        return False
    return "text/html" in (request.headers.get("accept") or "").lower()


def is_own_page(request: Request, origin: str) -> bool:
    """Whether the request was caused by a page of this site, or by the person at the browser. Where nothing
    says so, it was not."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    sender = request.headers.get("origin")
    if sender is not None:
        return sender == origin
    referrer = request.headers.get("referer") or ""
    return referrer == origin or referrer.startswith(f"{origin}/")
