"""Start the gateway before two small services of its own, and print what to try.

Everything is on 127.0.0.1 and ends with Ctrl-C. The configuration is written to a file whose name is printed.
"""

from __future__ import annotations

import argparse
import errno
import shlex
import socket
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from fastgate.cli.common import load_or_tell
from fastgate.cli.run import run

PORTS: Final = range(8080, 8180)

GUIDE: Final = """\
fastgate demo: http://127.0.0.1:{port} stands before two services (127.0.0.1:{orders}, 127.0.0.1:{mirror}).
The configuration: {file}
The access log follows below. Try, in another terminal:

  curl -i http://127.0.0.1:{port}/orders/1                     # a prefix, to the service "orders"
  curl -i http://127.0.0.1:{port}/orders -d '{{"item": "milk"}}'
  curl -i http://127.0.0.1:{port}/orders/1 -X DELETE           # no route has this method: 404 with its reason
  curl -i http://127.0.0.1:{port}/users/7                      # rewritten; the service shows what it was sent
  curl -i http://127.0.0.1:{port}/ -H 'Host: mirror.example.com'
  curl -iL http://127.0.0.1:{port}/old/orders/2                # a redirect
  curl -i http://127.0.0.1:{port}/healthz                      # a fixed response
  curl -N http://127.0.0.1:{port}/events                       # server-sent events, as they come
  curl -i http://127.0.0.1:{port}/broken                       # an endpoint that is down: never a bare 502
  {explain} GET http://127.0.0.1:{port}/users/7
  for i in 1 2 3 4 5 6 7; do curl -s -o /dev/null -w '%{{http_code}}\\n' http://127.0.0.1:{port}/limited; done

Ctrl-C ends it.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--port",
        type=_port,
        help=f"where the gateway listens (default: {PORTS.start}, or the next that is free)",
    )


def main(args: argparse.Namespace) -> int:
    from fastgate.demo.services import Services

    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fastgate-demo-")))
        # Bound and never listened on: connections to it are refused, and no other program gets it meanwhile.
        nobody = stack.enter_context(socket.socket())
        nobody.bind(("127.0.0.1", 0))
        try:
            services = stack.enter_context(Services())
            port = _free_port() if args.port is None else args.port
        except OSError as error:
            print(f"fastgate demo: {error.strerror or error}", file=sys.stderr)
            return 1
        file = directory / "gateway.toml"
        file.write_text(configuration(port, {**services.ports, "nobody": nobody.getsockname()[1]}))
        loaded = load_or_tell([str(file)])
        if loaded is None:
            return 1
        explain = shlex.join([*_program(), "explain", "-c", str(file)])
        guide = GUIDE.format(port=port, file=file, explain=explain, **services.ports)
        return run(loaded, lambda: print(guide, flush=True))


def configuration(port: int, services: dict[str, int]) -> str:
    """The demo's TOML with the real ports in it. ``services``: name of an upstream -> its port."""
    text = (Path(__file__).parents[1] / "demo" / "gateway.toml").read_text()
    text = text.replace("127.0.0.1:8080", f"127.0.0.1:{port}")
    for number, name in enumerate(("orders", "mirror", "nobody"), 9001):
        text = text.replace(f"127.0.0.1:{number}", f"127.0.0.1:{services[name]}")
    return text


def _program() -> list[str]:
    # As this was started: the environment may not be on the PATH.
    if Path(sys.argv[0]).name == "fastgate":
        return [sys.argv[0]]
    return [sys.executable, "-m", "fastgate"]


def _free_port() -> int:
    for port in PORTS:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                if error.errno in {errno.EADDRINUSE, errno.EACCES}:
                    continue
                raise
            return port
    raise OSError(f"no free port among {PORTS.start} to {PORTS.stop - 1}; choose one with --port")


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError("a port is a number from 1 to 65535")
    return int(text)
