"""A real Redis on a free loopback port, without persistence; it can be killed and started again."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

from support.program import Program
from support.upstream import free_port


class Redis(Program):
    def __init__(self, folder: Path, *options: str, port: int = 0) -> None:
        super().__init__(folder)
        self.port = port or free_port()
        self.options = options
        self.file: Path | None = None  # a configuration of its own, in place of what is said below

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        words = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(self.folder)]
        if self.file is not None:
            words = [str(self.file)]
        else:
            words += ["--port", str(self.port)]
        self.run("redis-server", *words, *self.options, package="redis-server")
        self.await_answer(lambda: self.ask("PING").startswith((b"+PONG", b"-NOAUTH")))

    def ask(self, *words: str) -> bytes:
        """The raw reply; empty where nobody answers."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as sock:
                sock.sendall((" ".join(words) + "\r\n").encode())
                return sock.recv(65536)
        except OSError:
            return b""

    def stop(self) -> None:
        """It takes connections and answers nothing."""
        self.processes[0].send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.processes[0].send_signal(signal.SIGCONT)


def sentinel_of(master: Redis, folder: Path, name: str) -> Redis:
    """A Sentinel that watches it under this name; not started."""
    file = folder / "sentinel.conf"
    sentinel = Redis(folder, "--sentinel")
    file.write_text(f"port {sentinel.port}\nsentinel monitor {name} 127.0.0.1 {master.port} 1\n")
    sentinel.file = file
    return sentinel
