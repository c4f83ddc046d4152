"""Clients that stay: tunnels and downloads, in the clear and over TLS; and TLS clients that come and go. Each
says how it fared, and whether a worker that was killed had it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from bench.endurance.whose import Doomed

Use = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

SILENCE: Final = 5.0  # seconds without a word: it is lost
VISITORS: Final = 8  # TLS clients that come and go
_SOCKET: Final = (
    b"GET /long/socket HTTP/1.1\r\nHost: bench.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: c2l4dGVlbiBieXRlcyBvaw==\r\n\r\n"
)
_DOWNLOAD: Final = b"GET /long/download HTTP/1.1\r\nHost: bench.test\r\n\r\n"
_SHORT: Final = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


@dataclass
class Fared:
    """What became of them. Long connections that ended, or fell silent, and failed requests over TLS, by how:
    cut, with the worker that had them, or lost, which nothing explains. Long ones are opened again."""

    words: int = 0  # that came back, or came
    cut: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    tls_answers: int = 0
    tls_cut: int = 0
    tls_failed: Counter[str] = field(default_factory=Counter)


class Stay(NamedTuple):
    """A kind of long connection. goes_on: until it is cut, lost or not what it should be."""

    name: str
    request: bytes
    status: bytes
    goes_on: Callable[[asyncio.StreamReader, asyncio.StreamWriter, Callable[[], None]], Awaitable[None]]


async def _talk(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, word_came: Callable[[], None]
) -> None:
    for number in itertools.count():
        word = b"%08d" % number
        writer.write(word)
        async with asyncio.timeout(SILENCE):
            if await reader.readexactly(len(word)) != word:
                raise ValueError("another word came back")
        word_came()
        await asyncio.sleep(0.1)


async def _read(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, word_came: Callable[[], None]
) -> None:
    number = 0
    while True:
        async with asyncio.timeout(SILENCE):
            size = int(await reader.readuntil(b"\r\n"), 16)
            lines = (await reader.readexactly(size + 2)).split()
        for line in lines:  # several may have become one chunk
            if line != b"%d" % number:
                raise ValueError(f"{line!r} in place of line {number}")
            word_came()
            number += 1


STAYS: Final = (Stay("WebSocket", _SOCKET, b"101", _talk), Stay("download", _DOWNLOAD, b"200", _read))


class Clients:
    """In a thread of their own, until the block is left. ports: in the clear, and TLS. each: so many
    WebSockets, and so many downloads, in the clear, and again over TLS."""

    def __init__(self, ports: tuple[int, int], doomed: Doomed, each: int) -> None:
        self.fared = Fared()
        self.wanted = 4 * each  # long connections
        self.open = 0
        self._ports = ports
        self._doomed = doomed
        self._each = each
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE  # the certificates are swapped for ones of no authority
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="long clients")
        self._stop = asyncio.Event()

    def __enter__(self) -> Clients:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def take(self) -> Fared:
        """How they fared since the last time."""
        fared, self.fared = self.fared, Fared()
        return fared

    def _run(self) -> None:
        with contextlib.closing(self._loop):
            self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        tasks = [
            asyncio.create_task(self._again(stay, secure))
            for stay in STAYS
            for secure in (False, True)
            for _ in range(self._each)
        ]
        tasks += [asyncio.create_task(self._visit(number)) for number in range(VISITORS)]
        await self._stop.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connect(self, secure: bool, use: Use, ended: Callable[[bool, Exception], None]) -> None:
        """One connection, for as long as it is used. How it ended otherwise is told: whether with its worker,
        and by what."""
        sock = socket.socket()
        sock.setblocking(False)
        port, writer = 0, None
        try:
            async with asyncio.timeout(SILENCE):
                await self._loop.sock_connect(sock, ("127.0.0.1", self._ports[secure]))
                port = sock.getsockname()[1]
                reader, writer = await asyncio.open_connection(
                    sock=sock,
                    ssl=self._context if secure else None,
                    server_hostname="localhost" if secure else None,
                )
            await use(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
            ended(self._doomed.has(port), error)
        finally:
            if writer is None:
                sock.close()
            else:
                writer.close()
                with contextlib.suppress(OSError, TimeoutError):
                    async with asyncio.timeout(SILENCE):
                        await writer.wait_closed()

    async def _again(self, stay: Stay, secure: bool) -> None:
        what = f"{stay.name}{' over TLS' if secure else ''}"

        def word_came() -> None:
            self.fared.words += 1

        def ended(cut: bool, error: Exception) -> None:
            if cut:
                self.fared.cut[what] += 1
            else:
                self.fared.lost[f"{what}: {error!r}"] += 1

        async def use(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(stay.request)
            await self._head(reader, stay.status)
            self.open += 1
            try:
                await stay.goes_on(reader, writer, word_came)
            finally:
                self.open -= 1

        while True:
            await self._connect(secure, use, ended)
            await asyncio.sleep(0.1)

    async def _visit(self, number: int) -> None:
        """A handshake for each request, or, every second client, one for twenty of them."""
        requests = 1 if number % 2 else 20

        def ended(cut: bool, error: Exception) -> None:
            if cut:
                self.fared.tls_cut += 1
            else:
                self.fared.tls_failed[repr(error)] += 1

        async def use(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for _ in range(requests):
                if await self._ask(reader, writer):
                    break
                await asyncio.sleep(0.02)

        while True:
            await self._connect(True, use, ended)
            await asyncio.sleep(0.02)

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the answer says that the connection ends."""
        writer.write(_SHORT)
        head = await self._head(reader, b"200")
        async with asyncio.timeout(SILENCE):
            await reader.readexactly(100)
        self.fared.tls_answers += 1
        return b"\r\nconnection: close" in head.lower()

    async def _head(self, reader: asyncio.StreamReader, status: bytes) -> bytes:
        async with asyncio.timeout(SILENCE):
            head = await reader.readuntil(b"\r\n\r\n")
        if head.split(b" ")[1] != status:
            raise ValueError(head.split(b"\r\n")[0].decode("latin-1"))
        return head
