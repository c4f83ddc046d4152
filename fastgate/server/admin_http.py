"""HTTP/1.1 for the admin API: h11 over asyncio's streams. Nothing is fast here, and everything is strict. One
request a connection."""

from __future__ import annotations

import asyncio
import contextlib
import http
import socket
import ssl
import sys
import traceback
from email.utils import formatdate
from typing import Any, Final

import h11

from fastgate.config.model import Admin
from fastgate.server.admin import Api
from fastgate.server.admin_guard import Caller, Guard
from fastgate.server.admin_types import Refusal, Reply, Request, problem
from fastgate.server.sockets import Listening

__all__ = ["AdminServer", "Serving"]

HEAD_BYTES: Final = 8 * 1024
BODY_BYTES: Final = 64 * 1024
CONNECTIONS: Final = 32
DEADLINE: Final = 5.0  # seconds: for a handshake, for a request to come, for its answer to be taken

# Of every answer: kept nowhere, framed nowhere, read by no page of another origin.
_SAFE: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Serving:
    """Servers on the sockets of an AdminServer, with the guard of one configuration. Not in force until
    AdminServer.follow()."""

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self.servers: list[asyncio.Server] = []

    def close(self) -> None:
        for server in self.servers:
            server.close()


class AdminServer:
    """Serves an Api, from follow() to close(): on these sockets, or on those that it opens (OpenError).

    A configuration with the same bind and another token or certificate takes over the sockets: prepare() what
    may fail, then follow() it.
    """

    def __init__(
        self, api: Api, config: Admin, sockets: list[socket.socket] | None = None, what: str = "admin API"
    ) -> None:
        self._api = api
        self.listening = (
            Listening(config, sockets)
            if sockets
            else Listening.open(config, what, backlog=CONNECTIONS, private=True)
        )
        self._serving: Serving | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    def serves(self, config: Admin) -> bool:
        """Whether its sockets are those of this configuration."""
        return self.listening.bind.bind == config.bind

    async def prepare(self, config: Admin) -> Serving:
        """Raises OpenError for a certificate that can't be used, OSError; then nothing has changed."""
        serving = Serving(Guard(config))
        with contextlib.ExitStack() as undo:
            undo.callback(serving.close)
            for sock in self.listening.sockets:
                serving.servers.append(await self._serve(sock.dup(), serving.guard))
            undo.pop_all()
        return serving

    def follow(self, serving: Serving) -> None:
        """The servers before it take no new connection; requests under way go on."""
        if self._serving is not None:
            self._serving.close()
        self._serving = serving

    def close(self) -> None:
        """Takes no new connection; requests under way go on."""
        if self._serving is not None:
            self._serving.close()
        self.listening.close()

    async def stop(self) -> None:
        """Ends the requests under way too."""
        self.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, sock: socket.socket, guard: Guard) -> asyncio.Server:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._connected(_Connection(self._api, guard, reader, writer), writer)

        return await asyncio.start_server(
            connected,
            sock=sock,
            limit=HEAD_BYTES,
            ssl=guard.context,
            ssl_handshake_timeout=None if guard.context is None else DEADLINE,
            ssl_shutdown_timeout=None if guard.context is None else DEADLINE,
        )

    async def _connected(self, connection: _Connection, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._tasks) >= CONNECTIONS:
            writer.transport.abort()
            return
        self._tasks.add(task)
        try:
            await connection.serve()
        except (OSError, TimeoutError):
            writer.transport.abort()  # it went away, or does not take its answer
        finally:
            self._tasks.discard(task)
            writer.close()


class _Connection:
    def __init__(
        self, api: Api, guard: Guard, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._api = api
        self._guard = guard
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
        self._method = b""

    async def serve(self) -> None:
        try:
            async with asyncio.timeout(DEADLINE):
                request = await self._read()
            if request is None:
                return
            reply = await self._api.answer(request, self._caller(), self._guard)
        except TimeoutError:
            reply = problem(Refusal(408, f"the request did not come in {DEADLINE:g} s"))
        except h11.RemoteProtocolError as error:
            reply = problem(Refusal(error.error_status_hint, str(error)))
        except Refusal as refusal:
            reply = problem(refusal)
        except ConnectionError:
            raise  # it has left, and nobody is there to be told
        except Exception:  # noqa: BLE001  # a defect of ours: told, and the gateway serves on
            traceback.print_exc(file=sys.stderr)
            reply = problem(Refusal(500, "a defect of the gateway; see its stderr"))
        async with asyncio.timeout(DEADLINE):
            await self._write(reply)
            # A client over TLS is not told that nothing follows, and one that has said all may wait for that.
            if self._http.their_state is not h11.DONE or not self._caller().tls:
                await self._linger()

    def _caller(self) -> Caller:
        family = self._writer.get_extra_info("socket").family
        tls: ssl.SSLObject | None = self._writer.get_extra_info("ssl_object")
        return Caller(unix=family == socket.AF_UNIX, tls=tls is not None)

    async def _read(self) -> Request | None:
        """A whole request; None: the client left without one. Raises Refusal, h11.RemoteProtocolError."""
        target, headers = b"", dict[str, str]()
        body = bytearray()
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                if self._http.they_are_waiting_for_100_continue:
                    self._send(h11.InformationalResponse(status_code=100, headers=[]))
                self._http.receive_data(await self._reader.read(4096))
            elif isinstance(event, h11.Request):
                self._method, target = event.method, event.target
                for name, value in event.headers:
                    headers.setdefault(name.decode("latin-1"), value.decode("latin-1"))
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > BODY_BYTES:
                    raise Refusal(413, f"a body has at most {BODY_BYTES} bytes")
            elif isinstance(event, h11.EndOfMessage):
                return Request(self._method.decode("latin-1"), target, headers, bytes(body))
            else:
                return None

    async def _write(self, reply: Reply) -> None:
        bare = reply.status in (204, 304)
        self._send(
            h11.Response(
                status_code=reply.status,
                reason=http.HTTPStatus(reply.status).phrase,
                headers=[
                    ("Date", formatdate(usegmt=True)),
                    *({**_SAFE, **dict(reply.headers)}).items(),
                    *([] if bare else [("Content-Length", str(len(reply.body)))]),
                    ("Connection", "close"),
                ],
            )
        )
        if self._method != b"HEAD" and not bare:
            self._send(h11.Data(data=reply.body))
        self._send(h11.EndOfMessage())
        if self._writer.can_write_eof():  # TLS has no half-close
            self._writer.write_eof()
        await self._writer.drain()

    def _send(self, event: h11.Event) -> None:
        self._writer.write(self._http.send(event) or b"")

    async def _linger(self) -> None:
        # A close while the client still sends would answer that with RST, and take our answer with it.
        left = BODY_BYTES
        while left > 0 and (data := await self._reader.read(4096)):
            left -= len(data)
