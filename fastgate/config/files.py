"""Where the files of a configuration are read: from the disk, or from what was kept of them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Final, Protocol

from fastgate.config.model import Sources

MAX_FILE_BYTES: Final = 16 * 1024 * 1024
MAX_MATCHES: Final = 1000
_MAGIC: Final = frozenset("*?[")


class TooManyError(OSError):
    """A pattern that matches more files than one configuration may have."""


class Files(Protocol):
    """Names are normal (``normal_name``), and relative to the current directory unless absolute."""

    def read(self, name: str) -> bytes:
        """At most one byte more than is allowed. Raises OSError; ValueError for a name that none has."""

    def matching(self, pattern: str) -> list[str]:
        """The files of a pattern, sorted. Raises OSError."""


class OnDisk:
    """Implements ``Files``."""

    def read(self, name: str) -> bytes:
        with open(name, "rb") as file:
            # A FIFO or a device says nothing of its size: never read more than is allowed.
            return file.read(MAX_FILE_BYTES + 1)

    def matching(self, pattern: str) -> list[str]:
        found = [os.sep if pattern.startswith(os.sep) else ""]
        for segment in pattern.strip(os.sep).split(os.sep):
            if _MAGIC.isdisjoint(segment):
                found = [os.path.join(folder, segment) for folder in found]
            else:
                found = [
                    os.path.join(folder, entry)
                    for folder in found
                    for entry in _entries(folder)
                    if _fits(entry, segment)
                ]
            if len(found) > MAX_MATCHES:
                raise TooManyError(0, f"more than {MAX_MATCHES} files match")
        return sorted(name for name in found if os.path.isfile(name))


class Kept:
    """Implements ``Files``, from what an earlier reading found."""

    def __init__(self, sources: Sources) -> None:
        self._texts = sources.texts

    def read(self, name: str) -> bytes:
        if name not in self._texts:
            raise FileNotFoundError(0, "it was not kept")
        return self._texts[name].encode()

    def matching(self, pattern: str) -> list[str]:
        wanted = pattern.split(os.sep)
        return sorted(name for name in self._texts if _all_fit(name.split(os.sep), wanted))


def has_magic(name: str) -> bool:
    return not _MAGIC.isdisjoint(name)


def normal_name(includer: str, name: str) -> str:
    """What ``name`` is called that the file ``includer`` names."""
    return os.path.normpath(os.path.join(os.path.dirname(includer), name))


def _entries(folder: str) -> Iterable[str]:
    try:
        return os.listdir(folder or ".")
    except (FileNotFoundError, NotADirectoryError):
        return ()


def _fits(entry: str, segment: str) -> bool:
    # As in a shell: what begins with a dot (an editor's, a ConfigMap's "..data") is meant by its name only.
    return fnmatchcase(entry, segment) and (segment.startswith(".") or not entry.startswith("."))


def _all_fit(entries: list[str], segments: list[str]) -> bool:
    return len(entries) == len(segments) and all(map(_fits, entries, segments))
