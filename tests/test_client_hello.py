"""The name that a ClientHello asks for: read before OpenSSL begins, and left to it where it is unusual."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any, cast

import pytest
from conftest import StartGateway
from hypothesis import example, given
from hypothesis import strategies as st
from support.gateway import config
from support.tls import Pair, client_context, server_certificate

from fastgate import _core


def hello(name: str | None, *, alpn: list[str] | None = None, version: ssl.TLSVersion | None = None) -> bytes:
    """As Python's client sends it, in one record."""
    context = client_context(version, verify=False)
    if alpn:
        context.set_alpn_protocols(alpn)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def record(body: bytes) -> bytes:
    return b"\x16\x03\x01" + len(body).to_bytes(2, "big") + body


def with_extensions(extensions: bytes) -> bytes:
    """A ClientHello with these alone."""
    inside = b"\x03\x03" + bytes(32) + b"\0" + b"\0\x02\x13\x01" + b"\x01\0"
    inside += len(extensions).to_bytes(2, "big") + extensions
    return record(b"\x01" + len(inside).to_bytes(3, "big") + inside)


def names(*of: tuple[int, bytes]) -> bytes:
    """The extension server_name."""
    entries = b"".join(bytes([kind]) + len(name).to_bytes(2, "big") + name for kind, name in of)
    listed = len(entries).to_bytes(2, "big") + entries
    return b"\0\0" + len(listed).to_bytes(2, "big") + listed


PLAIN = hello("a.test")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("alpn", [None, ["h2", "http/1.1"]])
def test_what_a_client_sends(version: ssl.TLSVersion, alpn: list[str] | None) -> None:
    assert _core.server_name(hello("www.Example.COM", alpn=alpn, version=version)) == "www.example.com"
    assert _core.server_name(hello("a" * 63 + ".test", alpn=alpn, version=version)) == "a" * 63 + ".test"
    assert _core.server_name(hello(None, alpn=alpn, version=version)) == ""


def test_what_comes_behind_it_is_not_looked_at() -> None:
    assert _core.server_name(PLAIN + b"\x16more") == "a.test"


def test_no_extensions() -> None:
    inside = b"\x03\x03" + bytes(32) + b"\0" + b"\0\x02\x00\x2f" + b"\x01\0"
    assert _core.server_name(record(b"\x01" + len(inside).to_bytes(3, "big") + inside)) == ""


@pytest.mark.parametrize(
    "extensions",
    [
        names((0, b"a.test"), (0, b"b.test")),
        names((1, b"a.test")),
        names((0, b"")),
        names((0, b"a" * 256)),
        names((0, b"a\0.test")),
        names((0, "ä.test".encode())),
        names((0, b"a test")),
        names(),
        b"\0\0\0\0",
        b"\0\0\0\x09\0\x07\0\0\x05a.tes",
        b"\0\0\0\x09\0\x06\0\0\x04a.te",
        b"\0\0\0\x0a\0\x07\0\0\x04a.te",
        b"\0\x10\0",
        b"\0\x10\0\x05ab",
    ],
)
def test_what_is_left_to_openssl(extensions: bytes) -> None:
    assert _core.server_name(with_extensions(extensions)) is None


@given(st.integers(0, len(PLAIN) - 1))
def test_a_part_of_it_says_nothing(size: int) -> None:
    assert _core.server_name(PLAIN[:size]) is None


@given(st.binary(max_size=300) | st.builds(record, st.binary(max_size=300).map(lambda rest: b"\x01" + rest)))
@example(b"\x16\x03\x01\xff\xff\x01\xff\xff\xff")
def test_anything_is_read_within_its_bounds(data: bytes) -> None:
    assert _core.server_name(data) in (None, "") or 0 < len(_core.server_name(data) or "") <= 255


@given(st.lists(st.tuples(st.integers(0, len(PLAIN) - 1), st.integers(0, 255)), max_size=4))
def test_one_that_was_changed(changes: list[tuple[int, int]]) -> None:
    data = bytearray(PLAIN)
    for at, value in changes:
        data[at] = value
    found = _core.server_name(bytes(data))
    assert found is None or found == "" or found.encode() in bytes(data).lower()


def test_a_hello_in_two_records_gets_its_certificate(start_gateway: StartGateway, tmp_path: Path) -> None:
    """RFC 8446 5.1 lets a client cut it anywhere."""
    pairs = [Pair(tmp_path, name, server_certificate(f"{name}.test")) for name in ("first", "second")]
    tls = {"certificates": [{"cert": str(pair.cert), "key": str(pair.key)} for pair in pairs]}
    gateway = start_gateway(
        config(routes=[{"name": "all", "respond": {"status": 204}}], listener={"tls": tls})
    )
    for name in ("first.test", "second.test"):
        for cut in (None, 1, 60):
            assert shown(gateway.port, name, cut) == name


def shown(port: int, name: str, cut: int | None) -> str:
    """The name in the certificate that comes. cut: of the ClientHello, how much is in the first record."""
    context = client_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as wire:
        first = True
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                data = outgoing.read()
                if first and cut is not None:
                    assert data[0] == 22
                    data = record(data[5 : 5 + cut]) + record(data[5 + cut :])
                first = False
                wire.sendall(data)
                incoming.write(wire.recv(65536))
        found = client.getpeercert()
        assert found is not None
        [(_, shown_name)] = cast(Any, found["subjectAltName"])
        return str(shown_name)
