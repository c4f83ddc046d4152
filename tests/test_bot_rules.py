"""Rules for what clients call themselves."""

from __future__ import annotations

import time
from typing import Any

import pytest
from support.answers import refused
from support.gateway import Gateway
from support.upstream import Upstream
from support.web import ask, one_route_each, problems

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


def gateway_config(address: str) -> dict[str, Any]:
    return one_route_each(
        address,
        "bot",
        {
            "own": {"deny": ["badbot", "^curl/", "(a+)+$"], "allow": ["^GoodBadBot/1\\.0$"]},
            "lists": {"scanners": True, "scrapers": True, "empty": "refuse", "allow": "ahrefsbot"},
            "report": {"deny": "badbot", "report_only": True},
        },
    )


@pytest.mark.parametrize(
    ("agent", "passes"),
    [(FIREFOX, True), ("BadBot/2.0", False), ("xxBADBOTxx", False), ("GoodBadBot/1.0", True),
     ("goodbadbot/1.0", True), ("GoodBadBot/1.0 x", False), ("curl/8.0", False), ("libcurl/8", True),
     ("Bad Bot", True),
     (FIREFOX + " " * 3000 + "badbot", False), ("\xff\xfe badbot", False), ("b\xe4dbot", True)],
)  # fmt: skip
def test_own_rules(gateway: Gateway, upstream: Upstream, agent: str, passes: bool) -> None:
    mark = upstream.mark()
    response = ask(gateway, "/own", f"User-Agent: {agent}")
    if passes:
        assert response.status == 200
    else:
        refused(response, "bot-refused")
        assert not mark.requests


@pytest.mark.parametrize(
    "lines",
    [("User-Agent: x", "User-Agent: badbot"), ("User-Agent: badbot", "User-Agent: GoodBadBot/1.0"),
     ("uSER-aGENT: badbot",), ("User-Agent:\tbadbot",)],
)  # fmt: skip
def test_another_field_excuses_nothing(gateway: Gateway, lines: tuple[str, ...]) -> None:
    refused(ask(gateway, "/own", *lines), "bot-refused")


@pytest.mark.parametrize(
    "agent",
    ["sqlmap/1.7#stable (https://sqlmap.org)", "Mozilla/5.0 (compatible; Nikto/2.5.0)", "WPScan v3.8.25",
     "Mozilla/5.0 (compatible; Nmap Scripting Engine; https://nmap.org)", "Scrapy/2.11 (+https://scrapy.org)",
     "Mozilla/5.0 (compatible; SemrushBot/7~bl)", "GPTBot/1.2", "Fuzz Faster U Fool v2.1.0", ""],
)  # fmt: skip
def test_lists(gateway: Gateway, agent: str) -> None:
    refused(ask(gateway, "/lists", f"User-Agent: {agent}"), "bot-refused")


@pytest.mark.parametrize(
    "agent", [FIREFOX, "curl/8.0", "Mozilla/5.0 (compatible; AhrefsBot/7.0)", "Googlebot/2.1", "Hydration/1"]
)
def test_lists_let_others_pass(gateway: Gateway, agent: str) -> None:
    assert ask(gateway, "/lists", f"User-Agent: {agent}").status == 200


def test_no_name_at_all(gateway: Gateway) -> None:
    refused(ask(gateway, "/lists"), "bot-refused")
    assert ask(gateway, "/own").status == 200


def test_expressions_take_linear_time(gateway: Gateway) -> None:
    begin = time.perf_counter()
    assert ask(gateway, "/own", "User-Agent: " + "a" * 8000 + "!").status == 200
    assert time.perf_counter() - begin < 1


def test_report_only_lets_pass(gateway: Gateway) -> None:
    assert ask(gateway, "/report", "User-Agent: badbot").status == 200


def test_an_expression_that_re2_has_not() -> None:
    assert "RE2" in problems("bot", {"deny": "(?!a)b"})
