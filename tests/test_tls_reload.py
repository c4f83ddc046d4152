"""Certificates that change while connections stand: by a reload, and at run time."""

from __future__ import annotations

import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import StartGateway
from support.gateway import ROOT, config
from support.tls import AUTHORITY, Pair, TlsClient, client_context, server_certificate

from fastgate.config import model
from fastgate.server.certificates import CertificateStore, ListenerCertificates
from fastgate.server.tickets import TicketKeys

HELLO: dict[str, Any] = {"respond": {"status": 200, "body": "hello"}}


def tables(*pairs: Pair, **tls: Any) -> dict[str, Any]:
    listener = {"tls": {"certificates": [pair.table for pair in pairs], **tls}}
    return config(listener=listener, route=HELLO)


def test_files_are_read_anew(start_gateway: StartGateway, tmp_path: Path) -> None:
    """Who is connected notices nothing; who comes sees the new certificate, and tickets are still good."""
    pair = Pair(tmp_path, "first", server_certificate("test.example"))
    gateway = start_gateway(tables(pair))
    context = client_context()
    with TlsClient(gateway.address, context=context) as standing:
        assert standing.get().status == 200
        session, before = standing.sock.session, standing.shown
        for _ in range(3):
            pair.write(server_certificate("test.example"))
            gateway.reload()
            assert standing.get().status == 200
            with TlsClient(gateway.address, context=client_context()) as fresh:
                assert fresh.shown == pair.issued.der != before
                assert fresh.get().status == 200
        with TlsClient(gateway.address, context=context, session=session) as again:
            assert again.sock.session_reused
            assert again.get().status == 200


@pytest.mark.parametrize("what", ["another's key", "no certificate", "half a file", "gone"])
def test_a_bad_pair_changes_nothing(start_gateway: StartGateway, tmp_path: Path, what: str) -> None:
    pair = Pair(tmp_path, "first", server_certificate("test.example"))
    gateway = start_gateway(tables(pair))
    shown = pair.issued.der
    if what == "another's key":
        pair.key.write_text(server_certificate("test.example").key_pem)
    elif what == "no certificate":
        pair.cert.write_text("hello")
    elif what == "half a file":
        pair.cert.write_text(pair.cert.read_text()[:200])
    else:
        pair.cert.unlink()
    lines = gateway.not_reload()
    assert any("tls.certificates[0]" in line or "cert" in line for line in lines), lines
    with TlsClient(gateway.address) as client:
        assert client.shown == shown
        assert client.get().status == 200


def test_certificates_are_read_anew_alone(start_gateway: StartGateway, tmp_path: Path) -> None:
    """In all workers, for what is in force: what its file says by now does not count."""
    pair = Pair(tmp_path, "first", server_certificate("test.example"))
    made = tables(pair) | {"admin": {"bind": "127.0.0.1:0"}}
    gateway = start_gateway({**made, "server": {**made["server"], "workers": 3}})
    gateway.write("nonsense")
    before = gateway.admin("/configuration")
    with TlsClient(gateway.address) as standing:
        assert standing.get().status == 200
        pair.write(server_certificate("test.example"))
        found = gateway.admin("/certificates/reload", "POST", {})
        assert (found["listeners"]["changed"], found["version"]) == (["main"], 1)
        assert found["routes"]["kept"] == 1
        for _ in range(12):
            with TlsClient(gateway.address) as fresh:
                assert fresh.shown == pair.issued.der
        assert standing.get().status == 200
    [view] = gateway.admin("/certificates")["certificates"]
    assert view["sha256"] == pair.issued.fingerprint
    gateway.wait_stderr("fastgate: certificates reloaded (listeners: 1 changed)")
    now = gateway.admin("/configuration")
    assert (now["etag"], now["configuration"]) == (before["etag"], before["configuration"])


