"""How several workers share what there is to do. usage: python -m bench.workers [--seconds N]

balance: how many of so many connections each of four workers gets. scaling: requests a second of one worker
and of two, for an answer that costs the gateway next to nothing (the client, on the same cores, has as much
to do), and for one that a plugin works on for some 0.3 ms.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.peers.base import need

PLUGIN = """
from fastgate.plugins import Plugin

class Work(Plugin):
    def on_request(self, exchange):
        sum(range(30_000))
"""
CONFIGURATION = """
[server]
workers = {workers}
[access_log]
enabled = false
[[listeners]]
bind = "127.0.0.1:0"
[plugins.work]
use = "./work.py"
[[routes]]
name = "plain"
match = {{ path = "/plain" }}
respond = {{ body = "ok" }}
[[routes]]
name = "work"
match = {{ path = "/work" }}
respond = {{ body = "ok" }}
plugins = ["work"]
"""


@contextmanager
def gateway(folder: Path, workers: int) -> Iterator[tuple[int, list[int]]]:
    """Its port, and the process ids of its workers."""
    (folder / "work.py").write_text(PLUGIN)
    file = folder / "gateway.toml"
    file.write_text(CONFIGURATION.format(workers=workers))
    with subprocess.Popen(
        [sys.executable, "-m", "fastgate", "run", "-c", str(file)], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        port, pids = 0, []
        for line in process.stderr:
            if found := re.search(r"listening on 127\.0\.0\.1:(\d+)", line):
                port = int(found[1])
            if found := re.search(r"\(pid (\d+)\) serves", line):
                pids.append(int(found[1]))
            if "ready" in line:
                break
        try:
            yield port, pids
        finally:
            process.terminate()


def balance(folder: Path, connections: int) -> list[int]:
    """The connections of each of four workers."""
    with gateway(folder, 4) as (port, pids), ExitStack() as stack:
        before = [len(os.listdir(f"/proc/{pid}/fd")) for pid in pids]
        for _ in range(connections):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            sock.sendall(b"GET /plain HTTP/1.1\r\nHost: bench.test\r\n\r\n")
            sock.recv(4096)
        return [len(os.listdir(f"/proc/{pid}/fd")) - was for pid, was in zip(pids, before, strict=True)]


def rate(folder: Path, workers: int, path: str, seconds: float) -> float:
    """Requests a second."""
    with gateway(folder, workers) as (port, _):
        done = subprocess.run(
            [need("wrk"), "-t1", "-c64", f"-d{seconds:g}s", f"http://127.0.0.1:{port}{path}"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    return float(re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)[1])  # type: ignore[index]


def main() -> None:
    own = argparse.ArgumentParser(prog="python -m bench.workers", description=__doc__)
    own.add_argument("--seconds", type=float, default=3, help="of each load (default 3)")
    options = own.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-workers-") as name:
        folder = Path(name)
        for connections in (4, 16, 64, 256, 1000):
            print(f"{connections:>5} connections on four workers: {balance(folder, connections)}", flush=True)
        for path in ("/plain", "/work"):
            found: dict[int, list[float]] = {1: [], 2: []}
            for _ in range(3):
                for workers, rates in found.items():
                    rates.append(rate(folder, workers, path, options.seconds))
            one, two = (statistics.median(rates) for rates in found.values())
            print(f"{path}: {one:,.0f}/s with one, {two:,.0f}/s with two: {two / one:.2f} x", flush=True)


if __name__ == "__main__":
    main()
