"""HTTP/1.1 for the admin API: h11 over asyncio's streams. Nothing is fast here, and everything is strict.

The API asks nobody who they are, so it listens on loopback or a Unix socket alone. A browser on this machine
could still be made to call it by a strange page: so the Host must be a loopback one (a name that its owner
rebinds to 127.0.0.1 is not), and what changes anything must say that it is JSON (a page may not do that
across origins without asking first, and we never say yes). One request a connection.
"""

from __future__ import annotations

import asyncio
import http
import ipaddress
import re
import socket
import sys
import traceback
from contextlib import suppress
from email.utils import formatdate
from typing import Any, Final

import h11
import msgspec

from fastgate.server.admin import Api, Refusal, Request
from fastgate.server.sockets import Bind, Listening

__all__ = ["AdminServer"]

HEAD_BYTES: Final = 8 * 1024
BODY_BYTES: Final = 64 * 1024
CONNECTIONS: Final = 32
DEADLINE: Final = 5.0  # seconds: for a request to come, and for its answer to be taken
_AUTHORITY: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::[0-9]{1,5})?")


class AdminServer:
    """Serves an Api, from start() to close(): on these sockets, or on those that it opens (OpenError)."""

    def __init__(self, api: Api, bind: Bind, sockets: list[socket.socket] | None = None) -> None:
        self._api = api
        self.listening = (
            Listening(bind, sockets)
            if sockets
            else Listening.open(bind, "admin API", backlog=CONNECTIONS, private=True)
        )
        self._serving: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        for sock in self.listening.sockets:
            server = await asyncio.start_server(self._connected, sock=sock, limit=HEAD_BYTES)
            self.listening.servers.append(server)

    def close(self) -> None:
        """Takes no new connection; requests under way go on."""
        self.listening.close()

    async def stop(self) -> None:
        """Ends the requests under way too."""
        self.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._serving) >= CONNECTIONS:
            writer.transport.abort()
            return
        self._serving.add(task)
        try:
            await _Connection(self._api, reader, writer).serve()
        except (OSError, TimeoutError):
            writer.transport.abort()  # it went away, or does not take its answer
        finally:
            self._serving.discard(task)
            writer.close()


class _Connection:
    def __init__(self, api: Api, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._api = api
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
        self._method = b""

    async def serve(self) -> None:
        headers: list[tuple[str, str]] = []
        try:
            async with asyncio.timeout(DEADLINE):
                request = await self._read()
            if request is None:
                return
            status, body = 200, msgspec.json.encode(await self._api.answer(request))
        except TimeoutError:
            status, body, headers = _problem(Refusal(408, f"the request did not come in {DEADLINE:g} s"))
        except h11.RemoteProtocolError as error:
            status, body, headers = _problem(Refusal(error.error_status_hint, str(error)))
        except Refusal as refusal:
            status, body, headers = _problem(refusal)
        except Exception:  # noqa: BLE001  # a defect of ours: told, and the gateway serves on
            traceback.print_exc(file=sys.stderr)
            status, body, headers = _problem(Refusal(500, "a defect of the gateway; see its stderr"))
        async with asyncio.timeout(DEADLINE):
            await self._write(status, body, headers)
            await self._linger()

    async def _read(self) -> Request | None:
        """A whole request; None: the client left without one. Raises Refusal, h11.RemoteProtocolError."""
        target, content_type = b"", ""
        body = bytearray()
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                if self._http.they_are_waiting_for_100_continue:
                    self._send(h11.InformationalResponse(status_code=100, headers=[]))
                self._http.receive_data(await self._reader.read(4096))
            elif isinstance(event, h11.Request):
                self._method, target = event.method, event.target
                content_type = _field(event, b"content-type")
                if self._writer.get_extra_info("socket").family != socket.AF_UNIX:
                    _check_host(_field(event, b"host"))
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > BODY_BYTES:
                    raise Refusal(413, f"a body has at most {BODY_BYTES} bytes")
            elif isinstance(event, h11.EndOfMessage):
                return Request(self._method.decode("latin-1"), target, content_type, bytes(body))
            else:
                return None

    async def _write(self, status: int, body: bytes, headers: list[tuple[str, str]]) -> None:
        self._send(
            h11.Response(
                status_code=status,
                reason=http.HTTPStatus(status).phrase,
                headers=[
                    ("Date", formatdate(usegmt=True)),
                    *(headers or [("Content-Type", "application/json")]),
                    ("Content-Length", str(len(body))),
                    ("Cache-Control", "no-store"),
                    ("X-Content-Type-Options", "nosniff"),
                    ("Connection", "close"),
                ],
            )
        )
        if self._method != b"HEAD":
            self._send(h11.Data(data=body))
        self._send(h11.EndOfMessage())
        self._writer.write_eof()
        await self._writer.drain()

    def _send(self, event: h11.Event) -> None:
        self._writer.write(self._http.send(event) or b"")

    async def _linger(self) -> None:
        # A close while the client still sends would answer that with RST, and take our answer with it.
        left = BODY_BYTES
        while left > 0 and (data := await self._reader.read(4096)):
            left -= len(data)


def _field(head: h11.Request, name: bytes) -> str:
    # h11 has seen to it that there is one Host at most.
    return next((value.decode("latin-1") for key, value in head.headers if key == name), "")


def _check_host(host: str) -> None:
    found = _AUTHORITY.fullmatch(host)
    name = found[1].strip("[]").lower() if found else ""
    with suppress(ValueError):
        if name == "localhost" or ipaddress.ip_address(name).is_loopback:
            return
    raise Refusal(421, "the Host is not a loopback address or localhost")


def _problem(refusal: Refusal) -> tuple[int, bytes, list[tuple[str, str]]]:
    problem = {
        "type": "about:blank",
        "title": http.HTTPStatus(refusal.status).phrase,
        "status": refusal.status,
        "detail": str(refusal),
        **refusal.more,
    }
    headers = [("Content-Type", "application/problem+json")]
    if refusal.allow:
        headers.append(("Allow", refusal.allow))
    return refusal.status, msgspec.json.encode(problem), headers
