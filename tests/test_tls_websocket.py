"""WebSockets with TLS (wss): the `websockets` client and server, with the gateway between them."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import websockets
from conftest import StartGateway
from support.gateway import Gateway, config
from support.handlers import pattern
from support.tls import (
    Pair,
    TlsClient,
    authority_file,
    client_context,
    server_certificate,
    server_context,
)

LARGE = pattern(8 << 20)
PATIENCE = 20.0


class Echo:
    """A server that sends back what it gets, and does what some messages ask for."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context
        self.port = 0
        self.codes: asyncio.Queue[int | None] = asyncio.Queue()  # with which its clients have closed
        self.begun = asyncio.Event()  # it is in the midst of a large answer

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[Echo]:
        async with websockets.serve(self._talk, "127.0.0.1", 0, ssl=self._context, max_size=None) as server:
            self.port = next(iter(server.sockets)).getsockname()[1]
            yield self

    async def _talk(self, connection: websockets.ServerConnection) -> None:
        with contextlib.suppress(websockets.ConnectionClosedError):  # any code but 1000 and 1001
            async for message in connection:
                if message == "close":
                    await connection.send(LARGE)
                    await connection.close(4001, "as asked")
                elif message == "drop":
                    await connection.send("going")
                    connection.transport.abort()
                elif message == "pieces":
                    await connection.send(self._pieces())
                else:
                    await connection.send(message)
        self.codes.put_nowait(connection.close_code)

    async def _pieces(self) -> AsyncIterator[bytes]:
        """A message in many frames; somebody may do something behind the first."""
        for at in range(64):
            yield LARGE[at * len(LARGE) // 64 : (at + 1) * len(LARGE) // 64]
            self.begun.set()
            await asyncio.sleep(0)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path, "both", server_certificate("test.example", "127.0.0.1"))


@pytest.fixture(params=["plain", "tls"])
async def echo(request: pytest.FixtureRequest, pair: Pair) -> AsyncIterator[Echo]:
    """Behind the gateway, with TLS there or without."""
    async with Echo(server_context(pair) if request.param == "tls" else None).serve() as server:
        yield server


def tables(echo: Echo, pair: Pair, folder: Path, **route: Any) -> dict[str, Any]:
    tls = {} if echo._context is None else {"tls": {"ca": authority_file(folder)}}
    return config(
        f"127.0.0.1:{echo.port}",
        listener={"tls": {"certificates": [pair.table]}},
        upstream_options=tls,
        route={"upgrade": ["websocket"], **route},
    )


async def started(start_gateway: StartGateway, tables: dict[str, Any]) -> Gateway:
    return await asyncio.to_thread(start_gateway, tables)


def connect(gateway: Gateway, version: ssl.TLSVersion | None = None) -> Any:
    return websockets.connect(
        f"wss://127.0.0.1:{gateway.port}/chat?room=1",
        ssl=client_context(version),
        server_hostname="test.example",
        max_size=None,
    )


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_messages_of_all_sizes(
    start_gateway: StartGateway, echo: Echo, pair: Pair, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    gateway = await started(start_gateway, tables(echo, pair, tmp_path))
    async with asyncio.timeout(PATIENCE), connect(gateway, version) as socket:
        sizes = (0, 1, 125, 126, 16_383, 16_384, 65_535, 65_536, 300_000)  # frames' and records' borders
        for message in ("", "caf\xe9", *(LARGE[:size] for size in sizes), LARGE):
            await socket.send(message)
            assert await socket.recv() == message
        await asyncio.wait_for(await socket.ping(), PATIENCE)


async def test_large_messages_both_ways_at_once(
    start_gateway: StartGateway, echo: Echo, pair: Pair, tmp_path: Path
) -> None:
    """Nobody waits until the other has sent its own."""
    gateway = await started(start_gateway, tables(echo, pair, tmp_path))
    async with asyncio.timeout(PATIENCE), connect(gateway) as socket:
        await socket.send("pieces")
        sending = asyncio.create_task(socket.send(LARGE))
        assert await socket.recv() == LARGE
        await sending
        assert await socket.recv() == LARGE


async def test_the_client_closes(start_gateway: StartGateway, echo: Echo, pair: Pair, tmp_path: Path) -> None:
    """Its code comes to the server, and the server's answer back."""
    gateway = await started(start_gateway, tables(echo, pair, tmp_path))
    async with asyncio.timeout(PATIENCE):
        async with connect(gateway) as socket:
            await socket.send(LARGE)
            assert await socket.recv() == LARGE
            await socket.close(4002, "enough")
        assert socket.close_code == 4002
        assert await echo.codes.get() == 4002
    record = (await asyncio.to_thread(gateway.wait_log))[0]
    assert (record["status"], record["tls"]) == (101, "TLSv1.3")


async def test_the_server_closes(start_gateway: StartGateway, echo: Echo, pair: Pair, tmp_path: Path) -> None:
    """What it has sent before comes whole."""
    gateway = await started(start_gateway, tables(echo, pair, tmp_path))
    async with asyncio.timeout(PATIENCE), connect(gateway) as socket:
        await socket.send("close")
        assert await socket.recv() == LARGE
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "as asked")


async def test_the_server_is_gone(
    start_gateway: StartGateway, echo: Echo, pair: Pair, tmp_path: Path
) -> None:
    """An end without a close frame is none that was agreed on (RFC 6455 7.1.5: 1006)."""
    gateway = await started(start_gateway, tables(echo, pair, tmp_path))
    async with asyncio.timeout(PATIENCE), connect(gateway) as socket:
        await socket.send("drop")
        assert await socket.recv() == "going"
        with pytest.raises(websockets.ConnectionClosedError):
            await socket.recv()
        assert socket.close_code == 1006


async def test_a_reload_in_the_middle(
    start_gateway: StartGateway, echo: Echo, pair: Pair, tmp_path: Path
) -> None:
    """Of a message that comes, and one that goes: both arrive; a new certificate is for new connections."""
    gateway = await started(start_gateway, tables(echo, pair, tmp_path))
    renewed = Pair(tmp_path, "renewed", server_certificate("test.example", "127.0.0.1"))

    def shown() -> bytes:
        with TlsClient(gateway.address) as client:
            return client.shown

    async with asyncio.timeout(PATIENCE), connect(gateway) as socket:
        await socket.send("pieces")
        sending = asyncio.create_task(socket.send(LARGE))
        await echo.begun.wait()
        changed = tables(echo, renewed, tmp_path, response_headers={"set": {"X-Turn": "2"}})
        await asyncio.to_thread(gateway.reload, changed)
        assert await asyncio.to_thread(shown) == renewed.issued.der != pair.issued.der
        assert await socket.recv() == LARGE
        await sending
        assert await socket.recv() == LARGE
        for turn in range(3):
            await asyncio.to_thread(gateway.reload, tables(echo, (pair, renewed)[turn % 2], tmp_path))
            await socket.send(f"turn {turn}")
            assert await socket.recv() == f"turn {turn}"
        assert socket.response is not None
        assert "X-Turn" not in socket.response.headers
