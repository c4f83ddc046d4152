"""One issuer: whether a token is its own, holds now, and whom it names."""

from __future__ import annotations

from typing import Final

from fastgate.plugins import Consumer
from fastgate.plugins._auth.claims import header_value, lookup, mismatch, scopes_of, words
from fastgate.plugins._auth.jwks import KeySet, StaticKeys
from fastgate.plugins._auth.jws import Token, TokenError, check_algorithm, verify
from fastgate.plugins._auth.strict import frozen
from fastgate.plugins._auth.validity import check_audience, check_times
from fastgate.plugins.jwt.cache import Verified
from fastgate.plugins.jwt.config import SECOND, Issuer, JwtConfig

MAX_CONSUMER: Final = 256


class NotAllowed(Exception):
    """The token is sound, and not enough. The text is for the log."""


class Verifier:
    """Verifies the tokens of one issuer. source: the plugin's name."""

    def __init__(self, issuer: Issuer, config: JwtConfig, keys: KeySet | StaticKeys, source: str) -> None:
        self._issuer, self._config, self._keys, self._source = issuer, config, keys, source
        self._audiences = frozenset(issuer.audience)
        self._leeway = config.leeway / SECOND
        self._max_age = None if config.max_age is None else config.max_age / SECOND

    async def verify(self, token: Token, now: float) -> Verified:
        """Raises TokenError, NotAllowed, or KeysUnavailable."""
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
        return Verified(self._consumer(token), self._headers(token), until)

    def _check_type(self, token: Token) -> None:
        # RFC 7515 4.1.9: a media type, in any case, whose "application/" may be left out.
        wanted = self._issuer.typ.lower().removeprefix("application/")
        if wanted and token.typ.lower().removeprefix("application/") != wanted:
            raise TokenError(f"typ is {token.typ[:40]!r}")

    def _consumer(self, token: Token) -> Consumer:
        config, claims = self._config, token.claims
        name = lookup(claims, config.consumer_claim)
        if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= MAX_CONSUMER:
            raise TokenError(f"the claim {config.consumer_claim} names no consumer")
        plan = lookup(claims, config.plan_claim) if config.plan_claim else ""
        return Consumer(
            name=(self._issuer.consumer_prefix or "") + name,
            plan=plan if isinstance(plan, str) else "",
            groups=words(lookup(claims, config.groups_claim)) if config.groups_claim else frozenset(),
            scopes=scopes_of(claims),
            claims=frozen(claims),
            source=self._source,
        )

    def _headers(self, token: Token) -> tuple[tuple[str, str], ...]:
        headers = []
        for claim, name in self._config.claims_to_headers.items():
            try:
                value = header_value(lookup(token.claims, claim))
            except ValueError as error:
                raise TokenError(f"the claim {claim} can't go into {name}: {error}") from None
            if value is not None:
                headers.append((name, value))
        return tuple(headers)
