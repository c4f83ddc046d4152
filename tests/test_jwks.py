"""The keys behind `jwt`: which of a key set are used, and when it is fetched, kept and dropped."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.client import request
from support.gateway import Gateway, config
from support.tokens import ask_all, bearer, claims, ec, ed, jwks, public, rsa, token
from support.upstream import Connection, Step, Upstream, close, reply, wait_for

from fastgate.plugins._auth.jwk import MAX_JWKS, MAX_KEYS, key_from_pem, keys_from_jwks


def kids(*keys: dict[str, Any]) -> list[str]:
    """Those of the keys that are used."""
    return [key.kid for key in keys_from_jwks(jwks(*keys))[0]]


# -- what is used


@pytest.mark.parametrize(
    ("make", "algorithms"),
    [
        (lambda: public(rsa()), {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
        (lambda: public(rsa(), alg="PS256", use="sig"), {"PS256"}),
        (lambda: public(ec("", "P-256")), {"ES256"}),
        (lambda: public(ec("", "P-384"), key_ops=["verify"]), {"ES384"}),
        (lambda: public(ec("", "P-521")), {"ES512"}),
        (lambda: public(ed()), {"EdDSA", "Ed25519"}),
        (lambda: public(ed(), alg="EdDSA"), {"EdDSA", "Ed25519"}),
    ],
)
def test_a_key_fits_the_algorithms_of_its_kind(
    make: Callable[[], dict[str, Any]], algorithms: set[str]
) -> None:
    every = [f"{family}{bits}" for family in ("RS", "PS", "ES", "HS") for bits in (256, 384, 512)]
    [key], skipped = keys_from_jwks(jwks(make()))
    assert {name for name in [*every, "EdDSA", "Ed25519", "none", ""] if key.fits(name)} == algorithms
    assert not skipped


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: {"kty": "oct", "k": "c2VjcmV0"}, "keys of type 'oct' are not used"),
        (lambda: {"kty": "AKP", "alg": "ML-DSA-44"}, "keys of type 'AKP' are not used"),
        (lambda: {}, "keys of type '' are not used"),
        (lambda: {**public(rsa()), "kty": ["RSA"]}, "kty is no string"),
        (lambda: public(rsa(), use="enc"), "not for signatures"),
        (lambda: public(rsa(), key_ops=["encrypt"]), "not to verify with"),
        (lambda: public(rsa(), key_ops="verify"), "not to verify with"),
        (lambda: public(rsa(), kid=7), "kid is no string"),
        (lambda: public(rsa(), kid="k" * 257), "more than 256 letters"),
        (lambda: {**public(rsa()), "n": public(rsa())["n"][:171]}, "2048 to 8192 bits"),
        (lambda: {**public(rsa()), "n": "q" * 2731}, "n is missing or too long"),
        (lambda: {**public(rsa()), "n": ""}, "n is missing or too long"),
        (lambda: {**public(rsa()), "e": "AQ"}, "e must be >= 3"),
        (lambda: {**public(rsa()), "e": "A" * 400 + "AQAB"}, "e is missing or too long"),
        (lambda: {**public(ec()), "crv": "secp256k1"}, "curve 'secp256k1' is not used"),
        (lambda: {**public(ec()), "crv": "P-384"}, ""),
        (lambda: {**public(ec()), "x": "A" * 43}, ""),
        (lambda: {**public(ec()), "y": "A" * 5000}, "y is missing or too long"),
        (lambda: {**public(ed()), "crv": "X25519"}, "curve 'X25519' is not used"),
        (lambda: {**public(ed()), "x": "AAAA"}, ""),
    ],
)
def test_other_keys_are_passed_over(make: Callable[[], dict[str, Any]], why: str) -> None:
    keys, [skipped] = keys_from_jwks(jwks(make(), public(ec(), kid="good")))
    assert [key.kid for key in keys] == ["good"]
    assert skipped.startswith("key 0: ")
    assert why in skipped


def test_private_members_are_not_read() -> None:
    [key], _ = keys_from_jwks(jwks(rsa().as_dict(private=True)))
    assert not key.key.is_private


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"keys": {}}',
        b'{"keys": [], "keys": []}',
        b'{"keys": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        json.dumps({"keys": [{}] * (MAX_KEYS + 1)}).encode(),
        b'{"keys": []' + b" " * MAX_JWKS + b"}",
        b'{"keys": ["\xff"]}',
    ],
    ids=range(10),
)
def test_what_is_no_key_set_is_refused_whole(document: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        keys_from_jwks(document)


@pytest.mark.parametrize("make", [rsa, ec, ed])
def test_a_pem_file_holds_one_public_key(make: Callable[[], Any]) -> None:
    key = make()
    found = key_from_pem(key.as_pem(private=False))
    assert (found.kind, found.kid) == (key.key_type, "")
    with pytest.raises(ValueError, match=r"."):
        key_from_pem(key.as_pem(private=True))


# -- when it is fetched: a provider of its own for each test


@pytest.fixture
def provider(start_upstream: Callable[..., Upstream]) -> Upstream:
    provider: Upstream = start_upstream()
    publish(provider, public(rsa("a"), kid="a1"))
    return provider


def publish(provider: Upstream, *keys: dict[str, Any]) -> None:
    provider.default = (reply(200, jwks(*keys)),)


def tables(provider: Upstream, service: Upstream, **changes: Any) -> dict[str, Any]:
    issuer = {
        "issuer": "https://a.example",
        "algorithms": ["RS256"],
        "audience": "orders",
        "jwks_url": f"http://{provider.address}/keys",
    }
    plugin = {"use": "jwt", "refetch": "100ms", "issuers": [issuer], **changes}
    return config(service.address, plugins={"auth": plugin}, route={"plugins": ["auth"]})


def start(tables: dict[str, Any], folder: Path) -> Gateway:
    return Gateway(tables, folder)


def by(name: str, kid: str) -> str:
    return token(rsa(name), "RS256", claims(), kid=kid)


def wait_status(gateway: Gateway, text: str, status: int) -> None:
    until = time.monotonic() + 5
    while (answer := bearer(gateway, text)).status != status:
        assert time.monotonic() < until, f"still {answer}"


def test_the_keys_are_fetched_once_and_kept(provider: Upstream, upstream: Upstream, tmp_path: Path) -> None:
    with start(tables(provider, upstream), tmp_path) as gateway:
        assert [bearer(gateway, by("a", "a1")).status for _ in range(5)] == [200] * 5
        [request] = provider.requests
        assert (request.method, request.target) == ("GET", "/keys")


def test_a_provider_that_is_down_does_not_keep_the_gateway_from_starting(
    provider: Upstream, upstream: Upstream, tmp_path: Path
) -> None:
    provider.refuse()
    with start(tables(provider, upstream), tmp_path) as gateway:
        answer = bearer(gateway, by("a", "a1"))
        assert (answer.status, answer.code) == (503, "authentication-unavailable")
        assert "no keys from http://" in answer.detail
        # What does not need the keys is refused as ever.
        assert bearer(gateway, "x").status == 401
        provider.listen()
        wait_status(gateway, by("a", "a1"), 200)


def cut(connection: Connection) -> None:
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}")
    close()(connection)


def test_what_is_no_key_set_counts_as_an_outage(
    provider: Upstream, upstream: Upstream, tmp_path: Path
) -> None:
    answers: list[tuple[Step, str]] = [
        (reply(404, b"{}"), "status 404"),
        (reply(302, b"", "Location: /other"), "status 302"),
        (reply(200, b"<html>"), "unexpected character"),
        (reply(200, b'{"keys": []' + b" " * MAX_JWKS + b"}"), f"more than {MAX_JWKS} bytes"),
        (reply(200, b'{"keys": [{"kty": "oct"}], "keys": []}'), "a JSON member stands twice"),
        (cut, "closed"),
    ]
    provider.default = (answers[0][0],)
    with start(tables(provider, upstream), tmp_path) as gateway:
        for answer, why in answers:
            provider.default = (answer,)
            until = time.monotonic() + 5
            while why not in (found := bearer(gateway, by("a", "a1"))).detail:
                assert time.monotonic() < until, f"still {found}"
            assert (found.status, found.code) == (503, "authentication-unavailable")
        publish(provider, public(rsa("a"), kid="a1"))
        wait_status(gateway, by("a", "a1"), 200)


def test_a_key_that_is_new_is_found_at_once(provider: Upstream, upstream: Upstream, tmp_path: Path) -> None:
    with start(tables(provider, upstream), tmp_path) as gateway:
        assert bearer(gateway, by("a", "a1")).status == 200
        publish(provider, public(rsa("b"), kid="b1"))
        wait_status(gateway, by("b", "b1"), 200)
        # The old one is gone from the set; that its token was remembered does not help it.
        assert bearer(gateway, by("a", "a1")).status == 401


def test_keys_are_refreshed_in_the_background(provider: Upstream, upstream: Upstream, tmp_path: Path) -> None:
    with start(tables(provider, upstream, refresh="1s", refetch="1h"), tmp_path) as gateway:
        text = by("a", "a1")
        assert bearer(gateway, text).status == 200
        publish(provider, public(rsa("b"), kid="b1"))
        wait_status(gateway, text, 401)
        assert bearer(gateway, by("b", "b1")).status == 200


def test_keys_outlast_an_outage(provider: Upstream, upstream: Upstream, tmp_path: Path) -> None:
    with start(tables(provider, upstream, refresh="1s"), tmp_path) as gateway:
        assert bearer(gateway, by("a", "a1")).status == 200
        provider.refuse()
        for connection in provider.connections:
            connection.close()
        # A key that is not known can't be asked for now: that is no fault of its token.
        wait_status(gateway, by("b", "b1"), 503)
        assert bearer(gateway, by("a", "a1")).status == 200
        assert any("the keys of before are kept" in line for line in gateway.stderr)
        publish(provider, public(rsa("b"), kid="b1"))
        provider.listen()
        wait_status(gateway, by("b", "b1"), 200)


def test_requests_that_miss_a_key_share_one_fetch(
    provider: Upstream, upstream: Upstream, tmp_path: Path
) -> None:
    with start(tables(provider, upstream), tmp_path) as gateway:
        assert bearer(gateway, by("a", "a1")).status == 200
        before = provider.mark()
        go = threading.Event()
        provider.script(wait_for(go), reply(200, jwks(public(rsa("b"), kid="b1"))))
        time.sleep(0.1)  # nothing happens meanwhile but that the rate allows one fetch again
        with ThreadPoolExecutor(16) as pool:
            asked = [pool.submit(bearer, gateway, by("b", "b1")) for _ in range(16)]
            before.wait(1)
            go.set()
            assert {answer.result().status for answer in asked} == {200}
        before.one()


def test_unknown_key_ids_cause_few_fetches(provider: Upstream, upstream: Upstream, tmp_path: Path) -> None:
    with start(tables(provider, upstream, refetch="1h"), tmp_path) as gateway:
        assert bearer(gateway, by("a", "a1")).status == 200
        made_up = {name: by("a", name) for name in map(str, range(50))}
        answers = ask_all(
            gateway,
            {name: request(lines=(f"Authorization: Bearer {text}",)) for name, text in made_up.items()},
        )
        assert {answer[:2] for answer in answers.values()} == {(401, "authentication-failed")}
        assert len(provider.requests) == 1


def test_a_fetch_that_hangs_ends_the_wait_of_requests(
    provider: Upstream, upstream: Upstream, tmp_path: Path
) -> None:
    go = threading.Event()
    provider.default = (wait_for(go),)
    with start(tables(provider, upstream), tmp_path) as gateway:
        began = time.monotonic()
        answer = bearer(gateway, by("a", "a1"))
        assert (answer.status, answer.code) == (503, "authentication-unavailable")
        assert time.monotonic() - began < 5
    go.set()


def test_a_key_set_at_an_upstream(provider: Upstream, upstream: Upstream, tmp_path: Path) -> None:
    changed = tables(provider, upstream)
    issuer = changed["plugins"]["auth"]["issuers"][0]
    del issuer["jwks_url"]
    issuer |= {"jwks_upstream": "idp", "jwks_path": "/realm/certs"}
    changed["upstreams"]["idp"] = {"endpoints": [provider.address]}
    with start(changed, tmp_path) as gateway:
        assert bearer(gateway, by("a", "a1")).status == 200
        assert [request.target for request in provider.requests] == ["/realm/certs"]


# -- files


def file_tables(service: Upstream, **source: str) -> dict[str, Any]:
    issuer = {
        "issuer": "https://a.example",
        "algorithms": ["RS256"],
        "audience": "orders",
        **source,
    }
    plugin = {"use": "jwt", "issuers": [issuer]}
    return config(service.address, plugins={"auth": plugin}, route={"plugins": ["auth"]})


def test_a_pem_file_is_read_again_and_key_ids_do_not_matter(upstream: Upstream, tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(rsa("a").as_pem(private=False))
    with start(file_tables(upstream, public_key_file="key.pem"), tmp_path) as gateway:
        assert bearer(gateway, by("a", "whatever")).status == 200
        assert bearer(gateway, by("b", "whatever")).status == 401
        file.write_bytes(b"half a file")  # kept, and said
        gateway.wait_stderr(f"fastgate: no keys from {file}: ")
        assert bearer(gateway, by("a", "whatever")).status == 200
        file.write_bytes(rsa("b").as_pem(private=False))
        wait_status(gateway, by("b", "whatever"), 200)
        assert bearer(gateway, by("a", "whatever")).status == 401


def test_a_link_that_is_turned_to_another_file_is_seen(upstream: Upstream, tmp_path: Path) -> None:
    """As a ConfigMap is changed."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "keys.json").write_bytes(jwks(public(rsa(name), kid=f"{name}1")))
    link = tmp_path / "data"
    link.symlink_to("a")
    with start(file_tables(upstream, jwks_file="data/keys.json"), tmp_path) as gateway:
        assert bearer(gateway, by("a", "a1")).status == 200
        fresh = tmp_path / "data.new"
        fresh.symlink_to("b")
        fresh.replace(link)
        wait_status(gateway, by("b", "b1"), 200)


@pytest.mark.parametrize(
    ("source", "content"),
    [("jwks_file", None), ("jwks_file", b"{}"), ("public_key_file", b"-----BEGIN PUBLIC KEY-----\n")],
)
def test_a_file_without_keys_keeps_the_configuration_from_being_put_in_force(
    upstream: Upstream, tmp_path: Path, source: str, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "keys").write_bytes(content)
    gateway = Gateway(file_tables(upstream, **{source: "keys"}), tmp_path)
    with pytest.raises(AssertionError, match=r"plugin auth: keys of https://a\.example"):
        gateway.start()
