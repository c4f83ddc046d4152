"""Aggregation as a client sees it: what is asked of services for one request, and the one answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from support import upstream as up
from support.answers import proxy_details, reason_of
from support.gateway import Gateway, config
from support.parts import Parts, of_request, reply_json
from support.wire import Request, Response

PART = {"upstream": "up"}
BIG = b'{"id":12345678901234567890123,"price":1.10,"far":1e400,"z":-0.0,"s":"\\u00e4\xc3\xa4"}'


def part(path: str, **keys: Any) -> dict[str, Any]:
    return {**PART, "path": path, **keys}


# Route -> its `aggregate`; each matches /ROUTE, /ROUTE/{id} beside it where it says so.
ROUTES: dict[str, dict[str, Any]] = {
    "merged": {"parts": {"a": part("/a"), "b": part("/b")}},
    "grouped": {"parts": {"a": part("/a", group="first"), "b": part("/b", group="second.deep")}},
    "chain": {
        "parts": {
            "order": part("/orders/{path.id}", group="order"),
            "user": part("/users/{part.order.user}", group="user"),
            "badge": part("/badges/{part.user.tier}", query={"of": "{part.order.user}"}, group="badge"),
        }
    },
    "optional": {
        "parts": {"a": part("/a"), "b": part("/b", required=False, group="b")},
        "errors_member": "_errors",
    },
    "default": {"parts": {"a": part("/a"), "b": part("/b", required=False, default="[]", group="b")}},
    "mapped": {
        "parts": {
            "a": part("/a", statuses={"404": 404, "5xx": 503, "timeout": 408}),
            "b": part("/b", required=False, group="b"),
        }
    },
    "rooted": {
        "parts": {
            "a": part("/a", required=False, omit=True, statuses={"404": 404}),
            "b": part("/b", required=False, query={"of": "{part.a.x}"}, omit=True),
            "c": part("/c", query={"of": "{part.b.x}"}),
        }
    },
    "all": {"policy": "all", "parts": {"a": part("/a"), "b": part("/b", required=False, group="b")}},
    "any": {"policy": "any", "parts": {"a": part("/a", group="a"), "b": part("/b", group="b")}},
    "first": {"policy": "first", "parts": {"a": part("/a"), "b": part("/b")}},
    "quorum": {
        "policy": "quorum",
        "quorum": 2,
        "parts": {name: part(f"/{name}", group=name) for name in ("a", "b", "c")},
    },
    "quorum-when": {
        "policy": "quorum",
        "quorum": 3,
        "parts": {
            "a": part("/a", group="a"),
            "b": part("/b", group="b", when={"value": "{part.a.kind}", "equals": "full"}),
            "c": part("/c", group="c"),
        },
    },
    "unreachable": {"parts": {"a": part("/a", upstream="full")}},
    "unreachable-mapped": {
        "parts": {"a": part("/a", upstream="full", statuses={"timeout": 503, "failure": 500})}
    },
    "when": {
        "parts": {
            "a": part("/a", group="a"),
            "b": part("/b", group="b", when={"value": "{part.a.kind}", "equals": "full"}),
            "c": part("/c/{part.b.x}", group="c"),
        }
    },
    "each": {
        "parts": {
            "list": part("/list", omit=True),
            "item": part(
                "/items/{item.id}",
                for_each={"list": "{part.list.items}", "concurrency": 3, "max_items": 20},
                group="items",
            ),
        }
    },
    "each-null": {
        "parts": {
            "list": part("/list", omit=True),
            "item": part(
                "/items/{item.id}",
                for_each={"list": "{part.list.items}", "on_failure": "null"},
                group="items",
            ),
        }
    },
    "race": {"parts": {"a": part("/a", race=["dead"])}},
    "fallback": {"parts": {"a": part("/a", upstream="dead", fallback=["down", "up"])}},
    "twice": {"parts": {"a": part("/a", group="a"), "again": part("/a", group="again")}},
    "coalesced": {"parts": {"a": part("/a", coalesce=True)}},
    "cached": {"parts": {"a": part("/a", cache="10s", group="a")}},
    "cached-1": {"parts": {"a": part("/a", cache="10s", group="a")}},
    "cached-5000": {"parts": {"a": part("/a", cache="10s", group="a")}},
    "body": {
        "parts": {
            "a": part(
                "/a", json='{"name": "{body.user.name}", "n": "{body.n}", "no": "{body.no}"}', group="a"
            ),
            "b": part("/b", pass_body=True, group="b"),
        },
        "max_body": "1KiB",
    },
    "fields": {
        "parts": {
            "a": part(
                "/a",
                headers={"X-Who": "{header.x-user}", "X-Not": "{header.x-absent}"},
                pass_headers=["Authorization", "Accept-Language"],
                pass_query=["page"],
                query={"q": "{query.q}", "none": "{query.absent}"},
                answer_headers=["x-served", "set-cookie"],
                group="a",
            ),
            "b": part("/b", answer_headers=["x-served", "set-cookie"], group="b"),
        }
    },
    "slow": {"timeout": "300ms", "parts": {"a": part("/a", group="a"), "b": part("/b", group="b")}},
    "part-slow": {
        "parts": {"a": part("/a", group="a"), "b": part("/b", timeout="200ms", required=False, group="b")}
    },
    "small": {
        "max_memory": "4KiB",
        "parts": {"a": part("/a", group="a"), "b": part("/b", group="b")},
    },
    "list": {"answer": "list", "parts": {"a": part("/a"), "b": part("/b")}},
    "graphql": {
        "parts": {
            "a": part(
                "/graphql",
                graphql={
                    "query": "query($id: ID!, $n: Int) { user(id: $id) { name } }",
                    "variables": {"id": "{path.id}", "n": "{query.n|int}"},
                },
                target="user",
            )
        }
    },
    "ndjson": {
        "stream": "ndjson",
        "parts": {"a": part("/a"), "b": part("/b"), "c": part("/c", required=False)},
    },
    "events": {"stream": "events", "parts": {"a": part("/a"), "b": part("/b")}},
    "ordered": {"stream": "json", "parts": {"a": part("/a"), "b": part("/b", required=False)}},
    "retried": {
        "parts": {"a": part("/a", retry={"on": ["status"], "statuses": [503], "backoff_base": "1ms"})}
    },
}


class World:
    def __init__(self, gateway: Gateway, parts: Parts) -> None:
        self.gateway = gateway
        self.parts = parts

    def get(self, target: str, *lines: str) -> Response:
        with self.gateway.client() as client:
            return client.get(target, *lines)

    def post(self, target: str, body: bytes, *lines: str) -> Response:
        head = [f"POST {target} HTTP/1.1", "Host: t.example", f"Content-Length: {len(body)}", *lines, "", ""]
        with self.gateway.client() as client:
            return client.request("\r\n".join(head).encode() + body)


@pytest.fixture(scope="module")
def module_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:
        parts = stack.enter_context(Parts())
        full = stack.enter_context(up.full_backlog())
        routes = [
            {"name": name, "match": {"path": f"/{name}{end}"}, "aggregate": aggregate}
            for name, aggregate in ROUTES.items()
            for end in (["/{id}"] if "{path.id}" in json.dumps(aggregate) else [""])
        ]
        tables = config(
            admin={"bind": "127.0.0.1:0"},
            upstreams={
                "up": {"endpoints": [parts.address]},
                "full": {"endpoints": [full], "timeouts": {"connect": "200ms"}},
                "dead": {"endpoints": [f"127.0.0.1:{up.free_port()}"]},
                "down": {"endpoints": [f"127.0.0.1:{up.free_port()}"]},
            },
            routes=routes,
        )
        gateway = stack.enter_context(Gateway(tables, tmp_path_factory.mktemp("aggregate")))
        yield World(gateway, parts)


@pytest.fixture
def world(module_world: World) -> Iterator[World]:
    module_world.parts.forget()
    yield module_world
    module_world.gateway.assert_idle()


def told(response: Response) -> Any:
    assert response.status == 200, (response.status, response.body)
    assert response.get("content-type") == "application/json"
    return response.json()


# -- one answer of several ------------------------------------------------------------


def test_members_of_parts_are_merged_in_the_order_of_the_file(world: World) -> None:
    world.parts.answers |= {"/a": reply_json({"x": 1}), "/b": reply_json({"y": [2]})}
    response = world.get("/merged")
    assert response.body == b'{"x":1,"y":[2]}'
    assert told(response) == {"x": 1, "y": [2]}
    assert response.all("fastgate-partial") == []


def test_groups(world: World) -> None:
    world.parts.answers |= {"/a": reply_json([1]), "/b": reply_json("text")}
    assert told(world.get("/grouped")) == {"first": [1], "second": {"deep": "text"}}


def test_numbers_are_not_touched(world: World) -> None:
    world.parts.answers |= {
        "/a": up.reply(200, BIG, "Content-Type: application/json"),
        "/b": up.reply(200, b'{"n": 1.000000000000000000001}', "Content-Type: application/json"),
    }
    assert world.get("/merged").body == BIG[:-1] + b',"n":1.000000000000000000001}'


def test_a_collision_is_not_silent(world: World) -> None:
    world.parts.answers |= {"/a": reply_json({"x": 1}), "/b": reply_json({"x": 2})}
    since = world.gateway.mark()
    response = world.get("/merged")
    assert response.status == 502
    assert reason_of(response) == "aggregate-collision"
    (line,) = world.gateway.wait_log(since)
    assert line["reason"] == "aggregate-collision"
    assert "x" in line["detail"]


def test_a_list_of_all(world: World) -> None:
    world.parts.answers |= {"/a": reply_json([1, 2]), "/b": reply_json({"n": 3})}
    assert told(world.get("/list")) == [1, 2, {"n": 3}]


def test_head_has_no_body(world: World) -> None:
    world.parts.answers |= {"/a": reply_json({"x": 1}), "/b": reply_json({"y": 2})}
    with world.gateway.client() as client:
        client.send(b"HEAD /merged HTTP/1.1\r\nHost: t\r\n\r\n")
        response = client.response("HEAD")
        assert response.status == 200
        assert response.get("content-length") == "13"
        assert client.get("/merged").status == 200
    assert {request.method for request in world.parts.requests("/a")} == {"GET"}


# -- the graph ------------------------------------------------------------


def test_parts_wait_for_what_they_name(world: World) -> None:
    world.parts.answers |= {
        "/orders/7": reply_json({"user": "u 1/?"}),
        "/users/u%201%2F%3F": reply_json({"tier": 3}),
        "/badges/3": reply_json("gold"),
    }
    answer = told(world.get("/chain/7"))
    assert answer == {"order": {"user": "u 1/?"}, "user": {"tier": 3}, "badge": "gold"}
    assert world.parts.asked == ["/orders/7", "/users/u%201%2F%3F", "/badges/3?of=u%201%2F%3F"]


def test_a_sequence_stops_where_it_fails(world: World) -> None:
    world.parts.answers |= {"/orders/7": reply_json({"error": True}, status=500)}
    response = world.get("/chain/7")
    assert response.status == 502
    assert reason_of(response) == "aggregate-failed"
    assert response.json()["parts"] == [{"part": "order", "reason": "part-status", "status": 500}]
    assert world.parts.asked == ["/orders/7"]


def test_a_value_that_is_not_there_fails_the_part(world: World) -> None:
    world.parts.answers |= {"/orders/7": reply_json({})}
    response = world.get("/chain/7")
    assert response.status == 502
    assert [one["reason"] for one in response.json()["parts"]] == ["part-value"]
    assert world.parts.asked == ["/orders/7"]


@pytest.mark.parametrize(("kind", "asked"), [("full", ["/a", "/b", "/c/1"]), ("short", ["/a"])])
def test_conditions(world: World, kind: str, asked: list[str]) -> None:
    world.parts.answers |= {
        "/a": reply_json({"kind": kind}), "/b": reply_json({"x": 1}), "/c/1": reply_json(2),
    }  # fmt: skip
    answer = told(world.get("/when"))
    assert set(answer) == {name.split("/")[1] for name in asked}
    assert world.parts.asked == asked


def test_parallel_parts_are_under_way_at_the_same_time(world: World) -> None:
    both = threading.Barrier(2)

    def meet(connection: Any) -> None:
        both.wait(5)
        reply_json({connection.request.target[1:]: 1})(connection)

    world.parts.answers |= {"/a": meet, "/b": meet}
    assert told(world.get("/merged")) == {"a": 1, "b": 1}


def test_each_element_in_order_and_no_more_at_a_time_than_allowed(world: World) -> None:
    lock, counts = threading.Lock(), {"now": 0, "most": 0}
    three = threading.Barrier(3)

    def item(connection: Any) -> None:
        with lock:
            counts["now"] += 1
            counts["most"] = max(counts["most"], counts["now"])
        three.wait(5)
        with lock:
            counts["now"] -= 1
        reply_json({"at": connection.request.target})(connection)

    world.parts.answers |= {"/list": reply_json({"items": [{"id": n} for n in range(9)]})}
    world.parts.answers |= {f"/items/{n}": item for n in range(9)}
    assert told(world.get("/each")) == {"items": [{"at": f"/items/{n}"} for n in range(9)]}
    assert counts["most"] == 3


def test_no_element(world: World) -> None:
    world.parts.answers |= {"/list": reply_json({"items": []})}
    assert told(world.get("/each")) == {"items": []}


@pytest.mark.parametrize(
    ("items", "reason"), [(range(21), "part-too-large"), ("text", "part-type"), (None, "part-type")]
)
def test_lists_that_are_none_or_too_long(world: World, items: Any, reason: str) -> None:
    found = [{"id": n} for n in items] if isinstance(items, range) else items
    world.parts.answers |= {"/list": reply_json({"items": found})}
    response = world.get("/each")
    assert response.status == 502
    assert [one["reason"] for one in response.json()["parts"]] == [reason]


def test_an_element_that_fails(world: World) -> None:
    items = {"/list": reply_json({"items": [{"id": n} for n in range(3)]})}
    world.parts.answers |= items | {
        "/items/1": up.reply(500),
        "/items/0": reply_json(0),
        "/items/2": reply_json(2),
    }
    assert told(world.get("/each-null")) == {"items": [0, None, 2]}
    response = world.get("/each")
    assert response.status == 502
    assert [one["part"] for one in response.json()["parts"]] == ["item"]


# -- failures ------------------------------------------------------------


def test_an_optional_part_that_fails(world: World) -> None:
    world.parts.answers |= {"/a": reply_json({"x": 1}, "Cache-Control: max-age=60"), "/b": up.reply(500)}
    since = world.gateway.mark()
    response = world.get("/optional")
    failed = {"part": "b", "reason": "part-status", "status": 500}
    assert told(response) == {"x": 1, "_errors": [failed]}
    assert response.get("fastgate-partial") == '"b";reason=part-status'
    assert response.get("cache-control") == "no-store"
    assert proxy_details(response) == ["aggregate-partial"]
    (line,) = world.gateway.wait_log(since)
    assert (line["status"], line["reason"]) == (200, "aggregate-partial")
    assert "b: part-status" in line["detail"]


def test_a_default_stands_in(world: World) -> None:
    world.parts.answers |= {"/a": reply_json({"x": 1}), "/b": up.reply(500)}
    response = world.get("/default")
    assert told(response) == {"x": 1, "b": []}
    assert response.get("fastgate-partial") == '"b";reason=part-status'


@pytest.mark.parametrize(("given", "status"), [(404, 404), (500, 503), (503, 503), (418, 502)])
def test_statuses_are_mapped(world: World, given: int, status: int) -> None:
    world.parts.answers |= {"/a": up.reply(given), "/b": reply_json(1)}
    response = world.get("/mapped")
    assert response.status == status
    assert response.json()["status"] == status
    assert response.json()["parts"] == [{"part": "a", "reason": "part-status", "status": given}]


def test_a_part_that_needs_what_has_failed_is_told_by_that(world: World) -> None:
    world.parts.answers |= {"/a": up.reply(404)}
    response = world.get("/rooted")
    assert response.status == 404
    assert [(one["part"], one["reason"]) for one in response.json()["parts"]] == [
        ("a", "part-status"),
        ("b", "part-dependency"),
        ("c", "part-dependency"),
    ]
    assert world.parts.asked == ["/a"]


def test_policy_all(world: World) -> None:
    world.parts.answers |= {"/a": reply_json({"x": 1}), "/b": up.reply(500)}
    assert world.get("/all").status == 502


def test_policy_any(world: World) -> None:
    world.parts.answers |= {"/a": up.reply(500), "/b": reply_json(1)}
    assert told(world.get("/any")) == {"b": 1}
    world.parts.answers |= {"/b": up.reply(500)}
    response = world.get("/any")
    assert response.status == 502
    assert [one["part"] for one in response.json()["parts"]] == ["a", "b"]


def test_policy_first_gives_up_the_others(world: World) -> None:
    gone = threading.Event()

    def hang(connection: Any) -> None:
        try:
            up.wait_close()(connection)
        finally:
            gone.set()

    world.parts.answers |= {"/a": hang, "/b": reply_json({"from": "b"})}
    assert told(world.get("/first")) == {"from": "b"}
    assert gone.wait(5)


@pytest.mark.parametrize(("good", "status"), [("ab", 200), ("abc", 200), ("c", 502)])
def test_policy_quorum(world: World, good: str, status: int) -> None:
    world.parts.answers |= {f"/{name}": reply_json(1) if name in good else up.reply(500) for name in "abc"}
    assert world.get("/quorum").status == status


@pytest.mark.parametrize(("good", "status"), [("ac", 200), ("a", 502)])
def test_a_quorum_of_which_a_part_was_skipped(world: World, good: str, status: int) -> None:
    """3 of 3, and one is not asked: that alone is no failure."""
    world.parts.answers |= {
        f"/{name}": reply_json({"kind": "short"}) if name in good else up.reply(500) for name in "ac"
    }
    response = world.get("/quorum-when")
    assert response.status == status
    assert "/b" not in world.parts.asked
    if status == 200:
        assert set(told(response)) == {"a", "c"}
        assert response.all("fastgate-partial") == []


@pytest.mark.parametrize(("route", "status"), [("unreachable", 504), ("unreachable-mapped", 503)])
def test_a_connect_timeout_is_a_timeout(world: World, route: str, status: int) -> None:
    response = world.get(f"/{route}")
    assert (response.status, reason_of(response)) == (status, "aggregate-timeout")
    assert response.json()["parts"] == [{"part": "a", "reason": "connect-timeout"}]


def test_what_the_client_has_not_said_is_its_fault(world: World) -> None:
    response = world.post("/body", b"{no json", "Content-Type: application/json")
    assert response.status == 400
    assert reason_of(response) == "aggregate-request"


def test_the_whole_has_a_deadline(world: World) -> None:
    world.parts.answers |= {"/a": reply_json(1), "/b": up.wait_close()}
    response = world.get("/slow")
    assert response.status == 504
    assert reason_of(response) == "aggregate-timeout"
    assert response.json()["parts"] == [{"part": "b", "reason": "part-timeout"}]


def test_a_part_has_a_deadline(world: World) -> None:
    world.parts.answers |= {"/a": reply_json(1), "/b": up.wait_close()}
    response = world.get("/part-slow")
    assert told(response) == {"a": 1}
    assert response.get("fastgate-partial") == '"b";reason=part-timeout'


def test_memory_is_bounded(world: World) -> None:
    half = reply_json("x" * 3000)
    world.parts.answers |= {"/a": half, "/b": half}
    response = world.get("/small")
    assert response.status == 502
    assert reason_of(response) == "aggregate-memory"


def test_a_client_that_leaves_gives_up_all_parts(world: World) -> None:
    begun, gone = threading.Semaphore(0), threading.Semaphore(0)

    def hang(connection: Any) -> None:
        begun.release()
        try:
            up.wait_close()(connection)
        finally:
            gone.release()

    world.parts.answers |= {"/a": hang, "/b": hang}
    since = world.gateway.mark()
    with world.gateway.client() as client:
        client.send(b"GET /merged HTTP/1.1\r\nHost: t\r\n\r\n")
        assert begun.acquire(timeout=5)
        assert begun.acquire(timeout=5)
    assert gone.acquire(timeout=5)
    assert gone.acquire(timeout=5)
    assert world.gateway.wait_log(since)[0]["reason"] == "client-gone"


# -- who is asked ------------------------------------------------------------


def test_a_race_is_won_by_whoever_answers(world: World) -> None:
    world.parts.answers |= {"/a": reply_json({"x": 1})}
    assert told(world.get("/race")) == {"x": 1}


def test_fallbacks_are_asked_one_by_one(world: World) -> None:
    world.parts.answers |= {"/a": reply_json({"x": 1})}
    assert told(world.get("/fallback")) == {"x": 1}


def test_the_same_request_is_sent_once(world: World) -> None:
    world.parts.answers |= {"/a": reply_json({"x": 1})}
    assert told(world.get("/twice")) == {"a": {"x": 1}, "again": {"x": 1}}
    assert world.parts.asked == ["/a"]


def test_exchanges_share_a_request(world: World) -> None:
    release, begun = threading.Event(), threading.Event()

    def slow(connection: Any) -> None:
        begun.set()
        assert release.wait(5)
        reply_json({"x": 1})(connection)

    world.parts.answers |= {"/a": slow}
    with ExitStack() as stack:
        clients = [stack.enter_context(world.gateway.client()) for _ in range(5)]
        for client in clients:
            client.send(b"GET /coalesced HTTP/1.1\r\nHost: t\r\n\r\n")
        assert begun.wait(5)
        # The first one leaves: another one asks in its place.
        clients[0].close()
        world.gateway.wait_log(0)
        release.set()
        for client in clients[1:]:
            assert told(client.response()) == {"x": 1}
    assert 1 <= len(world.parts.asked) <= 2


@pytest.mark.parametrize("age", ["\u00b2", "9" * 5000])
def test_a_kept_answer_of_a_strange_age(world: World, age: str) -> None:
    """What Python takes for a digit, and what it does not take for a number."""
    world.parts.answers |= {"/a": reply_json({"x": 1}, f"Age: {age}")}
    path = f"/cached-{len(age)}"
    assert told(world.get(path)) == told(world.get(path)) == {"a": {"x": 1}}
    assert world.parts.asked == ["/a"]


def test_answers_are_kept(world: World) -> None:
    world.parts.answers |= {"/a": reply_json({"x": 1}, "Cache-Control: max-age=60", "Age: 5")}
    first = world.get("/cached")
    assert first.get("cache-control") == "max-age=55"
    assert told(world.get("/cached")) == told(first)
    assert world.parts.asked == ["/a"]


def test_retries(world: World) -> None:
    answers = iter([up.reply(503), reply_json({"x": 1})])
    world.parts.answers |= {"/a": of_request(lambda request: next(answers))}
    assert told(world.get("/retried")) == {"x": 1}
    assert world.parts.asked == ["/a", "/a"]


# -- requests and fields ------------------------------------------------------------


def test_what_goes_along(world: World) -> None:
    world.parts.answers |= {"/b": reply_json(1, "X-Served: b", "Set-Cookie: b=2; Path=/")}

    @of_request
    def answer(request: Request) -> Any:
        fields = {name.lower(): value for name, value in request.fields}
        return reply_json(
            {"target": request.target, **fields}, "X-Served: a", "Set-Cookie: a=1", "Set-Cookie: c=3"
        )

    world.parts.answers["/a"] = answer
    response = world.get(
        "/fields?page=2&q=a%26b&other=1",
        "X-User: me",
        "Authorization: Bearer t",
        "Cookie: secret=1",
        "Accept-Language: de",
    )
    seen = told(response)["a"]
    assert seen["target"] == "/a?q=a%26b&page=2"
    assert (seen["x-who"], seen["authorization"], seen["accept-language"]) == ("me", "Bearer t", "de")
    assert not {"x-not", "cookie", "x-user"} & seen.keys()
    assert seen["x-forwarded-for"] == "127.0.0.1"
    assert seen["host"] == "test.example"
    assert response.all("x-served") == ["a"]
    assert response.all("set-cookie") == ["a=1", "c=3", "b=2; Path=/"]


def test_the_clients_body(world: World) -> None:
    body = b'{"user": {"name": "\\u00e4 \\"q\\""}, "n": 12345678901234567890.10}'
    answer = told(world.post("/body", body, "Content-Type: application/json; x=y"))
    assert json.loads(answer["a"]["body"]) == {"name": 'ä "q"', "n": 12345678901234567890.10}
    assert "12345678901234567890.10" in answer["a"]["body"]
    assert answer["a"]["headers"]["content-type"] == "application/json"
    assert answer["b"]["body"].encode("latin-1") == body
    assert answer["b"]["headers"]["content-type"] == "application/json; x=y"


def test_the_clients_body_is_bounded(world: World) -> None:
    response = world.post("/body", b" " * 1025)
    assert response.status == 413
    assert reason_of(response) == "body-too-large"
    assert world.parts.asked == []


def test_graphql(world: World) -> None:
    world.parts.answers |= {"/graphql": reply_json({"data": {"user": {"name": "Ada"}}})}
    assert told(world.get("/graphql/7?n=3")) == {"name": "Ada"}
    (request,) = world.parts.requests("/graphql")
    assert request.method == "POST"
    assert json.loads(request.body)["variables"] == {"id": "7", "n": 3}


@pytest.mark.parametrize("answer", [{"errors": [{"message": "no"}]}, {"data": None}, {}])
def test_graphql_errors(world: World, answer: Any) -> None:
    world.parts.answers |= {"/graphql": reply_json(answer)}
    response = world.get("/graphql/7")
    assert response.status == 502
    assert [one["reason"] for one in response.json()["parts"]] == ["part-graphql"]


# -- as they arrive ------------------------------------------------------------


def test_lines_come_as_parts_arrive(world: World) -> None:
    release = threading.Event()

    def late(connection: Any) -> None:
        assert release.wait(5)
        reply_json({"late": 1})(connection)

    world.parts.answers |= {"/a": late, "/b": reply_json({"n": 1.10}), "/c": up.reply(500)}
    with world.gateway.client() as client:
        client.send(b"GET /ndjson HTTP/1.1\r\nHost: t\r\n\r\n")
        head = client.head()
        assert head.status == 200
        assert head.get("content-type") == "application/x-ndjson"
        assert head.get("transfer-encoding") == "chunked"
        release.set()  # only now: the first line did not wait for it
    world.parts.answers |= {"/a": reply_json({"late": 1})}
    lines = [json.loads(line) for line in world.get("/ndjson").body.splitlines()]
    assert {"part": "a", "value": {"late": 1}} in lines
    assert {"part": "b", "value": {"n": 1.10}} in lines
    failed = {"part": "c", "reason": "part-status", "status": 500}
    assert {"part": "c", "error": failed} in lines
    assert lines[-1] == {"end": True, "failed": [failed]}


@pytest.mark.parametrize("route", ["ndjson", "events", "ordered"])
def test_the_head_of_a_stream_is_all_that_HEAD_gets(world: World, route: str) -> None:
    world.parts.answers |= {f"/{name}": reply_json({"x": 1}) for name in "abc"}
    with world.gateway.client() as client:
        client.send(f"HEAD /{route} HTTP/1.1\r\nHost: t\r\n\r\n".encode())
        response = client.response("HEAD")
        assert response.status == 200
        assert response.all("content-length") == []
        assert client.get("/merged").status != 0  # nothing of the stream stands before it


def test_a_line_is_one_line(world: World) -> None:
    pretty = b'{\n "x": [\r\n  1\n ]\n}'
    world.parts.answers |= {
        "/a": up.reply(200, pretty, "Content-Type: application/json"),
        "/b": reply_json("two\nlines"),
        "/c": up.reply(500),
    }
    lines = [json.loads(line) for line in world.get("/ndjson").body.splitlines()]
    assert {"part": "a", "value": {"x": [1]}} in lines
    assert {"part": "b", "value": "two\nlines"} in lines


def test_events(world: World) -> None:
    world.parts.answers |= {
        "/a": up.reply(200, b'{"x":{"y":\r\n1}}', "Content-Type: application/json"),
        "/b": reply_json({"y": 2}),
    }
    response = world.get("/events")
    assert response.get("content-type") == "text/event-stream"
    events = response.body.decode().split("\n\n")
    assert events[-1] == ""
    assert events[-2] == 'event: end\ndata: {"end":true}'
    assert set(events[:2]) == {
        'event: part\ndata: {"part":"a","value":{"x":{"y":\ndata: 1}}}',
        'event: part\ndata: {"part":"b","value":{"y":2}}',
    }


def test_members_in_order(world: World) -> None:
    world.parts.answers |= {"/a": reply_json({"x": 1}), "/b": up.reply(500)}
    response = world.get("/ordered")
    assert response.body == b'{"a":{"x": 1},"b":null}' or response.body == b'{"a":{"x":1},"b":null}'


def test_a_needed_part_fails_behind_the_first_line(world: World) -> None:
    release = threading.Event()

    def late(connection: Any) -> None:
        assert release.wait(5)
        up.reply(500)(connection)

    world.parts.answers |= {"/a": reply_json({"x": 1}), "/b": late}
    since = world.gateway.mark()
    with world.gateway.client() as client:
        client.send(b"GET /events HTTP/1.1\r\nHost: t\r\n\r\n")
        client.stream.fill("the first event")
        release.set()
        response = client.response()
    assert (
        b'event: end\ndata: {"end":true,"failed":[{"part":"b","reason":"part-status","status":500}]}'
        in response.body
    )
    assert world.gateway.wait_log(since)[0]["reason"] == "aggregate-failed"
