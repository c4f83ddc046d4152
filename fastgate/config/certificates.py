"""What a certificate says of itself."""

from __future__ import annotations

import datetime
import hashlib
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID, NameOID

__all__ = ["Facts", "facts_of", "names_of", "not_after", "now"]


class Facts(NamedTuple):
    """Of the first certificate of a chain."""

    names: tuple[str, ...]
    issuer: str
    serial: str  # hexadecimal
    not_before: datetime.datetime
    not_after: datetime.datetime
    key: str  # "RSA 2048", "ECDSA secp256r1", "Ed25519"
    sha256: str


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def names_of(pem: bytes) -> tuple[str, ...]:
    """Whom it is for: its DNS names in lower case and its IP addresses; without any, its common name."""
    return _names(x509.load_pem_x509_certificate(pem))


def not_after(pem: bytes) -> datetime.datetime:
    return x509.load_pem_x509_certificate(pem).not_valid_after_utc


def facts_of(pem: bytes) -> Facts:
    certificate = x509.load_pem_x509_certificate(pem)
    return Facts(
        names=_names(certificate),
        issuer=certificate.issuer.rfc4514_string(),
        serial=f"{certificate.serial_number:x}",
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        key=_key(certificate),
        sha256=hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest(),
    )


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        found = certificate.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
    except x509.ExtensionNotFound:
        common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return tuple(str(each.value).lower() for each in common)
    assert isinstance(found, x509.SubjectAlternativeName)
    dns = [name.lower() for name in found.get_values_for_type(x509.DNSName)]
    return (*dns, *(str(address) for address in found.get_values_for_type(x509.IPAddress)))


def _key(certificate: x509.Certificate) -> str:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"ECDSA {key.curve.name}"
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "Ed25519"
    return "Ed448" if isinstance(key, ed448.Ed448PublicKey) else type(key).__name__
