"""What is kept in the browser, sealed: the session, and a login that is under way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from fastgate.plugins.oidc.config import SECOND, Config
from fastgate.plugins.oidc.seal import Sealer


class Login(Struct, frozen=True, array_like=True):
    """A login that is under way. begun: seconds since the epoch."""

    state: str
    nonce: str
    verifier: str
    return_to: str
    redirect_uri: str
    begun: float


class Session(Struct, frozen=True, array_like=True):
    """Who is logged in. Times are seconds since the epoch. access_token: "" unless the service gets it.
    expires: when the access token does, 0 where the provider did not say. id_token: "" unless logout needs
    it."""

    id: str
    started: int
    seen: int
    nonce: str
    claims: dict[str, Any]
    scope: str
    expires: int = 0
    refresh_token: str = ""
    access_token: str = ""
    id_token: str = ""


class Vault:
    """Seals and opens both, within their lifetimes."""

    def __init__(self, secrets: Sequence[str], config: Config, name: str) -> None:
        context = (name, config.issuer, config.client_id)
        self._sessions = Sealer(secrets, "session", context)
        self._logins = Sealer(secrets, "login", context)
        self._lifetime = config.session_lifetime // SECOND
        self._idle = config.idle_lifetime // SECOND
        self._login_lifetime = config.login_lifetime // SECOND
        self._leeway = config.leeway // SECOND

    def seal_session(self, session: Session) -> str:
        return self._sessions.seal(msgspec.json.encode(session))

    def open_session(self, text: str, now: float) -> Session | None:
        """None for what is not sealed by us, and for what has expired."""
        value = self._sessions.open(text)
        if value is None:
            return None
        session = msgspec.json.decode(value, type=Session)
        began, seen = now - session.started, now - session.seen
        # A replica whose clock is ahead may have sealed it.
        if -self._leeway <= began < self._lifetime and -self._leeway <= seen < self._idle:
            return session
        return None

    def seal_login(self, login: Login) -> str:
        return self._logins.seal(msgspec.json.encode(login))

    def open_login(self, text: str, now: float) -> Login | None:
        value = self._logins.open(text)
        if value is None:
            return None
        login = msgspec.json.decode(value, type=Login)
        return login if -self._leeway <= now - login.begun < self._login_lifetime else None
