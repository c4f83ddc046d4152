"""``Shared`` for all workers and gateways of one host: a table of small values in a shared mapping.

The table is a file that every process with the same path maps. A key has one set of places; a set is locked
by a record lock (fcntl), which the kernel releases when its holder dies, and each value has a checksum, so
that what a killed process has left half-written counts as absent.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import logging
import mmap
import os
import secrets
import stat
import struct
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from fastgate.plugins.api import Busy

T = TypeVar("T")
log: Final = logging.getLogger("fastgate.shared")

MAX_VALUE: Final = 1024
MAX_TTL: Final = 400 * 86400.0
LOCK_SECONDS: Final = 0.05
MAGIC: Final = b"fastgate store 1"
PAGE: Final = 4096
# Places of a set. Twice as many places as entries are made: a set that is full while the table is not is then
# rare (Poisson, mean 32 of 64: one in ten million).
SET: Final = 64
DIGEST: Final = 16
ENTRY: Final = struct.Struct("<IHB")  # checksum, bytes, flags
PLACE: Final = 1032  # ENTRY and the value
SET_BYTES: Final = -(-(SET * (DIGEST + 8 + PLACE)) // PAGE) * PAGE
KEEP: Final = 1  # a flag: it is not given up for another before its time
FREE: Final = bytes(DIGEST)
DUE: Final = struct.Struct(f"<{SET}Q")


class _NotOurs(Exception):
    """A file that can't be trusted, or is another table's."""


class HostTable:
    """Opened once by a process; ``store`` gives a plugin its part.

    path: None shares with processes that are forked from this one alone. entries: that it holds at least, but
    for rare collisions; the memory for them, 2.2 KB each, is taken as they come. now: monotonic nanoseconds,
    the same for all processes of the host. Raises OSError where the file can't be made.
    """

    def __init__(
        self, path: Path | None, entries: int = 10_000, now: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self.sets = max(1, -(-entries * 2 // SET))
        self.now = now
        self._length = PAGE + self.sets * SET_BYTES
        self._maker = os.getpid()
        self._path = path
        # Record locks don't keep threads of one process apart.
        self._within = threading.Lock()
        if path is None:
            self._fd = os.memfd_create("fastgate-store", os.MFD_CLOEXEC)
            self._begin(self._fd)
        else:
            self._fd = self._open(path)
        self._map = mmap.mmap(self._fd, self._length)
        self._seed = self._map[32:64]

    def store(self, plugin: str) -> HostStore:
        return HostStore(self, plugin)

    def close(self) -> None:
        """The last who closes it removes the file."""
        self._map.close()
        if self._path is not None and self._maker == os.getpid():
            with contextlib.suppress(BlockingIOError, FileNotFoundError):
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_named(self._fd, self._path):
                    self._path.unlink()
        os.close(self._fd)

    # -- the file

    def _header(self) -> bytes:
        return MAGIC + struct.pack("<QQ", self.sets, SET_BYTES)

    def _begin(self, fd: int) -> None:
        os.ftruncate(fd, self._length)
        os.pwrite(fd, self._header() + secrets.token_bytes(32), 0)

    def _open(self, path: Path) -> int:
        for _ in range(100):
            try:
                fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                self._make(path, replace=False)
                continue
            except OSError:
                if not path.is_symlink():
                    raise
                log.warning("%s is a link, and replaced", path)
                self._make(path, replace=True)
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_SH)
                if _is_named(fd, path):
                    self._check(fd)
                    return fd
            except _NotOurs as why:
                log.warning("%s %s, and is replaced", path, why)
                self._make(path, replace=True)
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
        raise OSError(f"{path} is never what it was made as")

    def _make(self, path: Path, *, replace: bool) -> None:
        # Whole before it has its name.
        fresh = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            self._begin(fd)
            if replace:
                fresh.rename(path)
            else:
                with contextlib.suppress(FileExistsError):  # another process was faster
                    os.link(fresh, path)
        finally:
            os.close(fd)
            fresh.unlink(missing_ok=True)

    def _check(self, fd: int) -> None:
        there = os.fstat(fd)
        if not stat.S_ISREG(there.st_mode) or there.st_uid != os.geteuid() or there.st_mode & 0o077:
            raise _NotOurs("is not a file of this user alone")
        if there.st_size != self._length or os.pread(fd, 32, 0) != self._header():
            raise _NotOurs("holds something else")

    # -- entries

    def digest(self, plugin: str, key: str) -> bytes:
        # Keyed, so that nobody can aim at one set; the length keeps plugins apart.
        name = plugin.encode()
        text = b"%d:%b%b" % (len(name), name, key.encode("utf-8", "surrogatepass"))
        return hashlib.blake2b(text, digest_size=DIGEST, key=self._seed).digest()

    async def locked(self, digest: bytes, act: Callable[[Places], T]) -> T:
        """What ``act`` gives; it has the key's set to itself. Raises Busy where another keeps it long."""
        number = int.from_bytes(digest[:8], "little") % self.sets
        until = time.monotonic() + LOCK_SECONDS
        while True:
            with self._within:
                try:
                    fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
                except (BlockingIOError, PermissionError):
                    pass  # POSIX leaves open which of both it is
                else:
                    try:
                        return act(Places(self._map, PAGE + number * SET_BYTES, self.now()))
                    finally:
                        fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, number)
            if time.monotonic() > until:
                raise Busy("a shared value is locked by another process")
            await asyncio.sleep(0.0005)


