"""A file that lists endpoints, watched: replaced, rewritten or swapped by a symlink, it is read again.

Its contents are compared, a second after another: no event of the file system is needed, so that a rename
over it (an editor), a swap of a symlink above it (a Kubernetes ConfigMap), a network file system and a
container's bind mount are all the same. A change counts when two looks in a row find the same, so that a file
which is written in place is not taken by half.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import stat
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Final, Generic, TypeVar

from fastgate.config import ConfigError
from fastgate.upstreams.clock import Clock, SystemClock
from fastgate.upstreams.discovery import PATIENCE, Discovery
from fastgate.upstreams.events import Events
from fastgate.upstreams.source import Fail, Publish, Source

__all__ = ["FileSource"]

W = TypeVar("W")

MAX_BYTES: Final = 4 << 20
INTERVAL: Final = 1.0
SETTLE: Final = 0.1
_MOST_LOOKS: Final = 20


class FileSource(Generic[W]):
    """The endpoints of a watched file. Names in it are followed like those of the configuration.

    parse: text of the file to endpoints; raises ConfigError or ValueError, whose `str()` says what is wrong
    and where. It is called in a thread. sources: those endpoints to sources (`discovery.sources_of`).
    interval: seconds between two looks. settle: how long a change must hold still.

    A file that is not there, cannot be read or cannot be parsed is told, and the last good set stays.
    """

    def __init__(
        self,
        path: str,
        parse: Callable[[str], Iterable[W]],
        sources: Callable[[Iterable[W]], Mapping[Hashable, Source]],
        events: Events,
        *,
        interval: float = INTERVAL,
        settle: float = SETTLE,
        patience: float = PATIENCE,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.name = f"file {path}"
        self._path = path
        # In a thread, since a large file takes its time.
        self._parse = lambda text: tuple(parse(text))
        self._sources = sources
        self._events = events
        self._interval = interval
        self._settle = settle
        self._patience = patience
        self._clock: Clock = clock or SystemClock()
        self._rng = rng

    async def run(self, publish: Publish, fail: Fail) -> None:
        inner = Discovery(
            publish, self._events, patience=self._patience, clock=self._clock, rng=self._rng, inner=True
        )
        try:
            look = await self._look()
            while True:
                fail(await self._use(look, inner))
                look = await self._changed(look)
        finally:
            await inner.close()

    async def _use(self, look: _Look, inner: Discovery) -> str:
        """What is wrong with it, "" for nothing: then its endpoints are in use."""
        if look.problem:
            return look.problem
        try:
            wanted = await asyncio.to_thread(self._parse, look.text)
        except ConfigError as error:
            more = f" (and {len(error.problems) - 1} more)" if len(error.problems) > 1 else ""
            return f"{error.problems[0]}{more}"
        except (ValueError, RecursionError) as error:
            return str(error)
        inner.follow(self._sources(wanted))
        return ""

    async def _changed(self, before: _Look) -> _Look:
        """Waits for a change that has held still."""
        while True:
            await self._clock.sleep(self._interval)
            look = await self._look()
            if look.same(before):
                continue
            # One that never holds still is taken as it is: better than not at all.
            for _ in range(_MOST_LOOKS):
                await self._clock.sleep(self._settle)
                again = await self._look()
                if again.same(look):
                    break
                look = again
            if not look.same(before):
                return look

    async def _look(self) -> _Look:
        return await asyncio.to_thread(_look, self._path)


class _Look:
    """What one look at the file has found: a text, or a problem."""

    def __init__(self, text: str = "", problem: str = "") -> None:
        self.text = text
        self.problem = problem
        self.digest = hashlib.sha256(text.encode()).digest()

    def same(self, other: _Look) -> bool:
        return self.digest == other.digest and self.problem == other.problem


def _look(path: str) -> _Look:
    try:
        # Without O_NONBLOCK the open of a FIFO would never return.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return _Look(problem="it is no regular file")
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(MAX_BYTES + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        return _Look(problem=error.strerror or str(error))
    if len(data) > MAX_BYTES:
        return _Look(problem=f"it is larger than {MAX_BYTES >> 20} MiB")
    try:
        return _Look(data.decode())
    except UnicodeDecodeError as error:
        return _Look(problem=f"it is not UTF-8: {error.reason} at byte {error.start}")
