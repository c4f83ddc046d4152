"""A fake upstream: a small HTTP/1.1 server in process that answers as told, fails as told, and remembers."""

from __future__ import annotations

import asyncio
import inspect
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import h11
import orjson

from fastgate.testing.client import Answer, Fields, HeaderInput

__all__ = ["FakeUpstream", "Fault", "Handler", "Planned", "Seen"]

#: "refuse": no connection opens, those that are open end. "reset": the request is read, then the connection
#: is reset. "hang": the request is read, and nothing follows. "truncate": half of the answer's body, then the
#: end. "delay": the answer comes later.
Fault = Literal["refuse", "reset", "hang", "truncate", "delay"]

_READ: Final = 65536


@dataclass
class Seen:
    """A request as the upstream got it."""

    method: str
    target: str
    headers: Fields
    body: bytes = b""

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    def json(self) -> Any:
        """ValueError for a body that is no JSON."""
        return orjson.loads(self.body)


Handler = Callable[[Seen], Answer | Awaitable[Answer]]


@dataclass
class _Plan:
    """What is done with a request: with ``times`` of them, or (None) with all from now on."""

    handler: Handler
    times: int | None
    fault: Fault | None = None
    seconds: float = 0.0


class Planned:
    """What answers as told. It answers 200 without a body until it is told otherwise.

    What is planned with ``times`` is used up in its order; then what was last planned without it holds.

    name: of the upstream whose place it takes. requests: what came, in order, each once it is whole.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.requests: list[Seen] = []
        self._plans: deque[_Plan] = deque()
        self._standing = _Plan(lambda seen: Answer(200, Fields(()), b""), None)
        self._news = asyncio.Event()

    def reply(
        self,
        status: int = 200,
        *,
        headers: HeaderInput = (),
        body: bytes | str = b"",
        json: Any = None,
        times: int | None = None,
    ) -> None:
        """Answers so. json: the body instead, with its Content-Type."""
        fields = list(headers.items() if isinstance(headers, Mapping) else headers)
        if json is not None:
            body = orjson.dumps(json)
            fields.append(("Content-Type", "application/json"))
        answer = Answer(status, Fields(fields), body.encode() if isinstance(body, str) else body)
        self.handle(lambda seen: answer, times=times)

    def handle(self, handler: Handler, *, times: int | None = None) -> None:
        """Answers what ``handler`` makes of the request; it may be ``async``."""
        self._plan(_Plan(handler, times))

    def fail(self, how: Fault, *, times: int | None = None, seconds: float = 1.0) -> None:
        """Fails so. seconds: of a "delay". "refuse" takes no ``times``: it holds until something else is
        asked for."""
        if how != "refuse":
            self._plan(_Plan(self._standing.handler, times, how, seconds))
        elif times is not None:
            raise ValueError('"refuse" holds until something else is asked for: it takes no `times`')
        else:
            self._refuse()

    def _refuse(self) -> None:
        raise NotImplementedError

    def _plan(self, plan: _Plan) -> None:
        if plan.times is None:
            self._plans.clear()
            self._standing = plan
        else:
            self._plans.append(plan)

    def _next_plan(self) -> _Plan:
        if not self._plans:
            return self._standing
        plan = self._plans[0]
        assert plan.times is not None
        plan.times -= 1
        if plan.times <= 0:
            self._plans.popleft()
        return plan

    def _saw(self, seen: Seen) -> None:
        self.requests.append(seen)
        self._news.set()

    async def received(self, count: int = 1, timeout: float = 5.0) -> list[Seen]:  # noqa: ASYNC109
        """``requests``, as soon as there are so many. Raises TimeoutError."""
        async with asyncio.timeout(timeout):
            while len(self.requests) < count:
                self._news.clear()
                await self._news.wait()
        return self.requests


class FakeUpstream(Planned):
    """A server of its own; a "delay" is in real time."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._accepting: asyncio.Task[None] | None = None
        self._port = 0
        self._listen()

    @property
    def address(self) -> str:
        """ "127.0.0.1:port"."""
        return f"127.0.0.1:{self._port}"

    def _plan(self, plan: _Plan) -> None:
        if self._accepting is None:
            self._listen()
        super()._plan(plan)

    def _refuse(self) -> None:
        self._hang_up()

    # -- life

    def _listen(self) -> None:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setblocking(False)
        sock.bind(("127.0.0.1", self._port))
        sock.listen(1024)
        self._port = sock.getsockname()[1]
        self._accepting = self._spawn(self._accept(sock))

    def _hang_up(self) -> None:
        """Listens no more; open connections end."""
        if self._accepting is not None:
            self._accepting.cancel()
            self._accepting = None
        for writer in self._writers:
            writer.transport.abort()

    async def close(self) -> None:
        self._hang_up()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine, name=f"fake upstream {self.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _accept(self, sock: socket.socket) -> None:
        with sock:
            while True:
                accepted, _ = await asyncio.get_running_loop().sock_accept(sock)
                self._spawn(self._serve(accepted))

    # -- one connection

    async def _serve(self, sock: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=sock)
        self._writers.add(writer)
        connection = h11.Connection(h11.SERVER)
        try:
            while (seen := await _read_request(reader, connection)) is not None:
                self._saw(seen)
                await self._answer(seen, writer, connection)
                if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                    return
                connection.start_next_cycle()
        except (OSError, h11.RemoteProtocolError):
            return  # the gateway has left, or what it sent is no request: its own affair
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, seen: Seen, writer: asyncio.StreamWriter, connection: h11.Connection) -> None:
        plan = self._next_plan()
        if plan.fault == "hang":
            await asyncio.get_running_loop().create_future()
        elif plan.fault == "reset":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
            raise ConnectionResetError
        elif plan.fault == "delay":
            await asyncio.sleep(plan.seconds)
        made = plan.handler(seen)
        answer = await made if inspect.isawaitable(made) else made
        body = answer.body
        head = _head_of(answer, least=2 if plan.fault == "truncate" else 0)
        data = connection.send(head) or b""
        if plan.fault == "truncate":
            writer.write(data + body[: len(body) // 2])
            raise ConnectionAbortedError
        if seen.method != "HEAD" and body:
            data += connection.send(h11.Data(data=body)) or b""
        writer.write(data + (connection.send(h11.EndOfMessage()) or b""))
        await writer.drain()


def _head_of(answer: Answer, least: int) -> h11.Response:
    """least: of the length that it announces."""
    fields = [(name.encode(), value.encode("latin-1")) for name, value in answer.headers.fields]
    if answer.status not in (204, 304) and "content-length" not in answer.headers:
        fields.append((b"content-length", b"%d" % max(least, len(answer.body))))
    return h11.Response(status_code=answer.status, headers=fields)


async def _read_request(reader: asyncio.StreamReader, connection: h11.Connection) -> Seen | None:
    """The next one, whole; None: the gateway has closed the connection."""
    seen: Seen | None = None
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(_READ))
        elif isinstance(event, h11.Request):
            fields = Fields(
                (name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers
            )
            seen = Seen(event.method.decode(), event.target.decode("latin-1"), fields)
        elif isinstance(event, h11.Data) and seen is not None:
            seen.body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return seen
        elif isinstance(event, h11.ConnectionClosed):
            return None
