"""TLS for the tests: certificates in files, a raw client over TLS, an upstream that speaks it."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import socket
import ssl
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from support.certificates import DAY, Issued, issue
from support.client import Address, Client
from support.wire import Stream

AUTHORITY = issue("CN=Test authority", ca=True)


class Pair:
    """A certificate and its key as files."""

    def __init__(self, folder: Path, stem: str, issued: Issued) -> None:
        self.issued = issued
        self.cert = folder / f"{stem}.pem"
        self.key = folder / f"{stem}.key"
        self.write(issued)

    def write(self, issued: Issued) -> None:
        """Another one, in the same files."""
        self.issued = issued
        self.cert.write_text(issued.pem)
        self.key.write_text(issued.key_pem)

    @property
    def table(self) -> dict[str, str]:
        return {"cert": str(self.cert), "key": str(self.key)}


def server_certificate(*names: str, **options: Any) -> Issued:
    """By AUTHORITY, for host names and addresses."""
    options = {"by": AUTHORITY, "server": True, **options}
    return issue(f"CN={names[0]}", *(_general(name) for name in names), **options)


def client_certificate(name: str, **options: Any) -> Issued:
    return issue(f"CN={name}", x509.DNSName(name), **{"by": AUTHORITY, **options})


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def revocations(by: Issued, *revoked: Issued) -> str:
    """A list (PEM) of what an authority has taken back."""
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateRevocationListBuilder().issuer_name(by.certificate.subject)
    builder = builder.last_update(now - DAY).next_update(now + DAY)
    for each in revoked:
        one = x509.RevokedCertificateBuilder().serial_number(each.certificate.serial_number)
        builder = builder.add_revoked_certificate(one.revocation_date(now - DAY).build())
    return builder.sign(by.key, SHA256()).public_bytes(Encoding.PEM).decode()


def authority_file(folder: Path, authority: Issued = AUTHORITY) -> str:
    file = folder / "authority.pem"
    file.write_text(authority.pem)
    return str(file)


def client_context(
    version: ssl.TLSVersion | None = None, *, certificate: Pair | None = None, verify: bool = True
) -> ssl.SSLContext:
    """That trusts AUTHORITY alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if verify:
        context.load_verify_locations(cadata=AUTHORITY.pem)
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if certificate is not None:
        context.load_cert_chain(certificate.cert, certificate.key)
    return context


class TlsClient(Client):
    """One connection with TLS. An end without close_notify reads as "reset"."""

    sock: ssl.SSLSocket

    def __init__(
        self,
        address: Address,
        name: str | None = "test.example",
        *,
        context: ssl.SSLContext | None = None,
        session: ssl.SSLSession | None = None,
        before: bytes = b"",
        **options: Any,
    ) -> None:
        super().__init__(address, **options)
        if before:
            self.sock.sendall(before)
        context = context or client_context()
        if name is None:
            context.check_hostname = False
        plain: socket.socket = self.sock
        try:
            self.sock = context.wrap_socket(
                plain, server_hostname=name, suppress_ragged_eofs=False, session=session
            )
        except BaseException:
            plain.close()
            raise
        self.stream = Stream(self.sock, timeout=self.stream.timeout, record=self.stream.record)

    def half_close(self) -> TlsClient:
        """Says that it sends no more (close_notify), and reads on."""
        self.sock.setblocking(False)
        with contextlib.suppress(ssl.SSLWantReadError):
            self.sock.unwrap()
        return self

    def cut(self) -> None:
        """FIN without close_notify."""
        self.sock.shutdown(socket.SHUT_WR)

    @property
    def shown(self) -> bytes:
        """The server's certificate in DER."""
        found = self.sock.getpeercert(True)
        assert found is not None
        return found


def server_context(pair: Pair) -> ssl.SSLContext:
    """For an upstream of the tests."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    return context
