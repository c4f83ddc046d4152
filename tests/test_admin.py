"""The admin API: what each request does, who is let in, and that nothing is unbounded."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

import fastgate
from fastgate.config import Config, Problem, Sources, loads
from fastgate.config.diff import Difference, ItemChange, KeyChange
from fastgate.config.model import Admin
from fastgate.server import admin_http
from fastgate.server.acme.views import AcmeView
from fastgate.server.admin import Api
from fastgate.server.operations import (
    ArmView,
    Cause,
    Changes,
    EndpointChange,
    EndpointView,
    Health,
    InForce,
    ListenerView,
    LogLevel,
    Outdated,
    ReloadError,
    ReloadResult,
    SplitView,
    Unavailable,
    UnknownName,
    UpstreamView,
    VersionView,
    WhyNot,
    WorkerView,
)
from fastgate.telemetry.trail import ExchangeTrace

ENDPOINT = EndpointView(
    address="127.0.0.1:9001",
    region="",
    zone="",
    status="ready",
    state="auto",
    probe="unknown",
    breaker="closed",
    ejected_for=0.0,
    weight=2,
    active=2,
    open=3,
    idle=1,
    waiting=0,
)
UPSTREAM = UpstreamView(
    name="orders/eu",
    balance="round-robin",
    breaker="closed",
    problem="",
    limit=0,
    queued=0,
    endpoints=(ENDPOINT,),
)
SPLIT = SplitView(
    route="shop",
    arms=(
        ArmView(name="stable", upstream="orders-v1", weight=95, configured=95),
        ArmView(name="canary", upstream="orders-v2", weight=0, configured=5, rolled_back="9 % of 400"),
    ),
)
UNCHANGED = Changes(kept=1, added=(), changed=(), removed=())
RELOADED = ReloadResult(
    listeners=UNCHANGED,
    upstreams=UNCHANGED,
    plugins=UNCHANGED,
    routes=Changes(kept=0, added=("b",), changed=("a",), removed=()),
    listening=(("127.0.0.1:8081", "b"),),
)
TRACE = ExchangeTrace(
    time="2026-11-22T21:30:47.000Z", request_id="a1", listener="main", client="192.0.2.1", client_port=4711,
    method="GET", path="/orders", query=None, host="api.example.com", protocol="HTTP/1.1", route="orders",
    upstream="orders/eu", endpoint="127.0.0.1:9001", attempts=1, status=502, reason="connect-refused",
    detail=None, bytes_in=0, bytes_out=200, time_queue=None, time_connect=None, time_upstream_head=None,
    time_total=0.01, tls=None, user_agent=None, consumer=None, start_ns=1_795_000_000_000_000_000,
    total_ns=10_000_000,
)  # fmt: skip


VERSION = VersionView(
    version=3, digest="ab", time=1.0, cause="admin", of=0, changes="", in_force=True, as_files=True
)
ADDED = ItemChange(kind="route", name="b", change="added", keys=(KeyChange(key="match.prefix", new="/b"),))
CONFIG = """
[[listeners]]
bind = "127.0.0.1:8080"

[upstreams.orders]
endpoints = ["127.0.0.1:9001"]
sticky = { secret = "not to be seen" }

