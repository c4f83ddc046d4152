"""The endpoints of a service as processes of their own: killed, stopped, replaced, made to fail, by pid."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import socket
import time
import urllib.request
from collections import Counter
from pathlib import Path
from types import TracebackType

from bench.peers.base import NATIVE
from bench.process import START_PATIENCE, PeerFailed, Session, load_cores


def quiet_ports(count: int) -> list[int]:
    """Free ports that no outgoing connection is given: a killed endpoint can have its own again."""
    first_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found: list[int] = []
    for port in random.sample(range(10_000, first_outgoing), first_outgoing - 10_000):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.append(port)
        if len(found) == count:
            return found
    raise OSError(f"fewer than {count} free ports below {first_outgoing}")


class Fleet:
    """`count` endpoints, each native/service on a port that it keeps. A context manager; leaving it ends all.

    A request takes `delay_us`; `slots` bounds how many an endpoint works on at once (0: any number).
    """

    def __init__(self, folder: Path, count: int, *, delay_us: int = 2000, slots: int = 0) -> None:
        self.folder = folder
        self.delay_us = delay_us
        self.slots = slots
        self.ports = quiet_ports(count)
        self.sessions: dict[int, Session] = {}

    def __enter__(self) -> Fleet:
        try:
            for index in range(len(self.ports)):
                self.start(index)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, index: int) -> None:
        """A new process on the endpoint's port; returns once it listens."""
        command = [str(NATIVE / "service"), *map(str, (self.ports[index], index, self.delay_us, self.slots))]
        command.append(str(self.folder / f"deliveries{index}"))
        session = Session(command, load_cores(), self.folder / f"service{index}.out")
        self.sessions[index] = session
        deadline = time.monotonic() + START_PATIENCE
        while session.log.read_text() != f"{self.ports[index]}\n":
            session.check()
            if time.monotonic() > deadline:
                raise PeerFailed(f"endpoint {index} did not start")
            time.sleep(0.002)

    def kill(self, index: int) -> None:
        """SIGKILL: its connections are reset, then refused."""
        self.sessions[index].kill()

    def end(self, index: int) -> None:
        """SIGTERM, as a deployment does when nothing runs there any more."""
        self.sessions[index].stop()

    def pause(self, index: int) -> None:
        """SIGSTOP: the kernel still accepts for it, and nothing is ever answered."""
        self.sessions[index].process.send_signal(signal.SIGSTOP)

    def resume(self, index: int) -> None:
        """SIGCONT."""
        self.sessions[index].process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Ends all, stopped ones too."""
        for session in self.sessions.values():
            session.kill()

    def ask(self, index: int, path: str) -> bytes:
        """A question put to the endpoint itself, past the gateway."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[index]}{path}", timeout=5) as answer:
            body: bytes = answer.read()
        return body

    def stats(self, index: int) -> dict[str, int]:
        """What the endpoint has counted since it was started."""
        counts: dict[str, int] = json.loads(self.ask(index, "/__stats"))
        return counts

    def errors(self, index: int, percent: int) -> None:
        """From now on it answers that many of a hundred requests with 500."""
        self.ask(index, f"/__errors/{percent}")

    def deliveries(self) -> Counter[int]:
        """Id -> how often a POST with it was delivered, to whichever endpoint and process."""
        found: Counter[int] = Counter()
        for index in range(len(self.ports)):
            text = (self.folder / f"deliveries{index}").read_text()
            found.update(int(line, 16) for line in text.splitlines())
        return found
