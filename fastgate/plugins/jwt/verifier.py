"""One issuer: whether a token is its own, holds now, and whom it names."""

from __future__ import annotations

from fastgate.plugins._auth.bearer_plugin import NotAllowed
from fastgate.plugins._auth.claims import mismatch, scopes_of
from fastgate.plugins._auth.identity import Identity
from fastgate.plugins._auth.jwks import KeySet, StaticKeys
from fastgate.plugins._auth.jws import Token, TokenError, check_algorithm, verify
from fastgate.plugins._auth.memory import Verified
from fastgate.plugins._auth.validity import check_audience, check_times
from fastgate.plugins.jwt.config import SECOND, Issuer, JwtConfig


class Verifier:
    """Verifies the tokens of one issuer. source: the plugin's name."""

    def __init__(self, issuer: Issuer, config: JwtConfig, keys: KeySet | StaticKeys, source: str) -> None:
        self._issuer, self._config, self._keys = issuer, config, keys
        self._identity = Identity(config, source, issuer.consumer_prefix or "")
        self._audiences = frozenset(issuer.audience)
        self._leeway = config.leeway / SECOND
        self._max_age = None if config.max_age is None else config.max_age / SECOND

    async def verify(self, token: Token, now: float) -> Verified:
        """Raises TokenError, NotAllowed, or Unavailable."""
        check_algorithm(token, self._issuer.algorithms)
        verify(token, await self._keys.find(token))
        # From here on the claims are the issuer's.
        self._check_type(token)
        if not self._issuer.any_audience:
            check_audience(token.claims, self._audiences)
        until = check_times(
            token.claims,
            now,
            leeway=self._leeway,
            require_exp=self._config.require_exp,
            max_age=self._max_age,
        )
        wrong = mismatch(token.claims, self._config.required_claims)
        if wrong:
            raise NotAllowed(f"the claim {wrong} is not as required")
        try:
            consumer = self._identity.consumer(token.claims, scopes_of(token.claims))
            return Verified(consumer, self._identity.headers(token.claims), until)
        except ValueError as error:
            raise TokenError(str(error)) from None

    def _check_type(self, token: Token) -> None:
        # RFC 7515 4.1.9: a media type, in any case, whose "application/" may be left out.
        wanted = self._issuer.typ.lower().removeprefix("application/")
        if wanted and token.typ.lower().removeprefix("application/") != wanted:
            raise TokenError(f"typ is {token.typ[:40]!r}")
