"""A login: the browser is sent to the provider, and comes back with a code."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import urlencode

from fastgate.plugins import Exchange, Host, Request, Response
from fastgate.plugins._auth.ask import Unavailable, within
from fastgate.plugins.oidc.answers import Answers
from fastgate.plugins.oidc.config import SECOND, Config, is_local
from fastgate.plugins.oidc.cookies import Cookies, Found
from fastgate.plugins.oidc.id_token import SPENT, checked_claims
from fastgate.plugins.oidc.provider import Metadata, Provider, Refused, Tokens, shown
from fastgate.plugins.oidc.session import Login, Session, Vault

#: Logins of one browser that may be under way; the oldest go first.
MAX_LOGINS: Final = 5
MAX_RETURN: Final = 2000
# OpenID Connect Core 3.1.2.6 and RFC 6749 4.1.2.1: what is not the caller's fault.
_TROUBLE: Final = ("server_error", "temporarily_unavailable")


class Logins:
    def __init__(
        self, host: Host, config: Config, provider: Provider, vault: Vault, cookies: Cookies, answers: Answers
    ) -> None:
        self._host, self._config, self._provider = host, config, provider
        self._vault, self._cookies, self._answers = vault, cookies, answers

    def origin(self, request: Request) -> str:
        """Scheme and authority of this site."""
        return self._config.public_url or f"{request.scheme}://{request.authority.lower()}"

    async def begin(self, exchange: Exchange, found: Found, return_to: str, why: str) -> Response:
        """Sends the browser to the provider. Raises Unavailable."""
        config = self._config
        metadata = await self._provider.metadata()
        if len(return_to) > MAX_RETURN or not is_local(return_to):
            return_to = "/"
        login = Login(
            state=secrets.token_urlsafe(24),
            nonce=secrets.token_urlsafe(24),
            verifier=secrets.token_urlsafe(48),
            return_to=return_to,
            redirect_uri=self.origin(exchange.request) + config.callback_path,
            begun=self._host.clock.now(),
        )
        hashed = hashlib.sha256(login.verifier.encode()).digest()
        parameters = {
            **config.authorize_params,
            "response_type": "code",
            "client_id": config.client_id,
            "redirect_uri": login.redirect_uri,
            "scope": " ".join(config.scopes),
            "state": login.state,
            "nonce": login.nonce,
            "code_challenge": base64.urlsafe_b64encode(hashed).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        url = metadata.authorization_endpoint
        location = f"{url}{'&' if '?' in url else '?'}{urlencode(parameters)}"
        lines = [
            *self._cookies.clear(found),
            *self._clear_oldest(found),
            self._cookies.set_login(
                _tag(login.state), self._vault.seal_login(login), config.login_lifetime // SECOND
            ),
        ]
        self._host.count("logins_begun")
        return self._answers.to_login(exchange, location, lines, why)

    def _clear_oldest(self, found: Found) -> list[str]:
        now = self._host.clock.now()
        begun: list[tuple[float, str]] = []
        for tag, sealed in self._cookies.logins(found).items():
            login = self._vault.open_login(sealed, now)
            begun.append((0 if login is None else login.begun, tag))
        begun.sort()
        return [self._cookies.clear_login(tag) for _, tag in begun[: max(0, len(begun) - MAX_LOGINS + 1)]]

    async def end(self, exchange: Exchange, found: Found) -> Response:
        """The browser is back (RFC 6749 4.1.2). Raises Unavailable."""
        try:
            login, parameters = await self._matched(exchange, found)
        except Refused as error:
            self._host.count("logins_refused")
            return self._answers.failed(exchange, str(error))
        used = [self._cookies.clear_login(_tag(login.state))]
        try:
            work = self._session(login, parameters)
            session = await within(self._config.provider_timeout / SECOND, work)
            lines = self._cookies.split(self._vault.seal_session(session), found)
            if lines is None:
                raise Refused(f"the session needs more than max_cookies = {self._config.max_cookies}")
        except Refused as error:
            self._host.count("logins_refused")
            return self._answers.failed(exchange, str(error), used)
        self._host.count("logins")
        return self._answers.redirect(302, login.return_to, [*used, *lines])

    async def _matched(self, exchange: Exchange, found: Found) -> tuple[Login, dict[str, str]]:
        """The login that this answers, once, and what it says. Raises Refused."""
        try:
            pairs = exchange.request.query
        except ValueError as error:
            raise Refused(f"callback: the query: {error}") from None
        parameters = dict(pairs)
        if exchange.request.method != "GET":
            raise Refused(f"callback by {exchange.request.method}")
        if len(parameters) < len(pairs):
            raise Refused("callback: a parameter stands twice")
        state = parameters.get("state", "")
        if not state:
            raise Refused("callback without state")
        sealed = self._cookies.logins(found).get(_tag(state))
        if sealed is None:
            raise Refused("callback: this browser has begun no login with that state")
        login = self._vault.open_login(sealed, self._host.clock.now())
        if login is None:
            raise Refused("callback: the login's cookie is not ours, or has expired")
        if not hmac.compare_digest(login.state.encode(), state.encode()):
            raise Refused("callback: the state is not that of the login")
        lifetime = self._config.login_lifetime / SECOND
        if not await self._host.shared.set_if_absent(f"used:{_tag(state)}", b"1", lifetime):
            raise Refused("callback: the state was used before")
        return login, parameters

    async def _session(self, login: Login, parameters: dict[str, str]) -> Session:
        """Raises Refused, Unavailable."""
        config, metadata = self._config, await self._provider.metadata()
        # RFC 9207 2.4: before anything else of the answer is believed.
        issuer = parameters.get("iss")
        if (issuer is not None or metadata.iss_parameter) and issuer != config.issuer:
            raise Refused(f"callback: iss is {shown(issuer)}")
        error = parameters.get("error")
        if error is not None:
            text = f"the provider answered with error {shown(error)}"
            raise Unavailable(text) if error in _TROUBLE else Refused(text)
        code = parameters.get("code", "")
        if not code:
            raise Refused("callback without code")
        tokens = await self._provider.redeem(code, login.verifier, login.redirect_uri)
        now = self._host.clock.now()
        claims = await checked_claims(tokens, self._provider.keys, config, login.nonce, now)
        if config.userinfo:
            more = await self._provider.userinfo(tokens.access_token)
            # OpenID Connect Core 5.3.2: else it may be about somebody else.
            if more.get("sub") != claims["sub"]:
                raise Refused("userinfo is about another sub")
            claims = {**more, **claims}
        return new_session(tokens, claims, metadata, config, login.nonce, now)


def new_session(
    tokens: Tokens, claims: dict[str, Any], metadata: Metadata, config: Config, nonce: str, now: float
) -> Session:
    return Session(
        id=secrets.token_urlsafe(16),
        started=int(now),
        seen=int(now),
        nonce=nonce,
        claims=without(claims, SPENT),
        # RFC 6749 5.1: not said where it is what was asked for.
        scope=tokens.scope or " ".join(config.scopes),
        expires=int(now) + tokens.expires_in if tokens.expires_in else 0,
        refresh_token=tokens.refresh_token if config.refresh else "",
        access_token=tokens.access_token if config.forward_access_token else "",
        id_token=tokens.id_token if metadata.end_session_endpoint else "",
    )


def without(claims: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: value for name, value in claims.items() if name not in names}


def _tag(state: str) -> str:
    """Of a login: in the name of its cookie, and where its state is remembered."""
    return hashlib.sha256(state.encode("utf-8", "surrogateescape")).hexdigest()[:16]
