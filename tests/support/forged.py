"""Forged tokens: the table of attacks on `jwt`, and the keys that they are tried with.

Issuer A signs with RSA ("a1") and EC keys ("a2"), B with a key of its own ("b1"), C with a shared secret.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from joserfc import jwe, jws
from joserfc.jwk import RSAKey

from support.tokens import HMAC, b64, claims, ec, forged, jwks, public, rsa, token

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def write_keys(folder: Path) -> None:
    (folder / "a.json").write_bytes(jwks(public(rsa("a"), kid="a1"), public(ec("a"), kid="a2")))
    (folder / "b.json").write_bytes(jwks(public(rsa("b"), kid="b1")))


def sound(**changes: Any) -> str:
    return token(rsa("a"), "RS256", claims(**changes), kid="a1")


def with_header(**header: Any) -> str:
    """Signed rightly by A, with these in the header."""
    return token(rsa("a"), "RS256", kid=header.pop("kid", "a1"), **header)


def raw_claims(text: str) -> str:
    """Signed rightly by A: a payload as it is written here, in place of the sound one's last "}"."""
    payload = json.dumps(claims())[:-1] + text
    return forged({"alg": "RS256", "kid": "a1"}, payload.encode(), sign_a)


def sign_a(data: bytes) -> bytes:
    return jws.JWSRegistry.algorithms["RS256"].sign(data, rsa("a"))


def hs256(secret: bytes) -> Callable[[bytes], bytes]:
    return lambda data: hmac.new(secret, data, hashlib.sha256).digest()


def es256(r: int, s: int) -> str:
    return forged({"alg": "ES256", "kid": "a2"}, claims(), lambda data: r.to_bytes(32) + s.to_bytes(32))


def es256_der() -> str:
    def sign(data: bytes) -> bytes:
        raw = jws.JWSRegistry.algorithms["ES256"].sign(data, ec("a"))
        return encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:]))

    return forged({"alg": "ES256", "kid": "a2"}, claims(), sign)


def with_signature(change: Callable[[str], str]) -> str:
    head, payload, signature = sound().split(".")
    return f"{head}.{payload}.{change(signature)}"


