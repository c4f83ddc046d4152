"""Mirroring: the shadow gets the same request, its answer is nobody's, nothing it does is noticed."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from conftest import StartGateway
from support import upstream as up
from support.client import chunked, request
from support.fleet import Fleet
from support.gateway import Gateway, config
from support.handlers import pattern
from support.upstream import Connection, Step


def mirrored(name: str, shadow: str = "shadow", *, upstream: str = "up", **mirror: Any) -> dict[str, Any]:
    return {
        "name": name,
        "match": {"prefix": f"/{name}"},
        "upstream": upstream,
        "mirror": {"upstream": shadow, **mirror},
    }


class World:
    """A gateway before "up" and a shadow; both play the scripts of their own."""

    def __init__(self, main: Fleet, shadow: Fleet, gateway: Gateway) -> None:
        self.main = main
        self.shadow = shadow
        self.gateway = gateway

    def ask(self, data: bytes) -> Any:
        with self.gateway.client() as client:
            return client.request(data)


@pytest.fixture(scope="module")
def module_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:
        main, shadow = stack.enter_context(Fleet(1)), stack.enter_context(Fleet(1))
        directory = tmp_path_factory.mktemp("gateway")
        (directory / "nobody.json").write_text('{"endpoints": []}')
        silent = stack.enter_context(up.full_backlog())
        tables = config(
            admin={"bind": "127.0.0.1:0"},
            upstreams={
                "up": {"endpoints": main.addresses},
                "one": {"endpoints": main.addresses, "pool": {"max_connections": 1}},
                "spare": {"endpoints": main.addresses},
                "shadow": {"endpoints": shadow.addresses, "timeouts": {"head": "100ms", "idle": "100ms"}},
                "patient": {"endpoints": shadow.addresses},
                "capped": {"endpoints": shadow.addresses, "concurrency": {"limit": 1, "queue": 1}},
                "dead": {"endpoints": [f"127.0.0.1:{up.free_port()}"]},
                "silent": {"endpoints": [silent], "timeouts": {"connect": "100ms"}},
                "nobody": {"endpoints_file": str(directory / "nobody.json")},
            },
            routes=[
                mirrored("all"),
                mirrored("none", percent=0),
                mirrored("half", percent=50),
                mirrored("small", body_limit="1KiB"),
                mirrored("three", "patient", max_active=3),
                mirrored("capped", "capped"),
                mirrored("dead", "dead"),
                mirrored("silent", "silent"),
                mirrored("nobody", "nobody"),
                mirrored("gone", upstream="dead"),
                mirrored("one", upstream="one"),
                {**mirrored("total", "patient"), "timeouts": {"total": "150ms"}},
                {
                    **mirrored("retried"),
                    "retry": {"backoff_base": "1ms", "on": ["status"], "unsafe": "always"},
                },
                {
                    **mirrored("rewritten"),
                    "rewrite": {"prefix": "/new"},
                    "request_headers": {"set": {"X-Set": "yes"}},
                },
            ],
        )
        yield World(main, shadow, stack.enter_context(Gateway(tables, directory)))


@pytest.fixture
def world(module_world: World) -> Iterator[World]:
    module_world.main.clear()
    module_world.shadow.clear()
    yield module_world
    module_world.gateway.assert_idle()
    module_world.main.check()
    module_world.shadow.check()


def pair(world: World, target: str) -> tuple[Any, Any]:
    """The request and its copy, both whole."""
    world.gateway.assert_idle()
    (first,), (copy,) = world.main.deliveries(target), world.shadow.wait(1, target)
    return first.request, copy.request


REQUESTS: dict[str, bytes] = {
    "GET": request(target="/all/%7euser//x?q=1&r=%20", Accept="text/*", Cookie="a=1; b=2"),
    "HEAD": request("HEAD", "/all"),
    "DELETE": request("DELETE", "/all"),
    "OPTIONS": request("OPTIONS", "/all"),
    "two lines of one name": request(target="/all", lines=("X-A: 1", "X-A: 2", "x-b: \xe9")),
    "HTTP/1.0": request(target="/all", version="1.0"),
    "length": request("POST", "/all", body=b"hello"),
    "no length": request("POST", "/all", body=b""),
    "long": request("PUT", "/all", body=pattern(65536)),
    "chunked": request("POST", "/all", chunks=[b"hello", b" ", b"world"]),
    "no chunks": request("POST", "/all", chunks=[]),
    "trailers": request("POST", "/all", chunks=[])[:-5] + chunked(b"hello", trailers=b"X-Sum: 1\r\n"),
    "rewritten": request("POST", "/rewritten/x?q=1", body=b"hello"),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_the_copy_is_the_request(world: World, name: str) -> None:
    method = REQUESTS[name].split(b" ", 1)[0].decode()
    assert world.ask(REQUESTS[name]).status == 200
    world.shadow.wait(1)
    world.gateway.assert_idle()
    (first,), (copy,) = world.main.deliveries(), world.shadow.deliveries()
    assert copy.request.head == first.request.head
    assert copy.request.body == first.request.body
    assert copy.request.trailers == first.request.trailers
    assert copy.request.complete
    assert copy.request.method == method


@pytest.mark.parametrize("coding", ["length", "chunked"])
def test_a_body_in_pieces(world: World, coding: str) -> None:
    part, rest = (b"5\r\nhello\r\n", b"1\r\n!\r\n0\r\n\r\n") if coding == "chunked" else (b"hello", b"!")
    line = "Transfer-Encoding: chunked" if coding == "chunked" else "Content-Length: 6"
    with world.gateway.client() as client:
        client.send(request("POST", "/all", lines=(line,)) + part)
        world.main.wait(1)
        client.send(rest)
        assert client.response().json()["body"] == "hello!"
    first, copy = pair(world, "/all")
    assert first.body == copy.body == b"hello!"


def test_a_body_that_is_whole_before_there_is_a_connection(world: World) -> None:
    release = threading.Event()
    world.main.script(up.wait_for(release), up.reply())
    with world.gateway.client() as holder, world.gateway.client() as client:
        holder.send(request(target="/one/holder"))
        world.main.wait(1)
        client.send(request("POST", "/one", chunks=[b"hello", b"!"]))
        world.shadow.wait(1, "/one")
        release.set()
        assert holder.response().status == 200
        assert client.response().json()["body"] == "hello!"
    first, copy = pair(world, "/one")
    assert first.body == copy.body == b"hello!"


def test_percent(world: World) -> None:
    with world.gateway.client() as client:
        for name in ("none", "half", "all"):
            for number in range(200):
                assert client.get(f"/{name}/{number}").status == 200
            world.gateway.assert_idle()
    came = [one.request.target.split("/")[1] for one in world.shadow.deliveries()]
    assert came.count("none") == 0
    assert 44 < came.count("half") < 156, "8 standard deviations"
    assert came.count("all") == 200


@pytest.mark.parametrize("coding", ["length", "chunked"])
@pytest.mark.parametrize(("size", "copied"), [(1024, True), (1025, False)])
def test_body_limit(world: World, size: int, copied: bool, coding: str) -> None:
    body = pattern(size)
    data = (
        request("POST", "/small", body=body)
        if coding == "length"
        else request("POST", "/small", chunks=[body[:1000], body[1000:]])
    )
    assert world.ask(data).json()["body"] == body.decode("latin-1")
    assert world.ask(request(target="/small/after")).status == 200
    world.shadow.wait(1, "/small/after")
    world.gateway.assert_idle()
    assert [one.request.body for one in world.shadow.deliveries("/small")] == ([body] if copied else [])


def test_max_active(world: World) -> None:
    """What is too much is not copied, and not put off either."""
    release = threading.Event()
    world.shadow.default = (up.wait_for(release), up.reply())
    with world.gateway.client() as client:
        for number in range(8):
            assert client.get(f"/three/{number}").status == 200
        world.shadow.wait(3)
        release.set()
        world.gateway.assert_idle()
        assert client.get("/three/after").status == 200
    world.shadow.wait(1, "/three/after")
    assert len(world.shadow.deliveries()) == 4


LARGE = 5_000_000
ANSWERS: dict[str, tuple[Step, ...]] = {
    "500": (up.reply(500, b"broken"),),
    "503": (up.reply(503, b"busy", "Retry-After: 1"),),
    "redirect": (up.reply(302, b"", "Location: /elsewhere"),),
    "cookie": (up.reply(200, b"", "Set-Cookie: shadow=1"),),
    "reset": (up.reset(),),
    "close": (up.close(),),
    "garbage": (up.send(b"nonsense\r\n\r\n"), up.wait_close()),
    "hangs": (up.wait_close(),),
    "hangs in the head": (up.send(b"HTTP/1.1 200 OK\r\nX: "), up.wait_close()),
    "hangs in the body": (up.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"), up.wait_close()),
    "cut": (up.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"), up.reset()),
    "large": (up.reply(200, pattern(LARGE)),),
    "interim": (up.send(b"HTTP/1.1 103 Early\r\nLink: </x>\r\n\r\n"), up.reply()),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_whatever_the_shadow_answers(world: World, name: str) -> None:
    """The client has its answer while the shadow still has the request."""
    begun, go = threading.Event(), threading.Event()
    world.shadow.script(up.read_body(), up.tell(begun), up.wait_for(go), *ANSWERS[name])
    since = world.gateway.mark()
    with world.gateway.client() as client:
        response = client.request(request("POST", "/total/x", body=b"hello"))
        assert response.json()["body"] == "hello"
        assert not response.all("set-cookie") + response.all("location")
        assert not response.interim
        assert begun.wait(5)
        assert client.get("/none/meanwhile").status == 200
        go.set()
        world.gateway.assert_idle()
        assert client.get("/none/after").status == 200
    records = world.gateway.wait_log(since, 3)
    assert [(record["path"], record["status"], record["upstream"]) for record in records] == [
        ("/total/x", 200, "up"),
        ("/none/meanwhile", 200, "up"),
        ("/none/after", 200, "up"),
    ], "a copy is not logged"


@pytest.mark.parametrize("name", ["dead", "silent", "nobody"])
@pytest.mark.parametrize("body", [None, b"hello"])
def test_a_shadow_that_is_not_there(world: World, name: str, body: bytes | None) -> None:
    with world.gateway.client() as client:
        for _ in range(5):
            assert client.request(request("PUT", f"/{name}", body=body)).status == 200
    world.gateway.assert_idle()


def test_an_answer_without_end(world: World) -> None:
    """As long as the route's time allows."""
    stop = threading.Event()

    def drip(connection: Connection) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        up.trickle(b"1\r\nx\r\n" * 1000, 6, 0.01, stop)(connection)

    world.shadow.script(drip)
    assert world.ask(request(target="/total")).status == 200
    world.shadow.wait(1)
    world.gateway.assert_idle()
    stop.set()


