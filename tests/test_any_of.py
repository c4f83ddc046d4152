"""`any-of`: one of several ways to authenticate is enough, and the refusal is the one that helps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.client import request
from support.gateway import Gateway, config, to_toml
from support.tokens import HMAC, SECRET, ask, claims, token
from support.upstream import Upstream
from support.wire import values

from fastgate.config import ConfigError, loads

ISSUER: dict[str, Any] = {
    "issuer": "https://a.example",
    "algorithms": ["HS256"],
    "audience": "orders",
    "secret": {"env": "JWT_SECRET"},
}

# A way to authenticate that is no coroutine, has a challenge of its own, and a say in the answer.
PASSWORD = """
from fastgate.plugins import Consumer, Plugin, Response

class Password(Plugin):
    @classmethod
    def identity_headers(cls, config):
        return ("X-Password-User",)

    def on_request(self, exchange):
        given = exchange.request.headers.get("x-password")
        challenge = {"www-authenticate": 'Basic realm="api"'}
        if given is None:
            return exchange.refuse(401, "authentication-required", "no password", headers=challenge)
        if given == "down":
            return exchange.refuse(503, "authentication-unavailable", "the store is down")
        if given == "half":
            exchange.consumer = Consumer(name="ali", source=self.name)
            return exchange.refuse(401, "authentication-required", "and a second factor")
        if given == "login":
            return Response(302, headers={"location": "/login"})
        if given != "sesame":
            return exchange.refuse(401, "authentication-failed", "wrong password", headers=challenge)
        exchange.request.headers["x-password-user"] = "ali"
        exchange.consumer = Consumer(name="ali", source=self.name)

    async def on_response(self, exchange, response):
        response.headers["set-cookie"] = "session=1"
