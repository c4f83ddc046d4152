"""A pipelined connection to Redis: commands of one turn of the loop leave in one write, each reply calls
back.

No future, task or timer per command: what is late is found by one timer per connection.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

import hiredis

log: Final = logging.getLogger("fastgate.limits")

MAX_IN_FLIGHT: Final = 4096
MAX_REPLY: Final = 1 << 20  # bytes of replies that are not whole yet
# Commands in a row without an answer in time, behind which the connection is given up.
MAX_LATE: Final = 3
CONNECT_SECONDS: Final = 2.0
BACKOFF: Final = (0.02, 1.0)  # seconds before a next try: the first, the longest

Callback = Callable[[Any], None]
Opener = Callable[[Callable[[], asyncio.Protocol]], Awaitable[Any]]


class Late(Exception):
    """There was no answer in time."""


class Gone(Exception):
    """The connection ended before the answer."""


def command(*words: str | bytes | int) -> bytes:
    """The words as RESP."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        raw = word if isinstance(word, bytes) else str(word).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(raw), raw))
    return b"".join(parts)


class RespConnection(asyncio.Protocol):
    """Connects, and connects again by itself. ``ready`` tells whether it is worth asking.

    open: makes the transport. greeting: commands that each new connection begins with; if one fails, it is
    none. timeout: seconds that an answer may take; a late one is called back with Late, one that never comes
    with Gone.
    """

    def __init__(self, name: str, open: Opener, greeting: list[bytes], timeout: float) -> None:
        self.name = name
        self.ready = False
        self._open = open
        self._greeting = greeting
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader = hiredis.Reader()
        self._unread = 0
        self._out: list[bytes] = []
        self._flushing = False
        self._waiting: deque[tuple[float, Callback | None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._late = 0
        self._lost = asyncio.Event()
        self._task = self._loop.create_task(self._keep(), name=f"redis {name}")

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
            await self._lost.wait()

    # -- commands

    def send(self, what: bytes, callback: Callback) -> bool:
        """False: not now. Else ``callback`` is called once, with the reply (hiredis.ReplyError is one),
        Late or Gone."""
        if not self.ready or len(self._waiting) >= MAX_IN_FLIGHT:
            return False
        self._put(what, callback)
        return True

    def _put(self, what: bytes, callback: Callback) -> None:
        self._out.append(what)
        self._waiting.append((self._loop.time(), callback))
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        out, self._out = self._out, []
        if self._transport is not None and out:
            self._transport.write(b"".join(out))
            if self._timer is None:
                self._timer = self._loop.call_later(self._timeout, self._look)

    def _look(self) -> None:
        """Calls back what has waited for too long; its place is kept, since the reply may come yet."""
        self._timer = None
        now = self._loop.time()
        late = []
        for at, (since, callback) in enumerate(self._waiting):
            if now - since < self._timeout * 0.99:
                break
            if callback is not None:
                self._waiting[at] = (since, None)
                late.append(callback)
        self._late += len(late)
        for callback in late:
            callback(Late())  # it may ask again at once
        if self._late >= MAX_LATE and self._transport is not None:
            log.warning("redis %s does not answer within %g s", self.name, self._timeout)
            self._transport.abort()
        elif self._waiting:
            self._timer = self._loop.call_later(self._timeout, self._look)

    # -- the protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._reader = hiredis.Reader()
        self._late = self._unread = 0
        self._lost.clear()

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        self._unread += len(data)
        try:
            while (reply := self._reader.gets()) is not False:
                self._unread = 0
                if not self._waiting:
                    raise hiredis.ProtocolError("a reply that nobody has asked for")
                _, callback = self._waiting.popleft()
                if callback is not None:
                    self._late = 0
                    callback(reply)
        except hiredis.ProtocolError as error:
            self._give_up(str(error))
        if self._unread > MAX_REPLY:
            self._give_up("a reply without an end")

    def _give_up(self, why: str) -> None:
        log.error("redis %s: %s", self.name, why)
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self.ready = False
        self._out.clear()
        waiting, self._waiting = self._waiting, deque()
        for _, callback in waiting:
            if callback is not None:
                callback(Gone())
        self._lost.set()

    # -- connecting

    async def _keep(self) -> None:
        pause, told = BACKOFF[0], False
        while True:
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    await self._open(lambda: self)
                    await self._greet()
            except (OSError, TimeoutError, hiredis.ReplyError, Gone, Late) as error:
                if self._transport is not None:
                    self._transport.abort()
                    await self._lost.wait()
                if not told:
                    log.warning("redis %s can't be used: %s", self.name, error or type(error).__name__)
                told = True
                # With jitter: many gateways lose one Redis at one time.
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))
                pause = min(pause * 2, BACKOFF[1])
                continue
            if told:
                log.warning("redis %s can be used again", self.name)
            self.ready, pause, told = True, BACKOFF[0], False
            await self._lost.wait()

    async def _greet(self) -> None:
        # A server that takes connections but answers nothing is not there.
        for what in (*self._greeting, command("PING")):
            answered: asyncio.Future[Any] = self._loop.create_future()

            def told(reply: Any, answered: asyncio.Future[Any] = answered) -> None:
                if not answered.done():
                    answered.set_result(reply)

            self._put(what, told)
            reply = await answered
            if isinstance(reply, Exception):
                raise reply