def test_the_shadows_own_limits_hold(world: World) -> None:
    """Its queue is as long as it is; who finds no place in it is not copied."""
    release = threading.Event()
    world.shadow.default = (up.wait_for(release), up.reply())
    with world.gateway.client() as client:
        for number in range(5):
            assert client.get(f"/capped/{number}").status == 200
        release.set()
        world.gateway.assert_idle()
    assert 1 <= len(world.shadow.deliveries()) <= 2


def test_a_request_that_is_not_answered_is_copied(world: World) -> None:
    assert world.ask(request("POST", "/gone", body=b"pay")).status == 502
    assert world.shadow.wait(1)[0].request.body == b"pay"


def test_a_retried_request_is_copied_once(world: World) -> None:
    world.main.script(up.read_body(), up.reply(503))
    with world.gateway.client() as client:
        client.send(request("POST", "/retried", lines=("Content-Length: 6",)) + b"hello")
        world.main.wait(1)
        client.send(b"!")
        assert client.response().json()["body"] == "hello!"
    world.shadow.wait(1)
    world.gateway.assert_idle()
    assert [one.request.body for one in world.main.deliveries()] == [b"hello!"] * 2
    assert [one.request.body for one in world.shadow.deliveries()] == [b"hello!"]


def test_a_client_that_leaves_takes_no_copy_with_it(world: World) -> None:
    """Its request was sent: the shadow shall see what the service has seen."""
    begun = threading.Event()
    world.main.script(up.tell(begun), up.wait_close())
    since = world.gateway.mark()
    with world.gateway.client() as client:
        client.send(request(target="/all"))
        assert begun.wait(5)
    assert world.gateway.wait_log(since)[0]["reason"] == "client-gone"
    assert world.shadow.wait(1)[0].request.complete


