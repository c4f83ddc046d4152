"""What the gateway answers itself: problem+json (RFC 9457) or text, Proxy-Status (RFC 9209), and the log's
line."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from conftest import StartGateway, StartUpstream
from support import upstream as up
from support.answers import REASONS, proxy_details, reason_of, refused
from support.client import request
from support.gateway import Gateway, config
from support.upstream import Upstream


def gateway_config(upstream: str) -> dict[str, Any]:
    return config(
        upstream,
        routes=[
            {"name": "up", "match": {"prefix": "/up"}, "upstream": "up"},
            {"name": "gone", "match": {"prefix": "/gone"}, "upstream": "gone"},
            {"name": "limited", "match": {"prefix": "/limited"}, "upstream": "up", "plugins": ["limit"]},
            {"name": "blocked", "match": {"prefix": "/blocked"}, "upstream": "up", "plugins": ["office"]},
        ],
        upstreams={
            "up": {"endpoints": [upstream]},
            "gone": {"endpoints": [f"127.0.0.1:{up.free_port()}"]},
        },
        plugins={
            "limit": {"use": "rate-limit", "key": "client-ip", "rate": "1/h", "burst": 1},
            "office": {"use": "ip-filter", "allow": ["192.0.2.0/24"]},
        },
    )


def test_problem(gateway: Gateway, upstream: Upstream) -> None:
    with gateway.client() as client:
        response = client.get("/nowhere")
        refused(response, "no-route")
        problem = response.json()
        assert problem["type"].endswith("no-route") or problem["type"] == "about:blank"
        assert problem["title"]
        assert response.get("cache-control") in (None, "no-store")
        assert response.get("content-length") == str(len(response.body))
        assert response.get("date")
        assert client.get("/up").status == 200, "a refusal with its request read whole keeps the connection"


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, "application/problem+json"),
        ("*/*", "application/problem+json"),
        ("application/json", "application/problem+json"),
        ("application/problem+json", "application/problem+json"),
        ("application/*", "application/problem+json"),
        ("text/plain, */*;q=0.1", None),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", None),
        ("text/plain", "text/plain"),
        ("text/*", None),
        ("TEXT/PLAIN", "text/plain"),
        ("image/png", None),
        ("nonsense", None),
        ("", None),
    ],
)
def test_negotiation(gateway: Gateway, upstream: Upstream, accept: str | None, kind: str | None) -> None:
    """JSON unless plain text alone is accepted; where neither is, either will do (RFC 9110 12.5.1)."""
    with gateway.client() as client:
        lines = () if accept is None else (f"Accept: {accept}",)
        response = client.request(request(target="/nowhere", lines=lines))
    content_type = (response.get("content-type") or "").split(";")[0]
    assert content_type in ("application/problem+json", "text/plain")
    if kind:
        assert content_type == kind
    assert reason_of(response) == "no-route"
    if content_type == "text/plain":
        assert b"no-route" in response.body


def test_head_has_no_body(gateway: Gateway, upstream: Upstream) -> None:
    with gateway.client() as client:
        response = client.request(request("HEAD", "/nowhere"))
        assert response.status == 404
        assert response.body == b""
        assert proxy_details(response) == ["no-route"]
        assert int(response.get("content-length") or 1) > 0
        assert client.get("/up").status == 200


def test_unreachable_upstream(gateway: Gateway, upstream: Upstream) -> None:
    with gateway.client() as client:
        response = client.get("/gone")
        refused(response, "connect-refused")
        assert b"127.0.0.1" not in response.body, "an answer tells nothing of the inside"


def test_rate_limited(gateway: Gateway, upstream: Upstream) -> None:
    mark = upstream.mark()
    with gateway.client() as client:
        assert client.get("/limited").status == 200
        response = client.get("/limited")
        refused(response, "rate-limited")
        assert 1 <= int(response.get("retry-after") or 0) <= 3600
        assert client.request(request("POST", "/limited", body=b"hello")).status == 429
        assert client.get("/up").status == 200
    assert [found.target for found in mark.requests] == ["/limited", "/up"]


def test_address_refused(gateway: Gateway, upstream: Upstream) -> None:
    mark = upstream.mark()
    with gateway.client() as client:
        refused(client.get("/blocked"), "address-refused")
    assert not mark.requests


def test_upstream_errors_are_its_own(gateway: Gateway, upstream: Upstream) -> None:
    """A 5xx of the service goes through as it is; no Proxy-Status error of ours is put on it."""
    upstream.script(up.reply(503, b"busy", "Retry-After: 7", "Proxy-Status: inner; error=dns_error"))
    since = gateway.mark()
    with gateway.client() as client:
        response = client.get("/up")
    assert (response.status, response.body, response.get("retry-after")) == (503, b"busy", "7")
    assert "inner; error=dns_error" in ", ".join(response.all("proxy-status"))
    assert proxy_details(response) == []
    assert gateway.wait_log(since)[0]["reason"] in ("none", "", None)


@pytest.mark.parametrize("path", ["/nowhere", "/gone", "/limited", "/blocked"])
def test_a_body_that_is_still_coming(gateway: Gateway, upstream: Upstream, path: str) -> None:
    """Refused before its body has come: it is read and dropped, or the connection closes; no byte is a
    request."""
    mark = upstream.mark()
    with gateway.client() as client:
        client.get("/limited")
    with gateway.client() as client:
        client.send(request("POST", path, lines=("Content-Length: 46",)))
        response = client.response("POST")
        assert response.status >= 400
        client.try_send(b"GET /smuggled HTTP/1.1\r\nHost: test.example\r\n\r\n")
        if not response.closes:
            assert client.get("/up").json()["target"] == "/up"
    assert "/smuggled" not in [found.target for found in mark.requests]


# -- the access log


def test_log_of_a_request(gateway: Gateway, upstream: Upstream) -> None:
    since = gateway.mark()
    with gateway.client() as client:
        client.request(request("POST", "/up/a?b=c", body=b"hello", lines=("User-Agent: test/1",)))
    record = gateway.wait_log(since)[0]
    assert record["method"] == "POST"
    assert record["status"] == 200
    assert record["route"] == "up"
    assert record["upstream"] == "up"
    assert record["endpoint"] == upstream.address
    assert record["attempts"] == 1
    assert record["bytes_in"] == 5
    assert record["bytes_out"] > 100
    assert record["client"] == "127.0.0.1"
    assert record["user_agent"] == "test/1"
    assert record["request_id"]
    assert record["reason"] in ("none", "", None)
    assert "/up/a" in record["path"]
    assert record["time_total"] > 0


def test_log_of_each_request_once(gateway: Gateway, upstream: Upstream) -> None:
    since = gateway.mark()
    with gateway.client() as client:
        client.send(b"".join(request(target=f"/up/{number}") for number in range(100)))
        for _ in range(100):
            client.response()
        client.get("/up/last")
    records = gateway.wait_log(since, 101)
    assert len(records) == 101
    assert [record["path"] for record in records] == [*(f"/up/{n}" for n in range(100)), "/up/last"]


def test_log_cannot_be_forged(gateway: Gateway, upstream: Upstream) -> None:
    """Quotes, escapes and 8-bit bytes stay inside their string; each line is one JSON object (the harness
    reads it)."""
    since = gateway.mark()
    agent = 'x", "status": 200, "y": "\\" \xe9\xff\\u000a'
    with gateway.client() as client:
        client.request(request(target="/up?%0a%22", lines=(f"User-Agent: {agent}",)))
        client.get("/up/after")
    records = gateway.wait_log(since, 2)
    assert len(records) == 2
    assert records[0]["user_agent"].startswith('x", "status": 200')


def test_log_template_and_redaction(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    upstream = start_upstream()
    gateway = start_gateway(
        config(
            upstream.address,
            access_log={"format": '$client "$method $path" $status', "redact_query": ["token"]},
        )
    )
    with gateway.client() as client:
        client.get("/a?token=s3cret&b=c")
    gateway.stop()
    assert not any("s3cret" in line for line in gateway.stdout)
    assert any(line.startswith('127.0.0.1 "GET /a') and line.endswith('" 200') for line in gateway.stdout)


def test_log_redacts(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    upstream = start_upstream()
    gateway = start_gateway(
        config(
            upstream.address,
            access_log={
                "headers": ["authorization", "x-plain"],
                "redact_headers": ["authorization"],
                "redact_query": ["token"],
            },
        )
    )
    with gateway.client() as client:
        client.get("/a?x=1&token=s3cret&y=2", "Authorization: Bearer s3cret", "X-Plain: seen")
    gateway.wait_log()
    gateway.stop()
    text = "\n".join(gateway.stdout)
    assert "s3cret" not in text
    assert "[redacted]" in text
    assert "seen" in text
    assert upstream.requests[0].get("authorization") == "Bearer s3cret", "the log alone is redacted"
    assert upstream.requests[0].target == "/a?x=1&token=s3cret&y=2"


def test_log_file_is_reopened(
    start_gateway: StartGateway, start_upstream: StartUpstream, tmp_path: Path
) -> None:
    """SIGUSR1, after a rotation by rename: the old file gets no line any more, the new one gets all."""
    upstream = start_upstream()
    file = tmp_path / "access.log"
    gateway = start_gateway(config(upstream.address, access_log={"path": str(file)}))
    with gateway.client() as client:
        client.get("/first")
        file.rename(tmp_path / "access.log.1")
        gateway.signal(signal.SIGUSR1)
        while not file.exists():
            client.get("/between")
        client.get("/last")
    gateway.stop()
    assert "/first" in (tmp_path / "access.log.1").read_text()
    assert "/last" in file.read_text()
    assert "/first" not in file.read_text()
    lines = (tmp_path / "access.log.1").read_text() + file.read_text()
    assert lines.count("\n") == len(upstream.requests), "no line is lost"


def test_every_reason_is_one_that_http_can_say() -> None:
    for code, reason in REASONS.items():
        assert code == code.lower()
        assert reason.status == 0 or 200 <= reason.status < 600
        assert reason.status < 400 or reason.cause
        assert reason.status < 400 or reason.proxy_error, f"{code} has no RFC 9209 error type"