[[routes]]
name = "orders"
match = { prefix = "/orders", headers = { x-kind = true } }
upstream = "orders"
request_headers = { set = { authorization = "nor this", x-plain = "this" } }
timeouts = { total = "90s" }
"""


@dataclass
class Fake:
    """Operations that note what was asked, and do as they are told."""

    asked: list[tuple[Any, ...]] = field(default_factory=list)
    error: Exception | None = None
    well: Health = field(default_factory=lambda: Health(ready=True))
    level: LogLevel = "info"

    def _ask(self, *what: Any) -> None:
        self.asked.append(what)
        if self.error is not None:
            raise self.error

    async def upstreams(self) -> list[UpstreamView]:
        self._ask("upstreams")
        return [UPSTREAM]

    async def set_endpoint(self, upstream: str, address: str, change: EndpointChange) -> EndpointView:
        self._ask(upstream, address, change)
        return ENDPOINT

    async def split(self, route: str) -> SplitView:
        self._ask("split", route)
        return SPLIT

    async def set_split(self, route: str, weights: Mapping[str, int]) -> SplitView:
        self._ask("set", route, weights)
        return SPLIT

    async def clear_split(self, route: str, arm: str) -> SplitView:
        self._ask("clear", route, arm)
        return SPLIT

    async def count(self) -> dict[str, Any]:
        self._ask("count")
        return {"workers": 1, "no_route": None}

    async def why(self, request_id: str) -> ExchangeTrace:
        self._ask("why", request_id)
        return TRACE

    async def failures(self, limit: int) -> list[ExchangeTrace]:
        self._ask("failures", limit)
        return [TRACE]

    async def reload(
        self, config: Config | None = None, *, cause: Cause = "program", expected: str | None = None
    ) -> ReloadResult:
        assert cause == "admin"
        self._ask("reload", config, *([expected] if expected else []))
        return RELOADED

    async def reload_certificates(self, *, expected: str | None = None) -> ReloadResult:
        self._ask("reload_certificates", *([expected] if expected else []))
        return RELOADED

    async def metrics(self, openmetrics: bool) -> bytes:
        return b""

    async def acme(self) -> list[AcmeView]:
        return []

    async def history(self) -> list[VersionView]:
        return [VERSION]

    async def sources(self, version: int | None = None) -> Sources:
        self._ask("sources", version)
        return Sources(texts={"a.toml": "x"})

    async def diff(self, old: int, new: int) -> Difference:
        self._ask("diff", old, new)
        return Difference(items=(ADDED,), order=False, files=())

    async def rollback(self, version: int | None = None, *, expected: str | None = None) -> ReloadResult:
        self._ask("rollback", version, expected)
        return RELOADED

    async def in_force(self) -> InForce:
        return InForce(loads(CONFIG, "gateway.toml").config, 3, '"x-3"', 0.0)

    async def health(self) -> Health:
        return self.well

    async def workers(self) -> list[WorkerView]:
        return [WorkerView(id=1, pid=7, started=1.0, state="serving")]

    async def listeners(self) -> list[ListenerView]:
        return []

    async def upgrade(self) -> int:
        self._ask("upgrade")
        return 7

    async def begin_drain(self) -> None:
        self._ask("drain")

    async def log_level(self) -> LogLevel:
        return self.level

    async def set_log_level(self, level: LogLevel) -> LogLevel:
        self.level = level
        return level


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Caller:
    def __init__(self, server: admin_http.AdminServer, fake: Fake) -> None:
        self.server = server
        self.fake = fake

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        address = self.server.listening.addresses[0]
        if address.startswith("unix:"):
            return await asyncio.open_unix_connection(address.removeprefix("unix:"))
        host, _, port = address.rpartition(":")
        return await asyncio.open_connection(host.strip("[]"), int(port))

    async def send(self, data: bytes) -> Answer:
        reader, writer = await self.connect()
        writer.write(data)
        raw = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        head, _, body = raw.partition(b"\r\n\r\n")
        line, *fields = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}
        return Answer(int(line.split()[1]), headers, body)

    async def call(self, method: str, target: str, body: object = None, *lines: str) -> Answer:
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        fields = [f"{method} {target} HTTP/1.1", *lines]
        if not any(line.startswith("Host:") for line in lines):
            fields.append("Host: localhost")
        if body is not None:
            fields.append(f"Content-Length: {len(data)}")
            if not any(line.startswith("Content-Type:") for line in lines):
                fields.append("Content-Type: application/json")
        return await self.send("\r\n".join([*fields, "", ""]).encode() + data)


@pytest.fixture
async def caller() -> AsyncIterator[Caller]:
    fake = Fake()
    where = Admin(bind="127.0.0.1:0", host="127.0.0.1", port=0)
    server = admin_http.AdminServer(Api(fake), where)
    server.follow(await server.prepare(where))
    try:
        yield Caller(server, fake)
    finally:
        await server.stop()


# -- what each request does


async def test_upstreams(caller: Caller) -> None:
    answer = await caller.call("GET", "/upstreams")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["connection"] == "close"
    (upstream,) = answer.json()["upstreams"]
    assert upstream["name"] == "orders/eu"
    assert upstream["endpoints"] == [msgspec.to_builtins(ENDPOINT)]
    assert (await caller.call("GET", "/upstreams/orders%2Feu")).json() == upstream
    answer = await caller.call("GET", "/upstreams/orders")
    assert answer.status == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": 'no upstream is named "orders"',
    }


@pytest.mark.parametrize(
    ("body", "change"),
    [
        ({"state": "draining"}, EndpointChange(state="draining")),
        ({"weight": 7}, EndpointChange(weight=7)),
        ({"state": "auto", "weight": None}, EndpointChange(state="auto", weight=None)),
    ],
)
async def test_an_endpoint_is_set(caller: Caller, body: object, change: EndpointChange) -> None:
    answer = await caller.call("PUT", "/upstreams/orders%2Feu/endpoints/unix:%2Frun%2Fx.sock", body)
    assert answer.status == 200
    assert answer.json()["weight"] == 2
    assert caller.fake.asked == [("orders/eu", "unix:/run/x.sock", change)]


@pytest.mark.parametrize(
    ("target", "body", "status", "detail"),
    [
        ("/upstreams/u/endpoints/e", {}, 422, "give `state`"),
        ("/upstreams/u/endpoints/e", {"state": "up"}, 422, "Invalid enum value 'up' - at `$.state`"),
        ("/upstreams/u/endpoints/e", {"weight": 0}, 422, ">= 1 - at `$.weight`"),
        ("/upstreams/u/endpoints/e", {"weight": 1001}, 422, "<= 1000 - at `$.weight`"),
        ("/upstreams/u/endpoints/e", {"weight": "2"}, 422, "$.weight"),
        ("/upstreams/u/endpoints/e", {"wait": 2}, 422, "unknown field `wait`"),
        ("/upstreams/u/endpoints/e", [], 422, "Expected `object`"),
        ("/upstreams/u/endpoints/e", b"{", 400, "truncated"),
        ("/upstreams/u/endpoints/e", b"", 400, "truncated"),
        ("/routes/r/split", {}, 422, "one of them"),
        ("/routes/r/split", {"weights": {"a": 1}, "clear": "a"}, 422, "one of them"),
        ("/routes/r/split", {"weights": {"a": -1}}, 422, ">= 0"),
        ("/routes/r/split", {"weights": {"a": 10001}}, 422, "<= 10000"),
        ("/routes/r/split", {"weights": ["a"]}, 422, "Expected `object`"),
        ("/routes/r/split", {"clear": None}, 422, "Expected `str`"),
    ],
)
async def test_what_can_not_be_set(
    caller: Caller, target: str, body: object, status: int, detail: str
) -> None:
    answer = await caller.call("PUT", target, body)
    assert answer.status == status
    assert detail in answer.json()["detail"]
    assert caller.fake.asked == []


async def test_a_split(caller: Caller) -> None:
    answer = await caller.call("GET", "/routes/shop/split")
    assert [arm["rolled_back"] for arm in answer.json()["arms"]] == [None, "9 % of 400"]
    assert (await caller.call("PUT", "/routes/shop/split", {"weights": {"canary": 0}})).status == 200
    assert (await caller.call("PUT", "/routes/shop/split", {"clear": "canary"})).status == 200
    assert caller.fake.asked == [
        ("split", "shop"),
        ("set", "shop", {"canary": 0}),
        ("clear", "shop", "canary"),
    ]
    caller.fake.error = ValueError("some arm needs a weight")
    answer = await caller.call("PUT", "/routes/shop/split", {"weights": {"canary": 0}})
    assert (answer.status, answer.json()["detail"]) == (422, "some arm needs a weight")


async def test_reload(caller: Caller) -> None:
    bodies: list[object] = [b"", {}]
    for body in bodies:
        answer = await caller.call("POST", "/reload", body)
        assert answer.status == 200
        assert answer.json()["routes"] == {"kept": 0, "added": ["b"], "changed": ["a"], "removed": []}
        assert answer.json()["listening"] == [["127.0.0.1:8081", "b"]]
    assert caller.fake.asked == [("reload", None)] * 2
    problem = Problem("gateway.toml", 3, 1, "no such key", "did you mean that?")
    caller.fake.error = ReloadError("gateway.toml:3:1: no such key", (problem,))
    answer = await caller.call("POST", "/reload", {})
    assert answer.status == 422
    assert answer.json()["detail"] == "gateway.toml:3:1: no such key"
    assert answer.json()["problems"] == [
        {
            "file": "gateway.toml",
            "line": 3,
            "column": 1,
            "message": "no such key",
            "hint": "did you mean that?",
            "severity": "error",
        }
    ]


async def test_counters_and_version(caller: Caller) -> None:
    assert (await caller.call("GET", "/counters")).json() == {"workers": 1, "no_route": None}
    version = (await caller.call("GET", "/version")).json()
    assert version["fastgate"] == fastgate.__version__
    assert version["pid"] == os.getpid()


async def test_probes(caller: Caller) -> None:
    assert (await caller.call("GET", "/livez")).json() == {"live": True}
    ready = await caller.call("GET", "/readyz")
    assert (ready.status, ready.json()) == (200, {"ready": True, "reasons": []})
    caller.fake.well = Health(ready=False, reasons=(WhyNot(code="draining", detail="it ends"),))
    ready = await caller.call("GET", "/readyz")
    assert (ready.status, ready.json()["reasons"]) == (503, [{"code": "draining", "detail": "it ends"}])
    assert ready.headers["content-type"] == "application/json"


async def test_configuration_without_its_secrets(caller: Caller) -> None:
    answer = await caller.call("GET", "/configuration")
    assert (answer.status, answer.headers["etag"]) == (200, '"x-3"')
    shown = answer.json()
    assert (shown["version"], shown["etag"], shown["source"]) == (3, '"x-3"', "gateway.toml")
    assert shown["configuration"] == {
        "listeners": [{"name": "127.0.0.1:8080", "bind": "127.0.0.1:8080"}],
        "upstreams": {
            "orders": {"endpoints": [{"address": "127.0.0.1:9001"}], "sticky": {"secret": "<secret>"}}
        },
        "routes": [
            {
                "name": "orders",
                "match": {"prefix": "/orders", "headers": {"x-kind": True}},
                "upstream": "orders",
                "request_headers": {"set": {"authorization": "<secret>", "x-plain": "this"}},
                "timeouts": {"total": "90s"},
            }
        ],
    }
    for known in ('"x-3"', '"y", "x-3"'):
        answer = await caller.call("GET", "/configuration", None, f"If-None-Match: {known}")
        assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", '"x-3"')


async def test_a_reload_of_what_was_seen(caller: Caller) -> None:
    for given, asked in (('"x-3"', ("reload", None, '"x-3"')), ("*", ("reload", None))):
        assert (await caller.call("POST", "/reload", {}, f"If-Match: {given}")).status == 200
        assert caller.fake.asked.pop() == asked
    caller.fake.error = Outdated("version 4 is in force")
    answer = await caller.call("POST", "/reload", {}, 'If-Match: "x-3"')
    assert (answer.status, answer.json()["detail"]) == (412, "version 4 is in force")


async def test_versions(caller: Caller) -> None:
    assert (await caller.call("GET", "/history")).json()["versions"] == [msgspec.to_builtins(VERSION)]
    found = (await caller.call("GET", "/history/2/diff/3")).json()
    assert found["items"][0]["keys"] == [{"key": "match.prefix", "new": "/b"}]
    bodies: list[object] = [{"version": 2}, {}, b""]
    for body in bodies:
        assert (await caller.call("POST", "/rollback", body, 'If-Match: "x-3"')).status == 200
    assert caller.fake.asked == [
        ("diff", 2, 3),
        *(("rollback", version, '"x-3"') for version in (2, None, None)),
    ]
    caller.fake.error = UnknownName("version 2 is not kept")
    assert (await caller.call("POST", "/rollback", {"version": 2})).status == 404


@pytest.mark.parametrize("query", ["routes=x", "routes=-1", "routes=1&routes=2", "x=3", "=", "%ff=1&"])
async def test_queries_that_mean_nothing(caller: Caller, query: str) -> None:
    assert (await caller.call("GET", f"/summary?{query}")).status == 400
    assert caller.fake.asked == []


async def test_routes_plugins_listeners_workers(caller: Caller) -> None:
    assert (await caller.call("GET", "/routes")).json()["routes"] == [
        {
            "name": "orders",
            "match": {"prefix": "/orders", "headers": {"x-kind": True}},
            "action": "upstream",
            "upstreams": ["orders"],
            "plugins": [],
            "listeners": [],
        }
    ]
    assert (await caller.call("GET", "/listeners")).json() == {"listeners": []}
    assert [one["pid"] for one in (await caller.call("GET", "/workers")).json()["workers"]] == [7]
    codes = {one["code"] for one in (await caller.call("GET", "/reasons")).json()["reasons"]}
    assert {"no-route", "upstream-reset"} <= codes


async def test_the_log_level(caller: Caller) -> None:
    assert (await caller.call("GET", "/log-level")).json() == {"level": "info"}
    assert (await caller.call("PUT", "/log-level", {"level": "debug"})).json() == {"level": "debug"}
    assert caller.fake.level == "debug"
    assert (await caller.call("PUT", "/log-level", {"level": "loud"})).status == 422


async def test_a_drain_is_begun(caller: Caller) -> None:
    answer = await caller.call("POST", "/drain", {})
    assert (answer.status, answer.json(), caller.fake.asked) == (202, {"draining": True}, [("drain",)])
    caller.fake.error = Unavailable("the program drains it")
    answer = await caller.call("POST", "/drain", {})
    assert (answer.status, answer.json()["detail"]) == (409, "the program drains it")


async def test_what_operations_refuse(caller: Caller) -> None:
    caller.fake.error = UnknownName("no route is named so")
    answer = await caller.call("GET", "/routes/r/split")
    assert (answer.status, answer.json()["detail"]) == (404, "no route is named so")


async def test_a_defect_is_told_and_served_past(caller: Caller, capfd: pytest.CaptureFixture[str]) -> None:
    caller.fake.error = RuntimeError("oh no")
    answer = await caller.call("GET", "/counters")
    assert answer.status == 500
    assert b"oh no" not in answer.body
    assert "RuntimeError: oh no" in capfd.readouterr().err
    caller.fake.error = None
    assert (await caller.call("GET", "/counters")).status == 200


@pytest.mark.parametrize(
    "target", ["/nothing", "/upstream", "/upstreams/", "/upstreams/a/b", "/reload/now", "*", "//"]
)
async def test_unknown_resources(caller: Caller, target: str) -> None:
    assert (await caller.call("GET", target)).status == 404
    assert [asked for asked in caller.fake.asked if asked != ("upstreams",)] == []


@pytest.mark.parametrize(
    ("method", "target", "allow"),
    [
        ("POST", "/upstreams", "GET"),
        ("GET", "/reload", "POST"),
        ("DELETE", "/routes/r/split", "GET, PUT"),
        ("OPTIONS", "/reload", "POST"),
    ],
)
async def test_other_methods(caller: Caller, method: str, target: str, allow: str) -> None:
    answer = await caller.call(method, target, {})
    assert (answer.status, answer.headers["allow"]) == (405, allow)
    assert not any("access-control" in name for name in answer.headers), "no page of another origin may ask"
    assert caller.fake.asked == []


async def test_head_has_no_body(caller: Caller) -> None:
    answer = await caller.call("HEAD", "/version")
    assert (answer.status, answer.body) == (405, b"")


@pytest.mark.parametrize("target", ["/upstreams?all=1", "/upstreams/%ff"])
async def test_targets_that_mean_nothing(caller: Caller, target: str) -> None:
    assert (await caller.call("GET", target)).status == 400


# -- who is let in


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:9901", "127.0.0.1", "127.1.2.3:80", "[::1]", "[::1]:9901"]
)
async def test_hosts_of_this_machine(caller: Caller, host: str) -> None:
    assert (await caller.call("GET", "/version", None, f"Host: {host}")).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "rebound.example",
        "rebound.example:9901",
        "127.0.0.1.rebound.example",
        "localhost.rebound.example",
        "192.0.2.1",
        "[2001:db8::1]",
        "",
        "localhost:",
        "user@localhost",
        "::1",
        "0.0.0.0",
    ],
)
async def test_other_hosts(caller: Caller, host: str) -> None:
    """A name that its owner points at 127.0.0.1 makes a browser's page of the same origin with us."""
    answer = await caller.call("POST", "/reload", {}, f"Host: {host}")
    assert answer.status == 421
    assert caller.fake.asked == []


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_no_host_at_all(caller: Caller, version: str) -> None:
    answer = await caller.send(f"GET /version HTTP/{version}\r\n\r\n".encode())
    assert answer.status == (421 if version == "1.0" else 400)


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonx",
        "",
    ],
)
async def test_what_a_page_may_send_across_origins(caller: Caller, kind: str) -> None:
    for method, target in (("POST", "/reload"), ("PUT", "/routes/r/split")):
        answer = await caller.call(method, target, {"clear": "a"}, f"Content-Type: {kind}")
        assert answer.status == 415
    answer = await caller.send(b"POST /reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
    assert answer.status == 415
    assert caller.fake.asked == []


async def test_json_with_parameters(caller: Caller) -> None:
    kind = "Content-Type: Application/JSON; charset=utf-8"
    assert (await caller.call("POST", "/reload", {}, kind)).status == 200


async def test_a_unix_socket_is_its_owners(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    where = Admin(bind=f"unix:{path}", unix_path=str(path))
    admin_server = admin_http.AdminServer(Api(Fake()), where)
    admin_server.follow(await admin_server.prepare(where))
    try:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        caller = Caller(admin_server, Fake())
        # No browser comes this way: the Host means nothing.
        assert (await caller.call("GET", "/version", None, "Host: anything")).status == 200
    finally:
        await admin_server.stop()
    assert not path.exists()


# -- bounds


async def test_a_head_that_is_too_large(caller: Caller) -> None:
    answer = await caller.call("GET", "/version", None, f"X-Long: {'x' * 20_000}")
    assert answer.status == 431
    assert (await caller.call("GET", "/version", None, f"X-Long: {'x' * 6000}")).status == 200


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_body_that_is_too_large(caller: Caller, framing: str) -> None:
    head = b"POST /reload HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    size = admin_http.BODY_BYTES + 1
    if framing == "length":
        data = head + b"Content-Length: %d\r\n\r\n" % size + b" " * size
    else:
        data = (
            head + b"Transfer-Encoding: chunked\r\n\r\n" + b"%x\r\n" % size + b" " * size + b"\r\n0\r\n\r\n"
        )
    assert (await caller.send(data)).status == 413
    assert caller.fake.asked == []


async def test_the_largest_body_there_may_be(caller: Caller) -> None:
    body = b"{}" + b" " * (admin_http.BODY_BYTES - 2)
    assert (await caller.call("POST", "/reload", body)).status == 200


@pytest.mark.parametrize(
    "data",
    [b"", b"GET /version HT", b"POST /reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"],
)
async def test_a_request_that_does_not_come(
    caller: Caller, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    monkeypatch.setattr(admin_http, "DEADLINE", 0.1)
    assert (await caller.send(data)).status == 408


async def test_a_client_that_leaves(caller: Caller) -> None:
    for data in (b"", b"GET /ver", b"POST /reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"):
        _, writer = await caller.connect()
        writer.write(data)
        writer.transport.abort()
    assert (await caller.call("GET", "/version")).status == 200


@pytest.mark.parametrize(
    "data",
    [
        b"GET /version\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /version HTTP/1.1\r\nHost : localhost\r\n\r\n",
        b"GET /version HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        b"POST /reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
    ],
)
async def test_what_is_no_http(caller: Caller, data: bytes) -> None:
    assert (await caller.send(data)).status == 400


async def test_connections_are_counted(caller: Caller) -> None:
    waiting = [await caller.connect() for _ in range(admin_http.CONNECTIONS)]
    reader, writer = await caller.connect()
    with suppress(ConnectionResetError):
        assert await asyncio.wait_for(reader.read(), 10) == b"", "one more is closed at once"
    writer.close()
    for _, each in waiting:
        each.close()
        await each.wait_closed()
    for _ in range(1000):
        with suppress(ConnectionResetError, IndexError):  # until it has seen that they are gone
            assert (await caller.call("GET", "/version")).status == 200
            return
    pytest.fail("it takes no more connections")
