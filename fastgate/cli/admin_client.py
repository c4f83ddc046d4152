"""Calls of the running gateway's admin API, for the commands that need it."""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from fastgate.cli.common import add_config_option

TIMEOUT = 60.0  # seconds; a reload of a large configuration takes some


class Failed(Exception):
    """The call could not be made, or was refused. ``str()`` is for stderr; may have several lines."""


class Address(NamedTuple):
    host: str
    port: int
    unix_path: str | None

    def __str__(self) -> str:
        if self.unix_path:
            return f"unix:{self.unix_path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def add_admin_options(parser: argparse.ArgumentParser) -> None:
    add_config_option(parser)
    parser.add_argument(
        "--admin",
        metavar="ADDRESS",
        help='where the gateway has its admin API: "127.0.0.1:9901" or "unix:/path" (default: `admin.bind` of'
        " the configuration)",
    )


def call(args: argparse.Namespace, method: str, *path: str, body: object = None) -> Any:
    """What the admin API answers. ``path``: its segments. Raises Failed."""
    address = _address(args)
    connection = _UnixConnection(address.unix_path) if address.unix_path else _tcp(address)
    payload = None if method == "GET" else json.dumps({} if body is None else body)
    headers = {} if payload is None else {"Content-Type": "application/json"}
    target = "".join("/" + quote(segment, safe="") for segment in path)
    try:
        connection.request(method, target, payload, headers)
        answer = connection.getresponse()
        found = json.loads(answer.read())
    except (ConnectionRefusedError, FileNotFoundError):
        raise Failed(f"no gateway listens on {address}; is it running, with this `admin.bind`?") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Failed(f"{address}: {error or type(error).__name__}") from None
    finally:
        connection.close()
    if answer.status != 200:
        raise Failed(str(found.get("detail", answer.reason) if isinstance(found, dict) else answer.reason))
    return found


def tell_failure(command: str, failed: Failed) -> int:
    """Says on stderr why not; the exit code."""
    from fastgate.config.problems import shown

    for line in str(failed).splitlines():
        print(f"fastgate {command}: {shown(line)}", file=sys.stderr)
    return 1


def table(rows: list[list[str]]) -> str:
    """Columns of equal width, two spaces apart."""
    from fastgate.config.problems import shown

    widths = [max(len(shown(row[i])) for row in rows) for i in range(len(rows[0]))]
    lines = (
        "  ".join(shown(cell).ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def _address(args: argparse.Namespace) -> Address:
    from fastgate.config.addresses import parse_admin_bind
    from fastgate.config.units import BadValue

    text = args.admin
    where = "--admin"
    if text is None:
        files = ", ".join(args.config)
        where = f"{files}: admin.bind"
        admin = _written_admin(args.config)
        text = admin.get("bind") if isinstance(admin, dict) else None
        if text is None:
            raise Failed(f"{files} has no `admin.bind`, so its gateway has no admin API")
    try:
        bind = parse_admin_bind(str(text), {})
    except BadValue as error:
        raise Failed(f"{where}: {error}") from None
    if bind.unix_path is None and bind.port == 0:
        raise Failed(f"{where}: the system chose the port; say with --admin which the gateway told")
    return Address(bind.host, bind.port, bind.unix_path)


def _written_admin(paths: Sequence[str]) -> Any:
    """The first [admin] in the files, or in what they include. Raises Failed."""
    from fastgate.config.files import OnDisk
    from fastgate.config.including import parse, read_document, read_text
    from fastgate.config.problems import ConfigError

    for path in paths:
        # The rest of the files may be in the middle of a change, and is the gateway's to judge.
        try:
            tables = parse(read_text(path, OnDisk()), path)
            if "admin" not in tables and "include" in tables:
                tables = read_document(path, OnDisk()).tables
        except ConfigError as error:
            raise Failed(f"{error}\nor say where with --admin") from None
        if "admin" in tables:
            return tables["admin"]
    return None


def _tcp(address: Address) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(address.host, address.port, timeout=TIMEOUT)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
