"""The gateway as a child process: configuration, start, log lines, and the check that nothing leaked."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from support.client import Address, Client, request

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT = 20.0
STOP_TIMEOUT = 20.0

_LISTENING = re.compile(r"fastgate: listening on (\S+) \((.*)\)$")
_READY = re.compile(r"fastgate: ready pid=(\d+)$")
_WORKER = re.compile(r"fastgate: worker (\d+) \(pid (\d+)\) (?:serves|is ready)$")
_STOPPED = re.compile(r"fastgate: stopped (\{.*\})$")

Table = Mapping[str, Any]


def config(
    upstream: str | list[Any] = (),  # type: ignore[assignment]  # an empty tuple: no upstream
    *,
    listener: Table = {},  # noqa: B006  # never changed
    upstream_options: Table = {},  # noqa: B006
    route: Table = {},  # noqa: B006
    routes: list[dict[str, Any]] | None = None,
    listeners: list[dict[str, Any]] | None = None,
    upstreams: Mapping[str, Table] | None = None,
    server: Table = {},  # noqa: B006
    plugins: Mapping[str, Table] | None = None,
    access_log: Table = {},  # noqa: B006
    admin: Table | None = None,
) -> dict[str, Any]:
    """A configuration: one listener on a free port, one upstream "up", one route "all" that matches
    everything.

    The other arguments add to these or, in the plural, replace them. The access log goes to stdout, where
    `Gateway.wait_log` reads it.
    """
    endpoints = [upstream] if isinstance(upstream, str) else list(upstream)
    if upstreams is None:
        upstreams = {"up": {"endpoints": endpoints, **upstream_options}} if endpoints else {}
    if routes is None:
        routes = [
            {
                "name": "all",
                **({} if "respond" in route or "redirect" in route else {"upstream": "up"}),
                **route,
            }
        ]
    return {
        **({} if admin is None else {"admin": admin}),
        "server": {"drain_timeout": "5s", **server},
        "access_log": {"path": "stdout", "flush_interval": "10ms", **access_log},
        "listeners": listeners or [{"name": "main", "bind": "127.0.0.1:0", **listener}],
        "upstreams": upstreams,
        "routes": routes,
        "plugins": plugins or {},
    }


def to_toml(tables: Table) -> str:
    """The configuration as TOML."""
    lines: list[str] = []
    # Keys of the file itself stand before any table.
    plain = {name: value for name, value in tables.items() if name == "include"}
    lines += _entries(plain)
    for name, value in tables.items():
        if name in plain:
            continue
        if isinstance(value, list):
            for item in value:
                lines += [f"[[{name}]]", *_entries(item)]
        elif name in ("upstreams", "plugins", "acme"):
            for key, item in value.items():
                lines += [f"[{name}.{_key(key)}]", *_entries(item)]
        else:
            lines += [f"[{name}]", *_entries(value)]
    return "\n".join(lines) + "\n"


def _entries(table: Table) -> list[str]:
    return [f"{_key(key)} = {_value(value)}" for key, value in table.items()]


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(_entries(value)) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)


class Gateway:
    """`fastgate run` on a configuration. A context manager; leaving it stops the process and checks for
    leaks. files: configurations that are there already, in place of tables.

    Attributes: `addresses` (listener name -> address), `workers` (process ids, in the order in which they
    were ready), `pid` (of the first of them), `supervisors` (one more with each upgrade), `log` (access log
    records), `stderr` (lines), `stopped` (the leak report, after `stop()`).
    """

    def __init__(
        self,
        tables: Table,
        directory: Path,
        *,
        env: Mapping[str, str] | None = None,
        files: Sequence[Path] = (),
    ) -> None:
        self.tables = tables
        self.file = directory / "gateway.toml"
        self.files = files or (self.file,)
        if not files:
            self.file.write_text(to_toml(tables))
        self.env = env
        self.addresses: dict[str, Address] = {}
        self.workers: list[int] = []
        self.supervisors: list[int] = []
        self.pid = 0
        self.log: list[dict[str, Any]] = []
        self.stdout: list[str] = []
        self.stderr: list[str] = []
        self.stopped: dict[str, int] | None = None
        self.process: subprocess.Popen[str] | None = None
        self._marks = 0
        self._checked: dict[str, int] | None = None  # the leak report, once it was looked at
        self._changed = threading.Condition()
        self._readers: list[threading.Thread] = []

    # -- life

    def __enter__(self) -> Gateway:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.stop()
        else:
            self.kill()

    def start(self) -> Gateway:
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "fastgate",
                "run",
                *(word for each in self.files for word in ("-c", str(each))),
            ],
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(self.env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        for pipe, take in (
            (self.process.stdout, self._take_stdout),
            (self.process.stderr, self._take_stderr),
        ):
            assert pipe is not None
            thread = threading.Thread(
                target=self._read, args=(pipe, take), name="gateway output", daemon=True
            )
            thread.start()
            self._readers.append(thread)
        try:
            self._wait(lambda: self.pid != 0 or self._exited(), START_TIMEOUT, "ready line")
            assert self.pid, (
                f"the gateway did not start (exit {self.process.poll()}):\n{self.errors()}\n{self.toml()}"
            )
        except BaseException:
            self.kill()
            raise
        return self

    def _exited(self) -> bool:
        return all(not thread.is_alive() for thread in self._readers)

    def _read(self, pipe: IO[str], take: Callable[[str], None]) -> None:
        with pipe:
            for line in pipe:
                with self._changed:
                    take(line.rstrip("\n"))
                    self._changed.notify_all()
        self._notify_later()

    def _notify_later(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _take_stdout(self, line: str) -> None:
        self.stdout.append(line)
        if line.startswith("{"):
            self.log.append(json.loads(line))

    def _take_stderr(self, line: str) -> None:
        self.stderr.append(line)
        if match := _LISTENING.match(line):
            self.addresses[match[2]] = parse_address(match[1])
        elif match := _WORKER.match(line):
            self.workers.append(int(match[2]))
        elif match := _READY.match(line):
            self.supervisors.append(int(match[1]))
            self.pid = self.workers[0]
        elif match := _STOPPED.match(line):
            self.stopped = json.loads(match[1])

    def _wait(self, ready: Callable[[], bool], timeout: float, what: str) -> None:
        deadline = time.monotonic() + timeout
        with self._changed:
            # In short turns: the end of a process is not announced on the condition.
            while not ready():
                if time.monotonic() > deadline:
                    raise AssertionError(f"gateway: no {what} in {timeout} s; stderr:\n{self.errors()}")
                self._changed.wait(0.05)

    def terminate(self) -> None:
        """Begins to drain."""
        self.signal(signal.SIGTERM)

    def signal(self, number: int) -> None:
        """To the supervisor; behind an upgrade that is the new one."""
        os.kill(self.supervisors[-1], number)

    def reload(
        self, tables: Table | None = None, *, text: str = "", ends: str = "fastgate: reloaded ("
    ) -> list[str]:
        """Writes the configuration (or `text`) into the file, sends SIGHUP, and gives the lines that this
        brings up to the one that begins with `ends`."""
        if tables is not None:
            self.tables = tables
            text = to_toml(tables)
        if text:
            self.write(text)
        since = len(self.stderr)
        self.signal(signal.SIGHUP)
        last = ("fastgate: reloaded (", "fastgate: not reloaded")
        self._wait(
            lambda: any(line.startswith(last) for line in self.stderr[since:]), 10, "end of the reload"
        )
        lines = self.stderr[since:]
        lines = lines[: next(at for at, line in enumerate(lines) if line.startswith(last)) + 1]
        assert lines[-1].startswith(ends), "\n".join(lines)
        return lines

    def write(self, text: str) -> None:
        """The file, at once: nobody reads half of it."""
        fresh = self.file.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self.file)

    def not_reload(self, tables: Table | None = None, *, text: str = "") -> list[str]:
        """`reload` of what can't be put in force."""
        return self.reload(tables, text=text, ends="fastgate: not reloaded")

    def wait_stderr(self, start: str, timeout: float = 10.0, *, since: int = 0) -> str:
        """The first line on stderr, behind so many, that begins so."""
        lines = self.stderr
        self._wait(lambda: any(line.startswith(start) for line in lines[since:]), timeout, f"line {start!r}")
        return next(line for line in lines[since:] if line.startswith(start))

    def wait_workers(self, count: int) -> None:
        """Until so many workers have been ready, those that are gone among them."""
        self._wait(lambda: len(self.workers) >= count, 10, f"{count} workers")

    def stop(self, *, cut: int | None = 0) -> dict[str, int]:
        """SIGTERM, then exit code 0, a clean stderr, and a leak report of zeros. `cut`: exchanges that may
        be cut."""
        assert self.process is not None
        if self._checked is not None:
            return self._checked
        if self.process.poll() is None or len(self.supervisors) > 1:
            self.terminate()
        return self.wait_stopped(cut=cut)

    def wait_stopped(self, *, cut: int | None = 0) -> dict[str, int]:
        assert self.process is not None
        try:
            code = self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(
                f"the gateway did not stop in {STOP_TIMEOUT} s; stderr:\n{self.errors()}"
            ) from None
        if len(self.supervisors) > 1:
            # Nobody's child any more: the end of what it writes to is its end.
            self._wait(self._exited, STOP_TIMEOUT, "end of the new program")
        self._join()
        assert code == 0, f"exit code {code}; stderr:\n{self.errors()}"
        self.check_stderr()
        assert self.stopped is not None, f"no leak report; stderr:\n{self.errors()}"
        leaks = {key: self.stopped[key] for key in ("connections", "exchanges", "pooled", "timers")}
        assert not any(leaks.values()), f"leaked: {leaks}"
        assert cut is None or self.stopped["cut"] == cut, f"cut {self.stopped['cut']} exchanges, not {cut}"
        self._checked = self.stopped
        return self.stopped

    def check_stderr(self) -> None:
        """Nothing but the gateway's own lines: a traceback or a warning of the loop is a defect."""
        # Beside its own lines: what is said of configurations.
        own = ("fastgate: ", *(f"{each}{end}" for each in self.files for end in (":", ",")))
        strange = [line for line in self.stderr if line and not line.startswith(own)]
        assert not strange, "unexpected on stderr:\n" + "\n".join(strange)

    def kill(self) -> None:
        for pid in self.supervisors[1:]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.process is not None:
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait()
            self._join()

    def _join(self) -> None:
        for thread in self._readers:
            thread.join(5)

    def errors(self) -> str:
        return "\n".join(self.stderr[-50:])

    def toml(self) -> str:
        return self.file.read_text()

    # -- use

    @property
    def address(self) -> Address:
        """Of the first listener."""
        return next(iter(self.addresses.values()))

    @property
    def port(self) -> int:
        assert not isinstance(self.address, str)
        return self.address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, listener: str | None = None, **options: Any) -> Client:
        return Client(self.addresses[listener] if listener else self.address, **options)

    # -- what it says of itself

    def admin(self, path: str, method: str = "GET", body: object = None) -> Any:
        """What its admin API answers; the configuration has one, on any free port."""
        with Client(self.addresses["admin API"]) as client:
            text = None if body is None else json.dumps(body).encode()
            lines = () if body is None else ("Content-Type: application/json",)
            response = client.request(request(method, path, body=text, host="localhost", lines=lines))
        assert response.status < 300, f"{method} {path}: {response.status} {response.body!r}"
        return json.loads(response.body) if response.body else None

    def upstream(self, name: str = "up") -> Any:
        """What the admin API shows of an upstream."""
        return self.admin(f"/upstreams/{name}")

    def wait_upstream(self, ready: Callable[[Any], bool], name: str = "up", timeout: float = 5.0) -> Any:
        """Asks until it is so."""
        deadline = time.monotonic() + timeout
        while not ready(shown := self.upstream(name)):
            assert time.monotonic() < deadline, f"not in {timeout} s: {shown}"
            time.sleep(0.005)
        return shown

    def assert_idle(self) -> None:
        """Nothing is under way at any upstream, and nothing of what was is still counted."""
        for upstream in self.admin("/upstreams")["upstreams"]:
            self.wait_upstream(_idle, upstream["name"])

    def mark(self) -> int:
        """A position in the access log, for `wait_log`: all that has ended before stands in front of it.

        A request of its own, without Host, goes through the log to make sure of that.
        """
        plain = [
            item["name"]
            for item in self.tables["listeners"]
            if not item.get("proxy_protocol") and not item.get("tls")
        ]
        return self.mark_on(plain[0] if plain else self.tables["listeners"][0]["name"])

    def mark_on(self, listener: str) -> int:
        """`mark`, by a listener that is spoken to without TLS, or told that it can't be."""
        self._marks += 1
        path = f"/mark-{self._marks}"
        with self.client(listener) as client:
            client.send(f"GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
            client.stream.rest("the end of the mark")
        self._wait(lambda: any(record["path"] == path for record in self.log), 10, "mark in the access log")
        return max(at for at, record in enumerate(self.log) if record["path"] == path) + 1

    def wait_log(self, since: int = 0, count: int = 1, timeout: float = 10.0) -> list[dict[str, Any]]:
        """At least `count` access log records since the mark."""
        self._wait(lambda: len(self.log) >= since + count, timeout, f"{count} access log lines")
        return self.log[since:]

    def fds(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def wait_fds(self, most: int, timeout: float = 10.0) -> None:
        """Until at most so many descriptors are open. The kernel announces this to nobody: we look every 10
        ms."""
        deadline = time.monotonic() + timeout
        while self.fds() > most:
            assert time.monotonic() < deadline, (
                f"{self.fds()} descriptors open, {most} before: {self.open_files()}"
            )
            time.sleep(0.01)

    def open_files(self) -> list[str]:
        folder = f"/proc/{self.pid}/fd"
        return [os.readlink(f"{folder}/{name}") for name in os.listdir(folder)]

    def memory(self, key: str = "VmRSS") -> int:
        """Bytes: VmRSS (now) or VmHWM (the most there ever was)."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"no {key} in /proc/{self.pid}/status")


def _idle(upstream: Any) -> bool:
    """Connections may stay."""
    load = {key: count for key, count in upstream["load"].items() if key != "connections"}
    busy = [
        endpoint
        for endpoint in upstream["endpoints"]
        if endpoint["active"] or endpoint["waiting"] or endpoint["open"] > endpoint["idle"]
    ]
    return not (any(load.values()) or upstream["queued"] or busy)


def parse_address(text: str) -> Address:
    """ "127.0.0.1:80", "[::1]:80", "unix:/path"; an address of all interfaces is reached by loopback."""
    if text.startswith("unix:"):
        return text.removeprefix("unix:")
    host, _, port = text.rpartition(":")
    host = host.strip("[]")
    return (
        {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1", "*": "127.0.0.1"}.get(host, host),
        int(port),
    )