def test_certificates_are_read_anew_all_or_none(start_gateway: StartGateway, tmp_path: Path) -> None:
    """And the command says which does not fit, and where it is named."""
    pairs = [Pair(tmp_path, name, server_certificate(f"{name}.example")) for name in ("test", "second")]
    gateway = start_gateway(tables(*pairs) | {"admin": {"bind": "127.0.0.1:0"}})
    before = [pair.issued.der for pair in pairs]
    for pair, name in zip(pairs, ("test", "second"), strict=True):
        pair.write(server_certificate(f"{name}.example"))
    pairs[1].key.write_text(server_certificate("second.example").key_pem)

    def shown() -> list[bytes]:
        found = []
        for name in ("test.example", "second.example"):
            with TlsClient(gateway.address, name) as client:
                found.append(client.shown)
        return found

    def command() -> subprocess.CompletedProcess[str]:
        address = "{}:{}".format(*gateway.addresses["admin API"])
        words = [sys.executable, "-m", "fastgate", "cert", "reload", "--admin", address]
        return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=30)

    refused = command()
    assert refused.returncode == 1
    assert "gateway.toml:" in refused.stderr
    assert "the key is not that of the certificate" in refused.stderr
    gateway.wait_stderr("fastgate: certificates not reloaded")
    assert shown() == before
    pairs[1].write(server_certificate("second.example"))
    done = command()
    assert (done.returncode, done.stdout) == (0, "listener main: changed\n"), done.stderr
    assert shown() == [pair.issued.der for pair in pairs]
    assert gateway.admin("/certificates/reload", "POST", {})["listeners"]["changed"] == []


def test_names_come_and_go(start_gateway: StartGateway, tmp_path: Path) -> None:
    first = Pair(tmp_path, "first", server_certificate("test.example"))
    second = Pair(tmp_path, "second", server_certificate("second.example"))
    gateway = start_gateway(tables(first))
    with pytest.raises(ssl.SSLCertVerificationError):
        TlsClient(gateway.address, "second.example")
    gateway.reload(tables(first, second))
    with TlsClient(gateway.address, "second.example") as client:
        assert client.get().status == 200
    gateway.reload(tables(second))
    with pytest.raises(ssl.SSLCertVerificationError):
        TlsClient(gateway.address)


def test_other_terms_hold_for_new_handshakes(start_gateway: StartGateway, tmp_path: Path) -> None:
    pair = Pair(tmp_path, "first", server_certificate("test.example"))
    gateway = start_gateway(tables(pair))
    with TlsClient(gateway.address, context=client_context(ssl.TLSVersion.TLSv1_2)) as standing:
        gateway.reload(tables(pair, profile="modern"))
        assert standing.get().status == 200
        with pytest.raises(ssl.SSLError):
            TlsClient(gateway.address, context=client_context(ssl.TLSVersion.TLSv1_2))


def test_tls_comes_to_a_listener(start_gateway: StartGateway, tmp_path: Path) -> None:
    """And goes again: connections stay what they are."""
    pair = Pair(tmp_path, "first", server_certificate("test.example"))
    port = {"bind": "127.0.0.1:0"}
    plain = config(listener=port, route=HELLO)
    gateway = start_gateway(plain)
    with gateway.client() as standing:
        assert standing.get().status == 200
        gateway.reload(tables(pair))
        assert standing.get().status == 200
        with TlsClient(gateway.address) as secure:
            assert secure.get().status == 200
            gateway.reload(plain)
            assert secure.get().status == 200
            with gateway.client() as client:
                assert client.get().status == 200


# -- at run time


