"""Answers' bodies through plugins: chunk by chunk and whole, with pauses, limits and ends of every kind."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from support import upstream as up
from support.answers import proxy_details, refused
from support.client import request
from support.gateway import Gateway, config
from support.handlers import pattern
from support.upstream import Upstream

ACT = str(Path(__file__).parent / "support" / "plugins" / "act.py")


def gateway_config(address: str) -> dict[str, Any]:
    return config(
        address,
        routes=[
            {
                "name": "fixed",
                "match": {"path": "/fixed"},
                "respond": {"body": "fixed"},
                "plugins": ["upper"],
            },
            {"name": "upper", "match": {"prefix": "/upper"}, "upstream": "up", "plugins": ["upper"]},
            {"name": "wrap", "match": {"prefix": "/wrap"}, "upstream": "up", "plugins": ["wrap"]},
            {"name": "both", "match": {"prefix": "/both"}, "upstream": "up", "plugins": ["upper", "wrap"]},
            {"name": "open", "match": {"prefix": "/open"}, "upstream": "up", "plugins": ["passed"]},
            {"name": "waits", "match": {"prefix": "/waits"}, "upstream": "up", "plugins": ["wrap", "act"]},
            {"name": "acts", "match": {"prefix": "/acts"}, "upstream": "up", "plugins": ["upper", "act"]},
        ],
        plugins={
            "upper": {"use": f"{ACT}:Upper"},
            "passed": {"use": f"{ACT}:Upper", "on_failure": "open"},
            "wrap": {"use": f"{ACT}:Wrap"},
            "act": {"use": f"{ACT}:Act"},
        },
    )


def get(gateway: Gateway, target: str, *lines: str, method: str = "GET", version: str = "1.1") -> Any:
    with gateway.client() as client:
        client.send(request(method, target, version=version, lines=lines))
        return client.response(method, http10=version == "1.0")


@pytest.mark.parametrize("query", ["", "?suspend"])
def test_pieces_go_on_as_they_come(gateway: Gateway, upstream: Upstream, query: str) -> None:
    upstream.script(
        up.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"),
        up.send(b"3\r\ndef\r\n0\r\n\r\n"),
    )
    response = get(gateway, f"/upper{query}")
    assert (response.body, response.get("transfer-encoding")) == (b"ABCDEF!", "chunked")
    upstream.script(up.reply(200, b"known length"))
    response = get(gateway, f"/upper{query}", version="1.0")
    assert (response.body, "content-length" in response) == (b"KNOWN LENGTH!", False)


def test_a_first_piece_is_not_held_back_for_a_second(gateway: Gateway, upstream: Upstream) -> None:
    seen = threading.Event()
    upstream.script(
        up.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc"), up.wait_for(seen), up.send(b"def")
    )
    with gateway.client() as client:
        client.send(request("GET", "/upper?suspend"))
        assert client.head().status == 200
        assert client.stream.exactly(8, "the first piece") == b"3\r\nABC\r\n"
        seen.set()

        assert client.stream.chunked("the rest")[0] == b"DEF!"


def test_bodies_larger_than_any_buffer(gateway: Gateway, upstream: Upstream) -> None:
    body = pattern(3_000_000)
    for query in ("", "?suspend"):
        upstream.script(up.reply(200, body))
        assert get(gateway, f"/upper{query}").body == body.upper() + b"!"


def test_whole_bodies(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(
        up.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"),
        up.send(b"3\r\ndef\r\n0\r\n\r\n"),
    )
    response = get(gateway, "/wrap")
    assert (response.body, response.get("content-length")) == (b"[abcdef]", "8")
    upstream.script(up.reply(200, b""))
    assert get(gateway, "/wrap").body == b""
    upstream.script(up.reply(200, b"abc"))
    assert get(gateway, "/both?suspend").body == b"[ABC]!"[:-1].replace(b"]", b"]!")


@pytest.mark.parametrize(("target", "body"), [("/waits", b"[abcdef]"), ("/acts", b"ABCDEF!")])
@pytest.mark.parametrize("first", [b"abc", b""])
def test_a_hook_of_the_head_that_waits_does_not_hold_the_body_back(
    gateway: Gateway, upstream: Upstream, target: str, body: bytes, first: bytes
) -> None:
    rest = threading.Event()
    upstream.script(
        up.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n" + first),
        up.wait_for(rest),
        up.send(b"abcdef"[len(first) :]),
    )
    asked = len(upstream.requests)
    with gateway.client() as client:
        client.send(request("GET", target, X_Act="response:sleep"))
        upstream.wait_requests(asked + 1)
        rest.set()
        assert client.response().body == body


def test_a_whole_body_beyond_the_limit(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(up.reply(200, b"x" * 10_001))
    refused(get(gateway, "/wrap"), "plugin-body-too-large")
    upstream.script(up.reply(200, b"x" * 10_000))
    assert len(get(gateway, "/wrap").body) == 10_002


def test_answers_without_a_body(gateway: Gateway, upstream: Upstream) -> None:
    for target in ("/upper", "/wrap"):
        upstream.script(up.reply(200, b"abc")).script(up.reply(304, b"")).script(up.reply(204, b""))
        response = get(gateway, target, method="HEAD")
        assert (response.status, response.body, "content-length" in response) == (200, b"", False)
        assert get(gateway, target).status == 304
        assert get(gateway, target).status == 204


def test_answers_of_the_gateway(gateway: Gateway, upstream: Upstream) -> None:
    response = get(gateway, "/fixed")
    assert (response.body, response.get("content-length")) == (b"FIXED!", "6")
    upstream.script(up.reply(200, b"abc"))
    response = get(gateway, "/acts", "X-Act: response:body=other")
    assert response.body == b"OTHER!"
    response = get(gateway, "/acts", "X-Act: request:answer")
    assert (response.status, response.body) == (201, b'{"BY":"ACT"}!')


def test_a_hook_that_fails_cuts_the_answer(gateway: Gateway, upstream: Upstream) -> None:
    for query in ("?fail", "?fail&suspend"):
        upstream.script(up.reply(200, b"abc"))
        since = gateway.mark()
        with gateway.client() as client:
            client.send(request("GET", f"/upper{query}"))
            client.cut_response()
        assert gateway.wait_log(since)[0]["reason"] == "plugin-failed"
        upstream.script(up.reply(200, b"abc"))
        assert get(gateway, f"/open{query}").body == b"abc"


def test_an_upstream_that_breaks_off(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(up.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc"), up.reset())
    with gateway.client() as client:
        client.send(request("POST", "/upper", body=b""))
        client.cut_response("POST")
    upstream.script(up.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc"), up.reset())
    response = get(gateway, "/wrap", "Content-Length: 0", method="POST")
    assert (response.status, proxy_details(response)[0][:9]) == (502, "upstream-")
    assert response.body.startswith(b"[{"), "errors of the gateway pass through it as well"


def test_a_client_that_reads_slowly_holds_the_upstream_back(gateway: Gateway, upstream: Upstream) -> None:
    body = pattern(8_000_000)
    upstream.script(up.reply(200, body))
    with gateway.client(receive_buffer=4096) as client:
        client.send(request("GET", "/upper?suspend"))
        assert client.head().status == 200
        got, _, _ = client.stream.chunked("a long body")
        assert got == body.upper() + b"!"
