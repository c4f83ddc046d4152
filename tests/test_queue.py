"""Concurrency limits, their queue, and the caps of the breaker: who waits, who is next, who is refused and
why; and that nobody is lost."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from support import upstream as up
from support.answers import refused
from support.client import Client, request
from support.fleet import Fleet
from support.gateway import Gateway, config
from support.wire import Response

LONG = "30s"  # nobody's time is up
UPSTREAMS: dict[str, dict[str, Any]] = {
    "oldest": {"concurrency": {"limit": 1, "queue": 3, "queue_timeout": LONG, "order": "oldest-first"}},
    "newest": {"concurrency": {"limit": 1, "queue": 3, "queue_timeout": LONG, "order": "newest-first"}},
    "brief": {"concurrency": {"limit": 1, "queue": 3, "queue_timeout": "60ms", "order": "oldest-first"}},
    "none": {"concurrency": {"limit": 1, "queue": 0}},
    "busy": {"concurrency": {"limit": 2, "queue": 4, "queue_timeout": "5ms"}},
    "requests": {"breaker": {"max_requests": 2}},
    "pending": {"breaker": {"max_pending": 1}, "pool": {"max_connections": 1, "queue_timeout": LONG}},
    "connections": {"breaker": {"max_connections": 1}, "pool": {"queue": 1, "queue_timeout": LONG}},
    "late": {"breaker": {"max_connections": 1}, "pool": {"queue_timeout": "60ms"}},
    "pool": {"pool": {"max_connections": 1, "queue": 1, "queue_timeout": LONG}},
    "full": {"pool": {"max_requests": 1}},
    "retries": {
        "breaker": {"max_retries": 1},
        "retry": {"on": ["status"], "attempts": 2, "backoff_base": "1ms"},
    },
}


class World:
    def __init__(self, fleet: Fleet, gateway: Gateway) -> None:
        self.fleet = fleet
        self.gateway = gateway
        self.stack = ExitStack()

    def send(self, data: bytes) -> Client:
        """On a connection of its own, which ends with the test."""
        return self.stack.enter_context(self.gateway.client()).send(data)

    @contextmanager
    def held(self, upstream: str, count: int = 1) -> Iterator[None]:
        """So many requests are under way at the upstream, and are answered at the end."""
        release = threading.Event()
        for _ in range(count):
            self.fleet.script(up.wait_for(release), up.reply(200, b"held"))
        clients = [self.send(request(target=f"/{upstream}/held")) for _ in range(count)]
        self.fleet.wait(count, f"/{upstream}/held")
        yield
        release.set()
        for client in clients:
            assert client.response().body == b"held"

    def queue(self, upstream: str, name: str, *lines: str, body: bytes | None = None) -> Client:
        """A request that waits in the upstream's queue when this returns."""
        before = self.gateway.upstream(upstream)["queued"]
        data = request("POST" if body else "GET", f"/{upstream}/{name}", body=body, lines=lines)
        client = self.send(data)
        self.gateway.wait_upstream(lambda shown: shown["queued"] == before + 1, upstream)
        return client

    def order(self, upstream: str) -> list[str]:
        """Names of the requests that were delivered behind those that were held."""
        names = [one.request.target.rpartition("/")[2] for one in self.fleet.deliveries()]
        return [name for name in names if name not in ("held", f"mark-{upstream}")]


@pytest.fixture(scope="module")
def module_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with Fleet(1) as fleet:
        routes: list[dict[str, Any]] = [
            {
                "name": f"{name}-{priority}",
                "match": {"prefix": f"/{name}", "headers": {"X-Priority": priority}},
                "upstream": name,
                "priority": priority,
            }
            for name in ("oldest", "newest")
            for priority in ("critical", "sheddable")
        ]
        routes += [{"name": name, "match": {"prefix": f"/{name}"}, "upstream": name} for name in UPSTREAMS]
        tables = config(
            admin={"bind": "127.0.0.1:0"},
            upstreams={name: {"endpoints": fleet.addresses, **each} for name, each in UPSTREAMS.items()},
            routes=routes,
        )
        with Gateway(tables, tmp_path_factory.mktemp("gateway")) as gateway:
            yield World(fleet, gateway)


@pytest.fixture
def world(module_world: World) -> Iterator[World]:
    module_world.fleet.clear()
    with module_world.stack:
        yield module_world
        module_world.gateway.assert_idle()
    module_world.fleet.check()


