"""The service behind the gateway: bodies of any size, WebSockets that echo, downloads that never end.

usage: python -m bench.endurance.upstream; prints its port, and ends with its stdin.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import re
import sys

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 1.3
_BLOCK = bytes(1 << 20)
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
EVERY = 0.1  # seconds between two lines of a download


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if sized := _LENGTH.search(head):
                await drop(int(sized[1]), reader)
            if head.startswith(b"GET /bytes/"):
                await send(int(head.split(b" ")[1].rsplit(b"/", 1)[1]), writer)
                continue
            if sized:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                continue
            if head.startswith(b"GET /long/download"):
                await download(writer)
            await echo(head, reader, writer)
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def drop(size: int, reader: asyncio.StreamReader) -> None:
    """A request's body."""
    while size:
        data = await reader.read(min(size, len(_BLOCK)))
        if not data:
            raise asyncio.IncompleteReadError(b"", size)
        size -= len(data)


async def send(size: int, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
    for at in range(0, size, len(_BLOCK)):
        writer.write(_BLOCK[: size - at])
        await writer.drain()


async def download(writer: asyncio.StreamWriter) -> None:
    """One numbered line after the other."""
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for number in itertools.count():
        line = b"%d\n" % number
        writer.write(b"%x\r\n%b\r\n" % (len(line), line))
        await writer.drain()
        await asyncio.sleep(EVERY)


async def echo(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The bytes behind the handshake, as they come: a gateway looks at nothing else of a WebSocket."""
    key = next(
        line.split(b":", 1)[1].strip()
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"sec-websocket-key:")
    )
    accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())  # as RFC 6455 has it
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )
    while data := await reader.read(4096):
        writer.write(data)


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
