"""Endpoints that are ASGI applications in the gateway's process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from support.gateway import Gateway as Process
from support.gateway import config as tables_of

from fastgate import Gateway, OpenError, ReloadError
from fastgate.plugins import Exchange, Plugin
from fastgate.plugins import Response as PluginResponse
from fastgate.testing import CutShort, run_gateway

Scope = Any
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Any, Receive, Any], Awaitable[None]]


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(data: bytes = b"", *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


def http(handler: App) -> App:
    """An application that knows no lifespan."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError("http alone")
        await handler(scope, receive, send)

    return app


def says(*messages: dict[str, Any]) -> App:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return http(app)


@http
async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start(200, (b"content-type", b"text/plain")))
    while True:
        message = await receive()
        await send(body(message["body"], more=message["more_body"]))
        if not message["more_body"]:
            return


def tables(
    *, upstream: dict[str, Any] | None = None, route: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    return {
        "listeners": [{"name": "main", "bind": "127.0.0.1:0"}],
        "upstreams": {"app": {"endpoints": ["asgi:app"], **(upstream or {})}, **more},
        "routes": [{"name": "all", "upstream": "app", **(route or {})}],
    }


def running(app: App, config: dict[str, Any] | None = None) -> Any:
    return run_gateway(config or tables(), apps={"app": app}, real=["app"])


async def test_what_an_application_is_told() -> None:
    seen: list[Scope] = []

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)
        await send(
            start(
                201,
                (b"X-Made", b"here"),
                (b"keep-alive", b"x"),
                (b"connection", b"x-gone"),
                (b"x-gone", b"1"),
            )
        )
        await send(body(b"made"))

    rules = {
        "request_headers": {"set": {"x-added": "yes"}},
        "response_headers": {"set": {"x-rule": "on"}, "remove": ["x-made"]},
        "rewrite": {"strip_prefix": True},
        "match": {"prefix": "/api"},
    }
    async with running(app, tables(route=rules)) as gw:
        answer = await gw.get(
            "/api/caf%C3%A9/x%2Dy?a=1&b=%20", headers={"X-One": "1"}, host="shop.example:8080"
        )
    assert (answer.status, answer.body) == (201, b"made")
    assert answer.headers["content-length"] == "4"
    assert answer.headers["x-rule"] == "on"
    assert not {"x-made", "keep-alive", "x-gone", "transfer-encoding"} & set(answer.headers)
    [scope] = seen
    assert scope["asgi"]["version"] == "3.0"
    assert scope["method"] == "GET"
    assert scope["path"] == "/café/x-y"
    assert scope["raw_path"] == b"/caf%C3%A9/x-y"
    assert scope["query_string"] == b"a=1&b=%20"
    assert scope["http_version"] == "1.1"
    assert (scope["scheme"], scope["root_path"]) == ("http", "")
    assert scope["server"] == ("shop.example", 8080)
    assert scope["client"][0] == "127.0.0.1"
    assert scope["client"][1] > 0
    headers = dict(scope["headers"])
    assert headers[b"host"] == b"shop.example:8080"
    assert headers[b"x-forwarded-for"] == b"127.0.0.1"
    assert headers[b"x-forwarded-host"] == b"shop.example:8080"
    assert (headers[b"x-one"], headers[b"x-added"]) == (b"1", b"yes")
    assert b"x-request-id" in headers
    assert b"connection" not in headers