def check_refused(
    world: World, client: Client, reason: str, since: int, *, detail: str | None = None
) -> Response:
    """The answer and the log line of one that was refused."""
    response = client.response()
    refused(response, reason)
    assert response.get("retry-after") == "1"
    lines = [record for record in world.gateway.wait_log(since) if record["reason"]]
    assert [(record["status"], record["reason"]) for record in lines] == [(503, reason)]
    assert lines[0]["attempts"] == 0
    if detail is not None:
        assert lines[0]["detail"] == detail
    return response


# -- the queue of a concurrency limit


@pytest.mark.parametrize(("upstream", "order"), [("oldest", ["a", "b", "c"]), ("newest", ["c", "b", "a"])])
def test_order(world: World, upstream: str, order: list[str]) -> None:
    with world.held(upstream):
        clients = [world.queue(upstream, name) for name in ("a", "b", "c")]
    for client in clients:
        assert client.response().status == 200
    assert world.order(upstream) == order


def test_priorities(world: World) -> None:
    with world.held("oldest"):
        clients = [
            world.queue("oldest", "shed", "X-Priority: sheddable"),
            world.queue("oldest", "plain"),
            world.queue("oldest", "top", "X-Priority: critical"),
        ]
    for client in clients:
        assert client.response().status == 200
    assert world.order("oldest") == ["top", "plain", "shed"]


def test_a_full_queue_refuses_the_newcomer(world: World) -> None:
    with world.held("oldest"):
        clients = [world.queue("oldest", name) for name in ("a", "b", "c")]
        since = world.gateway.mark()
        check_refused(world, world.send(request(target="/oldest/d")), "overloaded", since)
    for client in clients:
        assert client.response().status == 200
    assert world.order("oldest") == ["a", "b", "c"]


def test_a_full_queue_where_the_newest_come_first(world: World) -> None:
    """The one that has waited longest gives its place away."""
    with world.held("newest"):
        first, second, third = (world.queue("newest", name) for name in ("a", "b", "c"))
        since = world.gateway.mark()
        fourth = world.send(request(target="/newest/d"))
        check_refused(world, first, "overloaded", since)
    for client in (second, third, fourth):
        assert client.response().status == 200
    assert world.order("newest") == ["d", "c", "b"]


def test_who_is_less_important_makes_room(world: World) -> None:
    with world.held("oldest"):
        shed = world.queue("oldest", "shed", "X-Priority: sheddable")
        clients = [world.queue("oldest", name) for name in ("a", "b")]
        since = world.gateway.mark()
        top = world.send(request(target="/oldest/top", lines=("X-Priority: critical",)))
        check_refused(world, shed, "overloaded", since)
        assert world.gateway.upstream("oldest")["queued"] == 3
    for client in (top, *clients):
        assert client.response().status == 200
    assert world.order("oldest") == ["top", "a", "b"]


def test_the_time_in_the_queue_is_up(world: World) -> None:
    with world.held("brief"):
        since = world.gateway.mark()
        client = world.queue("brief", "late")
        check_refused(world, client, "overload-timeout", since)
        client.send(request(target="/oldest/next"))
        assert client.response().status == 200, "its connection is in order"
    assert world.order("brief") == ["next"]


def test_no_queue(world: World) -> None:
    with world.held("none"):
        since = world.gateway.mark()
        check_refused(world, world.send(request("POST", "/none/x", body=b"pay")), "overloaded", since)


@pytest.mark.parametrize("coding", ["length", "chunked"])
def test_a_body_waits_with_its_request(world: World, coding: str) -> None:
    body = b"x" * 50_000
    with world.held("oldest"):
        given = {"body": body} if coding == "length" else {"chunks": [body[:10], body[10:]]}
        client = world.send(request("POST", "/oldest/body", **given))
        world.gateway.wait_upstream(lambda shown: shown["queued"] == 1, "oldest")
    assert client.response().json()["body"] == body.decode()


def test_the_log_tells_the_time_in_the_queue(world: World) -> None:
    since = world.gateway.mark()
    with world.held("oldest"):
        client = world.queue("oldest", "a")
    assert client.response().status == 200
    record = next(one for one in world.gateway.wait_log(since, 2) if one["path"] == "/oldest/a")
    assert record["time_queue"] > 0


@pytest.mark.parametrize("how", ["close", "reset"])
def test_who_leaves_the_queue_is_not_sent(world: World, how: str) -> None:
    with world.held("oldest"):
        since = world.gateway.mark()
        first, second = world.queue("oldest", "a"), world.queue("oldest", "b")
        first.close() if how == "close" else first.reset()
        world.gateway.wait_upstream(lambda shown: shown["queued"] == 1, "oldest")
        record = world.gateway.wait_log(since)[0]
        assert (record["reason"], record["attempts"]) == ("client-gone", 0)
    assert second.response().status == 200
    assert world.order("oldest") == ["b"]


