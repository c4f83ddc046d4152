"""`fastgate explain`: the winner, the reasons, and clear words for what cannot be asked."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from fastgate.cli import main
from fastgate.config import Config, loads
from fastgate.routing.explain import ExplainError, describe, explain

GATEWAY = """
[[listeners]]
name = "public"
bind = "127.0.0.1:8080"
plugins = ["office"]
[[listeners]]
name = "inside"
bind = "127.0.0.1:8081"

[upstreams.orders]
endpoints = ["127.0.0.1:9001", { address = "127.0.0.1:9002", weight = 2, zone = "a" }]
host = "orders.internal"
[upstreams.files]
endpoints = ["127.0.0.1:9003"]

[[routes]]
name = "orders"
match = { host = "api.example", prefix = "/orders", methods = ["GET"] }
upstream = "orders"
rewrite = { strip_prefix = true }
plugins = ["limit"]
request_headers = { set = { x-key = { env = "EXPLAIN_KEY" } }, add = { x-a = "1" }, remove = ["x-b"] }
response_headers = { set = { x-c = "1" } }
[[routes]]
name = "beta"
match = { host = "api.example", prefix = "/orders", methods = ["GET"], headers = { x-beta = "1" } }
upstream = "orders"
rewrite = { path = "/beta", host = "beta.internal" }
[[routes]]
name = "users"
match = { path = "/users/{id}/{tab}" }
redirect = { status = 308, scheme = "https", path = "/u/{tab}/{id}" }
[[routes]]
name = "files"
listeners = ["inside"]
match = { prefix = "/files" }
upstream = "files"
encoded_slashes = "keep"
[[routes]]
name = "health"
match = { path = "/health" }
respond = { status = 204 }

[plugins.limit]
use = "rate-limit"
key = "client-ip"
rate = "100/s"
[plugins.office]
use = "ip-filter"
block = ["192.0.2.0/24"]
"""


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setenv("EXPLAIN_KEY", "very-secret")
    return loads(GATEWAY).config


def test_the_winner_and_what_happens_to_the_request(config: Config) -> None:
    found = explain(config, "GET", "http://API.example:8080/orders/./7?a=%41")
    assert (found.host, found.path, found.query) == ("api.example", "/orders/7", "a=%41")
    assert found.route == "orders"
    assert found.why == ("host api.example", "prefix /orders", "method GET")
    assert [one.name for one in found.plugins] == ["office", "limit"]
    assert "plugins    office (ip-filter: native), limit (rate-limit: native)" in describe(found)
    assert found.upstream == "orders"
    assert [(one.address, one.weight, one.zone) for one in found.endpoints] == [
        ("127.0.0.1:9001", 1, ""),
        ("127.0.0.1:9002", 2, "a"),
    ]
    assert found.forwarded == "/7?a=%41"
    assert found.forwarded_host == "orders.internal"
    assert found.request_headers == ("remove x-b", "set x-key: <secret>", "add x-a: 1")
    assert found.response_headers == ("set x-c: 1",)
    assert "very-secret" not in describe(found)
    assert {loser.route: loser.reason for loser in found.lost} == {
        "beta": "headers: x-beta is absent",
        "users": "path: /orders/7 is not /users/{id}/{tab}",
        "health": "path: /orders/7 is not /health",
    }


def test_the_loser_that_matched_is_told_what_beat_it(config: Config) -> None:
    found = explain(config, "GET", "/orders", [("Host", "api.example"), ("X-Beta", " 1 ")])
    assert found.route == "beta"
    assert (found.forwarded, found.forwarded_host) == ("/beta", "beta.internal")
    assert found.lost[0].reason == "lower precedence: 'beta' has more headers conditions"


def test_plugins_stand_in_their_order_with_kind_and_phases() -> None:
    text = GATEWAY.replace('"limit"]', '"limit", "two", "office", "greeter"]') + (
        '[plugins.greeter]\nuse = "./greeter.py"\n[plugins.two]\nuse = "support.plugins.several:Two"\n'
    )
    text = text.replace('{ env = "EXPLAIN_KEY" }', '"x"')
    config = loads(text, str(Path(__file__).parent / "support" / "plugins" / "x.toml")).config
    found = explain(config, "GET", "http://api.example/orders")
    assert (
        "plugins    office (ip-filter: native), limit (rate-limit: native), "
        "two (support.plugins.several:Two: no phase), greeter (./greeter.py: request)"
    ) in describe(found)
    assert msgspec.to_builtins(found.plugins[3]) == {
        "name": "greeter",
        "use": "./greeter.py",
        "native": False,
        "phases": ("request",),
    }


VERSIONS = """
[[listeners]]
bind = "127.0.0.1:8080"

