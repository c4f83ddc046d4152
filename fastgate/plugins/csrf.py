"""Cross-site request forgery: what changes something must come from our own pages, not from another site's.

Browsers say where a request comes from: Sec-Fetch-Site (Fetch Metadata), else Origin, else Referer. A token
bound to the session may be asked for besides.
"""

from __future__ import annotations

import hmac
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from fastgate.plugins import Exchange, Plugin, PluginConfig, Request, Response, Secret, doc

# RFC 9110 9.2.1, without TRACE, which the gateway does not serve.
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_NONCE_BYTES: Final = 16
MAX_TOKEN: Final = 128
MIN_SECRET: Final = 16


class Token(PluginConfig):
    """A token that only our own pages can read: a cookie that scripts send back in a header, signed and
    bound to the session."""

    secret: Annotated[Secret, doc("Key of the signatures, at least 16 bytes.", secret=True)]
    session_cookie: Annotated[
        str, doc("The cookie of the session. Requests without it need no token.", "cookie-name")
    ]
    cookie: Annotated[str, doc("The cookie that holds the token.", "cookie-name")] = "csrf-token"
    header: Annotated[str, doc("The request header that repeats it.", "header-name")] = "x-csrf-token"
    insecure: Annotated[bool, doc("Leave `Secure` off the cookie, for development over plain http.")] = False


class Csrf(Plugin):
    """Refuses requests that change something and come from another site's page."""

    class Config(PluginConfig):
        origins: Annotated[
            tuple[str, ...],
            doc("Other origins whose pages may, such as `https://app.example.com`.", one_or_many=True),
        ] = ()
        exempt: Annotated[
            tuple[str, ...], doc("Paths, and all below them, that are not checked.", "path", one_or_many=True)
        ] = ()
        unknown: Annotated[
            Literal["pass", "refuse"],
            doc("What happens to requests that do not say where they come from: most programs, no browser."),
        ] = "pass"
        token: Annotated[Token | None, doc("Ask for a token besides.")] = None

    config: Config

    @classmethod
    def check(cls, config: Config) -> Mapping[str, str]:
        wrong = {}
        for at, origin in enumerate(config.origins):
            parts = _split(origin.lower())
            if parts is None or origin.lower() != f"{parts[0]}://{urlsplit(origin.lower()).netloc}":
                wrong[f"origins.{at}"] = "expected an origin such as https://app.example.com, without path"
        if config.token and len(config.token.secret.reveal().encode()) < MIN_SECRET:
            wrong["token.secret"] = f"at least {MIN_SECRET} bytes"
        return wrong

    def __init__(self, config: Config, name: str) -> None:
        super().__init__(config, name)
        self._origins = frozenset(map(_split, (origin.lower() for origin in config.origins)))
        self._key = config.token.secret.reveal().encode() if config.token else b""
        self._note = f"csrf.{name}"

    def on_request(self, exchange: Exchange) -> Response | None:
        request = exchange.request
        token = self.config.token
        if token:
            exchange.context[self._note] = self._due(request, token)
        # A WebSocket begins as a GET, and carries the cookies of its host to whatever page opens it.
        upgrades = "upgrade" in request.headers
        if (request.method in _SAFE and not upgrades) or self._exempt(request.path):
            return None
        why = self._foreign(request)
        # Scripts can't set headers of a WebSocket: where it comes from has to do.
        if not why and token and not upgrades:
            why = self._bad_token(request, token)
        return exchange.refuse(403, "csrf-refused", why) if why else None

    def on_response(self, exchange: Exchange, response: Response) -> None:
        token = self.config.token
        session = exchange.context.get(self._note)
        if token and session:
            secure = "" if token.insecure else "; Secure"
            value = self._sign(session, secrets.token_bytes(_NONCE_BYTES).hex())
            # Not HttpOnly: the page's script is to read it.
            response.headers.add("set-cookie", f"{token.cookie}={value}; Path=/; SameSite=Lax{secure}")

    def _exempt(self, path: str) -> bool:
        return any(path == one or path.startswith(one.rstrip("/") + "/") for one in self.config.exempt)

    def _foreign(self, request: Request) -> str:
        """Why it counts as another site's; "" if it is ours. The order is that of trust."""
        sites = request.headers.get_all("sec-fetch-site")
        origins = request.headers.get_all("origin")
        if len(sites) > 1 or len(origins) > 1:
            return "several Sec-Fetch-Site or Origin fields"
        if sites and sites[0] in ("same-origin", "none"):
            return ""
        if sites or origins:
            told = origins[0] if origins else ""
            if self._trusted(told):
                return ""
            # Without Sec-Fetch-Site (older browsers, plain http) an Origin that names our host is ours. The
            # scheme is not compared: behind a proxy that ends TLS ours is not known.
            if not sites and self._is_host(told, request):
                return ""
            return f"Sec-Fetch-Site: {sites[0]}" if sites else "Origin is another one"
        referer = request.headers.get("referer")
        if referer is not None:
            ours = self._trusted(referer) or self._is_host(referer, request)
            return "" if ours else "Referer is of another origin"
        return "no Sec-Fetch-Site, Origin or Referer" if self.config.unknown == "refuse" else ""

    def _trusted(self, url: str) -> bool:
        return bool(self._origins) and (parts := _split(url)) is not None and parts in self._origins

    def _is_host(self, url: str, request: Request) -> bool:
        parts = _split(url)
        return parts is not None and parts == _split(f"{parts[0]}://{request.authority.lower()}")

    # -- the token: NONCE.HMAC(key, session NUL nonce)

    def _bad_token(self, request: Request, token: Token) -> str:
        sessions = _cookies(request, token.session_cookie)
        if not sessions:
            return ""
        sent, kept = request.headers.get_all(token.header), _cookies(request, token.cookie)
        if len(sessions) > 1 or len(kept) > 1 or len(sent) > 1:
            return "several session cookies, token cookies or token headers"
        if not sent or not kept:
            return "no token in the header" if kept else "no token cookie"
        if not hmac.compare_digest(sent[0].encode("latin-1"), kept[0].encode("latin-1")):
            return "header and cookie differ"
        return "" if self._holds(kept[0], sessions[0]) else "the token is not of this session"

    def _due(self, request: Request, token: Token) -> str:
        """The session that needs a new token with its answer, or ""."""
        sessions, kept = _cookies(request, token.session_cookie), _cookies(request, token.cookie)
        if len(sessions) != 1 or (len(kept) == 1 and self._holds(kept[0], sessions[0])):
            return ""
        return sessions[0]

    def _holds(self, text: str, session: str) -> bool:
        nonce, dot, _ = text.partition(".")
        if not dot or len(text) > MAX_TOKEN:
            return False
        return hmac.compare_digest(self._sign(session, nonce).encode(), text.encode("latin-1"))

    def _sign(self, session: str, nonce: str) -> str:
        message = f"{session}\0{nonce}".encode("latin-1")
        digest = hmac.digest(self._key, message, "sha256")
        return f"{nonce}.{urlsafe_b64encode(digest).decode().rstrip('=')}"


def _cookies(request: Request, name: str) -> list[str]:
    """All values of that name: which of several the service would take is not known."""
    found = []
    for field in request.headers.get_all("cookie"):
        for pair in field.split(";"):
            key, equals, value = pair.strip(" \t").partition("=")
            if equals and key == name:
                found.append(value)
    return found


def _split(url: str) -> tuple[str, str, int] | None:
    """Scheme, host and port of an http(s) URL; None for all else, user information too."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or "@" in parts.netloc:
        return None
    return parts.scheme, parts.hostname, port or _DEFAULT_PORTS[parts.scheme]
