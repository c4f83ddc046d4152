"""What the system knows of a process: proc(5)."""

from __future__ import annotations

import os
from typing import Final, NamedTuple

__all__ = ["Usage", "usage_of"]

_TICK: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class Usage(NamedTuple):
    """cpu: seconds, user and system; resident: bytes; fds: open ones, and how many may be; -1: not known."""

    cpu: float
    resident: int
    fds: int
    max_fds: int


def usage_of(pid: int) -> Usage | None:
    """None: there is no such process any more."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name in parentheses may hold anything.
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return Usage(
        cpu=(int(fields[11]) + int(fields[12])) / _TICK,
        resident=int(fields[21]) * _PAGE,
        fds=_open_fds(pid),
        max_fds=_max_fds(pid),
    )


def _open_fds(pid: int) -> int:
    try:
        # Since Linux 6.2 the directory's size is their number; 10,000 of them are not to be listed.
        return os.stat(f"/proc/{pid}/fd").st_size or len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:  # it is another user's, or has ended
        return -1


def _max_fds(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/limits", "rb") as file:
            for line in file:
                if line.startswith(b"Max open files"):
                    soft = line.split()[3]
                    return -1 if soft == b"unlimited" else int(soft)
    except OSError:
        pass
    return -1
