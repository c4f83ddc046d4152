"""The certificates that the gateway shows or waits for, and how long they are good for."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from msgspec import Struct

from fastgate.config import Config
from fastgate.server.acme.views import AcmeCertificateView, AcmeView

__all__ = ["CertificateView", "Certificates", "certificates_of"]

DAY = 86_400
UNKNOWN = "the process that orders it has said nothing yet"


class CertificateView(Struct, frozen=True, kw_only=True):
    """listener: who shows it; "" for the admin API. file, acme: where it is from, a file or an `[acme.NAME]`;
    the other one is "". state: "pending" while an ACME directory has given none yet, which is why nothing is
    known of it. names: whom it is for. Times: seconds since the epoch; days_left: whole ones, below zero once
    it has expired. sha256: of its DER, in hex. Of ACME, renew_at: when it will be ordered anew; failures,
    problem, next_try: tries in a row that failed, what the last one failed with, and when the next one is."""

    listener: str
    file: str = ""
    acme: str = ""
    state: Literal["valid", "expired", "pending"]
    names: tuple[str, ...]
    issuer: str = ""
    serial: str = ""
    key: str = ""
    not_before: float | None = None
    not_after: float | None = None
    days_left: int | None = None
    sha256: str = ""
    renew_at: float | None = None
    failures: int = 0
    problem: str = ""
    next_try: float | None = None


class Certificates(Struct, frozen=True):
    """Those that are pending stand first, then the one that expires first."""

    certificates: list[CertificateView]


def certificates_of(config: Config, acme: Iterable[AcmeView], now: float) -> Certificates:
    """Those of the configuration in force, those that its listeners want of ``acme``, and that of the admin
    API, of which it has the path alone: as the file is now, which is read here. now: seconds since the
    epoch."""
    found = [
        (listener.name, each.cert, each.cert_pem)
        for listener in config.listeners
        if listener.tls is not None
        for each in listener.tls.certificates
    ]
    if config.admin is not None and config.admin.tls is not None:
        found.append(("", config.admin.tls.cert, _read(config.admin.tls.cert)))
    views = [_of_file(listener, file, pem, now) for listener, file, pem in found if pem]
    views += _of_acme(config, acme, now)
    return Certificates(sorted(views, key=lambda view: view.not_after or 0.0))


def _of_file(listener: str, file: str, pem: bytes, now: float) -> CertificateView:
    # Needed where there is TLS alone, and not there without the extra.
    from fastgate.config.certificates import facts_of

    facts = facts_of(pem)
    not_after = facts.not_after.timestamp()
    return CertificateView(
        listener=listener,
        file=file,
        state="valid" if not_after > now else "expired",
        names=facts.names,
        issuer=facts.issuer,
        serial=facts.serial,
        key=facts.key,
        not_before=facts.not_before.timestamp(),
        not_after=not_after,
        days_left=_days(not_after, now),
        sha256=facts.sha256,
    )


def _of_acme(config: Config, acme: Iterable[AcmeView], now: float) -> list[CertificateView]:
    """What the listeners name, whether anything is known of it or not."""
    known = {(view.name, each.domain): each for view in acme for each in view.certificates}
    views = []
    for listener in config.listeners:
        if listener.tls is None or not (name := listener.tls.acme):
            continue
        for domain in listener.tls.domains:
            one = known.get((name, domain))
            if one is None:
                one = AcmeCertificateView(domain=domain, state="pending", problem=UNKNOWN)
            views.append(
                CertificateView(
                    listener=listener.name,
                    acme=name,
                    state=one.state,
                    names=(domain,),
                    issuer=one.issuer,
                    serial=one.serial,
                    key=one.key,
                    not_before=one.not_before,
                    not_after=one.not_after,
                    days_left=None if one.not_after is None else _days(one.not_after, now),
                    sha256=one.sha256,
                    renew_at=one.renew_at,
                    failures=one.failures,
                    problem=one.problem,
                    next_try=one.next_try,
                )
            )
    return views


def _days(not_after: float, now: float) -> int:
    return int((not_after - now) // DAY)


def _read(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError:
        return b""  # it was taken away behind the reload
