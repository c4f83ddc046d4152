"""What plugins share: small values that all workers and gateways of this machine with the same configuration
file see, or all that use the same Redis.

On the machine they lie in a file in shared memory. A value has a set of places where it can be, found by a
hash of plugin and key, with a random key of the file: nobody can aim at one set. It is locked for each access
by a record lock, which the kernel takes back from a process that dies. One that was stopped keeps it: others
wait for it a while, without holding up their loops, and then do without the value. Is there no place left,
what ends soonest goes, but nothing that `set_if_absent` has made: a nonce that was forgotten could be used
again.
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
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from fastgate.config import model
from fastgate.plugins.api import Busy, Shared

__all__ = ["HostMemory", "HostStore", "SharedValues"]

log: Final = logging.getLogger("fastgate.plugins")
MOST_BYTES: Final = 1024
PATIENCE: Final = 1.0  # seconds to wait for a lock, which is held for some microseconds
_PAUSE: Final = 0.001
PLACES: Final = 32  # of a set; there are twice as many as entries, so that few sets are ever full
_HEAD: Final = struct.Struct("=16sQI")  # digest of plugin and key, end on the monotonic clock (ns), length
# In the length: made by `set_if_absent`.
_KEPT: Final = 1 << 16
_SIZE: Final = _HEAD.size + MOST_BYTES
_SHM: Final = Path("/dev/shm")


# In one step: a counter without an end would be there for ever.
_ADD: Final = """
local total = redis.call('INCRBY', KEYS[1], ARGV[1])
if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return total
"""


class _Place(NamedTuple):
    at: int
    digest: bytes
    until: int
    length: int


class HostMemory:
    """The file. source: the configuration's path, which names it; "": nobody else's."""

    def __init__(self, source: str, entries: int) -> None:
        self._sets = max(1, 2 * entries // PLACES)
        self._path: Path | None = None
        folder = _SHM if _SHM.is_dir() else None
        if source and folder is not None:
            name = hashlib.blake2b(f"{Path(source).resolve()} {entries}".encode(), digest_size=12).hexdigest()
            try:
                self._open(folder / f"fastgate-{os.geteuid()}-shared-{name}")
                self._lay_out()
            except OSError as error:
                log.warning("shared values: %s; they are this gateway's alone", error)
                if self._path is not None:
                    os.close(self._fd)
                    self._path = None
        if self._path is None:
            with tempfile.TemporaryFile(dir=folder) as file:
                self._fd = os.dup(file.fileno())
            self._lay_out()

    def _lay_out(self) -> None:
        """The key of the hash lies behind the places. Raises TimeoutError."""
        end = self._sets * PLACES * _SIZE
        deadline = time.monotonic() + PATIENCE
        while not self._lock(end, 16):
            if time.monotonic() > deadline:
                raise _held()
            time.sleep(_PAUSE)
        if os.fstat(self._fd).st_size != end + 16:
            os.ftruncate(self._fd, end)
            os.pwrite(self._fd, secrets.token_bytes(16), end)
        fcntl.lockf(self._fd, fcntl.LOCK_UN, 16, end)
        self._map = mmap.mmap(self._fd, end + 16)
        self._seed = self._map[end : end + 16]

    def _sweep(self, path: Path) -> None:
        # What killed gateways have left: nobody holds a lock on it. Who opens it at this moment looks again.
        for each in path.parent.glob(f"{path.name.rpartition('-')[0]}-*"):
            with contextlib.suppress(OSError):
                fd = os.open(each, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    each.unlink()
                finally:
                    os.close(fd)

    def _open(self, path: Path) -> None:
        self._sweep(path)
        for _ in range(10):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            there = os.fstat(fd)
            if not stat.S_ISREG(there.st_mode) or there.st_uid != os.geteuid() or there.st_mode & 0o077:
                os.close(fd)
                raise OSError(0, f"{path} is not a file of this user alone")
            fcntl.flock(fd, fcntl.LOCK_SH)
            # The last one before us may have removed it meanwhile.
            with contextlib.suppress(FileNotFoundError):
                if path.stat(follow_symlinks=False).st_ino == there.st_ino:
                    self._fd, self._path = fd, path
                    return
            os.close(fd)
        raise OSError(0, f"{path} comes and goes")

    def digest(self, plugin: str, key: str) -> bytes:
        text = f"{plugin}\0{key}".encode("utf-8", "surrogatepass")
        return hashlib.blake2b(text, digest_size=16, key=self._seed).digest()

    def close(self) -> None:
        self._map.close()
        if self._path is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody else has it
                self._path.unlink()
        os.close(self._fd)

    def _lock(self, begin: int, length: int) -> bool:
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, length, begin)
        except (BlockingIOError, PermissionError):  # fcntl(2): EAGAIN or EACCES
            return False
        return True

    @contextlib.asynccontextmanager
    async def _locked(self, digest: bytes) -> AsyncIterator[list[_Place]]:
        """Nothing may be awaited within: the lock is the process's, and does not keep its tasks apart. Raises
        TimeoutError."""
        begin = int.from_bytes(digest[:8]) % self._sets * PLACES * _SIZE
        deadline = time.monotonic() + PATIENCE
        while not self._lock(begin, PLACES * _SIZE):
            if time.monotonic() > deadline:
                raise _held()
            await asyncio.sleep(_PAUSE)
        try:
            yield [
                _Place(at, *_HEAD.unpack_from(self._map, at))
                for at in range(begin, begin + PLACES * _SIZE, _SIZE)
            ]
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, PLACES * _SIZE, begin)

    async def get(self, digest: bytes) -> bytes | None:
        async with self._locked(digest) as places:
            return self._value(self._find(places, digest))

    async def put(self, digest: bytes, value: bytes, ttl: float, *, only_new: bool = False) -> bool:
        async with self._locked(digest) as places:
            place = self._find(places, digest)
            if only_new and place is not None:
                return False
            self._write(place or self._room(places), digest, value, ttl, _KEPT if only_new else 0)
            return True

    async def add(self, digest: bytes, by: int, ttl: float) -> int:
        async with self._locked(digest) as places:
            place = self._find(places, digest)
            value = self._value(place)
            total = (int(value) if value else 0) + by
            left = ttl if place is None else (place.until - time.monotonic_ns()) / 1e9
            self._write(place or self._room(places), digest, b"%d" % total, left)
            return total

    async def delete(self, digest: bytes) -> None:
        async with self._locked(digest) as places:
            place = self._find(places, digest)
            if place is not None:
                _HEAD.pack_into(self._map, place.at, bytes(16), 0, 0)

    def _find(self, places: list[_Place], digest: bytes) -> _Place | None:
        now = time.monotonic_ns()
        return next((each for each in places if each.digest == digest and each.until > now), None)

    def _room(self, places: list[_Place]) -> _Place:
        now = time.monotonic_ns()
        given = [each for each in places if each.until <= now or not each.length & _KEPT]
        if not given:
            raise Busy("no room for one more shared value that may not be forgotten")
        return min(given, key=lambda each: each.until)

    def _value(self, place: _Place | None) -> bytes | None:
        if place is None or place.length & ~_KEPT > MOST_BYTES:
            return None
        begin = place.at + _HEAD.size
        return self._map[begin : begin + (place.length & ~_KEPT)]

    def _write(self, place: _Place, digest: bytes, value: bytes, ttl: float, kept: int = 0) -> None:
        # Ended first: who is killed in between leaves nothing, and not a half.
        _HEAD.pack_into(self._map, place.at, digest, 0, 0)
        begin = place.at + _HEAD.size
        self._map[begin : begin + len(value)] = value
        until = time.monotonic_ns() + int(ttl * 1e9)
        _HEAD.pack_into(self._map, place.at, digest, max(0, until), len(value) | kept)


def _held() -> TimeoutError:
    return TimeoutError(f"another process has held a lock for {PATIENCE:g} s; is one stopped?")


def _checked(value: bytes) -> bytes:
    if len(value) > MOST_BYTES:
        raise ValueError(f"a shared value has at most {MOST_BYTES} bytes, not {len(value)}")
    return value


class HostStore:
    """``Shared`` of one plugin, on this machine. Every method raises TimeoutError while another process holds
    the lock, and Busy where there is no room."""

    def __init__(self, memory: HostMemory, plugin: str) -> None:
        self._memory = memory
        self._plugin = plugin

    def _digest(self, key: str) -> bytes:
        return self._memory.digest(self._plugin, key)

    async def get(self, key: str) -> bytes | None:
        return await self._memory.get(self._digest(key))

    async def set(self, key: str, value: bytes, ttl: float) -> None:
        await self._memory.put(self._digest(key), _checked(value), ttl)

    async def add(self, key: str, by: int, ttl: float) -> int:
        return await self._memory.add(self._digest(key), by, ttl)

    async def set_if_absent(self, key: str, value: bytes, ttl: float) -> bool:
        return await self._memory.put(self._digest(key), _checked(value), ttl, only_new=True)

    async def delete(self, key: str) -> None:
        await self._memory.delete(self._digest(key))


class RedisStore:
    """``Shared`` of one plugin, in Redis. Every method raises OSError while Redis can't be asked."""

    def __init__(self, place: Any, prefix: str) -> None:
        self._place = place
        self._prefix = prefix

    async def _ask(self, key: str, word: str, *words: str | bytes | int) -> Any:
        from fastgate.limits.resp import command

        name = f"{self._prefix}{key}".encode()
        script = (_ADD, 1) if word == "EVAL" else ()
        connection = self._place.connection(name)
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def told(reply: Any) -> None:
            if not answered.done():
                answered.set_result(reply)

        if connection is None or not connection.send(command(word, *script, name, *words), told):
            raise OSError("Redis can't be asked")
        reply = await answered
        if isinstance(reply, Exception):
            raise OSError(f"Redis: {reply or type(reply).__name__}")
        return reply

    async def get(self, key: str) -> bytes | None:
        found: bytes | None = await self._ask(key, "GET")
        return found

    async def set(self, key: str, value: bytes, ttl: float) -> None:
        await self._ask(key, "SET", _checked(value), "PX", _milliseconds(ttl))

    async def add(self, key: str, by: int, ttl: float) -> int:
        total: int = await self._ask(key, "EVAL", by, _milliseconds(ttl))
        return total

    async def set_if_absent(self, key: str, value: bytes, ttl: float) -> bool:
        return await self._ask(key, "SET", _checked(value), "PX", _milliseconds(ttl), "NX") is not None

    async def delete(self, key: str) -> None:
        await self._ask(key, "DEL")


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


class SharedValues:
    """The stores of a gateway's plugins, as the configuration says. What is made is kept over reloads."""

    def __init__(self, source: str, config: model.SharedValues) -> None:
        self._source = source
        self._config = config
        self._memory: HostMemory | None = None
        self._place: Any = None

    def of(self, plugin: str) -> Shared:
        redis = self._config.redis
        if redis is not None:
            if self._place is None:
                from fastgate.limits.places import place_of  # takes hiredis along, for those who need it

                self._place = place_of(redis, ())
            return RedisStore(self._place, f"{redis.prefix}shared:{plugin}:")
        if self._memory is None:
            self._memory = HostMemory(self._source, self._config.max_entries)
        return HostStore(self._memory, plugin)

    async def close(self) -> None:
        if self._place is not None:
            await self._place.close()
        if self._memory is not None:
            self._memory.close()
