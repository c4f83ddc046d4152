"""`jwt`: where a token may stand, what it has to say, and what the service and other plugins get from it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.gateway import Gateway, config, to_toml
from support.tokens import HMAC, SECRET, Answer, ask, bearer, claims, ec, ed, jwks, public, rsa, token
from support.upstream import Upstream
from support.wire import Request, values

from fastgate.config import ConfigError, loads
from fastgate.plugins import Consumer
from fastgate.plugins._auth.jws import TokenError
from fastgate.plugins._auth.memory import Memory, Verified
from fastgate.plugins._auth.validity import check_times

ISSUER: dict[str, Any] = {
    "issuer": "https://a.example",
    "algorithms": ["HS256"],
    "audience": "orders",
    "secret": {"env": "JWT_SECRET"},
}
KEYS: dict[str, Any] = {
    "issuer": "https://a.example",
    "algorithms": [
        "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
    ],
    "any_audience": True,
    "jwks_file": "keys.json",
}  # fmt: skip

# Plugins by the path that uses them.
PLUGINS: dict[str, dict[str, Any]] = {
    "plain": {},
    "keys": {"issuers": [KEYS]},
    "cookie": {"token_cookie": "token", "forward_token": False},
    "field": {"token_header": "X-Token", "forward_token": False},
    "query": {"token_query": "access_token", "forward_token": False},
    "hidden": {"forward_token": False},
    "anonymous": {"anonymous": True},
    "scopes": {"scopes": ["read", "write"], "realm": 'the "orders"'},
    "claims": {
        "required_claims": {
            "tenant": ["acme", "initech"],
            "realm_access.roles": "staff",
            "https://a.example/verified": "true",
        }
    },
    "lasting": {"require_exp": False},
    "young": {"max_age": "60s"},
    "typed": {"issuers": [{**ISSUER, "typ": "at+jwt"}]},
    "hosts": {
        "claims_to_headers": {"sub": "X-User", "roles": "X-Roles", "org.id": "X-Org", "name": "X-Name"},
        "consumer_claim": "email",
        "groups_claim": "roles",
        "plan_claim": "org.plan",
    },
}

SHOW = """
from fastgate.plugins import Plugin, Response

class Show(Plugin):
    def on_request(self, exchange):
        found = exchange.consumer
        return Response(json=None if found is None else {
            "name": found.name, "plan": found.plan, "groups": sorted(found.groups),
            "scopes": sorted(found.scopes), "source": found.source, "issuer": found.claims["iss"],
            "changeable": hasattr(found.claims, "update"),
        })
