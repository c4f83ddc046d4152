"""Tokens that an authorization server is asked about (RFC 7662): a real server, a real gateway."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qs

import pytest
from support import upstream as up
from support.answers import refused
from support.client import request
from support.gateway import Gateway, config, to_toml
from support.upstream import Connection, Upstream, free_port
from support.wire import Response

from fastgate.config import ConfigError, loads

SECRET = "s3cret:/"
BASIC = "Basic dGhlK2dhdGV3YXk6czNjcmV0JTNBJTJG"  # "the gateway" and the secret, each form-encoded
ENV = {"SECRET": SECRET}
ACTIVE = {"active": True, "sub": "alice", "scope": "read write", "token_type": "Bearer"}


class Server:
    """An introspection endpoint: answers by token, once ``hold`` is set. asked: tokens, in order."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.answers: dict[str, object] = {}
        self.asked: list[str] = []
        self.forms: list[dict[str, list[str]]] = []
        self.headers: list[dict[str, str]] = []
        self.arrived, self.hold = threading.Event(), threading.Event()
        self.hold.set()
        upstream.default = (up.read_body(), self._answer)

    def _answer(self, connection: Connection) -> None:
        form = parse_qs(connection.request.body.decode())
        token = form["token"][0]
        self.asked.append(token)
        self.forms.append(form)
        self.headers.append({name.lower(): value for name, value in connection.request.fields})
        self.arrived.set()
        self.hold.wait(5)
        answer = self.answers.get(token, {"active": False})
        if callable(answer):
            answer(connection)
        else:
            body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            up.reply(200, body, "Content-Type: application/json")(connection)


def tables(address: str, endpoint: str) -> dict[str, Any]:
    by_url = {
        "use": "oauth2-introspection",
        "url": f"http://{endpoint}/introspect?x=1",
        "client_id": "the gateway",
        "client_secret": {"env": "SECRET"},
        "server_timeout": "500ms",
    }
    by_upstream = {key: value for key, value in by_url.items() if key != "url"}
    by_upstream |= {"upstream": "server", "path": "/oauth/introspect", "client_auth": "post"}
    plugins: dict[str, Any] = {
        "plain": {**by_url, "claims_to_headers": {"sub": "X-User", "roles": "X-Roles"}},
        "strict": {
            **by_upstream,
            "issuer": "https://id.example",
            "audience": "orders",
            "scopes": ["read", "write"],
            "realm": "orders",
        },
        "forgetful": {**by_url, "cache_ttl": "0s", "negative_ttl": "0s"},
        "small": {**by_url, "cache": 2},
        "open": {**by_url, "anonymous": True, "forward_token": False, "consumer_claim": "username"},
        "dead": {**by_url, "url": f"http://127.0.0.1:{free_port()}/"},
    }
    return config(
        upstreams={"up": {"endpoints": [address]}, "server": {"endpoints": [endpoint]}},
        routes=[
            {"name": name, "match": {"prefix": f"/{name}"}, "upstream": "up", "plugins": [name]}
            for name in plugins
        ],
        plugins=plugins,
    )


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Upstream]:
    with Upstream(name="server") as upstream:
        yield upstream


