"""Fields: hop-by-hop removal, Via, order and repetition, and the header rules of routes (RFC 9110 5, 7.6)."""

from __future__ import annotations

from typing import Any

import pytest
from support import upstream as up
from support.answers import refused
from support.client import request
from support.gateway import Gateway, config
from support.upstream import Upstream
from support.wire import tokens, values


def gateway_config(upstream: str) -> dict[str, Any]:
    rules = {
        "name": "rules",
        "match": {"prefix": "/rules"},
        "upstream": "up",
        "request_headers": {
            "set": {"x-set": "new", "x-secret": {"env": "FASTGATE_TEST_SECRET"}},
            "add": {"x-add": "more"},
            "remove": ["x-remove"],
        },
        "response_headers": {
            "set": {"x-set": "new"},
            "add": {"x-add": "more"},
            "remove": ["x-remove", "server"],
        },
    }
    strip = {
        "name": "strip",
        "match": {"prefix": "/strip"},
        "upstream": "up",
        "rewrite": {"strip_prefix": True},
    }
    replace = {
        "name": "replace",
        "match": {"prefix": "/old"},
        "upstream": "up",
        "rewrite": {"prefix": "/new"},
    }
    template = {
        "name": "template",
        "match": {"path": "/users/{id}/posts/{post}"},
        "upstream": "up",
        "rewrite": {"path": "/p/{post}/u/{id}", "host": "internal.example"},
    }
    redirect = {
        "name": "redirect",
        "match": {"prefix": "/gone"},
        "redirect": {
            "status": 308,
            "scheme": "https",
            "host": "other.example",
            "port": 8443,
            "prefix": "/here",
        },
    }
    respond = {
        "name": "respond",
        "match": {"path": "/fixed"},
        "respond": {"status": 203, "body": "fixed", "content_type": "text/css", "headers": {"x-a": "1"}},
    }
    tables = config(
        upstream,
        routes=[rules, strip, replace, template, redirect, respond, {"name": "all", "upstream": "up"}],
    )
    return tables


@pytest.fixture(scope="module", autouse=True)
def secret() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTGATE_TEST_SECRET", "s3cret")
        yield


def sent(gateway: Gateway, upstream: Upstream, *lines: str, target: str = "/") -> Any:
    mark = upstream.mark()
    with gateway.client() as client:
        assert client.get(target, *lines).status == 200
    return mark.one()


HOP_BY_HOP = [
    "Connection: keep-alive",
    "Keep-Alive: timeout=5",
    "Proxy-Connection: keep-alive",
    "TE: gzip",
    "Upgrade: websocket",
    "Proxy-Authorization: Basic eDp5",
    "HTTP2-Settings: AAMAAABk",
]
HOP_BY_HOP_BACK = [
    "Keep-Alive: timeout=5",
    "Proxy-Connection: keep-alive",
    "Upgrade: websocket",
    "Proxy-Authenticate: Basic",
    "Connection: X-Hop",
]


@pytest.mark.parametrize("line", HOP_BY_HOP, ids=lambda line: str(line).split(":")[0])
def test_hop_by_hop_request_fields(gateway: Gateway, upstream: Upstream, line: str) -> None:
    """RFC 9110 7.6.1 and 11.7: for one hop only. (Connection itself may be made anew, but not with this
    content.)"""
    found = sent(gateway, upstream, line, "X-Kept: 1")
    assert line.split(": ", 1)[1] not in found.all(line.split(":")[0])
    assert found.get("x-kept") == "1"


@pytest.mark.parametrize("line", HOP_BY_HOP_BACK, ids=lambda line: str(line).split(":")[0])
def test_hop_by_hop_response_fields(gateway: Gateway, upstream: Upstream, line: str) -> None:
    upstream.script(up.reply(200, b"ok", line, "X-Kept: 1"))
    with gateway.client() as client:
        response = client.get()
    assert line.split(": ", 1)[1] not in response.all(line.split(":")[0])
    assert response.get("x-kept") == "1"


@pytest.mark.parametrize(
    "connection",
    ["X-One, x-two", "close, X-One,X-Two", ",X-One, ,X-Two,", "x-ONE ,\tX-TWO"],
)
def test_fields_named_by_connection(gateway: Gateway, upstream: Upstream, connection: str) -> None:
    found = sent(
        gateway, upstream, "X-One: 1", "X-Two: 2", "x-two: 3", "X-Three: 3", f"Connection: {connection}"
    )
    assert "x-one" not in found
    assert "x-two" not in found
    assert found.get("x-three") == "3"
    upstream.script(up.reply(200, b"ok", "X-One: 1", f"Connection: {connection}", "X-Two: 2", "X-Three: 3"))
    with gateway.client() as client:
        response = client.get()
    assert "x-one" not in response
    assert "x-two" not in response
    assert response.get("x-three") == "3"


