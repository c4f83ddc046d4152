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
    file.write_text(
        f"port {sentinel.port}\n"
        f"sentinel monitor {name} 127.0.0.1 {master.port} 1\n"
        f"sentinel down-after-milliseconds {name} 500\n"
    )
    sentinel.file = file
    return sentinel


def replica_of(master: Redis, folder: Path) -> Redis:
    """One that follows it; not started."""
    return Redis(folder, "--replicaof", "127.0.0.1", str(master.port), "--repl-diskless-sync-delay", "0")


class RedisCluster:
    """Three masters of a real cluster, which have agreed on who has which slots. A context manager."""

    def __init__(self, folder: Path) -> None:
        self.nodes = []
        for number in range(3):
            own = folder / f"node{number}"
            own.mkdir()
            bus = str(free_port())  # else it is 10,000 ports above, which may be none
            self.nodes.append(Redis(own, "--cluster-enabled", "yes", "--cluster-port", bus))

    @property
    def url(self) -> str:
        return self.nodes[0].url

    def __enter__(self) -> RedisCluster:
        try:
            for node in self.nodes:
                node.start()
            self._create()
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kill()

    def _kill(self) -> None:
        for node in self.nodes:
            node.kill()

    def _create(self) -> None:
        program = shutil.which("redis-cli")
        assert program, "redis-cli is not installed (Debian: redis-tools)"
        addresses = [f"127.0.0.1:{node.port}" for node in self.nodes]
        subprocess.run(
            [program, "--cluster", "create", *addresses, "--cluster-yes"],
            check=True, stdout=subprocess.DEVNULL, timeout=60,
        )  # fmt: skip
        deadline = time.monotonic() + 30
        while any(b"cluster_state:ok" not in node.ask("CLUSTER", "INFO") for node in self.nodes):
            assert time.monotonic() < deadline, "the cluster does not come up"
            time.sleep(0.05)

    def holders(self, prefix: str) -> list[Redis]:
        """The nodes that have keys that begin so."""
        return [node for node in self.nodes if prefix.encode() in node.ask("KEYS", f"{prefix}*")]

    def move(self, key: str, there: Redis) -> None:
        """Gives the slot of a key, with all that is in it, to another node."""
        [here] = self.holders(key)
        slot = _number(here.ask("CLUSTER", "KEYSLOT", key))
        ids = {node: node.ask("CLUSTER", "MYID").split()[1].decode() for node in (here, there)}
        there.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[here])
        here.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[there])
        keys = here.ask("CLUSTER", "GETKEYSINSLOT", slot, "1000").decode().split("\r\n")[2::2]
        moved = here.ask("MIGRATE", "127.0.0.1", str(there.port), '""', "0", "5000", "KEYS", *keys)
        assert moved == b"+OK\r\n", moved
        for node in (there, here, *self.nodes):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", ids[there])


def _number(reply: bytes) -> str:
    assert reply.startswith(b":"), reply
    return reply[1:].strip().decode()