def test_an_unfinished_request_is_not_copied(world: World) -> None:
    since = world.gateway.mark()
    with world.gateway.client() as client:
        client.send(request("POST", "/all", lines=("Content-Length: 6",)) + b"hello")
        world.main.wait(1)
    assert world.gateway.wait_log(since)[0]["reason"] == "client-gone"
    assert not world.shadow.deliveries()


# -- the end


def test_a_drain_waits_for_no_mirror(start_gateway: StartGateway) -> None:
    """The drain's time is longer than the fixture's patience: it ends at once, or not at all. A body that
    ends during the drain is not copied any more."""
    with Fleet(1) as main, Fleet(1) as shadow:
        shadow.default = (up.read_body(), up.wait_close())
        gateway = start_gateway(
            config(
                server={"drain_timeout": "2m"},
                upstreams={"up": {"endpoints": main.addresses}, "shadow": {"endpoints": shadow.addresses}},
                routes=[mirrored("all")],
            )
        )
        with gateway.client() as client, gateway.client() as late:
            assert client.get("/all").status == 200
            shadow.wait(1)
            late.send(request("POST", "/all/late", lines=("Content-Length: 6",)) + b"hello")
            main.wait(1, "/all/late")
            gateway.terminate()
            client.ended()
            late.send(b"!")
            response = late.response()
            assert json.loads(response.body)["body"] == "hello!"
            late.ended()
        gateway.wait_stopped()
        assert len(shadow.deliveries()) == 1
