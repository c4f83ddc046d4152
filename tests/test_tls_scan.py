"""What testssl.sh (Debian) says of a listener with TLS: no weak finding, in either profile."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import StartGateway
from support.gateway import config
from support.tls import Pair, authority_file, server_certificate

TESTSSL = shutil.which("testssl") or shutil.which("testssl.sh")
GOOD = {"OK", "INFO"}
# Protocols, categories of ciphers, forward secrecy, preferences, defaults and certificates, response fields,
# and all vulnerabilities that it knows of. Left out: the list of ciphers, and which clients get what.
PARTS = ("-p", "-s", "-f", "-P", "-S", "-h", "-U")
# Of the OpenSSL that asks, and of an authority that is not there to be asked.
NOT_OURS = {"engine_problem", "cert_revocation"}
VERSIONS = {"SSLv2", "SSLv3", "TLS1", "TLS1_1", "TLS1_2", "TLS1_3"}
OFFERED = {"intermediate": {"TLS1_2", "TLS1_3"}, "modern": {"TLS1_3"}}
ASKED = VERSIONS | {
    "cipherlist_NULL", "cipherlist_3DES_IDEA", "PFS", "cipher_order", "TLS_session_ticket", "HSTS_time",
    "heartbleed", "CCS", "ticketbleed", "secure_renego", "secure_client_renego", "CRIME_TLS", "BREACH",
    "DROWN", "LOGJAM", "LUCKY13", "RC4",
}  # fmt: skip


@pytest.mark.skipif(TESTSSL is None, reason="testssl.sh is not installed")
@pytest.mark.parametrize("profile", ["intermediate", "modern"])
def test_nothing_weak(start_gateway: StartGateway, tmp_path: Path, profile: str) -> None:
    pairs = [
        Pair(tmp_path, "ec", server_certificate("localhost", days=(-1, 90))),
        Pair(tmp_path, "rsa", server_certificate("localhost", days=(-1, 90), rsa_key=True)),
    ]
    tls = {"certificates": [pair.table for pair in pairs], "profile": profile, "hsts": "8760h"}
    gateway = start_gateway(
        config(
            listener={"tls": tls},
            route={"respond": {"status": 200, "body": "hello"}, "plugins": ["headers"]},
            plugins={"headers": {"use": "security-headers"}},
        )
    )
    report = tmp_path / "report.json"
    assert TESTSSL is not None
    options = ["--quiet", "--color", "0", "--warnings", "off", "--ip", "127.0.0.1", "--nodns", "none"]
    options += ["--add-ca", authority_file(tmp_path), "--jsonfile", str(report)]
    subprocess.run(
        [TESTSSL, *options, *PARTS, f"https://localhost:{gateway.port}"],
        capture_output=True,
        timeout=600,
        check=False,
    )
    findings = {each["id"]: each for each in json.loads(report.read_text())}
    assert findings.keys() >= ASKED
    weak = [
        each
        for name, each in findings.items()
        if each["severity"] not in GOOD and name.partition(" ")[0] not in NOT_OURS
    ]
    assert not weak
    offered = {name for name in VERSIONS if not findings[name]["finding"].startswith("not offered")}
    assert offered == OFFERED[profile]
