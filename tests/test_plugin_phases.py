"""The phases of plugins in Python: their order, what they change, what they answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support import upstream as up
from support.answers import refused
from support.client import request
from support.gateway import Gateway, config
from support.upstream import Upstream

ACT = str(Path(__file__).parent / "support" / "plugins" / "act.py")


def gateway_config(address: str) -> dict[str, Any]:
    return config(
        listener={"plugins": ["a"]},
        upstreams={
            "up": {"endpoints": [address]},
            "other": {"endpoints": [address]},
            "dead": {"endpoints": ["127.0.0.1:1"]},
        },
        routes=[
            {"name": "fixed", "match": {"prefix": "/fixed"}, "respond": {"body": "fixed"}, "plugins": ["b"]},
            {
                "name": "away",
                "match": {"prefix": "/away"},
                "redirect": {"host": "x.example"},
                "plugins": ["b"],
            },
            {"name": "dead", "match": {"prefix": "/dead"}, "upstream": "dead", "plugins": ["b"]},
            {
                "name": "limited",
                "match": {"prefix": "/limited"},
                "upstream": "up",
                "plugins": ["gold", "not-eve"],
            },
            {
                "name": "rewritten",
                "match": {"prefix": "/old"},
                "rewrite": {"prefix": "/new"},
                "upstream": "up",
            },
            {"name": "logged", "match": {"prefix": "/logged"}, "upstream": "up", "plugins": ["logs"]},
            {"name": "told", "match": {"path": "/told"}, "upstream": "up", "plugins": ["logs"]},
            {"name": "named", "match": {"path": "/users/{id}"}, "upstream": "up", "plugins": ["b", "c"]},
            {"name": "all", "upstream": "up", "plugins": ["b"]},
        ],
        plugins={
            "a": {"use": f"{ACT}:Act", "timeout": "300ms"},
            "b": {"use": f"{ACT}:Act", "timeout": "300ms"},
            "c": {"use": f"{ACT}:Act", "header": "X-User"},
            "gold": {"use": "rate-limit", "key": "consumer", "rate": "1/h", "burst": 2, "plan": "gold"},
            "not-eve": {"use": "ip-filter", "block": ["127.0.0.1"], "consumers": ["eve"]},
            "logs": {"use": f"{ACT}:Logs"},
        },
    )


def ask(gateway: Gateway, act: str, target: str = "/x", method: str = "GET", **options: Any) -> Any:
    with gateway.client() as client:
        return client.request(request(method, target, X_Act=act, **options))


def test_requests_go_down_and_answers_come_up(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(up.reply(200, b"hello", "X-Drop: 1"))
    response = ask(gateway, "response:drop")
    assert (response.status, response.body) == (200, b"hello")
    assert response.get("x-trace") == "a.request b.request b.response a.response"
    assert response.all("x-seen") == ["b 200 upstream", "a 200 upstream"]
    assert "x-drop" not in response


@pytest.mark.parametrize("word", ["suspend", "sleep", "timeout", "group"])
@pytest.mark.parametrize("phase", ["request", "response"])
def test_a_hook_may_wait(gateway: Gateway, upstream: Upstream, phase: str, word: str) -> None:
    upstream.script(up.reply(200, b"hello"))
    response = ask(gateway, f"{phase}:{word}")
    assert (response.status, response.body) == (200, b"hello")


def test_what_a_request_is_made_into(gateway: Gateway, upstream: Upstream) -> None:
    mark = upstream.mark()
    upstream.script(up.reply())
    ask(gateway, "b.request:set=one,b.request:method=PUT,b.request:path=/elsewhere/%41,b.request:query=a=b")
    (seen,) = mark.requests
    assert (seen.method, seen.target) == ("PUT", "/elsewhere/A?a=b")
    assert seen.all("x-set") == ["b one"]


def test_a_path_of_a_plugin_takes_the_place_of_the_rewrite(gateway: Gateway, upstream: Upstream) -> None:
    mark = upstream.mark()
    upstream.script(up.reply()).script(up.reply())
    ask(gateway, "a.request:query=a=b", "/old/x")
    ask(gateway, "a.request:path=/mine", "/old/x")
    assert [one.target for one in mark.requests] == ["/new/x?a=b", "/mine"]


@pytest.mark.parametrize(
    "word",
    ["path=no-slash", "path=/a?b", "path=/a/../../..", "path=/%zz", "path=/a b", "method=CONNECT",
     "method=HEAD", "query=a b", "query=a#b", "upstream=nobody", "bad"],
)  # fmt: skip
def test_what_can_not_be_forwarded_is_the_plugins_failure(
    gateway: Gateway, upstream: Upstream, word: str
) -> None:
    assert refused(ask(gateway, f"b.request:{word}"), "plugin-failed")


def test_the_consumer_counts_and_is_logged(gateway: Gateway, upstream: Upstream) -> None:
    # Behind the plugin that vouches: a limit by consumer, one of a plan, and a list for one consumer alone.
    for consumer, statuses in (
        ("ann", [200, 200, 429]),
        ("bob", [200, 200, 429]),
        ("eve", [403]),
        ("", [200] * 3),
    ):
        for status in statuses:
            since = gateway.mark()
            if status == 200:
                upstream.script(up.reply())
            act = f"a.request:consumer={consumer}" if consumer else ""
            assert ask(gateway, act, "/limited").status == status, consumer
            assert gateway.wait_log(since)[0]["consumer"] == (consumer or None)


def test_another_upstream(gateway: Gateway, upstream: Upstream) -> None:
    since = gateway.mark()
    upstream.script(up.reply())
    assert ask(gateway, "b.request:upstream=other").status == 200
    assert gateway.wait_log(since)[0]["upstream"] == "other"
    refused(ask(gateway, "b.request:upstream=other", "/fixed"), "plugin-failed")


@pytest.mark.parametrize("pieces", [None, [b"par", b"ts", b"!"]])
def test_bodies_are_read_and_changed(
    gateway: Gateway, upstream: Upstream, pieces: list[bytes] | None
) -> None:
    mark = upstream.mark()
    upstream.script(up.read_body(), up.reply()).script(up.read_body(), up.reply())
    body = None if pieces else b"parts!"
    ask(gateway, "b.request:read", method="POST", body=body, chunks=pieces)
    ask(
        gateway,
        "b.request:read,b.request:suspend,b.request:body=other",
        method="POST",
        body=body,
        chunks=pieces,
    )
    first, second = mark.requests
    assert (first.body, first.all("x-read")) == (b"parts!", ["6"])
    assert (second.body, second.all("content-length")) == (b"other", ["5"])


def test_a_body_where_there_was_none(gateway: Gateway, upstream: Upstream) -> None:
    mark = upstream.mark()
    upstream.script(up.read_body(), up.reply())
    ask(gateway, "b.request:method=POST,b.request:body=made")
    assert mark.requests[0].body == b"made"


def test_json_in_json_out(gateway: Gateway, upstream: Upstream) -> None:
    mark = upstream.mark()
    upstream.script(up.read_body(), up.reply())
    ask(gateway, "b.request:json", method="POST", body=b'{"a":[1]}')
    assert json.loads(mark.requests[0].body) == {"seen": {"a": [1]}}
    refused(ask(gateway, "b.request:json", method="POST", body=b"{"), "plugin-failed")


def test_a_body_that_is_too_long(gateway: Gateway, upstream: Upstream) -> None:
    for options in ({"body": b"x" * 1_100_000}, {"chunks": [b"x" * 600_000, b"x" * 600_000]}):
        refused(ask(gateway, "b.request:read", method="POST", **options), "body-too-large")
    # A body that was not read can't be replaced: it would have to be thrown away unseen.
    refused(ask(gateway, "b.request:body=other", method="POST", body=b"abc"), "plugin-failed")


def test_a_client_that_waits_for_100(gateway: Gateway, upstream: Upstream) -> None:
    mark = upstream.mark()
    upstream.script(up.read_body(), up.reply())
    with gateway.client() as client:
        client.send(
            b"POST / HTTP/1.1\r\nHost: a\r\nX-Act: b.request:read\r\n"
            b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n"
        )
        assert client.head().status == 100
        client.send(b"abc")
        assert client.response("POST").status == 200
    assert (mark.requests[0].body, "expect" in mark.requests[0]) == (b"abc", False)


def test_a_plugin_answers(gateway: Gateway, upstream: Upstream) -> None:
    since = gateway.mark()
    response = ask(gateway, "a.request:answer", method="POST", body=b"abc")
    assert (response.status, response.json(), response.get("x-by")) == (201, {"by": "a"}, "a")
    assert response.get("content-type") == "application/json"
    assert response.get("x-trace") == "a.request a.response", "b was never reached"
    record = gateway.wait_log(since)[0]
    assert (record["reason"], record["detail"], record["attempts"]) == ("plugin-answered", "a", 0)


@pytest.mark.parametrize(
    ("act", "reason", "code", "detail"),
    [
        ("b.request:refuse", "forbidden", "forbidden", "as asked"),
        ("b.request:suspend,b.request:refuse", "forbidden", "forbidden", "as asked"),
        ("b.request:refuse=my-own", "plugin-refused", "my-own", "my-own: as asked"),
    ],
)
def test_a_plugin_refuses(
    gateway: Gateway, upstream: Upstream, act: str, reason: str, code: str, detail: str
) -> None:
    since = gateway.mark()
    response = ask(gateway, act)
    assert (response.status, response.json()["code"], response.get("x-why")) == (403, code, "asked")
    assert response.get("proxy-status") == f'fastgate; error=http_request_denied; details="{code}"'
    assert response.all("x-seen") == [f"b 403 plugin {code}", f"a 403 plugin {code}"]
    record = gateway.wait_log(since)[0]
    assert (record["reason"], record["detail"]) == (reason, detail)


def test_fixed_answers_pass_through_plugins(gateway: Gateway, upstream: Upstream) -> None:
    response = ask(gateway, "", "/fixed")
    assert (response.body, response.all("x-seen")) == (
        b"fixed",
        ["b 200 gateway fixed-response", "a 200 gateway fixed-response"],
    )
    assert ask(gateway, "response:suspend", "/away").get("location") == "http://x.example/away"
    assert refused(ask(gateway, "b.request:refuse", "/fixed"), "forbidden")


def test_answers_are_changed(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(up.reply(200, b"long body", 'ETag: "1"'))
    response = ask(gateway, "b.response:status=206,b.response:body=short")
    assert (response.status, response.body, "etag" in response) == (206, b"short", False)
    upstream.script(up.reply(200, b"x" * 300_000, close_after=True))
    response = ask(gateway, "b.response:suspend,b.response:replace")
    assert (response.status, response.body) == (202, b"in place of 200")
    assert response.all("x-seen") == ["a 202 plugin plugin-answered"]


def test_head_and_empty_answers(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(up.reply(200, b"ok"))
    response = ask(gateway, "response:suspend", method="HEAD")
    assert (response.status, response.get("content-length"), response.body) == (200, "2", b"")
    upstream.script(up.reply(204, b""))
    response = ask(gateway, "response:suspend")
    assert (response.status, "content-length" in response) == (204, False)
    with gateway.client() as client:
        client.send(request("HEAD", "/fixed", X_Act="a"))
        assert client.response("HEAD").get("content-length") == "5"


def test_errors_of_the_gateway(gateway: Gateway, upstream: Upstream) -> None:
    response = ask(gateway, "", "/dead")
    refused(response, "connect-refused")
    assert response.get("x-trace") == "a.request b.request b.error a.error b.response a.response"
    response = ask(gateway, "a.error:suspend,a.error:answer", "/dead")
    assert (response.status, response.body) == (200, b"instead of 502 connect-refused upstream")


def test_subrequests(gateway: Gateway, upstream: Upstream) -> None:
    mark = upstream.mark()
    upstream.script(up.reply(404, b"hm")).script(up.reply())
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    ask(gateway, "b.request:subrequest=other", traceparent=trace)
    asked, forwarded = mark.requests
    assert asked.all("traceparent") == forwarded.all("traceparent") == [trace]
    assert (asked.method, asked.target, asked.all("x-from")) == ("GET", "/asked?a=b", ["b"])
    assert asked.get("x-request-id") == forwarded.get("x-request-id")
    assert forwarded.get("x-answer") == "404 hm"
    refused(ask(gateway, "b.request:subrequest=dead"), "plugin-failed")
    refused(ask(gateway, "b.request:subrequest=nobody"), "plugin-failed")


def test_what_a_client_says_of_itself_is_removed(gateway: Gateway, upstream: Upstream) -> None:
    mark = upstream.mark()
    upstream.script(up.reply())
    with gateway.client() as client:
        client.request(
            request(
                "GET",
                "/users/7",
                lines=("X-User: root", "x-USER: root", "X_User: root", "X-User-Agent: kept", "x_act: no"),
            )
        )
    (seen,) = mark.requests
    names = [name.lower() for name, _ in seen.fields]
    assert "x-user" not in names
    assert "x_user" not in names
    assert seen.get("x-user-agent") == "kept"


def test_the_log_phase(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(up.reply(200, b"hello")).script(up.reply(503, b"no"))
    ask(gateway, "", "/logged/1?late", User_Agent="t")
    ask(gateway, "", "/logged/2", User_Agent="t")
    ask(
        gateway, "a.request:refuse", "/logged/3"
    )  # "logs" was never reached, but the exchange is over for it, too
    for _ in range(100):
        told = ask(gateway, "", "/told").json()
        if len([one for one in told if one["path"].startswith("/logged")]) == 3:
            break
    by_path = {one["path"]: one for one in told}
    first = by_path["/logged/1"]
    assert (first["status"], first["reason"], first["route"], first["bytes_out"]) == (200, "", "logged", 5)
    assert (first["endpoint"], first["agent"]) == (upstream.address, "t")
    assert 0 < first["duration"] < 5
    assert by_path["/logged/2"]["status"] == 503
    assert by_path["/logged/3"]["reason"] == "forbidden"


def test_pipelined_requests_wait_for_plugins(gateway: Gateway, upstream: Upstream) -> None:
    with gateway.client() as client:
        for index in range(5):
            upstream.script(up.reply(200, f"{index}".encode()))
        client.send(
            b"".join(request("GET", f"/{i}", X_Act="request:suspend,response:suspend") for i in range(5))
        )
        assert [client.response().body for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
