"""A token in a request: where it may stand, and that it stands there once."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_plus

from fastgate.plugins import Request

# RFC 6750 2.1: the scheme in any case (RFC 9110 11.1), then b64token.
_BEARER: Final = re.compile(r"(?i:bearer) +([A-Za-z0-9\-._~+/]+=*)")
_TOKEN: Final = re.compile(r"[A-Za-z0-9\-._~+/]+=*")


class BadToken(Exception):
    """What stands in the request cannot be the token: malformed, too long, or there twice. The text is for
    the log, and holds nothing of the token."""


class TokenPlace:
    """Where a token is looked for: in Authorization with the scheme Bearer, or in the one place that is
    named.

    max_size: bytes of a token at most; a longer one is not looked into.
    """

    def __init__(self, *, header: str = "", cookie: str = "", query: str = "", max_size: int = 8192) -> None:
        if sum(map(bool, (header, cookie, query))) > 1:
            raise ValueError("a token stands in one place")
        self.header, self.cookie, self.query = header, cookie, query
        self.max_size = max_size

    def find(self, request: Request) -> str | None:
        """The token, or None where the request has none. Raises BadToken."""
        if self.header:
            return self._only(request.headers.get_all(self.header), f"the header {self.header}")
        if self.cookie:
            # The Cookie fields themselves: `request.cookies` keeps the first of several with one name.
            pairs = (pair.partition("=") for pair in _cookie_pairs(request))
            values = [value.strip() for name, _, value in pairs if name.strip() == self.cookie]
            return self._only(values, f"the cookie {self.cookie}")
        if self.query:
            try:
                values = [value for name, value in request.query if name == self.query]
            except ValueError as error:
                raise BadToken(f"the query: {error}") from None
            return self._only(values, f"the parameter {self.query}")
        return self._bearer(request.headers.get_all("authorization"))

    def remove(self, request: Request) -> None:
        """Takes the token out of the request, so that the service does not see it."""
        if self.query:
            kept = [
                part
                for part in request.raw_query.split("&")
                if unquote_plus(part.partition("=")[0]) != self.query
            ]
            request.raw_query = "&".join(kept)
        elif self.cookie:
            pairs = _cookie_pairs(request)
            kept = [pair.strip() for pair in pairs if pair.partition("=")[0].strip() != self.cookie]
            if kept:
                request.headers["cookie"] = "; ".join(kept)
            else:
                del request.headers["cookie"]
        else:
            del request.headers[self.header or "authorization"]

    def _bearer(self, fields: list[str]) -> str | None:
        if not fields:
            return None
        if len(fields) > 1:
            # Another reader may take another one (RFC 9110 5.3: it is no list).
            raise BadToken(f"{len(fields)} Authorization fields")
        field = fields[0]
        # Whatever could pass for Bearer with a lax reader has to be exactly that.
        if field.lstrip()[:6].lower() != "bearer":
            return None
        if len(field) > self.max_size + 64:
            raise BadToken(f"the token has more than {self.max_size} bytes")
        match = _BEARER.fullmatch(field)
        if match is None:
            raise BadToken("Authorization is not Bearer and one token")
        return self._checked(match[1])

    def _only(self, values: list[str], where: str) -> str | None:
        if not values:
            return None
        if len(values) > 1:
            raise BadToken(f"{len(values)} tokens in {where}")
        if len(values[0]) <= self.max_size and not _TOKEN.fullmatch(values[0]):
            raise BadToken(f"{where} holds no token")
        return self._checked(values[0])

    def _checked(self, token: str) -> str:
        if len(token) > self.max_size:
            raise BadToken(f"the token has more than {self.max_size} bytes")
        return token


def _cookie_pairs(request: Request) -> list[str]:
    """RFC 6265 4.2.1."""
    return [pair for field in request.headers.get_all("cookie") for pair in field.split(";")]
