"""Requests to a directory: the library's network with bounds in bytes and time, and with patience for nonces.

All of it blocks; it runs in the engine's threads. One `Network` belongs to one thread at a time.
"""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import Any, Final

import requests
import urllib3
from acme import challenges, client, messages
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from josepy.jwa import ES256
from josepy.jwk import JWK, JWKEC
from josepy.util import ComparableECKey

from fastgate import __version__

__all__ = ["TLSALPN01", "Network", "account_key"]

MOST_BYTES: Final = 1024 * 1024
SECONDS: Final = 30.0  # for one answer, from its first byte on; and for a connection or a pause, each
MOST_RETRY_AFTER: Final = 7 * 86400.0
NONCE_TRIES: Final = 5  # each of them two requests of the library


class _Bounded:
    """The body of an answer; reading more than ``MOST_BYTES`` of it, or for too long, is an error."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._left = MOST_BYTES
        self._until = time.monotonic() + SECONDS

    def read(self, amount: int) -> bytes:
        # read1 gives what is there: read() would wait for all of it, however slowly it comes.
        try:
            data: bytes = self._raw.read1(amount, decode_content=True)
        except urllib3.exceptions.HTTPError as error:
            raise requests.exceptions.ConnectionError(error) from error
        self._left -= len(data)
        if self._left < 0:
            raise requests.exceptions.RequestException(f"an answer of more than {MOST_BYTES} bytes")
        if time.monotonic() > self._until:
            raise requests.exceptions.ReadTimeout(f"an answer took more than {SECONDS:.0f} s")
        return data

    def __getattr__(self, name: str) -> Any:
        if name == "stream":  # requests falls back on read()
            raise AttributeError(name)
        return getattr(self._raw, name)


class Network(client.ClientNetwork):
    """retry_after: what the last answer asked for, in seconds; 0 for nothing."""

    def __init__(self, key: JWKEC, ca_file: str, account: messages.RegistrationResource | None) -> None:
        super().__init__(
            key,
            account,
            alg=ES256,
            verify_ssl=ca_file or True,  # type: ignore[arg-type]  # requests takes a path as well
            user_agent=f"fastgate/{__version__}",
            timeout=int(SECONDS),
        )
        self.retry_after = 0.0
        self.session.max_redirects = 3
        self.session.hooks["response"].append(self._received)

    def _received(self, response: requests.Response, *_: Any, **__: Any) -> None:
        """Of each answer, before its body is read."""
        response.raw = _Bounded(response.raw)
        self.retry_after = _seconds(response.headers.get("Retry-After", ""))

    def post(self, *args: Any, **kwargs: Any) -> requests.Response:
        # RFC 8555 6.5: a client SHOULD retry on badNonce. The library does so once.
        for _ in range(NONCE_TRIES - 1):
            try:
                return super().post(*args, **kwargs)
            except messages.Error as error:
                if error.code != "badNonce":
                    raise
        return super().post(*args, **kwargs)


def _seconds(text: str) -> float:
    """Of a Retry-After (RFC 9110 10.2.3), at most a week; 0 for what is none."""
    if text.isdecimal() and len(text) < 10:
        return min(float(text), MOST_RETRY_AFTER)
    try:
        return min(max(0.0, parsedate_to_datetime(text).timestamp() - time.time()), MOST_RETRY_AFTER)
    except (ValueError, OverflowError):
        return 0.0


def account_key(pem: str) -> JWKEC:
    """ValueError: it is no ECDSA key."""
    key = load_pem_private_key(pem.encode(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("not an ECDSA key")
    return JWKEC(key=ComparableECKey(key))


@challenges.ChallengeResponse.register
class TLSALPN01Response(challenges.KeyAuthorizationChallengeResponse):
    """RFC 8737 3. The library has left this challenge to others."""

    typ = "tls-alpn-01"


@challenges.Challenge.register
class TLSALPN01(challenges.KeyAuthorizationChallenge):
    typ = TLSALPN01Response.typ
    response_cls = TLSALPN01Response

    def validation(self, account_key: JWK, **_: Any) -> str:
        """The key authorization, whose digest the certificate carries."""
        return self.key_authorization(account_key)
