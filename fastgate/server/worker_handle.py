"""One worker, as its supervisor sees it."""

from __future__ import annotations

import asyncio
import enum
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import msgspec

from fastgate.server import carrying
from fastgate.server.channel import Channel
from fastgate.server.operations import ReloadError, UnknownName

__all__ = ["State", "WorkerGone", "WorkerHandle"]

T = TypeVar("T")
_ERRORS: Final[dict[str, Callable[[str], Exception]]] = {
    "unknown-name": UnknownName,
    "refused": ReloadError,
    "value": ValueError,
    "defect": lambda text: ReloadError(f"a defect: {text}"),
}


class WorkerGone(Exception):
    """It ended before it answered."""


class State(enum.Enum):
    """What a worker is doing.

    STARTING -> READY -> LEAVING -> GONE; READY <-> HUNG while its loop stands still. GONE from any of them.
    """

    STARTING = "starting"
    READY = "ready"
    HUNG = "hung"
    LEAVING = "leaving"
    GONE = "gone"


class WorkerHandle:
    """seat: which of the workers it is, from 1; another may sit there with it for a while. place: where it
    writes in shared memory, its alone. version: of the configuration that it was forked from, until its owner
    sets another. ready: called with it when it says so."""

    def __init__(
        self,
        seat: int,
        place: int,
        pid: int,
        sock: socket.socket,
        version: int,
        ready: Callable[[WorkerHandle], None],
    ) -> None:
        self.seat = seat
        self.place = place
        self.pid = pid
        self.version = version
        self.state = State.STARTING
        self.born = time.monotonic()
        self.failure = ""  # why it did not start
        self.report: dict[str, int] | None = None  # of its drain
        self.killed_at = 0.0  # when SIGABRT was sent; 0: it was not
        self.gone = asyncio.Event()
        self._ready = ready
        self._numbers = 0
        self._asked: dict[int, asyncio.Future[bytes]] = {}
        self._channel = Channel(sock, self._take, self._lost)

    def __str__(self) -> str:
        return f"worker {self.seat} (pid {self.pid})"

    async def ask(self, result: type[T], method: str, *args: object, descriptors: Sequence[int] = ()) -> T:
        """What its method answers. Raises WorkerGone, UnknownName, ReloadError, ValueError."""
        if self.state is State.GONE:
            raise WorkerGone(f"{self} is gone")
        self._numbers += 1
        answer = self._asked[self._numbers] = asyncio.get_running_loop().create_future()
        self._channel.send(carrying.dumps((self._numbers, method, carrying.dumps(args))), descriptors)
        try:
            return msgspec.msgpack.decode(await answer, type=result)
        except msgspec.MsgspecError as error:
            raise ReloadError(f"{self} answered something strange: {error}") from None

    def post(self, method: str, *args: object, descriptors: Sequence[int] = ()) -> None:
        """Asks for what has no answer that matters."""
        self._channel.send(carrying.dumps((0, method, carrying.dumps(args))), descriptors)

    def signal(self, number: int) -> None:
        if self.state is not State.GONE:
            os.kill(self.pid, number)

    def abort(self) -> None:
        """For one that hangs: a traceback on stderr, and the end."""
        self.killed_at = time.monotonic()
        self.signal(signal.SIGABRT)

    def end(self) -> None:
        """The process has ended and was waited for."""
        self.state = State.GONE
        self._channel.close()
        self._lost()
        self.gone.set()

    def _take(self, body: bytes, descriptors: list[int]) -> None:
        for each in descriptors:
            os.close(each)
        try:
            number, kind, value = msgspec.msgpack.decode(body, type=tuple[int, str, msgspec.Raw])
            if number:
                self._answered(number, kind, value)
            elif kind == "ready":
                if self.state is State.STARTING:
                    self.state = State.READY
                self._ready(self)
            elif kind == "failed":
                self.failure = msgspec.msgpack.decode(value, type=str)
            elif kind == "stopped":
                self.report = msgspec.msgpack.decode(value, type=dict[str, int])
        except msgspec.MsgspecError:
            self.signal(signal.SIGKILL)  # nobody we know speaks like that

    def _answered(self, number: int, kind: str, value: msgspec.Raw) -> None:
        answer = self._asked.pop(number, None)
        if answer is None or answer.done():
            return
        if kind:
            error = _ERRORS.get(kind, ReloadError)
            answer.set_exception(error(msgspec.msgpack.decode(value, type=str)))
        else:
            answer.set_result(bytes(value))

    def _lost(self) -> None:
        asked, self._asked = self._asked, {}
        for answer in asked.values():
            if not answer.done():
                answer.set_exception(WorkerGone(f"{self} has ended"))
