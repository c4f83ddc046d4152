"""Scripted upstreams that share one queue of scripts: a test need not know whom the gateway chooses."""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType

from support.upstream import Connection, Step, Upstream, echo, read_body
from support.wire import Request


class Delivery:
    """A request that reached an endpoint. `at`: the endpoint's index."""

    def __init__(self, at: int, request: Request) -> None:
        self.at = at
        self.request = request

    def __repr__(self) -> str:
        return f"{self.request.method} {self.request.target} at {self.at}"


class Fleet:
    """`count` upstreams. A context manager; leaving it fails the test if one of them met an error."""

    def __init__(self, count: int) -> None:
        self.default: tuple[Step, ...] = (read_body(), echo())
        self._scripts: deque[tuple[Step, ...]] = deque()
        self._deliveries: list[Delivery] = []
        self._changed = threading.Condition()
        self.upstreams = [Upstream(name=str(at)) for at in range(count)]
        for at, upstream in enumerate(self.upstreams):
            upstream.default = (self._turn(at),)

    def __enter__(self) -> Fleet:
        for upstream in self.upstreams:
            upstream.listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for upstream in self.upstreams:
            upstream.stop()
        errors = [text for upstream in self.upstreams for text in upstream.errors]
        assert kind is not None or not errors, f"the upstreams met: {errors}"

    def __getitem__(self, at: int) -> Upstream:
        return self.upstreams[at]

    @property
    def addresses(self) -> list[str]:
        return [upstream.address for upstream in self.upstreams]

    def _turn(self, at: int) -> Step:
        def play(connection: Connection) -> None:
            with self._changed:
                self._deliveries.append(Delivery(at, connection.request))
                steps = self._scripts.popleft() if self._scripts else self.default
                self._changed.notify_all()
            for step in steps:
                step(connection)

        return play

    def script(self, *steps: Step) -> Fleet:
        """The script of the next request, whoever gets it."""
        with self._changed:
            self._scripts.append(steps)
        return self

    def clear(self) -> None:
        """Forgets what came, scripts that nobody asked for, and errors."""
        with self._changed:
            self._scripts.clear()
            self._deliveries.clear()
        self.default = (read_body(), echo())
        for upstream in self.upstreams:
            upstream.errors.clear()

    def check(self) -> None:
        """After a test: nothing went wrong in here, and every script was asked for."""
        errors = [text for upstream in self.upstreams for text in upstream.errors]
        assert not errors, f"the upstreams met: {errors}"
        assert not self._scripts, f"{len(self._scripts)} scripts were never asked for"

    def deliveries(self, target: str | None = None) -> list[Delivery]:
        """All requests in the order in which their heads came; those for `target`."""
        with self._changed:
            return [one for one in self._deliveries if target is None or one.request.target == target]

    def wait(self, count: int, target: str | None = None) -> list[Delivery]:
        """At least so many."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.deliveries(target)) >= count, 5), (
                f"{count} requests were due: {self._deliveries}"
            )
        return self.deliveries(target)
