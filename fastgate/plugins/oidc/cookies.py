"""The plugin's cookies: how they are called, cut into pieces, found, set, and kept from the service."""

from __future__ import annotations

import re
from typing import Final

from fastgate.plugins import Request

# Browsers keep 4096 bytes of name and value together (RFC 6265 6.1); names and attributes need some of them.
PIECE: Final = 3800
# Login cookies that are looked at; a browser has a few when tabs log in side by side.
MAX_LOGINS: Final = 16

Found = dict[str, list[str]]


class Cookies:
    """name: of the session's cookie, without prefix. Pieces after the first are called NAME.1, NAME.2 and so
    on, those of logins that are under way NAME.login.TAG."""

    def __init__(self, name: str, *, secure: bool, max_pieces: int) -> None:
        # RFC 6265bis 4.1.3.2: no other host and no page without TLS can set such a cookie.
        self.name = f"__Host-{name}" if secure else name
        self._secure = secure
        self._max_pieces = max_pieces
        self._own = re.compile(re.escape(self.name) + r"(\.[0-9]+|\.login\.[0-9a-f]{1,64})?")

    def find(self, request: Request) -> Found:
        """The plugin's own cookies of a request, every value of each."""
        found: Found = {}
        for field in request.headers.get_all("cookie"):
            for pair in field.split(";"):
                name, _, value = pair.strip().partition("=")
                if self._own.fullmatch(name):
                    found.setdefault(name, []).append(value)
        return found

    def remove(self, request: Request, found: Found) -> None:
        """Takes the plugin's own cookies out of what the service gets."""
        if not found:
            return
        pairs = [pair.strip() for field in request.headers.get_all("cookie") for pair in field.split(";")]
        kept = [pair for pair in pairs if pair and not self._own.fullmatch(pair.partition("=")[0])]
        if kept:
            request.headers["cookie"] = "; ".join(kept)
        else:
            del request.headers["cookie"]

    def join(self, found: Found) -> str | None:
        """The session's sealed value; None where there is none, or its pieces are not those that were set."""
        first = _single(found, self.name)
        # The count stands in the first piece: what an earlier, longer session left behind is not read.
        count, dot, text = (first or "").partition(".")
        if not dot or not count.isdigit() or not 1 <= int(count) <= self._max_pieces:
            return None
        pieces = [text]
        for at in range(1, int(count)):
            piece = _single(found, f"{self.name}.{at}")
            if piece is None:
                return None
            pieces.append(piece)
        return "".join(pieces) if max(map(len, pieces)) <= PIECE else None

    def split(self, sealed: str, found: Found) -> list[str] | None:
        """Set-Cookie values for a session; pieces that the browser has and that are not used any more are
        deleted. None where it needs more than ``max_pieces``."""
        pieces = [sealed[at : at + PIECE] for at in range(0, len(sealed), PIECE)]
        if len(pieces) > self._max_pieces:
            return None
        pieces[0] = f"{len(pieces)}.{pieces[0]}"
        names = [self.name, *(f"{self.name}.{at}" for at in range(1, len(pieces)))]
        lines = [self._line(name, piece) for name, piece in zip(names, pieces, strict=True)]
        return lines + [self._line(name, "", 0) for name in self._session_names(found) if name not in names]

    def clear(self, found: Found) -> list[str]:
        """Set-Cookie values that end the session in the browser."""
        return [self._line(name, "", 0) for name in self._session_names(found)]

    # -- logins under way

    def logins(self, found: Found) -> dict[str, str]:
        """Tag -> sealed value, of those that stand there once."""
        prefix = f"{self.name}.login."
        names = [name for name in found if name.startswith(prefix)]
        single = ((name, _single(found, name)) for name in names[:MAX_LOGINS])
        return {name.removeprefix(prefix): value for name, value in single if value is not None}

    def set_login(self, tag: str, sealed: str, seconds: int) -> str:
        return self._line(f"{self.name}.login.{tag}", sealed, seconds)

    def clear_login(self, tag: str) -> str:
        return self._line(f"{self.name}.login.{tag}", "", 0)

    def _session_names(self, found: Found) -> list[str]:
        return [name for name in found if not name.startswith(f"{self.name}.login.")]

    def _line(self, name: str, value: str, max_age: int | None = None) -> str:
        # Lax: the provider sends the browser back by a link from its own site.
        age = "" if max_age is None else f"; Max-Age={max_age}"
        return f"{name}={value}; Path=/{age}; HttpOnly; SameSite=Lax{'; Secure' if self._secure else ''}"


def _single(found: Found, name: str) -> str | None:
    # Twice: one of them was planted for another path or domain, and nobody can tell which.
    values = found.get(name, ())
    return values[0] if len(values) == 1 else None
