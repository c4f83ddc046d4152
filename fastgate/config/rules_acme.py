"""Rules of `[acme.NAME]`, and of listeners whose certificates come from there."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path as FilePath

from msgspec.structs import replace

from fastgate.config.model import Acme, Listener, ListenerTls, Secret
from fastgate.config.problems import Path, quote
from fastgate.config.rules_context import Context

__all__ = ["check_acme", "with_places"]


def with_places(acme: Acme, base: FilePath) -> Acme:
    """Its files by absolute names: they are read and written as long as the gateway runs."""
    storage = acme.storage
    if storage.path:
        storage = replace(storage, path=os.path.abspath(base / storage.path))
    ca_file = os.path.abspath(base / acme.ca_file) if acme.ca_file else ""
    return replace(acme, storage=storage, ca_file=ca_file)


def _demands_certificates(listener: Listener) -> bool:
    auth = listener.tls.client_auth if listener.tls is not None else None
    return auth is not None and auth.mode == "required"


def check_acme(context: Context) -> None:
    config, problems = context.config, context.problems
    for name, acme in config.acme.items():
        _check_one(context, ("acme", name), acme)
    used: set[str] = set()
    sound = not context.incomplete
    for path, listener in context.listeners:
        if problems.failed((*path, "tls")):
            sound = False
        elif listener.tls is not None:
            used |= _check_listener(context, (*path, "tls"), listener.tls)
            _check_alpn(context, (*path, "tls"), listener.tls)
    for name in config.acme:
        path = ("acme", name)
        known = sound and "acme" not in context.misspelt and not context.document.included(path)
        if known and name not in used:
            problems.warning(path, f"acme {quote(name)} is used by no listener", at_key=True)
    for name in used & config.acme.keys():
        if config.acme[name].challenge == "http-01" and not any(
            listener.tls is None or listener.tls.redirect_from is not None
            for _, listener in context.listeners
        ):
            problems.error(
                ("acme", name),
                'challenge: "http-01" is asked for on port 80, and there is no listener without TLS',
                'give the listener `tls.redirect_from = ":80"`, or take "tls-alpn-01"',
            )


def _check_one(context: Context, path: Path, acme: Acme) -> None:
    problems = context.problems
    if not acme.terms_agreed and not problems.failed((*path, "terms_agreed")):
        problems.error(
            (*path, "terms_agreed"),
            "terms_agreed: an authority gives certificates only to those who agree to its terms of service",
            "read them, then write terms_agreed = true",
        )
    storage = acme.storage
    if bool(storage.path) == (storage.redis is not None) and not problems.failed((*path, "storage")):
        problems.error((*path, "storage"), "storage: needs one of `path` and `redis`")
    if storage.redis is not None:
        context.check_redis((*path, "storage", "redis"), storage.redis)
    if acme.renewal.retry_max < acme.renewal.retry and not problems.failed((*path, "renewal")):
        problems.error((*path, "renewal", "retry_max"), "retry_max: is shorter than `retry`")
    if acme.ca_file and not os.access(acme.ca_file, os.R_OK):
        problems.error(
            (*path, "ca_file"), f"ca_file: cannot read {quote(str(context.written((*path, 'ca_file'))))}"
        )
    eab = acme.eab
    if eab is not None and not problems.failed((*path, "eab")):
        key = eab.hmac_key.reveal() if isinstance(eab.hmac_key, Secret) else eab.hmac_key
        if not key or not all(c.isascii() and (c.isalnum() or c in "-_=") for c in key):
            problems.error((*path, "eab", "hmac_key"), "hmac_key: is not base64url")
    for module, extra in (("acme", "acme"), *([("redis", "redis")] if storage.redis is not None else [])):
        if importlib.util.find_spec(module) is None:
            problems.error(
                path,
                f"the package {module} is not installed",
                f"pip install 'fastgate[{extra}]'",
                at_key=True,
            )


def _check_alpn(context: Context, path: Path, tls: ListenerTls) -> None:
    """An authority that validates by tls-alpn-01 has no certificate to show (RFC 8737 3). Any listener with
    TLS answers it, so one that asks for none is enough."""
    acme = context.config.acme.get(tls.acme)
    if acme is None or acme.challenge != "tls-alpn-01":
        return
    if all(_demands_certificates(each) for _, each in context.listeners if each.tls is not None):
        context.problems.error(
            (*path, "client_auth", "mode"),
            f'client_auth: acme {quote(tls.acme)} proves names by "tls-alpn-01", and the authority has no '
            "certificate to show here",
            'take challenge = "http-01", or mode = "optional" with the plugin `mtls`',
        )


def _check_listener(context: Context, path: Path, tls: ListenerTls) -> set[str]:
    """The [acme.NAME] that it uses."""
    problems = context.problems
    if bool(tls.acme) != bool(tls.domains):
        problems.error(path, "tls: `acme` and `domains` go together")
    if not (tls.certificates or tls.acme or tls.domains):
        problems.error(path, "tls: needs `certificates`, or `acme` with `domains`")
    if not tls.acme:
        return set()
    context.exists((*path, "acme"), "acme", tls.acme, context.acme_names)
    own = {name for certificate in tls.certificates for name in certificate.names}
    for domain in tls.domains:
        if domain in own:
            problems.warning(
                context.item((*path, "domains"), domain),
                f"domains: a certificate of `certificates` is for {quote(domain)} as well",
            )
    return {tls.acme}
