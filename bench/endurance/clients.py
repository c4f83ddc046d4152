"""Clients that stay: tunnels, downloads, and TLS clients, each of which says how it fared."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

Stay = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]

SILENCE: Final = 5.0  # seconds without a word: it is lost
_SOCKET: Final = (
    b"GET /socket HTTP/1.1\r\nHost: bench.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: c2l4dGVlbiBieXRlcyBvaw==\r\n\r\n"
)
_DOWNLOAD: Final = b"GET /download HTTP/1.1\r\nHost: bench.test\r\n\r\n"
_SHORT: Final = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


@dataclass
class Fared:
    """What became of them. lost: long connections that ended, or fell silent, by how; each is opened
    again."""

    opened: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    words: int = 0  # that came back, or came
    tls_answers: int = 0
    tls_failures: Counter[str] = field(default_factory=Counter)


class Clients:
    """In a thread of their own, until the block is left. tls_port: 0 for none of those."""

    def __init__(self, port: int, tls_port: int, *, tunnels: int, downloads: int, tls: int) -> None:
        self.fared = Fared()
        self._port = port
        self._tls_port = tls_port
        self._counts = (tunnels, downloads, tls if tls_port else 0)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE  # the certificates are swapped for ones of no authority
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="long clients")
        self._ready = threading.Event()
        self._stop = asyncio.Event()

    def __enter__(self) -> Clients:
        self._thread.start()
        self._ready.wait(30)
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
        tunnels, downloads, tls = self._counts
        tasks = [
            *(asyncio.create_task(self._again(self._tunnel)) for _ in range(tunnels)),
            *(asyncio.create_task(self._again(self._download)) for _ in range(downloads)),
            *(asyncio.create_task(self._visit(number)) for number in range(tls)),
        ]
        await asyncio.sleep(1)
        self._ready.set()
        await self._stop.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _again(self, stay: Stay) -> None:
        """A long connection; where it is lost, that is counted, and another one opened."""
        while True:
            try:
                async with asyncio.timeout(SILENCE):
                    reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                self.fared.opened += 1
                try:
                    await stay(reader, writer)
                finally:
                    writer.close()
            except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
                self.fared.lost[f"{stay.__name__.strip('_')}: {error!r}"] += 1
                await asyncio.sleep(0.1)

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_SOCKET)
        await self._head(reader, b"101")
        number = 0
        while True:
            word = b"%08d" % number
            writer.write(word)
            async with asyncio.timeout(SILENCE):
                if await reader.readexactly(len(word)) != word:
                    raise ValueError("another word came back")
            self.fared.words += 1
            number += 1
            await asyncio.sleep(0.1)

    async def _download(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_DOWNLOAD)
        await self._head(reader, b"200")
        number = 0
        while True:
            async with asyncio.timeout(SILENCE):
                size = int(await reader.readuntil(b"\r\n"), 16)
                lines = (await reader.readexactly(size + 2)).split()
            for line in lines:  # several may have become one chunk
                if line != b"%d" % number:
                    raise ValueError(f"{line!r} in place of line {number}")
                self.fared.words += 1
                number += 1

    async def _head(self, reader: asyncio.StreamReader, status: bytes) -> None:
        async with asyncio.timeout(SILENCE):
            head = await reader.readuntil(b"\r\n\r\n")
        if head.split(b" ")[1] != status:
            raise ValueError(head.split(b"\r\n")[0].decode("latin-1"))

    async def _visit(self, number: int) -> None:
        """A handshake for each request, or, every second client, one for twenty of them."""
        requests = 1 if number % 2 else 20
        while True:
            try:
                async with asyncio.timeout(SILENCE):
                    reader, writer = await asyncio.open_connection(
                        "127.0.0.1", self._tls_port, ssl=self._context
                    )
                try:
                    for _ in range(requests):
                        writer.write(_SHORT)
                        async with asyncio.timeout(SILENCE):
                            head = await reader.readuntil(b"\r\n\r\n")
                            await reader.readexactly(100)
                        if head.split(b" ")[1] != b"200":
                            raise ValueError(head.split(b"\r\n")[0].decode("latin-1"))
                        self.fared.tls_answers += 1
                        if b"\r\nconnection: close" in head.lower():
                            break
                        await asyncio.sleep(0.02)
                finally:
                    writer.close()
                    with contextlib.suppress(OSError):
                        await writer.wait_closed()
            except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
                self.fared.tls_failures[repr(error)] += 1
            await asyncio.sleep(0.02)
