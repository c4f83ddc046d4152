"""``mtls``: the client's certificate says who the caller is."""

from __future__ import annotations

import base64
import datetime
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Final

from fastgate.plugins import Consumer, Exchange, Host, Plugin, Response, doc
from fastgate.plugins._client_certificate import (
    CertificateError,
    Form,
    Presented,
    certificate_of,
    normal_subject,
    remove_headers,
)
from fastgate.plugins._consumers import ConsumerKeys, GateKeeperConfig
from fastgate.plugins._files import WatchedFile

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from cryptography.x509.verification import Store

_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}")
_SAN: Final = re.compile(r"(dns|uri|email):[\x21-\x7e]+")


class Client(ConsumerKeys, frozen=True, kw_only=True):
    """Certificates that are let in, and whose they are. Of each kind that is given, one must fit."""

    fingerprints: Annotated[
        tuple[str, ...],
        doc("SHA-256 of the certificate, hexadecimal, as `openssl x509 -fingerprint -sha256` prints it."),
    ] = ()
    subjects: Annotated[tuple[str, ...], doc('The subject: "CN=orders,O=Example" (RFC 4514).')] = ()
    sans: Annotated[
        tuple[str, ...],
        doc(
            'A subject alternative name: "dns:a.example.com", "dns:*.example.com" (one label), '
            '"uri:spiffe://x/ns/a", "uri:spiffe://x/ns/*" (all below), "email:a@example.com".'
        ),
    ] = ()
    consumer: Annotated[
        str, doc("The consumer's name.", default="the name that fitted, else the subject or fingerprint")
    ] = ""


class MtlsConfig(GateKeeperConfig, frozen=True, kw_only=True):
    header: Annotated[
        Form,
        doc(
            "Where the certificate comes from: \"connection\" (the client's own, with the listener's "
            "`tls.client_auth`), or the header in which a trusted proxy tells of it: "
            '"x-forwarded-client-cert" (Envoy), "x-ssl-client-cert" (URL-encoded PEM: nginx), "client-cert" '
            "(RFC 9440)."
        ),
    ] = "connection"
    clients: Annotated[tuple[Client, ...], doc("Who is let in: the first that fits counts.", least=1)]
    ca_file: Annotated[
        str | None,
        doc(
            "CA certificates (PEM) to one of which the certificate must lead, read again when it changes. "
            "Without it the listener, or the proxy, alone has verified the certificate.",
            "file",
        ),
    ] = None
    trust_fields: Annotated[
        bool,
        doc("Believe Hash, Subject, URI and DNS of Envoy's header where it has no Cert (as Istio sends it)."),
    ] = False
    forward: Annotated[
        bool,
        doc(
            "Leave the header in the request that the service gets; tell it of a certificate of the "
            "connection in Client-Cert (RFC 9440)."
        ),
    ] = False


class Mtls(Plugin):
    """Lets in who has a client certificate."""

    Config = MtlsConfig
    config: MtlsConfig

    _ca: WatchedFile[Store] | None = None

    @classmethod
    def check(cls, config: MtlsConfig) -> Mapping[str, str]:
        problems = config.check_realm()
        for number, client in enumerate(config.clients, 1):
            if problem := _check_client(client):
                problems["clients"] = f"client {number}: {problem}"
        if config.trust_fields and config.header != "x-forwarded-client-cert":
            problems["trust_fields"] = 'only header = "x-forwarded-client-cert" has such fields'
        if config.trust_fields and config.ca_file is not None:
            problems["trust_fields"] = "without the certificate nothing can be verified by `ca_file`"
        return problems

    @classmethod
    def identity_headers(cls, config: MtlsConfig) -> tuple[str, ...]:
        return config.told_in()

    async def provision(self, host: Host) -> None:
        self._clock = host.clock
        # Registered nowhere: there is no scheme for it. It tells a client's author what is missing.
        self._challenge = (("www-authenticate", f'TLS-Client-Certificate realm="{self.config.realm}"'),)
        self._rules = [_Rule(client, self.name) for client in self.config.clients]
        if self.config.ca_file is not None:
            self._ca = WatchedFile(host, host.folder / self.config.ca_file, _load_ca)
            await self._ca.open()

    def on_request(self, exchange: Exchange) -> Response | None:
        headers = exchange.request.headers
        try:
            presented = certificate_of(exchange, self.config.header, bare=self.config.trust_fields)
        except CertificateError as error:
            remove_headers(headers)
            return self._failed(exchange, str(error))
        # Those of other proxies' forms nobody has checked.
        keep = self.config.header if self.config.forward and presented is not None else ""
        remove_headers(headers, keep)
        if presented is None:
            return exchange.refuse(
                401, "authentication-required", "no client certificate", headers=self._challenge
            )
        problem = self._verify(presented)
        if problem:
            return self._failed(exchange, problem)
        consumer = next(filter(None, (rule.consumer(presented) for rule in self._rules)), None)
        if consumer is None:
            return exchange.refuse(403, "forbidden", f"no client of {self.name} has this certificate")
        if self.config.forward and self.config.header == "connection" and exchange.tls is not None:
            headers["client-cert"] = f":{base64.b64encode(exchange.tls.certificate).decode()}:"
        exchange.consumer = consumer
        self.config.tell(headers, consumer)
        return None

    def _verify(self, presented: Presented) -> str:
        """What is wrong with the certificate, "" for nothing."""
        certificate = presented.certificate
        if certificate is None:
            return ""
        now = datetime.datetime.fromtimestamp(self._clock.now(), datetime.UTC)
        if now < certificate.not_valid_before_utc:
            return "the certificate is not valid yet"
        if now > certificate.not_valid_after_utc:
            return "the certificate has expired"
        return _verify_chain(self._ca.value, certificate, presented.chain, now) if self._ca else ""

    def _failed(self, exchange: Exchange, detail: str) -> Response:
        return exchange.refuse(401, "authentication-failed", detail, headers=self._challenge)


