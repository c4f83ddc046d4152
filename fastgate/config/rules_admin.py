"""Rules of `[admin]` and `[metrics]`: who may reach them, and what they are reached by."""

from __future__ import annotations

import ipaddress
import re
import ssl
from pathlib import Path as FilePath

from msgspec.structs import replace

from fastgate.config.addresses import is_loopback
from fastgate.config.model import Admin, AdminTls, Listener, Metrics
from fastgate.config.problems import Path, quote
from fastgate.config.rules_context import Context


def with_files(admin: Admin, base: FilePath) -> Admin:
    """Its files as the process finds them; ``base`` is the directory of the configuration."""
    if admin.tls is None:
        return admin
    tls = admin.tls
    found = {
        name: str(base / getattr(tls, name)) for name in ("cert", "key", "client_ca") if getattr(tls, name)
    }
    return replace(admin, tls=replace(tls, **found))


def check_admin(context: Context, admin: Admin) -> None:
    problems, bind = context.problems, ("admin", "bind")
    _check_bind(context, "admin", admin)
    tls = admin.tls
    if admin.unix_path is not None:
        if tls is not None:
            problems.error(("admin", "tls"), "admin.tls: a Unix socket has no TLS", at_key=True)
    elif not is_loopback(admin.host):
        missing = [] if tls is not None else ["`tls`"]
        if admin.token is None and (tls is None or not tls.client_ca):
            missing.append("`token`" if tls is None else "`token` or `tls.client_ca`")
        if missing:
            problems.error(
                bind,
                f"admin.bind: other machines reach {quote(admin.bind)}, so it needs {' and '.join(missing)}",
                f'did you mean "127.0.0.1:{admin.port}"?',
            )
    if tls is not None and admin.unix_path is None:
        _check_files(context, tls)


def check_metrics(context: Context, metrics: Metrics) -> None:
    _check_bind(context, "metrics", metrics)
    admin = context.config.admin
    if admin is not None and clash_of(metrics, admin):
        context.problems.error(
            ("metrics", "bind"), f"metrics.bind: the admin API already has {quote(admin.bind)}"
        )


def _check_bind(context: Context, table: str, ours: Admin | Metrics) -> None:
    for path, listener in context.listeners:
        if not context.problems.failed((*path, "bind")) and clash_of(ours, listener):
            context.problems.error(
                (table, "bind"),
                f"{table}.bind: listener {quote(listener.name)} already has {quote(listener.bind)}",
            )


def _check_files(context: Context, tls: AdminTls) -> None:
    # OpenSSL tells a file that is not there and one that is nonsense apart, but not which of two it was.
    for name in ("cert", "key", "client_ca"):
        if getattr(tls, name) and not _readable(context, ("admin", "tls", name), getattr(tls, name)):
            return
    trial = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        trial.load_cert_chain(tls.cert, tls.key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        what = _reason(error)
        context.problems.error(
            ("admin", "tls", "cert"), f"admin.tls.cert: no certificate with its key: {what}"
        )
    if tls.client_ca:
        try:
            trial.load_verify_locations(tls.client_ca)
        except ssl.SSLError as error:
            context.problems.error(
                ("admin", "tls", "client_ca"), f"admin.tls.client_ca: no certificates: {_reason(error)}"
            )


def _readable(context: Context, path: Path, name: str) -> bool:
    try:
        with open(name, "rb") as file:
            file.read(1)
    except OSError as error:
        label = ".".join(map(str, path))
        context.problems.error(
            path, f"{label}: cannot read {quote(name)}: {error.strerror or 'not readable'}"
        )
        return False
    return True


def _no_password() -> str:
    # Without it, OpenSSL would ask on the terminal.
    raise ValueError("the key is encrypted, and it must not be")


def _reason(error: Exception) -> str:
    """OpenSSL's words, without the line of the C source that Python adds."""
    return re.sub(r"^\[[^\]]*\] | \(_ssl\.c:[0-9]+\)$", "", str(error))


def clash_of(one: Listener | Admin | Metrics, other: Listener | Admin) -> str:
    """ "same" socket, "overlap" (one of them on every address of the port), or nothing."""
    if one.unix_path is not None or other.unix_path is not None:
        return "same" if one.unix_path == other.unix_path else ""
    if one.port != other.port or one.port == 0:
        return ""
    first, second = _canonical(one.host), _canonical(other.host)
    if first == second:
        return "same"
    return "overlap" if {"", "::", "0.0.0.0"} & {first, second} else ""


def _canonical(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host
