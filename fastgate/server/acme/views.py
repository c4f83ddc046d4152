"""What an operator is shown of ACME. Times: seconds since 1970."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

__all__ = ["AcmeCertificateView", "AcmeView"]


class AcmeCertificateView(Struct, frozen=True, kw_only=True):
    """state: "pending" while there has been no certificate yet, "expired" when the one in use has. failures,
    problem, next_try: of the last try; 0, "" and None once one has gone well. Those that wait for the
    storage, the account or the directory have what that fails with. key: its algorithm.
    sha256: of its DER."""

    domain: str
    state: Literal["pending", "valid", "expired"]
    serial: str = ""
    issuer: str = ""
    key: str = ""
    sha256: str = ""
    not_before: float | None = None
    not_after: float | None = None
    renew_at: float | None = None
    failures: int = 0  # in a row
    problem: str = ""
    next_try: float | None = None  # after a failure


class AcmeView(Struct, frozen=True, kw_only=True):
    """One `[acme.NAME]`. account: its URL, "" while there is none. problem: of the storage, the account or
    the directory as a whole."""

    name: str
    directory: str
    account: str
    problem: str
    certificates: tuple[AcmeCertificateView, ...]
