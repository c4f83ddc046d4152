"""The program is replaced by a new one, and no client notices.

The new one is started beside this one, as this one was, with all listening sockets open. When its workers
serve it says so, and only then do ours stop accepting, and drain. If it fails to start, nothing has happened.
It begins with the configuration in force.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from typing import Final

import msgspec

from fastgate.config import Sources
from fastgate.server.inheritance import HANDOVER, Heirloom
from fastgate.server.operations import ReloadError
from fastgate.server.tickets import TicketSecrets

__all__ = ["start_successor"]

START_SECONDS: Final = 90.0


def _environ() -> dict[str, str]:
    # The watchdog is the main process's, which the new one will be.
    return {name: value for name, value in os.environ.items() if name != "WATCHDOG_PID"}


def _in_memory(name: str, value: object) -> int:
    """The descriptor of a file that has it."""
    fd = os.memfd_create(name)
    with os.fdopen(fd, "wb", closefd=False) as file:
        file.write(msgspec.json.encode(value))
    return fd


async def start_successor(heirlooms: Iterable[Heirloom], sources: Sources, tickets: TicketSecrets) -> int:
    """Its process id, once it serves what `sources` says. Raises ReloadError, and then it is gone. tickets:
    what it goes on with, so that clients which come back notice nothing."""
    ours, theirs = os.pipe()
    held = list(heirlooms)
    # Not what the files say: they may be in the middle of a change, or have been rolled back.
    in_force = _in_memory("sources", sources)
    # Not in the environment, which others of this user may read.
    keys = _in_memory("tickets", tickets)
    told = {
        "sockets": [(each.label, each.sock.fileno()) for each in held],
        "ready": theirs,
        "sources": in_force,
        "tickets": keys,
    }
    process = subprocess.Popen(  # noqa: ASYNC220  # a fork and an exec; nobody is served here
        [sys.executable, *sys.orig_argv[1:]],
        env={**_environ(), HANDOVER: json.dumps(told)},
        pass_fds=[theirs, in_force, keys, *(each.sock.fileno() for each in held)],
    )
    os.close(theirs)
    os.close(in_force)
    os.close(keys)
    loop = asyncio.get_running_loop()
    heard: asyncio.Future[bytes] = loop.create_future()

    def hear() -> None:
        if not heard.done():
            heard.set_result(os.read(ours, 16))

    loop.add_reader(ours, hear)
    try:
        async with asyncio.timeout(START_SECONDS):
            word = await heard
    except TimeoutError:
        word = b""
    finally:
        loop.remove_reader(ours)
        os.close(ours)
    if word != b"ready":
        process.kill()
        raise ReloadError("the new program did not start; this one goes on")
    process.returncode = 0  # it outlives us: nobody waits for it
    return process.pid
