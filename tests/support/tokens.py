"""Signing keys, tokens (sound and forged), and what a gateway answered to one."""

from __future__ import annotations

import base64
import functools
import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from joserfc import jws
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

from support.client import request
from support.gateway import Gateway
from support.wire import Response, values

SECRET = "a secret of exactly 64 bytes, for HS256, HS384 and HS512 alike.."
HMAC = OctKey.import_key(SECRET.encode())


@functools.cache
def rsa(name: str = "", bits: int = 2048) -> RSAKey:
    """A key of its own for each name."""
    return RSAKey.generate_key(bits)


@functools.cache
def ec(name: str = "", curve: str = "P-256") -> ECKey:
    return ECKey.generate_key(curve)


@functools.cache
def ed(name: str = "") -> OKPKey:
    return OKPKey.generate_key("Ed25519")


def public(key: Key, **members: Any) -> dict[str, Any]:
    """The key as a JWK without its private members, with others added."""
    return {**key.as_dict(private=False), **members}


def jwks(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


def claims(**changes: Any) -> dict[str, Any]:
    """Those of a sound token of issuer "https://a.example" for "orders"; None takes one away."""
    now = int(time.time())
    sound = {"iss": "https://a.example", "aud": "orders", "sub": "alice", "iat": now, "exp": now + 300}
    return {name: value for name, value in (sound | changes).items() if value is not None}


def token(key: Key, alg: str, payload: dict[str, Any] | None = None, **header: Any) -> str:
    """A token signed as it should be."""
    signed = jws.JWSRegistry.algorithms[alg]
    return forged({"alg": alg, **header}, payload or claims(), lambda data: signed.sign(data, key))


def forged(
    header: dict[str, Any] | bytes,
    payload: dict[str, Any] | bytes,
    sign: Callable[[bytes], bytes] = lambda data: b"",
) -> str:
    """A token made of any parts."""
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, payload)]
    signed = ".".join(map(b64, parts))
    return f"{signed}.{b64(sign(signed.encode()))}"


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Answer(NamedTuple):
    """What became of a request. detail: as the log has it."""

    status: int
    code: str
    detail: str
    challenge: str
    body: bytes


def ask(gateway: Gateway, *lines: str, target: str = "/", method: str = "GET") -> Answer:
    """Sends one request with these field lines, and waits for the log line of a refusal."""
    return ask_all(gateway, {"": request(method, target, lines=lines)})[""]


def bearer(gateway: Gateway, text: str, *lines: str, target: str = "/") -> Answer:
    """`ask` with a bearer token."""
    return ask(gateway, f"Authorization: Bearer {text}", *lines, target=target)


def ask_all(gateway: Gateway, requests: dict[str, bytes]) -> dict[str, Answer]:
    """Sends requests one after the other, and waits but once for the log lines, which take their time."""
    responses = {}
    for name, data in requests.items():
        with gateway.client() as client:
            responses[name] = client.request(data)
    refused = {values(found.fields, "x-request-id")[0] for found in responses.values() if found.status >= 400}
    records = _records(gateway, refused)
    return {name: _answer(response, records) for name, response in responses.items()}


def _records(gateway: Gateway, request_ids: set[str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    seen = 0
    while not request_ids <= found.keys():
        for record in gateway.wait_log(seen):
            seen += 1
            found[record["request_id"]] = record
    return found


def _answer(response: Response, records: dict[str, dict[str, Any]]) -> Answer:
    challenge = ", ".join(values(response.fields, "www-authenticate"))
    if response.status < 400:
        return Answer(response.status, "", "", challenge, response.body)
    record = records[values(response.fields, "x-request-id")[0]]
    return Answer(response.status, record["reason"], record["detail"] or "", challenge, response.body)
