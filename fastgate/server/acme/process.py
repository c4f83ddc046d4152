"""The process of the engine: beside the supervisor, which forks and so can have no threads, and the workers.

Messages either way are msgpack: (number, method, arguments). A method has one answer, (number, "", problem or
""), but "views" and "log_level", whose answer's arguments are the views. What comes from the supervisor may
carry a pickled plan, since it is trusted; nothing is unpickled that goes to it.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

import msgspec

from fastgate.server import carrying
from fastgate.server.acme.board import Challenge
from fastgate.server.acme.engine import Engine
from fastgate.server.channel import Channel
from fastgate.server.identity import Identity
from fastgate.server.log_level import log_from
from fastgate.server.worker_process import leave_supervisor

__all__ = ["EngineOrder", "work"]


@dataclass(frozen=True, slots=True)
class EngineOrder:
    """What it begins with. identity: whom it becomes; the storage is that one's."""

    channel: socket.socket
    identity: Identity | None


def work(order: EngineOrder) -> NoReturn:
    """In a process that was just forked, with all signals blocked. Ends it."""
    code = 70
    try:
        gc.freeze()
        leave_supervisor({order.channel.fileno()}, order.identity)
        for each in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(each, signal.SIG_IGN)  # a terminal sends them to everyone
        asyncio.run(_Process(order).run())
        code = 0
    except BaseException:  # noqa: BLE001  # nothing may unwind into the supervisor's frames
        traceback.print_exc(file=sys.stderr)
    finally:
        with suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(code)


class _Process:
    """Is the board and the sink of its engine: both are the supervisor's business."""

    def __init__(self, order: EngineOrder) -> None:
        self._order = order
        self._engine = Engine(self, self)
        self._numbers = 0
        self._asked: dict[int, asyncio.Future[str]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Until the supervisor closes its end."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._end)
        self._channel = Channel(self._order.channel, self._take, self._end)
        await self._ended.wait()
        await self._engine.close()

    def _end(self) -> None:
        # Nobody answers any more. Who waited for it would keep the storage's lock from the next one.
        self._ended.set()
        for answer in self._asked.values():
            if not answer.done():
                answer.set_result("")

    # -- what the engine wants

    async def put(self, challenge: Challenge) -> None:
        await self._ask("put", challenge)

    async def remove(self, challenge: Challenge) -> None:
        await self._ask("remove", challenge)

    async def set(self, domain: str, chain_pem: bytes, key_pem: bytes) -> None:
        await self._ask("set", domain, chain_pem, key_pem)

    async def unset(self, domain: str) -> None:
        await self._ask("unset", domain)

    async def _ask(self, method: str, *arguments: object) -> None:
        if self._ended.is_set():
            return
        self._numbers += 1
        answer = self._asked[self._numbers] = asyncio.get_running_loop().create_future()
        self._channel.send(msgspec.msgpack.encode((self._numbers, method, arguments)))
        if problem := await answer:
            raise ValueError(problem)

    # -- what the supervisor wants

    def _take(self, body: bytes, descriptors: list[int]) -> None:
        number, method, argument = msgspec.msgpack.decode(body, type=tuple[int, str, Any])
        if not method:
            answer = self._asked.pop(number, None)
            if answer is not None and not answer.done():
                answer.set_result(argument)
        elif method == "follow":
            task = asyncio.get_running_loop().create_task(self._engine.follow(carrying.loads(argument)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif method == "log_level":
            log_from(argument)
        else:
            self._channel.send(msgspec.msgpack.encode((number, "", self._engine.views())))
