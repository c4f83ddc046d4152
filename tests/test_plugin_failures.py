"""Plugins that raise, hang or are left alone: what the client gets, and that nothing stays behind."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from support import upstream as up
from support.answers import refused
from support.client import request
from support.gateway import Gateway, config
from support.upstream import Upstream

ACT = str(Path(__file__).parent / "support" / "plugins" / "act.py")
QUICK = {"use": f"{ACT}:Act", "timeout": "60ms"}


def gateway_config(address: str) -> dict[str, Any]:
    return config(
        address,
        upstream_options={"timeouts": {"head": "5s"}},
        admin={"bind": "127.0.0.1:0"},
        routes=[
            {"name": "open", "match": {"prefix": "/open"}, "upstream": "up", "plugins": ["first", "passed"]},
            {"name": "report", "match": {"prefix": "/report"}, "upstream": "up", "plugins": ["reports"]},
            {"name": "total", "match": {"prefix": "/total"}, "upstream": "up", "plugins": ["patient"],
             "timeouts": {"total": "100ms"}},
            {"name": "patient", "match": {"prefix": "/patient"}, "upstream": "up", "plugins": ["patient"]},
            {"name": "breaks", "match": {"prefix": "/breaks"}, "upstream": "up", "plugins": ["breaks"]},
            {"name": "all", "upstream": "up", "plugins": ["first", "second"]},
        ],
        plugins={
            "first": QUICK,
            "second": QUICK,
            "passed": {**QUICK, "on_failure": "open"},
            "reports": {**QUICK, "report_only": True},
            "patient": {"use": f"{ACT}:Act", "timeout": "30s"},
            "breaks": QUICK,
        },
    )  # fmt: skip


def ask(gateway: Gateway, act: str, target: str = "/x", method: str = "GET", **options: Any) -> Any:
    with gateway.client() as client:
        return client.request(request(method, target, X_Act=act, **options))


def counts(gateway: Gateway, plugin: str) -> dict[str, int]:
    found: dict[str, int] = gateway.admin("/counters")["plugins"][plugin]
    return found


@pytest.mark.parametrize("phase", ["request", "response"])
@pytest.mark.parametrize(
    ("word", "reason"), [("raise", "plugin-failed"), ("hang", "plugin-timeout"), ("suspend", "")]
)
def test_failures_are_500_with_a_reason(
    gateway: Gateway, upstream: Upstream, phase: str, word: str, reason: str
) -> None:
    if phase == "response" or not reason:
        upstream.script(up.reply(200, b"fine"))
    since = gateway.mark()
    response = ask(gateway, f"second.{phase}:suspend,second.{phase}:{word}")
    if not reason:
        assert response.body == b"fine"
        return
    refused(response, reason)
    record = gateway.wait_log(since)[0]
    assert (record["reason"], record["detail"]) == (reason, "second")
    gateway.wait_stderr("fastgate: plugin second")


def test_on_failure_open_goes_on(gateway: Gateway, upstream: Upstream) -> None:
    for act in ("request:raise", "request:hang", "response:raise", "response:hang", "request:bad"):
        upstream.script(up.reply(200, b"fine"))
        response = ask(gateway, f"passed.{act}", "/open")
        assert (response.status, response.body) == (200, b"fine"), act
        assert response.all("x-seen")[-1] == "first 200 upstream"


def test_report_only_lets_pass_what_is_refused(gateway: Gateway, upstream: Upstream) -> None:
    before = counts(gateway, "reports").get("reported", 0)
    for act in ("request:refuse", "request:suspend,request:answer"):
        upstream.script(up.reply(200, b"fine"))
        assert ask(gateway, act, "/report").body == b"fine"
    assert counts(gateway, "reports")["reported"] == before + 2
    gateway.wait_stderr("fastgate: plugin reports would have answered 403 forbidden")


def test_a_failing_error_hook_does_not_go_round(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(up.reset())
    upstream.script(up.reset())
    refused(ask(gateway, "second.error:raise", method="POST", body=b"x"), "plugin-failed")
    refused(ask(gateway, "second.error:hang", method="POST", body=b"x"), "plugin-timeout")


def test_the_total_timeout_ends_a_plugin(gateway: Gateway, upstream: Upstream) -> None:
    refused(ask(gateway, "request:hang", "/total"), "total-timeout")
    upstream.script(up.reply())
    refused(ask(gateway, "response:hang", "/total"), "total-timeout")


def test_the_breaker_opens_and_closes(gateway: Gateway, upstream: Upstream) -> None:
    # Its on_response goes well each time: that does not hide what fails.
    for _ in range(20):
        refused(ask(gateway, "request:raise", "/breaks"), "plugin-failed")
    refused(ask(gateway, "", "/breaks"), "plugin-breaker-open")
    gateway.wait_stderr("fastgate: plugin breaks: 20 failures in a row")
    deadline = time.monotonic() + 10
    upstream.script(up.reply())
    while ask(gateway, "", "/breaks").status != 200:  # open for 5 s
        assert time.monotonic() < deadline
        time.sleep(0.1)
    upstream.script(up.reply())
    assert ask(gateway, "", "/breaks").status == 200


@pytest.mark.parametrize("act", ["request:hang", "request:read", "response:hang", "error:hang"])
def test_a_client_that_leaves_ends_the_plugin(gateway: Gateway, upstream: Upstream, act: str) -> None:
    if act.startswith("response"):
        upstream.script(up.reply())
    elif act.startswith("error"):
        upstream.script(up.reset())
    since = gateway.mark()
    asked = len(upstream.requests)
    with gateway.client() as client:
        client.send(request("POST", "/patient", X_Act=act, body=b"abc")[: -1 if "read" in act else None])
        if "request" not in act:
            upstream.wait_requests(asked + 1)
    record = gateway.wait_log(since)[0]
    # What had gone wrong before the client left stands in the log, if it had been seen.
    assert record["status"] == 499
    assert record["reason"] in ("client-gone", *(["upstream-reset"] if "error" in act else []))


def test_an_upstream_that_dies_while_a_plugin_looks_at_its_head(gateway: Gateway, upstream: Upstream) -> None:
    gone = threading.Event()
    upstream.script(up.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"), up.tell(gone), up.reset())
    with gateway.client() as client:
        client.send(request("POST", "/x", X_Act="first.response:sleep", body=b"x"))
        assert gone.wait(5)
        client.cut_response("POST")  # the part is never taken for the whole


def test_a_drain_waits_for_plugins(start_gateway: Any, start_upstream: Any) -> None:
    upstream = start_upstream()
    gateway = start_gateway(gateway_config(upstream.address))
    upstream.script(up.reply(200, b"fine"))
    with gateway.client() as client:
        client.send(request("GET", "/patient", X_Act="request:sleep,response:sleep"))
        gateway.terminate()
        assert client.response().body == b"fine"
    gateway.wait_stopped()


def test_a_plugin_that_hangs_is_cut_at_the_end_of_a_drain(start_gateway: Any, start_upstream: Any) -> None:
    upstream = start_upstream()
    tables = gateway_config(upstream.address)
    tables["server"]["drain_timeout"] = "200ms"
    gateway = start_gateway(tables)
    with gateway.client() as client:
        client.send(request("GET", "/patient", X_Act="request:hang"))
        gateway.admin("/counters")  # by now it has been read, and hangs
        gateway.terminate()
        gateway.wait_stopped(cut=1)
