"""Signs of life of the workers, in memory that they share with the supervisor."""

from __future__ import annotations

import mmap
import struct
import time
from typing import Final

__all__ = ["EVERY", "Heartbeats"]

EVERY: Final = 0.1  # seconds between two beats
_NS: Final = struct.Struct("=q")
_STRIDE: Final = 64  # a cache line each


class Heartbeats:
    """Made before the fork, for so many places."""

    def __init__(self, places: int) -> None:
        self._memory = mmap.mmap(-1, places * _STRIDE)

    def beat(self, place: int) -> None:
        _NS.pack_into(self._memory, place * _STRIDE, time.monotonic_ns())

    def age(self, place: int) -> float:
        """Seconds since the last beat."""
        last: int = _NS.unpack_from(self._memory, place * _STRIDE)[0]
        return (time.monotonic_ns() - last) / 1e9
