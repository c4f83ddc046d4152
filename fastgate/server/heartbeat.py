"""Signs of life of the workers, in memory that they share with the supervisor."""

from __future__ import annotations

import mmap
import time
from typing import Final

__all__ = ["EVERY", "Heartbeats"]

EVERY: Final = 0.1  # seconds between two beats
_STRIDE: Final = 8  # numbers in a cache line: each place has its own


class Heartbeats:
    """Made before the fork, for so many places."""

    def __init__(self, places: int) -> None:
        # Native numbers are stored at once. Byte by byte (struct does that, where an order of bytes is given)
        # a worker that is preempted midway would look silent since the machine was started.
        self._last = memoryview(mmap.mmap(-1, places * _STRIDE * 8)).cast("q")

    def beat(self, place: int) -> None:
        self._last[place * _STRIDE] = time.monotonic_ns()

    def age(self, place: int) -> float:
        """Seconds since the last beat."""
        return (time.monotonic_ns() - self._last[place * _STRIDE]) / 1e9
