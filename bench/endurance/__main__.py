"""Everything that an operator does to a gateway, under load, and what of it a client notices.

usage: python -m bench.endurance [--reloads 1000] [--swaps 100] [--kills 20] [--upgrades 5] [--rollbacks 20]

Half of the peak rate runs all the time, with WebSockets, endless downloads and TLS clients. Each kind of
change has its own row of counts; between the changes a configuration with a mistake is offered, which must
change nothing. Exit code 1: something failed that must not.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.endurance.clients import Clients, Fared
from bench.load import Load, Paced
from bench.peers.base import need
from bench.provision import compile_native
from bench.resilience.operate import Admin, OperateFailed
from fastgate.cli.dev_certificates import make

CONNECTIONS = 64
SLICE = 2.0  # seconds of load that are counted together
WRONG = '\n[[routes]]\nname = "wrong"\nupstream = "nowhere"\n'


def configuration(upstream: int, ports: tuple[int, int, int], folder: Path, turn: int, workers: int) -> str:
    plain, tls, admin = ports
    return f"""\
[server]
workers = {workers}
drain_timeout = "1h"
state_dir = "{folder}/state"
history = 50
[admin]
bind = "127.0.0.1:{admin}"
[access_log]
path = "{folder}/access.log"
[[listeners]]
name = "plain"
bind = "127.0.0.1:{plain}"
[[listeners]]
name = "tls"
bind = "127.0.0.1:{tls}"
[listeners.tls]
certificates = [{{ cert = "localhost.pem", key = "localhost.key" }}]
[upstreams.service]
endpoints = ["127.0.0.1:{upstream}"]
[[routes]]
name = "all"
upstream = "service"
upgrade = ["websocket"]
response_headers = {{ set = {{ X-Turn = "{turn}" }} }}
"""


class Gateway:
    """`fastgate run`; upgrades make others of it, all of which end with the block."""

    def __init__(self, folder: Path, upstream: int, workers: int) -> None:
        self.folder = folder
        self.file = folder / "gateway.toml"
        self.upstream = upstream
        self.workers = workers
        self.ports = (free_port(), free_port(), free_port())
        self.admin = Admin(self.ports[2])
        self.turn = 0
        self.pids: list[int] = []
        self.started: set[int] = set()  # every process that was seen

    def __enter__(self) -> Gateway:
        make(self.folder, ("localhost",), 30)
        self.write()
        self.log = (self.folder / "stderr").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fastgate", "run", "-c", str(self.file)], stderr=self.log
        )
        self.pids.append(self.process.pid)
        await_true("the gateway serves", self.serves)
        return self

    def __exit__(self, *error: object) -> None:
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        for pid in (*self.pids, *self.started):
            # A second time: long connections would be waited for.
            if command_of(pid).startswith(sys.executable):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.process.wait(10)
        self.log.close()

    def serves(self) -> bool:
        try:
            self.note()
        except (OSError, OperateFailed):
            return False
        return True

    def note(self) -> list[int]:
        """The workers that serve."""
        shown = self.admin.ask("GET", "/workers")["workers"]
        found = [each["pid"] for each in shown if each["state"] == "serving"]
        self.started.update(found)
        return found

    def write(self, more: str = "") -> None:
        text = configuration(self.upstream, self.ports, self.folder, self.turn, self.workers)
        fresh = self.file.with_suffix(".new")
        fresh.write_text(text + more)
        fresh.replace(self.file)

    def memory(self) -> int:
        """Bytes of resident memory of the supervisor and its workers, as of now."""
        return sum(resident(pid) for pid in (self.pids[-1], *self.note()))

    # -- what an operator does

    def reload(self) -> None:
        self.turn += 1
        self.write()
        self.admin.ask("POST", "/reload", {})

    def swap(self) -> None:
        make(self.folder, ("localhost",), 30)
        self.admin.ask("POST", "/reload", {})

    def kill(self) -> None:
        before = self.note()
        os.kill(before[self.turn % len(before)], signal.SIGKILL)
        self.turn += 1
        await_true("another worker serves", lambda: len(set(self.note()) - set(before)) == 1)

    def upgrade(self) -> None:
        self.pids.append(int(self.admin.ask("POST", "/upgrade", {})["pid"]))
        await_true(
            "the new program answers", lambda: self.admin.ask("GET", "/version")["pid"] == self.pids[-1]
        )
        await_true("it serves", lambda: len(self.note()) == self.workers)

    def rollback(self) -> None:
        begin = time.monotonic()
        self.admin.ask("POST", "/rollback", {})
        taken = time.monotonic() - begin
        if taken > 1:
            raise OperateFailed(f"a rollback took {taken:.2f} s")

    def offer_wrong(self) -> None:
        """A mistake is refused, and changes nothing."""
        before = self.admin.ask("GET", "/configuration")
        self.write(WRONG)
        try:
            self.admin.ask("POST", "/reload", {})
        except OperateFailed as refused:
            if "422" not in str(refused):
                raise
        else:
            raise OperateFailed("a configuration with a mistake was taken")
        self.write()
        after = self.admin.ask("GET", "/configuration")
        if before != after:
            raise OperateFailed("a configuration with a mistake has changed something")


@dataclass
class Row:
    """One kind of change: how often, and what the clients saw meanwhile."""

    what: str
    done: int = 0
    wrong: int = 0  # mistakes that were offered, and refused
    seconds: float = 0
    sent: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    unanswered: int = 0  # sent, and the connection ended or nothing came
    unsent: int = 0  # due, when the client was not given the time: the machine is too slow for this rate
    fared: Fared = field(default_factory=Fared)

    def failures(self) -> int:
        """Of short requests."""
        answered = self.statuses[200]
        return self.sent - answered + sum(self.fared.tls_failures.values())

    def __str__(self) -> str:
        others = {status: count for status, count in self.statuses.items() if status != 200}
        return (
            f"{self.what:<10} {self.done:>5} x in {self.seconds:5.1f} s, {self.wrong:>3} mistakes refused: "
            f"sent {self.sent:,}, 200 {self.statuses[200]:,}, other {others or 0}, "
            f"unanswered {self.unanswered}, never sent {self.unsent}; "
            f"TLS {self.fared.tls_answers:,} answered, "
            f"{dict(self.fared.tls_failures) or 0} failed; {self.fared.words:,} words on long connections, "
            f"{dict(self.fared.lost) or 0} lost"
        )


class Traffic:
    """The steady load, in slices that a row takes when its changes are over."""

    def __init__(self, load: Load, rate: float) -> None:
        self._load = load
        self._rate = rate
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._found: list[Paced] = []

    def start(self) -> None:
        self._stop.clear()
        self._found = []
        self._thread = threading.Thread(target=self._run, name="steady load")
        self._thread.start()

    def stop(self) -> list[Paced]:
        assert self._thread is not None
        self._stop.set()
        self._thread.join()
        return self._found

    def _run(self) -> None:
        while not self._stop.is_set():
            self._found.append(self._load.paced(self._rate, CONNECTIONS, SLICE))


def run_row(
    gateway: Gateway, traffic: Traffic, clients: Clients, what: str, count: int, act: Callable[[], None]
) -> Row:
    row = Row(what)
    clients.take()
    traffic.start()
    begin = time.monotonic()
    try:
        for number in range(count):
            act()
            row.done += 1
            if number % max(1, count // 5) == 0:
                gateway.offer_wrong()
                row.wrong += 1
        gateway.note()
    finally:
        row.seconds = time.monotonic() - begin
        for found in traffic.stop():
            row.sent += found.due - found.given_up
            row.unsent += found.given_up
            row.statuses += Counter(found.statuses)
            row.unanswered += found.errors
        row.fared = clients.take()
    print(row, flush=True)
    return row


def peak(port: int) -> float:
    """Requests a second, when as many are sent as are answered."""
    done = subprocess.run(
        [need("wrk"), "-t1", f"-c{CONNECTIONS}", "-d2s", f"http://127.0.0.1:{port}/"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return float(re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)[1])  # type: ignore[index]


@contextlib.contextmanager
def service() -> Iterator[int]:
    """The port of the service behind the gateway."""
    with subprocess.Popen(
        [sys.executable, "-m", "bench.endurance.upstream"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.terminate()


def measure(options: argparse.Namespace, folder: Path) -> list[str]:
    """Prints the rows; what must not have been."""
    wrong: list[str] = []
    request = folder / "request"
    request.write_bytes(b"GET / HTTP/1.1\r\nHost: bench.test\r\n\r\n")
    with service() as upstream, Gateway(folder, upstream, options.workers) as gateway:
        load = Load(gateway.ports[0], range(os.cpu_count() or 1), request, request)
        rate = options.rate or peak(gateway.ports[0]) / 2
        traffic = Traffic(load, rate)
        print(f"{gateway.workers} workers, {rate:,.0f} requests/s all the time", flush=True)
        with Clients(
            gateway.ports[0], gateway.ports[1], tunnels=options.long, downloads=options.long, tls=8
        ) as clients:
            if clients.fared.opened != 2 * options.long:
                raise OperateFailed(f"only {clients.fared.opened} long connections: {clients.fared.lost}")
            gateway.reload()
            before = gateway.memory()
            rows = [run_row(gateway, traffic, clients, "reloads", options.reloads, gateway.reload)]
            after = gateway.memory()
            print(f"memory: {before / 1e6:.1f} MB before the reloads, {after / 1e6:.1f} MB behind them")
            if after > before * 1.15 + 8e6:
                wrong.append("memory is not flat")
            for what, count, act in (
                ("swaps", options.swaps, gateway.swap),
                ("rollbacks", options.rollbacks, gateway.rollback),
                ("upgrades", options.upgrades, gateway.upgrade),
            ):
                rows.append(run_row(gateway, traffic, clients, what, count, act))
            wrong += [
                f"{row.what}: {row.failures()} failures, {row.fared.lost.total()} lost"
                for row in rows
                if row.failures() or row.fared.lost
            ]
            row = run_row(gateway, traffic, clients, "kills", options.kills, gateway.kill)
            # All connections of a load that uses each one for one request at a time, and the TLS clients'.
            most = options.kills * (CONNECTIONS + 8)
            print(f"kills: {row.failures()} requests failed that were under way ({most} at most)")
            if row.failures() > most or row.fared.lost.total() > options.kills * 2 * options.long:
                wrong.append("kills: more failed than was under way")
    return wrong


def await_true(what: str, ready: Callable[[], bool], patience: float = 30.0) -> None:
    deadline = time.monotonic() + patience
    while not ready():
        if time.monotonic() > deadline:
            raise OperateFailed(f"not within {patience:.0f} s: {what}")
        time.sleep(0.02)


def resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def free_port() -> int:
    from bench.runner import free_port as found

    port: int = found()
    return port


def parser() -> argparse.ArgumentParser:
    own = argparse.ArgumentParser(prog="python -m bench.endurance", description=__doc__.split("\n")[0])
    own.add_argument("--reloads", type=int, default=1000)
    own.add_argument("--swaps", type=int, default=100, help="of the certificate (default 100)")
    own.add_argument("--kills", type=int, default=20, help="of workers (default 20)")
    own.add_argument("--upgrades", type=int, default=5, help="of the program (default 5)")
    own.add_argument("--rollbacks", type=int, default=20)
    own.add_argument("--workers", type=int, default=2)
    own.add_argument("--long", type=int, default=10, help="WebSockets, and as many downloads (default 10)")
    own.add_argument("--rate", type=float, default=0, help="requests/s (default: half of the peak)")
    return own


def main(arguments: list[str] | None = None) -> int:
    options: Any = parser().parse_args(arguments)
    compile_native()
    folder = Path(tempfile.mkdtemp(prefix="bench-endurance-"))
    try:
        wrong = measure(options, folder)
    except OperateFailed:
        print((folder / "stderr").read_text()[-3000:], file=sys.stderr)
        raise
    finally:
        shutil.rmtree(folder)
    for line in wrong:
        print(f"MISSED: {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
