"""Certificates from a real directory (pebble), which validates: the whole gateway, with its workers."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import StartGateway
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from support.client import request
from support.gateway import Gateway, config
from support.metrics import scrape
from support.pebble import Pebble
from support.tls import TlsClient
from test_program_upgrade import upgrade

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


def test_a_challenge_is_answered_before_any_route_and_filter(
    start_gateway: StartGateway, pebble: Pebble, tmp_path: Path
) -> None:
    """Clients are sent to https, and nobody is let in: neither is asked of a directory."""
    made = tables(pebble, tmp_path / "store", challenge="http-01")
    made["listeners"][0]["plugins"] = ["nobody"]
    made["plugins"] = {"nobody": {"use": "ip-filter", "block": ["0.0.0.0/0"]}}
    gateway = start_gateway(made)
    for name in NAMES:
        wait_issued(gateway, name)
    since = gateway.mark()
    with gateway.client("plain") as client:
        # What is not under way is like any other path.
        assert client.request(request("GET", "/.well-known/acme-challenge/x")).status == 403
        assert client.request(request("GET", "/.well-known/acme-challenge/")).status == 403
    asked = [record for record in gateway.log[:since] if record["reason"] == "acme-challenge"]
    assert {record["host"].partition(":")[0] for record in asked} == set(NAMES)
    assert {record["status"] for record in asked} == {200}


def test_before_the_first_certificate_a_handshake_is_refused(
    start_gateway: StartGateway, pebble: Pebble, tmp_path: Path
) -> None:
    """And the gateway serves all the same: without a directory, too."""
    pebble.kill()
    made = {**tables(pebble, tmp_path / "store", challenge="http-01"), "admin": {"bind": "127.0.0.1:0"}}
    gateway = start_gateway(made)
    gateway.wait_stderr("fastgate: acme test: directory: the directory can't be reached: ")
    for each in gateway.admin("/certificates")["certificates"]:
        assert each["problem"].startswith("the directory can't be reached: ")
        assert each["failures"] >= 1
        assert each["next_try"] is not None
    with gateway.client("plain") as client:
        assert client.request(request("GET", "/")).body == b"a route"
    with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
        TlsClient(gateway.addresses["secure"], NAMES[0], context=ssl.create_default_context())
    pebble.start()
    for name in NAMES:
        wait_issued(gateway, name)
        shown(gateway, pebble, name)


def test_workers_and_the_engine_are_replaced_without_a_new_order(
    start_gateway: StartGateway, pebble: Pebble, tmp_path: Path
) -> None:
    gateway = start_gateway(tables(pebble, tmp_path / "store", challenge="tls-alpn-01", workers=2))
    for name in NAMES:
        wait_issued(gateway, name)
    before = {name: shown(gateway, pebble, name) for name in NAMES}
    for pid in tuple(gateway.workers):
        known = len(gateway.workers)
        os.kill(pid, signal.SIGKILL)
        gateway.wait_workers(known + 1)
    assert {name: shown(gateway, pebble, name) for name in NAMES for _ in range(6)} == before
    (engine,) = engines(gateway)
    os.kill(engine, signal.SIGKILL)
    gateway.wait_stderr("fastgate: the process of ACME (pid ")
    since = len(gateway.stderr)
    for name in NAMES:
        start = f"fastgate: acme test: the certificate of {name}: serial "
        gateway.wait_stderr(start, since=since)
    assert {name: shown(gateway, pebble, name) for name in NAMES} == before
    assert pebble.log().count("Issued certificate serial") == len(NAMES)


def engines(gateway: Gateway) -> list[int]:
    """The supervisor's children that are no workers."""
    text = Path(f"/proc/{gateway.supervisors[-1]}/task/{gateway.supervisors[-1]}/children").read_text()
    return [int(pid) for pid in text.split() if int(pid) not in gateway.workers]


def test_a_reload_brings_names_and_takes_them(
    start_gateway: StartGateway, pebble: Pebble, tmp_path: Path
) -> None:
    made = tables(pebble, tmp_path / "store", challenge="http-01")
    without = {**made, "acme": {}, "listeners": made["listeners"][:1]}
    gateway = start_gateway(without)
    assert engines(gateway) == []
    gateway.reload(made)
    gateway.addresses["secure"] = ("127.0.0.1", pebble.tls_port)
    for name in NAMES:
        wait_issued(gateway, name)
    made["listeners"][1]["tls"]["domains"] = [NAMES[0], "three.example.com"]
    gateway.reload(made)
    wait_issued(gateway, "three.example.com")
    shown(gateway, pebble, "three.example.com")
    shown(gateway, pebble, NAMES[0])
    # The other one's is no longer shown: whoever asks gets the first that there is.
    with pytest.raises(ssl.SSLCertVerificationError):
        shown(gateway, pebble, NAMES[1])


