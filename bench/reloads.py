"""`python -m bench.reloads`: memory over many reloads, of the supervisor and of a worker.

Configurations that differ in routes, upstreams, plugins and an included file take turns, each put in force
through the admin API; every tenth change is a rollback. A line for each hundred: resident memory, and its
growth since the first hundred, in which caches fill. Exit code 1 where a thousand reloads would grow by more
than 4 MiB.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final, NamedTuple

MOST_GROWTH: Final = 4 * 1024 * 1024  # bytes, by a thousand reloads
WARM: Final = 100
ROUTES: Final = 200

_WORKER = re.compile(r"fastgate: worker 1 \(pid (\d+)\)")
_ADMIN = re.compile(r"fastgate: listening on 127\.0\.0\.1:(\d+) \(admin API\)")


class Sizes(NamedTuple):
    """Resident memory in bytes."""

    supervisor: int
    worker: int


class Subject:
    """A gateway on configurations that take turns."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._turn = 0
        self._write()
        self._errors = (folder / "stderr").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fastgate", "run", "-c", str(folder / "gateway.toml")],
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            env={**os.environ, "XDG_STATE_HOME": str(folder / "state")},
        )
        said = self._wait_ready()
        self._admin = int(_found(_ADMIN, said))
        self._worker = int(_found(_WORKER, said))

    def _wait_ready(self) -> str:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self._process.poll() is None:
            said = (self._folder / "stderr").read_text()
            if "fastgate: ready" in said:
                return said
            time.sleep(0.02)
        raise RuntimeError("it did not start:\n" + (self._folder / "stderr").read_text())

    def change(self) -> None:
        """One reload, or rollback. Raises RuntimeError where it is refused."""
        self._turn += 1
        if self._turn % 10 == 0:
            self._post("/rollback")
        else:
            self._write()
            self._post("/reload")

    def _post(self, target: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._admin, timeout=30)
        connection.request("POST", target, b"{}", {"Content-Type": "application/json"})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        if answer.status != 200:
            raise RuntimeError(f"{target}: {answer.status} {json.loads(body)['detail']}")

    def sizes(self) -> Sizes:
        return Sizes(_resident(self._process.pid), _resident(self._worker))

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(20)
        self._errors.close()

    def _write(self) -> None:
        turn = self._turn
        routes = "".join(
            f'[[routes]]\nname = "r{i}"\nmatch = {{ prefix = "/{turn % 2}/{i}" }}\nupstream = "up{i % 5}"\n'
            for i in range(ROUTES)
        )
        upstreams = "".join(
            f'[upstreams.up{i}]\nendpoints = ["127.0.0.1:{9001 + (i + turn) % 7}"]\n' for i in range(5)
        )
        limit = f'[plugins.limit]\nuse = "rate-limit"\nrate = "{100 + turn % 3}/s"\n'
        python = f'[plugins.cors]\nuse = "cors"\norigins = ["https://{turn % 4}.example.com"]\n'
        head = 'include = ["upstreams.toml"]\n[admin]\nbind = "127.0.0.1:0"\n'
        listener = '[[listeners]]\nbind = "127.0.0.1:0"\nplugins = ["limit", "cors"]\n'
        (self._folder / "upstreams.toml").write_text(upstreams)
        (self._folder / "gateway.toml").write_text(head + listener + routes + limit + python)


def measure(changes: int, *, warm: int = WARM, every: int = 100) -> tuple[Sizes, Sizes]:
    """Sizes after ``warm`` changes, and after that many more. Prints a line each ``every``, 0: none."""
    with tempfile.TemporaryDirectory() as folder:
        subject = Subject(Path(folder))
        try:
            for _ in range(warm):
                subject.change()
            first = subject.sizes()
            for number in range(1, changes + 1):
                subject.change()
                if every and number % every == 0:
                    now = subject.sizes()
                    print(
                        f"{number:>6} reloads: supervisor {_mib(now.supervisor)} "
                        f"({_mib(now.supervisor - first.supervisor, '+')}), worker {_mib(now.worker)} "
                        f"({_mib(now.worker - first.worker, '+')})",
                        flush=True,
                    )
            return first, subject.sizes()
        finally:
            subject.stop()


def main() -> int:
    own = argparse.ArgumentParser(prog="python -m bench.reloads", description=__doc__)
    own.add_argument("--reloads", type=int, default=1000, help="how many (default 1000)")
    args = own.parse_args()
    begun = time.monotonic()
    first, last = measure(args.reloads)
    seconds = time.monotonic() - begun
    growth = max(last.supervisor - first.supervisor, last.worker - first.worker)
    print(f"{args.reloads} reloads in {seconds:.0f} s; growth at most {_mib(growth)}")
    return 1 if growth * 1000 > MOST_GROWTH * max(args.reloads, 1000) else 0


def _resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"process {pid} is gone")


def _found(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    if found is None:
        raise RuntimeError(f"no {pattern.pattern} in:\n{text}")
    return found[1]


def _mib(size: int, sign: str = "") -> str:
    return f"{size / 2**20:{sign}.1f} MiB"


if __name__ == "__main__":
    sys.exit(main())
