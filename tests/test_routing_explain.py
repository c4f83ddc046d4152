"""`fastgate explain`: the winner, the reasons, and clear words for what cannot be asked."""

from __future__ import annotations

import json
from pathlib import Path

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
    assert found.plugins == ("office", "limit")
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
