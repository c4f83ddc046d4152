"""Each way in which a part can fail, in each place where it can stand: what the client gets. The table of
docs/aggregation-failures.md is made here (`--update-golden`), and held to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support import upstream as up
from support.gateway import Gateway, config
from support.parts import Parts, reply_json
from support.upstream import Connection, Step
from support.wire import Response

PAGE = Path(__file__).parents[1] / "docs" / "aggregation-failures.md"
BEGIN, END = "<!-- made by tests/test_aggregate_failures.py -->\n", "<!-- end -->\n"


def _cut(connection: Connection) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    connection.send(head + b'{"reviews": [')
    up.reset()(connection)


class Failure(NamedTuple):
    """step: what the service does; None: nobody listens."""

    name: str
    step: Step | None
    reason: str
    status: int


JSON = "Content-Type: application/json"
FAILURES = (
    Failure("refuses connections", None, "connect-refused", 502),
    Failure("hangs", up.wait_close(), "part-timeout", 504),
    Failure("answers 500", up.reply(500, b"{}", JSON), "part-status", 502),
    Failure("answers 404", up.reply(404, b"{}", JSON), "part-status", 404),
    Failure("sends what is no JSON", up.reply(200, b'{"reviews": [}', JSON), "part-body", 502),
    Failure(
        "sends more than `max_body`", up.reply(200, b"[" + b" " * 5000 + b"]", JSON), "part-too-large", 502
    ),
    Failure("sends a list where an object is needed", up.reply(200, b"[1]", JSON), "part-type", 502),
    Failure("is reset in the middle of its answer", _cut, "upstream-truncated", 502),
)
PLACES = ("parallel", "sequence")
KEYS = {"path": "/reviews", "max_body": "4KiB", "timeout": "250ms", "statuses": {"404": 404}}


def aggregate(upstream: str, place: str, required: bool) -> dict[str, Any]:
    reviews = {"upstream": upstream, "required": required, **KEYS}
    if place == "parallel":
        return {"parts": {"order": {"upstream": "up", "path": "/order"}, "reviews": reviews}}
    next_part = {
        "upstream": "up",
        "path": "/users/{part.reviews.user}",
        "required": required,
        "group": "user",
    }
    return {"parts": {"order": {"upstream": "up", "path": "/order"}, "reviews": reviews, "user": next_part}}


class World:
    def __init__(self, gateway: Gateway, parts: Parts) -> None:
        self.gateway, self.parts = gateway, parts

    def ask(self, failure: Failure, place: str, required: bool) -> Response:
        self.parts.forget()
        self.parts.answers["/order"] = reply_json({"id": 7})
        if failure.step is not None:
            self.parts.answers["/reviews"] = failure.step
        name = route_name("dead" if failure.step is None else "up", place, required)
        with self.gateway.client() as client:
            return client.get(f"/{name}")


def route_name(upstream: str, place: str, required: bool) -> str:
    return f"{upstream}-{place}-{'required' if required else 'optional'}"


@pytest.fixture(scope="module")
def module_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:
        parts = stack.enter_context(Parts())
        routes = [
            {
                "name": (name := route_name(upstream, place, required)),
                "match": {"path": f"/{name}"},
                "aggregate": aggregate(upstream, place, required),
            }
            for upstream in ("up", "dead")
            for place in PLACES
            for required in (True, False)
        ]
        tables = config(
            admin={"bind": "127.0.0.1:0"},
            upstreams={
                "up": {"endpoints": [parts.address]},
                "dead": {"endpoints": [f"127.0.0.1:{up.free_port()}"]},
            },
            routes=routes,
        )
        yield World(stack.enter_context(Gateway(tables, tmp_path_factory.mktemp("failures"))), parts)


@pytest.fixture
def world(module_world: World) -> Iterator[World]:
    yield module_world
    module_world.gateway.assert_idle()


@pytest.mark.parametrize("failure", FAILURES, ids=lambda one: one.name.replace(" ", "-").replace("`", ""))
@pytest.mark.parametrize("place", PLACES)
def test_required(world: World, failure: Failure, place: str) -> None:
    since = world.gateway.mark()
    response = world.ask(failure, place, True)
    assert response.status == failure.status
    problem = response.json()
    assert problem["code"] == (
        "aggregate-timeout" if failure.reason == "part-timeout" else "aggregate-failed"
    )
    told = problem["parts"][0]
    assert (told["part"], told["reason"]) == ("reviews", failure.reason)
    (line,) = world.gateway.wait_log(since)
    assert line["reason"] == problem["code"]
    assert f"reviews: {failure.reason}" in line["detail"]
    assert world.parts.requests("/users/") == []  # the sequence has stopped


@pytest.mark.parametrize("failure", FAILURES, ids=lambda one: one.name.replace(" ", "-").replace("`", ""))
@pytest.mark.parametrize("place", PLACES)
def test_optional(world: World, failure: Failure, place: str) -> None:
    response = world.ask(failure, place, False)
    assert response.status == 200
    assert response.json() == {"id": 7}
    assert response.get("cache-control") == "no-store"
    failed = [f'"reviews";reason={failure.reason}']
    if place == "sequence":
        failed.append('"user";reason=part-dependency')
    assert response.get("fastgate-partial") == ", ".join(failed)


def test_the_page_tells_it(world: World, update_golden: bool) -> None:
    rows = [
        "| The service | Its part is | Alone | Answer | `parts` of the problem, or Fastgate-Partial |",
        "|---|---|---|---|---|",
    ]
    for failure in FAILURES:
        for required in (True, False):
            for place in PLACES:
                response = world.ask(failure, place, required)
                if response.status == 200:
                    told = f"`{response.get('fastgate-partial')}`"
                else:
                    told = f"`{json.dumps(response.json()['parts'])}`"
                code = response.json().get("code", "")
                rows.append(
                    f"| {failure.name} | {'required' if required else 'optional'} "
                    f"| {'yes' if place == 'parallel' else 'another needs it'} "
                    f"| {response.status}{f', `{code}`' if code else ''} | {told} |"
                )
    table = "\n".join(rows) + "\n"
    page = PAGE.read_text()
    before, found = page.split(BEGIN)
    _, behind = found.split(END)
    if update_golden:
        PAGE.write_text(f"{before}{BEGIN}{table}{END}{behind}")
    else:
        assert found.removesuffix(END + behind) == table
