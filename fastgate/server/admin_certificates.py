"""The certificates that the gateway shows, and how long they are good for."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from fastgate.config import Config

__all__ = ["CertificateView", "Certificates", "certificates_of"]

DAY = 86_400


class CertificateView(Struct, frozen=True, kw_only=True):
    """listener: who shows it; "" for the admin API. names: whom it is for. not_before, not_after: seconds
    since the epoch; days_left: whole ones, below zero once it has expired. sha256: of its DER, in hex."""

    listener: str
    file: str
    names: tuple[str, ...]
    issuer: str
    serial: str
    key: str
    not_before: float
    not_after: float
    days_left: int
    sha256: str


class Certificates(Struct, frozen=True):
    """The one that expires first stands first."""

    certificates: list[CertificateView]


def certificates_of(config: Config) -> Certificates:
    """Those of the configuration in force, and that of the admin API, of which it has the path alone: as the
    file is now, which is read here."""
    found = [
        (listener.name, each.cert, each.cert_pem)
        for listener in config.listeners
        if listener.tls is not None
        for each in listener.tls.certificates
    ]
    if config.admin is not None and config.admin.tls is not None:
        found.append(("", config.admin.tls.cert, _read(config.admin.tls.cert)))
    views = [_view(listener, file, pem) for listener, file, pem in found if pem]
    return Certificates(sorted(views, key=lambda view: view.not_after))


def _view(listener: str, file: str, pem: bytes) -> CertificateView:
    # Needed where there is TLS alone, and not there without the extra.
    from fastgate.config.certificates import facts_of, now

    facts = facts_of(pem)
    return CertificateView(
        listener=listener,
        file=file,
        names=facts.names,
        issuer=facts.issuer,
        serial=facts.serial,
        key=facts.key,
        not_before=facts.not_before.timestamp(),
        not_after=facts.not_after.timestamp(),
        days_left=int((facts.not_after - now()).total_seconds() // DAY),
        sha256=facts.sha256,
    )


def _read(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError:
        return b""  # it was taken away behind the reload
