"""Start the gateway.

It serves until SIGTERM or SIGINT, then drains: no new connections, what runs may finish within
server.drain_timeout. A second signal ends it at once. SIGHUP reads the configuration anew, without losing
anything; a file with mistakes changes nothing. SIGUSR1 opens the access log's file anew.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from fastgate.cli.common import add_config_option, load_or_tell

if TYPE_CHECKING:
    from fastgate.config import Config
    from fastgate.server.gateway import Gateway


def arguments(parser: argparse.ArgumentParser) -> None:
    add_config_option(parser)


def main(args: argparse.Namespace) -> int:
    loaded = load_or_tell(args.config)
    if loaded is None:
        return 1
    return run(loaded.config, reload_on_hangup=True)


def run(config: Config, ready: Callable[[], None] | None = None, *, reload_on_hangup: bool = False) -> int:
    """Serves ``config`` until a signal; the exit code.

    ready: called once the listeners are open. reload_on_hangup: SIGHUP reloads, instead of ending the process
    as it does when a terminal is closed.
    """
    import uvloop

    log_to_stderr()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(config, ready, reload_on_hangup))


async def _serve(config: Config, ready: Callable[[], None] | None, reload_on_hangup: bool) -> int:
    from fastgate.server.gateway import Gateway, OpenError, PluginError

    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    gateway = Gateway(config, _say, stop=stop.set)
    hangup = asyncio.Event()
    if reload_on_hangup:
        loop.add_signal_handler(signal.SIGHUP, hangup.set)

    def on_stop() -> None:
        if stop.is_set():
            tell("stopped by a second signal")
            os._exit(1)
        stop.set()

    try:
        opened = await gateway.start()
    except (OpenError, PluginError) as error:
        tell(str(error))
        return 1
    reloads = loop.create_task(_reloads(gateway, hangup))
    loop.add_signal_handler(signal.SIGTERM, on_stop)
    loop.add_signal_handler(signal.SIGINT, on_stop)
    loop.add_signal_handler(signal.SIGUSR1, gateway.reopen_log)
    for address, name in opened:
        tell(f"listening on {address} ({name})")
    tell(f"ready pid={os.getpid()}")
    if ready is not None:
        ready()
    await stop.wait()
    tell("draining")
    left = await gateway.drain()
    reloads.cancel()
    tell(f"stopped {json.dumps(left)}")
    return 0


async def _reloads(gateway: Gateway, hangup: asyncio.Event) -> None:
    """One after the other: signals that come while one is under way are one more together."""
    from fastgate.server.operations import ReloadError

    while True:
        await hangup.wait()
        hangup.clear()
        with suppress(ReloadError):  # told, and the configuration in force serves on
            await gateway.reload()


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
    print(line, file=sys.stderr, flush=True)
