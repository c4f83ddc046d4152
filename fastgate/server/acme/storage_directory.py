"""Records as files of one directory, for the processes of one machine."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar, TypeVarTuple

from fastgate.server.acme.storage import MOST_BYTES, LockLost, StorageError

__all__ = ["DirectoryStorage"]

A = TypeVarTuple("A")
R = TypeVar("R")


class DirectoryStorage:
    """Files have mode 0600 and directories 0700: keys are in them. The lock is a flock on one file, which the
    kernel takes back from a process that dies."""

    def __init__(self, path: str) -> None:
        self._root = Path(path)
        self._lock: int | None = None

    async def read(self, names: Sequence[str]) -> dict[str, bytes]:
        return await self._off(self._read, names)

    async def write(self, name: str, value: bytes) -> None:
        if self._lock is None:
            raise LockLost("the lock is not held")
        await self._off(self._write, name, value)

    async def acquire(self) -> bool:
        return await self._off(self._acquire)

    async def release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def close(self) -> None:
        await self.release()

    async def _off(self, do: Callable[[*A], R], *arguments: *A) -> R:
        """Off the loop: fsync waits for the disk."""
        try:
            return await asyncio.to_thread(do, *arguments)
        except OSError as error:
            raise StorageError(f"{error.filename or self._root}: {error.strerror or error}") from error

    def _read(self, names: Sequence[str]) -> dict[str, bytes]:
        found = {}
        for name in names:
            with contextlib.suppress(FileNotFoundError), open(self._root / name, "rb") as file:
                found[name] = file.read(MOST_BYTES + 1)
        return found

    def _write(self, name: str, value: bytes) -> None:
        path = self._root / name
        _make(path.parent)
        beside = path.with_name(f".{path.name}.new")
        beside.unlink(missing_ok=True)  # of one who was killed: we have the lock
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(value)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        _sync(path.parent)

    def _acquire(self) -> bool:
        if self._lock is not None:
            return True
        _make(self._root)
        lock = os.open(self._root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        except OSError:
            os.close(lock)
            raise
        self._lock = lock
        return True


def _make(path: Path) -> None:
    """With those above it; each new one is the owner's alone, and is there after a crash."""
    if not path.is_dir():
        if path.parent != path:
            _make(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
        _sync(path.parent)


def _sync(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
