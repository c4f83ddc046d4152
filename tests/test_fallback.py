"""What answers when a route's upstream fails: another upstream, or a fixed answer; and nothing twice."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from conftest import StartGateway, StartUpstream
from support import upstream as up
from support.answers import reason_of, refused
from support.client import request
from support.fleet import Fleet
from support.gateway import Gateway, config
from support.upstream import Connection, Step

FAST = {"backoff_base": "1ms", "backoff_max": "1ms"}
EVERY = ["no-endpoint", "connect-failure", "reset", "timeout", "overload", "status"]
SAY = {"status": 200, "body": "sorry", "content_type": "text/plain", "headers": {"X-Sorry": "yes"}}


class World:
    """A gateway before the upstream "up", which fails, and "spare"; both play the scripts of their own."""

    def __init__(self, main: Fleet, spare: Fleet, gateway: Gateway) -> None:
        self.main = main
        self.spare = spare
        self.gateway = gateway

    def ask(self, data: bytes) -> Any:
        with self.gateway.client() as client:
            return client.request(data)


@pytest.fixture(scope="module")
def module_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:
        directory = tmp_path_factory.mktemp("gateway")
        (directory / "nobody.json").write_text('{"endpoints": []}')
        main, spare = stack.enter_context(Fleet(1)), stack.enter_context(Fleet(1))
        plain = {"endpoints": main.addresses, "pool": {"max_idle": 0}, "timeouts": {"head": "120ms"}}
        dead: dict[str, Any] = {"endpoints": [f"127.0.0.1:{up.free_port()}"]}
        upstreams: dict[str, Any] = {
            "up": plain,
            "nobody": {"endpoints_file": str(directory / "nobody.json")},
            "dead": dead,
            "busy": {**plain, "timeouts": {"head": "5s"}, "breaker": {"max_requests": 1}},
            "narrow": {**plain, "timeouts": {"head": "5s"}, "concurrency": {"limit": 1, "queue": 0}},
            "spare": {"endpoints": spare.addresses, "pool": {"max_idle": 0}},
        }
        of = {"no-endpoint": "nobody", "connect-failure": "dead", "overload": "busy"}

        def route(name: str, upstream: str, **options: Any) -> dict[str, Any]:
            return {"name": name, "match": {"prefix": f"/{name}/"}, "upstream": upstream, **options}

        def ways(name: str, upstream: str, **fallback: Any) -> list[dict[str, Any]]:
            return [
                route(f"{name}-up", upstream, fallback={**fallback, "upstream": "spare"}),
                route(f"{name}-say", upstream, fallback={**fallback, "respond": SAY}),
            ]

        routes = [
            *[each for on in EVERY for each in ways(on, of.get(on, "up"), on=[on])],
            # Everything else is named: it does not count for this one.
            *[
                each
                for on in EVERY
                for each in ways(f"not-{on}", of.get(on, "up"), on=[other for other in EVERY if other != on])
            ],
            *ways("narrow", "narrow", on=["overload"]),
            route("twice", "up", fallback={"on": ["status"], "upstream": "dead"}),
            route(
                "retried",
                "up",
                fallback={"on": ["status"], "upstream": "spare"},
                retry={**FAST, "on": ["status"], "attempts": 3},
            ),
            route(
                "always",
                "up",
                fallback={"on": ["status", "reset"], "upstream": "spare"},
                retry={**FAST, "on": ["timeout"], "unsafe": "always"},
            ),
            route(
                "total",
                "up",
                fallback={"on": EVERY, "respond": SAY},
                timeouts={"total": "70ms"},
            ),
        ]
        tables = config(admin={"bind": "127.0.0.1:0"}, upstreams=upstreams, routes=routes)
        yield World(main, spare, stack.enter_context(Gateway(tables, directory)))


@pytest.fixture
def world(module_world: World) -> Iterator[World]:
    module_world.main.clear()
    module_world.spare.clear()
    yield module_world
    module_world.main.check()
    module_world.spare.check()
    module_world.gateway.assert_idle()


FAILURES: dict[str, tuple[Step, ...]] = {
    "no-endpoint": (),
    "connect-failure": (),
    "overload": (),
    "reset": (up.read_body(), up.reset()),
    "timeout": (up.read_body(), up.wait_close()),
    "status": (up.read_body(), up.reply(503, b"busy")),
}
REASON = {
    "no-endpoint": "no-endpoint",
    "connect-failure": "connect-refused",
    "overload": "breaker-limit",
    "reset": "upstream-reset",
    "timeout": "upstream-head-timeout",
    "status": "status 503",
}


@contextmanager
def failing(world: World, failure: str) -> Iterator[None]:
    """The route's upstream fails in this way meanwhile."""
    if FAILURES[failure]:
        world.main.script(*FAILURES[failure])
        yield
    elif failure == "overload":
        release = threading.Event()
        world.main.script(up.wait_for(release), up.reply())
        with world.gateway.client() as holder:
            holder.send(request(target="/overload-up/holder"))
            world.main.wait(1, "/overload-up/holder")
            yield
            release.set()
            assert holder.response().status == 200
    else:
        yield


