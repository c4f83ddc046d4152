"""The signature by which a request asks for its own trace: X-Fastgate-Trace.

    X-Fastgate-Trace: <expiry, Unix seconds>;<HMAC-SHA256, 64 hex digits>

It stands for one method, host and path (in normal form, without the query), until it expires. Whoever sees it
can send it again until then, for the same: what that gives is timings, in the answer and in `fastgate why`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Callable

__all__ = ["HEADER", "Asked", "sign"]

HEADER = "X-Fastgate-Trace"
_FORM = re.compile(rb"([0-9]{1,12});([0-9a-f]{64})")


def sign(key: str, expiry: int, method: str, host: str, path: str) -> str:
    """The header's value. host: lower case, without port; path: in normal form."""
    return f"{expiry};{_mac(key.encode(), b'%d' % expiry, method.encode(), host.encode(), path.encode())}"


def _mac(key: bytes, expiry: bytes, method: bytes, host: bytes, path: bytes) -> str:
    # None of the parts can hold a line feed.
    text = b"\n".join((b"fastgate-trace-1", expiry, method, host, path))
    return hmac.new(key, text, hashlib.sha256).hexdigest()


class Asked:
    """Says whether a request may have its trace. lifetime: seconds that an expiry may lie ahead."""

    def __init__(self, key: str, lifetime: float, clock: Callable[[], float] = time.time) -> None:
        self._key = key.encode()
        self._lifetime = lifetime
        self._clock = clock

    def __call__(self, value: bytes, method: bytes, host: bytes, path: bytes) -> bool:
        form = _FORM.fullmatch(value)
        if form is None:
            return False
        ahead = int(form[1]) - self._clock()
        if not 0 <= ahead <= self._lifetime:
            return False
        return hmac.compare_digest(_mac(self._key, form[1], method, host, path), form[2].decode())
