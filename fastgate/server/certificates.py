"""Certificates while they are in use: which one a client is shown, and those that come at run time."""

from __future__ import annotations

import logging
import ssl
import weakref
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from fastgate.config import model
from fastgate.config.tls_context import challenge_context, server_context
from fastgate.server.tickets import TicketKeys

if TYPE_CHECKING:
    from fastgate.config.certificates import Facts

__all__ = ["CertificateStore", "ListenerCertificates"]

EXPIRES_SOON_DAYS: Final = 14
_ACME_TLS: Final = b"\x0aacme-tls/1"  # in its list of protocols (ALPN, RFC 8737 3)
log: Final = logging.getLogger("fastgate.certificates")


@lru_cache(maxsize=4096)
def _facts(cert_pem: bytes) -> Facts:
    # Takes cryptography along, an extra, for those who have certificates.
    from fastgate.config.certificates import facts_of

    return facts_of(cert_pem)


class CertificateStore:
    """Of one process: what its listeners show beside the certificates of the configuration.

    Every listener with TLS shows what is set here, for names that its own certificates are not for. Changes
    hold for handshakes from then on; connections live on.
    """

    def __init__(self) -> None:
        self.certificates: tuple[model.Certificate, ...] = ()
        self._challenges: dict[str, ssl.SSLContext] = {}
        self._listeners: weakref.WeakSet[ListenerCertificates] = weakref.WeakSet()
        self._warned: set[tuple[str, int]] = set()

    # -- what comes at run time

    def set(
        self, names: Sequence[str], cert_pem: bytes, key_pem: bytes, *, source: str = "acme"
    ) -> model.Certificate:
        """Shown for these names from now on, in place of what was set for exactly them. Raises ssl.SSLError
        or ValueError for a pair that does not fit; then nothing has changed."""
        from fastgate.config.certificates import names_of

        wanted = tuple(name.lower() for name in names)
        certificate = model.Certificate(
            cert=source,
            key=source,
            cert_pem=cert_pem,
            key_pem=model.Secret(key_pem.decode("latin-1"), source),
            names=wanted or names_of(cert_pem),
        )
        server_context((certificate,), model.ListenerTls())
        rest = tuple(each for each in self.certificates if each.names != certificate.names)
        self._replace((*rest, certificate))
        return certificate

    def remove(self, names: Sequence[str]) -> None:
        """What was set for exactly these names."""
        gone = tuple(name.lower() for name in names)
        self._replace(tuple(each for each in self.certificates if each.names != gone))

    def _replace(self, certificates: tuple[model.Certificate, ...]) -> None:
        self.certificates = certificates
        for listener in list(self._listeners):
            listener.refresh()

    # -- validation by tls-alpn-01 (RFC 8737)

    def set_challenge(self, name: str, cert_pem: bytes, key_pem: bytes) -> None:
        """Shown to who asks for this name by the protocol "acme-tls/1" and for nothing else. Raises
        ssl.SSLError."""
        self._challenges[name.lower()] = challenge_context(cert_pem, model.Secret(key_pem.decode(), "acme"))

    def clear_challenge(self, name: str) -> None:
        self._challenges.pop(name.lower(), None)

    def awaits(self, hello: bytes) -> bool:
        """Whether this ClientHello seems to be of an authority that validates."""
        return bool(self._challenges) and _ACME_TLS in hello

    def challenge(self, name: str) -> ssl.SSLContext | None:
        return self._challenges.get(name)

    # -- what is seen of them

    def attach(self, listener: ListenerCertificates) -> None:
        """It follows what is set here, as long as it lives."""
        self._listeners.add(listener)

    def warn(self, listeners: Iterable[model.Listener]) -> None:
        """Logs which of these listeners' certificates, and of those that were set, expire soon or have; each
        once for a day that is left. To be called now and then."""
        from fastgate.config.certificates import now

        configured = (each for listener in listeners if listener.tls for each in listener.tls.certificates)
        for certificate in dict.fromkeys((*configured, *self.certificates)):
            facts = _facts(certificate.cert_pem)
            days = (facts.not_after - now()).days
            if days >= EXPIRES_SOON_DAYS or (facts.sha256, days) in self._warned:
                continue
            self._warned.add((facts.sha256, days))
            what = "has expired" if days < 0 else f"expires in {days} days"
            log.warning("certificate of %s (%s) %s", ", ".join(certificate.names), certificate.cert, what)


