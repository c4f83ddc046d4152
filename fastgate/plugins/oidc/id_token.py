"""The ID token: whether the provider made it, for this client, in this login."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any, Final

from fastgate.plugins._auth.jwks import KeySet
from fastgate.plugins._auth.jws import TokenError, check_algorithm, read_token, verify
from fastgate.plugins._auth.validity import check_audience, check_times
from fastgate.plugins.oidc.config import SECOND, Config
from fastgate.plugins.oidc.provider import Refused, Tokens

#: Claims that are of no use after this check.
SPENT: Final = ("nonce", "at_hash", "c_hash", "s_hash", "aud", "azp", "exp", "iat", "nbf", "jti")
_HASHES: Final = {"256": hashlib.sha256, "384": hashlib.sha384}


async def checked_claims(
    tokens: Tokens, keys: KeySet, config: Config, nonce: str, now: float, *, renewed: bool = False
) -> dict[str, Any]:
    """The claims of ``tokens.id_token`` (OpenID Connect Core 3.1.3.7). renewed: it came with a refresh, where
    the nonce may be missing (12.2). Raises Refused, Unavailable."""
    try:
        token = read_token(tokens.id_token)
        check_algorithm(token, config.algorithms)
        verify(token, await keys.find(token))
        claims = token.claims
        if claims.get("iss") != config.issuer:
            raise TokenError("made by another issuer")
        _check_audience(claims, config)
        check_times(claims, now, leeway=config.leeway / SECOND)
        _check_nonce(claims, nonce, renewed)
        _check_at_hash(claims, tokens.access_token, token.alg)
    except TokenError as error:
        raise Refused(f"ID token: {error}") from None
    # Core 2: at most 255 ASCII letters.
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= 255:
        raise Refused("ID token: sub is missing or too long")
    return claims


def _check_audience(claims: dict[str, Any], config: Config) -> None:
    check_audience(claims, frozenset((config.client_id,)))
    audiences = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
    foreign = set(audiences) - {config.client_id, *config.audiences}
    if foreign:
        raise TokenError(f"it is for {len(foreign)} more audiences that are not trusted")
    party = claims.get("azp")
    if party != config.client_id and (party is not None or len(audiences) > 1):
        raise TokenError("made for another party (azp)")


def _check_nonce(claims: dict[str, Any], nonce: str, renewed: bool) -> None:
    found = claims.get("nonce")
    if found is None and renewed:
        return
    if not isinstance(found, str) or not hmac.compare_digest(found.encode(), nonce.encode()):
        raise TokenError("the nonce is not that of the login")


def _check_at_hash(claims: dict[str, Any], access_token: str, algorithm: str) -> None:
    """Core 3.1.3.6: the left half of the access token's hash, by the algorithm's hash function."""
    found = claims.get("at_hash")
    if found is None:
        return
    hashed = _HASHES.get(algorithm[-3:], hashlib.sha512)  # that of Ed25519, too
    digest = hashed(access_token.encode()).digest()
    wanted = base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode()
    if not isinstance(found, str) or not hmac.compare_digest(found.encode(), wanted.encode()):
        raise TokenError("at_hash does not belong to the access token")
