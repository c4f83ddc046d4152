"""`fastgate cert dev`: an authority, certificates by it, and what a client says to them."""

from __future__ import annotations

import re
import ssl
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import StartGateway
from support.gateway import ROOT, config
from support.tls import TlsClient


def cert(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fastgate", "cert", "dev", "--dir", str(folder), *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)


def trusting(folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(folder / "authority.pem")
    return context


def test_it_is_trusted(start_gateway: StartGateway, tmp_path: Path) -> None:
    """By whoever trusts the authority, for each name, as its words say; one authority for all calls."""
    folder = tmp_path / "certs"
    done = cert(folder)
    assert (done.returncode, done.stderr) == (0, "")
    (pair,) = re.findall(r'certificates = \[\{ cert = "(.*)", key = "(.*)" \}\]', done.stdout)
    authority = (folder / "authority.pem").read_text()
    assert cert(folder, "a.test", "*.a.test").returncode == 0
    assert (folder / "authority.pem").read_text() == authority
    certificates = [
        {"cert": pair[0], "key": pair[1]},
        {"cert": str(folder / "a.test.pem"), "key": str(folder / "a.test.key")},
    ]
    gateway = start_gateway(
        config(
            listener={"tls": {"certificates": certificates}}, route={"respond": {"status": 200, "body": "x"}}
        )
    )
    for name in ("localhost", "127.0.0.1", "a.test", "b.a.test"):
        with TlsClient(gateway.address, name, context=trusting(folder)) as client:
            assert client.get().status == 200


def test_keys_are_the_owners(tmp_path: Path) -> None:
    assert cert(tmp_path, "x.test").returncode == 0
    for name in ("authority.key", "x.test.key"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


@pytest.mark.parametrize("words", [("a b",), ("-x.test",), ("*.*.test",), ("x" * 300,), ("--days", "1000")])
def test_what_cannot_be(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = cert(tmp_path, *words)
    assert done.returncode == 2
    assert done.stderr


def test_a_foreign_authority(tmp_path: Path) -> None:
    (tmp_path / "authority.pem").write_text("hello")
    done = cert(tmp_path)
    assert done.returncode == 1
    assert "authority.pem" in done.stderr
    assert (tmp_path / "authority.pem").read_text() == "hello"
