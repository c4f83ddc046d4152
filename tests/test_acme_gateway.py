"""Certificates from a real directory (pebble), which validates: the whole gateway, with its workers."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import StartGateway
from support.client import request
from support.gateway import Gateway, config
from support.pebble import Pebble
from support.tls import TlsClient

NAMES = ["one.example.com", "two.example.com"]


@pytest.fixture
def pebble(tmp_path: Path) -> Iterator[Pebble]:
    folder = tmp_path / "pebble"
    folder.mkdir()
    with Pebble(folder) as pebble:
        yield pebble


def tables(pebble: Pebble, storage: Path, *, challenge: str, workers: int = 1, **tls: Any) -> dict[str, Any]:
    """A plain listener and one with TLS, on the ports where the directory looks."""
    found = config(
        listeners=[
            {"name": "plain", "bind": f"127.0.0.1:{pebble.http_port}"},
            {
                "name": "secure",
                "bind": f"127.0.0.1:{pebble.tls_port}",
                "tls": {"acme": "test", "domains": NAMES, **tls},
            },
        ],
        route={"respond": {"status": 200, "body": "a route"}},
        server={"workers": workers},
    )
    acme = {
        "directory": pebble.directory,
        "terms_agreed": True,
        "ca_file": str(pebble.ca_file),
        "storage": {"path": str(storage)},
        "challenge": challenge,
        "renewal": {"retry": "1s"},
    }
    return {**found, "acme": {"test": acme}}


def trusting(pebble: Pebble) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=pebble.root())
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def shown(gateway: Gateway, pebble: Pebble, name: str) -> bytes:
    """The certificate that a client is shown who trusts the directory's root alone."""
    client = TlsClient(gateway.addresses["secure"], name, context=trusting(pebble))
    with client:
        assert client.request(request("GET", "/", host=name)).body == b"a route"
        return client.shown


def wait_issued(gateway: Gateway, name: str) -> None:
    gateway.wait_stderr(f"fastgate: acme test: the certificate of {name}: serial ")


@pytest.mark.parametrize("challenge", ["http-01", "tls-alpn-01"])
@pytest.mark.parametrize("workers", [1, 3])
def test_certificates_are_issued(
    start_gateway: StartGateway, pebble: Pebble, tmp_path: Path, challenge: str, workers: int
) -> None:
    gateway = start_gateway(tables(pebble, tmp_path / "store", challenge=challenge, workers=workers))
    for name in NAMES:
        wait_issued(gateway, name)
    assert len({shown(gateway, pebble, name) for name in NAMES for _ in range(6)}) == len(NAMES)
