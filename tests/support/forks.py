"""Forked processes, for what is shared between them."""

from __future__ import annotations

import os
from collections.abc import Callable


def in_child(act: Callable[[], object]) -> int:
    """Runs `act` in a forked process; its exit code, or minus the signal that ended it."""
    return in_children(1, lambda _: act())[0]


def in_children(count: int, act: Callable[[int], object]) -> list[int]:
    """Runs act(0) .. act(count - 1) in a forked process each, all set off at one moment.

    Their exit codes, or minus the signals that ended them. An `act` that returns a number from 2 to 255 exits
    with it, any other with 0."""
    gate, release = os.pipe()
    pids = []
    for i in range(count):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.close(release)
                os.read(gate, 1)  # until the parent closes its end
                result = act(i)
                code = result if type(result) is int and 1 < result < 256 else 0
            finally:
                os._exit(code)
        pids.append(pid)
    os.close(release)
    os.close(gate)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