def test_a_place_comes_free_when_its_holder_fails_or_leaves(world: World) -> None:
    begun = threading.Event()
    world.fleet.script(up.tell(begun), up.wait_close())
    holder = world.send(request("POST", "/oldest/held"))
    assert begun.wait(5)
    second = world.queue("oldest", "a")
    third = world.queue("oldest", "b")
    world.fleet.script(up.read_body(), up.send(b"nonsense\r\n\r\n"), up.wait_close())
    holder.close()
    refused(second.response(), "upstream-syntax")
    assert third.response().status == 200


def test_nobody_is_lost(world: World) -> None:
    """More ask than there is room for: each is answered, once, and what was answered well was delivered."""
    counts: Counter[str] = Counter()
    lock = threading.Lock()

    def ask(number: int) -> None:
        with world.gateway.client() as client:
            for turn in range(40):
                response = client.get(f"/busy/{number}/{turn}")
                code = (
                    "200" if response.status == 200 else refused(response, "overloaded", "overload-timeout")
                )
                with lock:
                    counts[code] += 1

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert counts.total() == 640
    assert counts["200"] == len(world.fleet.deliveries())
    assert len({one.request.target for one in world.fleet.deliveries()}) == counts["200"], "each once"
    assert counts["overloaded"] > 0
    assert counts["200"] > 0


# -- the caps of the breaker, and of pools


def test_max_requests(world: World) -> None:
    with world.held("requests", 2):
        since = world.gateway.mark()
        client = world.send(request("POST", "/requests/x", body=b"pay"))
        check_refused(world, client, "breaker-limit", since, detail="max_requests")
    client.send(request(target="/requests/y"))
    assert client.response().status == 200


def test_max_pending(world: World) -> None:
    with world.held("pending"):
        waits = world.send(request(target="/pending/a"))
        world.gateway.wait_upstream(lambda shown: shown["load"]["pending"] == 1, "pending")
        since = world.gateway.mark()
        client = world.send(request(target="/pending/b"))
        check_refused(world, client, "breaker-limit", since, detail="max_pending")
    assert waits.response().status == 200


def test_max_connections(world: World) -> None:
    """As many wait for the one that there may be as would for one of a full pool."""
    with world.held("connections"):
        waits = world.send(request(target="/connections/a"))
        world.gateway.wait_upstream(lambda shown: shown["load"]["pending"] == 1, "connections")
        since = world.gateway.mark()
        client = world.send(request(target="/connections/b"))
        check_refused(world, client, "breaker-limit", since, detail="max_connections")
        assert world.gateway.upstream("connections")["load"]["connections"] == 1
    assert waits.response().status == 200


def test_max_connections_for_too_long(world: World) -> None:
    with world.held("late"):
        since = world.gateway.mark()
        check_refused(world, world.send(request(target="/late/a")), "breaker-limit", since)


def test_a_full_pool_is_no_breaker(world: World) -> None:
    with world.held("pool"):
        waits = world.send(request(target="/pool/a"))
        world.gateway.wait_upstream(lambda shown: shown["load"]["pending"] == 1, "pool")
        since = world.gateway.mark()
        check_refused(world, world.send(request(target="/pool/b")), "queue-full", since)
    assert waits.response().status == 200


def test_endpoints_that_may_take_no_more(world: World) -> None:
    with world.held("full"):
        since = world.gateway.mark()
        check_refused(world, world.send(request(target="/full/a")), "overloaded", since)


def test_max_retries(world: World) -> None:
    """Over it there is just no retry."""
    both, finish = threading.Barrier(2), threading.Event()

    def fail(connection: up.Connection) -> None:
        both.wait(5)
        up.reply(503, b"failed")(connection)

    world.fleet.script(fail).script(fail).script(up.wait_for(finish), up.reply(200, b"again"))
    clients = [world.send(request(target=f"/retries/{number}")) for number in range(2)]
    world.fleet.wait(3)
    world.gateway.wait_upstream(
        lambda shown: shown["load"]["requests"] == shown["load"]["retries"] == 1, "retries"
    )
    finish.set()
    assert sorted(client.response().status for client in clients) == [200, 503]
    assert len(world.fleet.deliveries()) == 3
