"""Upstreams whose answers to health checks and to clients are set apart, and may change at any time."""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from support.client import Client
from support.upstream import Connection, Step, Upstream, read_body, reply
from support.wire import Request, Response

HEALTH: dict[str, Any] = {"path": "/health", "interval": "100ms", "timeout": "5s", "rise": 1, "fall": 1}


class Service:
    """An `Upstream` with a name. `check` answers /health; `answer` everything else, by default with the
    name, behind the number of /id/N as a `Crowd` wants it."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.name = upstream.name
        self.check: Step = reply(200, b"well")
        self.answer: Step = self.tell_name
        upstream.default = (read_body(), self._serve)

    def _serve(self, connection: Connection) -> None:
        (self.check if connection.request.target == "/health" else self.answer)(connection)

    def tell_name(self, connection: Connection) -> None:
        number = connection.request.target.removeprefix("/id/")
        reply(200, f"{number} {self.name}".encode())(connection)

    @property
    def address(self) -> str:
        return self.upstream.address

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    @property
    def checks(self) -> list[Request]:
        """The checks that came."""
        return [request for request in self.upstream.requests if request.target == "/health"]

    @property
    def served(self) -> list[Request]:
        """What came of clients."""
        return [request for request in self.upstream.requests if request.target != "/health"]


@contextmanager
def services(*names: str, hosts: tuple[str, ...] = (), port: int = 0) -> Iterator[list[Service]]:
    """Started together. hosts: one for each name, all with the same port (`port`, or a free one)."""
    with ExitStack() as stack:
        found: list[Service] = []
        for at, name in enumerate(names):
            host = hosts[at] if hosts else "127.0.0.1"
            upstream = Upstream((host, port), name=name)
            found.append(Service(stack.enter_context(upstream)))
            if hosts:
                port = found[0].port
        yield found


class Checks:
    """The checks of one service, answered one at a time as the test says."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._answers: queue.Queue[int] = queue.Queue()
        service.check = self._step

    def _step(self, connection: Connection) -> None:
        reply(self._answers.get(timeout=30))(connection)

    def answer(self, *statuses: int) -> None:
        """Answers the check that waits, and returns when the next one has come: then it has been judged."""
        for status in statuses:
            due = len(self._service.checks) + 1
            self._answers.put(status)
            self._service.upstream.wait("next check", lambda: len(self._service.checks) >= due)  # noqa: B023

    def await_first(self) -> None:
        self._service.upstream.wait("first check", lambda: bool(self._service.checks))

    def close(self) -> None:
        """What waits, and all that come, are answered with 200."""
        self._service.check = reply(200)
        self._answers.put(200)


def name_of(response: Response) -> str:
    """Which service has answered."""
    assert response.status == 200, f"{response.status} {response.body!r}"
    return response.body.decode().rpartition(" ")[2]


def names(client: Client, count: int, *lines: str) -> Counter[str]:
    """How often each service answers of so many requests."""
    return Counter(name_of(client.get("/id/0", *lines)) for _ in range(count))


def until(client: Client, what: str, wanted: Any, *lines: str, timeout: float = 10.0) -> Response:
    """Asks until an answer is as wanted: what time brings about shows with the next request only."""
    deadline = time.monotonic() + timeout
    while True:
        response = client.get("/id/0", *lines)
        if wanted(response):
            return response
        assert time.monotonic() < deadline, (
            f"not within {timeout} s: {what}; last: {response.status} {response.body!r}"
        )
        time.sleep(0.005)


def held(event: threading.Event, then: Step) -> Step:
    """Answers when the test says so."""

    def step(connection: Connection) -> None:
        assert event.wait(30), "the test never set the event"
        then(connection)

    return step
