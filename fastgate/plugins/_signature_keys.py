"""The keys of ``hmac``: each has one algorithm, whatever a signature says (RFC 9421 7.3.6)."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from fastgate.plugins import Secret, doc
from fastgate.plugins._consumers import ConsumerKeys

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

Verify = Callable[[bytes, bytes], bool]

_MIN_SECRET: Final = 32  # the length of the hash's output (RFC 2104 3)
_MIN_RSA_BITS: Final = 2048
_MAX_KEY_FILE: Final = 64 * 1024


class SigningKey(ConsumerKeys, frozen=True, kw_only=True):
    """A key that may sign, and whose it is."""

    algorithm: Annotated[
        Literal["hmac-sha256", "ed25519", "ecdsa-p256-sha256", "rsa-v1_5-sha256", "rsa-pss-sha512"],
        doc("The one algorithm that counts with this key."),
    ]
    secret: Annotated[Secret | None, doc("For hmac-sha256: the shared secret, 32 bytes or more.")] = None
    secret_encoding: Annotated[
        Literal["text", "base64"], doc("Whether the secret's text is the key, or base64 of the key.")
    ] = "text"
    public_key: Annotated[str, doc("For the others: the public key, PEM.")] = ""
    public_key_file: Annotated[str | None, doc("The same in a file.", "file")] = None
    consumer: Annotated[str, doc("The consumer's name.", default="the key's id")] = ""


def check_key(key: SigningKey) -> str:
    """What is wrong between its entries, "" for nothing."""
    public = bool(key.public_key) + (key.public_key_file is not None)
    if key.algorithm != "hmac-sha256":
        if key.secret is not None:
            return f"{key.algorithm} has a public key and no secret"
        return "" if public == 1 else "give one of `public_key` and `public_key_file`"
    # The public key of another algorithm as HMAC's secret is what forgers ask for.
    if public:
        return "hmac-sha256 has a secret and no public key"
    if key.secret is None:
        return "hmac-sha256 needs `secret`"
    try:
        return "" if len(_secret(key)) >= _MIN_SECRET else f"the secret is shorter than {_MIN_SECRET} bytes"
    except ValueError as error:
        return str(error)


def verifier(key: SigningKey, folder: Path) -> Verify:
    """The function that says whether a signature (its second argument) fits. Reads the key's file. Raises
    ValueError for a key that can't be read, or is not the algorithm's."""
    if key.algorithm == "hmac-sha256":
        secret = _secret(key)
        return lambda base, signature: hmac.compare_digest(hmac.digest(secret, base, "sha256"), signature)
    pem = key.public_key.encode()
    if key.public_key_file is not None:
        path = folder / key.public_key_file
        try:
            with open(path, "rb") as file:
                pem = file.read(_MAX_KEY_FILE)
        except OSError as error:
            raise ValueError(f"{path}: {error.strerror}") from None
    return _asymmetric(key.algorithm, _public_key(pem))


def _secret(key: SigningKey) -> bytes:
    assert key.secret is not None
    text = key.secret.reveal()
    if key.secret_encoding == "text":
        return text.encode()
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("the secret is no base64") from None


def _public_key(pem: bytes) -> PublicKeyTypes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        return load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("it is no public key in PEM") from None


def _asymmetric(algorithm: str, key: PublicKeyTypes) -> Verify:
    """RFC 9421 3.3."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
    from cryptography.hazmat.primitives.hashes import SHA256, SHA512

    def checked(verify: Callable[[bytes, bytes], Any]) -> Verify:
        def fits(base: bytes, signature: bytes) -> bool:
            try:
                verify(base, signature)
            except InvalidSignature:
                return False
            return True

        return fits

    if algorithm == "ed25519" and isinstance(key, ed25519.Ed25519PublicKey):
        return checked(lambda base, signature: key.verify(signature, base))
    if (
        algorithm == "ecdsa-p256-sha256"
        and isinstance(key, ec.EllipticCurvePublicKey)
        and isinstance(key.curve, ec.SECP256R1)
    ):

        def ecdsa(base: bytes, signature: bytes) -> None:
            # r and s, each 32 bytes (RFC 9421 3.3.4), not DER.
            if len(signature) != 64:
                raise InvalidSignature
            r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
            key.verify(encode_dss_signature(r, s), base, ec.ECDSA(SHA256()))

        return checked(ecdsa)
    if algorithm.startswith("rsa-") and isinstance(key, rsa.RSAPublicKey):
        if key.key_size < _MIN_RSA_BITS:
            raise ValueError(f"an RSA key of {key.key_size} bits is too short: {_MIN_RSA_BITS} at least")
        if algorithm == "rsa-v1_5-sha256":
            return checked(lambda base, signature: key.verify(signature, base, padding.PKCS1v15(), SHA256()))
        pss = padding.PSS(padding.MGF1(SHA512()), salt_length=64)
        return checked(lambda base, signature: key.verify(signature, base, pss, SHA512()))
    raise ValueError(f"the key is none of {algorithm}")
