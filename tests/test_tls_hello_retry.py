"""A ClientHello that is asked for again (HelloRetryRequest, RFC 8446 4.1.4): who chooses is asked twice."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from support.client import Client
from support.gateway import Gateway, config
from support.tls import Pair, TlsClient, server_certificate

HANDSHAKE, CHANGE_CIPHER_SPEC = 22, 20
# The random of a HelloRetryRequest (RFC 8446 4.1.3) begins with this.
RETRY = bytes.fromhex("cf21ad74e59a6111")


def vector(content: bytes, size: int = 2) -> bytes:
    return len(content).to_bytes(size, "big") + content


def extension(kind: int, content: bytes) -> bytes:
    return struct.pack("!H", kind) + vector(content)


def record(content: bytes, kind: int = HANDSHAKE) -> bytes:
    return bytes([kind, 3, 1]) + vector(content)


def hello(name: str, random: bytes, share: bytes) -> bytes:
    """Of TLS 1.3. share: a key for X25519; b"": none, so that it is asked for."""
    extensions = b"".join(
        (
            extension(0, vector(b"\0" + vector(name.encode()))),
            extension(10, vector(b"\x00\x1d")),
            extension(13, vector(b"\x04\x03\x08\x04")),
            extension(43, vector(b"\x03\x04", 1)),
            extension(51, vector(b"\x00\x1d" + vector(share) if share else b"")),
        )
    )
    body = b"\x03\x03" + random + vector(random, 1) + vector(b"\x13\x01\x13\x02") + b"\x01\x00"
    return b"\x01" + vector(body + vector(extensions), 3)


@pytest.mark.parametrize("name", ["b.example", "nobody.example"])
@pytest.mark.parametrize("whole", [True, False], ids=["one record", "two records"])
def test_a_hello_that_is_asked_for_again(
    tls_engine: dict[str, str], tmp_path: Path, name: str, whole: bool
) -> None:
    """In two records the name is read by OpenSSL alone, and the context is put in another's place then: one
    with which no connection has begun yet."""
    pairs = [Pair(tmp_path, stem, server_certificate(f"{stem}.example")) for stem in ("a", "b")]
    tables = config(
        listener={"tls": {"certificates": [each.table for each in pairs]}}, route={"respond": {"status": 200}}
    )
    with Gateway(tables, tmp_path, env=tls_engine) as gateway:
        workers = list(gateway.workers)
        random = os.urandom(32)
        with Client(gateway.address) as client:
            first = hello(name, random, b"")
            client.send(record(first) if whole else record(first[:40]) + record(first[40:]))
            assert client.stream.exactly(5, "a record")[0] == HANDSHAKE
            assert RETRY in client.stream.exactly(40, "the retry")
            client.send(record(b"\x01", CHANGE_CIPHER_SPEC) + record(hello(name, random, os.urandom(32))))
            # Its keys are nobody's: the answer is there, and can't be read.
            assert client.stream.exactly(100, "the answer")
        with TlsClient(gateway.address, "b.example") as other:
            assert other.get().status == 200
        assert gateway.workers == workers
