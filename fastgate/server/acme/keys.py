"""Keys, requests and certificates: what is made here, and what is read of those that were issued."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from msgspec import Struct

from fastgate.config.certificates import facts_of

__all__ = ["Issued", "KeyType", "challenge_certificate", "make_key", "make_request", "read_issued"]

KeyType = Literal["ecdsa-p256", "rsa-2048"]
# RFC 8737 6.1: id-pe-acmeIdentifier.
_ACME_IDENTIFIER: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")


class Issued(Struct, frozen=True):
    """A certificate of the directory with its chain and its key, all PEM. Times: seconds since 1970."""

    domain: str
    chain: str
    key: str
    not_before: float
    not_after: float
    serial: str  # hexadecimal
    issuer: str
    algorithm: str  # of its key: "ECDSA secp256r1"
    sha256: str  # of its DER, in hex


def make_key(kind: KeyType) -> str:
    """PKCS #8, PEM, not encrypted."""
    key = (
        ec.generate_private_key(ec.SECP256R1())
        if kind == "ecdsa-p256"
        else rsa.generate_private_key(public_exponent=65537, key_size=2048)
    )
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _signer(key_pem: str) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    key = load_pem_private_key(key_pem.encode(), None)
    if not isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)):
        raise ValueError(f"a key of the kind {type(key).__name__} is not used here")
    return key


def make_request(key_pem: str, domain: str) -> bytes:
    """A certificate signing request, PEM. The name is in the SAN alone: a CN has room for 64 bytes."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(domain)]), critical=True)
    return builder.sign(_signer(key_pem), SHA256()).public_bytes(Encoding.PEM)


def challenge_certificate(domain: str, authorization: str) -> tuple[bytes, bytes]:
    """The self-signed certificate of tls-alpn-01 (RFC 8737 3), and its key, both PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ACME challenge")])
    digest = hashlib.sha256(authorization.encode()).digest()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(domain)]), critical=False)
        # The value is the DER of an OCTET STRING of 32 bytes.
        .add_extension(x509.UnrecognizedExtension(_ACME_IDENTIFIER, b"\x04\x20" + digest), critical=True)
        .sign(key, SHA256())
    )
    return (
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


def read_issued(domain: str, chain: str, key: str) -> Issued:
    """ValueError: it is not a chain for ``domain`` with the key of its first certificate."""
    certificates = x509.load_pem_x509_certificates(chain.encode())
    leaf = certificates[0]
    public = _signer(key).public_key()
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if leaf.public_key().public_bytes(*form) != public.public_bytes(*form):
        raise ValueError("the key is not that of the certificate")
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise ValueError("the certificate names nobody") from None
    if domain not in (name.lower() for name in names.get_values_for_type(x509.DNSName)):
        raise ValueError(f"the certificate is not for {domain}")
    facts = facts_of(chain.encode())
    return Issued(
        domain=domain,
        chain=chain,
        key=key,
        not_before=facts.not_before.timestamp(),
        not_after=facts.not_after.timestamp(),
        serial=facts.serial,
        issuer=facts.issuer,
        algorithm=facts.key,
        sha256=facts.sha256,
    )
