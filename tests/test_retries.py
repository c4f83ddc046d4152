"""What becomes of an exchange whose attempts fail: who is asked again, how often, with what, and never twice
where once was promised. Deliveries are counted where they arrive."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from conftest import StartGateway
from support import upstream as up
from support.answers import refused
from support.client import Client, chunked, request
from support.faults import FaultProxy, Faults
from support.fleet import Fleet
from support.gateway import Gateway, config, parse_address
from support.upstream import Connection, Step
from support.wire import ConnectionEnded

ALL = ["connect-failure", "refused", "reset", "timeout", "status"]
FAST = {"backoff_base": "1ms", "backoff_max": "1ms"}  # below the grain of the timers: no pause at all
NO_REUSE = {"max_idle": 0}  # every attempt has a connection of its own: nothing is the keep-alive race


def retrying(name: str, upstream: str = "up", *, route: dict[str, Any] | None = None, **retry: Any) -> Any:
    return {
        "name": name,
        "match": {"prefix": f"/{name}"},
        "upstream": upstream,
        "retry": {**FAST, **retry},
        **(route or {}),
    }


class World:
    """One gateway with many routes, before three endpoints and one that refuses every connection."""

    def __init__(self, fleet: Fleet, gateway: Gateway) -> None:
        self.fleet = fleet
        self.gateway = gateway

    def ask(self, data: bytes) -> Any:
        with self.gateway.client() as client:
            return client.request(data)


@pytest.fixture(scope="module")
def module_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:
        fleet = stack.enter_context(Fleet(3))
        silent = stack.enter_context(up.full_backlog())
        near = {"region": "here"}
        spare = [{"address": address, "region": "there"} for address in fleet.addresses]
        dead = [{"address": f"127.0.0.1:{up.free_port()}", **near}]
        tables = config(
            admin={"bind": "127.0.0.1:0"},
            server={"region": "here"},
            upstreams={
                "up": {"endpoints": fleet.addresses, "pool": NO_REUSE, "timeouts": {"head": "3s"}},
                # Whoever is in our region comes first: the first attempt is always the one that fails.
                "dead": {"endpoints": dead + spare, "pool": NO_REUSE, "regions": {"order": ["there"]}},
                "silent": {
                    "endpoints": [{"address": silent, **near}, *spare],
                    "pool": NO_REUSE,
                    "timeouts": {"connect": "100ms"},
                },
                "alone": {"endpoints": [dead[0]["address"]]},
                "judged": {
                    "endpoints": fleet.addresses,
                    "pool": NO_REUSE,
                    "outlier": {
                        "consecutive_gateway_errors": 1,
                        "consecutive_errors": 0,
                        "base_ejection": "1m",
                    },
                },
                "own": {
                    "endpoints": fleet.addresses,
                    "pool": NO_REUSE,
                    "retry": {**FAST, "on": ["status"], "statuses": [500]},
                },
            },
            routes=[
                *[retrying(f"on-{name}", on=[name], per_try_timeout="80ms") for name in ALL],
                retrying("all", on=ALL),
                retrying("three", attempts=3, on=["status"]),
                retrying("five", attempts=5, on=["status"]),
                retrying("key", on=ALL, unsafe="idempotency-key"),
                retrying("always", on=ALL, unsafe="always"),
                retrying("small", on=ALL, unsafe="always", body_limit="1KiB"),
                retrying("none", on=ALL, unsafe="always", body_limit="0B"),
                *[retrying(f"dead-{name}", "dead", on=[name]) for name in ALL],
                retrying("silent-connect-failure", "silent", on=["connect-failure"]),
                retrying("silent-refused", "silent", on=["refused", "timeout", "reset"]),
                retrying("alone", "alone", attempts=4, on=ALL),
                retrying("total", on=ALL, attempts=10, route={"timeouts": {"total": "300ms"}}),
                retrying(
                    "tries",
                    on=ALL,
                    attempts=10,
                    per_try_timeout="50ms",
                    route={"timeouts": {"total": "300ms"}},
                ),
                {
                    "name": "judged",
                    "match": {"prefix": "/judged"},
                    "upstream": "judged",
                    "timeouts": {"total": "60ms"},
                },
                {"name": "own", "match": {"prefix": "/own"}, "upstream": "own"},
                {"name": "off", "upstream": "up"},
            ],
        )
        yield World(fleet, stack.enter_context(Gateway(tables, tmp_path_factory.mktemp("gateway"))))


@pytest.fixture
def world(module_world: World) -> Iterator[World]:
    module_world.fleet.clear()
    yield module_world
    module_world.fleet.check()
    module_world.gateway.assert_idle()


def bodies(fleet: Fleet) -> list[tuple[bytes, Any]]:
    return [(one.request.body, one.request.trailers) for one in fleet.deliveries()]


# -- which failures

FAILURES: dict[str, tuple[str, str, tuple[Step, ...]]] = {
    "reset": ("reset", "upstream-reset", (up.reset(),)),
    "close": ("reset", "upstream-reset", (up.close(),)),
    "reset in the head": ("reset", "upstream-reset", (up.send(b"HTTP/1.1 200 OK\r\nConte"), up.reset())),
    "reset behind an interim answer": (
        "reset",
        "upstream-reset",
        (up.send(b"HTTP/1.1 103 Early\r\n\r\n"), up.reset()),
    ),
    "hangs": ("timeout", "upstream-head-timeout", (up.wait_close(),)),
    "503": ("status", "", (up.reply(503, b"busy"),)),
    "502": ("status", "", (up.reply(502, b"busy"),)),
    "500": ("-", "", (up.reply(500, b"broken"),)),
    "garbage": ("-", "upstream-syntax", (up.send(b"nonsense\r\n\r\n"), up.wait_close())),
}


@pytest.mark.parametrize("on", ALL)
@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_is_retried_if_it_is_named(world: World, failure: str, on: str) -> None:
    condition, reason, steps = FAILURES[failure]
    world.fleet.script(*steps)
    since = world.gateway.mark()
    response = world.ask(request(target=f"/on-{on}"))
    record = world.gateway.wait_log(since)[0]
    deliveries = world.fleet.deliveries()
    if on == condition:
        assert response.json()["target"] == f"/on-{on}"
        assert len({one.at for one in deliveries}) == len(deliveries) == 2, "another endpoint"
        last = world.fleet[deliveries[-1].at].address
        assert (record["attempts"], record["endpoint"], record["reason"]) == (2, last, None)
    else:
        assert len(deliveries) == record["attempts"] == 1
        if reason:
            refused(response, reason)
        else:
            assert response.status == int(failure)
            assert response.body in (b"busy", b"broken")
        assert record["reason"] == (reason or None)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
@pytest.mark.parametrize("on", ALL)
def test_what_reached_nobody_is_retried_for_any_method(world: World, on: str, method: str) -> None:
    """A refused connection is a connect failure, too."""
    since = world.gateway.mark()
    body = b"x" * 200_000 if method == "POST" else None  # more than is kept of what has been sent
    response = world.ask(request(method, f"/dead-{on}", body=body))
    record = world.gateway.wait_log(since)[0]
    if on in ("connect-failure", "refused"):
        assert response.json()["method"] == method
        assert [one.request.body for one in world.fleet.deliveries()] == [body or b""]
        assert record["attempts"] == 2
    else:
        refused(response, "connect-refused")
        assert not world.fleet.deliveries()
        assert record["attempts"] == 1


def test_a_connect_timeout_is_a_connect_failure_and_no_timeout(world: World) -> None:
    assert world.ask(request("POST", "/silent-connect-failure", body=b"pay")).json()["body"] == "pay"
    refused(world.ask(request(target="/silent-refused")), "connect-timeout")
    assert len(world.fleet.deliveries()) == 1


def test_a_sole_endpoint_is_asked_again(world: World) -> None:
    since = world.gateway.mark()
    refused(world.ask(request("POST", "/alone", body=b"pay")), "connect-refused")
    assert world.gateway.wait_log(since)[0]["attempts"] == 4


def test_an_upstreams_own_policy_and_none(world: World) -> None:
    world.fleet.script(up.reply(500, b"no"))
    assert world.ask(request(target="/own")).status == 200
    world.fleet.script(up.reply(503, b"no"))
    assert world.ask(request(target="/off")).status == 503
    assert len(world.fleet.deliveries()) == 3


# -- how often, and where


@pytest.mark.parametrize(("route", "tries"), [("three", 3), ("five", 5)])
def test_attempts_are_bounded_and_the_last_answer_is_passed_on(world: World, route: str, tries: int) -> None:
    for number in range(tries):
        world.fleet.script(up.reply(503, b"%d" % number, f"X-Try: {number}"))
    since = world.gateway.mark()
    response = world.ask(request(target=f"/{route}"))
    assert (response.status, response.body) == (503, b"%d" % (tries - 1))
    assert response.all("x-try") == [str(tries - 1)]
    deliveries = world.fleet.deliveries()
    assert len(deliveries) == world.gateway.wait_log(since)[0]["attempts"] == tries
    assert {one.at for one in deliveries[:3]} == {0, 1, 2}, "everybody once, before anybody twice"


# -- which requests


@pytest.mark.parametrize("failure", ["reset", "503"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"])
def test_safe_methods_alone(world: World, method: str, failure: str) -> None:
    world.fleet.script(up.read_body(), *FAILURES[failure][2])
    body = b"hello" if method in ("POST", "PUT", "PATCH") else None
    response = world.ask(request(method, "/all", body=body))
    safe = method in ("GET", "HEAD", "OPTIONS")
    assert response.status == (200 if safe else 502 if failure == "reset" else 503)
    assert len(world.fleet.deliveries()) == (2 if safe else 1)


@pytest.mark.parametrize(
    ("lines", "again"),
    [
        ((), False),
        (('Idempotency-Key: "8e03978e"',), True),
        (("idempotency-key: 8e03978e",), True),
        (("Idempotency-Key:",), False),
        (('Idempotency-Key: ""',), False),
        (("Idempotency-Key: a", "Idempotency-Key: b"), False),
    ],
)
@pytest.mark.parametrize("failure", ["reset", "503"])
def test_an_idempotency_key(world: World, lines: tuple[str, ...], again: bool, failure: str) -> None:
    world.fleet.script(up.read_body(), *FAILURES[failure][2])
    response = world.ask(request("POST", "/key", body=b"pay", lines=lines))
    assert response.status == (200 if again else 502 if failure == "reset" else 503)
    deliveries = world.fleet.deliveries()
    assert [one.request.body for one in deliveries] == [b"pay"] * (2 if again else 1)
    keys = {tuple(one.request.all("idempotency-key")) for one in deliveries}
    assert len(keys) == 1, "the same key each time"


@pytest.mark.parametrize("failure", ["reset", "503"])
def test_always(world: World, failure: str) -> None:
    world.fleet.script(up.read_body(), *FAILURES[failure][2])
    assert world.ask(request("POST", "/always", body=b"pay")).json()["body"] == "pay"
    assert len(world.fleet.deliveries()) == 2


# -- the request's body


@pytest.mark.parametrize("failure", ["reset", "503"])
@pytest.mark.parametrize("coding", ["length", "chunked"])
@pytest.mark.parametrize(
    ("route", "size", "again"),
    [
        ("small", 1024, True),
        ("small", 1025, False),
        ("none", 0, True),
        ("none", 1, False),
        ("always", 65536, True),
        ("always", 65537, False),
    ],
)
def test_a_body_is_sent_again_up_to_a_limit(
    world: World, route: str, size: int, again: bool, coding: str, failure: str
) -> None:
    body = os.urandom(size)
    world.fleet.script(up.read_body(), *FAILURES[failure][2])
    data = (
        request("POST", f"/{route}", body=body)
        if coding == "length"
        else request("POST", f"/{route}", chunks=[])[:-5]
        + chunked(
            *([body[: size // 2], body[size // 2 :]] if size > 1 else [body] if size else []),
            trailers=b"X-Sum: 1\r\n",
        )
    )
    response = world.ask(data)
    assert response.status == (200 if again else 502 if failure == "reset" else 503)
    trailers = (("X-Sum", "1"),) if coding == "chunked" else ()
    assert bodies(world.fleet) == [(body, trailers)] * (2 if again else 1)


def test_the_limit_holds_for_what_was_announced(world: World) -> None:
    """The failure comes before the body has."""
    world.fleet.script(up.reset())
    with world.gateway.client() as client:
        client.send(request("POST", "/small", lines=("Content-Length: 1025",)) + b"x")
        refused(client.response(), "upstream-reset")
    assert len(world.fleet.deliveries()) == 1


@pytest.mark.parametrize("coding", ["length", "chunked"])
@pytest.mark.parametrize("failure", ["reset", "503"])
def test_a_failure_in_the_middle_of_the_body(world: World, coding: str, failure: str) -> None:
    """What has been sent is sent again, and the rest goes on behind it."""
    failed = threading.Event()
    part = b"5\r\nhello\r\n" if coding == "chunked" else b"hello"
    world.fleet.script(up.read_some(len(part)), up.tell(failed), *FAILURES[failure][2])
    lines = ("Transfer-Encoding: chunked",) if coding == "chunked" else ("Content-Length: 11",)
    with world.gateway.client() as client:
        client.send(request("POST", "/always", lines=lines) + part)
        assert failed.wait(5)
        world.fleet.wait(2)
        client.send(b"6\r\n world\r\n0\r\n\r\n" if coding == "chunked" else b" world")
        assert client.response().json()["body"] == "hello world"
        assert client.get("/off").status == 200, "the connection is in order"


@contextmanager
def stopped(gateway: Gateway) -> Iterator[None]:
    """What happens meanwhile is found by the gateway all at once, in its order."""
    os.kill(gateway.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(gateway.pid, signal.SIGCONT)


def test_a_body_that_no_connection_took_is_not_doubled(start_gateway: StartGateway) -> None:
    """The idle connection is dead before it takes a byte, the new one ends behind the request: the third
    try has the body once."""
    with Fleet(1) as fleet:
        gateway = start_gateway(
            config(
                fleet.addresses,
                upstream_options={"pool": {"idle_timeout": "1m"}},
                route={"retry": {**FAST, "unsafe": "always", "on": ["reset"]}},
            )
        )
        cut = threading.Event()
        fleet.script(up.echo(), up.wait_for(cut), up.reset())
        with gateway.client() as client:
            assert client.get("/warm").status == 200
            (idle,) = fleet[0].open
            fleet.script(up.read_body(), up.reset())
            with stopped(gateway):
                client.send(request("POST", "/body", body=b"hello"))
                cut.set()
                assert idle.ended.wait(5)
            assert client.response().json()["body"] == "hello"
        tries = fleet[0].connections[1:]
        assert [one.received.partition(b"\r\n\r\n")[2] for one in tries] == [b"hello"] * 2
        assert gateway.wait_log(0, 2)[1]["attempts"] == 3
        fleet.check()


# -- never twice where once was promised


class Behind:
    """An endpoint behind a fault proxy, which comes first, and one that is reached directly."""

    def __init__(self, fleet: Fleet, proxy: FaultProxy, gateway: Gateway) -> None:
        self.fleet = fleet
        self.proxy = proxy
        self.gateway = gateway


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    with ExitStack() as stack:
        fleet = stack.enter_context(Fleet(2))
        proxy = stack.enter_context(FaultProxy(parse_address(fleet[0].address)))
        tables = config(
            [
                {"address": proxy.address, "region": "here"},
                {"address": fleet[1].address, "region": "there"},
            ],
            server={"region": "here"},
            upstream_options={"pool": NO_REUSE},
            routes=[
                retrying("never", on=ALL, per_try_timeout="5s"),
                retrying("key", on=ALL, unsafe="idempotency-key"),
                retrying("always", on=ALL, unsafe="always"),
            ],
        )
        yield Behind(fleet, proxy, stack.enter_context(Gateway(tables, tmp_path_factory.mktemp("behind"))))


def whole(fleet: Fleet, target: str) -> list[int]:
    """At which endpoints whole requests came in."""
    return [one.at for one in fleet.deliveries(target) if one.request.complete]


def forwarded_size(behind: Behind, data: bytes) -> int:
    """Bytes of the request as the endpoint gets it."""
    before = behind.proxy.counts.to_target
    with behind.gateway.client() as client:
        assert client.request(data).status == 200
    return behind.proxy.counts.to_target - before


@pytest.mark.parametrize("how", ["reset", "close"])
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_cut_at_every_byte_of_the_request(behind: Behind, method: str, how: str) -> None:
    """POST: delivered at most once, whatever happens to it. GET: always answered, by the second endpoint."""

    def ask(number: int) -> bytes:
        body = b"pay" if method == "POST" else None
        return request(method, f"/never/{how}/{method}/{number:04}", body=body)

    behind.fleet.clear()
    behind.proxy.request = behind.proxy.response = Faults()
    size = forwarded_size(behind, ask(9999))
    with behind.gateway.client() as client:
        for at in range(size + 1):
            behind.proxy.request = Faults(reset_at=at) if how == "reset" else Faults(close_at=at)
            target = f"/never/{how}/{method}/{at:04}"
            response = client.request(ask(at))
            came = whole(behind.fleet, target)
            if method == "GET":
                assert response.status == 200
                assert came[-1] == 1 or at == size
                assert len(came) <= 2
            elif response.status == 200:
                assert came == [0], "nothing was cut"
            else:
                assert response.status == 502
                assert came in ([], [0]), f"cut at {at}: {came}"
    behind.proxy.request = Faults()


@pytest.mark.parametrize("route", ["never", "key", "always"])
def test_cut_at_every_byte_of_the_answer(behind: Behind, route: str) -> None:
    """The endpoint has had the request: POST goes to the second one only where somebody said so."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
    behind.fleet.clear()
    behind.proxy.request = Faults()
    line = ("Idempotency-Key: 1",) if route == "key" else ()
    for at in range(len(head) + 2):
        behind.proxy.response = Faults(reset_at=at)
        behind.fleet.script(up.read_body(), up.send(head + b"ok"))
        target = f"/{route}/answer/{at}"
        with behind.gateway.client() as client:
            client.send(request("POST", target, body=b"pay", lines=line))
            try:
                status = client.response().status
            except ConnectionEnded:
                status = 0
        came = whole(behind.fleet, target)
        if at >= len(head):
            assert (status, came) == (0, [0]), "an answer has begun: there is no way back"
        elif route == "never":
            assert (status, came) == (502, [0])
        else:
            assert (status, came) == (200, [0, 1])
    behind.proxy.response = Faults()
    behind.fleet.check()