class _Rule:
    """A client of the configuration, in the form in which certificates are compared with it."""

    def __init__(self, client: Client, source: str) -> None:
        self._client = client
        self._source = source
        self._fingerprints = {_plain(text) for text in client.fingerprints}
        self._subjects = {normal_subject(text) for text in client.subjects}

    def consumer(self, presented: Presented) -> Consumer | None:
        if self._fingerprints and presented.fingerprint not in self._fingerprints:
            return None
        if self._subjects and presented.subject not in self._subjects:
            return None
        fitting = [name for name in presented.sans if any(_fits(rule, name) for rule in self._client.sans)]
        if self._client.sans and not fitting:
            return None
        # The name without "dns:" and the like.
        own = fitting[0].partition(":")[2] if fitting else presented.subject or presented.fingerprint
        return self._client.to_consumer(self._client.consumer or own, self._source)


def _check_client(client: Client) -> str:
    if not (client.fingerprints or client.subjects or client.sans):
        return "give `fingerprints`, `subjects` or `sans`: without any, every certificate would fit"
    for text in client.fingerprints:
        if not _FINGERPRINT.fullmatch(_plain(text)):
            return f"{text!r} is no SHA-256 fingerprint of 64 hexadecimal digits"
    for text in client.subjects:
        try:
            normal_subject(text)
        except ValueError:
            return f'{text!r} is no subject in the form of RFC 4514: "CN=orders,O=Example", without spaces'
    for text in client.sans:
        kind, _, rest = text.partition(":")
        at = {"dns": rest.removeprefix("*."), "uri": re.sub(r"(?<=/)\*$", "", rest)}.get(kind, rest)
        if not _SAN.fullmatch(text) or "*" in at or not at:
            return f'{text!r} is none of "dns:NAME", "dns:*.NAME", "uri:URI", "uri:URI/*", "email:ADDRESS"'
    return ""


def _plain(fingerprint: str) -> str:
    """Without the colons of `openssl x509 -fingerprint`."""
    return fingerprint.replace(":", "").lower()


def _fits(rule: str, name: str) -> bool:
    kind, _, wanted = rule.partition(":")
    its_kind, _, given = name.partition(":")
    if kind != its_kind:
        return False
    if kind == "dns":
        wanted, given = wanted.lower(), given.lower()
        # One label, and no wildcard of the certificate's own (RFC 9525 6.3).
        if wanted.startswith("*."):
            label, _, rest = given.partition(".")
            return rest == wanted[2:] and label not in ("", "*")
        return wanted == given
    if kind == "uri" and wanted.endswith("/*"):
        return given.startswith(wanted[:-1]) and len(given) >= len(wanted) and "/.." not in given
    return wanted == given


def _load_ca(data: bytes) -> Store:
    from cryptography.x509 import load_pem_x509_certificates
    from cryptography.x509.verification import Store

    try:
        return Store(load_pem_x509_certificates(data))
    except ValueError:
        raise ValueError("it holds no certificates in PEM") from None


def _verify_chain(
    store: Store, leaf: Certificate, chain: tuple[Certificate, ...], now: datetime.datetime
) -> str:
    from cryptography.x509 import SubjectAlternativeName
    from cryptography.x509.verification import (
        Criticality,
        ExtensionPolicy,
        PolicyBuilder,
        VerificationError,
    )

    # Clients may have a subject alone; who must have a name is a matter of `clients`.
    own = ExtensionPolicy.webpki_defaults_ee().may_be_present(
        SubjectAlternativeName, Criticality.AGNOSTIC, None
    )
    others = ExtensionPolicy.webpki_defaults_ca()
    policy = PolicyBuilder().store(store).time(now).extension_policies(ca_policy=others, ee_policy=own)
    try:
        policy.build_client_verifier().verify(leaf, list(chain))
    except VerificationError:
        return "the certificate does not lead to a CA of ca_file"
    return ""
