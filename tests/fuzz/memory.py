"""An event loop and transports that are lists: what the core needs of them, and nothing that waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any


class Handle:
    def cancel(self) -> None:
        """Nothing runs by itself here."""


class Task:
    """A coroutine that has not begun. One that is cancelled before it has, never does (as in asyncio)."""

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self.coroutine = coroutine
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True
        self.coroutine.close()


class Loop:
    """Tasks and callbacks run when `run` is called. `connect` makes a new upstream connection: transport and
    protocol."""

    def __init__(self, connect: Callable[[Callable[[], Any], int], tuple[Transport, Any]]) -> None:
        self.connect = connect
        self.tasks: list[Task] = []
        self.soon: list[tuple[Callable[..., None], tuple[Any, ...]]] = []

    def call_later(self, _delay: float, _callback: Callable[[], None]) -> Handle:
        return Handle()

    def call_soon(
        self, callback: Callable[..., None], *arguments: Any, context: Context | None = None
    ) -> Handle:
        self.soon.append((callback, arguments))
        return Handle()

    def create_future(self) -> asyncio.Future[Any]:
        """Of the loop in which the test itself runs, if it does."""
        try:
            return asyncio.get_running_loop().create_future()
        except RuntimeError:
            return asyncio.Future(loop=self)  # type: ignore[arg-type]

    def get_debug(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        raise AssertionError(context)

    def create_task(self, coroutine: Coroutine[Any, Any, None]) -> Task:
        self.tasks.append(Task(coroutine))
        return self.tasks[-1]

    async def create_connection(self, factory: Callable[[], Any], _host: str, port: int) -> tuple[Any, Any]:
        return self.connect(factory, port)

    def run(self) -> bool:
        """One round; False when there was nothing to do."""
        soon, self.soon = self.soon, []
        tasks, self.tasks = self.tasks, []
        for callback, arguments in soon:
            callback(*arguments)
        for task in tasks:
            if task.cancelled:
                continue
            try:
                task.coroutine.send(None)
            except StopIteration:
                continue
            raise AssertionError("a connect that waits")
        return bool(soon or tasks)


class Transport:
    """One end of a connection. `sent`: what has left it; `queue`: what waits for `drain`, if it is slow."""

    def __init__(self, loop: Loop, protocol: Any, *, high: int = 0) -> None:
        self.loop = loop
        self.protocol = protocol
        self.high = high  # 0: everything is sent at once
        self.sent = bytearray()
        self.queue = bytearray()
        self.congested = False
        self.paused = False
        self.closing = False
        self.finished = False  # FIN was asked for
        self.eof_given = False
        self.lost = False
        self.aborted = False
        self.doomed = False
        protocol.connection_made(self)

    # -- what the core calls

    def get_extra_info(self, name: str) -> object:
        return {"sslcontext": True, "peername": ("192.0.2.1", 4711)}.get(name)

    def set_write_buffer_limits(self, _high: int, _low: int) -> None:
        """The limits here are the scenario's."""

    def get_write_buffer_size(self) -> int:
        return len(self.queue)

    def write(self, data: bytes) -> None:
        assert not self.finished, "bytes behind FIN"
        if self.lost:
            return
        if not self.high:
            self.sent += data
            return
        self.queue += data
        if len(self.queue) > self.high and not self.congested:
            self.congested = True
            self.protocol.pause_writing()

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def write_eof(self) -> None:
        self.finished = True

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            if not self.queue:
                self.loop.call_soon(self.lose)

    def abort(self) -> None:
        if not self.aborted:
            self.aborted = True
            self.closing = True
            self.queue.clear()
            self.loop.call_soon(self.lose)

    # -- what the scenario does

    def lose(self, error: Exception | None = None) -> None:
        if not self.lost:
            self.lost = True
            self.closing = True
            self.protocol.connection_lost(error)

    def doom(self) -> None:
        """It is gone, and the core has not heard of it (`lose`) yet: a write fails."""
        self.closing = self.doomed = True

    @property
    def readable(self) -> bool:
        return not (self.lost or self.closing or self.paused or self.eof_given)

    def give(self, data: bytes) -> None:
        self.protocol.data_received(data)

    def give_eof(self) -> None:
        self.eof_given = True
        if not self.protocol.eof_received():
            self.close()

    def drain(self, size: int) -> None:
        """The peer takes so many bytes."""
        self.sent += self.queue[:size]
        del self.queue[:size]
        if self.congested and len(self.queue) <= self.high // 4:
            self.congested = False
            self.protocol.resume_writing()
        if self.closing and not self.queue and not self.lost:
            self.loop.call_soon(self.lose)

    @property
    def ended_in_order(self) -> bool:
        """Whether the peer has seen FIN behind all that was written."""
        return (self.finished or self.closing) and not self.aborted