"""

PLUGINS: dict[str, dict[str, Any]] = {
    "bearer": {"use": "jwt", "issuers": [ISSUER], "claims_to_headers": {"sub": "X-User"}},
    "scoped": {"use": "jwt", "issuers": [ISSUER], "token_header": "X-Scoped", "scopes": "write"},
    "lax": {"use": "jwt", "issuers": [ISSUER], "anonymous": True},
    "reporting": {"use": "jwt", "issuers": [ISSUER], "report_only": True},
    "password": {"use": "./password.py"},
    "either": {"use": "any-of", "plugins": ["bearer", "scoped", "password"]},
    "maybe": {"use": "any-of", "plugins": ["lax", "password"]},
    "strict": {"use": "any-of", "plugins": ["reporting", "password"]},
}


@pytest.fixture(scope="module")
def module_gateway(module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    (folder / "password.py").write_text(PASSWORD)
    routes = [
        {"name": name, "match": {"prefix": f"/{name}"}, "upstream": "up", "plugins": [name]}
        for name in ("either", "maybe", "strict")
    ]
    tables = config(module_upstream.address, plugins=PLUGINS, routes=routes)
    with Gateway(tables, folder, env={"JWT_SECRET": SECRET}) as gateway:
        yield gateway


GOOD, BAD = "good", "bad"
BEARER, BASIC = 'Bearer realm="api"', 'Basic realm="api"'
FAILED = 'Bearer realm="api", error="invalid_token"'


def lines(**given: str) -> list[str]:
    names = {"bearer": "Authorization: Bearer ", "scoped": "X-Scoped: ", "password": "X-Password: "}
    found = []
    for name, what in given.items():
        if name != "password":
            sound = token(HMAC, "HS256", claims(scope=what))
            what = "x.y.z" if what == BAD else sound
        found.append(names[name] + what)
    return found


@pytest.mark.parametrize(
    ("given", "status", "code", "detail", "challenge"),
    [
        ({"bearer": GOOD}, 200, "", "", ""),
        ({"password": "sesame"}, 200, "", "", ""),
        ({"scoped": "write"}, 200, "", "", ""),
        ({"bearer": BAD, "password": "sesame"}, 200, "", "", ""),
        ({"bearer": GOOD, "password": "wrong"}, 200, "", "", ""),
        ({}, 401, "authentication-required", "no token", f"{BEARER}, {BASIC}"),
        ({"bearer": BAD}, 401, "authentication-failed", "the header", f"{FAILED}, {BEARER}, {BASIC}"),
        ({"password": "wrong"}, 401, "authentication-failed", "wrong password", f"{BASIC}, {BEARER}"),
        ({"scoped": "read"}, 403, "forbidden", "scopes are missing", None),
        ({"scoped": "read", "bearer": BAD}, 403, "forbidden", "scopes are missing", None),
        ({"password": "down"}, 503, "authentication-unavailable", "the store is down", ""),
        ({"password": "down", "bearer": BAD}, 401, "authentication-failed", "the header", None),
        ({"password": "login"}, 302, "", "", ""),
        ({"password": "login", "bearer": BAD}, 401, "authentication-failed", "the header", None),
    ],
)
def test_one_is_enough_and_the_refusal_is_the_most_helpful(
    gateway: Gateway,
    upstream: Upstream,
    given: dict[str, str],
    status: int,
    code: str,
    detail: str,
    challenge: str | None,
) -> None:
    before = upstream.mark()
    answer = ask(gateway, *lines(**given), target="/either")
    assert (answer.status, answer.code) == (status, code)
    assert detail in answer.detail
    if challenge is not None:
        assert answer.challenge == challenge
    assert len(before.requests) == (status == 200)


@pytest.mark.parametrize(
    ("given", "status", "code"),
    [
        ({}, 200, ""),
        ({"bearer": GOOD}, 200, ""),
        ({"password": "sesame"}, 200, ""),
        ({"bearer": BAD}, 401, "authentication-failed"),
        ({"password": "wrong"}, 401, "authentication-failed"),
        ({"password": "down"}, 503, "authentication-unavailable"),
    ],
)
def test_where_one_lets_nobody_in_particular_pass_bad_credentials_still_do_not(
    gateway: Gateway, given: dict[str, str], status: int, code: str
) -> None:
    answer = ask(gateway, *lines(**given), target="/maybe")
    assert (answer.status, answer.code) == (status, code)


def test_a_consumer_that_was_refused_is_none(gateway: Gateway) -> None:
    since = gateway.mark()
    assert ask(gateway, *lines(password="half"), target="/maybe").status == 200
    [record] = gateway.wait_log(since)
    assert record["consumer"] is None
    since = gateway.mark()
    assert ask(gateway, *lines(password="sesame"), target="/maybe").status == 200
    [record] = gateway.wait_log(since)
    assert record["consumer"] == "ali"


def test_a_member_that_only_reports_by_itself_refuses_here(gateway: Gateway) -> None:
    answer = ask(gateway, *lines(bearer=BAD), target="/strict")
    assert (answer.status, answer.code) == (401, "authentication-failed")


def test_the_service_hears_from_the_member_that_knew_the_caller(gateway: Gateway, upstream: Upstream) -> None:
    forged = ("X-User: root", "X_PASSWORD_USER: root")
    before = upstream.mark()
    assert ask(gateway, *lines(bearer=GOOD), *forged, target="/either").status == 200
    fields = before.one().fields
    assert values(fields, "x-user") == ["alice"]
    assert not values(fields, "x-password-user")
    before = upstream.mark()
    assert ask(gateway, *lines(password="sesame"), *forged, target="/either").status == 200
    fields = before.one().fields
    assert values(fields, "x-password-user") == ["ali"]
    assert not values(fields, "x-user")
    assert "root" not in [text for _, text in fields]


def test_only_the_member_that_knew_the_caller_has_a_say_in_the_answer(gateway: Gateway) -> None:
    with gateway.client() as client:
        answer = client.request(request(target="/either", lines=tuple(lines(password="sesame"))))
        assert values(answer.fields, "set-cookie") == ["session=1"]
        answer = client.request(request(target="/either", lines=tuple(lines(bearer=GOOD))))
        assert not values(answer.fields, "set-cookie")


@pytest.mark.parametrize(
    ("plugins", "message"),
    [
        (["bearer", "password"], ""),
        (["bearer"], "two or more"),
        ([], "must not be empty"),
        (["bearer", "nobody"], "nobody"),
        (["bearer", "x"], "cannot name itself"),
    ],
)
def test_the_configuration_is_checked(
    monkeypatch: pytest.MonkeyPatch, plugins: list[str], message: str
) -> None:
    monkeypatch.setenv("JWT_SECRET", SECRET)
    members = {"bearer": PLUGINS["bearer"], "password": {**PLUGINS["bearer"], "token_cookie": "t"}}
    found = ""
    try:
        loads(to_toml(config("127.0.0.1:1", plugins={**members, "x": {"use": "any-of", "plugins": plugins}})))
    except ConfigError as error:
        found = str(error)
    assert message in found
    assert bool(found) == bool(message)
