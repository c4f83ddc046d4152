"""A signed token (JWS in its compact form, RFC 7515): read strictly, then verified with given keys.

The header is the attacker's. Its ``alg`` and ``kid`` are only ever looked up in what the configuration and
the provider's key set name; whatever would make it bring its own key, or change how it is read, refuses it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final, NamedTuple

from fastgate.plugins._auth.jwk import ALGORITHMS, MAX_KID, Key
from fastgate.plugins._auth.strict import b64url_decode, json_object

# Keys and where to get them (RFC 7515 4.1.2, 4.1.3, 4.1.5, 4.1.6), extensions that must be understood
# (4.1.11, RFC 7797), compression (RFC 7516 4.1.3).
_REFUSED: Final = ("jku", "jwk", "x5u", "x5c", "crit", "b64", "zip")
# A token without kid is tried with so many keys at most: each try costs up to 0.1 ms.
MAX_TRIES: Final = 4


class TokenError(Exception):
    """The token is refused. The text is for the log."""


class Token(NamedTuple):
    """A token as it was read; nothing in it is true before ``verify``. kid: "" where it has none."""

    alg: str
    kid: str
    typ: str
    header: dict[str, Any]
    claims: dict[str, Any]
    signed: bytes
    signature: bytes


def read_token(text: str) -> Token:
    """Reads a token, whose length the caller has bounded. Raises TokenError."""
    parts = text.split(".")
    if len(parts) == 5:
        raise TokenError("the token is encrypted (JWE), not signed")
    if len(parts) != 3:
        raise TokenError("the token has not three parts")
    header = _object(parts[0], "header")
    for name in _REFUSED:
        if name in header:
            raise TokenError(f"the header holds {name}")
    alg, kid, typ, cty = (_text(header, name) for name in ("alg", "kid", "typ", "cty"))
    if "kid" in header and not 0 < len(kid) <= MAX_KID:
        raise TokenError(f"kid has {len(kid)} letters")
    if cty.lower() in ("jwt", "application/jwt"):
        raise TokenError("the token holds another token (cty)")
    claims = _object(parts[1], "payload")
    try:
        signature = b64url_decode(parts[2])
    except ValueError as error:
        raise TokenError(f"the signature: {error}") from None
    return Token(alg, kid, typ, header, claims, f"{parts[0]}.{parts[1]}".encode(), signature)


def _object(part: str, what: str) -> dict[str, Any]:
    try:
        return json_object(b64url_decode(part))
    except ValueError as error:
        raise TokenError(f"the {what}: {error}") from None


def _text(header: dict[str, Any], name: str) -> str:
    value = header.get(name, "")
    if not isinstance(value, str):
        raise TokenError(f"{name} is no string")
    return value


def check_algorithm(token: Token, allowed: Collection[str]) -> None:
    """Raises TokenError unless the token's algorithm is one of ``allowed``, letter by letter."""
    if token.alg not in allowed or token.alg not in ALGORITHMS:
        raise TokenError(f"alg {token.alg[:20]!r} is not allowed")


def candidates(token: Token, keys: Sequence[Key]) -> list[Key]:
    """The keys of a set that may have signed the token: by its kid, or, where it has none, by algorithm."""
    fitting = [key for key in keys if key.fits(token.alg) and (not token.kid or key.kid == token.kid)]
    return fitting[:MAX_TRIES]


def verify(token: Token, keys: Sequence[Key]) -> None:
    """Raises TokenError unless one of ``keys``, which all fit the token's algorithm, made its signature."""
    from joserfc.jws import JWSRegistry

    # joserfc's own table, by a name that check_algorithm has let pass: "none" is not among those.
    algorithm = JWSRegistry.algorithms[token.alg]
    if not any(algorithm.verify(token.signed, token.signature, key.key) for key in keys):
        raise TokenError("the signature is wrong")