class ListenerCertificates:
    """One listener's contexts, by name. A connection begins with the one for the name that the client asks
    for (SNI, RFC 6066 3). Where that can't be read at once it begins with ``context``, and where its ticket
    is of the previous keys with the one that has those: their callback puts the right one in their place.

    Raises ssl.SSLError where OpenSSL does not take a certificate.
    """

    def __init__(self, listener: model.Listener, keys: TicketKeys, store: CertificateStore) -> None:
        assert listener.tls is not None
        self._tls = tls = listener.tls
        self._store = store
        self._contexts: dict[tuple[model.Certificate, ...], ssl.SSLContext] = {}
        self._by_name: dict[str, ssl.SSLContext] = {}
        self._default: ssl.SSLContext | None = None
        self.context, self._previous = server_context((), tls), server_context((), tls)
        # A ticket stands for a client that was let in: it must be good for nothing but the terms that let it
        # in, and is decrypted by the context that a connection began with.
        auth = tls.client_auth
        self._terms = repr((listener.name, auth and (auth.mode, auth.ca_pem, auth.crl_pem))).encode()
        self._keys = keys
        self.take_ticket_keys()
        self.refresh()
        self.context.sni_callback = self._previous.sni_callback = _Chooser(self)
        keys.attach(self)
        store.attach(self)

    def take_ticket_keys(self) -> None:
        for context in (self.context, *self._contexts.values()):
            self._keys.use_in(context, self._terms)
        self._previous_name = self._keys.use_in(self._previous, self._terms, previous=True)

    def begin(self, connection: Any, hello: bytes, name: str | None) -> ssl.SSLContext:
        """What a connection begins with, whose ClientHello this is: with the previous keys, where its ticket
        was made with them. What it is given then is of them too, so that it ends with them.

        connection: a TlsLayer of `_core`, which is told what is known of the client. name: as
        ``_core.server_name`` has read it.
        """
        connection.wants_challenge = wants_challenge = self._store.awaits(hello)
        connection.asked_for = name or None
        if self._previous_name and self._previous_name in hello:
            return self._previous
        # To put another context in its place costs a copy of that, and a call from within OpenSSL.
        found = None if wants_challenge or name is None else self._chosen(name)
        connection.settled = found is not None
        return found or self.context

    def refresh(self) -> None:
        """Takes up what the store has now."""
        known = (*self._tls.certificates, *self._store.certificates)
        contexts: dict[tuple[model.Certificate, ...], ssl.SSLContext] = {}
        by_name: dict[str, ssl.SSLContext] = {}
        for name in {name: None for each in known for name in each.names}:
            by_name[name] = self._context(_one_of_each_key(known, name), contexts)
        default = None
        if known:
            first = known[0]
            name = first.names[0] if first.names else ""
            default = by_name[name] if name else self._context((first,), contexts)
        self._contexts, self._by_name, self._default = contexts, by_name, default

    def _context(
        self,
        certificates: tuple[model.Certificate, ...],
        contexts: dict[tuple[model.Certificate, ...], ssl.SSLContext],
    ) -> ssl.SSLContext:
        context = contexts.get(certificates) or self._contexts.get(certificates)
        if context is None:
            context = server_context(certificates, self._tls)
            context.sni_callback = _acknowledged
            self._keys.use_in(context, self._terms)
        contexts[certificates] = context
        return context

    def choose(self, name: str | None, wants_challenge: bool) -> ssl.SSLContext | None:
        if wants_challenge and name and (challenge := self._store.challenge(name)) is not None:
            return challenge
        return self._chosen(name or "")

    def _chosen(self, name: str) -> ssl.SSLContext | None:
        """name: "" for none. A wildcard stands for one label (RFC 9525 6.3)."""
        return self._by_name.get(name) or self._by_name.get(f"*.{name.partition('.')[2]}") or self._default


def _acknowledged(connection: Any, name: str | None, context: ssl.SSLContext) -> None:
    """That the name was used is said in the answer (RFC 6066 3); without a callback OpenSSL does not."""


class _Chooser:
    """Called by OpenSSL with each ClientHello; connection: a TlsLayer of `_core`, or an ssl.SSLObject. Weak:
    a context would hold what holds it, out of the reach of the garbage collector."""

    def __init__(self, certificates: ListenerCertificates) -> None:
        self._certificates = weakref.ref(certificates)

    def __call__(self, connection: Any, name: str | None, context: ssl.SSLContext) -> int | None:
        connection.asked_for = name = name.lower() if name else None
        certificates = self._certificates()
        found = certificates and certificates.choose(name, connection.wants_challenge)
        if found is None:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        connection.context = found
        return None


def _one_of_each_key(known: tuple[model.Certificate, ...], name: str) -> tuple[model.Certificate, ...]:
    """Those for a name: the first of each kind of key, of which a context can hold one."""
    chosen: dict[str, model.Certificate] = {}
    for each in known:
        if name in each.names:
            chosen.setdefault(_facts(each.cert_pem).key.partition(" ")[0], each)
    return tuple(chosen.values())
