"""New tokens by the refresh token: once for each, whatever the number of requests and workers that have it.

Providers that rotate refresh tokens take a second use of one for theft. Whoever sends it leaves a mark in
``host.shared``; the others take over the result, or, in another worker, go on with what they have.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import Final

from fastgate.plugins import Host
from fastgate.plugins._auth.ask import Unavailable
from fastgate.plugins._auth.flight import SingleFlight
from fastgate.plugins.oidc.config import SECOND, Config
from fastgate.plugins.oidc.id_token import SPENT, checked_claims
from fastgate.plugins.oidc.login import without
from fastgate.plugins.oidc.provider import Provider, Refused
from fastgate.plugins.oidc.session import Session

#: Seconds for which requests with the session of before may still come in: those under way, and other tabs'.
GRACE: Final = 60.0
MAX_RECENT: Final = 10_000
_POLL: Final = 0.05


class Renewal:
    def __init__(self, host: Host, config: Config, provider: Provider) -> None:
        self._host, self._config, self._provider = host, config, provider
        self._flights: SingleFlight[Session | None] = SingleFlight(
            host, "refresh", config.provider_timeout / SECOND
        )
        # Mark -> what came of it (None: refused), and until when it is remembered, oldest first.
        self._recent: dict[str, tuple[Session | None, float]] = {}

    def is_due(self, session: Session) -> bool:
        if not session.refresh_token or not session.expires:
            return False
        return self._host.clock.now() >= session.expires - self._config.refresh_before / SECOND

    async def renewed(self, session: Session) -> Session | None:
        """The session with new tokens, or as it was where another worker has them; None if the provider does
        not renew it. Raises Unavailable."""
        mark = mark_of(session)
        known = self._recent.get(mark)
        if known is not None and known[1] > self._host.clock.monotonic():
            return known[0]
        return await self._flights.run(mark, lambda: self._renew(mark, session))

    async def was_replaced(self, session: Session) -> bool:
        """Whether there is a newer session in its place, so that this one must not be written any more."""
        return bool(session.refresh_token) and await self._host.shared.get(mark_of(session)) is not None

    async def _renew(self, mark: str, session: Session) -> Session | None:
        shared = self._host.shared
        busy = 2 * self._config.provider_timeout / SECOND
        if not await shared.set_if_absent(mark, b"busy", busy):
            return await self._elsewhere(mark, session)
        try:
            new = await self._asked(session)
        except Refused as error:
            self._host.count("refresh_refused")
            self._host.log.info("a session ends: %s", error)
            await shared.set(mark, b"no", GRACE)
            self._remember(mark, None)
            return None
        except Unavailable:
            await shared.delete(mark)
            if self._host.clock.now() < session.expires:
                return session
            raise
        await shared.set(mark, b"yes", GRACE)
        self._remember(mark, new)
        self._host.count("refreshes")
        return new

    async def _asked(self, session: Session) -> Session:
        config = self._config
        tokens = await self._provider.renew(session.refresh_token)
        now = self._host.clock.now()
        claims = session.claims
        if tokens.id_token:
            # OpenID Connect Core 12.2.
            fresh = await checked_claims(
                tokens, self._provider.keys, config, session.nonce, now, renewed=True
            )
            if fresh["sub"] != claims.get("sub"):
                raise Refused("the new ID token is about another sub")
            claims = {**claims, **without(fresh, SPENT)}
        return Session(
            id=session.id,
            started=session.started,
            seen=int(now),
            nonce=session.nonce,
            claims=claims,
            scope=tokens.scope or session.scope,
            expires=int(now) + tokens.expires_in if tokens.expires_in else 0,
            # RFC 6749 6: the old one stays good where no new one comes.
            refresh_token=tokens.refresh_token or session.refresh_token,
            access_token=tokens.access_token if session.access_token else "",
            id_token=(tokens.id_token or session.id_token) if session.id_token else "",
        )

    async def _elsewhere(self, mark: str, session: Session) -> Session | None:
        """Another worker has sent, or sends, this refresh token."""
        clock = self._host.clock
        until = clock.monotonic() + self._config.provider_timeout / SECOND
        while True:
            said = await self._host.shared.get(mark)
            if said == b"no":
                return None
            if said == b"yes" or clock.now() < session.expires:
                return session
            if said is None or clock.monotonic() >= until:
                raise Unavailable("another worker could not refresh the session")
            await asyncio.sleep(_POLL)

    def _remember(self, mark: str, result: Session | None) -> None:
        now = self._host.clock.monotonic()
        self._recent[mark] = (result, now + GRACE)
        while self._recent:
            oldest = next(iter(self._recent))
            if self._recent[oldest][1] > now and len(self._recent) <= MAX_RECENT:
                return
            del self._recent[oldest]


def mark_of(session: Session) -> str:
    """Where a refresh is remembered; says nothing of the token. With the time, since some providers let one
    refresh token be used again and again."""
    text = f"{session.id}\0{session.expires}\0{session.refresh_token}"
    return "refresh:" + hashlib.sha256(text.encode()).hexdigest()[:40]