[upstreams.v1]
endpoints = ["127.0.0.1:9001"]
host = "v1.internal"
retry = { attempts = 3 }
[upstreams.v2]
endpoints = [{ address = "127.0.0.1:9002", region = "eu" }]
balance = "ring"
hash = { key = ["header:x-user", "client-ip"] }
sticky = { secret = "very-secret" }
health = { type = "tcp" }
outlier = {}
hedge = {}
breaker = { max_requests = 10, error_percent = 50 }
concurrency = { adaptive = true }

[[routes]]
name = "split"
match = { prefix = "/split" }
priority = "sheddable"
fallback = { upstream = "v1", on = ["timeout", "status"], statuses = [502] }
fault = { delay = "1s", delay_percent = 0.5, abort = 503, abort_percent = 1, header = "x-fault" }
mirror = { upstream = "v1", percent = 10 }
rewrite = { strip_prefix = true }
[routes.split]
key = ["cookie:uid", "client-ip"]
override = { header = "x-version", cookie = "version" }
to = [{ upstream = "v1", weight = 2 }, { name = "new", upstream = "v2", weight = 1, rollback = {} }]
[[routes]]
name = "plain"
upstream = "v1"
retry = { attempts = 2, on = ["refused", "status"], per_try_timeout = "2s", unsafe = "always" }
"""


def test_a_split_and_what_is_done_about_failures() -> None:
    found = explain(loads(VERSIONS).config, "GET", "/split/a", [("Host", "a.b")])
    assert (found.upstream, found.endpoints, found.forwarded) == (None, (), "/a")
    assert found.forwarded_host is None  # the arms differ
    assert found.policies == {
        "priority": "sheddable",
        "fallback": "upstream v1 on timeout, 502",
        "fault": "delays 0.5 % by 1s, aborts 1 % with 503 (requests with x-fault)",
        "mirror": "10 % to upstream v1",
    }
    assert found.split is not None
    assert found.split.key == ("cookie:uid", "client-ip")
    assert found.split.override == ("header:x-version", "cookie:version")
    assert found.split.chosen is None
    one, new = found.split.arms
    assert (one.name, one.percent, one.rollback, one.forwarded_host) == ("v1", 66.67, None, "v1.internal")
    assert one.policies == {
        "balance": "least-request",
        "retry": "3 tries in all on connect-failure, reset; with a safe method",
    }
    assert (new.name, new.upstream, new.percent, new.forwarded_host) == ("new", "v2", 33.33, "a.b")
    assert new.rollback == "5 points more errors or 1.5 times the p99 than v1, of 200 in 1m"
    assert new.policies == {
        "balance": "ring by header:x-user, then client-ip",
        "sticky": "cookie fg_sticky",
        "health": "tcp connect every 5s; down after 3, up after 2",
        "outlier": "ejected for 5 errors in a row, 5 gateway errors in a row, a low success rate; "
        "at most 50 % of endpoints",
        "hedge": "after 95 % of the latencies, at least 10ms; at most 10 % of requests",
        "breaker": "requests 10, open at 50 % errors for 5s",
        "concurrency": "adaptive, 4 to 1000; queue of 128 for 500ms",
    }
    text = describe(found)
    assert "arm        new: 33.33 % to upstream v2" in text
    assert "  endpoint 127.0.0.1:9002 (region eu)" in text
    assert "very-secret" not in text


def test_the_retries_of_a_route_stand_in_place_of_those_of_its_upstream() -> None:
    found = explain(loads(VERSIONS).config, "GET", "/")
    assert found.policies["retry"] == (
        "2 tries in all on refused, 502, 503, 504; 2s each; whatever the method"
    )
    assert "retry      2 tries" in describe(found)


@pytest.mark.parametrize(
    ("headers", "chosen"),
    [
        ([("X-Version", "new")], "new"),
        ([("X-Version", "other"), ("Cookie", "a=b; version=v1")], "v1"),
        ([("X-Version", "New")], None),
    ],
)
def test_a_request_that_names_its_arm(headers: list[tuple[str, str]], chosen: str | None) -> None:
    found = explain(loads(VERSIONS).config, "GET", "/split", headers)
    assert found.split is not None
    assert found.split.chosen == chosen


def test_no_route(config: Config) -> None:
    found = explain(config, "POST", "/orders", [("Host", "api.example")])
    assert found.route is None
    assert found.lost[0].reason == "methods: POST is not in GET"
    assert "no route matches: 404 (no-route)" in describe(found)


def test_a_redirect(config: Config) -> None:
    found = explain(config, "GET", "/users/7/a%20b?x", [("Host", "a.b:81")])
    assert found.captures == {"id": "7", "tab": "a%20b"}
    assert (found.redirect_status, found.redirect) == (308, "https://a.b/u/a%20b/7?x")
    assert "redirects  308 https://a.b/u/a%20b/7?x" in describe(found)


def test_a_fixed_response(config: Config) -> None:
    found = explain(config, "GET", "/health")
    assert found.respond == 204
    assert "responds   204" in describe(found)


def test_routes_of_another_listener_are_not_asked(config: Config) -> None:
    assert explain(config, "GET", "/files/a").route is None
    found = explain(config, "GET", "/files/a%2fb", [("Host", "h:1")], "inside")
    assert (found.route, found.refused, found.forwarded) == ("files", None, "/files/a%2Fb")
    assert (found.forwarded_host, found.plugins) == ("h:1", ())
    with pytest.raises(ExplainError, match="no listener is named 'outside'; there is public, inside"):
        explain(config, "GET", "/", (), "outside")


def test_an_encoded_slash_that_the_route_refuses(config: Config) -> None:
    found = explain(config, "GET", "http://api.example/orders/a%2Fb")
    assert (found.route, found.refused) == ("orders", "encoded-slash")
    assert "400 (encoded-slash)" in describe(found)


@pytest.mark.parametrize(
    ("method", "url", "headers", "message"),
    [
        ("G T", "/", [], "not a method"),
        ("CONNECT", "a:1", [], "does not serve CONNECT"),
        ("GET", "*", [], "asterisk-form.*target-syntax"),
        ("GET", "/..", [], "climbs above the root"),
        ("GET", "orders", [], "neither a path"),
        ("GET", "/caf\u00e9", [], "no path may hold"),
        ("GET", "/\u20ac", [], "percent-encode"),
        ("GET", "/", [("Host", "a b")], "host-syntax"),
        ("GET", "/", [("Host", "a"), ("host", "a")], "host-duplicate"),
        ("GET", "/", [("a b", "1")], "not a header name"),
        ("GET", "/", [("a", "1\r\nb: 2")], "no field value may hold"),
    ],
)
def test_requests_that_the_gateway_would_refuse(
    config: Config, method: str, url: str, headers: list[tuple[str, str]], message: str
) -> None:
    with pytest.raises(ExplainError, match=message):
        explain(config, method, url, headers)


def command(tmp_path: Path, *arguments: str) -> int:
    path = tmp_path / "gateway.toml"
    path.write_text(GATEWAY)
    return main(["explain", "-c", str(path), *arguments])


def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXPLAIN_KEY", "very-secret")
    assert command(tmp_path, "GET", "/orders/7", "-H", "Host: api.example") == 0
    assert "route      orders" in capsys.readouterr().out
    assert command(tmp_path, "GET", "/files", "--listener", "inside", "--json") == 0
    assert json.loads(capsys.readouterr().out)["route"] == "files"
    assert command(tmp_path, "GET", "/nothing", "--json") == 0
    assert json.loads(capsys.readouterr().out)["route"] is None


def test_the_command_on_bad_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXPLAIN_KEY", "very-secret")
    assert command(tmp_path, "GET", "/..") == 2
    assert "climbs above the root (target-syntax)" in capsys.readouterr().err
    assert command(tmp_path, "GET", "/", "-H", "nonsense") == 2
    assert "'nonsense' is no header" in capsys.readouterr().err
    assert main(["explain", "-c", str(tmp_path / "absent.toml"), "GET", "/"]) == 1


def test_the_example_of_the_docs(config: Config) -> None:
    """docs/routing.md shows the head of what is printed."""
    page = (Path(__file__).parent.parent / "docs" / "routing.md").read_text()
    text = GATEWAY.replace("api.example", "api.example.com")
    printed = describe(explain(loads(text).config, "GET", "http://api.example.com/orders/./7?x=1"))
    head = "\n".join(printed.splitlines()[:4])
    assert "\n".join(f"    {line}".rstrip() for line in head.splitlines()) in page
