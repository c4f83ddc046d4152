"""Attacks on `jwt`: each on a running gateway, each refused with its code before the service hears of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from joserfc import jws
from support.client import request
from support.forged import P256_ORDER, TOKENS, evil, raw_claims, sound, write_keys
from support.gateway import Gateway, config
from support.tokens import (
    HMAC,
    SECRET,
    Answer,
    ask,
    ask_all,
    bearer,
    claims,
    ec,
    forged,
    jwks,
    public,
    rsa,
    token,
)
from support.upstream import Upstream
from support.wire import values

# Issuer A signs with RSA and EC keys, B with a key of its own, C with a shared secret.
PLUGIN: dict[str, Any] = {
    "use": "jwt",
    "issuers": [
        {
            "issuer": "https://a.example",
            "algorithms": ["RS256", "ES256"],
            "audience": "orders",
            "jwks_file": "a.json",
            "consumer_prefix": "",
        },
        {
            "issuer": "https://b.example",
            "algorithms": ["RS256"],
            "audience": "orders",
            "jwks_file": "b.json",
            "consumer_prefix": "b:",
        },
        {
            "issuer": "https://c.example",
            "algorithms": ["HS256"],
            "audience": "orders",
            "secret": {"env": "JWT_SECRET"},
            "consumer_prefix": "c:",
        },
    ],
    "claims_to_headers": {"sub": "X-User", "roles": "X-Roles"},
}


@pytest.fixture(scope="module")
def module_gateway(module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    write_keys(folder)
    query = {**PLUGIN, "token_query": "access_token"}
    tables = config(
        module_upstream.address,
        plugins={"auth": PLUGIN, "auth-query": query},
        routes=[
            {"name": "query", "match": {"prefix": "/q"}, "upstream": "up", "plugins": ["auth-query"]},
            {"name": "all", "upstream": "up", "plugins": ["auth"]},
        ],
    )
    with Gateway(tables, folder, env={"JWT_SECRET": SECRET}) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def refusals(module_gateway: Gateway, module_upstream: Upstream) -> dict[str, Answer]:
    """The answers to all the tokens. The service hears of none of the requests."""
    before = module_upstream.mark()
    tokens = {name: make() for name, (make, _) in TOKENS.items()}
    answers = ask_all(
        module_gateway,
        {name: request(lines=(f"Authorization: Bearer {text}",)) for name, text in tokens.items()},
    )
    assert not before.requests
    return answers


@pytest.mark.parametrize("name", TOKENS)
def test_a_token_that_is_not_what_it_says_is_refused(refusals: dict[str, Answer], name: str) -> None:
    answer, detail = refusals[name], TOKENS[name][1]
    assert (answer.status, answer.code) == (401, "authentication-failed"), answer
    assert detail in answer.detail
    assert 'error="invalid_' in answer.challenge


def test_tokens_that_are_what_they_say_pass(gateway: Gateway, upstream: Upstream) -> None:
    """What the table changes, unchanged: its refusals have no other cause."""
    sound_ones = {
        sound(): "alice",
        token(ec("a"), "ES256", kid="a2"): "alice",
        token(rsa("a"), "RS256"): "alice",
        token(rsa("b"), "RS256", claims(iss="https://b.example"), kid="b1"): "alice",
        token(HMAC, "HS256", claims(iss="https://c.example")): "alice",
        raw_claims(',"x":1}'): "alice",
    }
    for text, user in sound_ones.items():
        before = upstream.mark()
        assert bearer(gateway, text).status == 200
        assert values(before.one().fields, "x-user") == [user]


def test_the_other_form_of_an_ecdsa_signature_proves_no_more_than_the_first(
    gateway: Gateway, upstream: Upstream
) -> None:
    """(r, n - s) verifies where (r, s) does, and signers do not normalise: the same claims, no others."""

    def sign(data: bytes) -> bytes:
        raw = jws.JWSRegistry.algorithms["ES256"].sign(data, ec("a"))
        return raw[:32] + (P256_ORDER - int.from_bytes(raw[32:])).to_bytes(32)

    before = upstream.mark()
    assert bearer(gateway, forged({"alg": "ES256", "kid": "a2"}, claims(), sign)).status == 200
    assert values(before.one().fields, "x-user") == ["alice"]


def lines_of(name: str) -> tuple[str, ...]:
    good = sound()
    return {
        "two Authorization fields": (f"Authorization: Bearer {good}", f"Authorization: Bearer {good}"),
        "two, one in other case": (f"Authorization: Bearer {good}", "AUTHORIZATION: Basic YTpi"),
        "two tokens in one field": (f"Authorization: Bearer {good}, Bearer {good}",),
        "two tokens": (f"Authorization: Bearer {good} {good}",),
        "oversized": (f"Authorization: Bearer {sound(x='y' * 8000)}",),
        "tab behind the scheme": (f"Authorization: Bearer\t{good}",),
        "no space behind the scheme": (f"Authorization: Bearer{good}",),
        "quoted": (f'Authorization: Bearer "{good}"',),
        "no token": ("Authorization: Bearer",),
        "comma": (f"Authorization: Bearer ,{good}",),
        "octets beyond ASCII": (f"Authorization: Bearer {good}\xa0",),
    }[name]


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        ("two Authorization fields", "2 Authorization fields"),
        ("two, one in other case", "2 Authorization fields"),
        ("two tokens in one field", "not Bearer and one token"),
        ("two tokens", "not Bearer and one token"),
        ("oversized", "more than 8192 bytes"),
        ("tab behind the scheme", "not Bearer and one token"),
        ("no space behind the scheme", "not Bearer and one token"),
        ("quoted", "not Bearer and one token"),
        ("no token", "not Bearer and one token"),
        ("comma", "not Bearer and one token"),
        ("octets beyond ASCII", "not Bearer and one token"),
    ],
)
def test_a_field_that_can_be_read_in_two_ways_is_refused(
    gateway: Gateway, upstream: Upstream, name: str, detail: str
) -> None:
    before = upstream.mark()
    answer = ask(gateway, *lines_of(name))
    assert (answer.status, answer.code) == (401, "authentication-failed")
    assert detail in answer.detail
    assert answer.challenge == 'Bearer realm="api", error="invalid_request"'
    assert not before.requests


@pytest.mark.parametrize("lines", [("aUTHORIZATION: bEARER {}",), ("Authorization: BEARER   {}",)])
def test_the_case_of_scheme_and_name_makes_no_difference(gateway: Gateway, lines: tuple[str, ...]) -> None:
    assert ask(gateway, *(line.format(sound()) for line in lines)).status == 200
    assert ask(gateway, *(line.format(token(evil(), "RS256", kid="a1")) for line in lines)).status == 401


@pytest.mark.parametrize(
    ("target", "lines"),
    [
        ("/?access_token={}", ()),
        ("/", ("Cookie: access_token={}; Authorization=Bearer {}",)),
        ("/", ("X-Authorization: Bearer {}",)),
        ("/", ("Authorization_: Bearer {}",)),
        ("/", ("Proxy-Authorization: Bearer {}",)),
        ("/", ("Authorization: Basic {}",)),
        ("/", ("Authorization: {}",)),
        ("/", ("Authorization: DPoP {}",)),
        # Where the parameter is the place, the field is none.
        ("/q", ("Authorization: Bearer {}",)),
    ],
)
def test_a_token_elsewhere_is_no_token(
    gateway: Gateway, upstream: Upstream, target: str, lines: tuple[str, ...]
) -> None:
    before = upstream.mark()
    answer: Answer = ask(
        gateway, *(line.replace("{}", sound()) for line in lines), target=target.replace("{}", sound())
    )
    assert (answer.status, answer.code) == (401, "authentication-required")
    assert answer.challenge == 'Bearer realm="api"'
    assert not before.requests


@pytest.mark.parametrize("query", ["access_token={}&access_token={}", "access_token={}&access%5Ftoken=x"])
def test_two_tokens_in_the_query_are_refused(gateway: Gateway, query: str) -> None:
    answer = ask(gateway, target="/q?" + query.replace("{}", sound()))
    assert (answer.status, answer.code) == (401, "authentication-failed")
    assert "2 tokens" in answer.detail


def test_a_query_of_too_many_parameters_is_refused(gateway: Gateway) -> None:
    answer = ask(gateway, target="/q?" + "&".join(["a=1"] * 1500))
    assert (answer.status, answer.code) == (401, "authentication-failed")


@pytest.mark.parametrize(
    "name", ["X-User", "x-user", "X-USER", "x_user", "X_User", "X_USER", "X-Roles", "x_roles"]
)
def test_forged_identity_headers_do_not_reach_the_service(
    gateway: Gateway, upstream: Upstream, name: str
) -> None:
    before = upstream.mark()
    assert bearer(gateway, sound(), f"{name}: root").status == 200
    fields = before.one().fields
    assert values(fields, "x-user") == ["alice"]
    assert "root" not in [text for _, text in fields]


def test_a_token_does_not_outlive_its_key(upstream: Upstream, tmp_path: Path) -> None:
    """Verified and remembered, and refused all the same once the issuer has other keys."""
    write_keys(tmp_path)
    tables = config(upstream.address, plugins={"auth": PLUGIN}, route={"plugins": ["auth"]})
    with Gateway(tables, tmp_path, env={"JWT_SECRET": SECRET}) as gateway:
        text = sound()
        assert [bearer(gateway, text).status for _ in range(3)] == [200, 200, 200]
        fresh = tmp_path / "new.json"
        fresh.write_bytes(jwks(public(rsa("b"), kid="a9")))
        fresh.replace(tmp_path / "a.json")
        until = time.monotonic() + 5
        while (answer := bearer(gateway, text)).status == 200:
            assert time.monotonic() < until, "still let in"
        assert (answer.code, "no key for" in answer.detail) == ("authentication-failed", True)


def test_a_token_expires_though_it_is_remembered(upstream: Upstream, tmp_path: Path) -> None:
    write_keys(tmp_path)
    plugin = {**PLUGIN, "leeway": "0s"}
    tables = config(upstream.address, plugins={"auth": plugin}, route={"plugins": ["auth"]})
    with Gateway(tables, tmp_path, env={"JWT_SECRET": SECRET}) as gateway:
        end = time.time() + 1
        text = sound(exp=end, iat=int(end) - 1)
        began = time.time()
        assert bearer(gateway, text).status == 200
        while (answer := bearer(gateway, text)).status == 200:
            assert began < end, "still let in"
            began = time.time()
        assert answer.detail == "expired"
        assert time.time() >= end
