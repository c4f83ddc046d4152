"""Aggregation against those who mean harm, or happen to do it: clients, and the services that are asked."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support import upstream as up
from support.answers import reason_of
from support.gateway import Gateway, config
from support.parts import Parts, of_request, reply_json
from support.wire import Request, Response


def part(path: str, **keys: Any) -> dict[str, Any]:
    return {"upstream": "up", "path": path, **keys}


EACH = {"list": "{part.list.items}", "max_items": 10_000, "on_failure": "null"}
# Route -> its `aggregate`, and what else the route has.
ROUTES: dict[str, dict[str, Any]] = {
    "plain": {"parts": {"a": part("/a"), "b": part("/b")}},
    "ndjson": {"stream": "ndjson", "parts": {"a": part("/a"), "b": part("/b")}},
    "events": {"stream": "events", "parts": {"a": part("/a")}},
    "members": {"stream": "json", "parts": {"a": part("/a")}},
    "s204": {"stream": "ndjson", "status": 204, "parts": {"a": part("/a", omit=True)}},
    "s205": {"stream": "ndjson", "status": 205, "parts": {"a": part("/a", omit=True)}},
    "w204": {"status": 204, "parts": {"a": part("/a", omit=True)}},
    "w205": {"status": 205, "parts": {"a": part("/a", omit=True)}},
    "each": {
        "parts": {
            "list": part("/list", omit=True, max_body="64KiB"),
            "item": part(
                "/item/{item}", for_each=EACH, group="items", answer_headers=["X-Big"], max_body="64KiB"
            ),
        },
        "max_memory": "256KiB",
    },
    "many": {
        "timeout": "60s",
        "parts": {"list": part("/list", omit=True), "item": part("/item/{item}", for_each=EACH, group="i")},
    },
    "shared": {
        "parts": {
            "a": part(
                "/a",
                coalesce=True,
                query={"who": "{query.who}"},
                pass_headers=["Authorization"],
                answer_headers=["set-cookie"],
            )
        }
    },
    "shared-late": {
        "timeout": "1s",
        "parts": {"b": part("/b", omit=True), "a": part("/a", after=["b"], coalesce=True, timeout="900ms")},
    },
    "kept": {"parts": {"a": part("/a", cache="10s", pass_headers=["Accept-Language"], group="a")}},
    "retried": {
        "parts": {
            "a": part(
                "/a",
                json='{"n": "{query.n}"}',
                retry={"on": ["status"], "statuses": [503], "backoff_base": "1ms", "unsafe": "always"},
            )
        }
    },
    "body": {"timeout": "400ms", "max_body": "64KiB", "parts": {"a": part("/a", pass_body=True)}},
    "cookie": {"parts": {"a": part("/users/{cookie.user}", headers={"X-Lang": "{header.accept-language}"})}},
    "address": {"parts": {"a": part("/users/{client_ip}")}},
    "passed": {"parts": {"a": part("/a", answer_headers=["X-Served", "X-Hop"])}},
    "stall": {"stream": "ndjson", "parts": {name: part(f"/{name}") for name in "abcdefgh"}},
    "limited": {"parts": {"a": part("/a", upstream="limited"), "b": part("/b")}},
    "wants": {"parts": {"a": part("/a", json='{"got": "{body.x}"}')}},
    "each-fields": {
        "parts": {
            "list": part("/list", omit=True),
            "item": part("/item/{item}", for_each=EACH, group="i", answer_headers=["X-Served", "Set-Cookie"]),
        }
    },
    "pair": {"stream": "json", "parts": {"a": part("/a"), "b": part("/b")}},
    "mixed": {
        "timeout": "2s",
        "parts": {
            "a": part(
                "/a",
                race=["dead"],
                fallback=["other"],
                retry={"on": ["status"], "statuses": [503], "backoff_base": "1ms"},
            )
        },
    },
}


ACT = str(Path(__file__).parent / "support" / "plugins" / "act.py")
PLUGINS = {
    "act": {"use": f"{ACT}:Act", "timeout": "300ms"},
    "upper": {"use": f"{ACT}:Upper"},
    "wrap": {"use": f"{ACT}:Wrap"},
}
# Route -> its `aggregate`, and the plugins in front of it.
BEHIND = {
    "acts": ("plain", ["act"]),
    "acts-ndjson": ("ndjson", ["act"]),
    "acts-body": ("wants", ["act"]),
    "upper-ndjson": ("ndjson", ["upper", "act"]),
    "wrap": ("plain", ["wrap"]),
    "wrap-ndjson": ("ndjson", ["wrap"]),
}


class World:
    def __init__(self, gateway: Gateway, parts: Parts, other: Parts) -> None:
        self.gateway = gateway
        self.parts = parts
        self.other = other

    def get(self, target: str, *lines: str) -> Response:
        with self.gateway.client() as client:
            return client.get(target, *lines)


@pytest.fixture(scope="module")
def module_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:
        parts, other = stack.enter_context(Parts()), stack.enter_context(Parts())
        tables = config(
            admin={"bind": "127.0.0.1:0"},
            upstreams={
                "up": {"endpoints": [parts.address], "host": "client"},
                "other": {"endpoints": [other.address]},
                "dead": {"endpoints": [f"127.0.0.1:{up.free_port()}"]},
                "limited": {"endpoints": [parts.address], "breaker": {"max_requests": 1}},
            },
            routes=[
                {"name": name, "match": {"path": f"/{name}"}, "aggregate": aggregate}
                for name, aggregate in ROUTES.items()
            ]
            + [
                {"name": name, "match": {"path": f"/{name}"}, "aggregate": ROUTES[of], "plugins": plugins}
                for name, (of, plugins) in BEHIND.items()
            ],
            plugins=PLUGINS,
        )
        gateway = stack.enter_context(Gateway(tables, tmp_path_factory.mktemp("attacks")))
        yield World(gateway, parts, other)


@pytest.fixture
def world(module_world: World) -> Iterator[World]:
    module_world.parts.forget()
    module_world.other.forget()
    yield module_world
    module_world.gateway.assert_idle()


# -- what stands on the connection ------------------------------------------------------------


@pytest.mark.parametrize("route", ["ndjson", "events", "members"])
def test_a_streamed_answer_to_head_is_a_head(world: World, route: str) -> None:
    world.parts.answers |= {"/a": reply_json({"x": 1}), "/b": reply_json({"y": 2})}
    with world.gateway.client() as client:
        client.send(f"HEAD /{route} HTTP/1.1\r\nHost: t\r\n\r\n".encode())
        assert client.response("HEAD").status == 200
        assert client.get("/plain").json() == {"x": 1, "y": 2}  # RFC 9110 9.3.2: nothing stands between


@pytest.mark.parametrize("route", ["s204", "s205", "w204", "w205"])
def test_a_status_without_content_has_none(world: World, route: str) -> None:
    world.parts.answers |= {"/a": reply_json({"x": 1}), "/b": reply_json({"y": 2})}
    with world.gateway.client() as client:
        response = client.get(f"/{route}")
        assert (response.status, response.body) == (int(route[1:]), b"")
        assert client.get("/plain").json() == {"x": 1, "y": 2}


def test_a_line_is_one_value_whatever_a_service_sends(world: World) -> None:
    pretty = b'{\r\n  "x": "a\\nb",\n  "y": [\n1]\r\n}\n'
    world.parts.answers |= {
        "/a": up.reply(200, pretty, "Content-Type: application/json"), "/b": reply_json({"z": 2}),
    }  # fmt: skip
    lines = [json.loads(line) for line in world.get("/ndjson").body.splitlines()]
    assert {"part": "a", "value": {"x": "a\nb", "y": [1]}} in lines
    assert len(lines) == 3


def test_many_requests_one_behind_the_other(world: World) -> None:
    world.parts.answers |= {"/a": reply_json({"x": 1})}
    count = 500
    with world.gateway.client() as client:
        assert client.get("/kept").json() == {"a": {"x": 1}}
        client.send(
            b"GET /kept HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nHEAD /kept HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
            * count
        )
        for _ in range(count):
            assert client.response().json() == {"a": {"x": 1}}
            assert client.response("HEAD").status == 200
    assert len(world.parts.asked) <= 2


@pytest.mark.parametrize("framing", ["Content-Length: 5", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("expect", [False, True])
def test_a_body_that_nobody_wants_is_not_the_next_request(world: World, framing: str, expect: bool) -> None:
    world.parts.answers |= {"/a": reply_json({"x": 1}), "/b": reply_json({"y": 2})}
    body = b"GET /" if "Length" in framing else b"5\r\nGET /\r\n0\r\n\r\n"
    lines = [
        "POST /plain HTTP/1.1",
        "Host: t",
        framing,
        *(["Expect: 100-continue"] if expect else []),
        "",
        "",
    ]
    head = "\r\n".join(lines).encode()
    with world.gateway.client() as client:
        client.send(head)
        response = client.response("POST")  # it does not wait for the body
        assert response.json() == {"x": 1, "y": 2}
        assert "close" in (response.get("connection") or "")
    with world.gateway.client() as client:
        client.send(head + body)
        while (response := client.response("POST")).status == 100:
            pass
        assert response.json() == {"x": 1, "y": 2}
    assert all(request.body == b"" for request in world.parts.requests("/a"))


def test_fields_of_the_hop_stay_there(world: World) -> None:
    world.parts.answers["/a"] = reply_json(
        {"x": 1}, "X-Served: one", "Connection: X-Hop, keep-alive", "X-Hop: secret", "Trailer: X-T"
    )
    response = world.get("/passed")
    assert response.all("x-served") == ["one"]
    assert response.all("x-hop") == []
    assert "X-Hop" not in str(response.all("connection"))


def test_of_many_elements_one_gives_a_field_and_each_its_cookie(world: World) -> None:
    world.parts.answers["/list"] = reply_json({"items": [0, 1, 2]})
    for n in range(3):
        world.parts.answers[f"/item/{n}"] = reply_json(n, f"X-Served: {n}", f"Set-Cookie: c{n}=1")
    response = world.get("/each-fields")
    assert response.all("x-served") == ["0"]
    assert response.all("set-cookie") == ["c0=1", "c1=1", "c2=1"]


def test_an_object_that_cannot_be_whole_is_cut(world: World) -> None:
    release = threading.Event()

    def late(connection: Any) -> None:
        assert release.wait(5)
        up.reply(500)(connection)

    world.parts.answers |= {"/a": reply_json({"x": 1}), "/b": late}
    with world.gateway.client() as client:
        client.send(b"GET /pair HTTP/1.1\r\nHost: t\r\n\r\n")
        assert client.head().status == 200
        release.set()
        said = client.stream.rest("what is left of the answer")
    assert said.endswith(b'{"a":{"x":1}\r\n')  # no last chunk (RFC 9112 7.1)


# -- bounds ------------------------------------------------------------


def test_fields_of_answers_count_for_memory(world: World) -> None:
    world.parts.answers["/list"] = reply_json({"items": list(range(50))})
    for n in range(50):
        world.parts.answers[f"/item/{n}"] = reply_json(n, f"X-Big: {'x' * 8000}")
    response = world.get("/each")
    assert response.status == 502
    assert reason_of(response) == "aggregate-memory"


def test_ten_thousand_elements_with_one_that_fails_among_them(world: World) -> None:
    count = 2000
    world.parts.answers["/list"] = reply_json({"items": list(range(count))})
    for n in range(count):
        world.parts.answers[f"/item/{n}"] = reply_json(n) if n % 100 else up.reply(500, b"x" * 10_000)
    answer = world.get("/many").json()
    assert answer == {"i": [n if n % 100 else None for n in range(count)]}


def test_time_for_the_clients_body_is_not_that_of_the_parts(world: World) -> None:
    def late(connection: Any) -> None:
        time.sleep(0.1)
        reply_json({"got": connection.request.body.decode()})(connection)

    world.parts.answers["/a"] = late
    with world.gateway.client() as client:
        client.send(b"POST /body HTTP/1.1\r\nHost: t\r\nContent-Length: 6\r\n\r\nabc")
        time.sleep(0.5)  # longer than the aggregation may take
        client.send(b"def")
        assert client.response("POST").json() == {"got": "abcdef"}


def test_a_body_in_small_pieces(world: World) -> None:
    world.parts.answers["/a"] = of_request(lambda request: reply_json({"got": request.body.decode()}))
    pieces = [b"2\r\n%02d\r\n" % (n % 100) for n in range(200)]
    with world.gateway.client() as client:
        client.send(b"POST /body HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.send_pieces(*pieces, b"0\r\n\r\n")
        got = client.response("POST").json()["got"]
    assert got == "".join(f"{n % 100:02d}" for n in range(200))


def test_an_answer_in_small_pieces(world: World) -> None:
    text = json.dumps({"x": list(range(200))}).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(text)

    def pieces(connection: Any) -> None:
        connection.send(head)
        up.trickle(text, size=40, pause=0.002)(connection)

    world.parts.answers |= {"/a": pieces, "/b": reply_json({"y": 1})}
    assert world.get("/plain").json() == {"x": list(range(200)), "y": 1}


# -- answers that are one client's ------------------------------------------------------------


class Held:
    """An answer that waits until all who share it have asked."""

    def __init__(self, world: World, *answers: up.Step) -> None:
        self.world = world
        self.release, self.begun = threading.Event(), threading.Event()
        self.answers = iter(answers)
        self.lock = threading.Lock()
        world.parts.answers["/a"] = self._serve

    def _serve(self, connection: Any) -> None:
        self.begun.set()
        assert self.release.wait(5)
        with self.lock:
            step = next(self.answers)
        step(connection)

    def ask(self, *heads: tuple[str, ...]) -> list[Response]:
        """One after the other; the first one's request is under way when the others come."""
        with ExitStack() as stack:
            clients = []
            for target, *lines in heads:
                clients.append(client := stack.enter_context(self.world.gateway.client()))
                client.send("\r\n".join([f"GET {target} HTTP/1.1", *lines, "", ""]).encode())
                assert self.begun.wait(5)
            # Behind this one's answer the others have been read.
            self.world.parts.answers["/users/127.0.0.1"] = reply_json({})
            assert self.world.get("/address").status == 200
            self.release.set()
            return [client.response() for client in clients]


