"""CORS: whose pages may read answers, as browsers ask it (Fetch standard)."""

from __future__ import annotations

from typing import Any

import pytest
from support import upstream as up
from support.answers import refused
from support.gateway import Gateway
from support.upstream import Upstream
from support.web import ask, one_route_each, problems
from support.wire import Response

APP = "https://app.example.com"


def gateway_config(address: str) -> dict[str, Any]:
    return one_route_each(
        address,
        "cors",
        {
            "named": {
                "origins": [APP, "HTTPS://Other.example:443", "https://*.shops.example", "http://*.dev:8080"],
                "origin_regex": r"https://pr-[0-9]+\.preview\.example",
                "methods": ["GET", "PUT"],
                "headers": ["authorization", "x-one"],
                "expose_headers": ["x-total"],
                "credentials": True,
                "max_age": "5m",
            },
            "strict": {"origins": APP, "refuse": True},
            "all": {"origins": "*", "headers": ["*"]},
            "null": {"origins": ["null"], "private_network": True},
        },
    )


def preflight(gateway: Gateway, target: str, origin: str, *lines: str, wanted: str = "PUT") -> Response:
    asked = (f"Origin: {origin}", f"Access-Control-Request-Method: {wanted}", *lines)
    return ask(gateway, target, *asked, method="OPTIONS")


def granted(response: Response) -> str | None:
    return response.get("access-control-allow-origin")


@pytest.mark.parametrize(
    "origin",
    [APP, "https://other.example", "https://a.shops.example", "https://a.b.shops.example",
     "http://x.dev:8080", "https://pr-17.preview.example"],
)  # fmt: skip
def test_pages_of_these_origins_may_read(gateway: Gateway, origin: str) -> None:
    response = ask(gateway, "/named/x", f"Origin: {origin}")
    assert response.status == 200
    assert granted(response) == origin
    assert response.get("access-control-allow-credentials") == "true"
    assert response.get("access-control-expose-headers") == "x-total"
    assert response.get("vary") == "origin"


TRICKS = [
    "null", "NULL", "", "*", "https://evil.example", "https://app.example.com.evil.example",
    "https://evil-app.example.com", "https://app.example.com:8443", "https://app.example.com:443",
    "http://app.example.com", "HTTPS://APP.EXAMPLE.COM", "https://app.example.com/", "https://app.example.com#",
    "https://app.example.com@evil.example", "https://evil.example@app.example.com", "app.example.com",
    "https://app.example.com https://evil.example", "https://app.example.com, https://evil.example",
    "https://shops.example", "https://.shops.example", "https://evil-shops.example", "https://evilshops.example",
    "https://shops.example.evil.example", "https://evil.example/.shops.example", "https://evil.example#.shops.example",
    "https://evil.example:80.shops.example", "https://a..shops.example", "https://a_b@c.shops.example",
    "https://a.shops.example:444", "http://a.shops.example", "http://x.dev", "http://x.dev:80800",
    "https://pr-17.preview.example.evil.example", "https://evil.example/https://pr-1.preview.example",
    "https://pr-x.preview.example", "https://pr-17-preview.example", "file://", "data:text/html,x",
    "https://" + "a" * 600 + ".shops.example", "https://a%2f.shops.example", "https://a\t.shops.example",
]  # fmt: skip


@pytest.mark.parametrize("origin", TRICKS)
def test_no_other_origin_is_taken_for_one_of_them(gateway: Gateway, origin: str) -> None:
    response = ask(gateway, "/named/x", f"Origin: {origin}")
    assert response.status == 200
    assert not [name for name, _ in response.fields if name.lower().startswith("access-control-")]
    assert response.get("vary") == "origin"
    answer = preflight(gateway, "/named/x", origin)
    assert (answer.status, granted(answer)) == (204, None)


@pytest.mark.parametrize("origin", [*TRICKS, "https://a.shops.example"])
def test_a_strict_route_refuses_them(gateway: Gateway, upstream: Upstream, origin: str) -> None:
    mark = upstream.mark()
    refused(ask(gateway, "/strict/x", f"Origin: {origin}"), "origin-refused")
    refused(preflight(gateway, "/strict/x", origin), "origin-refused")
    assert not mark.requests
    assert ask(gateway, "/strict/x").status == 200  # no page at all
    assert ask(gateway, "/strict/x", f"Origin: {APP}").status == 200


