"""The engine's process, as the supervisor sees it: forked when it is needed, and again when it dies."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import msgspec

from fastgate.server import carrying
from fastgate.server.acme.answers import Answers
from fastgate.server.acme.board import Challenge
from fastgate.server.acme.plan import Wanted
from fastgate.server.acme.views import AcmeView
from fastgate.server.channel import Channel, channel_pair
from fastgate.server.identity import Identity
from fastgate.server.worker_handle import State, WorkerHandle

__all__ = ["EngineHandle"]

VIEW_SECONDS: Final = 2.0
WORKER_SECONDS: Final = 2.0  # that a challenge waits for workers: one that hangs answers nobody anyway
FIRST_DELAY: Final = 1.0  # before it is forked anew; twice as long each time
MOST_DELAY: Final = 60.0
SILENT: Final = "its process does not answer"


class EngineHandle:
    """answers: of the supervisor, from which workers are forked. workers: those that run. tell: takes lines
    for the operator. Every method is called in the supervisor's loop."""

    def __init__(
        self, answers: Answers, workers: Callable[[], list[WorkerHandle]], tell: Callable[[str], None]
    ) -> None:
        self._answers, self._workers, self._tell = answers, workers, tell
        self._identity: Identity | None = None
        self._plan: Mapping[str, Wanted] = {}
        self._channel: Channel | None = None
        self._pid = 0
        self._deaths = 0
        self._numbers = 0
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._views: list[AcmeView] = []  # as they were told last
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = False

    def follow(self, plan: Mapping[str, Wanted], identity: Identity | None) -> None:
        """What is wanted from now on. The process is forked for the first plan that wants anything."""
        self._plan, self._identity = plan, identity
        if self._channel is not None:
            self._send("follow", carrying.dumps(dict(plan)))
        elif plan and not self._tasks:
            self._fork()

    def set_log_level(self, level: str) -> None:
        if self._channel is not None:
            self._send("log_level", level)

    async def views(self) -> list[AcmeView]:
        """Of all. While the process does not answer, what it said last, and that it does not."""
        if self._channel is not None:
            number = self._numbers + 1
            answer = self._asked[number] = asyncio.get_running_loop().create_future()
            self._send("views", None)
            try:
                await asyncio.wait([answer], timeout=VIEW_SECONDS)
                if answer.done() and not answer.cancelled():
                    self._views = msgspec.convert(answer.result(), list[AcmeView])
                    return self._views
            except msgspec.ValidationError:
                pass  # told as silence
            finally:
                self._asked.pop(number, None)
        return [_silent(view) for view in self._views if view.name in self._plan]

    async def close(self) -> None:
        """Ends the process, which leaves nothing undone: what it was about is begun anew by the next."""
        self._ended = True
        for task in tuple(self._tasks):
            task.cancel()
        if self._channel is not None:
            self._channel.close()
            self._channel = None
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGTERM)

    def _fork(self) -> None:
        from fastgate.server.acme.process import EngineOrder, work  # takes the library along

        ours, theirs = channel_pair()
        gc.collect()
        sys.stdout.flush()
        sys.stderr.flush()
        # Between the fork and its own handlers no signal may be answered by ours.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._pid = os.fork()
            if self._pid == 0:
                work(EngineOrder(theirs, self._identity))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self._channel = Channel(ours, self._take, self._lost)
        self._send("follow", carrying.dumps(dict(self._plan)))

    def _lost(self) -> None:
        self._channel = None
        asked, self._asked = self._asked, {}
        for answer in asked.values():
            answer.cancel()
        self._deaths += 1
        if self._ended or not self._plan:
            return
        delay = min(FIRST_DELAY * 2.0 ** min(self._deaths - 1, 10), MOST_DELAY)
        self._tell(f"fastgate: the process of ACME (pid {self._pid}) has ended; another in {delay:.0f} s")
        self._spawn(self._again(delay))

    async def _again(self, delay: float) -> None:
        await asyncio.sleep(delay)
        self._fork()

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _send(self, method: str, argument: object) -> None:
        assert self._channel is not None
        self._numbers += 1
        self._channel.send(msgspec.msgpack.encode((self._numbers, method, argument)))

    # -- what the process wants

    def _take(self, body: bytes, descriptors: list[int]) -> None:
        for each in descriptors:
            os.close(each)
        try:
            number, method, arguments = msgspec.msgpack.decode(body, type=tuple[int, str, Any])
            if not method:
                answer = self._asked.pop(number, None)
                if answer is not None and not answer.done():
                    answer.set_result(arguments)
                return
            if method in ("put", "remove"):
                (challenge,) = msgspec.convert(arguments, tuple[Challenge])
                self._spawn(self._pass_on(number, f"acme_{method}", challenge))
            elif method == "set":
                self._spawn(
                    self._pass_on(number, "acme_show", *msgspec.convert(arguments, tuple[str, bytes, bytes]))
                )
            elif method == "unset":
                self._spawn(self._pass_on(number, "acme_hide", *msgspec.convert(arguments, tuple[str])))
        except msgspec.MsgspecError:
            os.kill(self._pid, signal.SIGKILL)  # nobody we know speaks like that

    async def _pass_on(self, number: int, method: str, *arguments: Any) -> None:
        """To our own answers, which later workers inherit, and to all workers; then it is answered."""
        problem = ""
        try:
            getattr(self._answers, method.removeprefix("acme_"))(*arguments)
        except ValueError as error:
            problem = str(error)
        else:
            asked = []
            for worker in self._workers():
                if worker.state is State.READY:
                    asked.append(asyncio.ensure_future(worker.ask(type(None), method, *arguments)))
                else:
                    worker.post(method, *arguments)
            if asked:
                _, late = await asyncio.wait(asked, timeout=WORKER_SECONDS)
                for each in late:
                    each.cancel()
                for each in set(asked) - late:
                    each.exception()  # a worker that is gone, or a defect that it has told itself
        if self._channel is not None:
            self._channel.send(msgspec.msgpack.encode((number, "", problem)))


def _silent(view: AcmeView) -> AcmeView:
    replace = msgspec.structs.replace
    certificates = tuple(replace(each, problem=each.problem or SILENT) for each in view.certificates)
    return replace(view, problem=SILENT, certificates=certificates)