def test_a_cookie_is_one_clients(world: World) -> None:
    held = Held(world, *(reply_json({"x": n}, f"Set-Cookie: session={n}") for n in range(3)))
    answers = held.ask(*[("/shared", "Host: t")] * 3)
    assert {response.get("set-cookie") for response in answers} == {f"session={n}" for n in range(3)}


@pytest.mark.parametrize("said", ["private", "no-store", "no-cache"])
def test_an_answer_that_is_not_for_others_is_not_shared(world: World, said: str) -> None:
    held = Held(world, *(reply_json({"x": n}, f"Cache-Control: {said}") for n in range(2)))
    answers = held.ask(*[("/shared", "Host: t")] * 2)
    assert {response.json()["x"] for response in answers} == {0, 1}


def test_a_host_is_part_of_what_is_shared(world: World) -> None:
    held = Held(world, *(reply_json({"x": n}) for n in range(2)))
    answers = held.ask(("/shared", "Host: good"), ("/shared", "Host: evil"))
    assert {response.json()["x"] for response in answers} == {0, 1}
    assert {dict(request.fields)["Host"] for request in world.parts.requests("/a")} == {"good", "evil"}


def test_credentials_are_part_of_what_is_shared(world: World) -> None:
    held = Held(world, *(reply_json({"x": n}) for n in range(2)))
    answers = held.ask(
        ("/shared", "Host: t", "Authorization: Bearer a"), ("/shared", "Host: t", "Authorization: Bearer b")
    )
    assert {response.json()["x"] for response in answers} == {0, 1}