class Rig:
    """A listener's certificates without a gateway, asked as a client does."""

    def __init__(self, store: CertificateStore, *certificates: model.Certificate) -> None:
        listener = model.Listener(
            name="main", bind=":443", tls=model.ListenerTls(certificates=tuple(certificates))
        )
        self.listener = listener
        self.certificates = ListenerCertificates(listener, TicketKeys(), store)

    def shown(self, name: str | None, *, alpn: list[str] | None = None) -> bytes:
        """DER; b"" when the handshake fails."""
        context = client_context(verify=False)
        if alpn is not None:
            context.set_alpn_protocols(alpn)
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(to_client, to_server, server_hostname=name)
        server = self.certificates.context.wrap_bio(to_server, to_client, server_side=True)
        server.wants_challenge = alpn == ["acme-tls/1"]  # type: ignore[attr-defined]
        done = 0
        for _ in range(4):
            for side in (client, server):
                try:
                    side.do_handshake()
                    done += 1
                except ssl.SSLWantReadError:
                    pass
                except ssl.SSLError:
                    return b""
        assert done >= 2
        if alpn is not None:
            assert client.selected_alpn_protocol() == alpn[0]
        return client.getpeercert(True) or b""


def certificate(*names: str) -> tuple[bytes, bytes, bytes]:
    """Chain, key, and what is shown."""
    issued = server_certificate(*names)
    return (issued.pem + AUTHORITY.pem).encode(), issued.key_pem.encode(), issued.der


def test_a_certificate_that_comes_later() -> None:
    """Before it does, there is nothing to show; a renewed one takes its place."""
    store = CertificateStore()
    rig = Rig(store)
    assert rig.shown("a.example") == b""
    cert, key, der = certificate("a.example", "b.example")
    store.set(["a.example", "B.example"], cert, key)
    assert rig.shown("a.example") == rig.shown("b.example") == der
    cert, key, renewed = certificate("a.example", "b.example")
    store.set(["a.example", "b.example"], cert, key)
    assert rig.shown("a.example") == renewed
    store.remove(["a.example", "b.example"])
    assert rig.shown("a.example") == b""


def test_one_that_does_not_fit_changes_nothing() -> None:
    store = CertificateStore()
    rig = Rig(store)
    cert, key, der = certificate("a.example")
    store.set(["a.example"], cert, key)
    for bad in ((cert, certificate("a.example")[1]), (b"", key), (cert, b"")):
        with pytest.raises((ssl.SSLError, ValueError)):
            store.set(["a.example"], *bad)
    assert rig.shown("a.example") == der


def test_the_configured_ones_come_first(tmp_path: Path) -> None:
    issued = server_certificate("a.example")
    configured = model.Certificate(
        cert="a.pem",
        key="a.key",
        cert_pem=issued.pem.encode(),
        key_pem=model.Secret(issued.key_pem, "file a.key"),
        names=("a.example",),
    )
    store = CertificateStore()
    rig = Rig(store, configured)
    cert, key, der = certificate("a.example", "b.example")
    store.set(["a.example", "b.example"], cert, key)
    assert rig.shown("a.example") == rig.shown("unknown.example") == issued.der
    assert rig.shown("b.example") == der


def test_validation_by_tls_alpn() -> None:
    """RFC 8737: its certificate is for who asks by that protocol, and others see what they always do."""
    store = CertificateStore()
    rig = Rig(store)
    cert, key, der = certificate("a.example")
    store.set(["a.example"], cert, key)
    challenge = certificate("a.example")
    store.set_challenge("A.example", challenge[0], challenge[1])
    assert rig.shown("a.example", alpn=["acme-tls/1"]) == challenge[2]
    assert rig.shown("a.example", alpn=["http/1.1"]) == der
    store.clear_challenge("a.example")
    assert rig.shown("a.example") == der


def test_what_expires_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Once for each day that is left."""
    store = CertificateStore()
    issued = server_certificate("a.example", days=(-1, 5))
    store.set(["a.example"], issued.pem.encode(), issued.key_pem.encode())
    gone = server_certificate("b.example", days=(-9, -2))
    store.set(["b.example"], gone.pem.encode(), gone.key_pem.encode())
    rig = Rig(store)
    for _ in range(3):
        store.warn([rig.listener])
    told = sorted(record.getMessage() for record in caplog.records)
    assert told == [
        "certificate of a.example (acme) expires in 4 days",
        "certificate of b.example (acme) has expired",
    ]
