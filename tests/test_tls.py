"""TLS with clients: the certificate by the name asked for, versions, tickets, what the service is told."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import StartGateway
from support.client import Client, request
from support.gateway import Gateway, config
from support.tls import (
    Pair,
    TlsClient,
    authority_file,
    client_context,
    server_certificate,
)
from support.upstream import Upstream, free_port

from fastgate._core import set_ciphersuites

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
BOTH = pytest.mark.parametrize("version", [V12, V13], ids=["1.2", "1.3"])


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    folder = tmp_path_factory.mktemp("certificates")
    names = {
        "first": ("test.example", "127.0.0.1"),
        "exact": ("a.wild.example",),
        "wild": ("*.wild.example",),
        "both": ("both.example",),
    }
    made = {stem: Pair(folder, stem, server_certificate(*of)) for stem, of in names.items()}
    made["both-rsa"] = Pair(folder, "both-rsa", server_certificate("both.example", rsa_key=True))
    return made


@pytest.fixture(scope="module")
def module_gateway(
    module_upstream: Upstream,
    pairs: dict[str, Pair],
    tmp_path_factory: pytest.TempPathFactory,
    tls_engine: dict[str, str],
) -> Iterator[Gateway]:
    everything = {"certificates": [pair.table for pair in pairs.values()]}
    listeners: list[dict[str, Any]] = [
        {"name": "main", "bind": "127.0.0.1:0", "tls": everything, "timeouts": {"head": "500ms"}},
        {"name": "plain", "bind": "127.0.0.1:0"},
        {
            "name": "modern",
            "bind": "127.0.0.1:0",
            "tls": {"certificates": [pairs["first"].table], "profile": "modern"},
        },
        {
            "name": "proxy",
            "bind": "127.0.0.1:0",
            "proxy_protocol": True,
            "tls": {"certificates": [pairs["first"].table]},
        },
    ]
    routes: list[dict[str, Any]] = [
        {"name": "elsewhere", "match": {"path": "/elsewhere"}, "redirect": {"path": "/there"}},
        {"name": "all", "upstream": "up"},
    ]
    tables = config(module_upstream.address, listeners=listeners, routes=routes)
    with Gateway(tables, tmp_path_factory.mktemp("gateway"), env=tls_engine) as gateway:
        yield gateway


@pytest.fixture
def gateway(module_gateway: Gateway) -> Gateway:
    return module_gateway


# -- the common case


@BOTH
def test_requests_pass(gateway: Gateway, upstream: Upstream, version: ssl.TLSVersion) -> None:
    """Several on one connection, and the service is told that it was https."""
    mark = upstream.mark()
    with TlsClient(gateway.addresses["main"], context=client_context(version)) as client:
        for _ in range(3):
            assert client.get("/").status == 200
        assert client.sock.selected_alpn_protocol() is None
    assert [seen.get("x-forwarded-proto") for seen in mark.wait(3)] == ["https"] * 3


def test_alpn(gateway: Gateway) -> None:
    context = client_context()
    context.set_alpn_protocols(["h3", "http/1.1"])
    with TlsClient(gateway.addresses["main"], context=context) as client:
        assert client.sock.selected_alpn_protocol() == "http/1.1"
        assert client.get().status == 200


def test_the_log_tells(gateway: Gateway) -> None:
    since = gateway.mark()
    with TlsClient(gateway.addresses["main"], "A.wild.example", context=client_context(V13)) as client:
        client.get()
    with TlsClient(gateway.addresses["main"], None, context=client_context(V12)) as client:
        client.get()
    with gateway.client("plain") as plain:
        plain.get()
    first, second, third = gateway.wait_log(since, 3)
    assert (first["tls"], first["sni"]) == ("TLSv1.3", "a.wild.example")
    assert first["tls_cipher"].startswith("TLS_")
    assert (second["tls"], second["sni"]) == ("TLSv1.2", None)
    assert second["tls_cipher"].startswith("ECDHE-ECDSA-")
    assert (third["tls"], third["tls_cipher"], third["sni"]) == (None, None, None)


def test_a_redirect_stays_with_https(gateway: Gateway) -> None:
    with TlsClient(gateway.addresses["main"]) as client:
        assert client.get("/elsewhere").get("location") == "https://test.example/there"


# -- certificates


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("test.example", "first"),
        ("a.wild.example", "exact"),
        ("A.WILD.EXAMPLE", "exact"),
        ("b.wild.example", "wild"),
        ("a.b.wild.example", "first"),
        ("wild.example", "first"),
        ("unknown.example", "first"),
        (None, "first"),
    ],
)
def test_the_name_chooses(gateway: Gateway, pairs: dict[str, Pair], name: str | None, shown: str) -> None:
    with TlsClient(gateway.addresses["main"], name, context=client_context(verify=False)) as client:
        assert client.shown == pairs[shown].issued.der
        assert client.get().status == 200


def test_rsa_beside_ecdsa(gateway: Gateway, pairs: dict[str, Pair]) -> None:
    """Each client gets what it can verify."""
    for ciphers, shown in (
        ("ECDHE-RSA-AES128-GCM-SHA256", "both-rsa"),
        ("ECDHE-ECDSA-AES128-GCM-SHA256", "both"),
    ):
        context = client_context(V12)
        context.set_ciphers(ciphers)
        with TlsClient(gateway.addresses["main"], "both.example", context=context) as client:
            assert client.shown == pairs[shown].issued.der


# -- versions, ciphers and tickets


@pytest.mark.parametrize(
    ("version", "offered", "chosen"),
    [
        (V13, "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256"),
        (V13, "TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_256_GCM_SHA384"),
        (V13, "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"),
        (V12, "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256"),
        (V12, "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"),
    ],
)
def test_who_chooses_the_cipher(
    gateway: Gateway, tls_engine: dict[str, str], version: ssl.TLSVersion, offered: str, chosen: str
) -> None:
    """The gateway, unless a client prefers ChaCha20, which those do that have no AES in hardware."""
    context = client_context(version)
    if version == V12:
        context.set_ciphers(offered)
    else:
        assert set_ciphersuites(context, offered)
    with TlsClient(gateway.addresses["main"], context=context) as client:
        used = client.sock.cipher()
        assert used is not None
        if tls_engine and chosen == "TLS_AES_128_GCM_SHA256":
            chosen = "TLS_AES_256_GCM_SHA384"  # Python has no call for the order, which is OpenSSL's then
        assert used[0] == chosen


def test_modern_refuses_old_versions(gateway: Gateway) -> None:
    with pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"):
        TlsClient(gateway.addresses["modern"], context=client_context(V12))
    with TlsClient(gateway.addresses["modern"], context=client_context(V13)) as client:
        assert client.get().status == 200


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
def test_tls_1_1_is_refused(gateway: Gateway) -> None:
    context = client_context(ssl.TLSVersion.TLSv1_1)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"):
        TlsClient(gateway.addresses["main"], context=context)


@BOTH
def test_resumption(gateway: Gateway, version: ssl.TLSVersion) -> None:
    context = client_context(version)
    with TlsClient(gateway.addresses["main"], context=context) as client:
        assert client.get().status == 200
        assert not client.sock.session_reused
        session = client.sock.session
    with TlsClient(gateway.addresses["main"], context=context, session=session) as client:
        assert client.sock.session_reused
        assert client.get().status == 200


@BOTH
def test_a_ticket_is_good_for_one_listener(gateway: Gateway, version: ssl.TLSVersion) -> None:
    """Another may ask its clients for certificates."""
    context = client_context(V13)
    with TlsClient(gateway.addresses["main"], context=context) as client:
        assert client.get().status == 200
        session = client.sock.session
    with TlsClient(gateway.addresses["modern"], context=context, session=session) as client:
        assert not client.sock.session_reused
        assert client.get().status == 200


# -- beside TLS


def test_http_without_tls_is_told_so(gateway: Gateway) -> None:
    since = gateway.mark()
    with gateway.client("main") as client:
        response = client.get()
        assert response.status == 400
        assert b"plain-http" in response.body
        assert client.ended() == "eof"
    (line,) = gateway.wait_log(since)
    assert (line["reason"], line["tls"]) == ("plain-http", None)


def test_behind_a_proxy_header(gateway: Gateway, upstream: Upstream) -> None:
    mark = upstream.mark()
    header = b"PROXY TCP4 203.0.113.7 203.0.113.1 5000 443\r\n"
    with TlsClient(gateway.addresses["proxy"], before=header) as client:
        assert client.get().status == 200
    assert mark.one().get("x-forwarded-for") == "203.0.113.7"


def test_a_proxy_header_in_pieces(gateway: Gateway) -> None:
    """The last of them together with the ClientHello."""
    hello, end = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = client_context().wrap_bio(end, hello, server_hostname="test.example")
    with pytest.raises(ssl.SSLWantReadError):
        session.do_handshake()
    with gateway.client("proxy") as client:
        client.send_pieces(b"PROXY TCP4 203.0.113.7 ", b"203.0.113.1 5000 443\r\n" + hello.read())
        while True:
            assert client.stream.fill("the handshake")
            end.write(client.stream.some(65536, "the handshake"))
            try:
                session.do_handshake()
            except ssl.SSLWantReadError:
                continue
            break
        session.write(request())
        client.send(hello.read())
        while True:
            assert client.stream.fill("the answer")
            end.write(client.stream.some(65536, "the answer"))
            try:
                answer = session.read(65536)
            except ssl.SSLWantReadError:
                continue
            break
        assert answer.startswith(b"HTTP/1.1 200 ")


def test_without_its_proxy_header(gateway: Gateway) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        TlsClient(gateway.addresses["proxy"])


# -- real clients


def test_curl(gateway: Gateway, tmp_path: Path) -> None:
    address = gateway.addresses["main"]
    assert not isinstance(address, str)
    url = f"https://test.example:{address[1]}/"
    common = [
        "-sS",
        "--cacert",
        authority_file(tmp_path),
        "--resolve",
        f"test.example:{address[1]}:127.0.0.1",
    ]
    common += ["-o", "/dev/null", "-w", "%{http_code}"]
    done = subprocess.run(
        ["curl", *common, url, "--next", *common, "--data-binary", "@/bin/sh", url],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("200200", "")


async def test_httpx(gateway: Gateway) -> None:
    address = gateway.addresses["main"]
    async with httpx.AsyncClient(verify=client_context()) as client:
        for _ in range(2):
            assert (await client.get(f"https://127.0.0.1:{address[1]}/")).status_code == 200


def test_s_client(gateway: Gateway, tmp_path: Path) -> None:
    """Renegotiation (TLS 1.2) is refused; nothing is compressed."""
    address = gateway.addresses["main"]
    there = ["-connect", f"127.0.0.1:{address[1]}", "-servername", "test.example"]
    done = subprocess.run(
        ["openssl", "s_client", *there, "-tls1_2", "-CAfile", authority_file(tmp_path)],
        input="R\n",
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert "Verify return code: 0 (ok)" in done.stdout
    assert "Compression: NONE" in done.stdout
    assert "no renegotiation" in done.stderr


# -- redirect and HSTS


def test_redirect_and_hsts(start_gateway: StartGateway, upstream: Upstream, pairs: dict[str, Pair]) -> None:
    secure, plain = free_port(), free_port()
    tls = {"certificates": [pairs["first"].table], "redirect_from": f"127.0.0.1:{plain}"}
    gateway = start_gateway(config(upstream.address, listener={"bind": f"127.0.0.1:{secure}", "tls": tls}))
    with Client(("127.0.0.1", plain)) as client:
        response = client.get("/a/b?c=d")
        assert response.status == 308
        assert response.get("location") == f"https://test.example:{secure}/a/b?c=d"
        assert response.get("strict-transport-security") is None
        # RFC 8555 8.3: an authority that validates comes without TLS.
        assert client.get("/.well-known/acme-challenge/x").status == 404
    with TlsClient(gateway.addresses["main"]) as client:
        assert client.get().get("strict-transport-security") == "max-age=31536000"
        # Also with an answer that no route gives; never without TLS (RFC 6797 7.2).
        refused = client.request(request(lines=("Host: another.example",)))
        assert refused.status == 400
        assert refused.get("strict-transport-security") == "max-age=31536000"
    with gateway.client("main") as client:
        assert client.get().get("strict-transport-security") is None