def test_two_origins_are_none(gateway: Gateway) -> None:
    lines = (f"Origin: {APP}", "Origin: https://evil.example")
    assert granted(ask(gateway, "/named/x", *lines)) is None
    refused(ask(gateway, "/strict/x", *lines), "origin-refused")


def test_a_preflight_is_answered_without_the_service(gateway: Gateway, upstream: Upstream) -> None:
    mark, since = upstream.mark(), gateway.mark()
    answer = preflight(gateway, "/named/x", APP, "Access-Control-Request-Headers: x-one")
    assert (answer.status, answer.body) == (204, b"")
    assert granted(answer) == APP
    assert answer.get("access-control-allow-methods") == "GET, PUT"
    assert answer.get("access-control-allow-headers") == "authorization, x-one"
    assert answer.get("access-control-allow-credentials") == "true"
    assert answer.get("access-control-max-age") == "300"
    assert "access-control-request-headers" in (answer.get("vary") or "")
    assert gateway.wait_log(since)[0]["reason"] == "plugin-answered"
    assert not mark.requests
    # An OPTIONS that is no preflight is the service's.
    assert ask(gateway, "/named/x", method="OPTIONS").json()["method"] == "OPTIONS"


@pytest.mark.parametrize(
    ("asked", "allowed"),
    [("X-Any, authorization", "X-Any, authorization"), ("", None), ("x-any\x7f", None), ("a b", None),
     (", ".join(["x-any"] * 400), None)],
)  # fmt: skip
def test_headers_as_they_are_asked_for(gateway: Gateway, asked: str, allowed: str | None) -> None:
    if "\x7f" in asked:
        assert preflight(gateway, "/all", "null", f"Access-Control-Request-Headers: {asked}").status == 400
        return
    answer = preflight(gateway, "/all/x", APP, f"Access-Control-Request-Headers: {asked}")
    assert (granted(answer), answer.get("access-control-allow-headers")) == ("*", allowed)


def test_the_star_is_for_all_and_without_credentials(gateway: Gateway) -> None:
    response = ask(gateway, "/all/x", "Origin: https://evil.example")
    assert granted(response) == "*"
    assert "access-control-allow-credentials" not in response
    assert "vary" not in response


def test_null_and_private_networks_only_where_allowed(gateway: Gateway) -> None:
    private = "Access-Control-Request-Private-Network: true"
    assert granted(ask(gateway, "/null/x", "Origin: null")) == "null"
    answer = preflight(gateway, "/null/x", "null", private)
    assert answer.get("access-control-allow-private-network") == "true"
    assert "access-control-allow-private-network" not in preflight(gateway, "/all/x", "null", private)


def test_what_the_service_says_of_it_counts_for_nothing(gateway: Gateway, upstream: Upstream) -> None:
    theirs = ("Access-Control-Allow-Origin: *", "access-control-allow-credentials: true",
              "Access-Control-Allow-Origin: https://evil.example", "Vary: Accept, Origin")  # fmt: skip
    upstream.script(up.reply(200, b"x", *theirs)).script(up.reply(200, b"x", *theirs))
    response = ask(gateway, "/named/x", "Origin: https://evil.example")
    assert granted(response) is None
    assert response.get("vary") == "Accept, Origin"
    assert granted(ask(gateway, "/named/x", f"Origin: {APP}")) == APP


def test_the_gateways_own_errors_can_be_read_too(start_gateway: Any) -> None:
    tables = one_route_each("127.0.0.1:1", "cors", {"named": {"origins": [APP]}})
    gateway = start_gateway(tables)
    response = ask(gateway, "/named/x", f"Origin: {APP}")
    refused(response, "connect-refused")
    assert granted(response) == APP


@pytest.mark.parametrize(
    ("table", "told"),
    [({}, "at least one of origins"), ({"origins": "*", "credentials": True}, "name the origins"),
     ({"origins": "app.example.com"}, "expected an origin"), ({"origins": APP + "/"}, "expected an origin"),
     ({"origins": "https://*"}, "expected an origin"),
     ({"origins": "https://a*.example"}, "expected an origin"),
     ({"origins": "https://a@b.example"}, "expected an origin"), ({"origin_regex": "(?=a)"}, "RE2"),
     ({"origins": APP, "methods": ["*"]}, "name the methods"),
     ({"origins": APP, "credentials": True, "expose_headers": ["*"]}, "name the headers")],
)  # fmt: skip
def test_configurations_that_would_open_too_much(table: dict[str, Any], told: str) -> None:
    assert told in problems("cors", table)