# -- when


@pytest.mark.parametrize("value", ["2", "3600", "Fri, 31 Dec 2999 23:59:59 GMT"])
def test_a_retry_after_that_is_too_long_is_passed_on(world: World, value: str) -> None:
    world.fleet.script(up.reply(503, b"later", f"Retry-After: {value}"))
    response = world.ask(request(target="/all"))
    assert (response.status, response.body, response.all("retry-after")) == (503, b"later", [value])
    assert len(world.fleet.deliveries()) == 1


def test_a_retry_after_is_waited_for(world: World) -> None:
    told: list[float] = []

    def note(connection: Connection) -> None:
        told.append(time.monotonic())

    world.fleet.script(note, up.reply(503, b"later", "Retry-After: 1")).script(note, up.reply(200, b"now"))
    assert world.ask(request(target="/all")).body == b"now"
    assert told[1] - told[0] >= 1


@pytest.mark.parametrize("value", ["0", "soon", "Thu, 01 Jan 1970 00:00:01 GMT"])
def test_a_retry_after_that_is_over_or_nonsense(world: World, value: str) -> None:
    world.fleet.script(up.reply(503, b"later", f"Retry-After: {value}"))
    assert world.ask(request(target="/all")).status == 200


def test_no_retry_beyond_the_total_deadline(world: World) -> None:
    """The answer that is there is better than a time-out."""
    world.fleet.script(up.reply(503, b"later", "Retry-After: 1"))
    response = world.ask(request(target="/total"))
    assert (response.status, response.body) == (503, b"later")