async def test_a_trusted_proxys_word_on_scheme_and_client() -> None:
    seen: list[Scope] = []

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)
        await send(start())
        await send(body())

    config = tables()
    config["listeners"][0]["trusted_proxies"] = ["127.0.0.1"]
    async with running(app, config) as gw:
        await gw.get(
            "/", headers={"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https"}, host="shop.example"
        )
    assert seen[0]["scheme"] == "https"
    assert seen[0]["client"][0] == "203.0.113.7"
    assert seen[0]["server"] == ("shop.example", 443)


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
async def test_bodies_both_ways(size: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    async with running(echo) as gw:
        answer = await gw.post("/", body=data)
        assert answer.body == data
        chunked = await gw.request("POST", "/", headers={"Transfer-Encoding": "chunked"}, body=data)
        assert chunked.body == data


async def test_an_answer_has_its_length_where_it_is_known_at_once() -> None:
    async with running(says(start(), body(b"abc"))) as gw:
        assert (await gw.get("/")).headers["content-length"] == "3"
    async with running(says(start(), body(b"a", more=True), body(b"bc"))) as gw:
        answer = await gw.get("/")
        assert (answer.body, answer.headers["transfer-encoding"]) == (b"abc", "chunked")
    async with running(says(start(204))) as gw:
        assert (await gw.get("/")).code == "upstream-reset"  # the body event is missing
    async with running(says(start(204), body())) as gw:
        answer = await gw.get("/")
        assert (answer.status, answer.body, "content-length" in answer.headers) == (204, b"", False)
    async with running(says(start(200, (b"content-length", b"3")), body(b"abc"))) as gw:
        answer = await gw.head("/")
        assert (answer.status, answer.headers["content-length"], answer.body) == (200, "3", b"")


async def test_one_piece_after_another() -> None:
    """Each goes out when it is there, not when the answer is whole."""
    go = asyncio.Event()

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200, (b"content-type", b"text/event-stream")))
        await send(body(b"data: 1\n\n", more=True))
        await go.wait()
        await send(body(b"data: 2\n\n"))

    async with running(app) as gw:
        host, port = gw.gateway.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert await reader.readuntil(b"data: 1\n\n")
        go.set()
        assert await reader.readuntil(b"data: 2\n\n")
        # The connection stands, and takes the next request.
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert await reader.readuntil(b"data: 2\n\n")
        writer.close()


async def test_an_application_is_held_back_by_a_client_that_does_not_read() -> None:
    sent = 0

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send(start())
        for _ in range(2000):
            await send(body(b"x" * 65536, more=True))
            sent += 65536
        await send(body())

    async with running(app) as gw:
        host, port = gw.gateway.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        before = -1
        while sent != before:
            before = sent
            await asyncio.sleep(0.05)
        assert 0 < sent < 32 * 2**20  # what kernel buffers hold, of 125 MiB
        total = 0
        while total < 2000 * 65536:
            total += len(await reader.read(2**20))
        assert sent == 2000 * 65536
        writer.close()


async def test_a_client_is_held_back_by_an_application_that_does_not_read() -> None:
    go = asyncio.Event()
    got = 0

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal got
        await go.wait()
        more = True
        while more:
            message = await receive()
            got += len(message["body"])
            more = message["more_body"]
        await send(start())
        await send(body(b"%d" % got))

    size = 64 * 2**20
    config = tables()
    config["listeners"][0]["limits"] = {"body": "unlimited"}
    async with running(app, config) as gw:
        host, port = gw.gateway.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
        written = 0

        async def upload() -> None:
            nonlocal written
            while written < size:
                writer.write(b"x" * 65536)
                written += 65536
                await writer.drain()

        uploading = asyncio.create_task(upload())
        await asyncio.wait((uploading,), timeout=0.3)
        assert written < size // 2
        go.set()
        await uploading
        assert (await reader.readuntil(b"%d" % size)).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_100_continue_is_sent_when_the_body_is_asked_for() -> None:
    async with running(echo) as gw:
        host, port = gw.gateway.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        writer.write(b"ok")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        writer.close()


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        pytest.param([start(99), body()], "upstream-syntax", id="status too low"),
        pytest.param([start(101), body()], "upstream-syntax", id="1xx"),
        pytest.param([start(1000), body()], "upstream-syntax", id="status too high"),
        pytest.param([start(200, (b"a b", b"c")), body()], "upstream-syntax", id="name"),
        pytest.param([start(200, (b"a", b"c\r\nx: y")), body()], "upstream-syntax", id="split header"),
        pytest.param([start(200, (b"a", b"\x00")), body()], "upstream-syntax", id="NUL"),
        pytest.param([start(200, (b"content-length", b"x")), body()], "upstream-framing", id="no number"),
        pytest.param(
            [start(200, (b"content-length", b"1"), (b"content-length", b"2")), body(b"a")],
            "upstream-framing", id="two lengths",
        ),
        pytest.param([start(200, (b"content-length", b"3")), body(b"ab")], "upstream-framing", id="short"),
        pytest.param([start(200, (b"content-length", b"1")), body(b"ab")], "upstream-framing", id="long"),
        pytest.param([start(200, (b"a", b"x" * 70_000)), body()], "upstream-header-too-large", id="large"),
        pytest.param([start(200, *[(b"a", b"b")] * 201), body()], "upstream-header-too-large", id="many"),
        pytest.param([body(b"ab")], "upstream-syntax", id="no start"),
        pytest.param([start(), start(), body()], "upstream-syntax", id="two starts"),
        pytest.param([{"type": "http.response.start", "status": "200"}], "upstream-syntax", id="str"),
        pytest.param([{"type": "websocket.accept"}], "upstream-syntax", id="other protocol"),
        pytest.param([start(), {"type": "http.response.body", "body": "text"}], "upstream-syntax", id="text"),
        pytest.param([start()], "upstream-reset", id="no body"),
        pytest.param([], "upstream-reset", id="nothing"),
    ],
)  # fmt: skip
async def test_what_is_no_answer_is_502(messages: list[dict[str, Any]], code: str) -> None:
    async with running(says(*messages)) as gw:
        answer = await gw.get("/")
        assert (answer.status, answer.code) == (502, code)