@pytest.fixture(scope="module")
def running(
    module_upstream: Upstream, endpoint: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    table = tables(module_upstream.address, endpoint.address)
    with Gateway(table, tmp_path_factory.mktemp("introspection"), env=ENV) as gateway:
        yield gateway


@pytest.fixture
def server(endpoint: Upstream) -> Iterator[Server]:
    server = Server(endpoint)
    yield server
    server.hold.set()
    assert not endpoint.errors


@pytest.fixture
def ask(running: Gateway, upstream: Upstream, server: Server) -> Callable[..., Response]:
    def one(token: str | None, path: str = "/plain", *lines: str) -> Response:
        authorization = () if token is None else (f"Authorization: Bearer {token}",)
        with running.client() as client:
            return client.request(request(target=path, lines=(*authorization, *lines)))

    return one


Ask = Callable[..., Response]


def seen(response: Response) -> dict[str, str]:
    """What the service got."""
    assert response.status == 200, response.body
    return {name.lower(): value for name, value in response.json()["fields"]}


def test_an_active_token(ask: Ask, server: Server) -> None:
    server.answers["good"] = {**ACTIVE, "roles": ["a", "b"]}
    fields = seen(ask("good"))
    assert (fields["x-user"], fields["x-roles"]) == ("alice", "a,b")
    assert fields["authorization"] == "Bearer good"
    assert server.forms == [{"token": ["good"], "token_type_hint": ["access_token"]}]
    assert server.headers[0]["authorization"] == BASIC
    assert server.headers[0]["accept"] == "application/json"


def test_by_an_upstream_of_the_configuration(ask: Ask, server: Server) -> None:
    server.answers["u"] = {**ACTIVE, "iss": "https://id.example", "aud": ["x", "orders"]}
    assert ask("u", "/strict").status == 200
    assert server.forms[0]["client_secret"] == [SECRET]
    assert "authorization" not in server.headers[0]


def test_no_token(ask: Ask, server: Server) -> None:
    response = ask(None)
    assert refused(response, "authentication-required")
    assert response.get("www-authenticate") == 'Bearer realm="api"'
    assert not server.asked


def test_anonymous_callers_and_tokens_that_stay_here(ask: Ask, server: Server) -> None:
    assert seen(ask(None, "/open"))
    server.answers["anon"] = {**ACTIVE, "username": "al"}
    assert "authorization" not in seen(ask("anon", "/open"))
    assert refused(ask("bad", "/open"), "authentication-failed")
    server.answers["nameless"] = ACTIVE
    assert refused(ask("nameless", "/open"), "authentication-failed")


NOW = int(time.time())
SOUND = {**ACTIVE, "iss": "https://id.example", "aud": "orders"}
REFUSED: dict[str, object] = {
    "inactive": {"active": False},
    "inactive with claims": {**SOUND, "active": False},
    "active is a string": {**SOUND, "active": "true"},
    "active is a number": {**SOUND, "active": 1},
    "active is an array": {**SOUND, "active": [True]},
    "active missing": {"sub": "alice"},
    "expired": {**SOUND, "exp": NOW - 60},
    "exp is text": {**SOUND, "exp": "never"},
    "exp is boolean": {**SOUND, "exp": True},
    "not yet": {**SOUND, "nbf": NOW + 3600},
    "other issuer": {**SOUND, "iss": "https://evil.example"},
    "no issuer": {**ACTIVE, "aud": "orders"},
    "other audience": {**SOUND, "aud": "users"},
    "no audience": {**ACTIVE, "iss": "https://id.example"},
    "refresh token": {**SOUND, "token_type": "refresh_token"},
    "bound token": {**SOUND, "token_type": "DPoP"},
    "type is no text": {**SOUND, "token_type": ["Bearer"]},
    "nobody": {**SOUND, "sub": None},
    "consumer is no text": {**SOUND, "sub": ["alice"]},
    "consumer with a line end": {**SOUND, "sub": "alice\r\nX-Admin: 1"},
    "consumer too long": {**SOUND, "sub": "x" * 257},
}


@pytest.mark.parametrize("case", REFUSED)
def test_tokens_that_do_not_hold(ask: Ask, server: Server, case: str) -> None:
    token = case.replace(" ", "-")
    server.answers[token] = REFUSED[case]
    response = ask(token, "/strict")
    assert refused(response, "authentication-failed")
    assert response.get("www-authenticate") == 'Bearer realm="orders", error="invalid_token"'


@pytest.mark.parametrize("scope", ["read", "", "readwrite", "READ WRITE", None])
def test_scopes_that_are_missing(ask: Ask, server: Server, scope: str | None) -> None:
    server.answers[f"scope-{scope}".replace(" ", "-")] = {**SOUND, "scope": scope}
    response = ask(f"scope-{scope}".replace(" ", "-"), "/strict")
    assert refused(response, "forbidden")
    challenge = 'Bearer realm="orders", error="insufficient_scope", scope="read write"'
    assert response.get("www-authenticate") == challenge


@pytest.mark.parametrize(
    "line",
    [
        "Authorization: Bearer",
        "Authorization: Bearer a b",
        "Authorization: Bearer a,b",
        "Authorization: Bearer a&active=true",
        "Authorization: Bearer " + "x" * 9000,
        "Authorization: Bearer one\r\nAuthorization: Bearer two",
        "Authorization: bearer\tone",
        "Authorization: Bearer \xe4",
    ],
)
def test_what_is_no_token_is_not_asked_about(ask: Ask, server: Server, line: str) -> None:
    response = ask(None, "/plain", *line.split("\r\n"))
    assert refused(response, "authentication-failed")
    assert response.get("www-authenticate") == 'Bearer realm="api", error="invalid_request"'
    assert not server.asked


def test_forged_identity(ask: Ask, server: Server) -> None:
    server.answers["forger"] = {**ACTIVE, "roles": None}
    fields = ask("forger", "/plain", "X-User: admin", "x_user: admin", "X-ROLES: admin")
    assert "admin" not in str(fields.body)
    assert seen(fields)["x-user"] == "alice"


# -- memory


def test_answers_are_remembered(ask: Ask, server: Server) -> None:
    server.answers["kept"] = ACTIVE
    for _ in range(3):
        assert ask("kept").status == 200
        assert ask("lost").status == 401
    assert sorted(server.asked) == ["kept", "lost"]


def test_and_not_where_the_time_is_0(ask: Ask, server: Server) -> None:
    server.answers["fresh"] = ACTIVE
    assert ask("fresh", "/forgetful").status == 200
    server.answers["fresh"] = {"active": False}
    assert ask("fresh", "/forgetful").status == 401
    assert server.asked == ["fresh", "fresh"]


def test_never_longer_than_the_token_lives(ask: Ask, server: Server) -> None:
    """exp is 9.5 s ago, and the leeway 10 s."""
    server.answers["short"] = {**ACTIVE, "exp": time.time() - 9.5}
    assert ask("short").status == 200
    deadline = time.monotonic() + 3
    while ask("short").status == 200:
        assert time.monotonic() < deadline
    assert server.asked.count("short") == 2


def test_the_memory_is_bounded_and_good_tokens_stay(ask: Ask, server: Server) -> None:
    server.answers |= {"one": ACTIVE, "two": ACTIVE, "three": ACTIVE}
    ask("one", "/small")
    for number in range(4):
        ask(f"made-up-{number}", "/small")
    ask("one", "/small")
    assert server.asked.count("one") == 1
    ask("two", "/small")
    ask("three", "/small")
    ask("one", "/small")
    assert server.asked.count("one") == 2


def test_one_question_for_all_who_ask(ask: Ask, server: Server) -> None:
    server.answers["many"] = ACTIVE
    server.hold.clear()
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(ask, "many") for _ in range(8)]
        assert server.arrived.wait(5)
        assert ask(None).status == 401  # nobody else is held up
        server.hold.set()
        assert [answer.result().status for answer in answers] == [200] * 8
    assert server.asked == ["many"]


