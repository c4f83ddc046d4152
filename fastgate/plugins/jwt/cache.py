"""Tokens that were verified, so that a caller's next requests cost a hash and a look."""

from __future__ import annotations

from typing import NamedTuple

from fastgate.plugins import Consumer


class Verified(NamedTuple):
    """What a token has proved. Exchanges share it: nothing in it can be changed.

    headers: what the service is told. until: when it ends, in seconds since the epoch.
    """

    consumer: Consumer
    headers: tuple[tuple[str, str], ...]
    until: float


class TokenCache:
    """Verified tokens by the SHA-256 of their text, at most ``size``; the least recently used go first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: dict[bytes, Verified] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, digest: bytes, now: float) -> Verified | None:
        found = self._entries.pop(digest, None)
        if found is None or now >= found.until:
            return None
        self._entries[digest] = found  # at the end of the dict's order again
        return found

    def put(self, digest: bytes, verified: Verified) -> None:
        self._entries[digest] = verified
        if len(self._entries) > self._size:
            del self._entries[next(iter(self._entries))]

    def clear(self) -> None:
        self._entries.clear()
