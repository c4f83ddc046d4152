"""The gateway that is operated, and what an operator does to it."""

from __future__ import annotations

import contextlib
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.endurance.whose import Doomed, clients_of
from bench.resilience.operate import Admin, OperateFailed
from bench.runner import free_port
from fastgate.cli.dev_certificates import make

WRONG = '\n[[routes]]\nname = "wrong"\nupstream = "nowhere"\n'


def configuration(
    upstreams: tuple[int, int], ports: tuple[int, int, int], folder: Path, turn: int, workers: int
) -> str:
    short, long = upstreams
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
[upstreams.short]
endpoints = ["127.0.0.1:{short}"]
[upstreams.long]
endpoints = ["127.0.0.1:{long}"]
[[routes]]
name = "short"
upstream = "short"
response_headers = {{ set = {{ X-Turn = "{turn}" }} }}
[[routes]]
name = "long"
match = {{ prefix = "/long" }}
upstream = "long"
upgrade = ["websocket"]
response_headers = {{ set = {{ X-Turn = "{turn}" }} }}
"""


class Gateway:
    """`fastgate run`; upgrades make others of it, all of which end with the block. doomed: learns of the
    connections of each worker that is killed. upstreams: the ports of the short and the long service."""

    def __init__(self, folder: Path, upstreams: tuple[int, int], workers: int, doomed: Doomed) -> None:
        self.folder = folder
        self.file = folder / "gateway.toml"
        self.upstreams = upstreams
        self.workers = workers
        self.doomed = doomed
        self.ports = (free_port(), free_port(), free_port())
        self.admin = Admin(self.ports[2], timeout=60)
        self.turn = 0
        self.killed = 0
        self.slowest_rollback = 0.0  # seconds
        self.pids: list[int] = []
        self.started: set[int] = set()  # every worker that was seen

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
        text = configuration(self.upstreams, self.ports, self.folder, self.turn, self.workers)
        fresh = self.file.with_suffix(".new")
        fresh.write_text(text + more)
        fresh.replace(self.file)

    def memory(self) -> int:
        """Bytes of the supervisor and its workers, as of now."""
        return sum(resident(pid) for pid in (self.pids[-1], *self.note()))

    # -- what an operator does

    def reload(self) -> None:
        self.turn += 1
        self.write()
        changed = self.admin.ask("POST", "/reload", {})["routes"]["changed"]
        if sorted(changed) != ["long", "short"]:
            raise OperateFailed(f"a reload has changed {changed}")

    def swap(self) -> None:
        make(self.folder, ("localhost",), 30)
        self.admin.ask("POST", "/reload", {})
        shown = ssl.get_server_certificate(("127.0.0.1", self.ports[1]), timeout=5)
        if shown.strip() != (self.folder / "localhost.pem").read_text().strip():
            raise OperateFailed("another certificate is shown than the new one")

    def kill(self) -> None:
        before = self.note()
        victim = before[self.killed % len(before)]
        self.killed += 1
        # Where it stands still, what it has is known; nobody waits for it meanwhile.
        os.kill(victim, signal.SIGSTOP)
        await_true("the worker stands still", lambda: state_of(victim) == "T", every=0.0005)
        self.doomed.add(clients_of(victim, self.ports[:2]))
        os.kill(victim, signal.SIGKILL)
        await_true("another worker serves", lambda: len(set(self.note()) - {victim}) == self.workers)

    def upgrade(self) -> None:
        self.pids.append(int(self.admin.ask("POST", "/upgrade", {})["pid"]))
        await_true(
            "the new program answers", lambda: self.admin.ask("GET", "/version")["pid"] == self.pids[-1]
        )
        await_true("it serves", lambda: len(self.note()) == self.workers)

    def rollback(self) -> None:
        begin = time.monotonic()
        self.admin.ask("POST", "/rollback", {})
        self.slowest_rollback = max(self.slowest_rollback, time.monotonic() - begin)

    # -- what must change nothing

    @contextlib.contextmanager
    def wrong_configuration(self) -> Iterator[None]:
        """Within, the file has a mistake. It was refused when it was to be read."""
        self.write(WRONG)
        self._refused()
        yield
        self.write()

    @contextlib.contextmanager
    def wrong_certificate(self) -> Iterator[None]:
        """Likewise: the certificate is that of another key."""
        file = self.folder / "localhost.pem"
        before = file.read_bytes()
        other = self.folder / "other"
        make(other, ("localhost",), 30)
        file.write_bytes((other / "localhost.pem").read_bytes())
        self._refused()
        yield
        file.write_bytes(before)

    def _refused(self) -> None:
        before = self.admin.ask("GET", "/configuration")
        try:
            self.admin.ask("POST", "/reload", {})
        except OperateFailed as refused:
            if "422" not in str(refused):
                raise
        else:
            raise OperateFailed("a configuration with a mistake was taken")
        if self.admin.ask("GET", "/configuration") != before:
            raise OperateFailed("a configuration with a mistake has changed something")


def await_true(what: str, ready: Callable[[], bool], patience: float = 30.0, every: float = 0.02) -> None:
    """Asks every so many seconds. OperateFailed where it does not become so."""
    deadline = time.monotonic() + patience
    while not ready():
        if time.monotonic() > deadline:
            raise OperateFailed(f"not within {patience:.0f} s: {what}")
        time.sleep(every)


def resident(pid: int) -> int:
    """Its share (PSS) of memory that is no file's: that of libraries depends on who else has them."""
    lines = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines())
    sizes = {words[0]: int(words[1]) * 1024 for words in lines if len(words) == 3}
    return sizes["Pss_Anon:"] + sizes["Pss_Shmem:"]


def state_of(pid: int) -> str:
    """As proc(5) has it: R, S, T and so on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
