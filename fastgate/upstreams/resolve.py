"""Names of endpoints to addresses, off the loop's path: asked once for a while, the last good answer kept."""

from __future__ import annotations

import asyncio
import socket
from typing import Final

__all__ = ["Resolver"]

FRESH_SECONDS: Final = 30.0


class Resolver:
    """Resolves A and AAAA by the system's resolver, in the loop's thread pool.

    An answer is used for 30 seconds. When a later look-up fails the last good answer stays in use, so a
    resolver that is down does not take down what it once named. Concurrent look-ups of one name are one.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._answers: dict[tuple[str, int], tuple[float, list[str]]] = {}
        self._running: dict[tuple[str, int], asyncio.Task[list[str]]] = {}

    async def __call__(self, host: str, port: int) -> list[str]:
        """Addresses of a name, at least one. Raises OSError when it never resolved."""
        key = (host, port)
        known = self._answers.get(key)
        if known is not None and self._loop.time() - known[0] < FRESH_SECONDS:
            return known[1]
        task = self._running.get(key)
        if task is None:
            task = self._loop.create_task(self._look_up(key))
            self._running[key] = task
            task.add_done_callback(lambda _: self._running.pop(key, None))
        # A waiter that is cancelled (its connect deadline passed) must not take the look-up from the others.
        return await asyncio.shield(task)

    async def _look_up(self, key: tuple[str, int]) -> list[str]:
        known = self._answers.get(key)
        try:
            found = await self._loop.getaddrinfo(key[0], key[1], type=socket.SOCK_STREAM)
        except OSError:
            if known is None:
                raise
            self._answers[key] = (self._loop.time(), known[1])
            return known[1]
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        self._answers[key] = (self._loop.time(), addresses)
        return addresses
