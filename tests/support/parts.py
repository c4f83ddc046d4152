"""An upstream for aggregations: what a path answers is said once, by path."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

from support import upstream as up
from support.upstream import Connection, Step, Upstream
from support.wire import Request

Answer = Step | Callable[[Request], Step]


def reply_json(value: object, *lines: str, status: int = 200) -> Step:
    return up.reply(status, json.dumps(value).encode(), "Content-Type: application/json", *lines)


class Parts:
    """`answers[path]` is a step, or what `of_request` has made of a function; to a path that has none, the
    request itself is told as JSON. `asked`: the targets, in the order in which they came."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.upstream = Upstream()
        self.upstream.default = (up.read_body(), self._serve)
        self._lock = threading.Lock()
        self._requests: list[Request] = []

    def __enter__(self) -> Parts:
        self.upstream.listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.upstream.__exit__(kind, error, trace)

    def _serve(self, connection: Connection) -> None:
        request = connection.request
        with self._lock:
            self._requests.append(request)
        answer: Any = self.answers.get(request.target.partition("?")[0])
        if answer is None:
            fields = {name.lower(): value for name, value in request.fields}
            told = {
                "method": request.method,
                "target": request.target,
                "headers": fields,
                "body": request.body.decode("latin-1"),
            }
            answer = reply_json(told)
        step = answer(request) if getattr(answer, "of_request", False) else answer
        step(connection)

    @property
    def address(self) -> str:
        return self.upstream.address

    @property
    def asked(self) -> list[str]:
        with self._lock:
            return [request.target for request in self._requests]

    def requests(self, path: str) -> list[Request]:
        with self._lock:
            return [one for one in self._requests if one.target.partition("?")[0] == path]

    def forget(self) -> None:
        """Answers and requests."""
        with self._lock:
            self._requests.clear()
        self.answers.clear()


def of_request(function: Callable[[Request], Step]) -> Any:
    """Marks an answer that depends on the request."""
    function.of_request = True  # type: ignore[attr-defined]
    return function
