"""Upgrade: WebSocket tunnels where the route allows them, and nothing of Upgrade anywhere else (RFC 9110
7.8)."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from typing import Any

import pytest
import websockets
from conftest import StartGateway, StartUpstream
from support import upstream as up
from support.answers import proxy_details, refused
from support.client import request
from support.gateway import Gateway, config
from support.handlers import pattern, websocket_echo
from support.upstream import Upstream
from support.wire import tokens


def gateway_config(upstream: str) -> dict[str, Any]:
    ws = {"name": "ws", "match": {"prefix": "/ws"}, "upstream": "up", "upgrade": ["websocket"]}
    idle = {
        "name": "idle",
        "match": {"prefix": "/idle"},
        "upstream": "up",
        "upgrade": ["websocket"],
        "timeouts": {"tunnel_idle": "200ms"},
    }
    return config(upstream, routes=[ws, idle, {"name": "all", "upstream": "up"}])


KEY = base64.b64encode(b"sixteen bytes ok").decode()
LINES = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    f"Sec-WebSocket-Key: {KEY}",
)
ASK = request(target="/ws", lines=LINES)
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nX-Kept: 1\r\n\r\n"


def test_tunnel(gateway: Gateway, upstream: Upstream) -> None:
    """Once switched, bytes pass as they are, both ways, in any order and at once."""

    def talk(connection: up.Connection) -> None:
        connection.send(SWITCH + b"hello ")
        assert connection.stream.exactly(5, "from the client") == b"\x00\r\n\r\n"
        connection.send(b"world")

    upstream.script(talk, up.wait_close())
    mark = upstream.mark()
    with gateway.client() as client:
        client.send(ASK)
        response = client.response()
        assert (response.status, response.get("upgrade"), response.get("x-kept")) == (101, "websocket", "1")
        assert "upgrade" in tokens(response.fields, "connection")
        assert client.stream.exactly(6, "from the upstream") == b"hello "
        client.send(b"\x00\r\n\r\n")
        assert client.stream.exactly(5, "from the upstream") == b"world"
    found = mark.one()
    assert found.get("upgrade") == "websocket"
    assert tokens(found.fields, "connection") == ["upgrade"]
    assert found.get("sec-websocket-key") == KEY


def test_bytes_behind_the_request(gateway: Gateway, upstream: Upstream) -> None:
    """What a client sends before the 101 belongs to the tunnel and must arrive, unread, only after the
    switch."""

    def talk(connection: up.Connection) -> None:
        connection.send(SWITCH)
        connection.send(connection.stream.exactly(17, "early bytes"))

    upstream.script(talk, up.wait_close())
    with gateway.client() as client:
        client.send(ASK + b"GET / HTTP/1.1\r\n\r")
        assert client.response().status == 101
        assert client.stream.exactly(17, "its echo") == b"GET / HTTP/1.1\r\n\r"


def test_bytes_behind_a_refused_upgrade(gateway: Gateway, upstream: Upstream) -> None:
    """When the upstream does not switch, what follows is the next request, or the connection closes."""
    upstream.script(up.reply(403, b"no"))
    mark = upstream.mark()
    with gateway.client() as client:
        client.send(ASK + request(target="/next"))
        response = client.response()
        assert (response.status, response.body) == (403, b"no")
        if not response.closes:
            assert client.response().json()["target"] == "/next"
    assert [found.target for found in mark.requests] in (["/ws"], ["/ws", "/next"])


@pytest.mark.parametrize("size", [1_000_000, 20_000_000])
def test_big_tunnel(gateway: Gateway, upstream: Upstream, size: int) -> None:
    """Both directions with more than all buffers hold."""
    data = pattern(size)

    def talk(connection: up.Connection) -> None:
        connection.send(SWITCH)
        left = size
        while left:
            piece = connection.stream.some(min(left, 100_000), "the client's bytes")
            connection.send(piece)
            left -= len(piece)

    upstream.script(talk, up.wait_close())
    with gateway.client(record=False) as client:
        client.send(ASK)
        assert client.response().status == 101
        for at in range(0, size, 200_000):
            piece = data[at : at + 200_000]
            client.send(piece)
            assert client.stream.exactly(len(piece), "the echo") == piece


@pytest.mark.parametrize("who", ["client", "upstream"])
def test_tunnel_half_close(gateway: Gateway, upstream: Upstream, who: str) -> None:
    """FIN of one side reaches the other one, and so does what was sent before it; then both are gone."""
    before = gateway.fds()

    def client_first(connection: up.Connection) -> None:
        connection.send(SWITCH)
        connection.stream.exactly(3, "the last bytes")

    def upstream_first(connection: up.Connection) -> None:
        connection.send(SWITCH + b"bye")
        up.half_close()(connection)

    mark = upstream.mark()
    upstream.script(client_first if who == "client" else upstream_first, up.wait_close())
    with gateway.client() as client:
        client.send(ASK)
        assert client.response().status == 101
        if who == "client":
            client.send(b"bye").half_close()
        else:
            assert client.stream.exactly(3, "the last bytes") == b"bye"
            assert client.ended() == "eof"
        client.close() if who == "upstream" else client.ended()
    connection = next(c for c in upstream.connections if mark.requests[0] in c.requests)
    assert connection.ended.wait(10)
    gateway.wait_fds(before + 1)


@pytest.mark.parametrize("who", ["client", "upstream"])
def test_tunnel_reset(gateway: Gateway, upstream: Upstream, who: str) -> None:
    mark = upstream.mark()
    upstream.script(up.send(SWITCH), *([up.reset()] if who == "upstream" else [up.wait_close()]))
    with gateway.client() as client:
        client.send(ASK)
        assert client.response().status == 101
        if who == "client":
            client.reset()
            connection = next(c for c in upstream.connections if mark.requests[0] in c.requests)
            assert connection.ended.wait(10)
        else:
            client.ended()


def test_tunnel_idle(gateway: Gateway, upstream: Upstream) -> None:
    since = gateway.mark()
    upstream.script(up.send(SWITCH), up.wait_close())
    with gateway.client() as client:
        client.send(request(target="/idle", lines=LINES))
        assert client.response().status == 101
        client.ended()
    assert gateway.wait_log(since)[0]["reason"] == "tunnel-idle"


def test_tunnel_that_speaks_is_not_idle(gateway: Gateway, upstream: Upstream) -> None:
    """Bytes of either side keep it."""
    upstream.script(up.send(SWITCH), up.trickle(b"12345678", 1, 0.06), up.wait_close())
    with gateway.client() as client:
        client.send(request(target="/idle", lines=LINES))
        assert client.response().status == 101
        assert client.stream.exactly(8, "the trickle") == b"12345678"


@pytest.mark.parametrize(
    "lines",
    [
        ("Connection: Upgrade", "Upgrade: websocket"),
        ("Connection: upgrade, x", "Upgrade: h2c"),
        ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"),
        ("Upgrade: websocket",),
        ("Connection: upgrade",),
    ],
)
def test_stripped_where_not_allowed(gateway: Gateway, upstream: Upstream, lines: tuple[str, ...]) -> None:
    """RFC 9110 7.8: an Upgrade may be ignored; it is for one hop and must not go on. The request is
    served."""
    mark = upstream.mark()
    with gateway.client() as client:
        client.send(request(target="/plain", lines=lines) + request(target="/next"))
        assert client.response().json()["target"] == "/plain"
        assert client.response().json()["target"] == "/next"
    found = mark.requests[0]
    assert "upgrade" not in found
    assert "http2-settings" not in found
    assert "upgrade" not in tokens(found.fields, "connection")


def test_other_protocol_is_stripped_on_an_upgrading_route(gateway: Gateway, upstream: Upstream) -> None:
    mark = upstream.mark()
    with gateway.client() as client:
        lines = ("Connection: Upgrade", "Upgrade: h2c")
        assert client.request(request(target="/ws", lines=lines)).status in (200, 400)
    assert all("upgrade" not in found for found in mark.requests)


@pytest.mark.parametrize(
    "value", ["websocket, ", "/", "web socket", "websocket/", "websocket;a=b", '"websocket"']
)
def test_bad_upgrade_is_not_a_tunnel(gateway: Gateway, upstream: Upstream, value: str) -> None:
    """Never forwarded as an upgrade: refused, or read as no upgrade at all."""
    mark = upstream.mark()
    with gateway.client() as client:
        response = client.request(request(target="/ws", lines=("Connection: Upgrade", f"Upgrade: {value}")))
        if response.status == 400:
            assert proxy_details(response) == ["upgrade-syntax"]
    assert all(found.get("upgrade") in (None, "websocket") for found in mark.requests)


def test_upgrade_from_http10_is_ignored(gateway: Gateway, upstream: Upstream) -> None:
    """RFC 9110 7.8: a server must ignore an Upgrade that comes with HTTP/1.0."""
    mark = upstream.mark()
    with gateway.client() as client:
        client.send(request(target="/ws", version="1.0", lines=LINES))
        assert client.response(http10=True).status == 200
    assert "upgrade" not in mark.one()


def test_switch_to_another_protocol(gateway: Gateway, upstream: Upstream) -> None:
    """RFC 9110 7.8: a server must not switch to what was not asked for."""
    upstream.script(up.send(SWITCH.replace(b"Upgrade: websocket", b"Upgrade: other")), up.wait_close())
    with gateway.client() as client:
        refused(client.request(ASK), "upstream-upgrade")


def test_switch_without_upgrade(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(up.send(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"), up.wait_close())
    with gateway.client() as client:
        refused(client.request(ASK), "upstream-upgrade", "upstream-syntax")


def test_426_goes_through(gateway: Gateway, upstream: Upstream) -> None:
    """The answer to a refused upgrade is an ordinary one; its Upgrade field is for the next hop alone."""
    upstream.script(up.reply(426, b"no"))
    with gateway.client() as client:
        assert client.request(ASK).status == 426
        assert client.get("/next").status == 200


@pytest.fixture(scope="module")
def echo_server() -> Iterator[str]:
    with websocket_echo() as address:
        yield address


@pytest.fixture
def websocket_gateway(start_gateway: StartGateway, echo_server: str) -> Gateway:
    return start_gateway(config(echo_server, route={"upgrade": ["websocket"]}))


async def test_real_websocket(websocket_gateway: Gateway) -> None:
    """The `websockets` client and server, through the gateway."""
    uri = f"ws://127.0.0.1:{websocket_gateway.port}/chat?room=1"
    async with websockets.connect(uri, max_size=None) as socket:
        for message in ("hello", "", "caf\xe9", b"\x00\xff", "x" * 1_000_000, b"y" * 3_000_000):
            await socket.send(message)
            assert await socket.recv() == message
        pong = await socket.ping()
        await asyncio.wait_for(pong, 5)
        await socket.send("close")
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4000


async def test_many_websockets(websocket_gateway: Gateway) -> None:
    uri = f"ws://127.0.0.1:{websocket_gateway.port}/"

    async def talk(number: int) -> None:
        async with websockets.connect(uri) as socket:
            for turn in range(5):
                await socket.send(f"{number} {turn}")
                assert await socket.recv() == f"{number} {turn}"

    await asyncio.gather(*(talk(number) for number in range(50)))


def test_tunnel_back_pressure(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    """A tunnel whose client does not read holds no more than the buffers."""
    upstream = start_upstream(record=False)
    gateway = start_gateway(config(upstream.address, route={"upgrade": ["websocket"]}))
    total = 200 << 20
    upstream.script(up.send(SWITCH), lambda connection: connection.send(b"z" * total), up.wait_close())
    with gateway.client(record=False) as client:
        base = gateway.memory()
        client.send(ASK)
        assert client.response().status == 101
        assert client.stream.skip_length(1 << 20, "the first") == 1 << 20
        client.stream.skip_length(total - (1 << 20), "the rest")
        assert gateway.memory("VmHWM") - base < 64 << 20
