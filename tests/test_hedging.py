"""Hedging: a second request beside a slow first one. The first answer wins, whoever is late is abandoned, and
nothing is sent more often than that."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from support import upstream as up
from support.answers import refused
from support.client import request
from support.fleet import Fleet
from support.gateway import Gateway, config
from support.handlers import pattern
from support.upstream import Step

FAST = {"backoff_base": "1ms", "backoff_max": "1ms"}
HEDGE = {"min_delay": "1ms", "quantile": 50, "max_percent": 100}


class World:
    """A gateway before three endpoints: the hedges of "up" are not scarce, those of "scarce" are 2 %."""

    def __init__(self, fleet: Fleet, gateway: Gateway) -> None:
        self.fleet = fleet
        self.gateway = gateway

    def ask(self, target: str = "/up", method: str = "GET") -> Any:
        with self.gateway.client() as client:
            return client.request(request(method, target))

    def learn(self, target: str = "/up", count: int = 25) -> None:
        """So many answers, quick ones: what is slow is known from then on. Each brings a hedge to spend."""
        with self.gateway.client() as client:
            for _ in range(count):
                assert client.get(f"{target}/learn").status == 200
        self.gateway.assert_idle()


@pytest.fixture(scope="module")
def module_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:
        fleet = stack.enter_context(Fleet(3))
        plain = {"endpoints": fleet.addresses, "pool": {"max_idle": 0}, "timeouts": {"head": "3s"}}
        tables = config(
            admin={"bind": "127.0.0.1:0"},
            upstreams={
                "up": {**plain, "hedge": HEDGE},
                "scarce": {**plain, "hedge": {**HEDGE, "max_percent": 2}},
                "sole": {**plain, "endpoints": fleet.addresses[:1], "hedge": HEDGE},
                "capped": {
                    **plain,
                    "endpoints": fleet.addresses[:2],
                    "pool": {"max_idle": 0, "max_requests": 1},
                    "hedge": HEDGE,
                },
                "dead": {
                    **plain,
                    # The one that answers is next nearly always.
                    "endpoints": [
                        f"127.0.0.1:{up.free_port()}",
                        {"address": fleet.addresses[0], "weight": 1000},
                    ],
                    "balance": "round-robin",
                    "hedge": HEDGE,
                    "retry": {**FAST, "on": ["refused"]},
                },
                "kept": {**plain, "pool": {}, "hedge": HEDGE},
            },
            routes=[
                {
                    "name": "retried",
                    "match": {"prefix": "/up/retried"},
                    "upstream": "up",
                    "retry": {**FAST, "on": ["reset", "status", "timeout"], "attempts": 3},
                },
                {
                    "name": "total",
                    "match": {"prefix": "/up/total"},
                    "upstream": "up",
                    "timeouts": {"total": "250ms"},
                },
                *[
                    {"name": name, "match": {"prefix": f"/{name}"}, "upstream": name}
                    for name in ("up", "scarce", "sole", "capped", "dead", "kept")
                ],
            ],
        )
        world = World(fleet, stack.enter_context(Gateway(tables, tmp_path_factory.mktemp("gateway"))))
        for name in ("up", "sole", "capped", "dead", "kept"):
            world.learn(f"/{name}")
        yield world


@pytest.fixture
def world(module_world: World) -> Iterator[World]:
    # Quick answers once more: what the test before was made slow by must not pass for usual.
    module_world.fleet.clear()
    module_world.learn()
    module_world.fleet.clear()
    yield module_world
    module_world.fleet.check()
    module_world.gateway.assert_idle()


def record_of(world: World, since: int) -> Any:
    return world.gateway.wait_log(since)[0]


def endpoints(world: World, target: str) -> list[int]:
    return [one.at for one in world.fleet.deliveries(target)]


def test_the_second_answers_and_the_first_is_abandoned(world: World) -> None:
    world.fleet.script(up.wait_close()).script(up.reply(200, b"quick", "X-From: second"))
    since = world.gateway.mark()
    response = world.ask()
    assert (response.status, response.body, response.all("x-from")) == (200, b"quick", ["second"])
    at = endpoints(world, "/up")
    assert len(at) == len(set(at)) == 2, "two endpoints, each once"
    record = record_of(world, since)
    assert (record["attempts"], record["endpoint"]) == (2, world.fleet[at[1]].address)
    assert (record["status"], record["reason"], record["bytes_out"]) == (200, None, 5)
    assert world.fleet[at[0]].connections[-1].ended.wait(5)


def test_the_first_one_wins_after_all(world: World) -> None:
    answer = threading.Event()
    world.fleet.script(up.wait_for(answer), up.reply(200, b"first")).script(up.wait_close())
    since = world.gateway.mark()
    with world.gateway.client() as client:
        client.send(request(target="/up"))
        world.fleet.wait(2, "/up")
        answer.set()
        assert client.response().body == b"first"
        assert client.get("/up/after").status == 200
    at = endpoints(world, "/up")
    assert len(set(at)) == 2
    assert record_of(world, since)["endpoint"] == world.fleet[at[0]].address


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
def test_methods_that_may_go_twice(world: World, method: str) -> None:
    world.fleet.script(up.wait_close())
    assert world.ask(method=method).status == 200
    assert len(world.fleet.deliveries("/up")) == 2


@pytest.mark.parametrize(
    "data",
    [
        request("POST", "/up"),
        request("PATCH", "/up", body=b""),
        request("POST", "/up", body=b"pay"),
        request("PUT", "/up", body=b"put"),
        request("PUT", "/up", chunks=[b"put"]),
        request("GET", "/up", body=b"get"),
    ],
    ids=["POST", "PATCH", "POST body", "PUT body", "PUT chunked", "GET body"],
)
def test_what_is_sent_once(world: World, data: bytes) -> None:
    """The answer comes long after the moment of a hedge, and a hedged request in between shows that this has
    passed."""
    answer = threading.Event()
    world.fleet.script(up.read_body(), up.wait_for(answer), up.reply(200, b"first"))
    with world.gateway.client() as client:
        client.send(data)
        world.fleet.wait(1, "/up")
        world.fleet.script(up.wait_close())
        assert world.ask("/up/between").status == 200
        answer.set()
        assert client.response().body == b"first"
    assert len(world.fleet.deliveries("/up")) == 1


def test_no_hedge_before_anything_is_known(world: World) -> None:
    """And as many as max_percent afterwards: of 100 requests it earns two."""
    target = "/scarce"
    answer = threading.Event()

    def slow(count: int) -> int:
        """Slow requests, one after the other; how many were hedged."""
        before = len(world.fleet.deliveries(target))
        for _ in range(count):
            answer.clear()
            with world.gateway.client() as client:
                world.fleet.script(up.wait_for(answer), up.reply(200, b"slow"))
                client.send(request(target=target))
                world.fleet.wait(before + 1, target)
                world.fleet.script(up.wait_close())  # this moment has passed when this one is hedged
                assert world.ask("/up/between").status == 200
                answer.set()
                assert client.response().status == 200
        return len(world.fleet.deliveries(target)) - before - count

    assert slow(1) == 0
    world.learn(target, 30)
    assert slow(1) == 0, "31 requests have earned less than one"
    world.learn(target, 68)
    time.sleep(0.3)  # what is slow is looked up ten times a second, and nobody is told
    for _ in range(2):
        world.fleet.script(up.wait_close())
        assert world.ask(f"{target}/hedged").status == 200
    assert len(world.fleet.deliveries(f"{target}/hedged")) == 4
    assert slow(1) == 0, "all are spent"


FAILURES: dict[str, tuple[Step, ...]] = {
    "reset": (up.reset(),),
    "garbage": (up.send(b"nonsense\r\n\r\n"), up.wait_close()),
    "503": (up.reply(503, b"busy"),),
    "500": (up.reply(500, b"broken"),),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_hedge_that_fails_leaves_the_first_alone(world: World, failure: str) -> None:
    """A server error, too: without the hedge the client would have seen none."""
    failed, answer = threading.Event(), threading.Event()
    world.fleet.script(up.wait_for(answer), up.reply(200, b"first"))
    world.fleet.script(up.tell(failed), *FAILURES[failure])
    since = world.gateway.mark()
    with world.gateway.client() as client:
        client.send(request(target="/up"))
        assert failed.wait(5)
        world.gateway.wait_upstream(lambda shown: sum(one["active"] for one in shown["endpoints"]) == 1)
        answer.set()
        assert client.response().body == b"first"
    record = record_of(world, since)
    assert (record["attempts"], record["reason"]) == (2, None)
    assert record["endpoint"] == world.fleet[endpoints(world, "/up")[0]].address


def test_a_client_error_of_the_hedge_is_an_answer(world: World) -> None:
    world.fleet.script(up.wait_close()).script(up.reply(404, b"no"))
    assert world.ask().status == 404


@pytest.mark.parametrize("second", ["200", "503", "reset"])
@pytest.mark.parametrize("first", ["reset", "garbage"])
def test_the_first_fails_while_the_hedge_is_under_way(world: World, first: str, second: str) -> None:
    """It is waited for; when it fails as well there is one answer."""
    ready, go = threading.Event(), threading.Event()
    world.fleet.script(up.wait_for(ready), *FAILURES[first])
    steps = {"200": (up.reply(200, b"second"),), **FAILURES}[second]
    world.fleet.script(up.tell(ready), up.wait_for(go), *steps)
    since = world.gateway.mark()
    with world.gateway.client() as client:
        client.send(request(target="/up"))
        assert ready.wait(5)
        world.gateway.wait_upstream(lambda shown: sum(one["active"] for one in shown["endpoints"]) == 1)
        go.set()
        response = client.response()
        assert client.get("/up/after").status == 200, "one answer, and the connection is in order"
    record = record_of(world, since)
    assert record["attempts"] == 2
    if second == "reset":
        refused(response, "upstream-reset" if first == "reset" else "upstream-syntax")
    else:
        assert response.status == int(second)
        assert record["reason"] is None


def test_a_retry_behind_both_and_a_hedge_beside_the_retry(world: World) -> None:
    """Both fail, the retry is hedged, its hedge fails: the retry goes on, and nothing is sent twice."""
    first, second = threading.Event(), threading.Event()
    hedged, answer = threading.Event(), threading.Event()
    target = "/up/retried"
    world.fleet.script(up.wait_for(first), up.reset())
    world.fleet.script(up.tell(first), up.wait_for(second), up.reset())
    world.fleet.script(up.wait_for(answer), up.reply(200, b"third"))
    world.fleet.script(up.tell(hedged), up.reset())
    since = world.gateway.mark()
    with world.gateway.client() as client:
        client.send(request(target=target))
        assert first.wait(5)
        world.gateway.wait_upstream(lambda shown: sum(one["active"] for one in shown["endpoints"]) == 1)
        second.set()
        assert hedged.wait(5)
        world.gateway.wait_upstream(lambda shown: sum(one["active"] for one in shown["endpoints"]) == 1)
        answer.set()
        assert client.response().body == b"third"
    assert len(world.fleet.deliveries(target)) == record_of(world, since)["attempts"] == 4


def test_an_answer_to_retry_while_the_hedge_is_under_way(world: World) -> None:
    """The hedge is abandoned, the retry goes on as it would have without it."""
    hedged = threading.Event()
    world.fleet.script(up.wait_for(hedged), up.reply(503, b"busy"))
    world.fleet.script(up.tell(hedged), up.wait_close())
    world.fleet.script(up.reply(200, b"third"))
    assert world.ask("/up/retried").body == b"third"
    assert len(world.fleet.deliveries("/up/retried")) == 3


def test_the_race_on_a_kept_connection_beside_a_hedge(world: World) -> None:
    """The first one's connection turns out to be dead when the hedge is under way: that is the replay, and
    the request does not go out a third time."""
    for index in range(3):
        with world.gateway.client() as client:
            assert client.get(f"/kept/warm/{index}").status == 200
    ready, go = threading.Event(), threading.Event()
    world.fleet.script(up.wait_for(ready), up.reset())
    world.fleet.script(up.tell(ready), up.wait_for(go), up.reply(200, b"second"))
    with world.gateway.client() as client:
        client.send(request(target="/kept"))
        assert ready.wait(5)
        world.gateway.wait_upstream(
            lambda shown: sum(one["active"] for one in shown["endpoints"]) == 1, "kept"
        )
        go.set()
        assert client.response().body == b"second"
        assert client.get("/kept/after").status == 200
    assert len(world.fleet.deliveries("/kept")) == 2


def test_no_room_for_a_hedge(world: World) -> None:
    """The other endpoint may take no more: the first one is waited for."""
    busy, answer, release = threading.Event(), threading.Event(), threading.Event()
    world.fleet.script(up.tell(busy), up.wait_for(release), up.reply(200, b"holds"))
    with world.gateway.client() as holder, world.gateway.client() as client:
        holder.send(request("POST", "/capped/holder"))
        assert busy.wait(5)
        world.fleet.script(up.wait_for(answer), up.reply(200, b"first"))
        client.send(request(target="/capped"))
        world.fleet.wait(1, "/capped")
        world.fleet.script(up.wait_close())
        assert world.ask("/up/between").status == 200
        answer.set()
        assert client.response().body == b"first"
        release.set()
        assert holder.response().body == b"holds"
    assert len(world.fleet.deliveries("/capped")) == 1


def test_a_hedge_that_reaches_nobody(world: World) -> None:
    """The other endpoint refuses connections."""
    answer = threading.Event()
    world.fleet.script(up.wait_for(answer), up.reply(200, b"first"))
    with world.gateway.client() as client:
        client.send(request(target="/dead"))
        world.fleet.wait(1, "/dead")
        world.fleet.script(up.wait_close())
        assert world.ask("/up/between").status == 200
        answer.set()
        assert client.response().body == b"first"
    assert len(world.fleet.deliveries("/dead")) == 1


def test_a_sole_endpoint_is_asked_twice(world: World) -> None:
    world.fleet.script(up.wait_close()).script(up.reply(200, b"second"))
    assert world.ask("/sole").body == b"second"


# -- the hedge's answer on its way to the client

LARGE = 20_000_000


def test_a_large_answer_meets_back_pressure(world: World) -> None:
    """The client does not read: the hedge's endpoint can't send on, and the gateway does not gather."""
    body = pattern(LARGE)
    sent, seen = threading.Event(), world.gateway.memory()
    world.fleet.script(up.wait_close())
    world.fleet.script(
        up.send(b"HTTP/1.1 200 X\r\nContent-Length: %d\r\n\r\n" % LARGE), up.send(body), up.tell(sent)
    )
    with world.gateway.client(receive_buffer=65536) as client:
        client.send(request(target="/up"))
        assert client.head().status == 200
        assert not sent.wait(0.3), "the pause is the fault: nobody reads"
        assert world.gateway.memory() - seen < LARGE / 2
        assert client.stream.exactly(LARGE, "body") == body
        assert client.get("/up/after").status == 200


def test_trailers_of_the_hedge(world: World) -> None:
    world.fleet.script(up.wait_close())
    world.fleet.script(
        up.send(b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-From: second\r\n\r\n")
    )
    with world.gateway.client() as client:
        response = client.request(request(target="/up", TE="trailers", Connection="TE"))
    assert (response.body, response.trailers) == (b"ok", (("X-From", "second"),))


def test_the_hedges_answer_is_cut(world: World) -> None:
    world.fleet.script(up.wait_close())
    world.fleet.script(up.send(b"HTTP/1.1 200 X\r\nContent-Length: 10\r\n\r\nhalf"), up.reset())
    since = world.gateway.mark()
    with world.gateway.client() as client:
        client.send(request(target="/up"))
        client.cut_response()
    assert record_of(world, since)["reason"] == "upstream-truncated"


def test_the_total_deadline_ends_both(world: World) -> None:
    world.fleet.script(up.wait_close()).script(up.wait_close())
    refused(world.ask("/up/total"), "total-timeout")
    assert len(world.fleet.deliveries("/up/total")) == 2


@pytest.mark.parametrize("when", ["both wait", "the hedge answers"])
def test_the_client_leaves(world: World, when: str) -> None:
    started = threading.Event()
    world.fleet.script(up.wait_close())
    if when == "both wait":
        world.fleet.script(up.tell(started), up.wait_close())
    else:
        head = up.send(b"HTTP/1.1 200 X\r\nContent-Length: 100\r\n\r\npart")
        world.fleet.script(head, up.tell(started), up.wait_close())
    since = world.gateway.mark()
    with world.gateway.client() as client:
        client.send(request(target="/up"))
        assert started.wait(5)
        if when != "both wait":
            assert client.head().status == 200
    record = record_of(world, since)
    assert record["reason"] == "client-gone"
    assert record["status"] == (499 if when == "both wait" else 200)
    world.gateway.assert_idle()