@pytest.mark.parametrize(
    "name", ["Host", "Content-Length", "Transfer-Encoding", "Cookie", "Authorization", "Via"]
)
def test_connection_names_what_must_stay(gateway: Gateway, upstream: Upstream, name: str) -> None:
    """A client must not be able to strip framing or Host this way; the upstream's strict reader needs
    them."""
    mark = upstream.mark()
    with gateway.client() as client:
        data = request("POST", chunks=[b"hello"], lines=(f"Connection: {name}",))
        if name == "Content-Length":
            data = request("POST", body=b"hello", lines=(f"Connection: {name}",))
        response = client.request(data)
        if response.status == 200:
            assert response.json()["body"] == "hello"
            assert mark.one().get("host") == "test.example"
        else:
            assert response.status == 400


def test_x_forwarded_cannot_be_stripped_by_connection(gateway: Gateway, upstream: Upstream) -> None:
    found = sent(gateway, upstream, "Connection: X-Forwarded-For, X-Forwarded-Proto, X-Request-ID")
    assert found.get("x-forwarded-for") == "127.0.0.1"
    assert found.get("x-forwarded-proto") == "http"
    assert found.get("x-request-id")


def test_end_to_end_fields_pass(gateway: Gateway, upstream: Upstream) -> None:
    """As they came: case, order, repetition and empty values (RFC 9110 5.3)."""
    lines = [
        "X-B: 1",
        "x-a: 2",
        "X-b: 3",
        "X-Empty:",
        "Accept: a, b",
        "Cookie: a=b",
        "Cookie: c=d",
        "X-Odd: \xe9 \xff",
    ]
    found = sent(gateway, upstream, *lines)
    expected = [tuple(part.strip() for part in line.split(":", 1)) for line in lines]
    assert [field for field in found.fields if field in expected] == expected


def test_response_fields_pass(gateway: Gateway, upstream: Upstream) -> None:
    lines = [
        "X-B: 1",
        "Set-Cookie: a=b",
        "x-a: 2",
        "Set-Cookie: c=d",
        "X-Empty:",
        "Server: demo",
        "Date: yesterday",
    ]
    upstream.script(up.reply(200, b"ok", *lines))
    with gateway.client() as client:
        response = client.get()
    expected = [tuple(part.strip() for part in line.split(":", 1)) for line in lines]
    assert [field for field in response.fields if field in expected] == expected


