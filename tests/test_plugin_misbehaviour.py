"""Plugins that do what nobody asked of them: the exchange, its neighbours and the gateway come through."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from fastgate import Gateway, ReloadError
from fastgate.plugins import Consumer, Exchange, Headers, Host, Plugin, Request, Response
from fastgate.server.plugins import PluginError
from fastgate.testing import GatewayUnderTest, Seen, run_gateway

Hook = Callable[..., Any]


def plugin(name: str = "made", /, **hooks: Any) -> type[Plugin]:
    """A class with these hooks, and what else it has."""
    return type(name, (Plugin,), hooks)


def tables(*classes: type[Plugin], **route: Any) -> dict[str, Any]:
    options: dict[str, Any] = route.pop("options", {})
    upstreams = {name: {"endpoints": [f"{name}.internal:80"]} for name in ("a", "b")}
    for name, more in route.pop("upstreams", {}).items():
        upstreams[name].update(more)
    names = [each.__name__ for each in classes]
    return {
        "access_log": {"enabled": False},
        "listeners": [{"bind": "127.0.0.1:0"}],
        "upstreams": upstreams,
        "routes": [{"name": "all", "upstream": "a", "plugins": names, **route}],
        "plugins": {name: {"use": name, **options.get(name, {})} for name in names},
    }


def running(*classes: type[Plugin], **route: Any) -> Any:
    return run_gateway(tables(*classes, **route), plugins=classes)


async def connect(gw: GatewayUnderTest) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = gw.gateway.address.rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def exchanged(gw: GatewayUnderTest, *pieces: bytes | Callable[[], Awaitable[Any]]) -> bytes:
    """All that one connection is answered, whose last request says `Connection: close`."""
    reader, writer = await connect(gw)
    for piece in pieces:
        if isinstance(piece, bytes):
            writer.write(piece)
            await writer.drain()
        else:
            await piece()
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    return answer


async def pause() -> None:
    """So that what follows is a read of its own."""
    await asyncio.sleep(0.02)


def request(method: str, target: str, *lines: str, body: bytes = b"") -> bytes:
    fields = ["Host: x", "Connection: close", *lines]
    if body:
        fields.append(f"Content-Length: {len(body)}")
    return "\r\n".join([f"{method} {target} HTTP/1.1", *fields, "", ""]).encode() + body


# -- bodies that are read in part


@pytest.mark.parametrize("later", ["nothing", "again", "answers", "fails"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_read_that_is_given_up_loses_nothing(later: str, framing: str) -> None:
    gave_up = asyncio.Event()

    async def on_request(self: Plugin, exchange: Exchange) -> Response | None:
        reading = asyncio.ensure_future(exchange.request.read())
        await asyncio.sleep(0.05)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        gave_up.set()
        if later == "again":
            exchange.request.headers["x-read"] = (await exchange.request.read()).decode()
        elif later == "answers":
            return Response(409)
        elif later == "fails":
            raise ValueError("as asked")
        return None

    async def second(self: Plugin, exchange: Exchange) -> None:
        exchange.request.headers["x-second"] = (await exchange.request.read()).decode()

    first, next_one = plugin("first", on_request=on_request), plugin("next_one", on_request=second)
    options = {"first": {"on_failure": "open" if later == "fails" else "closed"}}
    async with running(first, next_one, options=options) as gw:
        pieces = [b"abc", b"def", b"ghi"]
        if framing == "length":
            head = request("POST", "/", "Content-Length: 9")
        else:
            head = request("POST", "/", "Transfer-Encoding: chunked")
            pieces = [b"3\r\n%b\r\n" % piece for piece in pieces]
            pieces[-1] += b"0\r\n\r\n"
        answer = await exchanged(gw, head + pieces[0], pause, pieces[1], gave_up.wait, pieces[2])
        seen = gw.upstream("a").requests
        if later == "answers":
            assert answer.startswith(b"HTTP/1.1 409 ")
            assert not seen
            return
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert (seen[0].body, seen[0].headers["x-second"]) == (b"abcdefghi", "abcdefghi")
        assert seen[0].headers.get("x-read") == ("abcdefghi" if later == "again" else None)


async def test_of_two_readers_one_may_leave() -> None:
    async def on_request(self: Plugin, exchange: Exchange) -> Response:
        one, two = (asyncio.ensure_future(exchange.request.read()) for _ in range(2))
        await asyncio.sleep(0)
        one.cancel()
        return Response(200, body=await two)

    async with running(plugin(on_request=on_request)) as gw:
        answer = await exchanged(gw, request("POST", "/", "Content-Length: 6") + b"abc", pause, b"def")
        assert answer.endswith(b"abcdef")


async def test_a_hook_that_gave_up_reading_has_its_budget_again() -> None:
    async def on_request(self: Plugin, exchange: Exchange) -> None:
        try:
            async with asyncio.timeout(0.01):
                await exchange.request.read()
        except TimeoutError:
            await asyncio.Event().wait()

    async with running(plugin(on_request=on_request), options={"made": {"timeout": "60ms"}}) as gw:
        answer = await exchanged(gw, request("POST", "/", "Content-Length: 6") + b"abc")
        assert b'"code":"plugin-timeout"' in answer


@pytest.mark.parametrize("framing", ["length", "chunked", "at once"])
async def test_report_only_lets_a_body_pass_that_is_too_long(framing: str) -> None:
    async def on_request(self: Plugin, exchange: Exchange) -> None:
        exchange.request.headers["x-before"] = "yes"
        await exchange.request.read(4)
        raise AssertionError("it is longer than that")

    async def second(self: Plugin, exchange: Exchange) -> None:
        exchange.request.headers["x-second"] = str(len(await exchange.request.read()))

    for options, wanted in (({"report_only": True}, 200), ({}, 413)):
        made, next_one = plugin("made", on_request=on_request), plugin("next_one", on_request=second)
        async with running(made, next_one, options={"made": options}) as gw:
            if framing == "chunked":
                head = request("POST", "/", "Transfer-Encoding: chunked")
                parts: list[Any] = [
                    head + b"3\r\nabc\r\n",
                    lambda: asyncio.sleep(0.02),
                    b"3\r\ndef\r\n0\r\n\r\n",
                ]
            elif framing == "length":
                parts = [request("POST", "/", "Content-Length: 6"), pause, b"abcdef"]
            else:
                parts = [request("POST", "/", body=b"abcdef")]
            answer = await exchanged(gw, *parts)
            assert answer.startswith(b"HTTP/1.1 %d " % wanted)
            if wanted == 200:
                [seen] = gw.upstream("a").requests
                assert (seen.body, seen.headers["x-second"], seen.headers["x-before"]) == (
                    b"abcdef",
                    "6",
                    "yes",
                )
                assert gw.count()["plugins"]["made"] == {"reported": 1}
            else:
                assert b'"code":"body-too-large"' in answer


# -- hooks that end what is not theirs to end


class Strange(BaseException):
    pass


@pytest.mark.parametrize(
    "error", [SystemExit(3), asyncio.CancelledError(), GeneratorExit(), Strange("x")], ids=repr
)
@pytest.mark.parametrize("phase", ["on_request", "on_response", "on_response_body", "on_error", "on_log"])
@pytest.mark.parametrize("late", [False, True])
async def test_whatever_a_hook_raises_is_its_own_failure(
    error: BaseException, phase: str, late: bool
) -> None:
    async def hook(self: Plugin, exchange: Exchange, *more: Any) -> Any:
        if late:
            await asyncio.sleep(0)
        if exchange.request.path == "/bad":
            raise error
        return more[0] if phase == "on_response_body" else None

    async with running(plugin(response_body="buffered", **{phase: hook})) as gw:
        gw.upstream("a").reply(200, body="fine")
        if phase == "on_error":
            gw.upstream("a").fail("reset", times=1)
        bad = b"GET /bad HTTP/1.1\r\nHost: x\r\n\r\n"
        answer = await exchanged(gw, bad + request("GET", "/good"))
        first, _, second = answer.partition(b"HTTP/1.1 200 " if phase != "on_log" else b"fine")
        assert (b'"code":"plugin-failed"' in first) == (phase != "on_log")
        assert second.endswith(b"fine")
        assert not any((await gw.gateway.drain(5)).values())


async def test_a_log_hook_that_fails_each_time_is_left_alone() -> None:
    called = 0

    def on_log(self: Plugin, exchange: Exchange) -> None:
        nonlocal called
        called += 1
        raise ValueError("as asked")

    async with running(plugin(on_log=on_log)) as gw:
        for _ in range(25):
            assert (await gw.get("/")).status == 200
        assert called == 20
        gw.clock.advance(5)
        assert (await gw.get("/")).status == 200
        assert called == 21


async def test_the_breaker_learns_nothing_of_a_client_that_left() -> None:
    async def on_request(self: Plugin, exchange: Exchange) -> None:
        if exchange.request.path == "/raise":
            raise ValueError("as asked")
        hangs.set()
        await asyncio.Event().wait()

    def told(self: Plugin, exchange: Exchange) -> None:
        ended.set()

    hangs, ended = asyncio.Event(), asyncio.Event()
    async with running(plugin("tells", on_log=told), plugin(on_request=on_request)) as gw:

        async def leave() -> None:
            hangs.clear()
            ended.clear()
            _, writer = await connect(gw)
            writer.write(request("GET", "/hang"))
            await hangs.wait()
            writer.transport.abort()
            await ended.wait()

        for _ in range(19):
            assert (await gw.get("/raise")).code == "plugin-failed"
        await leave()
        assert (await gw.get("/raise")).code == "plugin-failed"
        assert (await gw.get("/raise")).code == "plugin-breaker-open"
        gw.clock.advance(5)
        await leave()  # the one that was let try
        assert (await gw.get("/raise")).code == "plugin-breaker-open"


@pytest.mark.parametrize("what", ["init", "exit", "cancel"])
async def test_a_plugin_that_can_not_be_made_ready_changes_nothing(what: str) -> None:
    def init(self: Plugin, config: Any, name: str) -> None:
        raise ValueError("no such thing")

    async def provision(self: Plugin, host: Host) -> None:
        raise SystemExit("gone") if what == "exit" else asyncio.CancelledError

    broken = plugin("broken", **({"__init__": init} if what == "init" else {"provision": provision}))
    said = {"init": "no such thing", "exit": "SystemExit", "cancel": "CancelledError"}[what]
    with pytest.raises(PluginError, match=f"plugin broken: {said}"):
        await Gateway(tables(broken), plugins=[broken]).start()
    fixed = {**tables(), "upstreams": {}, "routes": [{"name": "all", "respond": {"body": "one"}}]}
    async with Gateway(fixed, plugins=[broken]) as gateway:
        with pytest.raises(ReloadError, match=f"plugin broken: {said}"):
            await gateway.reload(tables(broken))
        assert gateway.explain("GET", "/").route == "all"


async def test_background_work_that_wants_to_end_the_program(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        raise SystemExit

    def provision(self: Plugin, host: Host) -> None:
        host.spawn(work(), "work")

    async with running(plugin(provision=provision)) as gw:
        assert (await gw.get("/")).status == 200
        assert "work has failed" in caplog.text


# -- answers


async def test_one_response_for_many_exchanges() -> None:
    async def refuse(self: Any, exchange: Exchange) -> Response:
        return denied

    def on_response(self: Plugin, exchange: Exchange, response: Response) -> None:
        response.headers.add("set-cookie", f"of={exchange.request.path}")
        if exchange.request.path == "/2":
            response.status = 404

    denied = Response(403, body="no", headers={"x-why": "asked"})
    async with running(plugin("adds", on_response=on_response), plugin("refuses", on_request=refuse)) as gw:
        for path, status in (("/1", 403), ("/2", 404), ("/3", 403)):
            answer = await gw.get(path)
            assert (answer.status, answer.body, answer.headers["x-why"]) == (status, b"no", "asked")
            assert answer.headers.get_all("set-cookie") == [f"of={path}"]
        assert (denied.status, denied.headers.items()) == (
            403,
            [("x-why", "asked"), ("content-type", "text/plain; charset=utf-8")],
        )


@pytest.mark.parametrize("phase", ["on_request", "on_response", "on_error"])
async def test_an_answer_that_streams_is_nobody_elses(phase: str) -> None:
    # Its length says how much follows, and nothing would: the client would take the next answer for it.
    kept: list[Response] = []

    def give(self: Plugin, exchange: Exchange, *more: Any) -> Response | None:
        kept.extend(each for each in more if isinstance(each, Response))
        return kept[0] if kept and exchange.request.path == "/second" else None

    def keep(self: Plugin, exchange: Exchange, response: Response) -> None:
        kept.append(response)

    async with running(plugin(**({"on_response": keep} | {phase: give}))) as gw:
        gw.upstream("a").reply(200, body="of the first")
        assert (await gw.get("/first")).body == b"of the first"
        if phase == "on_error":
            gw.upstream("a").fail("refuse")
        assert (await gw.get("/second")).code == "plugin-failed"


async def test_an_uninitialised_response_is_none() -> None:
    def on_request(self: Plugin, exchange: Exchange) -> Response:
        return Response.__new__(Response)

    async with running(plugin(on_request=on_request)) as gw:
        assert (await gw.get("/")).code == "plugin-failed"


@pytest.mark.parametrize("status", [204, 205, 304])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_answers_that_have_no_body(status: int, method: str) -> None:
    # RFC 9110 15.3.5, 15.3.6, 15.4.5.
    def on_request(self: Plugin, exchange: Exchange) -> Response | None:
        return Response(status, body="one") if exchange.request.path == "/none" else None

    async with running(plugin(on_request=on_request)) as gw:
        gw.upstream("a").reply(200, body="next")
        first = f"{method} /none HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        answer = await exchanged(gw, first + request("GET", "/"))
        head, _, rest = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert rest.startswith(b"HTTP/1.1 200 ")
        if status == 205 and method == "GET":
            assert b"content-length: 0" in head.lower()


async def test_heads_that_are_gone_are_not_changed_in_silence() -> None:
    said: list[str] = []

    def attempt(change: Callable[[], Any]) -> None:
        with pytest.raises(RuntimeError) as caught:
            change()
        said.append(str(caught.value))

    class Late(Plugin):
        response_body = "chunks"

        def on_response(self, exchange: Exchange, response: Response) -> None:
            attempt(lambda: exchange.request.headers.add("x", "y"))
            attempt(lambda: exchange.request.headers.__setitem__("x", "y"))
            attempt(lambda: exchange.request.headers.__delitem__("host-x"))

        def on_response_body(self, exchange: Exchange, chunk: bytes, end: bool) -> bytes:
            response = exchange.response
            assert response is not None
            attempt(lambda: response.headers.add("x", "y"))
            attempt(lambda: setattr(response, "status", 201))
            attempt(lambda: setattr(response, "body", b""))
            return chunk

    async with running(Late) as gw:
        gw.upstream("a").reply(200, body="x")
        assert (await gw.get("/")).status == 200
    assert set(said) == {"only on_request changes the request", "the answer's head is on its way already"}


async def test_nothing_of_an_exchange_waits_for_the_collector() -> None:
    class Holds(Plugin):
        async def on_request(self, exchange: Exchange) -> Response | None:
            exchange.context["headers"] = exchange.request.headers
            exchange.request.headers["x"] = "y"
            return exchange.refuse(403, "no") if exchange.request.path == "/no" else None

        def on_response(self, exchange: Exchange, response: Response) -> None:
            exchange.context["more"] = response.headers
            response.headers["x-more"] = "z"

    def alive() -> int:
        return sum(isinstance(each, Response | Headers | Request | Exchange) for each in gc.get_objects())

    async with running(Holds) as gw:
        gc.collect()
        before = alive()
        gc.disable()
        try:
            for path in ("/", "/no", "/", "/no"):
                await gw.get(path)
            assert alive() == before
        finally:
            gc.enable()


# -- requests


async def test_an_upgrade_gets_no_body() -> None:
    def on_request(self: Plugin, exchange: Exchange) -> None:
        exchange.request.body = b"GET /inside HTTP/1.1\r\n\r\n"

    async with running(plugin(on_request=on_request), upgrade=["websocket"]) as gw:
        lines = ("Connection: upgrade", "Upgrade: websocket")
        answer = await exchanged(gw, request("GET", "/", *lines))
        assert b'"code":"plugin-failed"' in answer
        assert gw.upstream("a").requests == []


async def test_methods_that_do_not_fit_the_request() -> None:
    def on_request(self: Plugin, exchange: Exchange) -> None:
        exchange.request.method = exchange.request.headers["x-method"]

    async with running(plugin(on_request=on_request)) as gw:
        answer = await exchanged(gw, request("OPTIONS", "*", "X-Method: GET"))
        assert b'"code":"plugin-failed"' in answer
        answer = await exchanged(gw, request("GET", "/", "X-Method: OPTIONS", "Max-Forwards: 0"))
        assert answer.startswith(b"HTTP/1.1 200 ")
        [seen] = gw.upstream("a").requests
        assert (seen.method, seen.headers["max-forwards"]) == ("OPTIONS", "0")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"path": "/a/é"}, "percent-encoded"),
        ({"path": "/a b"}, "is no path"),
        ({"path": "a"}, "is no path"),
        ({"path": "/a\r\nX: y"}, "is no path"),
        ({"path": "/a\0"}, "target-syntax"),
        ({"path": "/a#b"}, "target-syntax"),
        ({"method": "CONNECT"}, "is no method"),
        ({"method": "GET /x"}, "is no method"),
        ({"timeout": float("inf")}, "is no timeout"),
        ({"timeout": float("nan")}, "is no timeout"),
        ({"timeout": -1}, "is no timeout"),
        ({"limit": -1}, "is no limit"),
        ({"headers": {"Host": "a b"}}, "host-syntax"),
        ({"headers": {"x": "a\r\nb: c"}}, "control characters"),
        ({"headers": {"x y": "a"}}, "is no header name"),
        ({"headers": {":path": "a"}}, "is no header name"),
        ({"headers": {"Content-Length": "1"}}, "set by the gateway itself"),
        ({"headers": {"Transfer-Encoding": "chunked"}}, "set by the gateway itself"),
    ],
    ids=repr,
)
async def test_subrequests_that_are_none(options: dict[str, Any], said: str) -> None:
    async def on_request(self: Plugin, exchange: Exchange) -> Response:
        with pytest.raises(ValueError, match=said):
            await exchange.subrequest("b", **options)
        with pytest.raises(ValueError, match=said):
            await self.host.subrequest("b", **options)  # type: ignore[attr-defined]
        return Response(200, body="refused")

    def provision(self: Any, host: Host) -> None:
        self.host = host

    async with running(plugin(on_request=on_request, provision=provision)) as gw:
        assert (await gw.get("/")).body == b"refused"
        assert gw.upstream("b").requests == []


async def test_mirrors_of_requests_that_a_plugin_has_changed() -> None:
    # The route would not match any more what a copy is made of: its captures are of the path that came.
    async def on_request(self: Plugin, exchange: Exchange) -> None:
        exchange.request.method = "PUT"
        exchange.request.headers["x-kind"] = "other"

    async def first_waits(seen: Seen) -> int:
        await go_on.wait()
        return 200

    go_on = asyncio.Event()
    match = {"path": "/users/{id}", "methods": ["GET"], "headers": {"x-kind": "this"}}
    async with running(
        plugin(on_request=on_request),
        match=match,
        rewrite={"path": "/v2/{id}"},
        mirror={"upstream": "b"},
        upstreams={"b": {"pool": {"max_connections": 1}}},
    ) as gw:
        gw.upstream("b").handle(first_waits)
        for name in ("%61bc", "%62bc", "%63bc", "%64bc"):
            # Not in normal form: it lies in memory of its exchange alone, which the next one takes over while
            # the copy still waits for its connection.
            await exchanged(gw, request("GET", f"/x/../users/{name}", "X-Kind: this"))
        go_on.set()
        copies = await gw.upstream("b").received(4)
        wanted = [("PUT", f"/v2/{name}bc") for name in "abcd"]
        assert [(seen.method, seen.path) for seen in copies] == wanted
        assert [(seen.method, seen.path) for seen in gw.upstream("a").requests] == wanted


async def test_shared_values_are_those_of_the_plugin_that_asks() -> None:
    done = asyncio.Event()

    async def first(self: Plugin, exchange: Exchange) -> None:
        await asyncio.sleep(0.01)
        await exchange.shared.set("whose", b"first", 10)
        found.append(await exchange.shared.get("whose"))
        done.set()

    async def second(self: Plugin, exchange: Exchange) -> None:
        found.append(await exchange.shared.get("whose"))
        await exchange.shared.set("whose", b"second", 10)

    found: list[bytes | None] = []
    async with running(plugin("first", on_log=first), plugin("second", on_log=second)) as gw:
        await gw.get("/")
        await done.wait()
        await gw.get("/")
        assert found[:3] == [None, b"first", b"second"]


async def test_a_consumer_that_is_none_changes_nothing() -> None:
    async def on_request(self: Plugin, exchange: Exchange) -> None:
        for wrong in ({"name": 7}, {"name": "ann", "plan": 7}):
            with pytest.raises(TypeError):
                exchange.consumer = Consumer(**wrong)
        assert exchange.consumer is None

    configured = tables(plugin(on_request=on_request))
    configured["routes"][0]["plugins"].append("anns")
    configured["plugins"]["anns"] = {"use": "rate-limit", "rate": "1/h", "consumers": ["ann"]}
    async with run_gateway(configured, plugins=[plugin(on_request=on_request)]) as gw:
        assert [(await gw.get("/")).status for _ in range(2)] == [200, 200]
