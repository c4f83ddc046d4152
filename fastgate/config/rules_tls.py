"""Certificates and keys that a configuration names: read, and looked at as OpenSSL will."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path as FilePath
from typing import Any, Final

from msgspec.structs import replace

from fastgate.config.model import (
    Certificate,
    ClientAuth,
    Listener,
    ListenerTls,
    Secret,
    Upstream,
    UpstreamTls,
)
from fastgate.config.problems import Path, Problems, quote
from fastgate.config.tls_context import load_authorities, load_chain

MAX_BYTES: Final = 4 * 1024 * 1024
YEAR_NS: Final = 365 * 24 * 3600 * 10**9
EXPIRES_SOON_DAYS: Final = 14


def check_listener_tls(listener: Listener, base: FilePath, path: Path, problems: Problems) -> Listener:
    """With what is in the files."""
    tls = listener.tls
    if tls is None:
        return listener
    path = (*path, "tls")
    if find_spec("cryptography") is None:
        problems.error(path, "tls needs the package cryptography", "pip install fastgate[tls]")
        return listener
    certificates = tuple(
        _certificate(each, base, (*path, "certificates", at), problems)
        for at, each in enumerate(tls.certificates)
    )
    _check_versions(tls, path, problems)
    client_auth = tls.client_auth
    if client_auth is not None:
        client_auth = _client_auth(client_auth, base, (*path, "client_auth"), problems)
    hsts = YEAR_NS if tls.hsts is None and tls.redirect_from is not None else tls.hsts
    changed: ListenerTls = replace(tls, certificates=certificates, client_auth=client_auth, hsts=hsts)
    return replace(listener, tls=changed)


def check_upstream_tls(upstream: Upstream, base: FilePath, path: Path, problems: Problems) -> Upstream:
    """With what is in the files."""
    tls = upstream.tls
    if tls is None:
        return upstream
    path = (*path, "tls")
    _check_versions(tls, path, problems)
    if not tls.verify:
        problems.warning((*path, "verify"), "verify: endpoints are not asked who they are")
    ca = _read(base, tls.ca, (*path, "ca"), problems) if tls.ca else b""
    if ca:
        _told((*path, "ca"), problems, lambda: load_authorities(_context(), ca))
    if (tls.cert is None) != (tls.key is None):
        given, missing = ("cert", "key") if tls.cert else ("key", "cert")
        problems.error((*path, given), f"{given} without {missing}")
        return upstream
    cert, key = b"", None
    if tls.cert and tls.key:
        cert, key = _pair(base, tls.cert, tls.key, path, problems)
    changed: UpstreamTls = replace(tls, ca_pem=ca, cert_pem=cert, key_pem=key)
    return replace(upstream, tls=changed)


def _check_versions(tls: ListenerTls | UpstreamTls, path: Path, problems: Problems) -> None:
    """`min_version` may only raise what the profile has; to say the same is no fault."""
    if tls.profile == "modern" and tls.min_version == "1.2":
        problems.error(
            (*path, "min_version"),
            'min_version: the profile "modern" has no TLS 1.2',
            'leave `min_version` out, or take profile = "intermediate"',
        )


def _certificate(given: Certificate, base: FilePath, path: Path, problems: Problems) -> Certificate:
    cert, key = _pair(base, given.cert, given.key, path, problems)
    if key is None:
        return given
    from fastgate.config.certificates import names_of, not_after, now

    left = (not_after(cert) - now()).days
    if left < 0:
        problems.warning((*path, "cert"), f"cert: {quote(given.cert)} has expired {-left} days ago")
    elif left < EXPIRES_SOON_DAYS:
        problems.warning((*path, "cert"), f"cert: {quote(given.cert)} expires in {left} days")
    return replace(given, cert_pem=cert, key_pem=key, names=names_of(cert))


def _client_auth(given: ClientAuth, base: FilePath, path: Path, problems: Problems) -> ClientAuth:
    ca = _read(base, given.ca, (*path, "ca"), problems)
    crl = _read(base, given.crl, (*path, "crl"), problems) if given.crl else b""
    if ca:
        _told((*path, "ca"), problems, lambda: load_authorities(_context(), ca))
    if crl:
        _told((*path, "crl"), problems, lambda: load_authorities(_context(), crl))
    return replace(given, ca_pem=ca, crl_pem=crl)


def _pair(
    base: FilePath, cert_name: str, key_name: str, path: Path, problems: Problems
) -> tuple[bytes, Secret | None]:
    """The certificate and its key; no key where one of them is not good."""
    cert = _read(base, cert_name, (*path, "cert"), problems)
    key = _read(base, key_name, (*path, "key"), problems)
    if not cert or not key:
        return b"", None
    if b"PRIVATE KEY-----" not in key:
        problems.error((*path, "key"), f"key: {quote(key_name)} has no private key in PEM")
        return b"", None
    if b"-----BEGIN CERTIFICATE-----" not in cert:
        problems.error((*path, "cert"), f"cert: {quote(cert_name)} has no certificate in PEM")
        return b"", None
    secret = Secret(key.decode("latin-1"), f"file {base / key_name}")
    if not _told((*path, "cert"), problems, lambda: load_chain(_context(), cert, secret)):
        return b"", None
    return cert, secret


def _context() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


def _told(path: Path, problems: Problems, act: Callable[[], Any]) -> bool:
    """Whether OpenSSL has no objection."""
    try:
        act()
    except (ssl.SSLError, ValueError, OSError) as error:
        reason = getattr(error, "reason", None) or str(error)
        words = {
            "KEY_VALUES_MISMATCH": "the key is not that of the certificate",
            "NO_START_LINE": "nothing in it is in PEM",
            "BAD_PASSWORD_READ": "the key has a passphrase",
            "BAD_DECRYPT": "the key has a passphrase",
            "EE_KEY_TOO_SMALL": "the key is too short to be safe",
            "NO_CERTIFICATE_OR_CRL_FOUND": "nothing in it is a certificate in PEM",
        }
        problems.error(path, f"{path[-1]}: {words.get(reason, f'OpenSSL says {reason}')}")
        return False
    return True


def _read(base: FilePath, name: str, path: Path, problems: Problems) -> bytes:
    label = path[-1]
    try:
        with open(base / name, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        problems.error(path, f"{label}: cannot read {quote(name)}: {error.strerror or 'not readable'}")
        return b""
    if len(data) > MAX_BYTES:
        problems.error(path, f"{label}: {quote(name)} is larger than {MAX_BYTES // 2**20} MiB")
        return b""
    if not data:
        problems.error(path, f"{label}: {quote(name)} is empty")
    return data
