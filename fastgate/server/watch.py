"""Takes up changes of a configuration's files by itself.

What counts is what the files say, not what happened to them: once a second each is looked at, and what has
changed is hashed. So an editor that renames over a file, the swap of a symlink above it (a Kubernetes
ConfigMap or Secret), a bind mount and a network file system are all the same, and nothing depends on how many
watches the kernel has. A look at a thousand files costs a few milliseconds. A change must hold still for a
moment, so that no file is taken by half.

What the files said is compared with what they said when they were last read, not with what is in force: after
a rollback nothing happens until one of them changes.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

from fastgate.config import Sources
from fastgate.config.files import OnDisk, normal_name
from fastgate.server.keeper import Aside, Keeper
from fastgate.server.operations import ReloadError

__all__ = ["Watcher"]

INTERVAL: Final = 1.0
SETTLE: Final = 0.25
SETTLE_GONE: Final = 2.0  # a file that is not there may come back
MAX_BYTES: Final = 64 * 1024 * 1024
_BOM: Final = b"\xef\xbb\xbf"
# A file may change again in the same tick of the file system's clock.
_RACY_NS: Final = 1_000_000_000

# By absolute path; "" where there is nothing that can be read.
Digests = dict[str, str]


class Watcher:
    """Has ``keeper`` read its files again whenever they say something else. interval, settle: seconds."""

    def __init__(
        self,
        keeper: Keeper,
        tell: Callable[[str], None],
        *,
        aside: Aside = asyncio.to_thread,
        interval: float = INTERVAL,
        settle: float = SETTLE,
        settle_gone: float = SETTLE_GONE,
    ) -> None:
        self._keeper = keeper
        self._tell = tell
        self._aside = aside
        self._interval = interval
        self._settle = settle
        self._settle_gone = settle_gone
        self._look = Look()
        self._read = keeper.last_read
        self._seen = said_by(self._read.sources)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name="watched files")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            await self.look()

    async def look(self) -> None:
        """Looks once, and has changes taken up."""
        if self._keeper.last_read is not self._read:
            await self._follow({})
        found = await self._current()
        changed = self._changed(found)
        while changed:
            gone = any(not found[name] and self._seen.get(name) for name in changed)
            await asyncio.sleep(self._settle_gone if gone else self._settle)
            before, found = found, await self._current()
            changed = self._changed(found)
            if found == before:
                break
        if not changed:
            return
        self._tell(f"fastgate: changed: {_shown(changed)}")
        with suppress(ReloadError):  # told, and what is in force serves on
            # Who stops this does not break off what is half done.
            await asyncio.shield(self._keeper.reload(cause="watch"))
        await self._follow(found)

    def _changed(self, found: Digests) -> list[str]:
        return sorted(name for name in found if found[name] != self._seen.get(name, ""))

    async def _follow(self, found: Digests) -> None:
        """An attempt was made. found: what the files said before it, as far as that is known."""
        self._read = self._keeper.last_read
        if self._read.failed:
            # What was read can't be told: what is there now has to change before it is tried again.
            self._seen = {**await self._current(), **found}
        else:
            self._seen = said_by(self._read.sources)

    async def _current(self) -> Digests:
        sources = self._read.sources.absolute()
        failed = [os.path.join(sources.directory, name) for name in self._read.failed]
        found: Digests = await self._aside(self._look.at, sources, failed)
        return found


def _shown(names: list[str]) -> str:
    here = os.getcwd() + os.sep
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(name.removeprefix(here) for name in names[:3]) + more


class Look:
    """What files say, each hashed again only if it was touched."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[tuple[int, ...], str]] = {}

    def at(self, sources: Sources, more: Iterable[str]) -> Digests:
        """Of all files of a configuration, those that its patterns match now, and ``more``."""
        texts = {*sources.texts, *more}
        for includer, pattern in sources.patterns:
            with suppress(OSError):
                texts.update(OnDisk().matching(normal_name(includer, pattern)))
        found = {name: self._digest(name, text=False) for name in sources.attached}
        found |= {name: self._digest(name, text=True) for name in texts}
        self._known = {name: known for name, known in self._known.items() if name in found}
        return found

    def _digest(self, name: str, *, text: bool) -> str:
        try:
            touched = _touched(os.stat(name))
            known = self._known.get(name)
            if known is not None and known[0] == touched:
                return known[1]
            # Without O_NONBLOCK the open of a FIFO would never return.
            descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(descriptor, "rb") as file:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    return ""
                data = file.read(MAX_BYTES)
        except (OSError, ValueError):
            self._known.pop(name, None)
            return ""
        digest = hashlib.sha256(data.removeprefix(_BOM) if text else data).hexdigest()
        if time.time_ns() - status.st_ctime_ns > _RACY_NS:
            self._known[name] = _touched(status), digest
        return digest


def _touched(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def said_by(sources: Sources) -> Digests:
    """What its files said when they were read."""
    placed = sources.absolute()
    texts = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in placed.texts.items()}
    return {**texts, **placed.attached}
