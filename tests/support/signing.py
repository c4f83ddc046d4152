"""Signs requests as RFC 9421 says, with nothing of the gateway's: lines are put together by hand."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Any, Final

import rfc9421
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA512
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from support.gatekeepers import WHO
from support.gateway import ROOT, config

Sign = Callable[[bytes], bytes]

SECRET: Final = "a secret that is long enough for SHA-256"
ED25519: Final = ed25519.Ed25519PrivateKey.generate()
P256: Final = ec.generate_private_key(ec.SECP256R1())
RSA: Final = rsa.generate_private_key(65537, 2048)


def pem(key: PrivateKeyTypes) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def sign_hmac(base: bytes, secret: bytes = SECRET.encode()) -> bytes:
    return hmac.digest(secret, base, "sha256")


def sign_p256(base: bytes) -> bytes:
    r, s = decode_dss_signature(P256.sign(base, ec.ECDSA(SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


SIGNERS: Final[dict[str, Sign]] = {
    "hmac-sha256": sign_hmac,
    "ed25519": ED25519.sign,
    "ecdsa-p256-sha256": sign_p256,
    "rsa-v1_5-sha256": lambda base: RSA.sign(base, padding.PKCS1v15(), SHA256()),
    "rsa-pss-sha512": lambda base: RSA.sign(base, padding.PSS(padding.MGF1(SHA512()), 64), SHA512()),
}


def content_digest(body: bytes, name: str = "sha-256") -> str:
    digest = hashlib.new(name.replace("-", ""), body).digest()
    return f"{name}=:{base64.b64encode(digest).decode()}:"


def signed(
    components: dict[str, str],
    *,
    key_id: str = "hmac",
    sign: Sign = sign_hmac,
    label: str = "sig1",
    created: int | None = 0,
    params: str = "",
) -> tuple[str, str]:
    """The lines Signature-Input and Signature. components: identifiers as they are written, and what each is
    worth. created: seconds from now; None: no such parameter. params: more of them."""
    covered = "(" + " ".join(components) + ")"
    covered += "" if created is None else f";created={int(time.time()) + created}"
    covered += (f';keyid="{key_id}"' if key_id else "") + params
    base = "".join(f"{identifier}: {value}\n" for identifier, value in components.items())
    signature = sign(f'{base}"@signature-params": {covered}'.encode())
    return (
        f"Signature-Input: {label}={covered}",
        f"Signature: {label}=:{base64.b64encode(signature).decode()}:",
    )


PEMS: Final = {
    "ed25519": pem(ED25519),
    "ecdsa-p256-sha256": pem(P256),
    "rsa-v1_5-sha256": pem(RSA),
    "rsa-pss-sha512": pem(RSA),
}


def tables(upstream: str) -> dict[str, Any]:
    """A gateway with the plugin hmac in several ways, each on the route of its name."""
    keys: dict[str, Any] = {
        "hmac": {
            "algorithm": "hmac-sha256",
            "secret": {"env": "SIGNING_SECRET"},
            "consumer": "alice",
            "plan": "gold",
        },
        "https://keys.example/1": {"algorithm": "hmac-sha256", "secret": {"env": "SIGNING_SECRET"}},
        **{
            name: {"algorithm": name, "public_key": text, "groups": ["public"]} for name, text in PEMS.items()
        },
    }

    def route(name: str, *plugins: str, **more: Any) -> dict[str, Any]:
        return {
            "name": name,
            "match": {"prefix": f"/{name}"},
            "upstream": "up",
            "plugins": list(plugins),
            **more,
        }

    anything = {"use": "hmac", "keys": keys, "components": []}
    return config(
        upstream,
        routes=[
            route("all", "all", "who"),
            route("any", "any"),
            route("once", "once"),
            route("tagged", "tagged"),
            route("whole", "whole", rewrite={"path": "/elsewhere"}),
            {"name": "foo", "match": {"path": "/foo"}, "upstream": "up", "plugins": ["then"]},
        ],
        plugins={
            "who": WHO,
            "all": {"use": "hmac", "keys": keys, "consumer_header": "X-Consumer", "body_limit": "1KiB"},
            "any": anything,
            "once": {**anything, "require_nonce": True},
            "tagged": {**anything, "tag": "shop"},
            "whole": {"use": "hmac", "keys": keys, "components": ["@method", "@scheme", "@path", "@query"]},
            "then": {
                "use": str(ROOT / "tests/support/then.py") + ":Then",
                "components": [],
                "require_digest": False,
                "keys": {
                    "test-key-rsa-pss": {"algorithm": "rsa-pss-sha512", "public_key": rfc9421.RSA_PSS},
                    "test-key-ed25519": {"algorithm": "ed25519", "public_key": rfc9421.ED25519},
                    "test-shared-secret": {
                        "algorithm": "hmac-sha256",
                        "secret": {"env": "RFC9421_SECRET"},
                        "secret_encoding": "base64",
                    },
                },
            },
        },
    )


#: The secrets that these tables name.
ENVIRON: Final = {"SIGNING_SECRET": SECRET, "RFC9421_SECRET": rfc9421.SHARED_SECRET}
