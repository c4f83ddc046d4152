"""Who may call the admin API.

On loopback and on a Unix socket anyone of this machine may, unless there is a token. Elsewhere a token or a
client's certificate is asked for, over TLS; the configuration allows nothing less.

A browser on a machine that may could be made to call it by a strange page. So

- the Host must be a loopback one where the listener is (a name that its owner rebinds to 127.0.0.1 is not);
  elsewhere such a name fails at the certificate;
- an Origin must be the listener's own, and Sec-Fetch-Site must not tell of another site (Fetch, 3.2 and
  Fetch Metadata): a client certificate and loopback are given by the browser without anybody's asking;
- what changes anything must say that it is JSON, which a page may not do across origins without asking first,
  and we never say yes: there is no CORS.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import ssl
from contextlib import suppress
from typing import Final, NamedTuple

from fastgate.config.model import Admin
from fastgate.server.admin_types import Refusal, Request
from fastgate.server.sockets import OpenError

__all__ = ["Caller", "Guard"]

_AUTHORITY: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::[0-9]{1,5})?")
_CHALLENGE: Final = (("WWW-Authenticate", 'Bearer realm="fastgate admin"'),)


class Caller(NamedTuple):
    """What is known of a connection."""

    unix: bool
    tls: bool


class Guard:
    """What one configuration asks of callers. Raises OpenError for a certificate that can't be used.

    context: None where the listener has no TLS.
    """

    def __init__(self, config: Admin) -> None:
        self.context = _tls(config)
        self._token = None if config.token is None else config.token.reveal().encode()
        self._loopback = config.unix_path is None and _is_loopback(config.host)

    def check_host(self, request: Request, caller: Caller) -> None:
        """Raises Refusal 421."""
        if not caller.unix and self._loopback and not _is_loopback(_host_of(request)):
            raise Refusal(421, "the Host is not a loopback address or localhost")

    def check_page(self, request: Request, caller: Caller) -> None:
        """That no strange page asks. Raises Refusal 403."""
        origin = request.headers.get("origin")
        ours = f"{'https' if caller.tls else 'http'}://{request.headers.get('host', '')}"
        if origin is not None and (caller.unix or origin.lower() != ours.lower()):
            raise Refusal(403, "the Origin is not this listener's: pages of others may not call it")
        if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise Refusal(403, "a page of another site may not call it")

    def check_token(self, request: Request) -> None:
        """Raises Refusal 401."""
        if self._token is None:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise Refusal(401, "a token is needed: Authorization: Bearer TOKEN", headers=_CHALLENGE)
        # Takes as long for a wrong token as for one that is nearly right.
        if not hmac.compare_digest(given.strip().encode(), self._token):
            raise Refusal(401, "the token is wrong", headers=_CHALLENGE)


def _tls(config: Admin) -> ssl.SSLContext | None:
    tls = config.tls
    if tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(tls.cert, tls.key, password=_no_password)
        if tls.client_ca:
            context.load_verify_locations(tls.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        raise OpenError(
            f"admin API {config.bind}: tls: {getattr(error, 'strerror', None) or error}"
        ) from error
    return context


def _no_password() -> str:
    # Without it, OpenSSL would ask on the terminal.
    raise ValueError("the key is encrypted; it must not be")


def _host_of(request: Request) -> str:
    # h11 has seen to it that there is one Host at most.
    found = _AUTHORITY.fullmatch(request.headers.get("host", ""))
    return found[1].strip("[]").lower() if found else ""


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
