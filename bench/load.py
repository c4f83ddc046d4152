"""Drives load at a peer: wrk and the C clients, on the cores the peer has not got; reads what they print."""

from __future__ import annotations

import contextlib
import json
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.peers.base import NATIVE, need

SCRIPT = Path(__file__).parent / "lua" / "load.lua"
GRACE = 20.0  # seconds a load client may take beyond its duration


class LoadFailed(Exception):
    """A load client failed or printed something unexpected; the text quotes it."""


@dataclass(frozen=True)
class Closed:
    """What a closed loop came to. Latencies in microseconds, as wrk sees them under saturation."""

    requests: int
    seconds: float
    errors: int  # connect, read, write, timeout
    refused: int  # answers outside 2xx and 3xx
    p50: float
    p99: float
    p999: float

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds

    def problems(self) -> list[str]:
        """Why the run cannot be used."""
        found = []
        if self.errors:
            found.append(f"{self.errors} errors of connections")
        if self.refused:
            found.append(f"{self.refused} answers were not 2xx")
        if not self.requests:
            found.append("no request was answered")
        return found


@dataclass(frozen=True)
class Paced:
    """What a constant rate came to. Latencies in us: `wait` from when due, `service` from when sent."""

    due: int
    answered: int
    in_time: int
    refused: int
    errors: int
    given_up: int
    seconds: float
    wait: dict[str, float]
    service: dict[str, float]
    statuses: dict[int, int]  # answers by status
    losses: tuple[tuple[int, int], ...]  # of the errors: the client's port, when on the monotonic clock (ns)


@dataclass(frozen=True)
class Handshakes:
    """What connections with one request each came to."""

    made: int
    resumed: int
    errors: int
    seconds: float


@dataclass(frozen=True)
class Fetched:
    """What downloads came to."""

    bytes: int
    answers: int
    refused: int
    errors: int
    seconds: float


def parse_wrk(text: str) -> Closed:
    """The line of JSON that load.lua ends with. LoadFailed where there is none."""
    for line in text.splitlines():
        if line.startswith("result {"):
            raw: dict[str, Any] = json.loads(line.removeprefix("result "))
            errors = sum(raw[name] for name in ("connect", "read", "write", "timeout"))
            return Closed(
                raw["requests"], raw["seconds"], errors, raw["status"], raw["p50"], raw["p99"], raw["p999"]
            )
    raise LoadFailed(f"wrk printed no result: {text.strip()[-400:] or '(nothing)'}")


def parse_paced(text: str) -> Paced:
    """The JSON of the paced client."""
    raw = _json(text, "paced")
    return Paced(
        raw["due"], raw["answered"], raw["in_time"], raw["refused"], raw["errors"], raw["given_up"],
        raw["seconds"], raw["wait_us"], raw["service_us"],
        {int(status): count for status, count in raw["statuses"].items()},
        tuple((port, at) for port, at in raw["losses"]),
    )  # fmt: skip


def parse_fetch(text: str) -> Fetched:
    """The JSON of the fetch client."""
    return Fetched(**_json(text, "fetch"))


def _json(text: str, client: str) -> dict[str, Any]:
    try:
        raw: dict[str, Any] = json.loads(text)
    except json.JSONDecodeError:
        raise LoadFailed(f"{client} printed no result: {text.strip()[-400:] or '(nothing)'}") from None
    return raw


def write_requests(path: Path, requests: Sequence[bytes]) -> Path:
    """The requests as load.lua reads them: each after a line with its length."""
    path.write_bytes(b"".join(b"%d\n%b" % (len(request), request) for request in requests))
    return path


class Load:
    """Load clients for one peer's port; `request` is a file with one request, `requests` the file of all."""

    def __init__(
        self, port: int, cores: Sequence[int], request: Path, requests: Path, *, tls: bool = False
    ) -> None:
        self.port = port
        self.scheme = "https" if tls else "http"
        self.request = str(request)
        self.requests = str(requests)
        self.prefix = ["taskset", "-c", ",".join(map(str, cores))]

    def _run(self, command: list[str], seconds: float) -> str:
        try:
            done = subprocess.run(
                [*self.prefix, *command], capture_output=True, text=True, timeout=seconds + GRACE, check=False
            )
        except subprocess.TimeoutExpired:
            raise LoadFailed(f"{command[0]} did not end within {seconds + GRACE:.0f} s") from None
        if done.returncode:
            raise LoadFailed(
                f"{command[0]} ended with {done.returncode}: {(done.stderr or done.stdout)[-400:]}"
            )
        return done.stdout

    def closed(self, connections: int, seconds: int) -> Closed:
        """wrk: each connection sends its next request when the last one is answered."""
        command = [need("wrk"), "-t", "1", "-c", str(connections), "-d", f"{seconds}s", "--timeout", "10s"]
        command += ["-s", str(SCRIPT), f"{self.scheme}://127.0.0.1:{self.port}", "--", self.requests]
        return parse_wrk(self._run(command, seconds))

    def paced(self, rate: float, connections: int, seconds: float, give_up_ms: float = 0) -> Paced:
        """A constant rate, whatever the peer does."""
        command = [str(NATIVE / "paced"), str(self.port), f"{rate:.1f}", str(connections), str(seconds)]
        return parse_paced(self._run([*command, f"{give_up_ms:g}", self.request], seconds))

    def fetch(self, connections: int, seconds: float) -> Fetched:
        """Downloads, one after the other on each connection."""
        command = [str(NATIVE / "fetch"), str(self.port), str(connections), str(seconds), self.request]
        return parse_fetch(self._run(command, seconds))

    def handshakes(
        self, connections: int, seconds: float, resume: bool, suites: str = "", rate: float = 0
    ) -> Handshakes:
        """Connections one after the other, so many at a time. suites: of TLS 1.3, if not OpenSSL's. rate: of
        them in a second; 0: as fast as the peer makes them."""
        command = [str(NATIVE / "handshake"), str(self.port), str(connections), str(seconds), f"{rate:g}"]
        command += [str(int(resume)), self.request, *filter(None, [suites])]
        raw = _json(self._run(command, seconds), "handshake")
        return Handshakes(**raw)

    @contextlib.contextmanager
    def held(self, connections: int) -> Iterator[None]:
        """Idle connections that have each served one request. LoadFailed where one was closed meanwhile."""
        command = [*self.prefix, str(NATIVE / "hold"), str(self.port), str(connections), "32", self.request]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                assert process.stdout is not None
                if process.stdout.readline() != f"held {connections}\n":
                    process.wait(GRACE)
                    raise LoadFailed(process.stderr.read().strip() if process.stderr else "hold failed")
                yield
                rest, _ = process.communicate(timeout=GRACE)
                if rest != f"open {connections}\n":
                    raise LoadFailed(f"the peer closed idle connections: {rest.strip()} of {connections}")
            finally:
                if process.poll() is None:
                    process.kill()


def upstream_counts(port: int) -> tuple[int, int]:
    """(connections accepted, requests answered) of the upstream since its start, this question's included."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/__stats", timeout=5) as answer:
        raw = json.load(answer)
    return raw["connections"], raw["requests"]
