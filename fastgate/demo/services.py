"""Two small HTTP/1.1 services on loopback: "orders" keeps a list, "mirror" answers with what it was sent.

They are there to stand behind the gateway in the demo and are no model of a server: bodies are read whole, up
to 64 KiB.
"""

from __future__ import annotations

import asyncio
import http
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Self

import httptools
import orjson

__all__ = ["Services"]

BODY_LIMIT: Final = 64 * 1024
TICK_SECONDS: Final = 0.5
TICKS: Final = 5


@dataclass(slots=True)
class Request:
    """A request as a service sees it, behind the gateway."""

    method: str = ""
    target: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


@dataclass(slots=True)
class Answer:
    """A status and a value that is sent as JSON; with ``ticks``, so many server-sent events instead."""

    status: int
    value: object = None
    ticks: int = 0
    location: str = ""


Service = Callable[[Request], Answer]


class Orders:
    """GET and POST /orders, GET /orders/ID, and /events, a stream of server-sent events."""

    def __init__(self) -> None:
        self._orders: list[dict[str, object]] = [{"id": 1, "item": "tea"}, {"id": 2, "item": "biscuits"}]

    def __call__(self, request: Request) -> Answer:
        if request.path == "/events":
            return Answer(200, ticks=TICKS)
        if request.path == "/orders" and request.method == "POST":
            return self._add(request.body)
        if request.path == "/orders":
            return Answer(200, self._orders)
        number = request.path.removeprefix("/orders/")
        for order in self._orders:
            if str(order["id"]) == number:
                return Answer(200, order)
        return Answer(404, {"error": f"the orders service has no {request.path}"})

    def _add(self, body: bytes) -> Answer:
        try:
            given = orjson.loads(body)
        except orjson.JSONDecodeError:
            given = None
        if not isinstance(given, dict) or not isinstance(given.get("item"), str):
            return Answer(400, {"error": 'send JSON, as in {"item": "milk"}'})
        if len(self._orders) >= 1000:
            return Answer(507, {"error": "the demo keeps 1000 orders"})
        order: dict[str, object] = {"id": len(self._orders) + 1, "item": given["item"]}
        self._orders.append(order)
        return Answer(201, order, location=f"/orders/{order['id']}")


def mirror(request: Request) -> Answer:
    """Whatever the request was: its method, target, fields and body."""
    headers: dict[str, str] = {}
    for name, value in request.headers:
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return Answer(
        200,
        {
            "method": request.method,
            "target": request.target,
            "headers": headers,
            "body": request.body.decode("utf-8", "replace"),
        },
    )


class Connection(asyncio.Protocol):
    """One kept-alive connection to a service."""

    transport: asyncio.Transport

    def __init__(self, service: Service) -> None:
        self._service = service
        self._parser = httptools.HttpRequestParser(self)
        self._request = Request()
        self._stream: asyncio.Task[None] | None = None

    # -- what the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        if self._stream is not None:
            self._stream.cancel()

    # -- what the parser calls

    def on_message_begin(self) -> None:
        self._request = Request()

    def on_url(self, url: bytes) -> None:
        self._request.target += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._request.headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_body(self, part: bytes) -> None:
        self._request.body += part
        if len(self._request.body) > BODY_LIMIT:
            self.transport.abort()

    def on_message_complete(self) -> None:
        self._request.method = self._parser.get_method().decode()
        answer = self._service(self._request)
        if answer.ticks:
            self._stream = asyncio.get_running_loop().create_task(self._send_ticks(answer.ticks))
            return
        body = orjson.dumps(answer.value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        fields = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        if answer.location:
            fields["Location"] = answer.location
        self._send_head(answer.status, fields)
        if self._request.method != "HEAD":
            self.transport.write(body)

    # -- answering

    def _send_head(self, status: int, fields: dict[str, str]) -> None:
        lines = [f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        self.transport.write("\r\n".join([*lines, "", ""]).encode())

    async def _send_ticks(self, count: int) -> None:
        self._send_head(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"})
        for tick in range(count):
            event = b"data: tick %d\n\n" % tick
            self.transport.write(b"%x\r\n%b\r\n" % (len(event), event))
            await asyncio.sleep(TICK_SECONDS)
        self.transport.write(b"0\r\n\r\n")


class Services:
    """Both services, in a thread with an event loop of its own: the gateway's loop serves the gateway alone.

    A context manager: ``ports`` (name -> port on 127.0.0.1) is filled on entering, and leaving ends them.
    Raises OSError when no port can be had.
    """

    def __init__(self) -> None:
        self.ports: dict[str, int] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="demo-services", daemon=True)
        self._servers: list[asyncio.Server] = []

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()
        except OSError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _open(self) -> None:
        services: dict[str, Service] = {"orders": Orders(), "mirror": mirror}
        loop = asyncio.get_running_loop()
        for name, service in services.items():
            server = await loop.create_server(partial(Connection, service), "127.0.0.1", 0)
            self._servers.append(server)
            self.ports[name] = server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        # The gateway has closed its connections; a stream that still runs ends here.
        streams = asyncio.all_tasks() - {asyncio.current_task()}
        for stream in streams:
            stream.cancel()
        await asyncio.gather(*streams, return_exceptions=True)