@pytest.mark.parametrize("failure", EVERY)
def test_another_upstream_answers(world: World, failure: str) -> None:
    since = world.gateway.mark()
    with failing(world, failure):
        response = world.ask(request(target=f"/{failure}-up/x"))
        assert response.json()["target"] == f"/{failure}-up/x"
        record = world.gateway.wait_log(since)[0]
    assert (record["status"], record["reason"]) == (200, None)
    assert (record["upstream"], record["endpoint"]) == ("spare", world.spare[0].address)
    assert record["detail"] == f"fallback: {REASON[failure]}"
    assert len(world.spare.deliveries()) == 1


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
@pytest.mark.parametrize("failure", EVERY)
def test_a_fixed_answer(world: World, failure: str, method: str) -> None:
    """Nothing is sent for it, so it is for any method."""
    since = world.gateway.mark()
    with failing(world, failure):
        body = b"pay" if method == "POST" else None
        response = world.ask(request(method, f"/{failure}-say/x", body=body))
        assert (response.status, response.get("x-sorry")) == (200, "yes")
        assert response.body == (b"" if method == "HEAD" else b"sorry")
        assert reason_of(response) == "fallback-response"
        record = world.gateway.wait_log(since)[0]
    assert (record["status"], record["reason"]) == (200, "fallback-response")
    assert record["upstream"] != "spare"
    assert record["detail"] == f"fallback: {REASON[failure]}"


@pytest.mark.parametrize("way", ["up", "say"])
@pytest.mark.parametrize("failure", EVERY)
def test_a_failure_that_is_not_named(world: World, failure: str, way: str) -> None:
    with failing(world, failure):
        response = world.ask(request(target=f"/not-{failure}-{way}/x"))
        if failure == "status":
            assert (response.status, response.body) == (503, b"busy")
        else:
            refused(response, REASON[failure])
    assert not world.spare.deliveries()


@pytest.mark.parametrize("failure", EVERY)
def test_a_post_is_never_sent_twice(world: World, failure: str) -> None:
    """It goes to the other upstream only if nobody has seen it yet."""
    with failing(world, failure):
        response = world.ask(request("POST", f"/{failure}-up/x", body=b"pay"))
    delivered = [one for fleet in (world.main, world.spare) for one in fleet.deliveries(f"/{failure}-up/x")]
    assert [one.request.body for one in delivered] == [b"pay"]
    if FAILURES[failure]:
        assert response.status == {"reset": 502, "timeout": 504, "status": 503}[failure]
        assert not world.spare.deliveries()
    else:
        assert response.json()["body"] == "pay"


@pytest.mark.parametrize("failure", ["reset", "status"])
def test_a_post_of_which_the_route_says_so(world: World, failure: str) -> None:
    world.main.script(*FAILURES[failure])
    assert world.ask(request("POST", "/always/x", body=b"pay")).json()["body"] == "pay"
    assert [one.request.body for one in world.spare.deliveries()] == [b"pay"]


def test_a_full_concurrency_limit_is_an_overload(world: World) -> None:
    release = threading.Event()
    world.main.script(up.wait_for(release), up.reply())
    with world.gateway.client() as holder:
        holder.send(request(target="/narrow-up/holder"))
        world.main.wait(1)
        assert world.ask(request("POST", "/narrow-up/x", body=b"pay")).json()["body"] == "pay"
        assert world.ask(request(target="/narrow-say/x")).body == b"sorry"
        release.set()
        assert holder.response().status == 200


def test_the_rest_of_a_body_follows_to_the_other_upstream(world: World) -> None:
    failed = threading.Event()
    world.main.script(up.read_some(3), up.tell(failed), up.reset())
    with world.gateway.client() as client:
        client.send(request("PUT", "/always/x", lines=("Content-Length: 6",)) + b"abc")
        assert failed.wait(5)
        world.spare.wait(1)
        client.send(b"def")
        assert client.response().json()["body"] == "abcdef"
        assert client.get("/always/after").status == 200


def test_retries_come_first(world: World) -> None:
    for _ in range(3):
        world.main.script(*FAILURES["status"])
    since = world.gateway.mark()
    assert world.ask(request(target="/retried/x")).status == 200
    record = world.gateway.wait_log(since)[0]
    assert (record["attempts"], record["upstream"]) == (4, "spare")
    assert (len(world.main.deliveries()), len(world.spare.deliveries())) == (3, 1)


def test_there_is_no_second_fallback(world: World) -> None:
    """The fallback's own failure is the answer, and the log shows it."""
    world.main.script(*FAILURES["status"])
    since = world.gateway.mark()
    refused(world.ask(request(target="/twice/x")), "connect-refused")
    record = world.gateway.wait_log(since)[0]
    assert (record["upstream"], record["reason"]) == ("dead", "connect-refused")


def test_no_fallback_when_the_time_is_up(world: World) -> None:
    world.main.script(up.wait_close())
    refused(world.ask(request(target="/total/x")), "total-timeout")


def test_the_client_leaves_while_the_fallback_is_under_way(world: World) -> None:
    started = threading.Event()
    world.main.script(*FAILURES["status"])
    world.spare.script(up.tell(started), up.wait_close())
    since = world.gateway.mark()
    with world.gateway.client() as client:
        client.send(request(target="/status-up/x"))
        assert started.wait(5)
    assert world.gateway.wait_log(since)[0]["reason"] == "client-gone"


def test_what_may_have_arrived_is_not_sent_to_a_second_upstream(
    start_gateway: StartGateway, start_upstream: StartUpstream
) -> None:
    """A PUT whose kept-alive connection was closed is sent once more (RFC 9110 9.2.2); that this one reaches
    nobody does not prove that the first did not."""
    main, spare = start_upstream(), start_upstream()

    def vanish(connection: Connection) -> None:
        main.refuse()
        connection.close()

    main.script(up.reply(200, b"ok")).script(vanish)
    gateway = start_gateway(
        config(
            upstreams={"up": {"endpoints": [main.address]}, "spare": {"endpoints": [spare.address]}},
            route={"fallback": {"on": ["connect-failure"], "upstream": "spare"}},
        )
    )
    with gateway.client() as client:
        assert client.get().status == 200
        refused(client.request(request("PUT", "/thing", body=b"new")), "connect-refused")
    assert spare.requests == []