"""


def plugin(**changes: Any) -> dict[str, Any]:
    return {"use": "jwt", "issuers": [ISSUER], **changes}


@pytest.fixture(scope="module")
def module_gateway(module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    every = [public(rsa(), kid="rsa"), public(ed(), kid="ed")]
    every += [public(ec("", curve), kid=curve) for curve in ("P-256", "P-384", "P-521")]
    (folder / "keys.json").write_bytes(jwks(*every))
    (folder / "show.py").write_text(SHOW)
    routes = [
        {"name": name, "match": {"prefix": f"/{name}"}, "upstream": "up", "plugins": [name]}
        for name in PLUGINS
    ]
    routes.append(
        {"name": "who", "match": {"prefix": "/who"}, "upstream": "up", "plugins": ["hosts", "show"]}
    )
    plugins = {name: plugin(**changes) for name, changes in PLUGINS.items()}
    tables = config(module_upstream.address, plugins={**plugins, "show": {"use": "./show.py"}}, routes=routes)
    with Gateway(tables, folder, env={"JWT_SECRET": SECRET}) as gateway:
        yield gateway


def hs(**changes: Any) -> str:
    return token(HMAC, "HS256", claims(**changes))


def served(upstream: Upstream, gateway: Gateway, *lines: str, target: str) -> Request:
    """What the service got."""
    before = upstream.mark()
    assert ask(gateway, *lines, target=target).status == 200
    return before.one()


# -- where it stands


def test_the_service_gets_the_token_unless_it_is_hidden(gateway: Gateway, upstream: Upstream) -> None:
    line = f"Authorization: Bearer {hs()}"
    assert values(served(upstream, gateway, line, target="/plain").fields, "authorization") == [line[15:]]
    assert not values(served(upstream, gateway, line, target="/hidden").fields, "authorization")


def test_a_token_in_a_cookie(gateway: Gateway, upstream: Upstream) -> None:
    got = served(upstream, gateway, f"Cookie: a=1; token={hs()}; b; c=2", target="/cookie")
    assert values(got.fields, "cookie") == ["a=1; b; c=2"]
    got = served(upstream, gateway, f"Cookie: token={hs()}", target="/cookie")
    assert not values(got.fields, "cookie")
    answer = ask(gateway, f"Cookie: token={hs()}; token={hs()}", target="/cookie")
    assert (answer.code, answer.detail) == ("authentication-failed", "2 tokens in the cookie token")


def test_a_token_in_a_field_of_its_own(gateway: Gateway, upstream: Upstream) -> None:
    got = served(upstream, gateway, f"x-token: {hs()}", "Authorization: Basic x", target="/field")
    assert not values(got.fields, "x-token")
    assert values(got.fields, "authorization") == ["Basic x"]
    answer = ask(gateway, f"x-token: {hs()}", f"X-Token: {hs()}", target="/field")
    assert (answer.code, answer.detail) == ("authentication-failed", "2 tokens in the header x-token")
    assert (
        ask(gateway, f"x-token: Bearer {hs()}", target="/field").detail == "the header x-token holds no token"
    )


def test_a_token_in_the_query(gateway: Gateway, upstream: Upstream) -> None:
    got = served(upstream, gateway, target=f"/query?a=1&access%5Ftoken={hs()}&b=%20&access_token_=2")
    assert got.target == "/query?a=1&b=%20&access_token_=2"


def test_without_a_token_only_where_nobody_in_particular_may_pass(gateway: Gateway) -> None:
    answer = ask(gateway, target="/plain")
    assert answer[:2] == (401, "authentication-required")
    # RFC 6750 3.1: no error where there were no credentials.
    assert answer.challenge == 'Bearer realm="api"'
    assert ask(gateway, target="/anonymous").status == 200
    assert ask(gateway, "Authorization: Basic YTpi", target="/anonymous").status == 200
    for bad in ("Bearer x", "Bearer", "bearer\tx", "Bearerx"):
        answer = ask(gateway, f"Authorization: {bad}", target="/anonymous")
        assert answer[:2] == (401, "authentication-failed")


# -- what it says


@pytest.mark.parametrize("alg", KEYS["algorithms"])
def test_every_algorithm(gateway: Gateway, alg: str) -> None:
    keys: dict[str, Any] = {"RS": rsa(), "PS": rsa(), "Ed": ed()}
    curves = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
    key = ec("", curves[alg]) if alg in curves else keys[alg[:2]]
    kid = curves.get(alg) or {"RS": "rsa", "PS": "rsa", "Ed": "ed"}[alg[:2]]
    text = token(key, alg, kid=kid)
    assert bearer(gateway, text, target="/keys").status == 200
    head, payload, signature = text.split(".")
    middle = len(signature) // 2
    changed = signature[:middle] + ("A" if signature[middle] != "A" else "B") + signature[middle + 1 :]
    answer = bearer(gateway, f"{head}.{payload}.{changed}", target="/keys")
    assert answer.detail == "the signature is wrong"


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"scope": "read write other"}, 200),
        ({"scope": ["write", "read"]}, 200),
        ({"scp": ["read"], "scope": "write"}, 200),
        ({"scp": "write read"}, 200),
        ({"scope": "read"}, 403),
        ({"scope": "readwrite"}, 403),
        ({"scope": "READ WRITE"}, 403),
        ({"scope": {"read": 1, "write": 1}}, 403),
        ({}, 403),
    ],
)
def test_scopes(gateway: Gateway, changes: dict[str, Any], status: int) -> None:
    # Twice: a token that is remembered is asked for its scopes as well.
    for answer in [bearer(gateway, hs(**changes), target="/scopes") for _ in range(2)]:
        assert answer.status == status
        if status == 403:
            assert answer.code == "forbidden"
            assert answer.challenge == (
                'Bearer realm="the \\"orders\\"", error="insufficient_scope", scope="read write"'
            )


SOUND: dict[str, Any] = {
    "tenant": "acme",
    "realm_access": {"roles": ["staff", "admin"]},
    "https://a.example/verified": True,
}


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, 200),
        ({"tenant": "initech"}, 200),
        ({"tenant": ["other", "acme"]}, 200),
        ({"realm_access.roles": "staff", "realm_access": None}, 200),
        ({"tenant": "ACME"}, 403),
        ({"tenant": None}, 403),
        ({"tenant": {"acme": 1}}, 403),
        ({"realm_access": {"roles": "staff admin"}}, 403),
        ({"realm_access": ["roles"]}, 403),
        ({"https://a.example/verified": False}, 403),
    ],
)
def test_required_claims(gateway: Gateway, changes: dict[str, Any], status: int) -> None:
    answer = bearer(gateway, hs(**(SOUND | changes)), target="/claims")
    assert answer.status == status
    if status == 403:
        assert (answer.code, "is not as required" in answer.detail) == ("forbidden", True)


@pytest.mark.parametrize(
    ("path", "name", "seconds", "detail"),
    [
        ("lasting", "exp", None, ""),
        ("lasting", "exp", -31, "expired"),
        ("plain", "exp", -10, ""),
        ("plain", "nbf", 10, ""),
        ("plain", "iat", 10, ""),
        ("young", "iat", 0, ""),
        ("young", "iat", -3600, "older than max_age"),
        ("young", "iat", None, "iat is missing, and max_age needs it"),
    ],
)
def test_times(gateway: Gateway, path: str, name: str, seconds: float | None, detail: str) -> None:
    """`name` is so many seconds from now."""
    text = hs(**{name: None if seconds is None else time.time() + seconds})
    assert bearer(gateway, text, target=f"/{path}").detail == detail


@pytest.mark.parametrize("audience", ["orders", ["other", "orders"]])
def test_one_of_the_audiences(gateway: Gateway, audience: Any) -> None:
    assert bearer(gateway, hs(aud=audience), target="/plain").status == 200


@pytest.mark.parametrize("audience", [None, "payments", ["a", "b"]])
def test_any_audience(gateway: Gateway, audience: Any) -> None:
    assert bearer(gateway, token(rsa(), "RS256", claims(aud=audience)), target="/keys").status == 200


@pytest.mark.parametrize(
    ("typ", "detail"),
    [
        ("at+jwt", ""),
        ("AT+JWT", ""),
        ("application/at+jwt", ""),
        ("JWT", "typ is 'JWT'"),
        (None, "typ is ''"),
    ],
)
def test_typ(gateway: Gateway, typ: str | None, detail: str) -> None:
    header = {} if typ is None else {"typ": typ}
    assert bearer(gateway, token(HMAC, "HS256", None, **header), target="/typed").detail == detail


@pytest.mark.parametrize(
    ("changes", "now", "until"),
    [
        ({"exp": 100}, 129.9, 130),
        ({"exp": 100}, 130, "expired"),
        ({"exp": 100, "nbf": 60}, 30, 130),
        ({"exp": 100, "nbf": 60}, 29.9, "not valid yet (nbf)"),
        ({"exp": 100, "iat": 60}, 29.9, "issued in the future (iat)"),
        ({"exp": 100, "iat": 10, "max_age": 20}, 59.9, 60),
        ({"exp": 100, "iat": 10, "max_age": 20}, 60, "older than max_age"),
        ({"exp": 30, "iat": 10, "max_age": 1000}, 20, 60),
        ({}, 0, "exp is missing"),
        ({"exp": 253402300800}, 0, "exp is no date"),
    ],
)
def test_the_moment_at_which_a_token_ends(changes: dict[str, Any], now: float, until: float | str) -> None:
    max_age = changes.pop("max_age", None)
    try:
        found: float | str = check_times(changes, now, leeway=30, max_age=max_age)
    except TokenError as error:
        found = str(error)
    assert found == until


# -- what comes of it


def test_claims_become_headers(gateway: Gateway, upstream: Upstream) -> None:
    text = hs(email="a@b", roles=["user", "admin", 7], org={"id": 12, "plan": "gold"}, name="Zoë")
    got = served(upstream, gateway, f"Authorization: Bearer {text}", "x_org: 1", target="/hosts")
    assert values(got.fields, "x-user") == ["alice"]
    assert values(got.fields, "x-roles") == ["user,admin,7"]
    assert values(got.fields, "x-org") == ["12"]
    assert values(got.fields, "x-name") == ["Zoë".encode().decode("latin-1")]
    # What a token does not say is not there, whoever sends it.
    got = served(upstream, gateway, f"Authorization: Bearer {hs(email='a@b')}", "X-Org: 1", target="/hosts")
    assert not values(got.fields, "x-org")


def test_the_consumer(gateway: Gateway) -> None:
    text = hs(email="a@b", roles=["user", "admin"], org={"plan": "gold"}, scope="read")
    expected = {
        "name": "a@b",
        "plan": "gold",
        "groups": ["admin", "user"],
        "scopes": ["read"],
        "source": "hosts",
        "issuer": "https://a.example",
        "changeable": False,
    }
    assert [json.loads(bearer(gateway, text, target="/who").body) for _ in range(2)] == [expected] * 2


def verified(name: str, until: float = 100.0) -> Verified:
    return Verified(Consumer(name=name), (), until)


def test_the_cache_forgets_what_was_not_used_for_longest_and_what_has_ended() -> None:
    cache = Memory[Verified](2)
    a, b, c = verified("a"), verified("b"), verified("c", until=50)
    cache.put(b"a", a)
    cache.put(b"b", b)
    assert cache.get(b"a", 0) is a
    cache.put(b"c", c)
    assert [cache.get(key, 49.9) for key in (b"a", b"b", b"c")] == [a, None, c]
    assert cache.get(b"c", 50) is None
    assert len(cache) == 1
    cache.clear()
    assert cache.get(b"a", 0) is None


def test_no_cache() -> None:
    cache = Memory[Verified](0)
    cache.put(b"a", verified("a"))
    assert len(cache) == 0


# -- the configuration


def problems(*issuers: dict[str, Any], **changes: Any) -> str:
    """What is wrong with it; "" where nothing is."""
    tables = config("127.0.0.1:1", plugins={"auth": plugin(issuers=list(issuers), **changes)})
    try:
        loads(to_toml(tables), "gateway.toml")
    except ConfigError as error:
        return str(error)
    return ""


def issuer(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value in ({**KEYS} | changes).items() if value is not None}


@pytest.mark.parametrize(
    ("issuers", "changes", "message"),
    [
        ([issuer()], {}, ""),
        ([], {}, "issuers must not be empty"),
        ([issuer(algorithms=["RS256", "HS256"])], {}, "HS* and others together"),
        ([issuer(algorithms=["none"])], {}, 'got "none"'),
        ([issuer(algorithms=[])], {}, "must not be empty"),
        ([issuer(algorithms=None)], {}, "algorithms"),
        ([issuer(algorithms=["HS256"])], {}, "HS* needs a secret"),
        ([issuer(jwks_file=None)], {}, "where its keys are, not none"),
        ([issuer(jwks_url="https://x.example/")], {}, "not jwks_url and jwks_file"),
        ([issuer(jwks_url="http://x.example/k", jwks_file=None)], {}, "expected an https URL"),
        ([issuer(jwks_url="http://127.0.0.1@x.example/k", jwks_file=None)], {}, "expected an https URL"),
        ([issuer(jwks_url="https://u:p@x.example/k", jwks_file=None)], {}, "expected an https URL"),
        ([issuer(jwks_url="file:///etc/passwd", jwks_file=None)], {}, "expected an https URL"),
        ([issuer(jwks_url="https://x.example/k", jwks_file=None)], {}, ""),
        ([issuer(jwks_url="http://[::1]:80/k", jwks_file=None)], {}, ""),
        ([issuer(jwks_upstream="nobody", jwks_file=None)], {}, "nobody"),
        ([issuer(any_audience=False)], {}, "either audience or any_audience"),
        ([issuer(audience="x")], {}, "either audience or any_audience"),
        ([issuer(issuer="")], {}, "issuers[0].issuer: it is empty"),
        ([issuer(), issuer(issuer="b")], {}, "each says its consumer_prefix"),
        ([issuer(consumer_prefix=""), issuer(consumer_prefix="b")], {}, "another issuer has this name"),
        ([issuer(consumer_prefix=""), issuer(consumer_prefix="", issuer="b")], {}, ""),
        ([issuer()], {"token_cookie": "a", "token_query": "b"}, "a token stands in one place"),
        ([issuer()], {"token_header": "Authorization"}, "behind Bearer"),
        ([issuer()], {"claims_to_headers": {"a": "X-A", "b": "x-a"}}, "two values go into one header"),
        ([issuer()], {"claims_to_headers": {"a": "Host"}}, "cannot be changed"),
        ([issuer()], {"claims_to_headers": {"a": "Authorization"}}, "the client itself"),
        ([issuer()], {"claims_to_headers": {"a": "X-T"}, "token_header": "x-t"}, "the client itself"),
        ([issuer()], {"claims_to_headers": {"a": "X A"}}, "header name"),
        ([issuer()], {"required_claims": {"a": []}}, "must not be empty"),
        ([issuer()], {"algorithms": ["RS256"]}, "algorithms"),
    ],
)
def test_the_configuration_is_checked(issuers: Any, changes: dict[str, Any], message: str) -> None:
    found = problems(*issuers, **changes)
    assert message in found
    assert bool(found) == bool(message)


@pytest.mark.parametrize(("alg", "least"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
def test_secrets_have_a_least_length(monkeypatch: pytest.MonkeyPatch, alg: str, least: int) -> None:
    hs = {**ISSUER, "algorithms": [alg]}
    monkeypatch.setenv("JWT_SECRET", "s" * (least - 1))
    assert f"{alg} needs at least {least} bytes" in problems(hs)
    monkeypatch.setenv("JWT_SECRET", "s" * least)
    assert problems(hs) == ""


def test_a_secret_does_not_stand_in_the_file() -> None:
    assert "a secret does not stand in the file" in problems({**ISSUER, "secret": "s" * 32})


def test_several_issuers_keep_their_callers_apart(upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_bytes(jwks(public(rsa(), kid="rsa")))
    (tmp_path / "show.py").write_text(SHOW)
    both = [{**ISSUER, "consumer_prefix": "a:"}, {**KEYS, "issuer": "b", "consumer_prefix": "b:"}]
    tables = config(
        upstream.address,
        plugins={"auth": plugin(issuers=both), "show": {"use": "./show.py"}},
        route={"plugins": ["auth", "show"]},
    )

    def name(answer: Answer) -> str:
        return str(json.loads(answer.body)["name"])

    with Gateway(tables, tmp_path, env={"JWT_SECRET": SECRET}) as gateway:
        assert name(bearer(gateway, hs())) == "a:alice"
        assert name(bearer(gateway, token(rsa(), "RS256", claims(iss="b"), kid="rsa"))) == "b:alice"
