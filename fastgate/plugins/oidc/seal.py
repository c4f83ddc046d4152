"""Values that only the gateway can read and make: AES-256-GCM, keys by HKDF from the configured secrets."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fastgate.plugins._auth.strict import b64url_decode

# NIST SP 800-38D 8.2.2: random nonces of 96 bits are good for 2**32 values of one key. One is made for each
# login and refresh, and every few minutes of a session.
_NONCE: Final = 12


class Sealer:
    """Seals values for one purpose: what was sealed for another, by the same secrets, does not open.

    secrets: the first seals, all open. context: what the values belong to.
    """

    def __init__(self, secrets: Sequence[str], purpose: str, context: Sequence[str]) -> None:
        info = "\0".join(("fastgate oidc 1", purpose, *context)).encode()
        self._ciphers = [
            AESGCM(HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(secret.encode()))
            for secret in secrets
        ]

    def seal(self, value: bytes) -> str:
        """Base64url, without padding."""
        nonce = os.urandom(_NONCE)
        sealed = nonce + self._ciphers[0].encrypt(nonce, value, None)
        return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()

    def open(self, text: str) -> bytes | None:
        """The value; None for what was not sealed by one of the secrets, for this purpose."""
        try:
            sealed = b64url_decode(text)
        except ValueError:
            return None
        for cipher in self._ciphers:
            try:
                return cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], None)
            except (InvalidTag, ValueError):  # ValueError: too short for a nonce
                continue
        return None
