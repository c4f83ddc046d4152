"""The plugin forward-auth: what the service is asked, what comes of its answer, and of none."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from support.gatekeepers import WHO, ask, assert_refused_because, problems_of, seen, who
from support.gateway import Gateway, config
from support.upstream import Connection, Upstream, close, read_body, reply, send
from support.wire import Request, Response

UNAVAILABLE, REFUSED = "authentication-unavailable", "forward-auth-refused"


def decide(connection: Connection) -> None:
    """By the token in Authorization: what an auth service may say."""
    fields = {name.lower(): value for name, value in connection.request.fields}
    match fields.get("authorization", "").removeprefix("Bearer "):
        case "good":
            lines = [
                "X-User: alice", "X-Groups: staff, admins", "X-Groups: ops", "X-Tenant: a", "X-Tenant: b",
                "X-Secret: s", "Set-Cookie: session=1; HttpOnly", "Set-Cookie: other=2",
                "Authorization: Bearer inner",
            ]  # fmt: skip
            reply(200, b"ok", *lines)(connection)
        case "plain":
            reply(204, b"")(connection)
        case "login":
            reply(302, b"", "Location: https://login.example/?next=%2F", "Set-Cookie: state=1")(connection)
        case "broken":
            reply(500, b"stack trace", "Content-Type: text/html")(connection)
        case "large":
            reply(403, b"x" * 5000, "Content-Type: text/plain")(connection)
        case "gone":
            close()(connection)
        case "unmodified":
            send(b"HTTP/1.1 304 Not Modified\r\n\r\n")(connection)
        case _:
            lines = [
                "WWW-Authenticate: Bearer",
                "Content-Type: text/html",
                "X-Debug: secret",
                "Retry-After: 7",
            ]
            reply(401, b"<p>Who are you?</p>", *lines)(connection)


@pytest.fixture(scope="module")
def module_auth() -> Iterator[Upstream]:
    with Upstream(name="auth") as auth:
        auth.default = (read_body(), decide)
        yield auth


@pytest.fixture
def auth(module_auth: Upstream) -> Upstream:
    module_auth.clear()
    return module_auth


@pytest.fixture(scope="module")
def module_gateway(
    module_upstream: Upstream, module_auth: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    def plugin(**more: Any) -> dict[str, Any]:
        return {"use": "forward-auth", "upstream": "auth", "path": "/check", **more}

    routes = ["plain", "told", "few", "cookies", "cached", "small", "slow", "nobody", "report"]
    tables = config(
        listeners=[{"name": "main", "bind": "127.0.0.1:0"}],
        upstreams={
            "up": {"endpoints": [module_upstream.address]},
            "auth": {"endpoints": [module_auth.address]},
            "nobody": {"endpoints": ["127.0.0.1:1"]},
        },
        routes=[
            {"name": name, "match": {"prefix": f"/{name}"}, "upstream": "up", "plugins": [name, "who"]}
            for name in routes
        ],
        plugins={
            "who": WHO,
            "plain": plugin(),
            "told": plugin(
                response_headers=["X-Tenant", "X-User", "X-Missing", "Authorization"],
                consumer_header="X-User",
                groups_header="X-Groups",
            ),
            "few": plugin(request_headers=["Authorization", "X-Asked"], method="POST"),
            "cookies": plugin(add_cookies=["session"]),
            "cached": plugin(
                cache_ttl="60s",
                cache_by=["Authorization"],
                consumer_header="X-User",
                response_headers=["X-User"],
            ),
            "small": plugin(body_limit="1KiB"),
            "slow": plugin(answer_timeout="100ms"),
            "nobody": plugin(upstream="nobody"),
            "report": plugin(report_only=True, response_headers=["X-User"]),
        },
    )
    with Gateway(tables, tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


GOOD = "Authorization: Bearer good"


def fields_of(asked: Request) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in asked.fields:
        found.setdefault(name.lower(), []).append(value)
    return found


def test_what_the_service_is_asked(gateway: Gateway, auth: Upstream) -> None:
    since = auth.mark()
    lines = [
        GOOD, "Accept: a", "Accept: b", "Cookie: a=1", "Cookie: b=2", "X-Own: 1",
        # What the answer must not depend on, and what the gateway says itself.
        "If-None-Match: *", "Range: bytes=0-1", "Accept-Encoding: br", "Expect: 100-continue", "TE: trailers",
        "X-Forwarded-Uri: /public", "x_forwarded_uri: /public", "X-Forwarded-Method: GET",
        "X-Forwarded-For: 10.0.0.1", "X-Forwarded-Host: evil.example", "Forwarded: for=10.0.0.1",
        "X-Real-IP: 10.0.0.1", "X-Request-ID: mine",
    ]  # fmt: skip
    response = ask(gateway, "/plain/./a%7e?x=%20&y", *lines, method="POST", body=b"the body")
    assert response.status == 200
    asked = since.one()
    assert (asked.method, asked.target, asked.body) == ("GET", "/check", b"")
    fields = fields_of(asked)
    assert fields["x-forwarded-method"] == ["POST"]
    assert fields["x-forwarded-proto"] == ["http"]
    assert fields["x-forwarded-host"] == ["test.example"]
    # In the form in which the service gets it.
    assert fields["x-forwarded-uri"] == ["/plain/a~?x=%20&y"]
    assert fields["x-forwarded-for"] == ["127.0.0.1"]
    assert fields["accept"] == ["a, b"]
    assert fields["cookie"] == ["a=1; b=2"]
    assert fields["x-own"] == ["1"]
    assert len(fields["x-request-id"]) == 1
    unwanted = {
        "if-none-match", "range", "accept-encoding", "expect", "te", "content-length", "x_forwarded_uri",
        "forwarded", "x-real-ip",
    }  # fmt: skip
    assert not fields.keys() & unwanted
    # And all of it goes to the service that the request is for.
    assert json.loads(response.body)["body"] == "the body"


def test_headers_that_are_asked_with_may_be_chosen(gateway: Gateway, auth: Upstream) -> None:
    since = auth.mark()
    assert ask(gateway, "/few", GOOD, "X-Asked: 1", "X-Other: 2").status == 200
    asked = since.one()
    assert asked.method == "POST"
    fields = fields_of(asked)
    assert fields["x-asked"] == ["1"]
    assert "x-other" not in fields
    assert fields["x-forwarded-uri"] == ["/few"]


def test_an_answer_tells_the_service_and_names_the_consumer(gateway: Gateway) -> None:
    lines = ["X-User: admin", "x_user: admin", "X-Missing: forged", "X-Secret: forged"]
    response = ask(gateway, "/told", GOOD, *lines)
    fields = seen(response)
    assert fields["x-tenant"] == ["a", "b"]
    assert fields["x-user"] == ["alice"]
    assert fields["authorization"] == ["Bearer inner"]
    assert not fields.keys() & {"x-missing", "x_user", "x-groups"}
    assert fields["x-secret"] == ["forged"], "a header that is none of this plugin's"
    assert who(response) == {
        "name": "alice", "plan": "", "groups": ["admins", "ops", "staff"], "scopes": [], "source": "told",
    }  # fmt: skip


def test_an_answer_without_a_name_names_nobody(gateway: Gateway) -> None:
    response = ask(gateway, "/told", "Authorization: Bearer plain", "X-User: admin")
    assert who(response) is None
    assert "x-user" not in seen(response)


def test_cookies_of_a_good_answer_reach_the_client_where_that_is_wished(
    gateway: Gateway, upstream: Upstream
) -> None:
    upstream.script(read_body(), reply(200, b"ok", "Set-Cookie: own=3"))
    response = ask(gateway, "/cookies", GOOD)
    assert response.all("set-cookie") == ["own=3", "session=1; HttpOnly"]
    assert ask(gateway, "/plain", GOOD).all("set-cookie") == []


def test_a_refusal_is_the_services_own(gateway: Gateway) -> None:
    since = gateway.mark()
    response = ask(gateway, "/plain", "Authorization: Bearer bad")
    assert (response.status, response.body) == (401, b"<p>Who are you?</p>")
    assert response.get("www-authenticate") == "Bearer"
    assert response.get("content-type") == "text/html"
    assert response.get("retry-after") == "7"
    assert "x-debug" not in response
    [record] = gateway.wait_log(since)
    assert (record["reason"], record["detail"]) == (REFUSED, "auth answered 401")


def test_a_redirect_to_a_login_page(gateway: Gateway) -> None:
    response = ask(gateway, "/plain", "Authorization: Bearer login")
    assert (response.status, response.body) == (302, b"")
    assert response.get("location") == "https://login.example/?next=%2F"
    assert response.get("set-cookie") == "state=1"
    assert "content-type" not in response


def test_a_body_beyond_the_limit_is_left_out(gateway: Gateway) -> None:
    assert ask(gateway, "/plain", "Authorization: Bearer large").body == b"x" * 5000
    response = ask(gateway, "/small", "Authorization: Bearer large")
    assert (response.status, response.body) == (403, b"")


@pytest.mark.parametrize(
    ("target", "token", "detail"),
    [
        ("/plain", "broken", "answered 500"),
        ("/plain", "gone", "auth: .*upstream-"),
        ("/nobody", "good", "nobody: .*connect-refused"),
    ],
)
def test_without_a_decision_nobody_passes(gateway: Gateway, target: str, token: str, detail: str) -> None:
    def send() -> Response:
        return ask(gateway, target, f"Authorization: Bearer {token}")

    assert_refused_because(gateway, send, 503, UNAVAILABLE, detail)
    assert b"stack trace" not in send().body


def test_a_service_that_does_not_answer(gateway: Gateway, auth: Upstream) -> None:
    over = threading.Event()

    def wait(connection: Connection) -> None:
        over.wait(5)

    auth.script(read_body(), wait)
    assert_refused_because(gateway, lambda: ask(gateway, "/slow", GOOD), 503, UNAVAILABLE, "timeout")
    over.set()


def test_an_answer_that_nobody_asked_for_lets_nobody_pass(gateway: Gateway) -> None:
    """304 without a condition in the question."""
    response = ask(gateway, "/plain", "Authorization: Bearer unmodified", "If-None-Match: *")
    assert response.status == 304


def test_report_only_lets_pass_without_forged_headers(gateway: Gateway) -> None:
    response = ask(gateway, "/report", "Authorization: Bearer bad", "X-User: admin")
    assert "x-user" not in seen(response)


# -- the cache


def test_a_good_answer_is_remembered_for_the_same_question_alone(gateway: Gateway, auth: Upstream) -> None:
    def asks(target: str, *lines: str, method: str = "GET", host: str = "test.example") -> int:
        since = auth.mark()
        response = ask(gateway, target, *lines, method=method, host=host)
        if response.status == 200:
            assert seen(response)["x-user"] == ["alice"]
            assert who(response)["name"] == "alice"
        return len(since.requests)

    assert asks("/cached/a?x=1", GOOD) == 1
    assert asks("/cached/a?x=1", GOOD, "X-User: admin") == 0
    assert asks("/cached/a?x=1", GOOD, "X-Other: 1") == 0
    # Another question each.
    assert asks("/cached/b?x=1", GOOD) == 1
    assert asks("/cached/a?x=2", GOOD) == 1
    assert asks("/cached/a", GOOD) == 1
    assert asks("/cached/a?x=1", GOOD, host="other.example") == 1
    assert asks("/cached/a?x=1", GOOD, method="DELETE") == 1
    assert asks("/cached/a?x=1", "Authorization: Bearer bad") == 1
    assert asks("/cached/a?x=1") == 1


def test_a_refusal_is_not_remembered(gateway: Gateway, auth: Upstream) -> None:
    since = auth.mark()
    for _ in range(2):
        assert ask(gateway, "/cached/c", "Authorization: Bearer bad").status == 401
    assert len(since.requests) == 2


# -- configuration


@pytest.mark.parametrize(
    ("plugin", "problem"),
    [
        ({}, "upstream"),
        ({"upstream": "nowhere"}, "nowhere"),
        ({"upstream": "up", "path": "check"}, "path"),
        ({"upstream": "up", "cache_ttl": "5s"}, "cache_by"),
        ({"upstream": "up", "groups_header": "X-Groups"}, "consumer_header"),
        ({"upstream": "up", "response_headers": ["Host"]}, "Host"),
        ({"upstream": "up", "client_headers": ["Content-Length"]}, "Content-Length"),
    ],
)
def test_what_a_configuration_may_not_say(plugin: dict[str, Any], problem: str) -> None:
    assert problem in problems_of({"use": "forward-auth", **plugin})
