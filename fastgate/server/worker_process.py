"""A worker: a forked process that serves, and does what its supervisor asks.

What comes down the channel is pickled (the supervisor is trusted); what goes up is msgpack, decoded as the
type that is expected. Each request has a number, and one answer: (number, "" or the kind of error, value).
Number 0 is what the worker says of itself: "ready", "failed" (a text), "stopped" (the drain's report).
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import os
import signal
import socket
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import msgspec

from fastgate.config import Config, model
from fastgate.config.units import BadValue
from fastgate.server import carrying
from fastgate.server.channel import Channel
from fastgate.server.common import Common, CounterPlaces
from fastgate.server.gateway import Gateway, Prepared
from fastgate.server.heartbeat import EVERY, Heartbeats
from fastgate.server.identity import Identity
from fastgate.server.listeners import Key, listener_key
from fastgate.server.operations import ReloadError, UnknownName
from fastgate.server.plugins import PluginError
from fastgate.server.sockets import Listening, OpenError

__all__ = ["DrainOrder", "SocketSet", "WorkerOrder", "leave_supervisor", "work"]

# Of each listener, by its key.
SocketSet = dict[Key, list[socket.socket]]
_SIGNALS: Final = (
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD,
    signal.SIGPIPE,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class WorkerOrder:
    """What a worker begins with; all of it exists before the fork."""

    place: int
    config: Config
    version: int
    common: Common
    places: CounterPlaces
    sockets: SocketSet
    channel: socket.socket
    beats: Heartbeats
    identity: Identity | None


@dataclass(frozen=True, slots=True)
class DrainOrder:
    """See Gateway.drain."""

    timeout: float | None = None
    grace: float = 0


def work(order: WorkerOrder) -> NoReturn:
    """In a process that was just forked, with all signals blocked. Ends it."""
    code = 70
    try:
        gc.freeze()  # what belongs to the supervisor is never looked at, and never finalized
        keep = {sock.fileno() for sockets in order.sockets.values() for sock in sockets}
        leave_supervisor(keep | {order.channel.fileno()}, order.identity)
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            code = runner.run(_Worker(order).run())
    except BaseException:  # noqa: BLE001  # nothing may unwind into the supervisor's frames
        traceback.print_exc(file=sys.stderr)
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        if (pools := sys.modules.get("multiprocessing.util")) is not None:
            # Those of plugins. Not all of atexit: what else is registered is the supervisor's.
            pools._exit_function()
        os._exit(code)


def leave_supervisor(keep: set[int], identity: Identity | None) -> None:
    """Nothing of it stays open or is called, but the descriptors that the new process was given. identity:
    whom it becomes."""
    signal.set_wakeup_fd(-1)
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN if each == signal.SIGPIPE else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    asyncio._set_running_loop(None)
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in keep | {0, 1, 2}:
            with suppress(OSError):
                os.close(int(name))
    faulthandler.enable()  # SIGABRT, which ends a worker that hangs, tells where
    if identity is not None:
        identity.take()


class _Worker:
    def __init__(self, order: WorkerOrder) -> None:
        self._order = order
        self._sockets: SocketSet = order.sockets
        self._prepared: Prepared | None = None
        self._stop: asyncio.Future[DrainOrder]
        self._tasks: set[asyncio.Task[None]] = set()
        order.common.take_place(order.place)
        self._gateway = Gateway(order.config, common=order.common)

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        self._stop = loop.create_future()
        self._beat()
        for each in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            # A terminal sends them to everyone; they are the supervisor's.
            signal.signal(each, signal.SIG_IGN)
        loop.add_signal_handler(signal.SIGTERM, self._end, DrainOrder(grace=1))
        # A supervisor that is gone drains nobody: who serves on alone would never be changed again.
        self._channel = Channel(self._order.channel, self._take, lambda: self._end(DrainOrder()))
        try:
            await self._gateway.start(self._opener(), self._order.places)
        except (OpenError, PluginError) as error:
            self._say("failed", str(error))
            await asyncio.sleep(0)
            return 1
        self._say("ready", None)
        order = await self._stop
        if self._prepared is not None:
            await self._abort()
        self._drop_sockets(set())
        report = await self._gateway.drain(order.timeout, grace=order.grace)
        self._say("stopped", report)
        await asyncio.sleep(0)
        return 0

    def _beat(self) -> None:
        self._order.beats.beat(self._order.place)
        asyncio.get_running_loop().call_later(EVERY, self._beat)

    async def _drain(self, order: DrainOrder) -> None:
        """Returns when nothing new is taken any more."""
        self._end(order)
        await self._gateway.draining.wait()

    def _end(self, order: DrainOrder) -> None:
        if not self._stop.done():
            self._stop.set_result(order)

    # -- the channel

    def _say(self, kind: str, value: object) -> None:
        self._channel.send(msgspec.msgpack.encode((0, kind, value)))

    def _take(self, body: bytes, descriptors: list[int]) -> None:
        task = asyncio.get_running_loop().create_task(self._answer(body, descriptors))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, body: bytes, descriptors: list[int]) -> None:
        sockets = [socket.socket(fileno=each) for each in descriptors]
        number, method, packed = carrying.loads(body)
        kind, value = "", None
        try:
            args = carrying.loads(packed)
            if method == "prepare":
                await self._prepare(*args, sockets=sockets)
            elif method == "borrow":
                seat, keys = args
                await self._gateway.borrow(seat, list(zip(keys, sockets, strict=True)))
            else:
                value = self._methods()[method](*args)
                if isinstance(value, Awaitable):
                    value = await value
        except UnknownName as error:
            kind, value = "unknown-name", str(error)
        except (ReloadError, OpenError, BadValue) as error:
            kind, value = "refused", str(error)
        except ValueError as error:
            kind, value = "value", str(error)
        except Exception as error:  # noqa: BLE001  # a defect of ours: told, and the supervisor learns of it
            traceback.print_exc(file=sys.stderr)
            kind, value = "defect", repr(error)
        if number:
            self._channel.send(msgspec.msgpack.encode((number, kind, value)))

    def _methods(self) -> Mapping[str, Callable[..., Any]]:
        gateway, answers = self._gateway, self._order.common.answers
        return {
            "commit": self._commit,
            "abort": self._abort,
            "give_back": gateway.give_back,
            "held": lambda: gateway.counters.held,
            "drain": self._drain,
            "reopen_log": gateway.reopen_log,
            "upstreams": gateway.upstreams,
            "set_endpoint": gateway.set_endpoint,
            "split": gateway.split,
            "set_split": gateway.set_split,
            "clear_split": gateway.clear_split,
            "plugin_counts": gateway.plugin_counts,
            "find_traces": gateway.find_traces,
            "failures": gateway.failures,
            "set_log_level": gateway.set_log_level,
            "take_tickets": self._order.common.ticket_keys.take,
            "acme_put": answers.put,
            "acme_remove": answers.remove,
            "acme_show": answers.show,
            "acme_hide": answers.hide,
        }

    # -- the configuration

    def _opener(self) -> Callable[[model.Listener], Listening]:
        sockets = self._sockets
        # Copies: the supervisor's own live as long as the listener is configured.
        return lambda listener: Listening(
            listener, [each.dup() for each in sockets[listener_key(listener)]], owner=False
        )

    async def _prepare(
        self,
        packed: bytes,
        places: CounterPlaces,
        keys: list[Key],
        *,
        sockets: list[socket.socket],
    ) -> None:
        """packed: the configuration. keys: of the listener that each socket belongs to."""
        fresh: SocketSet = {}
        for key, sock in zip(keys, sockets, strict=True):
            fresh.setdefault(key, []).append(sock)
        self._sockets = {**self._sockets, **fresh}
        self._prepared = await self._gateway.prepare_or_tell(carrying.loads(packed), self._opener(), places)

    async def _commit(self) -> None:
        assert self._prepared is not None
        prepared, self._prepared = self._prepared, None
        await self._gateway.commit(prepared)
        self._drop_sockets(self._present())

    async def _abort(self) -> None:
        prepared, self._prepared = self._prepared, None
        if prepared is not None:
            await self._gateway.abort(prepared)
        self._drop_sockets(self._present())

    def _present(self) -> set[Key]:
        return {listener_key(each) for each in self._gateway.config.listeners}

    def _drop_sockets(self, needed: set[Key]) -> None:
        """All but those: a socket that anybody has open takes connections."""
        for key in set(self._sockets) - needed:
            for sock in self._sockets.pop(key):
                sock.close()