def test_the_total_deadline_ends_all_tries(world: World) -> None:
    world.fleet.default = (up.wait_close(),)
    since = world.gateway.mark()
    refused(world.ask(request(target="/tries")), "total-timeout", "upstream-head-timeout")
    assert 2 <= len(world.fleet.deliveries()) == world.gateway.wait_log(since)[0]["attempts"] <= 6


def test_who_lets_the_total_deadline_pass_is_judged_by_it(world: World) -> None:
    """As by a time-out of its own: it was its answer that did not come."""
    world.fleet.script(up.wait_close())
    refused(world.ask(request(target="/judged")), "total-timeout")
    shown = world.gateway.upstream("judged")["endpoints"]
    late = world.fleet[world.fleet.deliveries()[0].at].address
    assert [one["address"] for one in shown if one["status"] == "ejected"] == [late]


# -- the budget


@pytest.mark.parametrize(("active", "retries"), [(10, 3), (25, 5)])
def test_retries_stay_within_their_budget(world: World, active: int, retries: int) -> None:
    """So many fail at once: 20 % of them, or three, go again; the others are answered as they are."""
    fail, finish, seen = threading.Event(), threading.Event(), set[str]()
    lock = threading.Lock()

    def answer(connection: Connection) -> None:
        with lock:
            first = connection.request.target not in seen
            seen.add(connection.request.target)
        if first:
            up.wait_for(fail)(connection)
            up.reply(503, b"failed")(connection)
        else:
            up.wait_for(finish)(connection)
            up.reply(200, b"in the end")(connection)

    world.fleet.default = (answer,)
    with ExitStack() as stack:
        clients = [stack.enter_context(world.gateway.client()) for _ in range(active)]
        for number, client in enumerate(clients):
            client.send(request(target=f"/all/{number}"))
        world.fleet.wait(active)
        fail.set()
        world.fleet.wait(active + retries)
        world.gateway.wait_upstream(
            lambda shown: shown["load"]["requests"] == shown["load"]["retries"] == retries
        )
        finish.set()
        answers = [client.response().status for client in clients]
    assert sorted(answers) == [200] * retries + [503] * (active - retries)
    assert len(world.fleet.deliveries()) == active + retries


