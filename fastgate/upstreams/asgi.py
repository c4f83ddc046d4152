"""Applications in this process as endpoints: ASGI 3.0, http and lifespan (https://asgi.readthedocs.io/en/latest/specs/).

The core begins a call for each request (``App.begin``); what the application says goes back through an
``AsgiSide``, which holds it to the rules for any upstream.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import re
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from fastgate._core import AsgiSide

__all__ = ["App", "AppError", "Application", "load_app"]

Message = MutableMapping[str, Any]
#: Loose, since frameworks type their scope and messages in their own ways.
Application = Callable[[Any, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]

log: Final = logging.getLogger("fastgate.asgi")

STARTUP: Final = 30.0
SHUTDOWN: Final = 10.0
#: After a call was cancelled: what does not end within it is left alone.
PATIENCE: Final = 5.0

_VERSION: Final = {"version": "3.0", "spec_version": "2.4"}
_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")


class AppError(Exception):
    """An application can't be loaded or does not start. ``str()`` says why."""


class ClientGone(OSError):
    """The answer is over, or nobody waits for it any more (ASGI: send() raises OSError then)."""

    def __init__(self) -> None:
        super().__init__("the client is gone")


class AsgiError(RuntimeError):
    """The application said what is no ASGI, or no HTTP."""


