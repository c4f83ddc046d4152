"""Limits across processes. usage: python -m bench.limits [--seconds N]

host: two gateways and four other processes with one limit of 1,000/s, one key, 10,000/s offered. redis: the
two gateways with the same, then with Redis killed and started again in the middle. cost: CPU of the gateway
per request at 64 in flight, with the limit in Redis over none, in turns.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

from bench.load import Load
from bench.peers.base import need
from bench.provision import compile_native
from fastgate._core import RateLimiter, SampleRequest
from fastgate.config.model import Rate

RATE = 1000
BURST = 100
OFFERED = 10_000  # a second
ROUTE = '[[routes]]\nname = "all"\nrespond = {{ body = "ok" }}\nplugins = {plugins}\n'
LIMIT = (
    '[plugins.limit]\nuse = "rate-limit"\nkey = "global"\n'
    'rate = "{rate}/s"\nburst = {burst}\nheaders = []\n{more}\n'
)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Gateway:
    """`fastgate run` on a configuration; ends with the block."""

    def __init__(self, file: Path, core: int | None = None) -> None:
        command = [sys.executable, "-m", "fastgate", "run", "-c", str(file)]
        if core is not None:
            command = [need("taskset"), "-c", str(core), *command]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        self.port = 0
        for line in self.process.stderr:
            if found := re.search(r"listening on 127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])
            if "ready" in line:
                break
        self.errors: list[str] = []
        self.reader = threading.Thread(
            target=lambda: self.errors.extend(self.process.stderr or ()), daemon=True
        )
        self.reader.start()

    def cpu(self) -> float:
        """Seconds of CPU so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def __enter__(self) -> Gateway:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.terminate()
        self.process.wait(20)


def configure(folder: Path, name: str, more: str, *, limited: bool = True, rate: int = RATE) -> Path:
    file = folder / f"{name}.toml"
    plugins = '["limit"]' if limited else "[]"
    text = '[access_log]\nenabled = false\n[[listeners]]\nbind = "127.0.0.1:0"\n' + ROUTE.format(
        plugins=plugins
    )
    if limited:
        text += LIMIT.format(rate=rate, burst=BURST if rate == RATE else rate, more=more)
    file.write_text(text)
    return file