def test_the_admin_api_tells_how_certificates_stand(
    start_gateway: StartGateway, pebble: Pebble, tmp_path: Path
) -> None:
    made = {**tables(pebble, tmp_path / "store", challenge="http-01"), "admin": {"bind": "127.0.0.1:0"}}
    gateway = start_gateway(made)
    for name in NAMES:
        wait_issued(gateway, name)
    (one,) = gateway.admin("/acme")["acme"]
    assert one["name"] == "test"
    assert one["account"].startswith(pebble.directory.removesuffix("/dir"))
    assert one["problem"] == ""
    assert [(each["domain"], each["state"], each["failures"]) for each in one["certificates"]] == [
        (name, "valid", 0) for name in NAMES
    ]


def test_an_operator_sees_what_there_is_and_what_is_missing(
    start_gateway: StartGateway, pebble: Pebble, tmp_path: Path
) -> None:
    """In GET /certificates and the metrics: one that was issued, one for which nobody answers."""
    pebble.point(NAMES[1], "127.0.0.2")
    made = {**tables(pebble, tmp_path / "store", challenge="http-01"), "admin": {"bind": "127.0.0.1:0"}}
    gateway = start_gateway(made)
    wait_issued(gateway, NAMES[0])
    gateway.wait_stderr(f"fastgate: acme test: no certificate for {NAMES[1]}: ")
    missing, valid = gateway.admin("/certificates")["certificates"]
    assert (missing["acme"], missing["listener"], missing["file"]) == ("test", "secure", "")
    assert (missing["names"], missing["state"]) == ([NAMES[1]], "pending")
    assert missing["problem"].startswith("connection: ")
    assert missing["failures"] >= 1
    assert missing["next_try"] > time.time() - 5
    assert (missing["not_after"], missing["days_left"], missing["sha256"]) == (None, None, "")
    assert (valid["names"], valid["state"], valid["problem"]) == ([NAMES[0]], "valid", "")
    own = x509.load_der_x509_certificate(shown(gateway, pebble, NAMES[0]))
    assert valid["sha256"] == own.fingerprint(SHA256()).hex()
    assert valid["not_after"] == own.not_valid_after_utc.timestamp()
    assert own.not_valid_before_utc.timestamp() < valid["renew_at"] < valid["not_after"]
    assert valid["key"] == "ECDSA secp256r1"
    found = scrape(gateway)
    assert found.one("fastgate_certificate_expiry_timestamp_seconds") == valid["not_after"]
    states = {sample.labels["state"]: sample.value for sample in found.find("fastgate_acme_certificates")}
    assert states == {"pending": 1, "valid": 1, "expired": 0}
    assert found.one("fastgate_acme_failures", acme="test", domain=NAMES[0]) == 0
    assert found.one("fastgate_acme_failures", acme="test", domain=NAMES[1]) >= 1
    # Why it failed is the directory's own text, which is no label.
    assert "connection" not in found.text.replace("connections", "")


def test_while_its_process_hangs_certificates_are_still_told(
    start_gateway: StartGateway, pebble: Pebble, tmp_path: Path
) -> None:
    made = {**tables(pebble, tmp_path / "store", challenge="http-01"), "admin": {"bind": "127.0.0.1:0"}}
    gateway = start_gateway(made)
    for name in NAMES:
        wait_issued(gateway, name)
    before = gateway.admin("/certificates")["certificates"]
    (engine,) = engines(gateway)
    os.kill(engine, signal.SIGSTOP)
    told = gateway.admin("/certificates")["certificates"]
    assert [{**each, "problem": ""} for each in told] == before
    assert {each["problem"] for each in told} == {"its process does not answer"}
    found = scrape(gateway)
    assert len(found.find("fastgate_certificate_expiry_timestamp_seconds")) == len(NAMES)
    os.kill(engine, signal.SIGCONT)
    assert gateway.admin("/certificates")["certificates"] == before


def test_a_new_program_has_what_was_issued_and_orders_what_was_under_way(
    start_gateway: StartGateway, pebble: Pebble, tmp_path: Path
) -> None:
    """`fastgate upgrade` in the middle of an order: the directory waits for an answer that never comes."""
    pebble.point(NAMES[1], "127.0.0.2")
    with socket.create_server(("127.0.0.2", pebble.http_port)) as silent:
        silent.settimeout(20)
        gateway = start_gateway(tables(pebble, tmp_path / "store", challenge="http-01", workers=2))
        wait_issued(gateway, NAMES[0])
        before = shown(gateway, pebble, NAMES[0])
        asked, _ = silent.accept()
        with asked:
            pebble.point(NAMES[1], "127.0.0.1")
            since = len(gateway.stderr)
            upgrade(gateway)
            again = f"fastgate: acme test: the certificate of {NAMES[0]}: serial "
            gateway.wait_stderr(again, since=since)
            assert shown(gateway, pebble, NAMES[0]) == before
            done = f"fastgate: acme test: the certificate of {NAMES[1]}: serial "
            gateway.wait_stderr(done, timeout=30, since=since)
        shown(gateway, pebble, NAMES[1])
        assert shown(gateway, pebble, NAMES[0]) == before
    assert pebble.log().count("Issued certificate serial") == len(NAMES)