def other_last_letter(text: str) -> str:
    """The same bytes by a lax decoder: only bits that it ignores differ (256 bytes leave four)."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return text[:-1] + letters[letters.index(text[-1]) ^ 1]


def encrypted() -> str:
    return jwe.encrypt_compact(
        {"alg": "RSA-OAEP", "enc": "A128GCM", "kid": "a1"},
        json.dumps(claims()),
        rsa("a"),
        ["RSA-OAEP", "A128GCM"],
    )


def pem() -> bytes:
    return rsa("a").as_pem(private=False)


def evil() -> RSAKey:
    return rsa("evil")


TOKENS: dict[str, tuple[Callable[[], str], str]] = {
    # -- no signature, or one by something that is public
    "alg none": (lambda: forged({"alg": "none"}, claims()), "alg 'none' is not allowed"),
    "alg None": (lambda: forged({"alg": "None"}, claims()), "is not allowed"),
    "alg NONE": (lambda: forged({"alg": "NONE"}, claims()), "is not allowed"),
    "alg nOnE with the signature of another": (
        lambda: forged({"alg": "nOnE", "kid": "a1"}, claims(), sign_a),
        "is not allowed",
    ),
    "alg empty": (lambda: forged({"alg": ""}, claims(), sign_a), "is not allowed"),
    "alg missing": (lambda: forged({"kid": "a1"}, claims(), sign_a), "is not allowed"),
    "alg rs256": (lambda: forged({"alg": "rs256", "kid": "a1"}, claims(), sign_a), "is not allowed"),
    "alg with a space": (lambda: forged({"alg": "RS256 ", "kid": "a1"}, claims(), sign_a), "is not allowed"),
    "alg an array": (lambda: forged({"alg": ["RS256"], "kid": "a1"}, claims(), sign_a), "alg is no string"),
    "alg null": (lambda: forged({"alg": None, "kid": "a1"}, claims(), sign_a), "alg is no string"),
    "alg that the issuer does not use": (
        lambda: token(rsa("a"), "PS256", kid="a1"),
        "alg 'PS256' is not allowed",
    ),
    "HS256 with the public key's PEM": (
        lambda: forged({"alg": "HS256", "kid": "a1"}, claims(), hs256(pem())),
        "alg 'HS256' is not allowed",
    ),
    "HS256 with the public key's JWK": (
        lambda: forged(
            {"alg": "HS256", "kid": "a1"}, claims(), hs256(json.dumps(public(rsa("a"), kid="a1")).encode())
        ),
        "alg 'HS256' is not allowed",
    ),
    "HS256 with an empty secret": (
        lambda: forged({"alg": "HS256"}, claims(iss="https://c.example"), hs256(b"")),
        "the signature is wrong",
    ),
    "signature missing": (lambda: with_signature(lambda text: ""), "the signature is wrong"),
    "signature dot missing": (lambda: sound().rpartition(".")[0], "three parts"),
    # -- kid is a name, no path and no query
    "kid a path": (lambda: with_header(kid="../../../../dev/null"), "no key for"),
    "kid a path with HS256 and no key": (
        lambda: forged({"alg": "HS256", "kid": "/dev/null"}, claims(), hs256(b"")),
        "alg 'HS256' is not allowed",
    ),
    "kid SQL": (lambda: with_header(kid="a1' UNION SELECT 'secret'; --"), "no key for"),
    "kid a command": (lambda: with_header(kid="a1|/usr/bin/id"), "no key for"),
    "kid a URL": (lambda: with_header(kid="https://evil.example/key.pem"), "no key for"),
    "kid with NUL": (lambda: with_header(kid="a1\0"), "no key for"),
    "kid in other case": (lambda: with_header(kid="A1"), "no key for"),
    "kid very long": (lambda: with_header(kid="a" * 4000), "kid has 4000 letters"),
    "kid empty": (lambda: with_header(kid=""), "kid has 0 letters"),
    "kid a number": (lambda: with_header(kid=1), "kid is no string"),
    "kid an object": (lambda: with_header(kid={"$ne": ""}), "kid is no string"),
    "kid an array": (lambda: with_header(kid=["a1"]), "kid is no string"),
    "kid of a key for another algorithm": (lambda: token(rsa("a"), "RS256", kid="a2"), "no key for"),
    # -- a token brings no key and no extensions
    "jwk": (
        lambda: token(evil(), "RS256", kid="a1", jwk=public(evil(), kid="a1")),
        "the header holds jwk",
    ),
    "jku": (lambda: with_header(jku="https://evil.example/jwks.json"), "the header holds jku"),
    "x5u": (lambda: with_header(x5u="https://evil.example/cert.pem"), "the header holds x5u"),
    "x5c": (lambda: with_header(x5c=["MIIB"]), "the header holds x5c"),
    "crit": (lambda: with_header(crit=["exp"], exp=1), "the header holds crit"),
    "crit empty": (lambda: with_header(crit=[]), "the header holds crit"),
    "b64": (lambda: with_header(b64=False, crit=["b64"]), "the header holds"),
    "zip": (lambda: with_header(zip="DEF"), "the header holds zip"),
    # -- whose key
    "signed by nobody's key": (lambda: token(evil(), "RS256", kid="a1"), "the signature is wrong"),
    "of A, signed by B": (lambda: token(rsa("b"), "RS256", claims(), kid="a1"), "the signature is wrong"),
    "of A, signed by B with B's kid": (lambda: token(rsa("b"), "RS256", claims(), kid="b1"), "no key for"),
    "of B, signed by A": (
        lambda: token(rsa("a"), "RS256", claims(iss="https://b.example"), kid="b1"),
        "the signature is wrong",
    ),
    "of A, signed with C's secret": (
        lambda: token(HMAC, "HS256", claims()),
        "alg 'HS256' is not allowed",
    ),
    "of C, signed by A": (
        lambda: token(rsa("a"), "RS256", claims(iss="https://c.example"), kid="a1"),
        "alg 'RS256' is not allowed",
    ),
    "without kid, signed by B": (lambda: token(rsa("b"), "RS256", claims()), "the signature is wrong"),
    # -- ECDSA
    "ES256 with r = s = 0": (lambda: es256(0, 0), "the signature is wrong"),
    "ES256 with r = 0": (lambda: es256(0, 1), "the signature is wrong"),
    "ES256 with s = 0": (lambda: es256(1, 0), "the signature is wrong"),
    "ES256 with r = s = the order": (lambda: es256(P256_ORDER, P256_ORDER), "the signature is wrong"),
    "ES256 with r = s = 1": (lambda: es256(1, 1), "the signature is wrong"),
    "ES256 in DER": (es256_der, "the signature is wrong"),
    "ES384 by a key on P-384": (lambda: token(ec("a", "P-384"), "ES384", kid="a2"), "is not allowed"),
    "ES256 by a key on P-384": (
        lambda: forged(
            {"alg": "ES256", "kid": "a2"},
            claims(),
            lambda data: jws.JWSRegistry.algorithms["ES384"].sign(data, ec("a", "P-384")),
        ),
        "the signature is wrong",
    ),
    # -- one spelling only
    "signature cut": (lambda: with_signature(lambda text: text[:-2]), "the signature is wrong"),
    "signature cut to no length": (lambda: with_signature(lambda text: text[:-1]), "the signature"),
    "signature padded": (lambda: with_signature(lambda text: text + "=="), "the signature: no base64url"),
    "signature with foreign letters": (
        lambda: with_signature(lambda text: text[:8] + "~~" + text[8:]),
        "the signature: no base64url",
    ),
    "signature in plain base64": (
        lambda: with_signature(lambda text: text[:-8] + "+/+/" + text[-4:]),
        "the signature: no base64url",
    ),
    "signature with other ignored bits": (
        lambda: with_signature(other_last_letter),
        "the signature: no base64url, or not its canonical form",
    ),
    "alg twice": (
        lambda: forged(b'{"alg":"none","alg":"RS256","kid":"a1"}', claims(), sign_a),
        "the header: a JSON member stands twice",
    ),
    "exp twice": (
        lambda: raw_claims(',"exp":1}'),
        "the payload: a JSON member stands twice",
    ),
    "exp twice, once in escapes": (
        lambda: raw_claims(',"\\u0065xp":9999999999}'),
        "the payload: a JSON member stands twice",
    ),
    "header not JSON": (lambda: forged(b"alg", claims(), sign_a), "the header"),
    "header an array": (lambda: forged(b'["RS256"]', claims(), sign_a), "the header: no JSON object"),
    "header in UTF-16": (
        lambda: forged('{"alg":"RS256"}'.encode("utf-16"), claims(), sign_a),
        "the header",
    ),
    "payload a string": (lambda: forged({"alg": "RS256", "kid": "a1"}, b'"x"', sign_a), "no JSON object"),
    "payload empty": (lambda: forged({"alg": "RS256", "kid": "a1"}, b"", sign_a), "the payload"),
    "payload nested deeply": (
        lambda: raw_claims(',"x":' + "[" * 1500 + "]" * 1500 + "}"),
        "the payload",
    ),
    "payload nested too deeply for us": (
        lambda: raw_claims(',"x":' + "[" * 17 + "]" * 17 + "}"),
        "the payload: JSON is nested too deeply",
    ),
    "payload with a lone surrogate": (lambda: raw_claims(',"x":"\\ud800"}'), "the payload"),
    # -- another kind of token
    "JWE": (encrypted, "encrypted (JWE)"),
    "a token in a token": (
        lambda: forged({"alg": "RS256", "kid": "a1", "cty": "JWT"}, sound().encode(), sign_a),
        "holds another token",
    ),
    "an unsecured token in a token": (
        lambda: forged({"alg": "RS256", "kid": "a1"}, forged({"alg": "none"}, claims()).encode(), sign_a),
        "the payload",
    ),
    "a JWS in JSON": (lambda: b64(json.dumps({"payload": "", "signatures": []}).encode()), "three parts"),
    "two dots": (lambda: "..", "the header"),
    # -- claims
    "expired": (lambda: sound(exp=int(time.time()) - 31), "expired"),
    "exp missing": (lambda: sound(exp=None), "exp is missing"),
    "exp null": (lambda: raw_claims_without_exp("null"), "exp is no date"),
    "exp a string": (lambda: sound(exp=str(int(time.time()) + 300)), "exp is no date"),
    "exp true": (lambda: sound(exp=True), "exp is no date"),
    "exp an array": (lambda: sound(exp=[9999999999]), "exp is no date"),
    "exp a float in the past": (lambda: sound(exp=time.time() - 31.5), "expired"),
    "exp NaN": (lambda: raw_claims_without_exp("NaN"), "the payload"),
    "exp Infinity": (lambda: raw_claims_without_exp("Infinity"), "the payload"),
    "exp 1e400": (lambda: raw_claims_without_exp("1e400"), ""),
    "exp beyond all dates": (lambda: sound(exp=10**30), "exp is no date"),
    "exp of 5,000 digits": (lambda: raw_claims_without_exp("9" * 5000), "the payload"),
    "exp negative": (lambda: sound(exp=-1), "exp is no date"),
    "not valid yet": (lambda: sound(nbf=int(time.time()) + 300), "not valid yet"),
    "nbf a string": (lambda: sound(nbf="0"), "nbf is no date"),
    "issued in the future": (lambda: sound(iat=int(time.time()) + 300), "issued in the future"),
    "another audience": (lambda: sound(aud="payments"), "another audience"),
    "other audiences": (lambda: sound(aud=["payments", "Orders", "orders/"]), "another audience"),
    "aud missing": (lambda: sound(aud=None), "aud is missing"),
    "aud an object": (lambda: sound(aud={"orders": True}), "aud is missing, or not made of strings"),
    "aud with a number": (lambda: sound(aud=["orders", 1]), "aud is missing, or not made of strings"),
    "another issuer": (lambda: sound(iss="https://evil.example"), "is not trusted"),
    "issuer with a slash": (lambda: sound(iss="https://a.example/"), "is not trusted"),
    "issuer in other case": (lambda: sound(iss="HTTPS://A.EXAMPLE"), "is not trusted"),
    "issuer missing": (lambda: sound(iss=None), "is not trusted"),
    "issuer an array": (lambda: sound(iss=["https://a.example"]), "is not trusted"),
    "sub missing": (lambda: sound(sub=None), "names no consumer"),
    "sub a number": (lambda: sound(sub=1), "names no consumer"),
    "sub an object": (lambda: sound(sub={"a": 1}), "names no consumer"),
    "sub with a line end": (lambda: sound(sub="alice\r\nX-Admin: 1"), "names no consumer"),
    "a claim that splits the header": (lambda: sound(roles="a\r\nX-Admin: 1"), "can't go into X-Roles"),
    "a claim that splits the list": (lambda: sound(roles=["user,admin"]), "can't go into X-Roles"),
    "a claim that is an object": (lambda: sound(roles={"admin": True}), "can't go into X-Roles"),
}  # fmt: skip


def raw_claims_without_exp(exp: str) -> str:
    payload = json.dumps(claims(exp=None))[:-1] + f',"exp":{exp}}}'
    return forged({"alg": "RS256", "kid": "a1"}, payload.encode(), sign_a)