async def test_transfer_encoding_is_the_gateways_affair() -> None:
    async with running(says(start(200, (b"transfer-encoding", b"chunked")), body(b"a"))) as gw:
        answer = await gw.get("/")
        assert (answer.body, answer.headers["content-length"]) == (b"a", "1")


@pytest.mark.parametrize(
    "late",
    [
        pytest.param([body(b"cd" * 100)], id="more than its length"),
        pytest.param([body()], id="less than its length"),
        pytest.param([], id="no end"),
        pytest.param([{"type": "strange"}], id="no ASGI"),
    ],
)
async def test_an_answer_that_breaks_off_is_cut(late: list[dict[str, Any]]) -> None:
    app = says(start(200, (b"content-length", b"5")), body(b"ab", more=True), *late)
    async with running(app) as gw:
        with pytest.raises(CutShort):
            await gw.get("/")


async def test_an_application_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/late":
            await send(start())
            await send(body(b"a", more=True))
        raise ValueError("a mistake of its own")

    async with running(app) as gw:
        answer = await gw.get("/")
        assert (answer.status, answer.code) == (502, "upstream-reset")
        assert "mistake" not in answer.text
        with pytest.raises(CutShort):
            await gw.get("/late")
    assert [record.levelname for record in caplog.records if record.name == "fastgate.asgi"] == ["ERROR"] * 2
    assert "a mistake of its own" in caplog.text


async def test_the_call_ends_when_the_client_leaves() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with running(app) as gw:
        asking = asyncio.create_task(gw.get("/"))
        await begun.wait()
        asking.cancel()
        async with asyncio.timeout(5):
            await ended.wait()


async def test_who_goes_on_after_its_answer_is_told_that_the_client_is_gone() -> None:
    heard: asyncio.Future[tuple[dict[str, Any], BaseException]] = asyncio.get_running_loop().create_future()

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body())
        message = {"type": "http.request"}
        while message["type"] == "http.request":
            message = await receive()
        try:
            await send(body())
        except OSError as error:
            heard.set_result((message, error))

    async with running(app) as gw:
        assert (await gw.get("/")).status == 200
        message, _ = await heard
        assert message == {"type": "http.disconnect"}


@pytest.mark.parametrize("what", ["head", "idle"])
async def test_timeouts(what: str) -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if what == "idle":
            await send(start())
            await send(body(b"a", more=True))
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with running(app) as gw:
        asking = asyncio.create_task(gw.get("/"))
        await begun.wait()
        await asyncio.sleep(0.02)
        gw.clock.advance(61)
        if what == "idle":
            with pytest.raises(CutShort):
                await asking
        else:
            answer = await asking
            assert (answer.status, answer.code) == (504, "upstream-head-timeout")
        async with asyncio.timeout(5):
            await cancelled.wait()


async def test_a_failed_call_is_retried() -> None:
    calls = 0

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal calls
        calls += 1
        piece = await receive()
        if calls == 1:
            raise ConnectionError
        if calls == 2:
            await send(start(503))
            await send(body(b"busy"))
            return
        await send(start())
        await send(body(piece["body"]))

    retry = {"attempts": 3, "on": ["reset", "status"], "statuses": [503], "backoff_base": "1ms"}
    async with running(app, tables(route={"retry": {"unsafe": "always", **retry}})) as gw:
        answer = await gw.put("/", body=b"again")
        assert (answer.status, answer.body, calls) == (200, b"again", 3)


async def test_fallback_to_and_from_an_application() -> None:
    config = tables(
        route={"upstream": "orders", "fallback": {"on": ["connect-failure"], "upstream": "app"}},
        orders={"endpoints": ["orders.internal:80"]},
    )
    async with running(says(start(), body(b"of the app")), config) as gw:
        gw.upstream("orders").fail("refuse")
        assert (await gw.get("/")).body == b"of the app"
    config["routes"][0] |= {"upstream": "app", "fallback": {"on": ["reset"], "upstream": "orders"}}
    async with running(says(), config) as gw:
        gw.upstream("orders").reply(body="of orders")
        assert (await gw.get("/")).body == b"of orders"


