"""Everything that an operator does to a gateway, under load, and what of it a client notices.

usage: python -m bench.endurance [--reloads 1000] [--swaps 100] [--rollbacks 20] [--kills 20] [--upgrades 5]

Half of the peak rate runs all the time, with TLS clients that come and go, and with WebSockets and endless
downloads, both in the clear and over TLS. Each kind of change has its own row of counts; between the changes
a configuration with a mistake is offered, which must change nothing. Where a worker is killed, each request
and long connection that ends is looked up: was it on that worker ("cut"), or is there no excuse for it?

Prints a table. Exit code 1: something failed that must not, or memory has grown.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.endurance.clients import Clients
from bench.endurance.gateway import Gateway, await_true
from bench.endurance.rows import CONNECTIONS, Bench, Traffic, table
from bench.endurance.whose import Doomed
from bench.load import Load
from bench.peers.base import NATIVE, need
from bench.provision import compile_native


def peak(port: int) -> float:
    """Requests a second, when as many are sent as are answered."""
    done = subprocess.run(
        [need("wrk"), "-t1", f"-c{CONNECTIONS}", "-d2s", f"http://127.0.0.1:{port}/"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return float(re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)[1])  # type: ignore[index]


@contextlib.contextmanager
def service(*command: str) -> Iterator[int]:
    """The port of a service behind the gateway."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def measure(options: argparse.Namespace, folder: Path) -> list[str]:
    """Prints the table; the promises that were not kept."""
    request = folder / "request"
    request.write_bytes(b"GET / HTTP/1.1\r\nHost: bench.test\r\n\r\n")
    doomed = Doomed()
    with (
        service(str(NATIVE / "upstream"), "1") as short,
        service(sys.executable, "-m", "bench.endurance.upstream") as long,
        Gateway(folder, (short, long), options.workers, doomed) as gateway,
    ):
        plain, tls, _ = gateway.ports
        load = Load(plain, range(os.cpu_count() or 1), request, request)
        rate = options.rate or peak(plain) / 2
        print(f"{gateway.workers} workers, {rate:,.0f} requests/s all the time", file=sys.stderr, flush=True)
        with Clients((plain, tls), doomed, options.long) as clients:

            def all_open() -> None:
                await_true("all long connections are open", lambda: clients.open == clients.wanted)

            def kill() -> None:
                gateway.kill()
                all_open()  # so that the next one has its share of them

            all_open()
            gateway.reload()
            bench = Bench(gateway, Traffic(load, rate), clients)
            wrong = gateway.wrong_configuration
            rows = [
                bench.row("reloads", options.reloads, gateway.reload, wrong),
                bench.row("swaps", options.swaps, gateway.swap, gateway.wrong_certificate),
                bench.row("rollbacks", options.rollbacks, gateway.rollback, wrong, under_mistake=True),
                bench.row("kills", options.kills, kill, wrong, under_mistake=True),
                bench.row("upgrades", options.upgrades, gateway.upgrade, wrong, under_mistake=True),
            ]
    print(table(rows))
    missed = [text for row in rows for text in row.broken()]
    if gateway.slowest_rollback > 1:
        missed.append(f"rollbacks: one took {gateway.slowest_rollback:.2f} s")
    kills = rows[3]
    print(
        f"{kills.done} workers killed. On them: {kills.cut + kills.fared.tls_cut} requests under way and "
        f"{kills.fared.cut.total()} long connections cut {dict(kills.fared.cut)}; elsewhere: "
        f"{kills.failed + kills.fared.tls_failed.total()} requests failed, {kills.fared.lost.total()} long "
        f"connections lost. The slowest rollback took {gateway.slowest_rollback * 1000:.0f} ms."
    )
    return missed


def parser() -> argparse.ArgumentParser:
    own = argparse.ArgumentParser(prog="python -m bench.endurance", description=__doc__.split("\n")[0])
    own.add_argument("--reloads", type=int, default=1000)
    own.add_argument("--swaps", type=int, default=100, help="of the certificate (default 100)")
    own.add_argument("--rollbacks", type=int, default=20)
    own.add_argument("--kills", type=int, default=20, help="of workers (default 20)")
    own.add_argument("--upgrades", type=int, default=5, help="of the program (default 5)")
    own.add_argument("--workers", type=int, default=2)
    own.add_argument(
        "--long", type=int, default=10, help="WebSockets, and downloads, and as many over TLS (default 10)"
    )
    own.add_argument("--rate", type=float, default=0, help="requests/s (default: half of the peak)")
    return own


def main(arguments: list[str] | None = None) -> int:
    options: Any = parser().parse_args(arguments)
    compile_native()
    folder = Path(tempfile.mkdtemp(prefix="bench-endurance-"))
    missed = ["everything"]
    try:
        missed = measure(options, folder)
    finally:
        if missed:
            print((folder / "stderr").read_text()[-5000:], file=sys.stderr)
        shutil.rmtree(folder)
    for line in missed:
        print(f"MISSED: {line}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
