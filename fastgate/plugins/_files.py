"""A file that a plugin reads, and reads again when it has changed.

Its contents are compared, once a second: a rename over it (an editor), a swap of a symlink above it (a
Kubernetes ConfigMap or Secret), a network file system and a bind mount are all the same then.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

from fastgate.plugins.api import Host

T = TypeVar("T")

MAX_BYTES: Final = 4 << 20
INTERVAL: Final = 1.0
SETTLE: Final = 0.1


class WatchedFile(Generic[T]):
    """What a file says; the last good version of it stays in force.

        self._keys = WatchedFile(host, host.folder / self.config.file, parse)
        await self._keys.open()
        ...
        self._keys.value

    parse: the file's bytes to what is wanted of them. It runs in a thread, and raises ValueError, whose text
    says what is wrong (and shows no secrets: it is logged). max_bytes: a larger file is an error. interval:
    seconds between two looks. settle: seconds for which a change must hold still, so that a file which is
    written in place is not taken by half.

    Counts ``files_read`` and ``file_failures``.
    """

    #: What the file said when it was last good. Set by ``open``.
    value: T

    def __init__(
        self,
        host: Host,
        path: Path,
        parse: Callable[[bytes], T],
        *,
        max_bytes: int = MAX_BYTES,
        interval: float = INTERVAL,
        settle: float = SETTLE,
    ) -> None:
        self._host = host
        self._path = path
        self._parse = parse
        self._max_bytes = max_bytes
        self._interval = interval
        self._settle = settle
        self._seen = b""
        self._problem = ""

    async def open(self) -> None:
        """Reads it for the first time, and watches it from then on. Raises ValueError when it can't be read
        or is wrong: the configuration does not come into force then."""
        try:
            data = await asyncio.to_thread(self._read)
            self.value = await asyncio.to_thread(self._parse, data)
        except (OSError, ValueError, RecursionError) as error:
            raise ValueError(f"{self._path}: {_reason(error)}") from error
        self._seen = hashlib.sha256(data).digest()
        self._host.spawn(self._watch(), f"watch {self._path.name}")

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            await self.look()

    async def look(self) -> None:
        """Takes over what has changed. What can't be read or is wrong is logged, once for each kind of it."""
        try:
            data = await self._changed()
            if data is None:
                self._problem = ""
                return
            value = await asyncio.to_thread(self._parse, data)
        except (OSError, ValueError, RecursionError) as error:
            self._failed(_reason(error))
            return
        self.value = value
        self._seen = hashlib.sha256(data).digest()
        self._problem = ""
        self._host.count("files_read")
        self._host.log.info("plugin %s: %s was read again", self._host.name, self._path)

    async def _changed(self) -> bytes | None:
        """Its bytes, if they are others than those in force and have held still."""
        data = await asyncio.to_thread(self._read)
        if hashlib.sha256(data).digest() == self._seen:
            return None
        await asyncio.sleep(self._settle)
        return data if await asyncio.to_thread(self._read) == data else None

    def _read(self) -> bytes:
        # Without O_NONBLOCK the open of a FIFO would never return.
        descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ValueError("it is no regular file")
            data = file.read(self._max_bytes + 1)
        if len(data) > self._max_bytes:
            raise ValueError(f"it is larger than {self._max_bytes} bytes")
        return data

    def _failed(self, problem: str) -> None:
        self._host.count("file_failures")
        if problem != self._problem:
            self._problem = problem
            self._host.log.warning(
                "plugin %s: %s: %s; what it said before stays in force", self._host.name, self._path, problem
            )


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return f"it is not UTF-8 at byte {error.start}"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
