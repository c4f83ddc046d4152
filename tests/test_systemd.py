"""What systemd gives and is told: open sockets, readiness, reloads, the watchdog."""

from __future__ import annotations

import configparser
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.client import Client
from support.gateway import ROOT, config, to_toml

from fastgate.server.inheritance import Inheritance

ACTIVATE = """
import os, sys
fd = int(sys.argv[1])
os.dup2(fd, 3, inheritable=True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES=sys.argv[2])
os.execv(sys.executable, [sys.executable, "-m", "fastgate", "run", "-c", sys.argv[3]])
"""


class Told:
    """The datagram socket that systemd would listen on."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(str(path))
        self.sock.settimeout(20)

    def next(self) -> list[str]:
        return self.sock.recv(4096).decode().splitlines()

    def wait(self, word: str) -> list[str]:
        while word not in (lines := self.next()):
            pass
        return lines


@pytest.mark.parametrize("name", ["main", "another"], ids=["by its name", "by its address"])
def test_socket_activation(tmp_path: Path, name: str) -> None:
    file = tmp_path / "gateway.toml"
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        bind = f"127.0.0.1:{port}" if name == "another" else "127.0.0.1:1"
        file.write_text(to_toml(config(route={"respond": {"body": "ok"}}, listener={"bind": bind})))
        # Who connects before the gateway is there is served as soon as it is.
        with Client(("127.0.0.1", port), timeout=20) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            process = subprocess.Popen(
                [sys.executable, "-c", ACTIVATE, str(sock.fileno()), name, str(file)],
                cwd=ROOT,
                pass_fds=[sock.fileno()],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                assert client.response().body == b"ok"
            finally:
                process.terminate()
                assert process.wait(20) == 0


def test_what_is_meant_for_another_process_is_left_alone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        told = {"LISTEN_PID": str(os.getpid() + 1), "LISTEN_FDS": "1", "OTHER": "x"}
        nothing = Inheritance.of(told)
        assert told == {"OTHER": "x"}, "no child believes it either"
        assert nothing.take(("main",), _Bind(sock)) == []


class _Bind:
    bind, unix_path = "", None

    def __init__(self, sock: socket.socket) -> None:
        self.host, self.port = sock.getsockname()[:2]


def test_it_is_told_of_readiness_reloads_life_and_the_end(tmp_path: Path) -> None:
    told = Told(tmp_path / "notify")
    file = tmp_path / "gateway.toml"
    file.write_text(to_toml(config(route={"respond": {"body": "ok"}})))
    process = subprocess.Popen(
        [sys.executable, "-m", "fastgate", "run", "-c", str(file)],
        cwd=ROOT,
        env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert told.wait("READY=1") == ["READY=1", f"MAINPID={process.pid}"]
        told.wait("WATCHDOG=1")
        process.send_signal(signal.SIGHUP)
        before = time.monotonic_ns() // 1000
        lines = told.wait("RELOADING=1")
        assert abs(int(lines[1].removeprefix("MONOTONIC_USEC=")) - before) < 10_000_000
        told.wait("READY=1")
        process.send_signal(signal.SIGUSR2)
        ready = told.wait("READY=1")
        successor = int(ready[1].removeprefix("MAINPID="))
        assert successor != process.pid
        assert process.wait(20) == 0
        told.wait("WATCHDOG=1")
        os.kill(successor, signal.SIGTERM)
        told.wait("STOPPING=1")
    finally:
        if process.poll() is None:
            process.kill()
        told.sock.close()


def test_the_unit_is_one_that_systemd_takes() -> None:
    """As far as a parser can tell: sections, keys that occur once, and a check in front of the start."""
    for name, sections in (
        ("fastgate.service", {"Unit", "Service", "Install"}),
        ("fastgate.socket", {"Socket", "Install"}),
    ):
        unit = configparser.ConfigParser(interpolation=None, strict=True, delimiters=("=",))
        unit.optionxform = str  # type: ignore[assignment,method-assign]
        unit.read(ROOT / "examples" / name)
        assert set(unit.sections()) == sections
        if "Service" in sections:
            service = unit["Service"]
            assert (service["Type"], service["NotifyAccess"]) == ("notify", "all")
            assert service["ExecStartPre"].split()[1] == "check"
            assert service["ExecStart"].split()[1:2] == ["run"]