def test_a_question_outlives_who_asked_first(running: Gateway, ask: Ask, server: Server) -> None:
    server.answers["left"] = ACTIVE
    server.hold.clear()
    since = running.mark()
    with running.client() as client:
        client.send(request(target="/plain", lines=("Authorization: Bearer left",)))
        assert server.arrived.wait(5)
    assert running.wait_log(since)[0]["status"] == 499
    server.hold.set()
    assert ask("left").status == 200
    assert server.asked == ["left"]


# -- a server that misbehaves or is gone


ANSWERS: dict[str, Any] = {
    "500": up.reply(500, b'{"active": true}'),
    "401": up.reply(401, b'{"error": "invalid_client"}'),
    "redirect": up.reply(302, b"", "Location: https://evil.example/"),
    "empty": b"",
    "html": b"<html>",
    "array": b"[true]",
    "true": b"true",
    "twice": b'{"active": false, "active": true, "sub": "alice"}',
    "huge": b'{"active": true, "sub": "alice", "x": "' + b"x" * 100_000 + b'"}',
    "deep": b'{"active": true, "x": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    "NaN": b'{"active": true, "sub": "alice", "exp": NaN}',
    "reset": up.reset(),
    "cut": up.send(b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"active": true'),
}


@pytest.mark.parametrize("case", ANSWERS)
@pytest.mark.parametrize("way", ["plain", "strict"])
def test_answers_that_say_nothing(ask: Ask, server: Server, way: str, case: str) -> None:
    answer = ANSWERS[case]
    closing = (up.send(b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"active": true'), up.close())
    if case == "cut":
        answer = lambda connection: [step(connection) for step in closing]  # noqa: E731
    server.answers[case] = answer
    response = ask(case, f"/{way}")
    assert refused(response, "authentication-unavailable")
    assert response.get("retry-after") == "5"


def test_a_server_that_is_gone(ask: Ask, server: Server) -> None:
    assert refused(ask("x", "/dead"), "authentication-unavailable")


@pytest.mark.parametrize("way", ["plain", "strict"])
def test_a_server_that_says_nothing(ask: Ask, server: Server, way: str) -> None:
    server.hold.clear()
    before = time.monotonic()
    assert refused(ask(f"silent-{way}", f"/{way}"), "authentication-unavailable")
    assert 0.4 < time.monotonic() - before < 2


def test_an_outage_is_not_remembered(ask: Ask, server: Server) -> None:
    server.answers["back"] = up.reply(503, b"{}")
    assert ask("back").status == 503
    server.answers["back"] = ACTIVE
    assert ask("back").status == 200


# -- configuration


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "url: either url or upstream says where the endpoint is"),
        (
            {"url": "https://id.example/", "upstream": "up"},
            "url: either url or upstream says where the endpoint is",
        ),
        ({"url": "http://id.example/"}, "url: it must be an https URL (http only on this machine)"),
        (
            {"url": "https://id.example/", "claims_to_headers": {"a": "X-A", "b": "x-a"}},
            "claims_to_headers: two values go into one header",
        ),
    ],
)
def test_configurations_that_are_refused(
    monkeypatch: pytest.MonkeyPatch, keys: dict[str, Any], message: str
) -> None:
    monkeypatch.setenv("SECRET", SECRET)
    plugin = {"use": "oauth2-introspection", "client_id": "x", "client_secret": {"env": "SECRET"}, **keys}
    table = config("127.0.0.1:1", route={"plugins": ["p"]}, plugins={"p": plugin})
    with pytest.raises(ConfigError) as caught:
        loads(to_toml(table))
    assert [problem.message for problem in caught.value.problems] == [message]