class Places:
    """One set of a table, while it is locked: digests, then ends, then values."""

    def __init__(self, memory: mmap.mmap, start: int, now: int) -> None:
        self._memory = memory
        self._start = start
        self._ends = start + SET * DIGEST
        self._values = self._ends + SET * 8
        self._now = now

    def get(self, digest: bytes) -> bytes | None:
        at = self._find(digest)
        if at is None:
            return None
        [due] = struct.unpack_from("<Q", self._memory, self._ends + at * 8)
        place = self._values + at * PLACE
        checksum, length, flags = ENTRY.unpack_from(self._memory, place)
        if due <= self._now or length > MAX_VALUE:
            return None
        value = self._memory[place + ENTRY.size : place + ENTRY.size + length]
        return value if checksum == _checksum(digest, due, flags, value) else None

    def put(self, digest: bytes, value: bytes, ttl_ns: int, flags: int = 0) -> None:
        at = self._find(digest)
        if at is None:
            at = self._room()
        due = self._now + ttl_ns
        place = self._values + at * PLACE
        # Free until it is whole.
        self._name(at, FREE)
        ENTRY.pack_into(self._memory, place, _checksum(digest, due, flags, value), len(value), flags)
        self._memory[place + ENTRY.size : place + ENTRY.size + len(value)] = value
        struct.pack_into("<Q", self._memory, self._ends + at * 8, due)
        self._name(at, digest)

    def delete(self, digest: bytes) -> None:
        at = self._find(digest)
        if at is not None:
            self._name(at, FREE)

    def _name(self, at: int, digest: bytes) -> None:
        self._memory[self._start + at * DIGEST : self._start + (at + 1) * DIGEST] = digest

    def _find(self, digest: bytes) -> int | None:
        names = self._memory[self._start : self._start + SET * DIGEST]
        at = names.find(digest)
        while at >= 0 and at % DIGEST:
            at = names.find(digest, at + 1)
        return None if at < 0 else at // DIGEST

    def _room(self) -> int:
        """A free place, one whose time is over, or else the one that would be over first."""
        free = self._find(FREE)
        if free is not None:
            return free
        ends = DUE.unpack_from(self._memory, self._ends)
        for at in sorted(range(SET), key=ends.__getitem__):
            _, _, flags = ENTRY.unpack_from(self._memory, self._values + at * PLACE)
            if ends[at] <= self._now or not flags & KEEP:
                return at
        raise Busy("there is no room for one more shared value that may not be forgotten")


class HostStore:
    """The ``Shared`` of one plugin.

    A full table gives up what would end first, but nothing that ``set_if_absent`` has made: rather than
    forget that a nonce was used it raises Busy. Values above 1 KiB, times that are none: ValueError."""

    def __init__(self, table: HostTable, plugin: str) -> None:
        self._table = table
        self._plugin = plugin

    async def get(self, key: str) -> bytes | None:
        digest = self._table.digest(self._plugin, key)
        return await self._table.locked(digest, lambda places: places.get(digest))

    async def set(self, key: str, value: bytes, ttl: float) -> None:
        digest, life = self._table.digest(self._plugin, key), life_ns(ttl)
        check_value(value)
        await self._table.locked(digest, lambda places: places.put(digest, value, life))

    async def add(self, key: str, by: int, ttl: float) -> int:
        digest, life = self._table.digest(self._plugin, key), life_ns(ttl)

        def act(places: Places) -> int:
            total = int(places.get(digest) or 0) + by
            if not -(1 << 63) <= total < 1 << 63:
                raise ValueError("a counter has 64 bits")
            places.put(digest, b"%d" % total, life)
            return total

        return await self._table.locked(digest, act)

    async def set_if_absent(self, key: str, value: bytes, ttl: float) -> bool:
        digest, life = self._table.digest(self._plugin, key), life_ns(ttl)
        check_value(value)

        def act(places: Places) -> bool:
            if places.get(digest) is not None:
                return False
            places.put(digest, value, life, KEEP)
            return True

        return await self._table.locked(digest, act)

    async def delete(self, key: str) -> None:
        digest = self._table.digest(self._plugin, key)
        await self._table.locked(digest, lambda places: places.delete(digest))


def life_ns(ttl: float) -> int:
    """Nanoseconds of a time to live; more than 400 days count as so many. Raises ValueError."""
    if not ttl > 0:
        raise ValueError("a ttl is above 0")
    return max(1_000_000, int(min(ttl, MAX_TTL) * 1e9))


def check_value(value: bytes) -> None:
    if len(value) > MAX_VALUE:
        raise ValueError(f"a shared value has at most {MAX_VALUE} bytes")


def _checksum(digest: bytes, due: int, flags: int, value: bytes) -> int:
    return zlib.crc32(value, zlib.crc32(digest + struct.pack("<QB", due, flags)))


def _is_named(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False
