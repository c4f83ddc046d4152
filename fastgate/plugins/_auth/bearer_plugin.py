"""What ``jwt`` and ``oauth2-introspection`` share: callers who bring a token, and the answers to those who do
not bring a good one (RFC 6750 3)."""

from __future__ import annotations

from abc import abstractmethod
from hashlib import sha256
from typing import Annotated

from fastgate.plugins import Exchange, Host, Plugin, Response, doc
from fastgate.plugins._auth.ask import Unavailable
from fastgate.plugins._auth.bearer import BadToken, TokenPlace
from fastgate.plugins._auth.challenge import challenge
from fastgate.plugins._auth.identity import IdentityConfig
from fastgate.plugins._auth.jws import TokenError
from fastgate.plugins._auth.memory import Memory, Verified


class BearerConfig(IdentityConfig):
    """The keys that they share."""

    scopes: Annotated[
        tuple[str, ...],
        doc("Scopes (claim scope or scp) that a token must all have; else 403.", one_or_many=True),
    ] = ()
    forward_token: Annotated[bool, doc("Whether the service gets the token, too.")] = True
    anonymous: Annotated[
        bool,
        doc("Let requests without a token pass, without a consumer. A bad token is refused all the same."),
    ] = False
    realm: Annotated[str, doc("The realm that WWW-Authenticate names.", "header-value")] = "api"


class NotAllowed(Exception):
    """The token is sound, and not enough. The text is for the log."""


class BearerPlugin(Plugin):
    """``provision`` of a subclass calls ``admit_by``; then ``verify`` says what a token proves that is not
    known yet."""

    config: BearerConfig

    @classmethod
    def identity_headers(cls, config: BearerConfig) -> tuple[str, ...]:
        return tuple(config.claims_to_headers.values())

    def admit_by(self, host: Host, place: TokenPlace, remembered: int, retry_after: int) -> None:
        """remembered: tokens at most. retry_after: seconds, for callers about whom nobody can be asked."""
        self._host = host
        self._place = place
        self._memory: Memory[Verified] = Memory(remembered)
        self._scopes = frozenset(self.config.scopes)
        self._retry_after = str(retry_after)

    @abstractmethod
    async def verify(self, token: str, digest: bytes) -> Verified:
        """digest: its SHA-256, by which it may be put into ``_memory``. Raises TokenError, NotAllowed,
        Unavailable."""

    async def on_request(self, exchange: Exchange) -> Response | None:
        try:
            token = self._place.find(exchange.request)
        except BadToken as error:
            return self._refused(exchange, str(error), "invalid_request")
        if token is None:
            if self.config.anonymous:
                return None
            headers = {"www-authenticate": challenge("Bearer", realm=self.config.realm)}
            return exchange.refuse(401, "authentication-required", "no token", headers=headers)
        digest = sha256(token.encode()).digest()
        found = self._memory.get(digest, self._host.clock.now())
        try:
            if found is None:
                found = await self.verify(token, digest)
            self._admit(exchange, found)
        except TokenError as error:
            return self._refused(exchange, str(error), "invalid_token")
        except NotAllowed as error:
            return self._forbidden(exchange, str(error))
        except Unavailable as error:
            self._host.count("unavailable")
            headers = {"retry-after": self._retry_after}
            return exchange.refuse(503, "authentication-unavailable", str(error), headers=headers)
        return None

    def _admit(self, exchange: Exchange, verified: Verified) -> None:
        missing = self._scopes - verified.consumer.scopes
        if missing:
            raise NotAllowed(f"scopes are missing: {' '.join(sorted(missing))}")
        request = exchange.request
        for name, value in verified.headers:
            request.headers[name] = value
        if not self.config.forward_token:
            self._place.remove(request)
        exchange.consumer = verified.consumer

    def _refused(self, exchange: Exchange, why: str, error: str) -> Response:
        self._host.count("refused")
        headers = {"www-authenticate": challenge("Bearer", realm=self.config.realm, error=error)}
        return exchange.refuse(401, "authentication-failed", why, headers=headers)

    def _forbidden(self, exchange: Exchange, why: str) -> Response:
        self._host.count("forbidden")
        scope = " ".join(self.config.scopes)
        named = challenge("Bearer", realm=self.config.realm, error="insufficient_scope", scope=scope)
        return exchange.refuse(403, "forbidden", why, headers={"www-authenticate": named})
