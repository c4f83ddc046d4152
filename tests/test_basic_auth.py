"""The plugin basic: who gets in, what is refused, what hashing costs whom, and its watched file."""

from __future__ import annotations

import base64
import json
import select
import statistics
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from argon2 import PasswordHasher
from argon2.low_level import Type
from conftest import StartGateway
from support.client import request
from support.gatekeepers import (
    WHO,
    ask,
    assert_refused,
    assert_refused_because,
    problems_of,
    seen,
    wait_for,
    who,
)
from support.gateway import Gateway, config
from support.upstream import Upstream

from fastgate.plugins._passwords import parse_htpasswd

# Cheap, so that the tests are quick.
CHEAP = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
# Some 10 ms: more than all else that a request costs.
SLOW = PasswordHasher(time_cost=4, memory_cost=8192, parallelism=1)
LONGEST = "x" * 72


def cheap_bcrypt(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


def basic(user: str, password: str) -> str:
    return "Authorization: Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def raw(credentials: bytes) -> str:
    return "Authorization: Basic " + base64.b64encode(credentials).decode()


def gateway_config(upstream: str) -> dict[str, Any]:
    users = [
        {
            "name": "alice",
            "hash": CHEAP.hash("wonder:land"),
            "consumer": "a",
            "plan": "gold",
            "groups": ["staff"],
        },
        {"name": "bob", "hash": cheap_bcrypt("builder")},
        {"name": "longest", "hash": cheap_bcrypt(LONGEST)},
        {"name": "Ünal", "hash": CHEAP.hash("ñandú€")},
        {"name": "empty", "hash": CHEAP.hash("")},
    ]
    slow = [{"name": f"user{number}", "hash": SLOW.hash("secret")} for number in range(3)]
    hard = [{"name": "carol", "hash": bcrypt.hashpw(b"carol", bcrypt.gensalt(12)).decode()}]

    def route(name: str, *plugins: str) -> dict[str, Any]:
        return {"name": name, "match": {"prefix": f"/{name}"}, "upstream": "up", "plugins": list(plugins)}

    return config(
        upstream,
        routes=[route("in", "in", "who"), route("kept", "kept"), route("slow", "slow"), route("hard", "hard"),
                route("open"), route("report", "report", "who")],
        plugins={
            "who": WHO,
            "in": {"use": "basic", "users": users, "realm": "the shop", "consumer_header": "X-Consumer"},
            "kept": {"use": "basic", "users": users, "forward": True, "cache_ttl": "0s"},
            "slow": {"use": "basic", "users": slow, "cache_ttl": "0s"},
            "hard": {"use": "basic", "users": hard},
            "report": {"use": "basic", "users": users, "consumer_header": "X-Consumer", "report_only": True},
        },
    )  # fmt: skip


def test_a_password_says_who_the_caller_is(gateway: Gateway) -> None:
    response = ask(gateway, "/in", basic("alice", "wonder:land"), "X-Consumer: bob", "x_consumer: bob")
    assert who(response) == {"name": "a", "plan": "gold", "groups": ["staff"], "scopes": [], "source": "in"}
    assert seen(response)["x-consumer"] == ["a"]
    assert "x_consumer" not in seen(response)
    assert "authorization" not in seen(response)
    assert seen(ask(gateway, "/kept", basic("bob", "builder")))["authorization"] == [
        basic("bob", "builder").partition(": ")[2]
    ]


@pytest.mark.parametrize(
    ("user", "password", "name"),
    [
        ("bob", "builder", "bob"),
        ("longest", LONGEST, "longest"),
        ("Ünal", "ñandú€", "Ünal"),
        ("empty", "", "empty"),
    ],
)
def test_each_kind_of_hash_and_character(gateway: Gateway, user: str, password: str, name: str) -> None:
    for _ in range(2):  # the second by the cache
        assert who(ask(gateway, "/in", basic(user, password)))["name"] == name


def test_the_scheme_has_no_case(gateway: Gateway) -> None:
    assert ask(gateway, "/in", basic("bob", "builder").replace("Basic ", "bAsIc  ")).status == 200


REQUIRED, FAILED = "authentication-required", "authentication-failed"
GOOD = basic("bob", "builder")
ATTACKS = [
    ("nothing", [], REQUIRED, "no Basic"),
    ("another scheme", ["Authorization: Bearer x"], REQUIRED, "no Basic"),
    ("no credentials", ["Authorization: Basic"], FAILED, "no colon"),
    ("wrong password", [basic("bob", "Builder")], FAILED, "wrong password of 'bob'"),
    ("no password", [basic("bob", "")], FAILED, "wrong password"),
    ("password of another", [basic("alice", "builder")], FAILED, "wrong password"),
    ("unknown user", [basic("mallory", "builder")], FAILED, "unknown user"),
    ("user in another case", [basic("BOB", "builder")], FAILED, "unknown user"),
    ("no user", [basic("", "builder")], FAILED, "unknown user"),
    ("the hash itself", [basic("bob", "$2b$04$" + "a" * 53)], FAILED, "wrong password"),
    ("no colon", [raw(b"bob")], FAILED, "no colon"),
    ("beyond bcrypt's 72 bytes", [basic("longest", LONGEST + "y")], FAILED, "more than bcrypt's 72 bytes"),
    ("not UTF-8", [raw("Ünal:ñandú".encode("latin-1"))], FAILED, "not UTF-8"),
    ("NUL behind the password", [raw(b"bob:builder\0x")], FAILED, "control character"),
    ("line feed in the user", [raw(b"bob\n:builder")], FAILED, "control character"),
    ("control beyond ASCII", [raw("bob:builder\x85".encode())], FAILED, "control character"),
    ("no base64", ["Authorization: Basic !!!!"], FAILED, "no base64"),
    ("base64 with spaces", [GOOD[:-4] + " " + GOOD[-4:]], FAILED, "base64"),
    ("base64 without padding", [GOOD.rstrip("=")], FAILED, "base64"),
    ("base64 with padding behind it", [GOOD + "===="], FAILED, "base64"),
    ("base64 in another alphabet", [raw(b"bob:~~~???>>>").replace("/", "_")], FAILED, "base64"),
    ("base64 with bits left over", ["Authorization: Basic Ym9iOmJ1aWxkZXJ="], FAILED, "canonical"),
    ("two fields", [GOOD, GOOD], FAILED, "two Authorization"),
    ("two fields, the second another", [GOOD, "Authorization: Bearer x"], FAILED, "two Authorization"),
    ("two in one", [GOOD + ", " + GOOD.partition(": ")[2]], FAILED, "base64"),
    ("oversized user", [basic("b" * 257, "builder")], FAILED, "oversized"),
    ("oversized password", [basic("alice", "x" * 1025)], FAILED, "oversized"),
    ("oversized by far", [basic("alice", "x" * 5000)], FAILED, "oversized"),
    ("underscore twin", [GOOD.replace("Authorization", "Authorization_")], REQUIRED, "no Basic"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "code", "detail"), [case[1:] for case in ATTACKS], ids=[case[0] for case in ATTACKS]
)
def test_attacks(gateway: Gateway, lines: list[str], code: str, detail: str) -> None:
    assert_refused_because(gateway, lambda: ask(gateway, "/in", *lines), 401, code, detail)


def test_the_challenge_has_realm_and_charset(gateway: Gateway) -> None:
    assert ask(gateway, "/in").get("www-authenticate") == 'Basic realm="the shop", charset="UTF-8"'


def test_report_only_lets_pass_but_vouches_for_nobody(gateway: Gateway) -> None:
    response = ask(gateway, "/report", basic("bob", "wrong"), "X-Consumer: bob")
    assert who(response) is None
    assert "x-consumer" not in seen(response)


def test_an_unknown_user_costs_what_a_known_one_costs(gateway: Gateway) -> None:
    def seconds(user: str) -> float:
        begun = time.perf_counter()
        assert_refused(ask(gateway, "/slow", basic(user, "wrong")), 401, FAILED)
        return time.perf_counter() - begun

    pairs = [(seconds("user1"), seconds(f"unknown{number}")) for number in range(9)]
    known, unknown = (statistics.median(times) for times in zip(*pairs, strict=True))
    assert 0.5 < unknown / known < 2


def test_hashing_stops_nobody_else(gateway: Gateway) -> None:
    with gateway.client() as slow:
        slow.send(request("GET", "/hard", lines=(basic("carol", "carol"),)))
        assert ask(gateway, "/open").status == 200
        assert not select.select([slow.sock], [], [], 0)[0], "bcrypt with cost 12 was quicker than a request"
        assert slow.response().status == 200
        quickest = 1.0
        for _ in range(3):
            begun = time.perf_counter()
            assert slow.get("/hard", basic("carol", "carol")).status == 200
            quickest = min(quickest, time.perf_counter() - begun)
        assert quickest < 0.1, "a password that was right is hashed again"


def test_more_passwords_than_can_be_hashed_are_refused_at_once(gateway: Gateway) -> None:
    """64 calls of all plugins may wait for the threads."""
    with ExitStack() as stack:
        clients = [stack.enter_context(gateway.client()) for _ in range(160)]
        for number, client in enumerate(clients):
            client.send(request("GET", "/slow", lines=(basic("user1", f"guess{number}"),)))
        answers = [client.response() for client in clients]
    busy = [answer for answer in answers if answer.status == 503]
    for answer in busy:
        assert json.loads(answer.body)["code"] == "authentication-unavailable"
        assert answer.get("retry-after") == "1"
    assert 1 <= len(busy) <= 160 - 64
    assert all(answer.status == 401 for answer in answers if answer.status != 503)


def test_requests_with_the_same_credentials_are_hashed_once(gateway: Gateway) -> None:
    """As a client's come when what was remembered of it has just expired."""
    with ExitStack() as stack:
        clients = [stack.enter_context(gateway.client()) for _ in range(80)]
        for client in clients:
            client.send(request("GET", "/slow", lines=(basic("user1", "secret"),)))
        assert [client.response().status for client in clients] == [200] * 80


def test_the_file_is_read_again_and_an_old_password_is_forgotten(
    start_gateway: StartGateway, upstream: Upstream, tmp_path: Path
) -> None:
    file = tmp_path / "users"
    file.write_text(f"# comment\n\nbob:{cheap_bcrypt('old')}\n")
    plugin = {"use": "basic", "users": [{"name": "alice", "hash": CHEAP.hash("a")}], "file": str(file)}
    gateway = start_gateway(
        config(upstream.address, plugins={"x": plugin, "who": WHO}, route={"plugins": ["x", "who"]})
    )

    def status(user: str, password: str) -> int:
        return ask(gateway, "/", basic(user, password)).status

    assert who(ask(gateway, "/", basic("bob", "old")))["name"] == "bob"
    assert status("alice", "a") == 200
    file.write_text("bob:\n")
    assert "line 1: expected an argon2id" in gateway.wait_stderr(f"fastgate: plugin x: {file}: ")
    assert status("bob", "old") == 200
    file.write_text(f"bob:{CHEAP.hash('new')}\n")
    wait_for(lambda: status("bob", "new") == 200)
    assert status("bob", "old") == 401
    assert status("alice", "a") == 200


def test_a_file_without_users_lets_nobody_in(
    start_gateway: StartGateway, upstream: Upstream, tmp_path: Path
) -> None:
    (tmp_path / "users").write_text("# nobody yet\n")
    plugin = {"use": "basic", "file": str(tmp_path / "users")}
    gateway = start_gateway(config(upstream.address, plugins={"x": plugin}, route={"plugins": ["x"]}))
    assert_refused(ask(gateway, "/", basic("alice", "a")), 401, FAILED)


def test_a_hash_may_be_a_secret(start_gateway: StartGateway, upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / "hash").write_text(CHEAP.hash("a") + "\n")
    plugin = {"use": "basic", "users": [{"name": "alice", "hash": {"file": str(tmp_path / "hash")}}]}
    gateway = start_gateway(config(upstream.address, plugins={"x": plugin}, route={"plugins": ["x"]}))
    assert ask(gateway, "/", basic("alice", "a")).status == 200


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"bob:{CHEAP.hash('x')}\nbob:{CHEAP.hash('y')}", "line 2: the user is listed twice"),
        ("bob:{SHA}qvTGHdzF6KLavt4PO0gs2a6pQ00=", "line 1: expected an argon2id"),
        ("\nbob:$apr1$eWvNLzpN$3lGCnOUlNpLZNsnxwVzAz.", "line 2: expected an argon2id"),
        ("bob:secret", "line 1: expected an argon2id"),
        ("secret", "line 1: expected user:hash"),
        (":" + CHEAP.hash("x"), "line 1: a user's name"),
    ],
    ids=["twice", "SHA-1", "MD5", "plain", "no hash", "no user"],
)
def test_what_a_file_may_not_say(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        parse_htpasswd(text.encode())
    assert "secret" not in str(caught.value)


def test_a_gateway_does_not_start_on_a_bad_file(upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / "users").write_text("alice:" + CHEAP.hash("x"))
    users = [{"name": "alice", "hash": CHEAP.hash("a")}]
    plugin = {"use": "basic", "users": users, "file": str(tmp_path / "users")}
    tables = config(upstream.address, plugins={"x": plugin}, route={"plugins": ["x"]})
    with pytest.raises(AssertionError, match="stands in the configuration too"), Gateway(tables, tmp_path):
        pass


ARGON2I = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1, type=Type.I).hash("a")


@pytest.mark.parametrize(
    ("users", "problem"),
    [
        ([], "no user"),
        ([{"name": "alice", "hash": "plain"}], "argon2id"),
        ([{"name": "alice", "hash": ARGON2I}], "argon2id"),
        ([{"name": "alice", "hash": "$2b$31$" + "a" * 53}], "bcrypt's cost"),
        ([{"name": "alice", "hash": CHEAP.hash("a").replace("m=64", "m=99999999")}], "argon2's m"),
        ([{"name": "alice", "hash": CHEAP.hash("a").replace("m=64", "m=4")}], "argon2's m"),
        ([{"name": "a:b", "hash": CHEAP.hash("a")}], "colons"),
        ([{"name": "alice", "hash": CHEAP.hash("a")}] * 2, "listed twice"),
        ([{"name": "alice"}], "hash"),
        ([{"name": "alice", "hash": CHEAP.hash("a"), "password": "b"}], "password"),
    ],
)
def test_what_a_configuration_may_not_say(users: list[dict[str, Any]], problem: str) -> None:
    assert problem in problems_of({"use": "basic", "users": users})
