"""A fixed answer on a switch, and who is let through."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.answers import reason_of, refused
from support.gateway import Gateway
from support.upstream import Upstream
from support.web import ask, one_route_each, problems

SECRET = "let-me-in-please"
CONSUMER = str(Path(__file__).parent / "support" / "plugins" / "known.py")


@pytest.fixture(scope="module", autouse=True)
def secret() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAINTENANCE_TEST_SECRET", SECRET)
        yield


def gateway_config(address: str) -> dict[str, Any]:
    tables = one_route_each(
        address,
        "maintenance",
        {
            "off": {},
            "on": {"enabled": True, "retry_after": "2m"},
            "page": {"enabled": True, "status": 500, "body": "<h1>Back soon ✓</h1>"},
            "file": {"file": "down"},
            "past": {"begin": "2020-01-01T00:00:00Z", "end": "2020-01-02T00:00:00+01:00"},
            "future": {"begin": "2100-01-01T00:00:00Z"},
            "now": {"begin": "2020-01-01T00:00:00Z", "end": "2100-01-01T00:00:00Z", "retry_after": "1s"},
            "exempt": {
                "enabled": True,
                "exempt": ["203.0.113.0/24", "2001:db8::/32"],
                "exempt_consumers": "ops",
                "exempt_header": "X-Maintenance-Key",
                "exempt_secret": {"env": "MAINTENANCE_TEST_SECRET"},
            },
        },
    )
    tables["plugins"]["known"] = {"use": f"{CONSUMER}:Known"}
    tables["routes"][-1]["plugins"] = ["known", "exempt"]
    return tables


def test_off_is_off(gateway: Gateway) -> None:
    for route in ("off", "past", "future"):
        assert ask(gateway, f"/{route}").status == 200


def test_switched_on_in_the_configuration(gateway: Gateway, upstream: Upstream) -> None:
    mark = upstream.mark()
    response = ask(gateway, "/on")
    refused(response, "maintenance")
    assert response.get("retry-after") == "120"
    assert response.get("cache-control") == "no-store"
    assert not mark.requests


def test_a_page_of_ones_own(gateway: Gateway) -> None:
    response = ask(gateway, "/page")
    assert (response.status, reason_of(response)) == (500, "maintenance")
    assert response.get("content-type") == "text/html; charset=utf-8"
    assert response.body.decode() == "<h1>Back soon ✓</h1>"
    assert "retry-after" not in response
    assert ask(gateway, "/page", method="HEAD").body == b""


def test_a_window_tells_when_it_ends(gateway: Gateway) -> None:
    response = ask(gateway, "/now")
    refused(response, "maintenance")
    assert int(response.get("retry-after") or 0) > 365 * 86400


def test_a_file_is_a_switch(gateway: Gateway) -> None:
    switch = gateway.file.parent / "down"
    assert ask(gateway, "/file").status == 200
    switch.touch()
    # It is looked for once a second.
    deadline = time.monotonic() + 5
    while ask(gateway, "/file").status == 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    refused(ask(gateway, "/file"), "maintenance")
    switch.unlink()
    while ask(gateway, "/file").status != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    "lines",
    [("X-Forwarded-For: 203.0.113.9",), ("X-Forwarded-For: 2001:db8::1",),
     (f"X-Maintenance-Key: {SECRET}",), (f"x-maintenance-key:  {SECRET} ",), ("X-Who: ops",)],
)  # fmt: skip
def test_who_is_let_through(gateway: Gateway, lines: tuple[str, ...]) -> None:
    response = ask(gateway, "/exempt", *lines)
    assert response.status == 200
    assert "x-maintenance-key" not in [name.lower() for name, _ in response.json()["fields"]]


@pytest.mark.parametrize(
    "lines",
    [(), ("X-Forwarded-For: 203.0.114.9",), ("X-Forwarded-For: 203.0.113.9, 198.51.100.1",),
     ("X-Maintenance-Key: let-me-in-pleasE",), ("X-Maintenance-Key:",), (f"X-Maintenance-Key: {SECRET}x",),
     (f"X-Maintenance-Key: {SECRET}", f"X-Maintenance-Key: {SECRET}"), ("X-Maintenance-Key: \xff",),
     (f"X_Maintenance_Key: {SECRET}",), ("X-Who: OPS",), ("X-Who: ops2",)],
)  # fmt: skip
def test_who_is_not(gateway: Gateway, lines: tuple[str, ...]) -> None:
    refused(ask(gateway, "/exempt", *lines), "maintenance")


@pytest.mark.parametrize(
    ("table", "told"),
    [({"begin": "tomorrow"}, "expected a time"), ({"end": "2030-01-01T00:00:00"}, "expected a time"),
     ({"begin": "2030-01-02T00:00:00Z", "end": "2030-01-01T00:00:00Z"}, "must be behind begin"),
     ({"exempt_header": "x-key"}, "belong together"), ({"status": 200}, "400"),
     ({"body": "x", "body_file": "y"}, "not with body")],
)  # fmt: skip
def test_configurations(table: dict[str, Any], told: str) -> None:
    assert told in problems("maintenance", table)
