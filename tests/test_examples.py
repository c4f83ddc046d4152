"""examples/*.toml: each is accepted without a warning, runs, and sends requests where it says.

To run here their addresses are replaced: listeners take free ports, each upstream is one of this test.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.admin import Admin
from support.client import request
from support.gateway import ROOT, Gateway
from support.proxy_header import v1
from support.upstream import Upstream, read_body, reply, send

from fastgate.config import load
from fastgate.routing.explain import Explanation, explain

EXAMPLES = sorted((ROOT / "examples").glob("*.toml"))
SECRET = "example-secret"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_KEY", SECRET)
    monkeypatch.setenv("STICKY_SECRET", SECRET)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: str(file.stem))
def test_accepted_without_warnings(file: Path) -> None:
    loaded = load(str(file), strict=True)
    assert not loaded.warnings
    assert SECRET not in repr(loaded.config)


class Example:
    """A running example. `upstreams`: those of its names; where one has several endpoints, the first one's.
    `endpoints`: all, in the order of the file."""

    def __init__(self, name: str, directory: Path, stack: ExitStack) -> None:
        tables: dict[str, Any] = tomllib.loads((ROOT / "examples" / f"{name}.toml").read_text())
        self.upstreams: dict[str, Upstream] = {}
        self.endpoints: dict[str, list[Upstream]] = {}
        for upstream_name, upstream in tables.get("upstreams", {}).items():
            running = self.endpoints.setdefault(upstream_name, [])
            places: list[dict[str, Any]] = []
            for endpoint in upstream["endpoints"]:
                place = endpoint if isinstance(endpoint, dict) else {}
                if place.get("address", "").startswith("srv:"):
                    continue  # it is no matter of examples what a name server says
                running.append(stack.enter_context(Upstream(name=upstream_name)))
                places.append({**place, "address": running[-1].address})
            self.upstreams[upstream_name] = running[0]
            upstream["endpoints"] = places
        if "admin" in tables:
            tables["admin"]["bind"] = "127.0.0.1:0"
        for listener in tables["listeners"]:
            unix = listener["bind"].startswith("unix:")
            listener["bind"] = f"unix:{directory}/gateway.sock" if unix else "127.0.0.1:0"
        # Each connection of a client ends with its test; the log's format is the example's own.
        tables["server"] = {**tables.get("server", {}), "drain_timeout": "5s"}
        tables["access_log"] = {**tables.get("access_log", {}), "flush_interval": "10ms"}
        self.gateway = stack.enter_context(Gateway(tables, directory))

    def ask(self, data: bytes, listener: str | None = None, prelude: bytes = b"") -> Any:
        method = data.split(b" ", 1)[0].decode()
        with self.gateway.client(listener) as client:
            return client.send(prelude + data).response(method)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    with ExitStack() as stack:
        yield lambda name: Example(name, tmp_path, stack)


def test_every_example_is_run_here() -> None:
    text = Path(__file__).read_text()
    assert [file.stem for file in EXAMPLES if f'start("{file.stem}")' not in text] == []


def explained(name: str, url: str, *headers: tuple[str, str]) -> Explanation:
    return explain(load(str(ROOT / "examples" / f"{name}.toml")).config, "GET", url, headers)


def test_versions_explained() -> None:
    found = explained("versions", "/orders/7")
    assert found.split is not None
    assert [(arm.name, arm.upstream, arm.percent) for arm in found.split.arms] == [
        ("stable", "orders-v1", 95.0),
        ("canary", "orders-v2", 5.0),
    ]
    assert (found.split.chosen, found.upstream) == (None, None)
    assert (
        found.split.arms[1].rollback == "2 points more errors or 1.5 times the p99 than stable, of 500 in 1m"
    )
    assert found.policies == {
        "priority": "critical",
        "fallback": "responds 503 on no-endpoint, overload",
        "mirror": "10 % to upstream orders-next",
    }
    tester = explained("versions", "/orders/7", ("X-Version", "canary"))
    assert tester.split is not None
    assert tester.split.chosen == "canary"


def test_regions_explained() -> None:
    assert [one.region for one in explained("regions", "/").endpoints] == ["eu", "eu", "us", "us", "asia"]
    assert explained("regions", "/checkout").policies["sticky"] == "cookie checkout"
    assert explained("regions", "/images/a.png").policies["balance"] == "maglev by path:image"


def test_api(start: Any) -> None:
    api = start("api")
    host = "api.example.com"
    assert api.ask(request("GET", "/orders/7", host=host)).json()["upstream"] == "orders"
    assert api.ask(request("DELETE", "/orders/7", host=host)).status == 404
    assert api.ask(request("POST", "/orders", host=host, body=b"x" * 2_000_000)).status == 413
    user = api.ask(request("GET", "/users/7", host=host))
    assert user.json()["target"] == "/v2/users/7"
    assert user.get("cache-control") == "private, max-age=60"
    assert user.get("ratelimit-policy") == '"per-client";q=200;w=2'
    # The office is told by the trusted terminator in front; everybody else is refused.
    admin = request("GET", "/admin", host=host, lines=("X-Forwarded-For: 10.1.2.3",))
    assert api.ask(admin).json()["upstream"] == "admin"
    for address in ("203.0.113.9", "10.1.2.3, 203.0.113.9"):
        lines = (f"X-Forwarded-For: {address}",)
        assert api.ask(request("GET", "/admin", host=host, lines=lines)).status == 403
    moved = api.ask(request("GET", "/a?b=c", host="www.example.com"))
    assert (moved.status, moved.get("location")) == (308, "https://api.example.com/a?b=c")
    assert api.ask(request("GET", "/healthz")).body == b"ok\n"


def test_chat(start: Any) -> None:
    chat = start("chat")
    switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    upstream = chat.upstreams["chat"]
    upstream.script(send(switch + b"hello"))
    asks = ("Connection: Upgrade", "Upgrade: websocket")
    with chat.gateway.client() as client:
        assert client.send(request("GET", "/socket", lines=asks)).response().status == 101
        assert client.stream.exactly(5, "the first bytes") == b"hello"
    # Only there.
    assert "upgrade" not in dict(chat.ask(request("GET", "/api/x", lines=asks)).json()["fields"])
    upstream.script(reply(200, b"data: x\n\n", "Content-Type: text/event-stream"))
    assert chat.ask(request("GET", "/events")).body == b"data: x\n\n"
    statuses = [chat.ask(request("GET", "/socket")).status for _ in range(11)]
    assert statuses[-1] == 429
    assert chat.ask(request("GET", "/api/x")).status == 200


def test_load_balancer(start: Any, tmp_path: Path) -> None:
    balanced = start("load-balancer")
    answer = balanced.ask(request(), "balanced", v1("203.0.113.9"))
    fields = {name.lower(): value for name, value in answer.json()["fields"]}
    assert fields["x-forwarded-for"] == "203.0.113.9"
    assert "for=203.0.113.9" in fields["forwarded"]
    assert fields["host"] == "app.internal"
    assert fields["x-gateway-key"] == SECRET
    assert balanced.ask(request(), "balanced").status == 400
    lines = ("X-Internal: 1", "X-Request-ID: mine")
    answer = balanced.ask(request(lines=lines), "local")
    fields = {name.lower(): value for name, value in answer.json()["fields"]}
    assert "x-internal" not in fields
    assert fields["x-request-id"] == "mine"
    assert SECRET not in "".join(balanced.gateway.stdout)


def test_uploads(start: Any) -> None:
    uploads = start("uploads")
    big = b"x" * 3_000_000
    uploads.upstreams["files"].script(read_body(), reply(201, b""))
    assert uploads.ask(request("PUT", "/files/a", body=big)).status == 201
    assert uploads.ask(request("GET", "/files/a/b")).status == 200
    assert uploads.ask(request("DELETE", "/files/a")).status == 404
    statuses = [uploads.ask(request("PUT", "/files/a", body=b"x")).status for _ in range(3)]
    assert statuses == [200, 200, 429]
    assert uploads.ask(request("PUT", "/files/b", body=b"x")).status == 200


@pytest.mark.parametrize(
    ("host", "target", "status", "location"),
    [
        ("example.com", "/articles/2024/hello?a=b", 301, "https://blog.example.com/2024/hello?a=b"),
        ("www.example.com", "/articles", 301, "https://blog.example.com/"),
        ("any.host", "/u/ann", 308, "https://people.example.com/profile/ann"),
        ("any.host", "/api/v2/things", 410, None),
        ("any.host", "/else", 503, None),
    ],
)
def test_moved(start: Any, host: str, target: str, status: int, location: str | None) -> None:
    answer = start("moved").ask(request("GET", target, host=host))
    assert (answer.status, answer.get("location")) == (status, location)
    if status == 410:
        assert answer.get("content-type") == "application/json"
        assert answer.get("link") == '</docs>; rel="help"'
    if status == 503:
        assert answer.get("retry-after") == "3600"


def test_versions(start: Any) -> None:
    versions = start("versions")
    next_one = versions.upstreams["orders-next"]
    for user in range(40):
        answer = versions.ask(request("GET", f"/orders/{user}", lines=(f"Cookie: uid={user}",)))
        assert answer.json()["upstream"] in ("orders-v1", "orders-v2")
        tester = versions.ask(request("GET", f"/orders/{user}", lines=("X-Version: canary",)))
        assert tester.json()["upstream"] == "orders-v2"
    next_one.wait("a copy", lambda: bool(next_one.requests))
    for upstream in versions.endpoints["orders-v1"]:
        upstream.wait("a check", lambda: "/healthz" in [each.target for each in upstream.requests])  # noqa: B023
    shown = Admin(versions.gateway).split("orders")
    assert [(arm["name"], arm["weight"]) for arm in shown.values()] == [("stable", 95), ("canary", 5)]
    for upstream in versions.endpoints["orders-v1"]:
        Admin(versions.gateway).set(upstream.address, "orders-v1", state="down")
    Admin(versions.gateway).set_split({"weights": {"canary": 0}}, "orders")
    answer = versions.ask(request("GET", "/orders/1"))
    assert (answer.status, answer.body, answer.get("retry-after")) == (503, b"back in a minute\n", "60")


def test_regions(start: Any) -> None:
    regions = start("regions")
    shop = regions.endpoints["shop"]
    for _ in range(5):
        regions.ask(request("GET", "/"))
    served = [[each for each in upstream.requests if each.target == "/"] for upstream in shop]
    assert [len(each) for each in served] == [5, 0, 0, 0], "its own zone alone"
    first = regions.ask(request("GET", "/checkout"))
    cookie = first.get("set-cookie").split(";")[0]
    assert cookie.startswith("checkout=")
    again = regions.ask(request("GET", "/checkout", lines=(f"Cookie: {cookie}",)))
    assert again.get("set-cookie") is None
    for _ in range(3):
        regions.ask(request("GET", "/images/a.png"))
    images = regions.endpoints["images"]
    assert sorted(len(upstream.requests) for upstream in images) == [0, 0, 3], "one of them has it"


def test_order_page(start: Any) -> None:
    page = start("order-page")
    order = b'{"id": 17, "state": "shipped", "total": 12.50, "customer_id": "c/1", '
    order += b'"lines": [{"sku": "a b"}, {"sku": "c"}]}'
    for upstream in page.endpoints["orders"]:
        upstream.default = (read_body(), reply(200, order, "Content-Type: application/json"))
    customers, catalogue, shipping = (page.upstreams[one] for one in ("customers", "catalogue", "shipping"))
    customers.default = (read_body(), reply(500, b"oh"))
    article = b'{"sku": "a", "title": "Pen", "stock": 3}'
    catalogue.default = (read_body(), reply(200, article, "Content-Type: application/json"))
    parcels = b'{"data": {"parcels": [{"carrier": "dhl", "eta": null}]}}'
    shipping.default = (read_body(), reply(200, parcels, "Content-Type: application/json"))
    asked = request("GET", "/mobile/orders/17?lang=de&x=1", lines=("Authorization: Bearer t", "Cookie: a=b"))
    answer = page.ask(asked)
    assert answer.status == 200
    assert b'"total":12.50' in answer.body.replace(b" ", b"")
    assert answer.json() == {
        "order": {"id": 17, "state": "shipped", "total": 12.5, "customer": {"name": None}},
        "items": [{"sku": "a", "title": "Pen"}] * 2,
        "parcels": [{"carrier": "dhl", "eta": None}],
        "_missing": [{"part": "customer", "reason": "part-status", "status": 500}],
    }
    assert [one.target for one in customers.requests] == ["/customers/c%2F1"]
    assert sorted(one.target for one in catalogue.requests) == [
        "/articles/a%20b?lang=de",
        "/articles/c?lang=de",
    ]
    (told,) = [one for upstream in page.endpoints["orders"] for one in upstream.requests]
    assert (told.get("authorization"), told.get("cookie")) == ("Bearer t", None)
    assert shipping.requests[0].json()["variables"] == {"order": 17}
    for upstream in page.endpoints["orders"]:
        upstream.default = (read_body(), reply(404, b"{}", "Content-Type: application/json"))
    missing = page.ask(request("GET", "/mobile/orders/18"))
    assert (missing.status, missing.json()["code"]) == (404, "aggregate-failed")


def test_order_page_explained() -> None:
    plan = explained("order-page", "/mobile/orders/17").aggregate
    assert plan is not None
    assert [(one.name, one.step) for one in plan.parts] == [
        ("order", 1),
        ("customer", 2),
        ("items", 2),
        ("parcels", 2),
    ]