def load_app(name: str, folder: Path, given: Mapping[str, Application]) -> Application:
    """name: a key of ``given``, or "module:attribute"; the module is looked for in ``folder`` as well.

    Raises AppError.
    """
    if name in given:
        return given[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise AppError(
            f'no application "{name}" was given to the gateway; one of a module is "asgi:module:name"'
        )
    place = str(folder.resolve())
    if place not in sys.path:
        sys.path.insert(0, place)
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # whatever the module's own code raises is told
        raise AppError(f"{type(error).__name__}: {error}") from error
    if not callable(found):
        raise AppError(f'"{attribute}" of the module {module} is no application: it cannot be called')
    return found  # type: ignore[no-any-return]


class App:
    """An application that is running. name: as ``load_app`` takes it."""

    def __init__(self, name: str, application: Application) -> None:
        self.name = name
        self.application = application
        self.calls: set[asyncio.Task[None]] = set()
        self.state: dict[str, Any] = {}
        self._lifespan: asyncio.Task[None] | None = None
        self._events: asyncio.Queue[Message] = asyncio.Queue()
        self._answer: asyncio.Future[str] | None = None

    # -- its life

    async def start(self) -> None:
        """Lets it start up, where it knows the lifespan protocol. Raises AppError."""
        loop = asyncio.get_running_loop()
        self._answer = loop.create_future()
        self._events.put_nowait({"type": "lifespan.startup"})
        self._lifespan = loop.create_task(self._live(), name=f"lifespan of {self.name}")
        problem = await self._heard(STARTUP, "it did not start")
        if problem:
            await self._end_lifespan()
            raise AppError(problem)

    async def _live(self) -> None:
        assert self._answer is not None
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            await self.application(scope, self._events.get, self._hear)
        except Exception as error:  # told or logged
            # The specification's way to say that it does not know the protocol, if nothing was said before.
            if self._answer.done():
                log.error("%s: lifespan: %r", self.name, error, exc_info=error)
            else:
                log.debug("%s: no lifespan: %r", self.name, error)
        finally:
            if not self._answer.done():
                self._answer.set_result("")

    async def _hear(self, message: Message) -> None:
        assert self._answer is not None
        kind = message["type"]
        if kind not in (
            "lifespan.startup.complete", "lifespan.startup.failed",
            "lifespan.shutdown.complete", "lifespan.shutdown.failed",
        ):  # fmt: skip
            raise AsgiError(f"{kind!r} during its lifespan")
        if not self._answer.done():
            failed = kind.endswith("failed")
            self._answer.set_result(f"it failed: {message.get('message') or kind}" if failed else "")

    async def _heard(self, timeout: float, late: str) -> str:  # noqa: ASYNC109  # a wait that has no exception
        assert self._answer is not None
        await asyncio.wait((self._answer,), timeout=timeout)
        return self._answer.result() if self._answer.done() else f"{late} within {timeout:g} s"

    async def close(self, timeout: float) -> None:  # noqa: ASYNC109  # not a deadline: what runs is cut then
        """Waits for its calls, cancels those left after ``timeout`` seconds, and lets it shut down."""
        if self.calls:
            _, late = await asyncio.wait(self.calls, timeout=timeout)
            await _cancel(late, self.name)
        if self._lifespan is not None and not self._lifespan.done():
            self._answer = asyncio.get_running_loop().create_future()
            self._events.put_nowait({"type": "lifespan.shutdown"})
            problem = await self._heard(SHUTDOWN, "it did not shut down")
            if problem:
                log.error("%s: %s", self.name, problem)
        await self._end_lifespan()

    async def _end_lifespan(self) -> None:
        if self._lifespan is not None:
            await asyncio.wait((self._lifespan,), timeout=0.1)  # it may have a line or two left
            await _cancel({self._lifespan}, self.name)

    # -- for the core

    def begin(
        self,
        side: AsgiSide,
        method: str,
        target: bytes,
        headers: list[tuple[bytes, bytes]],
        version: str,
        scheme: str,
        client: tuple[str, int] | None,
        host: str,
        port: int,
    ) -> Call:
        """Begins a call of it; from the next turn of the loop on it runs. port -1: the client named none."""
        path, _, query = target.partition(b"?")
        scope: Message = {
            "type": "http",
            "asgi": _VERSION,
            "http_version": version,
            "method": method,
            "scheme": scheme,
            "path": unquote_to_bytes(path).decode("utf-8", "replace"),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": headers,
            "client": client,
            # As the client called us; which socket it came by is not known here.
            "server": (host or "localhost", port if port >= 0 else 443 if scheme == "https" else 80),
            "state": self.state.copy(),
            "extensions": {},
        }
        return Call(self, side, scope)


class Call:
    """One request to an application."""

    def __init__(self, app: App, side: AsgiSide, scope: Message) -> None:
        self._app = app
        self._side = side
        self._head: tuple[int, bytes] | None = None
        self._answering = False
        self._whole_request = False
        self._told_gone = False
        self._waiters: list[asyncio.Future[None]] = []
        # Not `create_task`: a program's eager tasks would answer while the request is still being sent.
        loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] = asyncio.Task(self._run(scope), loop=loop, name=f"asgi:{app.name}")
        app.calls.add(self._task)
        self._task.add_done_callback(app.calls.discard)

    # -- for the core

    def wake(self) -> None:
        """Something has changed: a piece of the body has come, the client takes more, or it is gone."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        self._told_gone = True
        self._task.cancel()

    # -- for the application

    async def _run(self, scope: Message) -> None:
        try:
            await self._app.application(scope, self._receive, self._send)
        except asyncio.CancelledError:
            self._side.fail("the application's call was cancelled")
            raise
        except Exception as error:  # logged with its traceback
            level = logging.DEBUG if self._told_gone else logging.ERROR
            log.log(level, "%s: %s %s", self._app.name, scope["method"], scope["path"], exc_info=error)
            self._side.fail(f"the application raised {type(error).__name__}")
        else:
            self._side.fail("the application returned before its answer was whole")

    async def _receive(self) -> Message:
        while not self._side.gone:
            piece = None if self._whole_request else self._side.body_piece()
            if piece is not None:
                body, more = piece
                self._whole_request = not more
                return {"type": "http.request", "body": body, "more_body": more}
            await self._change()
        self._told_gone = True
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self._side.gone:
            self._told_gone = True
            raise ClientGone
        kind = message.get("type")
        if kind == "http.response.start":
            if self._head is not None:
                raise self._wrong("a second http.response.start")
            self._head = (self._status(message.get("status")), self._lines(message.get("headers", ())))
        elif kind == "http.response.body":
            self._body(message.get("body", b""), end=not message.get("more_body", False))
            while self._side.stopped:
                await self._change()
        else:
            raise self._wrong(f"{kind!r} in answer to an http request")

    def _body(self, body: object, end: bool) -> None:
        if self._head is None:
            raise self._wrong("http.response.body before http.response.start")
        if not isinstance(body, bytes | bytearray | memoryview):
            raise self._wrong(f"a body of {type(body).__name__}, not bytes")
        if self._answering:
            problem = self._side.send(bytes(body), end)
        else:
            self._answering = True
            problem = self._side.respond(*self._head, bytes(body), end)
        if problem:
            raise AsgiError(problem)

    def _status(self, status: object) -> int:
        if not isinstance(status, int) or not 200 <= status <= 999:
            raise self._wrong(f"the status {status!r}")
        return int(status)

    def _lines(self, headers: Iterable[Iterable[bytes]]) -> bytes:
        lines = []
        for field in headers:
            name, value = field
            if not isinstance(name, bytes) or not _NAME.fullmatch(name):
                raise self._wrong(f"{name!r} is no name of a header (RFC 9110 5.1)")
            if not isinstance(value, bytes) or not _VALUE.fullmatch(value):
                raise self._wrong(f"the value of {name.decode()} holds what no value may (RFC 9110 5.5)")
            # How the body is framed is the server's affair.
            if name.lower() != b"transfer-encoding":
                lines.append(name + b": " + value + b"\r\n")
        return b"".join(lines)

    def _wrong(self, detail: str) -> AsgiError:
        self._side.refuse(detail)
        return AsgiError(detail)

    async def _change(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)


async def _cancel(tasks: set[asyncio.Task[None]], name: str) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=PATIENCE)
        if late:
            log.error("%s: %d of its calls do not end though they were cancelled", name, len(late))
