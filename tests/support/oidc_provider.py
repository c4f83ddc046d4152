"""A real OpenID provider in this process: authorize, token, keys, userinfo, revocation, end of session.

It logs "alice" in without asking, checks what a provider has to check (redirect URI, PKCE, client, one use of
a code, rotation of refresh tokens), and does wrong on purpose where a test turns one of its ``knobs``.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import queue
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any
from urllib.parse import unquote_plus, urlencode

from aiohttp import web
from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT, SECRET = "the gateway", "s3cret: with / signs"


@dataclass
class Knobs:
    """How it answers. The functions change what it would send."""

    claims: Callable[[dict[str, Any]], dict[str, Any]] = lambda claims: claims
    sign: Callable[[OidcProvider, dict[str, Any]], str] | None = None
    tokens: Callable[[dict[str, Any]], dict[str, Any]] = lambda tokens: tokens
    callback: Callable[[dict[str, str]], dict[str, str]] = lambda parameters: parameters
    #: Issuer URL (the provider's own, and those of tenants below it) -> what its discovery says otherwise.
    discovery: dict[str, dict[str, Any]] = field(default_factory=dict)
    userinfo: dict[str, Any] = field(default_factory=lambda: {"sub": "alice", "department": "tea"})
    #: Path -> status that it is answered with.
    statuses: dict[str, int] = field(default_factory=dict)
    #: Path -> body in place of the true one.
    bodies: dict[str, bytes] = field(default_factory=dict)
    #: Paths that are never answered.
    hang: set[str] = field(default_factory=set)
    refresh: bool = True
    expires_in: int = 3600


class OidcProvider:
    """A context manager. issuer: its URL. seen: (path, form or query) of every request, in order."""

    def __init__(self) -> None:
        self.knobs = Knobs()
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.hosts: list[str] = []
        self.revoked: queue.Queue[str] = queue.Queue()
        self.issuer = ""
        self.key = RSAKey.generate_key(2048, {"kid": "one", "use": "sig"}, auto_kid=False)
        self._codes: dict[str, dict[str, str]] = {}
        self._refresh: dict[str, dict[str, str]] = {}
        self._loop = asyncio.new_event_loop()
        self._released = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="OpenID provider", daemon=True)

    # -- life

    def __enter__(self) -> OidcProvider:
        started = threading.Event()
        self._loop.call_soon(self._loop.create_task, self._start(started))
        self._thread.start()
        assert started.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def reset(self) -> None:
        """Knobs, codes and records as at the start."""
        self.knobs = Knobs()
        self.seen, self.hosts = [], []

    def new_refresh_token(self, **login: str) -> str:
        """One that a login with these values could have given."""
        token = secrets.token_urlsafe(24)
        self._refresh[token] = login
        return token

    def forget_refresh_tokens(self) -> None:
        self._refresh.clear()

    def count(self, path: str) -> int:
        return sum(1 for seen, _ in self.seen if seen == path)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _start(self, started: threading.Event) -> None:
        app = web.Application(middlewares=[self._misbehave])
        app.add_routes(
            [
                web.get("/.well-known/openid-configuration", self._discovery),
                web.get("/{tenant}/.well-known/openid-configuration", self._discovery),
                web.get("/jwks", self._jwks),
                web.get("/authorize", self._authorize),
                web.post("/token", self._token),
                web.get("/userinfo", self._userinfo),
                web.post("/revoke", self._revoke),
                web.get("/end", self._end),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.address = site.name.removeprefix("http://")
        self.issuer = site.name
        started.set()

    async def _stop(self) -> None:
        self._released.set()
        await self._runner.cleanup()

    @web.middleware
    async def _misbehave(self, request: web.Request, handler: Any) -> web.StreamResponse:
        values = await request.post() if request.method == "POST" else request.query
        self.seen.append((request.path, {name: str(value) for name, value in values.items()}))
        self.hosts.append(request.host)
        if request.path in self.knobs.hang:
            await self._released.wait()
        if request.path in self.knobs.bodies:
            return web.Response(
                body=self.knobs.bodies[request.path],
                content_type="application/json",
                status=self.knobs.statuses.get(request.path, 200),
            )
        if request.path in self.knobs.statuses:
            return web.json_response({"error": "broken"}, status=self.knobs.statuses[request.path])
        answer: web.StreamResponse = await handler(request)
        return answer

    # -- endpoints

    async def _discovery(self, request: web.Request) -> web.Response:
        at, tenant = self.issuer, request.match_info.get("tenant")
        issuer = f"{at}/{tenant}" if tenant else at
        document = {
            "issuer": issuer,
            "authorization_endpoint": f"{at}/authorize",
            "token_endpoint": f"{at}/token",
            "jwks_uri": f"{at}/jwks",
            "userinfo_endpoint": f"{at}/userinfo",
            "revocation_endpoint": f"{at}/revoke",
            "end_session_endpoint": f"{at}/end",
            "authorization_response_iss_parameter_supported": True,
        }
        return web.json_response({**document, **self.knobs.discovery.get(issuer, {})})

    async def _jwks(self, request: web.Request) -> web.Response:
        return web.json_response({"keys": [self.key.as_dict(private=False)]})

    async def _authorize(self, request: web.Request) -> web.Response:
        query = dict(request.query)
        assert query["response_type"] == "code"
        assert query["client_id"] == CLIENT
        assert "openid" in query["scope"].split()
        assert query["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe(16)
        self._codes[code] = query
        back = self.knobs.callback({"code": code, "state": query["state"], "iss": self.issuer})
        return web.Response(status=302, headers={"location": f"{query['redirect_uri']}?{urlencode(back)}"})

    async def _token(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        if not self._is_client(request, form):
            return web.json_response({"error": "invalid_client"}, status=401)
        if form["grant_type"] == "refresh_token":
            login = self._refresh.pop(form["refresh_token"], None)
        else:
            login = self._codes.pop(form["code"], None)
            if login is not None and not _proves(login, form):
                login = None
        if login is None:
            return web.json_response({"error": "invalid_grant"}, status=400)
        return web.json_response(self.knobs.tokens(self._tokens(login)))

    def _is_client(self, request: web.Request, form: dict[str, str]) -> bool:
        header = request.headers.get("authorization", "")
        if not header:
            return (form.get("client_id"), form.get("client_secret")) == (CLIENT, SECRET)
        client, _, secret = base64.b64decode(header.removeprefix("Basic ")).decode().partition(":")
        return (unquote_plus(client), unquote_plus(secret)) == (CLIENT, SECRET)

    def _tokens(self, login: dict[str, str]) -> dict[str, Any]:
        now, access = int(time.time()), secrets.token_urlsafe(24)
        half = hashlib.sha256(access.encode()).digest()[:16]
        claims = self.knobs.claims(
            {
                "iss": self.issuer,
                "sub": "alice",
                "aud": CLIENT,
                "exp": now + 300,
                "iat": now,
                "nonce": login["nonce"],
                "at_hash": base64.urlsafe_b64encode(half).rstrip(b"=").decode(),
                "email": "alice@example.com",
                "groups": ["staff", "tea"],
            }
        )
        tokens: dict[str, Any] = {
            "access_token": access,
            "token_type": "Bearer",
            "expires_in": self.knobs.expires_in,
            "scope": login["scope"],
            "id_token": self.knobs.sign(self, claims) if self.knobs.sign else self.signed(claims),
        }
        if self.knobs.refresh:
            tokens["refresh_token"] = self.new_refresh_token(**login)
        return tokens

    def signed(self, claims: dict[str, Any], key: RSAKey | None = None) -> str:
        return jwt.encode({"alg": "RS256", "kid": self.key.kid}, claims, key or self.key)

    async def _userinfo(self, request: web.Request) -> web.Response:
        assert request.headers["authorization"].startswith("Bearer ")
        return web.json_response(self.knobs.userinfo)

    async def _revoke(self, request: web.Request) -> web.Response:
        token = str((await request.post())["token"])
        self._refresh.pop(token, None)
        self.revoked.put(token)
        return web.Response()

    async def _end(self, request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"location": request.query["post_logout_redirect_uri"]})


def _proves(login: dict[str, str], form: dict[str, str]) -> bool:
    """RFC 7636 4.6, and RFC 6749 4.1.3."""
    digest = hashlib.sha256(form["code_verifier"].encode()).digest()
    challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    return challenge == login["code_challenge"] and form["redirect_uri"] == login["redirect_uri"]
