"""Start the gateway.

It serves until SIGTERM or SIGINT, then drains: no new connections, what runs may finish within
server.drain_timeout. A second signal ends it at once. SIGUSR1 opens the access log's file anew.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from fastgate.cli.common import add_config_option, load_or_tell

if TYPE_CHECKING:
    from fastgate.config import Config


def arguments(parser: argparse.ArgumentParser) -> None:
    add_config_option(parser)


def main(args: argparse.Namespace) -> int:
    loaded = load_or_tell(args.config)
    if loaded is None:
        return 1
    return run(loaded.config)


def run(config: Config, ready: Callable[[], None] | None = None) -> int:
    """Serves ``config`` until a signal; the exit code. ``ready`` is called once the listeners are open."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(config, ready))


async def _serve(config: Config, ready: Callable[[], None] | None) -> int:
    from fastgate.server.gateway import BindError, Gateway

    gateway = Gateway(config)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def on_stop() -> None:
        if stop.is_set():
            tell("stopped by a second signal")
            os._exit(1)
        stop.set()

    try:
        opened = await gateway.start()
    except BindError as error:
        tell(str(error))
        return 1
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
    tell(f"stopped {json.dumps(await gateway.drain())}")
    return 0


def tell(text: str) -> None:
    """One line on stderr, at once."""
    print(f"fastgate: {text}", file=sys.stderr, flush=True)
