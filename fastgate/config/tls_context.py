"""OpenSSL's contexts, from what a configuration says. Versions and ciphers: Mozilla's guidelines 5.7."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from fastgate import _core
from fastgate.config.model import Certificate, ListenerTls, Secret, UpstreamTls

__all__ = ["challenge_context", "client_context", "load_authorities", "load_chain", "server_context"]

# The guidelines' order: AES-128 with SHA-256 first, as browsers have it. OpenSSL begins with AES-256 and
# SHA-384, which cost more and keep out nobody who could get in otherwise.
_SUITES: Final = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
# For TLS 1.2.
_INTERMEDIATE: Final = ":".join(
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-CHACHA20-POLY1305",
    )
)
ALPN: Final = ("http/1.1",)
# The oldest version of each.
PROFILE_VERSIONS: Final = {"intermediate": "1.2", "modern": "1.3"}


def server_context(certificates: tuple[Certificate, ...], tls: ListenerTls) -> ssl.SSLContext:
    """On a listener's terms. Shows one of these, by what the client can verify; with none, it is for its
    terms alone. Raises ssl.SSLError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _harden(context, tls)
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_RENEGOTIATION
    # A client that trusts AES without hardware support less puts ChaCha20 first: then it gets it.
    context.options |= getattr(ssl, "OP_PRIORITIZE_CHACHA", 0x200000)
    context.set_alpn_protocols(list(ALPN))
    # A ticket for each connection, where OpenSSL's two cost a full handshake 5 % of its time. A resumed one
    # brings the next.
    context.num_tickets = 1
    for each in certificates:
        assert each.key_pem is not None
        load_chain(context, each.cert_pem, each.key_pem)
    client_auth = tls.client_auth
    if client_auth is not None:
        context.verify_mode = ssl.CERT_REQUIRED if client_auth.mode == "required" else ssl.CERT_OPTIONAL
        load_authorities(context, client_auth.ca_pem)
        if client_auth.crl_pem:
            load_authorities(context, client_auth.crl_pem)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return context


def challenge_context(cert: bytes, key: Secret) -> ssl.SSLContext:
    """For an authority that validates by tls-alpn-01 (RFC 8737 3). Raises ssl.SSLError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _harden(context, ListenerTls())
    context.set_alpn_protocols(["acme-tls/1"])
    load_chain(context, cert, key)
    return context


def client_context(tls: UpstreamTls) -> ssl.SSLContext:
    """For connections to endpoints. Raises ssl.SSLError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _harden(context, tls)
    context.set_alpn_protocols(list(ALPN))
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif tls.ca_pem:
        load_authorities(context, tls.ca_pem)
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if tls.key_pem is not None:
        load_chain(context, tls.cert_pem, tls.key_pem)
    return context


def _harden(context: ssl.SSLContext, tls: ListenerTls | UpstreamTls) -> None:
    newest = "1.3" in (tls.min_version, PROFILE_VERSIONS[tls.profile])
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if newest else ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_INTERMEDIATE)
    _core.set_ciphersuites(context, _SUITES)
    context.options |= ssl.OP_NO_COMPRESSION


def load_chain(context: ssl.SSLContext, cert: bytes, key: Secret) -> None:
    """Raises ssl.SSLError where they do not fit. A key with a passphrase is refused: nobody could be
    asked."""
    with _file(cert) as cert_file, _file(key.reveal().encode("latin-1")) as key_file:
        context.load_cert_chain(cert_file, key_file, password=lambda: b"")


def load_authorities(context: ssl.SSLContext, pem: bytes) -> None:
    """Authorities, or their lists of what is revoked."""
    with _file(pem) as file:
        context.load_verify_locations(cafile=file)


@contextmanager
def _file(content: bytes) -> Iterator[str]:
    """A file in memory that has it: OpenSSL, as Python's module has it, loads from files alone."""
    fd = os.memfd_create("pem", os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(content)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)