def test_one_that_may_be_shared_is(world: World) -> None:
    held = Held(world, reply_json({"x": 1}))
    assert [response.json() for response in held.ask(*[("/shared", "Host: t")] * 3)] == [{"x": 1}] * 3


def test_the_little_time_of_one_is_not_that_of_all(world: World) -> None:
    """Who began it has no time left when the answer is there; who waits for it has."""
    late, first, done = threading.Event(), threading.Event(), threading.Event()

    def before(connection: Any) -> None:
        if not first.is_set():
            first.set()
            assert done.wait(5)
        reply_json({})(connection)

    def slow(connection: Any) -> None:
        if not late.is_set():
            late.set()
            up.wait_close()(connection)
            return
        reply_json({"x": 1})(connection)

    world.parts.answers |= {"/b": before, "/a": slow}
    with world.gateway.client() as hurried, world.gateway.client() as client:
        hurried.send(b"GET /shared-late HTTP/1.1\r\nHost: t\r\n\r\n")
        assert first.wait(5)
        time.sleep(0.7)
        done.set()
        assert late.wait(5)
        client.send(b"GET /shared-late HTTP/1.1\r\nHost: t\r\n\r\n")
        assert hurried.response().status == 504
        assert client.response().json() == {"x": 1}


def test_what_is_kept_is_kept_for_a_host(world: World) -> None:
    def link(request: Request) -> up.Step:
        return reply_json({"href": f"https://{dict(request.fields)['Host']}/a"})

    world.parts.answers["/a"] = of_request(link)
    assert world.get("/kept", "Host: evil.example").status == 400  # two of them
    with world.gateway.client() as client:
        for host in ("evil.example", "good.example", "good.example"):
            answer = client.request(f"GET /kept HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert answer.json() == {"a": {"href": f"https://{host}/a"}}
    assert len(world.parts.asked) == 2


@pytest.mark.parametrize("line", ["Set-Cookie: a=1", "Vary: Accept, *", "Cache-Control: private"])
def test_what_is_not_kept(world: World, line: str) -> None:
    world.parts.answers["/a"] = reply_json({"x": 1}, line)
    tag = f"Accept-Language: {line.partition(':')[0]}"
    assert world.get("/kept", tag).json() == world.get("/kept", tag).json() == {"a": {"x": 1}}
    assert len(world.parts.asked) == 2


def test_caches_are_told_what_the_answer_depends_on(world: World) -> None:
    world.parts.answers |= {
        "/users/1": reply_json({"name": "a"}, "Cache-Control: max-age=60"),
        "/users/127.0.0.1": reply_json({"name": "a"}, "Cache-Control: max-age=60"),
        "/a": reply_json({"x": 1}, "Cache-Control: max-age=60, s-maxage=70"),
        "/b": reply_json({"y": 1}, "Cache-Control: max-age=0, s-maxage=600"),
    }
    by_cookie = world.get("/cookie", "Cookie: user=1")
    assert by_cookie.get("cache-control") == "max-age=60"
    assert (
        by_cookie.get("vary") == "Cookie, accept-language"
        or by_cookie.get("vary") == "accept-language, Cookie"
    )
    assert world.get("/address").get("cache-control") == "private, max-age=60"
    plain = world.get("/plain")
    assert plain.get("vary") is None
    assert plain.get("cache-control") == "max-age=0, s-maxage=70"


# -- tries ------------------------------------------------------------


def test_a_part_with_a_body_is_tried_again_where_that_is_allowed(world: World) -> None:
    answers = iter([up.reply(503), reply_json({"x": 1})])
    world.parts.answers["/a"] = of_request(lambda request: next(answers))
    assert world.get("/retried?n=7").json() == {"x": 1}
    assert [request.body for request in world.parts.requests("/a")] == [b'{"n":"7"}'] * 2


def test_a_race_a_retry_and_fallbacks_together(world: World) -> None:
    world.parts.answers["/a"] = up.reply(503)
    world.other.answers["/a"] = reply_json({"x": 1})
    assert world.get("/mixed").json() == {"x": 1}
    assert (world.parts.asked, world.other.asked) == (["/a", "/a"], ["/a"])


# -- plugins in front ------------------------------------------------------------


@pytest.mark.parametrize("act", ["", "request:suspend", "response:suspend", "request:read,response:sleep"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_hooks_that_wait(world: World, act: str, method: str) -> None:
    world.parts.answers |= {"/a": reply_json({"x": 1}), "/b": reply_json({"y": 2})}
    with world.gateway.client() as client:
        for _ in range(2):
            body = b"12345" if method == "POST" else b""
            head = (
                f"{method} /acts HTTP/1.1\r\nHost: t\r\nX-Act: {act}\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            response = client.request(head.encode() + body)
            assert response.json() == {"x": 1, "y": 2}
            assert response.get("x-seen") == "act 200 upstream"


@pytest.mark.parametrize(
    ("act", "status", "body"),
    [
        ("response:replace", 202, b"in place of 200"),
        ("response:raise", 500, None),
        ("response:hang", 500, None),
        ("response:body=other", 200, b"other"),
        ("request:answer", 201, None),
    ],
)
@pytest.mark.parametrize("route", ["acts", "acts-ndjson"])
def test_hooks_that_answer(world: World, route: str, act: str, status: int, body: bytes | None) -> None:
    world.parts.answers |= {"/a": reply_json({"x": 1}), "/b": reply_json({"y": 2})}
    with world.gateway.client() as client:
        response = client.get(f"/{route}", f"X-Act: {act}")
        assert response.status == status
        assert body is None or response.body == body
        if not response.closes:
            assert client.get("/plain").status == 200


def test_a_hook_that_answers_a_failure(world: World) -> None:
    world.parts.answers |= {"/a": up.reply(500), "/b": up.wait_close()}
    response = world.get("/acts", "X-Act: error:suspend,error:answer")
    assert (response.status, response.body) == (200, b"instead of 502 aggregate-failed upstream")


def test_another_upstream_in_place_of_all_parts(world: World) -> None:
    world.other.answers["/acts"] = reply_json({"other": 1})
    assert world.get("/acts", "X-Act: request:upstream=other").json() == {"other": 1}
    assert world.parts.asked == []


def test_a_body_that_a_hook_has_made(world: World) -> None:
    with world.gateway.client() as client:
        client.send(b"POST /acts-body HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n")
        client.send(b'X-Act: request:read,request:body={"x":7}\r\n\r\n12345')
        response = client.response("POST")
        assert response.status == 200, response.body
        assert json.loads(response.json()["body"]) == {"got": 7}


@pytest.mark.parametrize("act", ["", "response:suspend", "response:sleep"])
def test_pieces_through_hooks(world: World, act: str) -> None:
    world.parts.answers |= {"/a": reply_json({"x": 1}), "/b": reply_json({"y": 2})}
    body = world.get("/upper-ndjson?suspend", f"X-Act: {act}").body
    assert body.endswith(b'{"END":TRUE}\n!')
    assert world.get("/wrap").body == b'[{"x":1,"y":2}]'
    assert world.get("/wrap-ndjson").body.endswith(b'{"end":true}\n]')


def test_a_part_that_fails_while_a_hook_looks_at_the_head(world: World) -> None:
    """Nothing of the stream is on its way yet; what comes is an answer that ends with the failure."""
    world.parts.answers |= {"/a": reply_json({"x": 1}), "/b": up.reply(500)}
    for _ in range(5):
        response = world.get("/acts-ndjson", "X-Act: response:sleep")
        assert response.status in (200, 502)
        if response.status == 200:
            assert json.loads(response.body.splitlines()[-1])["failed"][0]["part"] == "b"


def test_a_client_that_leaves_while_a_hook_waits(world: World) -> None:
    asked = threading.Event()

    def tell(connection: Any) -> None:
        asked.set()
        reply_json({"x": 1})(connection)

    world.parts.answers |= {"/a": tell, "/b": reply_json({"y": 2})}
    since = world.gateway.mark()
    with world.gateway.client() as client:
        client.send(b"GET /acts HTTP/1.1\r\nHost: t\r\nX-Act: response:hang\r\n\r\n")
        assert asked.wait(5)
    assert world.gateway.wait_log(since)[0]["reason"] in ("client-gone", "plugin-timeout")


# -- places, reloads, clients that do not read ------------------------------------------------------------


def test_places_are_given_back(world: World) -> None:
    world.parts.answers |= {"/b": reply_json({"y": 2})}
    for step in (up.wait_close(), up.reply(500), up.reset(), up.send(b"HTTP/1.1 200 OK\r\nContent-Le")):
        world.parts.answers["/a"] = step
        with world.gateway.client() as client:
            mark = world.parts.upstream.mark()
            client.send(b"GET /limited HTTP/1.1\r\nHost: t\r\n\r\n")
            mark.wait(2)
        world.gateway.wait_upstream(lambda one: not one["load"]["requests"], "limited")
    world.parts.answers["/a"] = reply_json({"x": 1})
    assert world.get("/limited").json() == {"x": 1, "y": 2}


def test_a_reload_in_the_middle(world: World) -> None:
    begun, release = threading.Event(), threading.Event()

    def slow(connection: Any) -> None:
        begun.set()
        assert release.wait(5)
        reply_json({"items": [1, 2]})(connection)

    world.parts.answers |= {"/list": slow, "/item/1": reply_json(1), "/item/2": reply_json(2)}
    with world.gateway.client() as client:
        client.send(b"GET /many HTTP/1.1\r\nHost: t\r\n\r\n")
        assert begun.wait(5)
        world.gateway.reload()
        release.set()
        assert client.response().json() == {"i": [1, 2]}  # its own plan, to the end


def test_a_client_that_does_not_read_a_stream(world: World) -> None:
    """What waits for it is bounded by what the parts may be, and it is not waited for without an end."""
    size = 1_000_000
    for name in "abcdefgh":
        world.parts.answers[f"/{name}"] = reply_json("x" * size)
    since = world.gateway.mark()
    before = world.gateway.memory()
    with world.gateway.client(receive_buffer=4096, record=False) as client:
        client.send(b"GET /stall HTTP/1.1\r\nHost: t\r\n\r\n")
        assert client.head().status == 200
        world.gateway.wait_upstream(lambda one: not one["load"]["requests"])
        assert world.gateway.memory() - before < 40 << 20
        plain = world.get("/limited")
        assert plain.status in (200, 502)
    world.gateway.wait_log(since, 2)
