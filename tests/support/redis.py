"""A real Redis on a free loopback port, without persistence; it can be killed and started again."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType

from support.upstream import free_port


class Redis:
    def __init__(self, folder: Path, *options: str, port: int = 0) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.options = options
        self.file: Path | None = None  # a configuration of its own, in place of what is said below
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def __enter__(self) -> Redis:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        program = shutil.which("redis-server")
        assert program, "redis-server is not installed (Debian: redis-server)"
        words = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(self.folder)]
        if self.file is not None:
            words = [str(self.file)]
        else:
            words += ["--port", str(self.port)]
        self.process = subprocess.Popen([program, *words, *self.options], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while b"PONG" not in (answer := self.ask("PING")) and b"NOAUTH" not in answer:
            assert time.monotonic() < deadline, "redis-server does not answer"
            time.sleep(0.01)

    def ask(self, *words: str) -> bytes:
        """The raw reply; empty where nobody answers."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as sock:
                sock.sendall((" ".join(words) + "\r\n").encode())
                return sock.recv(65536)
        except OSError:
            return b""

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> None:
        """It takes connections and answers nothing."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


def sentinel_of(master: Redis, folder: Path, name: str) -> Redis:
    """A Sentinel that watches it under this name; not started."""
    file = folder / "sentinel.conf"
    sentinel = Redis(folder, "--sentinel")
    file.write_text(f"port {sentinel.port}\nsentinel monitor {name} 127.0.0.1 {master.port} 1\n")
    sentinel.file = file
    return sentinel
