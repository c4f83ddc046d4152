"""What testssl.sh (Debian) says of a listener with TLS: no weak finding, in either profile."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import StartGateway
from support.gateway import config
from support.tls import Pair, server_certificate

TESTSSL = shutil.which("testssl") or shutil.which("testssl.sh")
GOOD = {"OK", "INFO"}


@pytest.mark.skipif(TESTSSL is None, reason="testssl.sh is not installed")
def test_nothing_weak(start_gateway: StartGateway, tmp_path: Path) -> None:
    """Protocols, ciphers, forward secrecy, renegotiation. (All that it knows of takes half a minute.)"""
    pairs = [
        Pair(tmp_path, "ec", server_certificate("localhost")),
        Pair(tmp_path, "rsa", server_certificate("localhost", rsa_key=True)),
    ]
    gateway = start_gateway(
        config(
            listener={"tls": {"certificates": [pair.table for pair in pairs]}},
            route={"respond": {"status": 200, "body": "hello"}},
        )
    )
    report = tmp_path / "report.json"
    assert TESTSSL is not None
    options = ["--quiet", "--color", "0", "--warnings", "off", "--ip", "one", "--jsonfile", str(report)]
    subprocess.run(
        [TESTSSL, *options, "-p", "-s", "-f", "-H", "-I", "-R", f"https://127.0.0.1:{gateway.port}"],
        capture_output=True,
        timeout=180,
        check=False,
    )
    findings = {each["id"]: each for each in json.loads(report.read_text())}
    assert {"TLS1_2", "TLS1_3", "heartbleed", "CCS"} <= findings.keys()
    weak = [each for each in findings.values() if each["severity"] not in GOOD]
    assert not weak
