"""Headers that tell browsers to be careful, on every answer."""

from __future__ import annotations

from typing import Any

from support import upstream as up
from support.answers import refused
from support.gateway import Gateway
from support.upstream import Upstream
from support.web import ask, one_route_each

HTTPS = "X-Forwarded-Proto: https"


def gateway_config(address: str) -> dict[str, Any]:
    own = {"csp": "default-src 'self'", "csp_report_only": "img-src 'none'",
           "permissions_policy": "camera=()", "coep": "require-corp",
           "frame_options": "DENY", "override": True,
           "remove": ["Server", "X-Powered-By"], "hsts": "max-age=60; includeSubDomains"}  # fmt: skip
    none = {"hsts": "", "content_type_options": "", "frame_options": "", "referrer_policy": "", "coop": "",
            "corp": ""}  # fmt: skip
    tables = one_route_each(address, "security-headers", {"plain": {}, "own": own, "none": none})
    tables["upstreams"]["dead"] = {"endpoints": ["127.0.0.1:1"]}
    tables["routes"].append(
        {"name": "dead", "match": {"prefix": "/dead"}, "upstream": "dead", "plugins": ["plain"]}
    )
    return tables


DEFAULTS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "SAMEORIGIN",
    "referrer-policy": "strict-origin-when-cross-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


def test_defaults(gateway: Gateway) -> None:
    response = ask(gateway, "/plain")
    assert {name: response.get(name) for name in DEFAULTS} == DEFAULTS
    for name in ("content-security-policy", "permissions-policy", "cross-origin-embedder-policy"):
        assert name not in response


def test_hsts_on_answers_to_https_alone(gateway: Gateway) -> None:
    assert "strict-transport-security" not in ask(gateway, "/plain")
    assert ask(gateway, "/plain", HTTPS).get("strict-transport-security") == "max-age=31536000"


def test_each_can_be_set_or_left_away(gateway: Gateway) -> None:
    response = ask(gateway, "/own", HTTPS)
    assert response.get("content-security-policy") == "default-src 'self'"
    assert response.get("content-security-policy-report-only") == "img-src 'none'"
    assert response.get("permissions-policy") == "camera=()"
    assert response.get("cross-origin-embedder-policy") == "require-corp"
    assert response.get("strict-transport-security") == "max-age=60; includeSubDomains"
    bare = ask(gateway, "/none", HTTPS)
    assert not [name for name in (*DEFAULTS, "strict-transport-security") if name in bare]


def test_the_services_own_stay_or_give_way(gateway: Gateway, upstream: Upstream) -> None:
    theirs = (
        "X-Frame-Options: ALLOWALL",
        "x-frame-options: SAMEORIGIN",
        "Server: old/1.0",
        "X-Powered-By: x",
    )
    upstream.script(up.reply(200, b"x", *theirs)).script(up.reply(200, b"x", *theirs))
    kept = ask(gateway, "/plain")
    assert kept.all("x-frame-options") == ["ALLOWALL", "SAMEORIGIN"]
    assert kept.get("server") == "old/1.0"
    ours = ask(gateway, "/own")
    assert ours.all("x-frame-options") == ["DENY"]
    assert "server" not in ours
    assert "x-powered-by" not in ours


def test_on_the_gateways_own_errors_too(gateway: Gateway) -> None:
    response = ask(gateway, "/dead")
    refused(response, "connect-refused")
    assert response.get("x-content-type-options") == "nosniff"