def test_status_and_phrase_pass(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(up.send(b'HTTP/1.1 299 Caf\xe9 "x"\r\nContent-Length: 0\r\n\r\n'))
    with gateway.client() as client:
        response = client.get()
    assert response.status == 299


@pytest.mark.parametrize("lines", [(), ("Via: 1.0 fred, 1.1 p.example",)])
def test_via_in_requests(gateway: Gateway, upstream: Upstream, lines: tuple[str, ...]) -> None:
    """Each intermediary adds itself at the end (RFC 9110 7.6.3)."""
    members = ", ".join(sent(gateway, upstream, *lines).all("via")).split(", ")
    assert members[-1].split()[0] == "1.1"
    assert len(members[-1].split()) >= 2
    assert len(members) == (3 if lines else 1)


def test_via_names_the_received_version(gateway: Gateway, upstream: Upstream) -> None:
    mark = upstream.mark()
    with gateway.client() as client:
        client.request(request(version="1.0"))
    assert mark.one().all("via")[-1].startswith("1.0 ")


def test_via_in_responses(gateway: Gateway, upstream: Upstream) -> None:
    """RFC 9110 7.6.3 asks it of a proxy and leaves it to a gateway; a Via that is there stays and keeps its
    order."""
    upstream.script(up.reply(200, b"ok", "Via: 1.1 inner"))
    with gateway.client() as client:
        assert client.get().all("via")[0].startswith("1.1 inner")


def test_max_forwards(gateway: Gateway, upstream: Upstream) -> None:
    """RFC 9110 7.6.2: OPTIONS with 0 is answered here, otherwise the number goes down by one."""
    mark = upstream.mark()
    with gateway.client() as client:
        assert client.request(request("OPTIONS", "/o", lines=("Max-Forwards: 0",))).status == 200
        assert not mark.requests
        assert client.request(request("OPTIONS", "/o", lines=("Max-Forwards: 3",))).status == 200
    assert mark.one().get("max-forwards") == "2"


def test_max_forwards_of_other_methods(gateway: Gateway, upstream: Upstream) -> None:
    """It may be ignored for all other methods."""
    assert sent(gateway, upstream, "Max-Forwards: 0").get("max-forwards") in ("0", None)


def test_date_is_made_where_there_is_none(gateway: Gateway, upstream: Upstream) -> None:
    """RFC 9110 6.6.1: a recipient with a clock that forwards a response without Date puts one in."""
    upstream.script(up.reply(200, b"ok"))
    with gateway.client() as client:
        date = client.get().get("date")
    assert date is not None
    assert date.endswith(" GMT")


def test_request_line_is_http11_upstream(gateway: Gateway, upstream: Upstream) -> None:
    """RFC 9110 2.5, 6.2: an intermediary sends its own version."""
    mark = upstream.mark()
    with gateway.client() as client:
        client.request(request(version="1.0"))
    assert mark.one().version == "1.1"


def test_trailer_field_and_te(gateway: Gateway, upstream: Upstream) -> None:
    """TE is for one hop; if the gateway sends one it is its own, with Connection naming it (RFC 9110
    10.1.4)."""
    found = sent(gateway, upstream, "TE: trailers, deflate;q=0.5", "Connection: TE")
    assert tokens(found.fields, "te") in ([], ["trailers"])
    if "te" in found:
        assert "te" in tokens(found.fields, "connection")


# -- the rules of routes, on the wire


def test_request_rules(gateway: Gateway, upstream: Upstream) -> None:
    found = sent(
        gateway,
        upstream,
        "X-Set: old",
        "X-Set: older",
        "X-Add: one",
        "X-Remove: 1",
        "x-remove: 2",
        target="/rules",
    )
    assert found.all("x-set") == ["new"]
    assert found.all("x-add") == ["one", "more"]
    assert found.all("x-remove") == []
    assert found.get("x-secret") == "s3cret"


def test_response_rules(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(
        up.reply(200, b"ok", "X-Set: old", "X-Add: one", "X-Remove: 1", "Server: demo", "X-Set: older")
    )
    with gateway.client() as client:
        response = client.get("/rules")
    assert response.all("x-set") == ["new"]
    assert response.all("x-add") == ["one", "more"]
    assert response.all("x-remove") == []
    assert "demo" not in response.all("server")


@pytest.mark.parametrize(
    ("target", "seen"),
    [
        ("/strip/a/b?c=d", "/a/b?c=d"),
        ("/strip", "/"),
        ("/strip/", "/"),
        ("/strip?x", "/?x"),
        ("/old/a", "/new/a"),
        ("/old", "/new"),
        ("/older", "/older"),
        ("/users/7/posts/x%20y?q=1", "/p/x%20y/u/7?q=1"),
    ],
)
def test_rewrites(gateway: Gateway, upstream: Upstream, target: str, seen: str) -> None:
    found = sent(gateway, upstream, target=target)
    assert found.target == seen
    assert found.get("host") == ("internal.example" if target.startswith("/users") else "test.example")


def test_redirect(gateway: Gateway, upstream: Upstream) -> None:
    mark, since = upstream.mark(), gateway.mark()
    with gateway.client() as client:
        response = client.get("/gone/a?b=c")
        assert response.status == 308
        assert response.get("location") == "https://other.example:8443/here/a?b=c"
        assert client.get("/gone").get("location") == "https://other.example:8443/here"
    assert not mark.requests
    assert gateway.wait_log(since)[0]["reason"] == "redirected"


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_respond(gateway: Gateway, upstream: Upstream, method: str) -> None:
    mark, since = upstream.mark(), gateway.mark()
    with gateway.client() as client:
        data = request(method, "/fixed", body=b"hello" if method == "POST" else None)
        response = client.request(data)
        assert (response.status, response.get("content-type"), response.get("x-a")) == (203, "text/css", "1")
        assert response.get("content-length") == "5"
        assert response.body == (b"" if method == "HEAD" else b"fixed")
        response = client.request(request("POST", "/fixed", chunks=[b"a", b"b"]))
        assert response.status == 203
        if response.closes:
            client.ended()
        else:
            assert client.get("/fixed").status == 203
    assert not mark.requests
    assert gateway.wait_log(since)[0]["reason"] == "fixed-response"


def test_redirect_cannot_be_split(gateway: Gateway, upstream: Upstream) -> None:
    with gateway.client() as client:
        location = client.get("/gone/a%0d%0aSet-Cookie:x=1?b=%0d%0a").get("location")
    assert location is not None
    assert "%0d%0a" in location.lower()


def test_no_route(start_gateway: Any, upstream: Upstream) -> None:
    gateway = start_gateway(config(upstream.address, route={"match": {"host": "only.example"}}))
    with gateway.client() as client:
        refused(client.get(), "no-route")
        assert client.request(request(host="ONLY.example:80")).status == 200
        assert client.request(request("POST", body=b"hello")).status == 404
        assert client.request(request(host="only.example")).status == 200
    assert values((("A", "b"),), "a") == ["b"]
