"""Start the gateway.

It serves until SIGTERM or SIGINT, then drains: no new connections, what runs may finish within
server.drain_timeout. A second signal ends it at once. SIGHUP reads the configuration anew, without losing
anything; a file with mistakes changes nothing. SIGUSR1 opens the access log's file anew. SIGUSR2 starts the
program anew (a new version of it, or after changing server.workers) and lets it take over; this one drains.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from fastgate.cli.common import add_config_option, load_or_tell

if TYPE_CHECKING:
    from fastgate.config import Loaded
    from fastgate.server.inheritance import Inheritance
    from fastgate.server.supervisor import Supervisor
    from fastgate.server.systemd import Notifier

# What an old program leaves its connections for a last request, when a new one has taken over.
GRACE_SECONDS = 5.0


def arguments(parser: argparse.ArgumentParser) -> None:
    add_config_option(parser)


def main(args: argparse.Namespace) -> int:
    from fastgate.server.inheritance import Inheritance

    inheritance = Inheritance.of(os.environ)
    loaded = load_or_tell(args.config, sources=inheritance.sources)
    if loaded is None:
        return 1
    return run(loaded, inheritance=inheritance, reload_on_hangup=True)


def run(
    loaded: Loaded,
    ready: Callable[[], None] | None = None,
    *,
    inheritance: Inheritance | None = None,
    reload_on_hangup: bool = False,
) -> int:
    """Serves until a signal; the exit code.

    ready: called once the listeners are open. inheritance: what was open before this process began.
    reload_on_hangup: SIGHUP reloads, instead of ending the process as it does when a terminal is closed.
    """
    log_to_stderr()
    from fastgate.server.inheritance import Inheritance

    return asyncio.run(_serve(loaded, ready, inheritance or Inheritance(), reload_on_hangup))


async def _serve(
    loaded: Loaded,
    ready: Callable[[], None] | None,
    inheritance: Inheritance,
    reload_on_hangup: bool,
) -> int:
    from fastgate.server.descriptors import limit_warnings, raise_limit
    from fastgate.server.sockets import OpenError
    from fastgate.server.supervisor import Supervisor
    from fastgate.server.systemd import Notifier

    notifier = Notifier(os.environ)
    for line in limit_warnings(loaded.config, raise_limit()):
        _say(line)
    supervisor = Supervisor(loaded, _say, inheritance)
    loop = asyncio.get_running_loop()
    stop, hangup, upgrade = supervisor.stopping, asyncio.Event(), asyncio.Event()

    def on_stop() -> None:
        if stop.is_set():
            tell("stopped by a second signal")
            supervisor.workers.kill_now()
            os._exit(1)
        stop.set()

    loop.add_signal_handler(signal.SIGTERM, on_stop)
    loop.add_signal_handler(signal.SIGINT, on_stop)
    loop.add_signal_handler(signal.SIGUSR2, upgrade.set)
    if reload_on_hangup:
        loop.add_signal_handler(signal.SIGHUP, hangup.set)
    try:
        opened = await supervisor.start()
    except OpenError as error:
        tell(str(error))
        return 1
    loop.add_signal_handler(signal.SIGUSR1, supervisor.reopen_log)
    for address, name in opened:
        tell(f"listening on {address} ({name})")
    for worker in supervisor.workers.all:
        tell(f"{worker} serves")
    tell(f"ready pid={os.getpid()}")
    inheritance.tell_ready()
    notifier.ready()
    if ready is not None:
        ready()
    servants = [
        loop.create_task(_on_each(hangup, functools.partial(supervisor.reload, cause="signal"), notifier)),
        loop.create_task(_on_each(upgrade, supervisor.upgrade, None)),
        loop.create_task(_watchdog(supervisor, notifier)),
    ]
    ends = [loop.create_task(stop.wait()), loop.create_task(supervisor.succeeded.wait())]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    succeeded = supervisor.succeeded.is_set()
    if not succeeded:
        notifier.stopping()
    left = await supervisor.drain(grace=GRACE_SECONDS if succeeded else 0)
    for task in servants + ends:
        task.cancel()
    # There is nothing left to do for a signal; and while a loop closes none may come (it writes to a pipe).
    for number in (
        signal.SIGTERM,
        signal.SIGINT,
        signal.SIGHUP,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGCHLD,
    ):
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_DFL if number == signal.SIGCHLD else signal.SIG_IGN)
    tell(f"stopped {json.dumps(left)}")
    return 0


async def _on_each(
    event: asyncio.Event, act: Callable[[], Awaitable[object]], notifier: Notifier | None
) -> None:
    """One after the other: signals that come while one is under way are one more together."""
    from fastgate.server.operations import ReloadError

    while True:
        await event.wait()
        event.clear()
        if notifier is not None:
            notifier.reloading()
        with suppress(ReloadError):  # told, and what is in force serves on
            await act()
        if notifier is not None:
            notifier.ready()


async def _watchdog(supervisor: Supervisor, notifier: Notifier) -> None:
    """systemd is told that we live, as long as a worker serves."""
    while notifier.watchdog_seconds:
        if supervisor.workers.ready:
            notifier.alive()
        await asyncio.sleep(notifier.watchdog_seconds)


class _OneLine(logging.Formatter):
    """A record as a line like all others of ours; of a traceback what was raised and where."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info is not None and record.exc_info[1] is not None:
            last = traceback.extract_tb(record.exc_info[2])[-1]
            text += f": {record.exc_info[1]!r} ({os.path.basename(last.filename)}:{last.lineno})"
        return f"fastgate: {' '.join(text.splitlines())}"


def log_to_stderr() -> None:
    """What the gateway logs (changes of endpoints and splits, trouble with discovery) goes to stderr, a line
    each.

    For the commands alone: a program that embeds the gateway configures logging as it likes.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine())
    logger = logging.getLogger("fastgate")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def tell(text: str) -> None:
    """One line on stderr, at once."""
    _say(f"fastgate: {text}")


def _say(line: str) -> None:
    # In one piece: the workers write there too.
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
