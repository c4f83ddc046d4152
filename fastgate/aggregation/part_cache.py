"""Answers of parts that are kept for a while (`cache` of a part), by one worker."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, NamedTuple

from fastgate.aggregation.caching import Freshness, delta_seconds

__all__ = ["MAX_BYTES", "MAX_ENTRIES", "CachedAnswer", "PartCache"]

#: Of one route.
MAX_ENTRIES: Final = 1024
MAX_BYTES: Final = 16 << 20
_OVERHEAD: Final = 512  # bytes of an entry besides its texts


class CachedAnswer(NamedTuple):
    """As ``_core.PartAnswer`` has it."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes
    stored_ns: int
    until_ns: int
    size: int

    def aged(self, now_ns: int) -> list[tuple[str, str]]:
        """Its fields, with the time that it was kept added to its Age (RFC 9111 4.2.3)."""
        age = (now_ns - self.stored_ns) // 1_000_000_000
        age += next((delta_seconds(text) or 0 for name, text in self.fields if name == "age"), 0)
        return [*(one for one in self.fields if one[0] != "age"), ("age", str(age))]


class PartCache:
    """The least recently used entry goes first. Times are those of the monotonic clock, in nanoseconds."""

    def __init__(self) -> None:
        self._entries: OrderedDict[Hashable, CachedAnswer] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable, now_ns: int) -> CachedAnswer | None:
        found = self._entries.get(key)
        if found is None:
            return None
        if found.until_ns <= now_ns:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return found

    def put(
        self,
        key: Hashable,
        status: int,
        fields: list[tuple[str, str]],
        body: bytes,
        lifetime_ns: int,
        now_ns: int,
        key_size: int = 0,
    ) -> None:
        """Unless the answer forbids it (no-store, private, no-cache; RFC 9111 5.2.2), and never longer than
        it says that it is fresh. What sets a cookie is somebody's own. key_size: bytes that the key holds."""
        fresh = Freshness.of(fields)
        if not fresh.storable or any(name == "set-cookie" for name, _ in fields):
            return
        if fresh.seconds is not None:
            lifetime_ns = min(lifetime_ns, fresh.seconds * 1_000_000_000)
        size = _OVERHEAD + key_size + len(body) + sum(len(name) + len(text) for name, text in fields)
        if lifetime_ns <= 0 or size > MAX_BYTES // 4:
            return
        self._drop(key)
        self._entries[key] = CachedAnswer(status, fields, body, now_ns, now_ns + lifetime_ns, size)
        self._bytes += size
        while self._bytes > MAX_BYTES or len(self._entries) > MAX_ENTRIES:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: Hashable) -> None:
        found = self._entries.pop(key, None)
        if found is not None:
            self._bytes -= found.size
