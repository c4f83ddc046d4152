"""Certificates from an ACME directory."""

from typing import Annotated, Literal

from msgspec import Struct

from fastgate.config.model.basics import HOUR, MINUTE, SECOND, Secret, doc
from fastgate.config.model.plugins import RedisPlace


class ExternalAccount(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An account at the authority to which the ACME account is bound (RFC 8555 7.3.4)."""

    kid: Annotated[str, doc("The key identifier that the authority gave.", "text")]
    hmac_key: Annotated[str | Secret, doc("Its MAC key, in base64url.", "header-value", secret=True)]
    algorithm: Annotated[Literal["HS256", "HS384", "HS512"], doc("Of the MAC.")] = "HS256"


class AcmeStorage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where account, keys and certificates are kept: a directory or Redis, one of them."""

    path: Annotated[
        str,
        doc("A directory of this machine; made, with mode 0700, if it is not there.", "folder", empty=True),
    ] = ""
    redis: Annotated[RedisPlace | None, doc("Shared by all replicas, which then issue once.")] = None


class AcmeRenewal(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a certificate is renewed, and how failures are tried again."""

    after_percent: Annotated[
        int, doc("Of its lifetime; up to 5 points of it later, by chance.", ge=10, le=90)
    ] = 67
    ari: Annotated[
        bool,
        doc("The directory's own word (RFC 9773) decides instead, where it has one."),
    ] = True
    retry: Annotated[
        int,
        doc(
            "After a failure; twice as long after each further one. A Retry-After of the directory counts "
            "as well.",
            "duration",
            minimum=SECOND,
        ),
    ] = MINUTE
    retry_max: Annotated[int, doc("But at most this long.", "duration", minimum=SECOND)] = 6 * HOUR
    check: Annotated[
        int,
        doc(
            "How often the storage is looked at for what another replica has renewed.",
            "duration",
            minimum=SECOND,
        ),
    ] = MINUTE


class Acme(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Certificates from an ACME directory, for listeners whose `tls.acme` names it. Needs the extra
    `fastgate[acme]`."""

    directory: Annotated[str, doc("The directory's URL.", "https-url")] = (
        "https://acme-v02.api.letsencrypt.org/directory"
    )
    terms_agreed: Annotated[
        bool, doc("That you agree to the authority's terms of service: has to be `true`.")
    ] = False
    email: Annotated[str, doc("Where the authority may write to.", "email", empty=True)] = ""
    ca_file: Annotated[
        str,
        doc(
            "Certificates, PEM, one of which the directory's own connection must lead to.",
            "file",
            empty=True,
            default="those that browsers trust",
        ),
    ] = ""
    storage: AcmeStorage = AcmeStorage()
    challenge: Annotated[
        Literal["http-01", "tls-alpn-01"],
        doc(
            'How it is shown that a name is ours: "http-01" by an answer on port 80, "tls-alpn-01" by a '
            "handshake on port 443."
        ),
    ] = "http-01"
    key_type: Annotated[
        Literal["ecdsa-p256", "rsa-2048"], doc("Of the certificates' keys; each has a new one.")
    ] = "ecdsa-p256"
    eab: ExternalAccount | None = None
    renewal: AcmeRenewal = AcmeRenewal()
