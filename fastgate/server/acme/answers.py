"""What one process answers to directories and shows to clients, as the engine has ordered it."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from fastgate.server.acme.board import Challenge
from fastgate.server.certificates import CertificateStore

if TYPE_CHECKING:
    from fastgate import _core

__all__ = ["Answers", "OwnAnswers"]


class Answers:
    """Made before the fork: a worker begins with what its supervisor has, and is told of each change."""

    def __init__(self, certificates: CertificateStore) -> None:
        self._certificates = certificates
        self._tokens: dict[bytes, bytes] = {}
        self._worker: _core.Worker | None = None

    def attach(self, worker: _core.Worker) -> None:
        """It answers requests for tokens from now on."""
        self._worker = worker
        worker.answer_challenges(self._tokens)

    def put(self, challenge: Challenge) -> None:
        if challenge.kind == "tls-alpn-01":
            from fastgate.server.acme.keys import challenge_certificate  # takes cryptography along

            certificate, key = challenge_certificate(challenge.key, challenge.authorization)
            self._certificates.set_challenge(challenge.key, certificate, key)
        else:
            self._tokens[challenge.key.encode()] = challenge.authorization.encode()
            self._changed()

    def remove(self, challenge: Challenge) -> None:
        if challenge.kind == "tls-alpn-01":
            self._certificates.clear_challenge(challenge.key)
        else:
            self._tokens.pop(challenge.key.encode(), None)
            self._changed()

    def _changed(self) -> None:
        if self._worker is not None:
            self._worker.answer_challenges(self._tokens)

    def show(self, domain: str, chain_pem: bytes, key_pem: bytes) -> None:
        """ValueError: OpenSSL does not take it, and nothing has changed."""
        try:
            self._certificates.set([domain], chain_pem, key_pem)
        except ssl.SSLError as error:
            raise ValueError(f"OpenSSL does not take the certificate: {error.reason or error}") from error

    def hide(self, domain: str) -> None:
        self._certificates.remove([domain])


class OwnAnswers:
    """The ``ChallengeBoard`` and the ``CertificateSink`` of a gateway that is one process."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    async def put(self, challenge: Challenge) -> None:
        self._answers.put(challenge)

    async def remove(self, challenge: Challenge) -> None:
        self._answers.remove(challenge)

    async def set(self, domain: str, chain_pem: bytes, key_pem: bytes) -> None:
        self._answers.show(domain, chain_pem, key_pem)

    async def unset(self, domain: str) -> None:
        self._answers.hide(domain)