async def test_the_slow_one_of_a_hedged_pair_is_cancelled() -> None:
    hang, cancelled = False, asyncio.Event()

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal hang
        if hang:
            hang = False
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
        await send(start())
        await send(body())

    both = {"endpoints": ["asgi:app", "asgi:two"], "hedge": {"min_delay": "10ms", "max_percent": 100}}
    async with run_gateway(tables(upstream=both), apps={"app": app, "two": app}, real=["app"]) as gw:
        for _ in range(150):  # a hedge wants samples first,
            await gw.get("/")
        gw.clock.advance(2)  # and looks at them now and then
        hang = True
        assert (await gw.get("/")).status == 200
        async with asyncio.timeout(5):
            await cancelled.wait()


async def test_concurrency_is_bounded() -> None:
    go = asyncio.Event()

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await go.wait()
        await send(start())
        await send(body())

    async with running(app, tables(upstream={"pool": {"max_connections": 2}})) as gw:
        asking = [asyncio.create_task(gw.get("/")) for _ in range(3)]
        done, _ = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        assert [task.result().code for task in done] == ["queue-full"]
        go.set()
        assert sorted(answer.status for answer in await asyncio.gather(*asking)) == [200, 200, 503]


async def test_an_upgrade_is_refused() -> None:
    async with running(echo, tables(route={"upgrade": ["websocket"]})) as gw:
        answer = await gw.get("/", headers={"Connection": "upgrade", "Upgrade": "websocket"})
        assert (answer.status, answer.code) == (502, "upstream-upgrade")


async def test_drain_waits_for_what_runs_and_for_what_goes_on_behind_an_answer() -> None:
    begun, done = asyncio.Event(), []

    async def later() -> None:
        await asyncio.sleep(0.05)
        done.append("background")

    async def page(request: Request) -> Response:
        begun.set()
        await asyncio.sleep(0.05)
        return PlainTextResponse("ok", background=BackgroundTask(later))

    app = Starlette(routes=[Route("/", page)])
    gateway = Gateway(tables(), apps={"app": app})
    await gateway.start()
    host, port = gateway.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await begun.wait()
    report = await gateway.drain()
    assert report == dict.fromkeys(report, 0)
    assert (await reader.read()).endswith(b"ok")
    assert done == ["background"]
    writer.close()


async def test_stop_cancels() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    gateway = Gateway(tables(), apps={"app": app})
    await gateway.start()
    host, port = gateway.address.split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await begun.wait()
    report = await gateway.stop()
    assert report.pop("cut") == 1
    assert not any(report.values())
    assert ended.is_set()
    writer.close()


class Slow(Plugin):
    """Looks at each answer for a while before the client does."""

    response_body = "chunks"

    async def on_request(self, exchange: Exchange) -> None:
        await asyncio.sleep(0)
        exchange.request.headers["x-plugin"] = "was here"

    async def on_response(self, exchange: Exchange, response: PluginResponse) -> None:
        await asyncio.sleep(0.01)
        response.headers["x-plugin"] = "was here"

    async def on_response_body(self, exchange: Exchange, chunk: bytes, end: bool) -> bytes:
        await asyncio.sleep(0)
        return chunk.upper()


async def test_plugins_before_an_application() -> None:
    @http
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        for _ in range(20):
            await send(body(b"piece ", more=True))
        await send(body(dict(scope["headers"])[b"x-plugin"]))

    config = tables(route={"plugins": ["slow"]}) | {"plugins": {"slow": {"use": "Slow"}}}
    async with run_gateway(config, apps={"app": app}, real=["app"], plugins=[Slow]) as gw:
        answer = await gw.get("/")
        assert answer.body == b"PIECE " * 20 + b"WAS HERE"
        assert answer.headers["x-plugin"] == "was here"


# -- lifespan


class Lifespan:
    """Remembers what it was told. fails: the message with which it refuses to start."""

    def __init__(self, fails: str = "") -> None:
        self.events: list[str] = []
        self.over = asyncio.Event()
        self.fails = fails

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await send(start())
            await send(body(str(scope["state"].get("pool")).encode()))
            return
        while True:
            kind = (await receive())["type"]
            self.events.append(kind)
            if kind == "lifespan.startup" and self.fails:
                await send({"type": "lifespan.startup.failed", "message": self.fails})
                return
            scope["state"]["pool"] = "open"
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                self.over.set()
                return


