"""An authority for one machine, and certificates by it."""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["Made", "NameProblem", "NoAuthority", "make"]

# Browsers refuse certificates that are valid for longer than 398 days; authorities may be.
MAX_DAYS: Final = 397
_AUTHORITY_DAYS: Final = 3650
_DAY: Final = datetime.timedelta(days=1)
_LABEL: Final = "[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?"
_LABELS: Final = re.compile(rf"(\*\.)?({_LABEL}\.)*{_LABEL}")


class NameProblem(ValueError):
    """What no certificate can be for."""


class NoAuthority(ValueError):
    """The files are there, and are no authority of ours."""


class Made(NamedTuple):
    """Paths, and whom the certificate is for."""

    authority: Path
    certificate: Path
    key: Path
    names: tuple[str, ...]


def make(folder: Path, names: tuple[str, ...], days: int) -> Made:
    """Raises NameProblem, NoAuthority or OSError."""
    if not 1 <= days <= MAX_DAYS:
        raise NameProblem(f"--days: from 1 to {MAX_DAYS}, which is what browsers take; got {days}")
    general = [_general(name) for name in names]
    folder.mkdir(parents=True, exist_ok=True)
    authority, own = _authority(folder)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(names[0], authority.subject, key.public_key(), days)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
    builder = builder.add_extension(_usage(signs=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(own.public_key()), critical=False
    )
    stem = re.sub(r"[^A-Za-z0-9.-]", "_", names[0].replace("*", "wildcard"))
    certificate = folder / f"{stem}.pem"
    _write_key(certificate.with_suffix(".key"), key)
    certificate.write_bytes(builder.sign(own, SHA256()).public_bytes(Encoding.PEM))
    return Made(folder / "authority.pem", certificate, certificate.with_suffix(".key"), names)


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    if len(name) > 253 or not _LABELS.fullmatch(name.lower()):
        raise NameProblem(f'{name!r} is neither a host name, nor "*." before one, nor an address')
    return x509.DNSName(name.lower())


def _authority(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """The one that is there, or a new one."""
    file, key_file = folder / "authority.pem", folder / "authority.key"
    if file.exists() or key_file.exists():
        try:
            certificate = x509.load_pem_x509_certificate(file.read_bytes())
            key = load_pem_private_key(key_file.read_bytes(), None)
        except (OSError, ValueError, TypeError) as error:
            raise NoAuthority(f"{file} and its key can't be used: {error}") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise NoAuthority(f"{key_file} is not the key of {file}")
        if certificate.not_valid_after_utc < datetime.datetime.now(datetime.UTC) + MAX_DAYS * _DAY:
            raise NoAuthority(f"{file} expires soon: remove it and its key, and trust the next one")
        return certificate, key
    key = ec.generate_private_key(ec.SECP256R1())
    common = f"fastgate dev authority ({os.uname().nodename})"[:64]
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
    builder = _builder("", name, key.public_key(), _AUTHORITY_DAYS)
    builder = builder.subject_name(name)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs=True), critical=True)
    certificate = builder.sign(key, SHA256())
    _write_key(key_file, key)
    file.write_bytes(certificate.public_bytes(Encoding.PEM))
    return certificate, key


def _builder(
    subject: str, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().issuer_name(issuer).public_key(key)
    if subject:
        # 64 characters are all that a common name may have; the names that count stand elsewhere.
        builder = builder.subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject[:64])]))
    return (
        builder.serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + days * _DAY)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _write_key(file: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """For its owner alone, from its first byte on."""
    file.unlink(missing_ok=True)
    fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(fd, "wb") as out:
        out.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
