"""Which worker has which connection, by the port of the client's end; which went with one that was killed."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable
from typing import Final

AT_ONCE: Final = 5 * 10**9  # ns within which a client has noticed; later the port may be another connection's


def clients_of(pid: int, ports: Collection[int]) -> set[int]:
    """The clients' ports of the connections that a process has on these ports of 127.0.0.1. What waits in an
    accept queue is not there yet: nobody has it. The process should stand still meanwhile."""
    own = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            what = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            continue
        if what.startswith("socket:["):
            own.add(what[8:-1])
    found = set()
    with open("/proc/net/tcp") as table:
        next(table)
        for line in table:
            fields = line.split(None, 10)
            if fields[9] in own and int(fields[1].rpartition(":")[2], 16) in ports:
                found.add(int(fields[2].rpartition(":")[2], 16))
    return found - {0}  # who listens has no client


class Doomed:
    """Connections of workers that were killed."""

    def __init__(self) -> None:
        self._killed: dict[int, list[int]] = {}  # a port may be used again, and killed again

    def add(self, ports: Iterable[int]) -> int:
        """Now, which is returned: ns on the monotonic clock."""
        now = time.monotonic_ns()
        for port in ports:
            self._killed.setdefault(port, []).append(now)
        return now

    def has(self, port: int, at: int | None = None) -> bool:
        """Whether what became of this port's connection was such a death. at: when, on the monotonic clock in
        ns; None: now."""
        at = time.monotonic_ns() if at is None else at
        return any(0 <= at - killed < AT_ONCE for killed in self._killed.get(port, ()))
