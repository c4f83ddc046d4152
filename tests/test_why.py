"""What is kept of requests that have ended, and told: `fastgate why`, GET /requests/ID, GET /failures, and
the request that asks for its own trace."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from conftest import StartGateway
from hypothesis import given
from hypothesis import strategies as st
from support import upstream as up
from support.client import request
from support.gateway import ROOT, Gateway, config
from support.upstream import Upstream, free_port
from support.wire import Response

from fastgate.telemetry.asking import Asked, sign

KEY = "k" * 32
FAST = {"backoff_base": "1ms", "backoff_max": "1ms"}
PLUGIN = """
import asyncio

from fastgate.plugins import Exchange, Plugin, Response


class Gate(Plugin):
    async def on_request(self, exchange: Exchange) -> Response | None:
        what = exchange.request.headers.get("x-do")
        if what == "wait":
            await asyncio.sleep(0.02)
        if what == "fail":
            raise ValueError("a defect")
        return Response(403) if what == "answer" else None

    async def on_response(self, exchange: Exchange, response: Response) -> None:
        pass
"""


def tables(upstream: str) -> dict[str, Any]:
    dead = f"127.0.0.1:{free_port()}"
    return config(
        upstreams={
            "up": {"endpoints": [upstream], "timeouts": {"head": "200ms"}},
            "retried": {
                "endpoints": [dead, upstream],
                "retry": {"attempts": 3, "on": ["connect-failure", "reset"], **FAST},
            },
            "dead": {"endpoints": [dead]},
        },
        routes=[
            {"name": "dead", "match": {"host": "test.example", "prefix": "/dead"}, "upstream": "dead"},
            {"name": "retried", "match": {"prefix": "/retried"}, "upstream": "retried"},
            {"name": "gate", "match": {"prefix": "/gate"}, "upstream": "up", "plugins": ["office", "gate"]},
            {
                "name": "few",
                "match": {"prefix": "/few"},
                "upstream": "up",
                "plugins": ["few"],
            },
            {
                "name": "fallen",
                "match": {"prefix": "/fallen"},
                "upstream": "dead",
                "fallback": {"upstream": "up", "on": ["connect-failure"]},
            },
            {"name": "fixed", "match": {"prefix": "/fixed"}, "respond": {"status": 410}},
            {"name": "headed", "match": {"path": "/up", "headers": {"x-a": "1"}}, "upstream": "dead"},
            {"name": "up", "match": {"prefix": "/up"}, "upstream": "up"},
        ],
        plugins={
            "office": {"use": "ip-filter", "allow": ["127.0.0.0/8"]},
            "gate": {"use": "./gate.py:Gate"},
            "few": {"use": "rate-limit", "rate": "1/h", "scope": "worker"},
        },
        listener={"request_id": "keep"},
        access_log={"redact_query": ["token"]},
        admin={"bind": "127.0.0.1:0"},
    ) | {"why": {"key": KEY}}


class Place:
    def __init__(self, gateway: Gateway, upstream: Upstream) -> None:
        self.gateway = gateway
        self.upstream = upstream
        self.last = ""

    def ask(self, target: str, *lines: str, method: str = "GET") -> Response:
        self.last = f"id-{time.monotonic_ns()}"
        with self.gateway.client() as client:
            return client.request(request(method, target, lines=(f"X-Request-ID: {self.last}", *lines)))

    def why(self) -> dict[str, Any]:
        """What is told of the last request."""
        found = self.gateway.admin(f"/requests/{self.last}")
        assert isinstance(found, dict)
        assert found["request_id"] == self.last
        return found

    def attempts(self) -> list[dict[str, Any]]:
        return [step for step in self.why()["steps"] if step["step"] == "attempt"]

    def steps(self) -> list[str]:
        return [step["step"] for step in self.why()["steps"]]

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        where = self.gateway.addresses["admin API"]
        return subprocess.run(
            [sys.executable, "-m", "fastgate", "why", "--admin", f"{where[0]}:{where[1]}", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=30,
        )


@pytest.fixture(scope="module")
def place(module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with ExitStack() as stack:
        directory = tmp_path_factory.mktemp("gateway")
        (directory / "gate.py").write_text(PLUGIN)
        gateway = stack.enter_context(Gateway(tables(module_upstream.address), directory))
        yield Place(gateway, module_upstream)


# -- failures


def test_a_failure_is_told(place: Place) -> None:
    assert place.ask("/dead/7?token=hunter2&a=1").status == 502
    found = place.why()
    assert (found["status"], found["reason"], found["route"]) == (502, "connect-refused", "dead")
    assert found["query"] == "token=[redacted]&a=1"
    assert "host" in found["route_why"][0] or "only" in found["route_why"][0]
    (attempt,) = place.attempts()
    assert (attempt["reason"], attempt["upstream"]) == ("connect-refused", "dead")
    assert "sent" not in attempt or attempt["sent"] is None
    assert 0 <= attempt["at"] <= attempt["at"] + attempt["took"] <= found["total_ns"]


def test_no_route(place: Place) -> None:
    assert place.ask("/nowhere").status == 404
    found = place.why()
    assert found["route"] is None
    assert any("/nowhere is not under /dead" in line for line in found["route_why"])


def test_a_route_that_headers_decided(place: Place) -> None:
    place.ask("/up", "X-A: 1")
    found = place.why()
    assert found["route"] == "headed"
    assert "fields or cookies" in found["route_why"][0]


def test_each_attempt_is_told(place: Place, upstream: Upstream) -> None:
    """Two were not answered whole, one could not be made, in whatever order the balancer chose."""
    for _ in range(6):
        upstream.clear()
        for _ in range(3):
            upstream.script(up.reset())
        if place.ask("/retried").status == 502:
            break
    upstream.clear()
    attempts = place.attempts()
    assert {attempt["reason"] for attempt in attempts} == {"connect-refused", "upstream-reset"}
    for attempt in attempts:
        if attempt["reason"] == "upstream-reset":
            assert attempt["endpoint"] == upstream.address
            assert attempt["sent"] is not None


def test_an_answer_that_is_an_error(place: Place, upstream: Upstream) -> None:
    upstream.script(up.reply(500, b"oops"))
    assert place.ask("/up").status == 500
    found = place.why()
    assert (found["status"], found["reason"]) == (500, None)
    (attempt,) = place.attempts()
    assert attempt["status"] == 500
    assert attempt["head"] > 0


def test_a_late_answer(place: Place, upstream: Upstream) -> None:
    upstream.script(up.read_body(), up.wait_close())
    assert place.ask("/up").status == 504
    (attempt,) = place.attempts()
    assert attempt["reason"] == "upstream-head-timeout"
    assert attempt["took"] > 150e6


def test_a_cut_answer(place: Place, upstream: Upstream) -> None:
    upstream.script(up.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"), up.close())
    with place.gateway.client() as client:
        client.send(request(lines=("X-Request-ID: cut",), target="/up"))
        client.cut_response()
    place.last = "cut"
    found = place.why()
    assert (found["status"], found["reason"]) == (200, "upstream-truncated")
    assert place.attempts()[0]["status"] == 200


def test_fallbacks(place: Place, upstream: Upstream) -> None:
    upstream.script(up.reply(500, b"oops"))
    assert place.ask("/fallen").status == 500
    assert place.steps() == ["attempt", "fallback", "attempt"]
    assert [attempt["upstream"] for attempt in place.attempts()] == ["dead", "up"]


@pytest.mark.parametrize(
    ("do", "status", "verdict"), [("answer", 403, "answered"), ("fail", 500, "failed"), ("wait", 0, "passed")]
)
def test_what_plugins_said(place: Place, upstream: Upstream, do: str, status: int, verdict: str) -> None:
    if not status:
        upstream.script(up.reply(500))
    place.ask("/gate", f"X-Do: {do}")
    steps = [step for step in place.why()["steps"] if step["step"] == "plugin"]
    assert (steps[0]["name"], steps[0]["phase"], steps[0]["verdict"]) == ("gate", "request", verdict)
    assert steps[0]["took"] > (19e6 if do == "wait" else 0)
    assert (steps[0]["status"] or 0) == (403 if do == "answer" else 0)
    # One that has failed is not asked again.
    assert [step["phase"] for step in steps[1:]] == ([] if do == "fail" else ["response"])


def test_what_a_limit_said(place: Place, upstream: Upstream) -> None:
    upstream.script(up.reply())
    assert [place.ask("/few").status for _ in range(2)] == [200, 429]
    (step,) = place.why()["steps"]
    assert (step["step"], step["name"], step["reason"]) == ("filter", "few", "rate-limited")


def test_a_bad_request_is_told(place: Place) -> None:
    with place.gateway.client() as client:
        answer = client.request(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
    place.last = answer.get("x-request-id") or ""
    assert place.why()["reason"] == "host-duplicate"


def test_what_went_well_is_not_kept(place: Place, upstream: Upstream) -> None:
    upstream.script(up.reply())
    assert place.ask("/up").status == 200
    done = place.command(place.last)
    assert (done.returncode, done.stdout) == (1, "")
    assert "nothing is kept of a request" in done.stderr
    assert place.ask("/fixed").status == 410  # as configured
    assert place.command(place.last).returncode == 1


def test_the_latest_failures_come_first(place: Place, upstream: Upstream) -> None:
    place.ask("/dead/1")
    place.ask("/dead/2")
    first, second = place.gateway.admin("/failures")["failures"][:2]
    assert (first["path"], second["path"]) == ("/dead/2", "/dead/1")


# -- the command


def test_the_command(place: Place) -> None:
    place.ask("/dead/7")
    done = place.command(place.last)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "GET http://test.example/dead/7"
    assert f"request {place.last}" in lines[1]
    assert lines[2].startswith("status 502, reason connect-refused (")
    assert lines[3] == 'route "dead"'
    (attempt,) = (line for line in lines if "attempt 1 on 127.0.0.1:" in line)
    assert "not sent, connect-refused" in attempt
    assert json.loads(place.command(place.last, "--json").stdout)["request_id"] == place.last
    listed = place.command()
    assert listed.returncode == 0
    assert re.search(rf"502 +connect-refused +GET +test.example +/dead/7 +dead +{place.last}", listed.stdout)


# -- what is kept, and for how long


def test_a_flood_of_refusals_drives_no_error_out(start_gateway: StartGateway, upstream: Upstream) -> None:
    tables = config(upstream.address, listener={"request_id": "keep"}, admin={"bind": "127.0.0.1:0"})
    tables["routes"][0]["match"] = {"prefix": "/up"}
    tables["why"] = {"memory": "30KiB"}
    gateway = start_gateway(tables)
    upstream.script(up.reply(503))
    with gateway.client() as client:
        client.get("/up", "X-Request-ID: an-error")
        client.get("/first", "X-Request-ID: a-refusal")
        for _ in range(300):
            client.get("/nowhere", "X-Request-ID: flood")
    assert gateway.admin("/requests/an-error")["status"] == 503
    kept = gateway.admin("/failures")["failures"]
    assert {each["request_id"] for each in kept} == {"an-error", "flood"}
    size = len(json.dumps(kept))
    assert 4_000 < size < 40_000  # a third of the memory is refusals


def test_nothing_is_kept(start_gateway: StartGateway) -> None:
    tables = config(admin={"bind": "127.0.0.1:0"}, routes=[]) | {"why": {"memory": "0B"}}
    gateway = start_gateway(tables)
    with gateway.client() as client:
        client.get("/")
    assert gateway.admin("/failures") == {"failures": []}
    gateway.reload(tables | {"why": {"memory": "1MiB"}})
    with gateway.client() as client:
        client.get("/")
    assert len(gateway.admin("/failures")["failures"]) == 1


def test_some_are_kept_by_chance(start_gateway: StartGateway, upstream: Upstream) -> None:
    tables = config(upstream.address, listener={"request_id": "keep"}, admin={"bind": "127.0.0.1:0"})
    gateway = start_gateway(tables | {"why": {"keep": 1}})
    with gateway.client() as client:
        client.get("/", "X-Request-ID: by-chance")
    found = gateway.admin("/requests/by-chance")
    assert [step["step"] for step in found["steps"]] == ["matched", "attempt", "answering"]
    assert gateway.admin("/failures") == {"failures": []}


def test_whichever_worker_has_it(start_gateway: StartGateway, upstream: Upstream) -> None:
    tables = config(
        upstream.address,
        server={"workers": 2},
        listener={"request_id": "keep"},
        admin={"bind": "127.0.0.1:0"},
    )
    tables["routes"][0]["match"] = {"prefix": "/up"}
    gateway = start_gateway(tables)
    for i in range(20):
        with gateway.client() as client:
            client.get("/nowhere", f"X-Request-ID: id-{i}")
    assert [gateway.admin(f"/requests/id-{i}")["request_id"] for i in range(20)] == [
        f"id-{i}" for i in range(20)
    ]
    failures = gateway.admin("/failures")["failures"]
    assert [each["request_id"] for each in failures] == [f"id-{i}" for i in reversed(range(20))]


# -- a request that asks for its trace


def signed(target: str, *, method: str = "GET", ahead: int = 60, host: str = "test.example") -> str:
    return "X-Fastgate-Trace: " + sign(KEY, int(time.time()) + ahead, method, host, target)


def test_a_request_asks_for_its_trace(place: Place, upstream: Upstream) -> None:
    mark = upstream.mark()
    upstream.script(up.reply())
    answer = place.ask("/gate/a?b=1", signed("/gate/a"))
    assert answer.status == 200
    assert answer.get("x-fastgate-trace") == place.last
    timing = answer.get("server-timing") or ""
    assert re.fullmatch(
        r'gateway;dur=\d+\.\d{3}(, connect;dur=\d+\.\d{3})?, upstream;dur=\d+\.\d{3}, attempts;desc="1"',
        timing,
    )
    assert mark.one().get("x-fastgate-trace") is None
    found = place.why()
    assert found["asked"] is True
    assert sorted(place.steps()) == sorted(["matched", "filter", "plugin", "attempt", "plugin", "answering"])


def test_the_command_signs(place: Place, upstream: Upstream) -> None:
    file = str(place.gateway.file)
    done = place.command("-c", file, "--sign", "GET", "http://TEST.example:80/up/./a%7Eb?x=1")
    assert done.returncode == 0, done.stderr
    upstream.script(up.reply())
    assert place.ask("/up/a~b", done.stdout.strip()).get("x-fastgate-trace") == place.last
    assert place.command("-c", file, "--sign", "GET", "/up").returncode == 2
    assert place.command("-c", file, "--sign", "GET", "http://a/", "--expires", "601").returncode == 2
    assert place.command("-c", file, "--sign", "GET", "http://a/", "an-id").returncode == 2


REFUSED = {
    "another path": signed("/up/b"),
    "another method": signed("/up/a", method="POST"),
    "another host": signed("/up/a", host="other.example"),
    "expired": signed("/up/a", ahead=-2),
    "too far ahead": signed("/up/a", ahead=10_000),
    "another key": "X-Fastgate-Trace: "
    + sign("j" * 32, int(time.time()) + 60, "GET", "test.example", "/up/a"),
    "a later expiry": "X-Fastgate-Trace: "
    + re.sub(r"\d+;", f"{int(time.time()) + 300};", signed("/up/a").split(": ")[1]),
    "no signature": "X-Fastgate-Trace: 1",
    "nothing": "X-Fastgate-Trace:",
    "much": "X-Fastgate-Trace: " + "9" * 4000,
}


@pytest.mark.parametrize("why", REFUSED)
def test_who_may_not_ask_is_served_as_anybody(place: Place, upstream: Upstream, why: str) -> None:
    mark = upstream.mark()
    upstream.script(up.reply())
    answer = place.ask("/up/a", REFUSED[why])
    assert answer.status == 200
    assert answer.get("x-fastgate-trace") is None
    assert answer.get("server-timing") is None
    assert mark.one().get("x-fastgate-trace") is None  # nobody else's to see
    assert place.command(place.last).returncode == 1


@given(st.binary(max_size=100))
def test_no_bytes_are_a_signature(value: bytes) -> None:
    assert not Asked(KEY, 600)(value, b"GET", b"a", b"/")


def test_when_a_signature_holds() -> None:
    now = 1_000_000
    asked = Asked(KEY, 600, clock=lambda: now)
    for ahead, holds in ((-1, False), (0, True), (600, True), (601, False)):
        assert asked(sign(KEY, now + ahead, "GET", "a", "/").encode(), b"GET", b"a", b"/") is holds
