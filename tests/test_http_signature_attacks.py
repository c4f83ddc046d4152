"""Attacks on the plugin hmac, each refused with the reason that the log tells."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence

import pytest
from support.client import request
from support.gatekeepers import ask, assert_refused, assert_refused_because
from support.gateway import Gateway
from support.signing import ENVIRON, RSA, SIGNERS, content_digest, pem, sign_hmac, signed, tables
from support.upstream import Upstream

REQUIRED, FAILED = "authentication-required", "authentication-failed"
HOST = "test.example"
GET = {'"@method"': "GET", '"@authority"': HOST, '"@path"': "/all", '"@query"': "?"}
BODY = b"hello"
POST = {**GET, '"@method"': "POST", '"content-digest"': content_digest(BODY)}
DIGEST = "Content-Digest: " + content_digest(BODY)


@pytest.fixture(scope="module")
def module_gateway(module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    with Gateway(tables(module_upstream.address), folder, env=ENVIRON) as gateway:
        yield gateway


Lines = Callable[[], Sequence[str]]


def post(*lines: str, digest: str = DIGEST) -> list[str]:
    return [*lines, digest]


def swapped(lines: tuple[str, str], old: str, new: str) -> list[str]:
    """Another Signature-Input than the one that was signed."""
    assert old in lines[0]
    return [lines[0].replace(old, new), lines[1]]


def twice() -> list[str]:
    """The same component with its parameters in another order is the same (RFC 9421 2)."""
    lines = signed({'"x-d";key="a";sf': "1"})
    return [*swapped(lines, '"x-d";key="a";sf', '"x-d";key="a";sf "x-d";sf;key="a"'), "X-D: a=1"]


GET_ATTACKS: list[tuple[str, str, Lines, str]] = [
    ("no Signature-Input", "/all", lambda: [signed(GET)[1]], "0 signatures by known keys"),
    ("no Signature", "/all", lambda: [signed(GET)[0]], "missing"),
    ("another label", "/all", lambda: [signed(GET)[0], signed(GET, label="b")[1]], "missing"),
    ("unknown key", "/all", lambda: signed(GET, key_id="nobody"), "0 signatures"),
    ("no keyid", "/all", lambda: signed(GET, key_id=""), "0 signatures"),
    ("keyid is a token", "/all", lambda: swapped(signed(GET), '"hmac"', "hmac"), "keyid is no string"),
    ("two of ours", "/all", lambda: [*signed(GET), *signed(GET, label="sig2")], "2 signatures"),
    ("a label twice", "/all", lambda: [*signed(GET), *signed(GET)], "was there before"),
    ("another secret", "/all", lambda: signed(GET, sign=lambda base: sign_hmac(base, b"x" * 32)), "not fit"),
    (
        "the public key as the secret",
        "/all",
        lambda: signed(GET, key_id="rsa-v1_5-sha256", sign=lambda base: sign_hmac(base, pem(RSA).encode())),
        "not fit",
    ),
    (
        "another algorithm with the key",
        "/all",
        lambda: signed(GET, key_id="rsa-pss-sha512", sign=SIGNERS["rsa-v1_5-sha256"]),
        "not fit",
    ),
    ("another alg", "/all", lambda: signed(GET, params=';alg="hmac-sha512"'), "alg is another"),
    ("alg none", "/all", lambda: signed(GET, sign=lambda base: b"", params=';alg="none"'), "alg is another"),
    ("empty signature", "/all", lambda: signed(GET, sign=lambda base: b""), "not fit"),
    ("signature cut short", "/all", lambda: signed(GET, sign=lambda base: sign_hmac(base)[:16]), "not fit"),
    (
        "more than r and s",
        "/all",
        lambda: signed(GET, key_id="ecdsa-p256-sha256", sign=lambda base: SIGNERS["ed25519"](base) + b"x"),
        "not fit",
    ),
    (
        "r and s of zero",
        "/all",
        lambda: signed(GET, key_id="ecdsa-p256-sha256", sign=lambda base: bytes(64)),
        "not fit",
    ),
    ("signature is a string", "/all", lambda: [signed(GET)[0], 'Signature: sig1="abc"'], "no byte sequence"),
    ("no inner list", "/all", lambda: ['Signature-Input: sig1="@method"', signed(GET)[1]], "no inner list"),
    ("not structured", "/all", lambda: ["Signature-Input: sig1=(", signed(GET)[1]], "at character"),
    (
        "oversized",
        "/any",
        lambda: [*signed({f'"x-{n}"': "" for n in range(65)}), *(f"X-{n}:" for n in range(65))],
        "more than 64",
    ),
    # What was signed is not what came.
    ("another method", "/all", lambda: signed({**GET, '"@method"': "PUT"}), "not fit"),
    ("another host", "/all", lambda: signed({**GET, '"@authority"': "evil.example"}), "not fit"),
    ("another path", "/all/x", lambda: signed(GET), "not fit"),
    ("more query", "/all?admin=1", lambda: signed(GET), "not fit"),
    (
        "fewer components than signed",
        "/all",
        lambda: swapped(signed({**GET, '"x-a"': "1"}), ' "x-a"', ""),
        "not fit",
    ),
    (
        "more components than signed",
        "/all",
        lambda: [*swapped(signed(GET), '"@query"', '"@query" "x-a"'), "X-A: 1"],
        "not fit",
    ),
    ("parameters changed", "/all", lambda: swapped(signed(GET), ";created", ';nonce="a";created'), "not fit"),
    (
        "a line feed forges a line",
        "/any",
        lambda: [*signed({'"x-a"': '1\n"x-b": 2'}), "X-A: 1", "X-B: 2"],
        "not fit",
    ),
    # Too little is signed.
    ("no path", "/all", lambda: signed({k: v for k, v in GET.items() if k != '"@path"'}), "covered: @path"),
    ("nothing covered", "/all", lambda: signed({}), "not covered: @authority, @method, @path, @query"),
    (
        "@query-param for @query",
        "/all?a=1",
        lambda: signed(
            {'"@method"': "GET", '"@authority"': HOST, '"@path"': "/all", '"@query-param";name="a"': "1"}
        ),
        "covered: @query",
    ),
    (
        "field for a derived component",
        "/all",
        lambda: [*signed({'"method"': "GET"}), "Method: GET"],
        "covered",
    ),
    # Components that are none.
    ("covered twice", "/any", lambda: twice(), "covered twice"),
    ("field that is not there", "/any", lambda: signed({'"x-a"': ""}), "not in the request"),
    ("field in upper case", "/any", lambda: [*signed({'"X-A"': "1"}), "X-A: 1"], "lower case"),
    ("token as component", "/any", lambda: [*signed({"x-a": "1"}), "X-A: 1"], "no string"),
    ("@status", "/any", lambda: signed({'"@status"': "200"}), "no component of a request"),
    ("@signature-params covered", "/any", lambda: signed({'"@signature-params"': "x"}), "no component"),
    ("req", "/any", lambda: signed({'"@method";req': "GET"}), "parameters"),
    ("tr", "/any", lambda: [*signed({'"x-a";tr': "1"}), "X-A: 1"], "not supported"),
    ("bs and sf", "/any", lambda: [*signed({'"x-a";bs;sf': ":MQ==:"}), "X-A: 1"], "not supported"),
    ("bs=1", "/any", lambda: [*signed({'"x-a";bs=1': ":MQ==:"}), "X-A: 1"], "not supported"),
    ("sf of an unknown field", "/any", lambda: [*signed({'"x-a";sf': "1"}), "X-A: 1"], "not known"),
    (
        "key of no dictionary",
        "/any",
        lambda: [*signed({'"x-a";key="a"': "1"}), "X-A: a=1=2"],
        "no dictionary",
    ),
    ("key that stands twice", "/any", lambda: [*signed({'"x-a";key="a"': "2"}), "X-A: a=1, a=2"], "before"),
    ("key that is not there", "/any", lambda: [*signed({'"x-a";key="b"': "2"}), "X-A: a=1"], "has not the"),
    (
        "parameter that stands twice",
        "/any?a=1&a=2",
        lambda: signed({'"@query-param";name="a"': "1"}),
        "2 times",
    ),
    ("parameter without a name", "/any?a=1", lambda: signed({'"@query-param"': "1"}), "needs its name"),
    ("not ASCII", "/any", lambda: [*signed({'"x-a"': "\u00e4"}), "X-A: \u00e4"], "not ASCII"),
    # Time.
    ("no created", "/any", lambda: signed({}, created=None), "no created"),
    ("created is a string", "/any", lambda: signed({}, created=None, params=';created="1"'), "no integer"),
    ("created is true", "/any", lambda: signed({}, created=None, params=";created"), "no integer"),
    ("created twice", "/any", lambda: signed({}, params=";created=1"), "was there before"),
    ("too old", "/any", lambda: signed({}, created=-310), "older than max_age"),
    ("from the future", "/any", lambda: signed({}, created=20), "in the future"),
    ("expired", "/any", lambda: signed({}, params=f";expires={int(time.time()) - 10}"), "has expired"),
    ("expires is a date", "/any", lambda: signed({}, params=";expires=@99999999999"), "no integer"),
    # Nonce and tag.
    ("no nonce", "/once", lambda: signed({}), "no nonce"),
    ("empty nonce", "/once", lambda: signed({}, params=';nonce=""'), "no nonce"),
    ("oversized nonce", "/once", lambda: signed({}, params=f';nonce="{"n" * 257}"'), "more than 256"),
    ("no tag", "/tagged", lambda: signed({}), "0 signatures"),
    ("another tag", "/tagged", lambda: signed({}, params=';tag="bank"'), "0 signatures"),
]


@pytest.mark.parametrize(
    ("target", "lines", "detail"), [case[1:] for case in GET_ATTACKS], ids=[case[0] for case in GET_ATTACKS]
)
def test_attacks(gateway: Gateway, target: str, lines: Lines, detail: str) -> None:
    assert_refused_because(gateway, lambda: ask(gateway, target, *lines()), 401, FAILED, detail)


MD5 = f"md5=:{base64.b64encode(hashlib.md5(BODY).digest()).decode()}:"
MIXED = f"{content_digest(BODY)}, {content_digest(b'x', 'sha-512')}"

POST_ATTACKS: list[tuple[str, Lines, bytes, str]] = [
    ("another body", lambda: post(*signed(POST)), b"hullo", "not that of the body"),
    ("more body", lambda: post(*signed(POST)), b"hello!", "not that of the body"),
    ("no digest", lambda: [*signed({**GET, '"@method"': "POST"})], BODY, "covered: content-digest"),
    (
        "a digest that is not signed",
        lambda: post(*signed({**GET, '"@method"': "POST"})),
        BODY,
        "covered: content-d",
    ),
    (
        "a part of the digest signed",
        lambda: post(*signed({**GET, '"@method"': "POST", '"content-digest";key="sha-256"': DIGEST[24:]})),
        BODY,
        "covered: content-digest",
    ),
    (
        "md5 alone",
        lambda: post(*signed({**POST, '"content-digest"': MD5}), digest=f"Content-Digest: {MD5}"),
        BODY,
        "neither sha-256 nor sha-512",
    ),
    (
        "one good, one bad",
        lambda: post(*signed({**POST, '"content-digest"': MIXED}), digest=f"Content-Digest: {MIXED}"),
        BODY,
        "sha-512 is not that of the body",
    ),
    (
        "digest is a string",
        lambda: post(
            *signed({**POST, '"content-digest"': 'sha-256="x"'}), digest='Content-Digest: sha-256="x"'
        ),
        BODY,
        "sha-256 is not that of the body",
    ),
    (
        "a second digest field",
        lambda: [*post(*signed(POST)), "Content-Digest: sha-256=:AAAA:"],
        BODY,
        "not fit",
    ),
]


@pytest.mark.parametrize(
    ("lines", "body", "detail"), [case[1:] for case in POST_ATTACKS], ids=[c[0] for c in POST_ATTACKS]
)
def test_attacks_on_the_body(gateway: Gateway, lines: Lines, body: bytes, detail: str) -> None:
    assert_refused_because(
        gateway, lambda: ask(gateway, "/all", *lines(), method="POST", body=body), 401, FAILED, detail
    )


def test_a_body_is_held_up_to_the_limit_and_only_for_who_has_signed(gateway: Gateway) -> None:
    body = b"x" * 2000
    lines = [
        *signed({**POST, '"content-digest"': content_digest(body)}),
        f"Content-Digest: {content_digest(body)}",
    ]
    assert_refused(ask(gateway, "/all", *lines, method="POST", body=body), 413, "body-too-large")
    with gateway.client() as client:
        # Not a byte of the body is sent, nor needed for the answer.
        lines = [*signed(POST, sign=lambda base: bytes(32)), DIGEST, "Content-Length: 1000"]
        client.send(request("POST", "/all", lines=tuple(lines)))
        assert_refused(client.response("POST"), 401, FAILED)


def test_a_nonce_counts_once(gateway: Gateway) -> None:
    lines = signed({}, params=';nonce="n1"')
    assert ask(gateway, "/once", *lines).status == 200
    assert_refused_because(gateway, lambda: ask(gateway, "/once", *lines), 401, FAILED, "replay")
    # Anew by another key, which has nonces of its own; and not again by this one.
    other = signed({}, params=';nonce="n1"', key_id="ed25519", sign=SIGNERS["ed25519"])
    assert ask(gateway, "/once", *other).status == 200
    assert_refused(ask(gateway, "/once", *signed({}, created=-5, params=';nonce="n1"')), 401, FAILED)


def test_who_has_not_signed_uses_up_no_nonce(gateway: Gateway) -> None:
    forged = signed({}, params=';nonce="n2"', sign=lambda base: bytes(32))
    assert_refused(ask(gateway, "/once", *forged), 401, FAILED)
    assert ask(gateway, "/once", *signed({}, params=';nonce="n2"')).status == 200
