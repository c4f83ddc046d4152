"""`acl`: who may do what, decided for real consumers at a running gateway."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.gateway import Gateway, config, to_toml
from support.tokens import HMAC, SECRET, ask, claims, token
from support.upstream import Upstream

from fastgate.config import ConfigError, loads

JWT: dict[str, Any] = {
    "use": "jwt",
    "issuers": [
        {
            "issuer": "https://a.example",
            "algorithms": ["HS256"],
            "audience": "orders",
            "secret": {"env": "JWT_SECRET"},
        }
    ],
    "groups_claim": "groups",
    "anonymous": True,
}

# By the path that each is tried at.
ACLS: dict[str, dict[str, Any]] = {
    "groups": {"allow": {"groups": ["editors", "admins"]}},
    "names": {"allow": {"consumers": ["alice", "bob"]}, "deny": {"groups": "suspended"}},
    "scopes": {"allow": {"scopes": ["read", "write"]}},
    "any": {"allow": {"any_scope": ["read", "write"]}},
    "claims": {"allow": {"claims": {"org.id": ["7", "8"], "verified": "true"}}},
    "both": {"allow": {"groups": "editors", "scopes": "read"}},
    "deny": {"deny": {"consumers": "mallory"}, "default": "allow"},
    "rules": {
        "rules": [
            {"prefix": "/rules/admin", "groups": "admins"},
            {"prefix": "/rules/admin", "effect": "deny"},
            {"path": "/rules/me", "methods": ["GET", "PUT"]},
            {"methods": "GET", "any_scope": ["read", "write"]},
            {"methods": ["POST", "DELETE"], "scopes": "write"},
        ],
        "deny": {"claims": {"banned": "true"}},
        "challenge": 'Bearer realm="orders"',
    },
}


@pytest.fixture(scope="module")
def module_gateway(module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    routes = [
        {"name": name, "match": {"prefix": f"/{name}"}, "upstream": "up", "plugins": ["auth", name]}
        for name in ACLS
    ]
    plugins = {name: {"use": "acl", **keys} for name, keys in ACLS.items()}
    tables = config(module_upstream.address, plugins={"auth": JWT, **plugins}, routes=routes)
    with Gateway(tables, tmp_path_factory.mktemp("gateway"), env={"JWT_SECRET": SECRET}) as gateway:
        yield gateway


@pytest.mark.parametrize(
    ("request_line", "who", "why"),
    [
        ("GET /groups", {"groups": ["admins", "others"]}, ""),
        ("GET /groups", {"groups": "editors"}, ""),
        ("GET /groups", {"groups": ["Editors"]}, "default"),
        ("GET /groups", {"groups": "editors admins"}, "default"),
        ("GET /groups", {}, "default"),
        ("GET /names", {}, ""),
        ("GET /names", {"sub": "carol"}, "default"),
        ("GET /names", {"sub": "Alice"}, "default"),
        ("GET /names", {"groups": ["suspended"]}, "deny"),
        ("GET /scopes", {"scope": "read write more"}, ""),
        ("GET /scopes", {"scope": "read"}, "default"),
        ("GET /any", {"scope": "read"}, ""),
        ("GET /any", {"scope": "reads"}, "default"),
        ("GET /claims", {"org": {"id": 7}, "verified": True}, ""),
        ("GET /claims", {"org": {"id": 8}, "verified": "true"}, ""),
        ("GET /claims", {"org": {"id": 9}, "verified": True}, "default"),
        ("GET /claims", {"org": {"id": 7}}, "default"),
        ("GET /claims", {"org": [{"id": 7}], "verified": True}, "default"),
        ("GET /both", {"groups": "editors", "scope": "read"}, ""),
        ("GET /both", {"groups": "editors"}, "default"),
        ("GET /both", {"scope": "read"}, "default"),
        ("GET /deny", {}, ""),
        ("GET /deny", {"sub": "mallory"}, "deny"),
        # Rules: the first that holds.
        ("GET /rules/admin", {"groups": "admins"}, ""),
        ("DELETE /rules/admin/users", {"groups": "admins"}, ""),
        ("GET /rules/admin/users", {"scope": "read write"}, "rule 1"),
        ("GET /rules/admin", {"scope": "read write"}, "rule 1"),
        ("GET /rules/%61dmin", {"scope": "read write"}, "rule 1"),
        ("GET /rules/./admin", {"scope": "read write"}, "rule 1"),
        ("GET /rules/x/../admin", {"scope": "read write"}, "rule 1"),
        ("GET /rules/administration", {"scope": "read"}, ""),
        ("GET /rules/me", {}, ""),
        ("PUT /rules/me", {}, ""),
        ("DELETE /rules/me", {}, "default"),
        ("GET /rules/me/more", {}, "default"),
        ("GET /rules/x", {"scope": "write"}, ""),
        ("HEAD /rules/x", {"scope": "write"}, "default"),
        ("POST /rules/x", {"scope": "write"}, ""),
        ("POST /rules/x", {"scope": "read"}, "default"),
        ("GET /rules/me", {"banned": True}, "deny"),
    ],
)
def test_who_may_do_what(
    gateway: Gateway, upstream: Upstream, request_line: str, who: dict[str, Any], why: str
) -> None:
    method, target = request_line.split(" ")
    before = upstream.mark()
    text = token(HMAC, "HS256", claims(**who))
    answer = ask(gateway, f"Authorization: Bearer {text}", method=method, target=target)
    if not why:
        assert answer.status == 200
        return
    assert (answer.status, answer.code) == (403, "forbidden")
    assert answer.detail.endswith(f": {why}")
    assert not before.requests


@pytest.mark.parametrize("name", ACLS)
def test_whoever_is_not_known_is_asked_to_say_who_it_is(gateway: Gateway, name: str) -> None:
    answer = ask(gateway, target=f"/{name}")
    assert (answer.status, answer.code) == (401, "authentication-required")
    assert answer.challenge == ('Bearer realm="orders"' if name == "rules" else "Bearer")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"allow": {"groups": "a"}}, ""),
        ({"rules": [{}]}, ""),
        ({"default": "allow"}, ""),
        ({}, "nobody is allowed anything"),
        ({"deny": {"groups": "a"}}, "nobody is allowed anything"),
        ({"allow": {}}, "allow: it has no condition, and would allow everyone"),
        ({"deny": {}, "default": "allow"}, "deny: it has no condition, and would deny everyone"),
        ({"rules": [{"path": "/a", "prefix": "/b"}]}, "rules[0].path: a rule has a path or a prefix"),
        ({"rules": [{"groups": "a", "effect": "maybe"}]}, 'got "maybe"'),
        ({"rules": [{"group": "a"}]}, 'did you mean "groups"?'),
        ({"allow": {"claims": {"a": []}}}, "must not be empty"),
    ],
)
def test_the_configuration_is_checked(keys: dict[str, Any], message: str) -> None:
    tables = config("127.0.0.1:1", plugins={"acl": {"use": "acl", **keys}})
    found = ""
    try:
        loads(to_toml(tables))
    except ConfigError as error:
        found = str(error)
    assert message in found
    assert bool(found) == bool(message)
