"""Where a command finds the running gateway's admin API, and as whom it calls: options, environment, file."""

from __future__ import annotations

import argparse
import os
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from fastgate.cli.common import Failed, add_config_option

MAX_TOKEN_BYTES: Final = 64 * 1024


class Place(NamedTuple):
    """host: what is connected to, and must stand in the certificate. token: "" for none. tls: None for a
    connection in the clear, which only goes to this machine."""

    host: str
    port: int
    unix_path: str | None
    token: str
    tls: ssl.SSLContext | None

    def __str__(self) -> str:
        if self.unix_path:
            return f"unix:{self.unix_path}"
        authority = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        return f"https://{authority}" if self.tls is not None else authority


def add_admin_options(parser: argparse.ArgumentParser) -> None:
    add_config_option(parser)
    admin = parser.add_argument_group(
        "the admin API",
        "Each has an environment variable, FASTGATE_ADMIN, FASTGATE_ADMIN_CA and so on, and "
        "FASTGATE_ADMIN_TOKEN holds a token itself.",
    )
    admin.add_argument(
        "--admin",
        metavar="ADDRESS",
        help='where it is: "127.0.0.1:9901", "unix:/path" or "https://host:port" (default: `admin.bind` of'
        " the configuration)",
    )
    admin.add_argument(
        "--admin-token-file",
        metavar="FILE",
        help="the token to call it with (default: `admin.token` of the configuration)",
    )
    admin.add_argument(
        "--admin-ca",
        metavar="FILE",
        help="whose certificates it may have, PEM (default: those that the system trusts)",
    )
    admin.add_argument("--admin-cert", metavar="FILE", help="the certificate to call it with, PEM")
    admin.add_argument(
        "--admin-key", metavar="FILE", help="that certificate's key, PEM (default: in its file)"
    )


def find(args: argparse.Namespace) -> Place:
    """Raises Failed."""
    from fastgate.config.addresses import check_host, is_loopback, parse_admin_bind
    from fastgate.config.units import BadValue

    text, where = _option(args, "admin"), "--admin"
    admin: dict[str, Any] = {}
    folder = Path()
    if not text:
        admin, folder = _of_files(args.config)
        where = f"{', '.join(args.config)}: admin.bind"
        text = str(admin["bind"])
    secure = text.startswith("https://") or isinstance(admin.get("tls"), dict)
    authority = text.removeprefix("https://").removesuffix("/")
    try:
        if text.startswith("https://"):
            host, port = _split(authority)
            check_host(host.strip("[]"))
            unix_path = None
        else:
            host, port, unix_path = parse_admin_bind(authority, {})[1:4]
    except BadValue as error:
        raise Failed(f"{where}: {error}") from None
    if unix_path is None and port == 0:
        raise Failed(f"{where}: the system chose the port; say with --admin which the gateway told")
    if unix_path is None and not secure and not is_loopback(host):
        raise Failed(f"{where}: another machine is called over TLS alone: --admin https://{authority}")
    # A bind to every address is reached on this machine; its certificate has to name that, or --admin does.
    host = {"": "localhost", "0.0.0.0": "localhost", "::": "localhost"}.get(host, host)
    return Place(host, port, unix_path, _token(args, admin, folder), _context(args) if secure else None)


def _option(args: argparse.Namespace, name: str) -> str:
    return str(getattr(args, name) or os.environ.get(f"FASTGATE_{name.upper()}", ""))


def _of_files(paths: Sequence[str]) -> tuple[dict[str, Any], Path]:
    """The first table `[admin]`, with `bind`, and the folder of its file. The rest may be in the middle of a
    change, and is the gateway's to judge."""
    from fastgate.config.files import OnDisk
    from fastgate.config.including import parse, read_document, read_text
    from fastgate.config.problems import ConfigError

    for path in paths:
        try:
            tables, folder = parse(read_text(path, OnDisk()), path), Path(path).parent
            if "admin" not in tables and "include" in tables:
                document = read_document(path, OnDisk())
                tables, folder = document.tables, document.folder(("admin",))
        except ConfigError as error:
            raise Failed(f"{error}; or say where with --admin") from None
        admin = tables.get("admin")
        if isinstance(admin, dict) and "bind" in admin:
            return admin, folder
    raise Failed(f"{', '.join(paths)} has no `admin.bind`, so its gateway has no admin API")


def _split(authority: str) -> tuple[str, int]:
    from fastgate.config.units import BadValue

    host, colon, port = authority.rpartition(":")
    if not colon or not port.isdigit() or not port.isascii() or not 1 <= int(port[:6]) <= 65_535:
        raise BadValue('expected "https://host:port"')
    return host, int(port)


def _token(args: argparse.Namespace, admin: dict[str, Any], folder: Path) -> str:
    if not args.admin_token_file and (token := os.environ.get("FASTGATE_ADMIN_TOKEN")):
        return _checked(token.strip(), "FASTGATE_ADMIN_TOKEN")
    if name := _option(args, "admin_token_file"):
        return _checked(_read(Path(name)), name)
    match admin.get("token"):
        case {"env": str(name)}:
            return _checked(os.environ.get(name, ""), name)
        case {"file": str(name)}:
            return _checked(_read(folder / name), name)
    return ""


def _checked(token: str, where: str) -> str:
    # It becomes a header field, and the gateway takes no other.
    from fastgate.config.texts import parse_bearer_token
    from fastgate.config.units import BadValue

    if not token:
        return ""  # the gateway says that one is needed
    try:
        return parse_bearer_token(token, {})
    except BadValue as error:
        raise Failed(f"{where}: {error}") from None


def _read(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(MAX_TOKEN_BYTES).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Failed(f"{path}: {getattr(error, 'strerror', None) or 'it is not UTF-8'}") from None


def _context(args: argparse.Namespace) -> ssl.SSLContext:
    """The gateway's certificate is always verified."""
    ca, cert, key = (_option(args, name) for name in ("admin_ca", "admin_cert", "admin_key"))
    tried = ca
    try:
        context = ssl.create_default_context(cafile=ca or None)
        if cert:
            tried = cert
            context.load_cert_chain(cert, key or None, password=_no_password)
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        raise Failed(f"{tried}: {getattr(error, 'strerror', None) or error}") from None
    return context


def _no_password() -> str:
    # Without it, OpenSSL would ask on the terminal.
    raise ValueError("the key is encrypted, and it must not be")
