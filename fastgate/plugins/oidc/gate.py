"""The way of a request: to the login, back from it, out, or through with its session."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlencode

from msgspec.structs import replace

from fastgate.plugins import Exchange, Host, Response
from fastgate.plugins._auth.ask import Unavailable
from fastgate.plugins._auth.identity import Identity
from fastgate.plugins.oidc.answers import Answers, is_navigation, is_own_page
from fastgate.plugins.oidc.config import SECOND, Config, is_local
from fastgate.plugins.oidc.cookies import Cookies, Found
from fastgate.plugins.oidc.login import Logins
from fastgate.plugins.oidc.provider import Provider
from fastgate.plugins.oidc.renewal import Renewal
from fastgate.plugins.oidc.session import Session, Vault

#: Seconds after which a session that is used is written anew; a tenth of its idle lifetime if that is less.
MAX_TOUCH: Final = 300


class Gate:
    def __init__(self, host: Host, config: Config, provider: Provider) -> None:
        secrets = [secret.reveal() for secret in config.session_secret]
        self._host, self._config, self._provider = host, config, provider
        self._answers = Answers(config.realm)
        self._cookies = Cookies(config.cookie, secure=config.cookie_secure, max_pieces=config.max_cookies)
        self._vault = Vault(secrets, config, host.name)
        self._logins = Logins(host, config, provider, self._vault, self._cookies, self._answers)
        self._renewal = Renewal(host, config, provider)
        self._token_header = config.forward_access_token
        self._identity = Identity(config, host.name)
        self._touch = min(config.idle_lifetime // SECOND // 10, MAX_TOUCH)
        self._key = f"oidc:{host.name}"

    async def request(self, exchange: Exchange) -> Response | None:
        found = self._cookies.find(exchange.request)
        try:
            match exchange.request.path:
                case self._config.callback_path:
                    return await self._logins.end(exchange, found)
                case self._config.login_path:
                    return await self._login(exchange, found)
                case self._config.logout_path:
                    return await self._logout(exchange, found)
            session = await self._live_session(exchange, found)
            self._cookies.remove(exchange.request, found)
            if session is None:
                return await self._no_session(exchange, found)
        except Unavailable as error:
            self._host.count("unavailable")
            return self._answers.unavailable(exchange, str(error))
        try:
            self._identify(exchange, session)
        except ValueError as error:
            return self._answers.failed(exchange, str(error), self._cookies.clear(found))
        return None

    async def response(self, exchange: Exchange, response: Response) -> None:
        """Writes the session if it was changed."""
        kept: tuple[Session, bool, Found] | None = exchange.context.get(self._key)
        if kept is None:
            return
        session, renewed, found = kept
        # What has happened in other tabs meanwhile holds: a logout, and newer tokens.
        if await self._is_over(session) or (not renewed and await self._renewal.was_replaced(session)):
            return
        lines = self._cookies.split(self._vault.seal_session(session), found)
        if lines is None:
            self._host.log.warning("a session needs more than max_cookies = %d", self._config.max_cookies)
            lines = self._cookies.clear(found)
        for line in lines:
            response.headers.add("set-cookie", line)
        # No cache may give this cookie to somebody else.
        control = (response.headers.get("cache-control") or "").lower()
        if "private" not in control and "no-store" not in control:
            response.headers["cache-control"] = "private, no-cache"

    # -- sessions

    def _open(self, found: Found) -> Session | None:
        sealed = self._cookies.join(found)
        return None if sealed is None else self._vault.open_session(sealed, self._host.clock.now())

    async def _live_session(self, exchange: Exchange, found: Found) -> Session | None:
        """The session of the request, with tokens that hold, or None. Raises Unavailable."""
        session = self._open(found)
        if session is None:
            return None
        now = self._host.clock.now()
        touched = now - session.seen >= self._touch
        due = self._renewal.is_due(session)
        if not touched and not due:
            return session
        if await self._is_over(session):
            return None
        current = session
        if due:
            renewed = await self._renewal.renewed(session)
            if renewed is None:
                return None
            current = renewed
        if touched and current is session:
            current = replace(session, seen=int(now))
        if current is not session:
            renewed_now = current.refresh_token != session.refresh_token or current.expires != session.expires
            exchange.context[self._key] = (current, renewed_now, found)
        return current

    async def _is_over(self, session: Session) -> bool:
        return await self._host.shared.get(_over(session)) is not None

    async def _no_session(self, exchange: Exchange, found: Found) -> Response:
        why = "the session is not ours, not whole, or over" if self._cookies.clear(found) else "no session"
        if not is_navigation(exchange.request):
            return self._answers.required(exchange, why, self._cookies.clear(found))
        query = exchange.request.raw_query
        here = exchange.request.path + (f"?{query}" if query else "")
        return await self._logins.begin(exchange, found, here, why)

    def _identify(self, exchange: Exchange, session: Session) -> None:
        """Tells the gateway and the service who it is. Raises ValueError."""
        consumer = self._identity.consumer(session.claims, frozenset(session.scope.split()))
        headers = exchange.request.headers
        for name, value in self._identity.headers(session.claims):
            headers[name] = value
        if self._token_header:
            bearer = self._token_header.lower() == "authorization"
            headers[self._token_header] = ("Bearer " if bearer else "") + session.access_token
        exchange.consumer = consumer

    # -- by hand

    async def _login(self, exchange: Exchange, found: Found) -> Response:
        """``login_path``: for pages whose scripts got 401. Raises Unavailable."""
        if exchange.request.method not in ("GET", "HEAD"):
            return exchange.refuse(400, "request-invalid", f"login by {exchange.request.method}")
        try:
            wanted = [value for name, value in exchange.request.query if name == "return_to"] or ["/"]
        except ValueError as error:
            return exchange.refuse(400, "request-invalid", f"the query: {error}")
        if len(wanted) > 1 or not is_local(wanted[0]):
            return exchange.refuse(400, "request-invalid", "return_to is no path of this site")
        return await self._logins.begin(exchange, found, wanted[0], "login by hand")

    async def _logout(self, exchange: Exchange, found: Found) -> Response:
        """``logout_path`` (OpenID Connect RP-Initiated Logout 1.0, 2). Raises Unavailable."""
        config, request = self._config, exchange.request
        origin = self._logins.origin(request)
        if request.method not in ("GET", "POST"):
            return exchange.refuse(400, "request-invalid", f"logout by {request.method}")
        if not is_own_page(request, origin):
            return exchange.refuse(403, "csrf-refused", "logout from another site, or nobody says from where")
        lines, session = self._cookies.clear(found), self._open(found)
        after = config.post_logout_redirect
        if session is None:
            return self._answers.redirect(303, after, lines)
        await self._host.shared.set(_over(session), b"1", config.session_lifetime / SECOND)
        self._host.count("logouts")
        if session.refresh_token:
            self._host.spawn(self._provider.revoke(session.refresh_token), "revocation")
        endpoint = self._provider.end_session_endpoint
        if endpoint:
            parameters = {
                "client_id": config.client_id,
                "post_logout_redirect_uri": origin + after if is_local(after) else after,
                **({"id_token_hint": session.id_token} if session.id_token else {}),
            }
            after = f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(parameters)}"
        return self._answers.redirect(303, after, lines)


def _over(session: Session) -> str:
    return f"over:{session.id}"
