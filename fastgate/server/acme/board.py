"""What the ACME engine needs of those who serve: a place for challenges, and one for certificates."""

from __future__ import annotations

from typing import Literal, Protocol

from msgspec import Struct

__all__ = ["CertificateSink", "Challenge", "ChallengeBoard", "ChallengeKind", "LocalBoard"]

ChallengeKind = Literal["http-01", "tls-alpn-01"]


class Challenge(Struct, frozen=True):
    """What a directory will look for. key: the token of http-01 (the last segment of the path), the domain of
    tls-alpn-01. authorization: the key authorization (RFC 8555 8.1), public and short."""

    kind: ChallengeKind
    key: str
    authorization: str


class ChallengeBoard(Protocol):
    """Both are called as often as wanted with the same challenge, and never at once for one."""

    async def put(self, challenge: Challenge) -> None:
        """When it returns, whoever may be asked by the directory answers it: every worker, every replica."""

    async def remove(self, challenge: Challenge) -> None:
        """It is answered no more. One that is not there is no error."""


class CertificateSink(Protocol):
    async def set(self, domain: str, chain_pem: bytes, key_pem: bytes) -> None:
        """Handshakes for ``domain`` get this certificate from now on. ValueError: it can't be used."""

    async def unset(self, domain: str) -> None:
        """No longer."""


class LocalBoard:
    """The challenges of one process, to be looked up by what answers them there."""

    def __init__(self) -> None:
        self.tokens: dict[str, str] = {}
        self.domains: dict[str, str] = {}

    def _of(self, kind: ChallengeKind) -> dict[str, str]:
        return self.tokens if kind == "http-01" else self.domains

    async def put(self, challenge: Challenge) -> None:
        self._of(challenge.kind)[challenge.key] = challenge.authorization

    async def remove(self, challenge: Challenge) -> None:
        self._of(challenge.kind).pop(challenge.key, None)