# -- who leaves, and what is thrown away


def test_a_client_that_leaves_during_the_pause(world: World) -> None:
    since = world.gateway.mark()
    world.fleet.script(up.reply(503, b"later", "Retry-After: 1"))
    with world.gateway.client() as client:
        client.send(request(target="/all"))
        world.fleet.wait(1)
        world.gateway.wait_upstream(lambda shown: shown["load"]["retries"] == 1)
    record = world.gateway.wait_log(since)[0]
    assert (record["status"], record["reason"], record["attempts"]) == (499, "client-gone", 1)
    world.gateway.assert_idle()
    assert len(world.fleet.deliveries()) == 1


def test_nothing_of_a_thrown_away_answer_is_seen(world: World) -> None:
    leak = (
        b"HTTP/1.1 503 X\r\nX-Leak: head\r\nTransfer-Encoding: chunked\r\nTrailer: X-Leak\r\n\r\n"
        b"4\r\nleak\r\n0\r\nX-Leak: trailer\r\n\r\n"
    )
    fine = b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Fine: yes\r\n\r\n"
    world.fleet.script(up.send(leak)).script(up.send(fine))
    response = world.ask(request(target="/all", TE="trailers", Connection="TE"))
    assert (response.status, response.body, response.trailers) == (200, b"ok", (("X-Fine", "yes"),))
    assert not response.all("x-leak")


