"""Limits across processes. usage: python -m bench.limits [--seconds N]

host: two gateways and four other processes with one limit, one key, far more offered than admitted. redis:
the two gateways, then with Redis killed and started again in the middle. cost: CPU of the gateway per
request at 64 in flight, with the limit in Redis over none, in turns.
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
from pathlib import Path
from types import SimpleNamespace

from bench.peers.base import need
from fastgate._core import RateLimiter, SampleRequest
from fastgate.config.model import Rate

RATE = 1000
BURST = 100
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


def load(port: int, seconds: float, connections: int = 8) -> tuple[int, int]:
    """Requests sent and admitted."""
    done = subprocess.run(
        [need("wrk"), "-t1", f"-c{connections}", f"-d{seconds:g}s", f"http://127.0.0.1:{port}/"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    total = int(re.search(r"(\d+) requests in", done.stdout)[1])  # type: ignore[index]
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", done.stdout)
    failed = re.search(r"Socket errors: (.*)", done.stdout)
    if failed:
        raise RuntimeError(f"wrk: {failed[1]}")
    return total, total - (int(refused[1]) if refused else 0)


def loads(gateways: list[Gateway], seconds: float) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    threads = [
        threading.Thread(target=lambda port=each.port: found.append(load(port, seconds))) for each in gateways
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


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


def tell(what: str, found: list[tuple[int, int]], seconds: float) -> None:
    sent, admitted = (sum(each[at] for each in found) for at in (0, 1))
    wanted = RATE * seconds + BURST
    print(
        f"{what}: offered {sent / seconds:,.0f}/s, admitted {admitted:,} of {wanted:,.0f} that may pass "
        f"({100 * (admitted / wanted - 1):+.2f} %)",
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
        found = loads([one, other], seconds)
        found += [tuple(map(int, os.read(pipe, 100).split())) for pipe in pipes]  # type: ignore[misc]
        for _ in pipes:
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
        tell("redis scope, 2 gateways", loads([one, other], seconds), seconds)
        time.sleep(1)
        timers = [threading.Timer(seconds * 0.4, redis.kill), threading.Timer(seconds * 0.6, redis.start)]
        for timer in timers:
            timer.start()
        tell('redis killed at 40 %, back at 60 %, on_error = "local"', loads([one, other], seconds), seconds)
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
                sent, admitted = load(gateway.port, seconds / 5, connections=64)
                costs[name].append((gateway.cpu() - before) / sent * 1e6)
                assert admitted == sent, f"{sent - admitted} refused"
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
