"""Keys that verify signatures: from a JWKS (RFC 7517), a PEM file or a shared secret, each within bounds.

Of a fetched JWK only the public members are read, and symmetric keys in it are never used: a value that is
public must not become a shared secret.

joserfc and cryptography are loaded when they are first used: they take a moment.
"""

from __future__ import annotations

import base64
from typing import Any, Final, NamedTuple

from fastgate.plugins._auth.strict import json_object

MAX_JWKS: Final = 256 * 1024
MAX_KEYS: Final = 100
MAX_KID: Final = 256
RSA_BITS: Final = range(2048, 8192 + 1)

# Algorithm -> type of its key, and curve (RFC 7518 3.1, RFC 8037 3.1, RFC 9864 2.2).
ALGORITHMS: Final[dict[str, tuple[str, str]]] = {
    **{f"{family}{bits}": ("RSA", "") for family in ("RS", "PS") for bits in (256, 384, 512)},
    **{f"HS{bits}": ("oct", "") for bits in (256, 384, 512)},
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
    "Ed25519": ("OKP", "Ed25519"),
}
_CURVES: Final = {curve for _, curve in ALGORITHMS.values() if curve}
_PUBLIC: Final = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
# Base64url letters of the longest value: 8192 bits of n, 66 bytes of a coordinate on P-521.
_LONGEST: Final = {"n": 1368, "e": 6, "x": 88, "y": 88, "crv": 16}


class Key(NamedTuple):
    """One key. kid and alg: "" where it has none. key: joserfc's."""

    kid: str
    kind: str
    curve: str
    alg: str
    key: Any

    def fits(self, algorithm: str) -> bool:
        """Whether the key is one for ``algorithm``, by its type, its curve and its own ``alg``."""
        if ALGORITHMS.get(algorithm) != (self.kind, self.curve):
            return False
        # EdDSA is the older name of what Ed25519 says exactly.
        return (
            not self.alg or self.alg == algorithm or (self.kind == "OKP" and self.alg in ("EdDSA", "Ed25519"))
        )


def keys_from_jwks(data: bytes) -> tuple[tuple[Key, ...], list[str]]:
    """The keys of a JWKS that can verify, and why others can't: they are passed over (RFC 7517 5). Raises
    ValueError for what is no JWKS, or too large."""
    if len(data) > MAX_JWKS:
        raise ValueError(f"the JWKS has more than {MAX_JWKS} bytes")
    listed = json_object(data).get("keys")
    if not isinstance(listed, list):
        raise ValueError('the JWKS has no array "keys"')
    if len(listed) > MAX_KEYS:
        raise ValueError(f"the JWKS has {len(listed)} keys; {MAX_KEYS} is the most")
    keys: list[Key] = []
    skipped: list[str] = []
    for at, jwk in enumerate(listed):
        try:
            keys.append(_from_jwk(jwk))
        except ValueError as error:
            skipped.append(f"key {at}: {error}")
    return tuple(keys), skipped


def _from_jwk(jwk: Any) -> Key:
    if not isinstance(jwk, dict):
        raise ValueError("no JSON object")
    kid, alg, kind, curve = (_text(jwk, name) for name in ("kid", "alg", "kty", "crv"))
    if len(kid) > MAX_KID:
        raise ValueError(f"its kid has more than {MAX_KID} letters")
    if kind not in _PUBLIC:
        raise ValueError(f"keys of type {kind[:20]!r} are not used")
    if jwk.get("use", "sig") != "sig":
        raise ValueError("it is not for signatures (use)")
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise ValueError("it is not to verify with (key_ops)")
    if kind == "RSA":
        curve = ""
    elif curve not in _CURVES:
        raise ValueError(f"the curve {curve[:20]!r} is not used")
    public = {"kty": kind}
    for name in _PUBLIC[kind]:
        public[name] = _text(jwk, name)
        if not 0 < len(public[name]) <= _LONGEST[name]:
            raise ValueError(f"{name} is missing or too long")
    if kind == "RSA":
        # Before it is imported: joserfc warns of small keys, and large ones take their time.
        _check_bits(int.from_bytes(base64.urlsafe_b64decode(public["n"] + "==")).bit_length())
    return Key(kid, kind, curve, alg, _imported(kind, public))


def _text(jwk: dict[str, Any], name: str) -> str:
    value = jwk.get(name, "")
    if not isinstance(value, str):
        raise ValueError(f"{name} is no string")
    return value


def _imported(kind: str, value: Any) -> Any:
    """joserfc's key. Raises ValueError."""
    from joserfc.errors import JoseError
    from joserfc.jwk import ECKey, OKPKey, RSAKey

    classes: dict[str, Any] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
    try:
        return classes[kind].import_key(value)
    except (JoseError, TypeError) as error:
        raise ValueError(f"no {kind} key: {error}") from None


def _check_bits(bits: int) -> None:
    if bits not in RSA_BITS:
        raise ValueError(f"RSA keys have {RSA_BITS.start} to {RSA_BITS.stop - 1} bits, not {bits}")


def key_from_pem(data: bytes) -> Key:
    """The public key of a PEM file (SubjectPublicKeyInfo). Raises ValueError."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        public = load_pem_public_key(data)
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from None
    if isinstance(public, RSAPublicKey):
        _check_bits(public.key_size)
        return Key("", "RSA", "", "", _imported("RSA", public))
    if isinstance(public, Ed25519PublicKey):
        return Key("", "OKP", "Ed25519", "", _imported("OKP", public))
    curves = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
    if isinstance(public, EllipticCurvePublicKey) and public.curve.name in curves:
        return Key("", "EC", curves[public.curve.name], "", _imported("EC", public))
    raise ValueError("neither an RSA, nor an EC key on a NIST curve, nor an Ed25519 key")


def key_from_secret(secret: str) -> Key:
    """The key of HS256, HS384 and HS512."""
    from joserfc.jwk import OctKey

    return Key("", "oct", "", "", OctKey.import_key(secret.encode()))