def saturate(port: int, seconds: float, connections: int) -> int:
    """As many requests as there is time for; how many. RuntimeError where one was not admitted."""
    done = subprocess.run(
        [need("wrk"), "-t1", f"-c{connections}", f"-d{seconds:g}s", f"http://127.0.0.1:{port}/"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    if found := re.search(r"Non-2xx.*|Socket errors.*", done.stdout):
        raise RuntimeError(f"wrk: {found[0]}")
    return int(re.search(r"(\d+) requests in", done.stdout)[1])  # type: ignore[index]


@dataclass
class Sum:
    """What became of the requests that fell due."""

    due: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    lost: int = 0  # sent, and not answered

    def __iadd__(self, other: Sum) -> Sum:
        self.due += other.due
        self.statuses += other.statuses
        self.lost += other.lost
        return self


def offer(gateways: list[Gateway], folder: Path, rate: float, seconds: float) -> Sum:
    """`rate` requests a second in all, in even steps, an equal part to each gateway."""
    asked = folder / "request"
    asked.write_bytes(b"GET / HTTP/1.1\r\nHost: bench.test\r\n\r\n")
    cores = range(os.cpu_count() or 1)
    with ThreadPoolExecutor() as pool:
        shares = pool.map(
            lambda each: Load(each.port, cores, asked, asked).paced(rate / len(gateways), 32, seconds),
            gateways,
        )
        total = Sum()
        for share in shares:
            total += Sum(share.due, Counter(share.statuses), share.errors + share.given_up)
    return total


def worker(file: Path, seconds: float, pipe: int) -> None:
    """A process that asks 1,000 times a second."""
    limiter = RateLimiter(
        SimpleNamespace(
            name="limit", key=("global",), rate=Rate(RATE, 10**9), burst=BURST, per="plugin", scope="host",
            cost=1, cost_header="", shared_as=str(file.resolve()), ipv6_prefix=64, max_keys=100_000,
            report_only=False, headers=(),
        )
    )  # fmt: skip
    asked, sent, admitted, begin = SampleRequest(), 0, 0, time.monotonic()
    while (now := time.monotonic()) < begin + seconds:
        while sent < (now - begin) * 1000:
            sent += 1
            admitted += not limiter.check_request(asked, time.monotonic_ns()).refused
        time.sleep(0.001)
    os.write(pipe, f"{sent} {admitted}".encode())


def tell(what: str, found: Sum, seconds: float) -> None:
    admitted, wanted = found.statuses[200], RATE * seconds + BURST
    answers = ", ".join(f"{count:,} x {status}" for status, count in sorted(found.statuses.items()))
    print(
        f"{what}:\n    offered {found.due:,} in {seconds:g} s, answered {answers}, lost {found.lost}; "
        f"admitted {admitted:,} of {wanted:,.0f} that may pass ({100 * (admitted / wanted - 1):+.2f} %)",
        flush=True,
    )


def show_host(folder: Path, seconds: float) -> None:
    file = configure(folder, "host", 'scope = "host"')
    with Gateway(file) as one, Gateway(file) as other:
        pipes = []
        for _ in range(4):
            read, write = os.pipe()
            if os.fork() == 0:
                worker(file, seconds, write)
                os._exit(0)
            pipes.append(read)
        found = offer([one, other], folder, OFFERED - 4 * 1000, seconds)
        for pipe in pipes:
            sent, admitted = map(int, os.read(pipe, 100).split())
            found += Sum(sent, Counter({200: admitted, 429: sent - admitted}))
            os.wait()
    tell("host scope, 2 gateways and 4 processes", found, seconds)


class Redis:
    def __init__(self) -> None:
        self.port = free_port()
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [need("redis-server"), "--port", str(self.port), "--save", "", "--bind", "127.0.0.1"],
            stdout=subprocess.DEVNULL,
        )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def show_redis(folder: Path, seconds: float, redis: Redis) -> None:
    more = f'scope = "redis"\nredis = {{ url = "redis://127.0.0.1:{redis.port}" }}\non_error = "local"'
    file = configure(folder, "redis", more)
    with Gateway(file) as one, Gateway(file) as other:
        time.sleep(1)  # until both have a connection
        tell("redis scope, 2 gateways", offer([one, other], folder, OFFERED, seconds), seconds)
        time.sleep(1)
        timers = [threading.Timer(seconds * 0.4, redis.kill), threading.Timer(seconds * 0.6, redis.start)]
        for timer in timers:
            timer.start()
        found = offer([one, other], folder, OFFERED, seconds)
        tell('redis killed at 40 %, back at 60 %, on_error = "local"', found, seconds)
    for gateway in (one, other):
        print(
            "   ",
            " | ".join(line.strip().removeprefix("fastgate: ") for line in gateway.errors if "edis" in line),
        )


def show_cost(folder: Path, seconds: float, redis: Redis) -> None:
    more = f'scope = "redis"\nredis = {{ url = "redis://127.0.0.1:{redis.port}", timeout = "1s" }}'
    files = {
        "none": configure(folder, "none", "", limited=False),
        "host": configure(folder, "cost-host", 'scope = "host"', rate=1_000_000),
        "redis": configure(folder, "cost-redis", more, rate=1_000_000),
    }
    costs: dict[str, list[float]] = {name: [] for name in files}
    for _ in range(5):
        for name, file in files.items():
            with Gateway(file, core=0) as gateway:
                time.sleep(0.5)
                before = gateway.cpu()
                sent = saturate(gateway.port, seconds / 5, connections=64)
                costs[name].append((gateway.cpu() - before) / sent * 1e6)
    for name, values in costs.items():
        middle, low, high = statistics.median(values), min(values), max(values)
        print(f"CPU per request, limit {name}: {middle:.1f} us ({low:.1f}..{high:.1f})")
    added = [with_it - without for with_it, without in zip(costs["redis"], costs["none"], strict=True)]
    print(f"Redis scope adds {statistics.median(added):.1f} us ({min(added):.1f}..{max(added):.1f})")


def parser() -> argparse.ArgumentParser:
    own = argparse.ArgumentParser(prog="python -m bench.limits", description=__doc__)
    own.add_argument("--seconds", type=float, default=10, help="of each load (default 10)")
    return own


def main() -> None:
    options = parser().parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-limits-"))
    compile_native()
    redis = Redis()
    try:
        show_host(folder, options.seconds)
        show_redis(folder, options.seconds, redis)
        show_cost(folder, options.seconds, redis)
    finally:
        redis.kill()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