def test_a_long_answer_that_is_thrown_away_is_not_read(world: World) -> None:
    endless = up.send(b"HTTP/1.1 503 X\r\nContent-Length: 1000000000\r\n\r\nlong")
    world.fleet.script(endless, up.wait_close())
    assert world.ask(request(target="/all")).status == 200


def test_head(world: World) -> None:
    world.fleet.script(up.reply(503, b"no body")).script(up.reply(200, b"none", "X-Fine: yes"))
    with world.gateway.client() as client:
        response = client.request(request("HEAD", "/all"))
        assert (response.status, response.get("x-fine"), response.get("content-length")) == (200, "yes", "4")
        assert client.get("/off").status == 200
    assert [one.request.method for one in world.fleet.deliveries("/all")] == ["HEAD", "HEAD"]


# -- Expect: 100-continue


def expecting(client: Client) -> Client:
    return client.send(request("POST", "/always", lines=("Expect: 100-continue", "Content-Length: 5")))


CONTINUE = up.send(b"HTTP/1.1 100 Continue\r\n\r\n")


def test_refused_before_the_client_has_sent_its_body(world: World) -> None:
    world.fleet.script(up.reply(503, b"no", close_after=True)).script(CONTINUE, up.read_body(), up.echo())
    with world.gateway.client() as client:
        assert expecting(client).head().status == 100
        client.send(b"hello")
        assert client.response().json()["body"] == "hello"
        assert client.get("/off").status == 200
    assert bodies(world.fleet)[1] == (b"hello", ())


def test_refused_when_the_client_has_sent_its_body(world: World) -> None:
    world.fleet.script(CONTINUE, up.read_body(), up.reply(503, b"no"))
    world.fleet.script(CONTINUE, up.read_body(), up.echo())
    with world.gateway.client() as client:
        assert expecting(client).head().status == 100
        client.send(b"hello")
        response = client.response()
        assert response.json()["body"] == "hello"
        assert {interim.status for interim in response.interim} <= {100}
    assert bodies(world.fleet) == [(b"hello", ())] * 2


# -- together with the keep-alive race


def test_the_race_costs_no_attempt(start_gateway: StartGateway) -> None:
    """A connection that was idle too long is no failure of the endpoint."""
    with Fleet(1) as fleet:
        gateway = start_gateway(config(fleet.addresses, route={"retry": {**FAST, "on": ["status"]}}))
        with gateway.client() as client:
            assert client.get("/warm").status == 200
            fleet.script(up.close()).script(up.reply(503, b"no"))
            assert client.get("/race").status == 200
        assert len(fleet.deliveries("/race")) == 3
        fleet.check()