async def test_an_application_starts_once_however_many_endpoints_name_it() -> None:
    app = Lifespan()
    config = tables(other={"endpoints": ["asgi:app"]})
    config["routes"].append({"name": "other", "match": {"prefix": "/other"}, "upstream": "other"})
    async with run_gateway(config, apps={"app": app}, real=["app", "other"]) as gw:
        assert app.events == ["lifespan.startup"]
        assert (await gw.get("/")).body == (await gw.get("/other")).body == b"open"
        await gw.reload({**config, "routes": config["routes"][:1]})
        assert app.events == ["lifespan.startup"]
    assert app.events == ["lifespan.startup", "lifespan.shutdown"]


async def test_an_application_that_a_reload_removes_shuts_down() -> None:
    one, two = Lifespan(), Lifespan()
    config = tables()
    gateway = Gateway(config, apps={"app": one, "two": two})
    async with gateway:
        await gateway.reload(tables(upstream={"endpoints": ["asgi:two"]}))
        async with asyncio.timeout(5):
            await one.over.wait()
        assert two.events == ["lifespan.startup"]


async def test_an_application_that_does_not_start_keeps_the_gateway_from_it() -> None:
    before = Lifespan()
    gateway = Gateway(tables(), apps={"app": before, "bad": Lifespan("no database")})
    async with gateway:
        with pytest.raises(ReloadError, match="asgi:bad: it failed: no database"):
            await gateway.reload(tables(upstream={"endpoints": ["asgi:bad"]}))
        assert before.events == ["lifespan.startup"]
    with pytest.raises(OpenError, match="no database"):
        await Gateway(tables(), apps={"app": Lifespan("no database")}).start()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nobody", 'no application "nobody" was given'),
        ("no_such_module_x:app", "ModuleNotFoundError"),
        ("support.gateway:ROOT", "cannot be called"),
        ("support.gateway:nothing", "AttributeError"),
    ],
)
async def test_an_application_that_is_not_there(name: str, words: str) -> None:
    with pytest.raises(OpenError, match=words):
        await Gateway(tables(upstream={"endpoints": [f"asgi:{name}"]})).start()


# -- the real thing


def starlette() -> Starlette:
    async def item(request: Request) -> Response:
        return JSONResponse(
            {"id": request.path_params["id"], "url": str(request.url), "q": request.query_params["q"]}
        )

    async def upload(request: Request) -> Response:
        total = 0
        async for piece in request.stream():
            total += len(piece)
        return PlainTextResponse(str(total))

    async def stream(request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            for index in range(100):
                yield b"%03d\n" % index

        return StreamingResponse(pieces())

    return Starlette(
        routes=[
            Route("/items/{id}", item),
            Route("/upload", upload, methods=["POST"]),
            Route("/stream", stream),
        ]
    )


async def test_starlette() -> None:
    async with running(starlette()) as gw:
        answer = await gw.get("/items/7?q=tea", host="shop.example")
        assert answer.json() == {"id": "7", "url": "http://shop.example/items/7?q=tea", "q": "tea"}
        assert (await gw.post("/upload", body=b"x" * 300_000)).text == "300000"
        assert len((await gw.get("/stream")).body) == 400
        assert (await gw.head("/items/7?q=tea")).status == 200
        assert (await gw.get("/nothing")).status == 404
        assert (await gw.delete("/upload")).status == 405


MODULE = """
started = []

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        started.append(1)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d of %s" % (len(started), scope["raw_path"])})
"""


def test_the_command_serves_a_module_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "shop_app.py").write_text(MODULE)
    options = {"health": {"path": "/healthz", "interval": "100ms"}, "host": "endpoint"}
    config = tables_of("asgi:shop_app:app", upstream_options=options, admin={"bind": "127.0.0.1:0"})
    with Process(config, tmp_path) as gateway:
        with gateway.client() as client:
            assert client.get("/x").body == b"1 of /x"
        gateway.wait_upstream(lambda shown: shown["endpoints"][0]["probe"] == "up")
        gateway.reload(config | {"server": {"drain_timeout": "4s"}})
        with gateway.client() as client:
            assert client.get("/y").body == b"1 of /y"


def test_a_module_that_breaks_is_told(tmp_path: Path) -> None:
    (tmp_path / "broken_app.py").write_text("raise RuntimeError('not today')\n")
    with pytest.raises(AssertionError, match="RuntimeError: not today"):
        Process(tables_of("asgi:broken_app:app"), tmp_path).start()
