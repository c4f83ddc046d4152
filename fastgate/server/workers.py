"""The workers of a supervisor: forked, watched, replaced.

Each of the N workers has a seat. Who dies is replaced at once, and later and later if it dies again and
again. A worker whose loop stands still gets a substitute in its seat within a second, which takes the new
connections: both accept from the same sockets. If it comes to, the substitute leaves, and no client has
noticed more than a pause; if not, it is killed.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import NoneType
from typing import Final

from fastgate.server.channel import channel_pair
from fastgate.server.heartbeat import Heartbeats
from fastgate.server.sockets import OpenError
from fastgate.server.worker_handle import State, WorkerHandle
from fastgate.server.worker_process import DrainOrder, WorkerOrder, work

__all__ = ["Workers"]

LOOK_SECONDS: Final = 0.1
STILL_SECONDS: Final = 0.8  # without a beat: the loop stands still
START_SECONDS: Final = 60.0  # who is not ready by then is killed
LAST_WORDS_SECONDS: Final = 1.0  # between SIGABRT and SIGKILL
STEADY_SECONDS: Final = 10.0  # who lived so long did not crash at its start
MOST_DELAY: Final = 5.0  # seconds between two starts in one seat
GRACE_SECONDS: Final = 5.0  # in which a connection of one that leaves may bring its last request


class Workers:
    """order: what a worker begins with, given its seat, its place of the shared memory, and its end of the
    channel. lend: gives a worker the sockets of an empty seat, or takes them back. version: of the
    configuration in force. hang_seconds: after which one that stands still is killed. tell: takes lines for
    the operator."""

    def __init__(
        self,
        count: int,
        beats: Heartbeats,
        order: Callable[[int, int, socket.socket], WorkerOrder],
        lend: Callable[[WorkerHandle, int, bool], None],
        version: Callable[[], int],
        hang_seconds: Callable[[], float],
        tell: Callable[[str], None],
    ) -> None:
        self.restarts = 0  # of workers that were not told to end
        self._count = count
        self._beats = beats
        self._order = order
        self._lend = lend
        self._borrowers: dict[int, WorkerHandle] = {}  # by the seat that is empty
        self._version = version
        self._hang_seconds = hang_seconds
        self._tell = tell
        self._handles: list[WorkerHandle] = []
        self._crashes = dict.fromkeys(range(1, count + 1), 0)  # in a row, by seat
        self._changed = asyncio.Event()
        self._keeping = False  # they are watched and replaced
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def all(self) -> list[WorkerHandle]:
        """Those that run, by seat."""
        return sorted(self._handles, key=lambda handle: handle.seat)

    @property
    def ready(self) -> list[WorkerHandle]:
        return [handle for handle in self.all if handle.state is State.READY]

    async def start(self) -> None:
        """Returns when all serve. Raises OpenError; then none is left."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)
        for seat in range(1, self._count + 1):
            self._fork(seat)
        try:
            await self._wait_ready(tuple(self._handles))
        except BaseException:
            await self.kill()
            raise
        self._keeping = True
        self._spawn(self._watch())

    async def _wait_ready(self, handles: tuple[WorkerHandle, ...]) -> None:
        async with asyncio.timeout(2 * START_SECONDS):
            while not all(handle.state is State.READY for handle in handles):
                for handle in handles:
                    if handle.state is State.GONE:
                        raise OpenError(handle.failure or f"{handle} ended before it was ready")
                self._changed.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._changed.wait()
                for handle in handles:
                    self._look_at_start(handle)

    async def drain(self, order: DrainOrder, patience: float) -> list[dict[str, int]]:
        """Ends all; who has not ended after ``patience`` seconds is killed. Returns their reports."""
        self._keeping = False
        handles = tuple(self._handles)
        told = [handle for handle in handles if handle.state is not State.LEAVING]
        for handle in told:
            handle.state = State.LEAVING
        try:
            async with asyncio.timeout(patience):
                await asyncio.gather(
                    *(handle.ask(NoneType, "drain", order) for handle in told), return_exceptions=True
                )
                self._tell("fastgate: draining")
                await asyncio.gather(*(handle.gone.wait() for handle in handles))
        except TimeoutError:
            await self.kill()
        for task in self._tasks:
            task.cancel()
        return [handle.report for handle in handles if handle.report is not None]

    async def kill(self) -> None:
        self._keeping = False
        self.kill_now()
        await asyncio.gather(*(handle.gone.wait() for handle in self._handles))

    def kill_now(self) -> None:
        for handle in self._handles:
            handle.signal(signal.SIGKILL)

    def replace_stale(self) -> None:
        """Those that were forked while a reload was under way."""
        for handle in self.ready:
            if handle.version != self._version():
                self._supersede(handle)

    def _supersede(self, handle: WorkerHandle) -> None:
        self._fork(handle.seat)
        self._dismiss(handle)

    # -- one more, one less

    def _fork(self, seat: int) -> None:
        ours, theirs = channel_pair()
        place = min(set(range(2 * self._count + 1)) - {handle.place for handle in self._handles})
        order = self._order(seat, place, theirs)
        self._beats.beat(place)
        gc.collect()
        sys.stdout.flush()
        sys.stderr.flush()
        # Between the fork and the worker's own handlers no signal may be answered by ours.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = os.fork()
            if pid == 0:
                work(order)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self._handles.append(WorkerHandle(seat, place, pid, ours, order.version, self._on_ready))

    def _on_ready(self, handle: WorkerHandle) -> None:
        self._changed.set()
        if not self._keeping:
            return
        self._tell(f"fastgate: {handle} is ready")
        if (borrower := self._borrowers.pop(handle.seat, None)) is not None:
            self._lend(borrower, handle.seat, False)
        if handle.version != self._version():
            self._supersede(handle)

    def _dismiss(self, handle: WorkerHandle) -> None:
        handle.state = State.LEAVING
        handle.post("drain", DrainOrder(grace=GRACE_SECONDS))

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            # As the first process of a container we are given the children of others, too.
            for handle in self._handles:
                if handle.pid == pid:
                    self._ended(handle, os.waitstatus_to_exitcode(status))
                    break

    def _ended(self, handle: WorkerHandle, code: int) -> None:
        state = handle.state
        handle.end()
        self._handles.remove(handle)
        self._changed.set()
        if state is State.LEAVING and code == 0:
            return
        if code == 0:
            self._tell(f"fastgate: {handle} was told to end, by SIGTERM")
        elif not handle.failure:
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            self._tell(f"fastgate: {handle} {how}")
        elif self._keeping:
            self._tell(f"fastgate: {handle} can't start: {handle.failure}")
        if not self._keeping or state is State.LEAVING:
            return
        self.restarts += 1
        if any(other.seat == handle.seat and other.state is not State.LEAVING for other in self._handles):
            return  # its substitute sits there already
        steady = state is not State.STARTING and time.monotonic() - handle.born > STEADY_SECONDS
        self._crashes[handle.seat] = 0 if steady else self._crashes[handle.seat] + 1
        self._spawn(self._refill(handle.seat))

    async def _refill(self, seat: int) -> None:
        crashes = self._crashes[seat]
        if crashes > 1:
            delay = min(MOST_DELAY, 0.05 * 2**crashes)
            self._tell(f"fastgate: worker {seat} is started again in {delay:g} s")
            self._serve_for(seat)
            await asyncio.sleep(delay)
        if self._keeping:
            self._fork(seat)

    def _serve_for(self, seat: int) -> None:
        """Nobody waits for a seat that is empty: another worker takes its connections too."""
        others = [handle for handle in self.ready if handle.seat != seat]
        if others and self._borrowers.get(seat) not in others:
            self._borrowers[seat] = others[0]
            self._lend(others[0], seat, True)

    # -- those that stand still

    async def _watch(self) -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            # If we did not run ourselves, they may not have either: their beats are awaited first.
            late = time.monotonic() - last > 2 * LOOK_SECONDS + 0.1
            last = time.monotonic()
            for handle in () if late else tuple(self._handles):
                if not self._look_at_start(handle):
                    self._look_at(handle, self._beats.age(handle.place))

    def _look_at_start(self, handle: WorkerHandle) -> bool:
        """Whether it is still starting, or being killed."""
        now = time.monotonic()
        if handle.killed_at and now - handle.killed_at > LAST_WORDS_SECONDS:
            handle.signal(signal.SIGKILL)
        elif handle.state is State.STARTING and now - handle.born > START_SECONDS and not handle.killed_at:
            self._tell(f"fastgate: {handle} was not ready within {START_SECONDS:g} s")
            handle.abort()
        return handle.state is State.STARTING or bool(handle.killed_at)

    def _look_at(self, handle: WorkerHandle, still: float) -> None:
        if still > max(STILL_SECONDS, self._hang_seconds()):
            self._tell(f"fastgate: {handle} has not answered for {still:.1f} s: it is killed")
            handle.abort()
        elif handle.state is State.READY and still > STILL_SECONDS:
            handle.state = State.HUNG
            if len(self._handles) <= 2 * self._count:
                self._tell(f"fastgate: {handle} does not answer: a substitute is started")
                self._fork(handle.seat)
        elif handle.state is State.HUNG and still < STILL_SECONDS:
            self._came_to(handle)

    def _came_to(self, handle: WorkerHandle) -> None:
        self._tell(f"fastgate: {handle} answers again")
        if handle.version != self._version():
            self._dismiss(handle)
            return
        handle.state = State.READY
        for other in tuple(self._handles):
            if other is not handle and other.seat == handle.seat and other.state is not State.LEAVING:
                self._dismiss(other)

    def _spawn(self, coroutine: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
