"""The configurations that were in force: kept on the disk, to be compared and put in force again.

Each is a file of its own, written under another name and linked into place when it is complete, so that a
crash leaves a whole entry or none, and two gateways that keep their history in one place never write over
each other. Files are for their owner alone: a configuration may hold a secret in its text. Those from
variables and files are not in it.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from fastgate.config import Config, Sources
from fastgate.server.operations import Cause

__all__ = ["Entry", "History", "history_of"]

MAX_BYTES: Final = 80 * 1024 * 1024
_NAME: Final = re.compile(r"([0-9]{1,12})\.json")


class Entry(Struct, frozen=True, kw_only=True):
    """One version. time: when it came into force, seconds since the epoch. of: the version that a rollback
    went back to; 0: it was none. changes: what it changed, in a few words."""

    version: int
    time: float
    cause: Cause
    of: int = 0
    changes: str = ""
    sources: Sources

    @property
    def digest(self) -> str:
        return self.sources.digest


class _Stored(Struct, frozen=True):
    digest: str  # SHA-256 of `entry` as it stands there
    entry: msgspec.Raw


class History:
    """folder: where entries are kept; None: in memory alone. size: how many. tell: takes a line when
    something can't be kept or read; the gateway goes on."""

    def __init__(self, folder: Path | None, size: int, tell: Callable[[str], None]) -> None:
        self.folder: Final = folder
        self.size = size
        self._tell = tell
        self._entries: dict[int, Entry] = {}
        self._told: set[str] = set()
        if folder is not None:
            self._open(folder)

    def entries(self) -> list[Entry]:
        """Oldest first."""
        return [self._entries[version] for version in sorted(self._entries)]

    def find(self, version: int) -> Entry | None:
        return self._entries.get(version)

    def add(self, make: Callable[[int], Entry]) -> Entry:
        """Keeps what ``make`` makes of the next version's number, and forgets what is too old."""
        entry = make(max(self._entries, default=0) + 1)
        if self.folder is not None:
            try:
                while not _write(self.folder, entry):
                    # Another gateway keeps its own here, and has taken the number.
                    entry = make(entry.version + 1)
            except OSError as error:
                self._problem(f"history: {self.folder}: {error.strerror or error}; "
                              "this version is kept in memory alone")  # fmt: skip
        self._entries[entry.version] = entry
        for version in sorted(self._entries)[: -self.size]:
            del self._entries[version]
            if self.folder is not None:
                with suppress(OSError):
                    _path(self.folder, version).unlink()
        return entry

    def _open(self, folder: Path) -> None:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            names = os.listdir(folder)
        except OSError as error:
            self._problem(f"history: {folder}: {error.strerror or error}; it is kept in memory alone")
            return
        versions = sorted(int(found[1]) for found in map(_NAME.fullmatch, names) if found)
        for version in versions[-self.size :]:
            try:
                self._entries[version] = _read(_path(folder, version), version)
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else str(error)
                self._problem(f"history: version {version} can't be read, and is passed over: {reason}")

    def _problem(self, line: str) -> None:
        if line not in self._told:
            self._told.add(line)
            self._tell(f"fastgate: warning: {line}")


def history_of(config: Config, tell: Callable[[str], None], *, on_disk: bool = True) -> History:
    """That of the configuration's files; in memory alone where it came from none."""
    return History(
        folder_of(config) if on_disk and config.sources.roots else None, config.server.history, tell
    )


def folder_of(config: Config) -> Path:
    """Each gateway of a machine has its own: by the paths of its files."""
    sources = config.sources
    roots = "\0".join(os.path.join(sources.directory, root) for root in sources.roots)
    name = f"{Path(sources.roots[0]).stem}-{hashlib.sha256(roots.encode()).hexdigest()[:12]}"
    if config.server.state_dir:
        base = Path(sources.directory) / Path(config.source).parent / config.server.state_dir
    else:
        base = _default()
    return base / "history" / name


def _default() -> Path:
    if os.geteuid() == 0 and not os.environ.get("XDG_STATE_HOME"):
        return Path("/var/lib/fastgate")
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(state) / "fastgate"


def _path(folder: Path, version: int) -> Path:
    return folder / f"{version:06}.json"


def _write(folder: Path, entry: Entry) -> bool:
    """False: there is one of its number. Raises OSError."""
    encoded = msgspec.json.encode(entry)
    stored = msgspec.json.encode(_Stored(hashlib.sha256(encoded).hexdigest(), msgspec.Raw(encoded)))
    draft = folder / f".{secrets.token_hex(8)}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(stored)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, _path(folder, entry.version))
        except FileExistsError:
            return False
    finally:
        with suppress(OSError):
            draft.unlink()
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return True


def _read(path: Path, version: int) -> Entry:
    """Raises OSError, ValueError."""
    with open(path, "rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES >> 20} MiB")
    stored = msgspec.json.decode(data, type=_Stored)
    if hashlib.sha256(bytes(stored.entry)).hexdigest() != stored.digest:
        raise ValueError("it is not as it was written")
    entry: Any = msgspec.json.decode(stored.entry, type=Entry)
    if entry.version != version:
        raise ValueError(f"it is version {entry.version}")
    return entry  # type: ignore[no-any-return]


def now() -> float:
    return round(time.time(), 3)
