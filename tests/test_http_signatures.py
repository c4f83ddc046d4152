"""The plugin hmac: HTTP message signatures (RFC 9421), those of the RFC and our own, and attacks on them."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rfc9421
from conftest import StartGateway
from cryptography.hazmat.primitives.asymmetric import rsa
from support.gatekeepers import ask, assert_refused, problems_of, seen, who
from support.gateway import Gateway, config
from support.signing import ENVIRON, PEMS, SIGNERS, content_digest, pem, signed, tables
from support.upstream import Upstream
from support.wire import Response

from fastgate.plugins._signature_keys import SigningKey, verifier


@pytest.fixture(scope="module")
def module_gateway(module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    with Gateway(tables(module_upstream.address), folder, env=ENVIRON) as gateway:
        yield gateway


# -- the RFC's own


@pytest.mark.parametrize("vector", rfc9421.VECTORS, ids=lambda vector: vector.section)
def test_the_examples_of_the_rfc(gateway: Gateway, vector: rfc9421.Vector) -> None:
    lines = [*rfc9421.LINES, f"Signature-Input: sig={vector.covered}", f"Signature: sig=:{vector.signature}:"]

    def send(*lines: str) -> Response:
        return ask(gateway, rfc9421.TARGET, *lines, method="POST", host="example.com", body=rfc9421.BODY)

    assert send(*lines).status == 200
    changed = vector.signature.replace(vector.signature[5], "A" if vector.signature[5] != "A" else "B", 1)
    assert_refused(send(*lines[:-1], f"Signature: sig=:{changed}:"), 401, FAILED)


def test_the_example_of_a_response() -> None:
    """Whose base is not ours to build: the key alone."""
    fits = verifier(SigningKey(algorithm="ecdsa-p256-sha256", public_key=rfc9421.ECC_P256), Path())
    signature = base64.b64decode(rfc9421.RESPONSE_SIGNATURE)
    assert fits(rfc9421.RESPONSE_BASE.encode(), signature)
    assert not fits(rfc9421.RESPONSE_BASE.replace("200", "201").encode(), signature)


# -- our own

REQUIRED, FAILED = "authentication-required", "authentication-failed"
HOST = "test.example"
GET = {'"@method"': "GET", '"@authority"': HOST, '"@path"': "/all", '"@query"': "?"}
BODY = b"hello"
POST = {**GET, '"@method"': "POST", '"content-digest"': content_digest(BODY)}
DIGEST = "Content-Digest: " + content_digest(BODY)


@pytest.mark.parametrize("algorithm", SIGNERS)
def test_every_algorithm(gateway: Gateway, algorithm: str) -> None:
    key_id = "hmac" if algorithm == "hmac-sha256" else algorithm
    lines = signed(GET, key_id=key_id, sign=SIGNERS[algorithm], params=f';alg="{algorithm}"')
    response = ask(gateway, "/all", *lines, "X-Consumer: bob")
    name, plan, groups = ("alice", "gold", []) if key_id == "hmac" else (algorithm, "", ["public"])
    assert who(response) == {"name": name, "plan": plan, "groups": groups, "scopes": [], "source": "all"}
    assert seen(response)["x-consumer"] == [name]


@pytest.mark.parametrize("name", ["sha-256", "sha-512"])
def test_a_body_is_what_its_signed_digest_says(gateway: Gateway, name: str) -> None:
    digest = content_digest(BODY, name)
    lines = signed({**POST, '"content-digest"': digest})
    response = ask(
        gateway, "/all", *lines, f"Content-Digest: {digest}", method="POST", chunks=[b"he", b"llo"]
    )
    assert who(response)["name"] == "alice"
    assert b"hello" in response.body


COMPONENTS: list[tuple[str, str, dict[str, str], list[str]]] = [
    ("@target-uri", "/any/a?b=%20", {'"@target-uri"': f"http://{HOST}/any/a?b=%20"}, []),
    ("@request-target", "/any/%7ea?b", {'"@request-target"': "/any/%7ea?b"}, []),
    ("absolute form", f"http://{HOST}/any?b", {'"@path"': "/any", '"@query"': "?b",
     '"@target-uri"': f"http://{HOST}/any?b", '"@request-target"': f"http://{HOST}/any?b"}, []),
    ("path as sent", "/any/%7Ea/./b", {'"@path"': "/any/%7Ea/./b"}, []),
    ("@scheme", "/any", {'"@scheme"': "http"}, []),
    ("empty query", "/any?", {'"@query"': "?"}, []),
    ("@query-param", "/any?a=1&b=x+y%2fz%7e&c=", {'"@query-param";name="b"': "x%20y%2Fz%7E",
     '"@query-param";name="c"': ""}, []),
    ("@query-param encoded", "/any?fa%C3%A7ade%22%3A%20=so+me", {'"@query-param";name="fa%C3%A7ade%22%3A%20"':
     "so%20me"}, []),
    ("several fields", "/any", {'"x-a"': "1, 2 ,3"}, ["X-A: 1", "x-a:  2 ,3  "]),
    ("empty field", "/any", {'"x-a"': ""}, ["X-A:"]),
    ("bs", "/any", {'"x-a";bs': ":dmFsdWUsIHdpdGgsIGxvdHM=:, :b2YsIGNvbW1hcw==:"},
     ["X-A: value, with, lots", "X-A: of, commas"]),
    ("bs beyond ASCII", "/any", {'"x-a";bs': ":5A==:"}, ["X-A: \u00e4"]),
    ("key", "/any", {'"x-d";key="b"': "2;x=1;y=2", '"x-d";key="c"': "(a b c)", '"x-d";key="d"': "?1",
     '"x-d";key="a"': "1"}, ["X-D:  a=1, b=2;x=1;y=2, c=(a   b    c), d"]),
    ("key over several fields", "/any", {'"x-d";key="b"': "2"}, ["X-D: a=1", "X-D: b=2"]),
    ("sf", "/any", {'"priority";sf': "u=1, i"}, ["Priority: u=1,   i=?1"]),
    ("nothing", "/any", {}, []),
]  # fmt: skip


@pytest.mark.parametrize(
    ("target", "components", "lines"), [case[1:] for case in COMPONENTS], ids=[case[0] for case in COMPONENTS]
)
def test_components(gateway: Gateway, target: str, components: dict[str, str], lines: list[str]) -> None:
    assert ask(gateway, target, *signed(components), *lines).status == 200
    for identifier, value in components.items():
        other = signed({**components, identifier: value + "x"})
        assert_refused(ask(gateway, target, *other, *lines), 401, FAILED)


@pytest.mark.parametrize("host", [HOST, "Test.EXAMPLE", f"{HOST}:80"])
def test_the_authority_is_in_normal_form(gateway: Gateway, host: str) -> None:
    assert ask(gateway, "/any", *signed({'"@authority"': HOST}), host=host).status == 200


def test_the_target_counts_as_it_came_whatever_is_made_of_it(gateway: Gateway) -> None:
    lines = signed({'"@method"': "GET", '"@target-uri"': f"http://{HOST}/whole?a"})
    assert b"/elsewhere" in ask(gateway, "/whole?a", *lines).body


def test_signatures_of_others_may_stand_beside_ours(gateway: Gateway) -> None:
    ours = signed(GET)
    theirs = signed({'"@method"': "PUT"}, key_id="their proxy", label="proxy")
    assert ask(gateway, "/all", *theirs, *ours).status == 200
    assert (
        ask(gateway, "/tagged", *signed({}, label="a"), *signed({}, label="b", params=';tag="shop"')).status
        == 200
    )


def test_a_key_id_is_any_text(gateway: Gateway) -> None:
    assert ask(gateway, "/all", *signed(GET, key_id="https://keys.example/1")).status == 200


def test_without_a_signature_the_answer_says_what_is_to_be_signed(gateway: Gateway) -> None:
    response = ask(gateway, "/all")
    assert_refused(response, 401, REQUIRED)
    assert response.get("www-authenticate") == 'Signature realm="api"'
    assert response.get("accept-signature") == 'sig1=("@method" "@authority" "@path" "@query");created'


# -- configuration


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ({"algorithm": "none"}, "none"),
        ({"algorithm": "hmac-sha256"}, "needs `secret`"),
        ({"algorithm": "hmac-sha256", "secret": "in the open, where it does not belong"}, "secret"),
        ({"algorithm": "hmac-sha256", "public_key": PEMS["ed25519"]}, "no public key"),
        ({"algorithm": "hmac-sha256", "secret": {"env": "SHORT"}}, "shorter than 32"),
        ({"algorithm": "hmac-sha256", "secret": {"env": "SHORT"}, "secret_encoding": "base64"}, "no base64"),
        ({"algorithm": "ed25519"}, "public_key"),
        ({"algorithm": "ed25519", "public_key": PEMS["ed25519"], "secret": {"env": "SHORT"}}, "no secret"),
    ],
)
def test_what_a_configuration_may_not_say(
    monkeypatch: pytest.MonkeyPatch, key: dict[str, Any], problem: str
) -> None:
    monkeypatch.setenv("SHORT", "not 32 bytes")
    told = problems_of({"use": "hmac", "keys": {"a": key}})
    assert problem in told
    assert "not 32 bytes" not in told


def test_components_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    key = {"algorithm": "ed25519", "public_key": PEMS["ed25519"]}
    assert "@status" in problems_of({"use": "hmac", "keys": {"a": key}, "components": ["@status"]})
    assert "Date" in problems_of({"use": "hmac", "keys": {"a": key}, "components": ["Date"]})


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        (SigningKey(algorithm="ed25519", public_key="garbage"), "no public key in PEM"),
        (SigningKey(algorithm="ed25519", public_key=PEMS["rsa-pss-sha512"]), "none of ed25519"),
        (SigningKey(algorithm="ecdsa-p256-sha256", public_key=PEMS["ed25519"]), "none of ecdsa-p256-sha256"),
        (SigningKey(algorithm="ed25519", public_key_file="missing.pem"), "No such file"),
        (
            SigningKey(algorithm="rsa-pss-sha512", public_key=pem(rsa.generate_private_key(65537, 1024))),
            "too short",
        ),
    ],
    ids=["no key", "RSA for ed25519", "ed25519 for ECDSA", "no file", "1024 bits"],
)
def test_keys_that_are_none_of_the_algorithm(key: SigningKey, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        verifier(key, Path("/nowhere"))


def test_a_gateway_does_not_start_on_a_bad_key(upstream: Upstream, tmp_path: Path) -> None:
    plugin = {"use": "hmac", "keys": {"a": {"algorithm": "ed25519", "public_key": "garbage"}}}
    tables = config(upstream.address, plugins={"x": plugin}, route={"plugins": ["x"]})
    with pytest.raises(AssertionError, match="key 'a': it is no public key"), Gateway(tables, tmp_path):
        pass


def test_a_public_key_in_a_file(start_gateway: StartGateway, upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text(PEMS["ed25519"])
    plugin = {
        "use": "hmac", "components": [],
        "keys": {"a": {"algorithm": "ed25519", "public_key_file": str(tmp_path / "key.pem")}},
    }  # fmt: skip
    gateway = start_gateway(config(upstream.address, plugins={"x": plugin}, route={"plugins": ["x"]}))
    assert ask(gateway, "/", *signed({}, key_id="a", sign=SIGNERS["ed25519"])).status == 200
