"""Endpoints as real processes that can be killed, and clients that account for every request."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType

from bench.resilience.fleet import quiet_ports
from support.client import Address, Client, request
from support.wire import Response

SERVICE = Path(__file__).with_name("service.py")


class Endpoint:
    """A process of `service` on a port that it keeps; its name is what it answers with."""

    def __init__(self, port: int, name: str, deliveries: Path) -> None:
        self.port = port
        self.name = name
        self.deliveries = deliveries
        self.process: subprocess.Popen[str] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """A new process; returns once it listens."""
        self.process = subprocess.Popen(
            [sys.executable, "-I", str(SERVICE), str(self.port), self.name, str(self.deliveries)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n", f"{self.name} did not start"

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, stopped or not; nothing where it has not been started."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            if self.process.stdout:
                self.process.stdout.close()

    def fail(self, percent: int) -> None:
        """From now on it answers that many of a hundred requests with 500."""
        urllib.request.urlopen(f"http://{self.address}/errors/{percent}", timeout=5).close()


class Endpoints(list[Endpoint]):
    """Started together. A context manager; leaving it kills them all."""

    def __init__(self, count: int, directory: Path) -> None:
        super().__init__(
            Endpoint(port, f"e{at}", directory / f"deliveries{at}")
            for at, port in enumerate(quiet_ports(count))
        )

    def __enter__(self) -> Endpoints:
        try:
            for endpoint in self:
                endpoint.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def kill(self) -> None:
        for endpoint in self:
            endpoint.kill()

    def deliveries(self) -> Counter[int]:
        """Id -> how often a POST with it was delivered."""
        texts = (endpoint.deliveries.read_text() for endpoint in self)
        return Counter(int(line) for text in texts for line in text.split())


class Crowd:
    """Clients that send one request after the other, each with an id of its own, until the block is left.

    `answered`: id -> the endpoint that answered with 200, to this very id; `failures`: everything else that
    came of a request, in words. Nothing is sent twice.
    """

    def __init__(self, address: Address, methods: Iterable[str] = ("GET",), *, clients: int = 6) -> None:
        self.address = address
        self.methods = tuple(methods)
        self.answered: dict[int, str] = {}
        self.posts: list[int] = []
        self.failures: list[str] = []
        self._clients = clients
        self._ids = itertools.count()
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Crowd:
        for _ in range(self._clients):
            thread = threading.Thread(target=self._run, name="client of a crowd", daemon=True)
            self._threads.append(thread)
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive(), "a client waits for ever"

    @property
    def sent(self) -> int:
        return len(self.answered) + len(self.failures)

    def _run(self) -> None:
        client: Client | None = None
        while not self._stop.is_set():
            number = next(self._ids)
            method = self.methods[number % len(self.methods)]
            try:
                client = client or Client(self.address, record=False)
                body = b"delivery" if method == "POST" else None
                response = client.request(request(method, f"/id/{number}", body=body))
                told = self._judge(number, response)
                closes = response.closes
            except (OSError, AssertionError) as error:  # cut, reset, malformed, too late
                told, closes = f"{method} {number}: {error!r}", True
            with self._changed:
                if told:
                    self.failures.append(told)
                elif method == "POST":
                    self.posts.append(number)
                self._changed.notify_all()
            if closes and client is not None:
                client.close()
                client = None
            self._stop.wait(0.002)
        if client is not None:
            client.close()

    def _judge(self, number: int, response: Response) -> str:
        """ "", or what is wrong with the answer."""
        asked, _, name = response.body.decode("latin-1").partition(" ")
        if response.status != 200 or asked != str(number):
            return f"{number}: {response.status} {response.body[:300]!r}"
        with self._changed:
            self.answered[number] = name
        return ""

    def recent(self, count: int) -> list[str]:
        """The endpoints of the last answers with 200."""
        return list(self.answered.values())[-count:]

    def wait(self, what: str, ready: Callable[[], bool], timeout: float = 15.0) -> None:
        """Until an answer makes it true."""
        with self._changed:
            assert self._changed.wait_for(ready, timeout), f"not within {timeout} s: {what}"

    def wait_more(self, count: int) -> None:
        """Until so many more requests have ended."""
        due = self.sent + count
        self.wait(f"{count} more answers", lambda: self.sent >= due)

    def wait_used(self, name: str) -> None:
        """Until an endpoint answers."""
        before = len(self.answered)
        self.wait(f"an answer of {name}", lambda: name in list(self.answered.values())[before:])

    def wait_unused(self, name: str, answers: int = 300) -> None:
        """Until an endpoint answers none of so many requests in a row, all of which were answered well."""
        failed, since = len(self.failures), len(self.answered)

        def left_out() -> bool:
            nonlocal failed, since
            if len(self.failures) != failed or name in self.recent(1):
                failed, since = len(self.failures), len(self.answered)
            return len(self.answered) - since >= answers

        self.wait(f"{name} is left out", left_out)


def pace(moments: int, apart: float) -> Iterable[int]:
    """0, 1, 2 ... at that many seconds from each other: the faults of a test, not a wait for something."""
    start = time.monotonic()
    for moment in range(moments):
        time.sleep(max(0.0, start + moment * apart - time.monotonic()))
        yield moment
