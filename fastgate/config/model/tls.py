"""TLS, towards clients and towards endpoints."""

from typing import Annotated, Literal

from msgspec import Struct

from fastgate.config.model.basics import MS, SECOND, Rate, Secret, derived, doc

Profile = Literal["modern", "intermediate"]
Version = Literal["1.2", "1.3"]


class Certificate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A certificate and its key, both PEM files."""

    cert: Annotated[str, doc("The certificate, and behind it those that lead to its authority's.", "file")]
    key: Annotated[str, doc("Its private key, without a passphrase.", "file")]
    cert_pem: Annotated[bytes, derived("What is in `cert`.")] = b""
    key_pem: Annotated[Secret | None, derived("What is in `key`.")] = None
    names: Annotated[
        tuple[str, ...], derived('Whom it is for: "example.com", "*.example.com", "192.0.2.1".')
    ] = ()


class ClientAuth(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Certificates of clients."""

    mode: Annotated[
        Literal["required", "optional"],
        doc('"optional": who has none is let in too; one that is not valid is refused either way.'),
    ] = "required"
    ca: Annotated[str, doc("A PEM file with the authorities whose certificates are accepted.", "file")]
    crl: Annotated[
        str | None,
        doc("A PEM file with what they have revoked; then each of them needs a list in it.", "file"),
    ] = None
    ca_pem: Annotated[bytes, derived("What is in `ca`.")] = b""
    crl_pem: Annotated[bytes, derived("What is in `crl`.")] = b""


class ListenerTls(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """TLS with clients. Files are read anew with each reload; connections live on."""

    certificates: Annotated[
        tuple[Certificate, ...],
        doc(
            "Tables with `cert` and `key`. Which one is shown goes by the name that the client asks for "
            "(SNI): an exact name before a wildcard, the first for a name that none is for; of several for "
            "one name, such as RSA and ECDSA, by what the client can verify. Needed but with `acme`.",
        ),
    ] = ()
    acme: Annotated[
        str, doc("The `[acme.NAME]` that issues certificates for `domains`.", "acme-ref", empty=True)
    ] = ""
    domains: Annotated[
        tuple[str, ...], doc("Names that get a certificate each from `acme`.", "acme-domain")
    ] = ()
    profile: Annotated[
        Profile,
        doc(
            'Versions and ciphers after Mozilla\'s guidelines: "modern" is TLS 1.3 alone, "intermediate" has '
            "TLS 1.2 with forward secrecy too."
        ),
    ] = "intermediate"
    min_version: Annotated[
        Version | None,
        doc("The oldest version of TLS that is spoken, where that is newer.", default="the profile's"),
    ] = None
    client_auth: Annotated[ClientAuth | None, doc("Whether clients show a certificate.")] = None
    handshake_timeout: Annotated[
        int, doc("How long a handshake may take; then the connection is closed.", "duration", minimum=MS)
    ] = 10 * SECOND
    handshake_rate: Annotated[
        Rate | None,
        doc(
            "New connections of one worker, with a burst of one second's worth; more are closed at once and "
            "counted.",
            "rate",
        ),
    ] = None
    redirect_from: Annotated[
        str | None,
        doc(
            'A plain address such as ":80" that sends every client here (308). It also turns on '
            "`hsts`, if that is not given.",
            "bind",
        ),
    ] = None
    hsts: Annotated[
        int | None,
        doc(
            "Strict-Transport-Security's max-age, sent with every response (RFC 6797): browsers come by "
            "https alone for so long.",
            "duration",
            default='none; "365d" with `redirect_from`',
        ),
    ] = None


class UpstreamTls(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """TLS with the endpoints: `tls = {}` turns it on, with the system's authorities."""

    verify: Annotated[
        bool, doc("Whether an endpoint has to prove who it is. Without it anybody may be in between.")
    ] = True
    ca: Annotated[
        str | None, doc("A PEM file with the authorities that are trusted, in place of the system's.", "file")
    ] = None
    name: Annotated[
        str,
        doc(
            "Whose certificate is expected, and which name is asked for (SNI).",
            "host",
            default="the endpoint's name or address",
            empty=True,
        ),
    ] = ""
    cert: Annotated[str | None, doc("A certificate of our own to show, a PEM file.", "file")] = None
    key: Annotated[str | None, doc("Its private key.", "file")] = None
    profile: Annotated[Profile, doc("As a listener's.")] = "intermediate"
    min_version: Annotated[Version | None, doc("As a listener's.", default="the profile's")] = None
    ca_pem: Annotated[bytes, derived("What is in `ca`.")] = b""
    cert_pem: Annotated[bytes, derived("What is in `cert`.")] = b""
    key_pem: Annotated[Secret | None, derived("What is in `key`.")] = None
