"""The certificate of a client, and where it comes from: the client's own connection, or a proxy in front that
ends TLS and says in a header which certificate it saw. ``certificate_of`` is the one place that knows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal, NamedTuple
from urllib.parse import unquote_to_bytes

from fastgate.plugins import Exchange, Headers
from fastgate.plugins._structured import FieldError, Item, parse_item, parse_list

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

Form = Literal["connection", "x-forwarded-client-cert", "x-ssl-client-cert", "client-cert"]

#: Every header by which some proxy tells of a certificate, and some service believes it.
HEADERS: Final = frozenset(
    {"x-forwarded-client-cert", "x-ssl-client-cert", "client-cert", "client-cert-chain"}
)
_MAX_CHAIN: Final = 8


class CertificateError(ValueError):
    """Why what came is no certificate that counts."""


class Presented(NamedTuple):
    """What is known of the client. certificate: None where the proxy passes on only what it read in it.

    fingerprint: SHA-256 of the certificate, hexadecimal. subject: RFC 4514. sans: "dns:NAME", "uri:URI",
    "email:ADDRESS". chain: what the client sent between its certificate and the CA's.
    """

    fingerprint: str
    subject: str
    sans: tuple[str, ...]
    certificate: Certificate | None
    chain: tuple[Certificate, ...] = ()


def certificate_of(exchange: Exchange, form: Form, *, bare: bool) -> Presented | None:
    """The certificate that the client of an exchange has shown; None where there is none. bare: take what the
    proxy read in it where it does not pass on the certificate itself. Raises CertificateError."""
    if form == "connection":
        return _from_connection(exchange)
    headers = exchange.request.headers
    fields = headers.get_all(form)
    if not fields:
        return None
    if not exchange.peer_trusted:
        raise CertificateError(f"{form} from a peer that is none of the listener's trusted_proxies")
    if len(fields) > 1:
        raise CertificateError(f"{form} stands {len(fields)} times in the request")
    match form:
        case "client-cert":
            return _rfc_9440(fields[0], ", ".join(headers.get_all("client-cert-chain")))
        case "x-ssl-client-cert":
            # nginx sends the header, empty, for clients without a certificate.
            return _from_pem(fields[0], "") if fields[0] else None
        case "x-forwarded-client-cert":
            return _envoy(fields[0], bare=bare)


def _from_connection(exchange: Exchange) -> Presented | None:
    from cryptography.x509 import InvalidVersion, load_der_x509_certificate

    if exchange.tls is None or not exchange.tls.certificate:
        return None
    try:
        return _read(load_der_x509_certificate(exchange.tls.certificate), ())
    except (ValueError, InvalidVersion):
        raise CertificateError("the certificate can't be read") from None


def remove_headers(headers: Headers, keep: str = "") -> None:
    """Takes out all that speaks of a certificate, however it is written: some services read "_" as "-"."""
    for name in list(headers):
        if name != keep and name.replace("_", "-") in HEADERS:
            del headers[name]


def _rfc_9440(field: str, chain: str) -> Presented:
    """A byte sequence with the certificate in DER, and a list of them (RFC 9440 2)."""
    from cryptography.x509 import InvalidVersion, load_der_x509_certificate

    try:
        members = [parse_item(field), *(parse_list(chain) if chain else ())]
    except FieldError as error:
        raise CertificateError(f"client-cert: {error}") from None
    if len(members) > 1 + _MAX_CHAIN:
        raise CertificateError(f"a chain of more than {_MAX_CHAIN} certificates")
    found = []
    for member in members:
        if not isinstance(member, Item) or not isinstance(member.value, bytes):
            raise CertificateError("client-cert is no byte sequence")
        try:
            found.append(load_der_x509_certificate(member.value))
        except (ValueError, InvalidVersion):
            raise CertificateError("client-cert is no certificate in DER") from None
    return _read(found[0], found[1:])


def _from_pem(leaf: str, chain: str) -> Presented:
    """URL-encoded PEM: $ssl_client_escaped_cert of nginx, Cert and Chain of Envoy."""
    from cryptography.x509 import InvalidVersion, load_pem_x509_certificates

    try:
        [certificate] = load_pem_x509_certificates(unquote_to_bytes(leaf))
        others = load_pem_x509_certificates(unquote_to_bytes(chain)) if chain else []
    except (ValueError, InvalidVersion):
        raise CertificateError("it is no certificate in URL-encoded PEM") from None
    # Envoy's Chain begins with the certificate itself.
    others = [other for other in others if other != certificate]
    if len(others) > _MAX_CHAIN:
        raise CertificateError(f"a chain of more than {_MAX_CHAIN} certificates")
    return _read(certificate, others)


_XFCC_PAIR: Final = re.compile(r'([A-Za-z]+)=(?:"((?:[^"\\]|\\.)*)"|([^",;]*))')
_XFCC_ONCE: Final = frozenset({"hash", "cert", "chain", "subject"})
_XFCC_SANS: Final = {"uri": "uri:", "dns": "dns:", "email": "email:"}


def _envoy(field: str, *, bare: bool) -> Presented:
    """One element of KEY=VALUE pairs between semicolons. Commas part elements, one for each proxy on the way:
    which of them is the client's depends on those proxies, so that more than one is refused."""
    found: dict[str, list[str]] = {}
    at = 0
    while True:
        pair = _XFCC_PAIR.match(field, at)
        if pair is None:
            raise CertificateError(f"x-forwarded-client-cert: expected KEY=VALUE at character {at + 1}")
        value = pair[3] if pair[2] is None else re.sub(r"\\(.)", r"\1", pair[2])
        found.setdefault(pair[1].lower(), []).append(value)
        at = pair.end()
        if at == len(field):
            break
        if field[at] != ";":
            raise CertificateError("x-forwarded-client-cert has more than one element")
        at += 1
    for key in _XFCC_ONCE:
        if len(found.get(key, ())) > 1:
            raise CertificateError(f"x-forwarded-client-cert: {key} stands twice")
    if "cert" in found:
        presented = _from_pem(found["cert"][0], found.get("chain", [""])[0])
        if "hash" in found and found["hash"][0].lower() != presented.fingerprint:
            raise CertificateError("x-forwarded-client-cert: Hash is not that of Cert")
        return presented
    if not bare:
        raise CertificateError("x-forwarded-client-cert has no Cert, and `trust_fields` is off")
    hashed = found.get("hash", [""])[0].lower()
    if not re.fullmatch(r"[0-9a-f]{64}", hashed):
        raise CertificateError("x-forwarded-client-cert: Hash is no SHA-256")
    sans = tuple(
        prefix + value for key, prefix in _XFCC_SANS.items() for value in found.get(key, ()) if value
    )
    return Presented(hashed, _envoy_subject(found.get("subject", [""])[0]), sans, None)


def _read(certificate: Certificate, chain: Sequence[Certificate]) -> Presented:
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        sans = [f"dns:{name}" for name in names.get_values_for_type(x509.DNSName)]
        sans += [f"uri:{name}" for name in names.get_values_for_type(x509.UniformResourceIdentifier)]
        sans += [f"email:{name}" for name in names.get_values_for_type(x509.RFC822Name)]
    except x509.ExtensionNotFound:
        sans = []
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        raise CertificateError("the certificate's extensions can't be read") from None
    fingerprint = certificate.fingerprint(SHA256()).hex()
    try:
        subject = certificate.subject.rfc4514_string()
    except ValueError:
        raise CertificateError("the certificate's subject can't be read") from None
    return Presented(fingerprint, subject, tuple(sans), certificate, tuple(chain))


def _envoy_subject(text: str) -> str:
    """ "" for a text in another form (older Envoys write /C=US/CN=x): no rule fits it then."""
    try:
        return normal_subject(text)
    except ValueError:
        return ""


def normal_subject(text: str) -> str:
    """A subject (RFC 4514) as `cryptography` writes it, so that texts can be compared. Raises ValueError."""
    from cryptography.x509 import Name

    return Name.from_rfc4514_string(text).rfc4514_string() if text else ""
