"""Calls of the running gateway's admin API, for the commands that need it."""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from fastgate.cli.admin_place import Place, add_admin_options, find
from fastgate.cli.common import Failed

__all__ = ["add_admin_options", "call", "table"]

TIMEOUT = 60.0  # seconds; a reload of a large configuration takes some


def call(
    args: argparse.Namespace,
    method: str,
    *path: str,
    body: object = None,
    query: Mapping[str, str] = {},  # not changed
    if_match: str = "",
) -> Any:
    """What the admin API answers. ``path``: its segments. Raises Failed."""
    place = find(args)
    connection = _connection(place)
    payload = None if method == "GET" else json.dumps({} if body is None else body)
    headers = {} if payload is None else {"Content-Type": "application/json"}
    if place.token:
        headers["Authorization"] = f"Bearer {place.token}"
    if if_match:
        headers["If-Match"] = if_match
    target = "".join("/" + quote(segment, safe="") for segment in path)
    target += f"?{urlencode(query)}" if query else ""
    try:
        connection.request(method, target, payload, headers)
        answer = connection.getresponse()
        found = json.loads(answer.read())
    except (ConnectionRefusedError, FileNotFoundError):
        raise Failed(f"no gateway listens on {place}; is it running, with this `admin.bind`?") from None
    except ssl.SSLCertVerificationError as error:
        raise Failed(
            f"{place}: its certificate is not accepted: {error.verify_message}; --admin-ca says whose may be"
        ) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Failed(f"{place}: {error or type(error).__name__}") from None
    finally:
        connection.close()
    if answer.status // 100 != 2:
        raise Failed(str(found.get("detail", answer.reason) if isinstance(found, dict) else answer.reason))
    return found


def table(rows: list[list[str]]) -> str:
    """Columns of equal width, two spaces apart."""
    from fastgate.config.problems import shown

    widths = [max(len(shown(row[i])) for row in rows) for i in range(len(rows[0]))]
    lines = (
        "  ".join(shown(cell).ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def _connection(place: Place) -> http.client.HTTPConnection:
    if place.unix_path:
        return _UnixConnection(place.unix_path)
    if place.tls is not None:
        return http.client.HTTPSConnection(place.host, place.port, timeout=TIMEOUT, context=place.tls)
    return http.client.HTTPConnection(place.host, place.port, timeout=TIMEOUT)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
