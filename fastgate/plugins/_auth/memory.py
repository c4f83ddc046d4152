"""What is known of tokens, so that a caller's next requests cost a hash and a look."""

from __future__ import annotations

from typing import Generic, NamedTuple, Protocol, TypeVar

from fastgate.plugins import Consumer


class Verified(NamedTuple):
    """What a token has proved. Exchanges share it: nothing in it can be changed.

    headers: what the service is told. until: when it ends, in seconds since the epoch.
    """

    consumer: Consumer
    headers: tuple[tuple[str, str], ...]
    until: float


class _Ends(Protocol):
    @property
    def until(self) -> float: ...


E = TypeVar("E", bound=_Ends)


class Memory(Generic[E]):
    """By the SHA-256 of a token's text, at most ``size``; the least recently used go first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: dict[bytes, E] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, digest: bytes, now: float) -> E | None:
        found = self._entries.pop(digest, None)
        if found is None or now >= found.until:
            return None
        self._entries[digest] = found  # at the end of the dict's order again
        return found

    def put(self, digest: bytes, entry: E) -> None:
        self._entries[digest] = entry
        if len(self._entries) > self._size:
            del self._entries[next(iter(self._entries))]

    def clear(self) -> None:
        self._entries.clear()
