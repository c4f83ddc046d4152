"""Who may call the admin API: tokens, certificates, and what a browser is kept from."""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from conftest import StartGateway
from cryptography import x509
from support.certificates import Issued, issue
from support.gateway import ROOT, Gateway, config

from fastgate.config import ConfigError, loads

TOKEN = "0123456789abcdef-token"
OTHER = "0123456789abcdef-other"
LOCAL = (x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1")))


class Files:
    """A certificate authority, what it has issued, and a token, on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = issue("CN=fastgate test root", ca=True)
        self.ca = self.write("ca.pem", self.root.pem)
        self.serve(issue("CN=gateway", *LOCAL, by=self.root, server=True))
        client = issue("CN=operator", by=self.root)
        self.client = self.write("client.pem", client.pem + client.key_pem)
        stranger = issue("CN=stranger", by=issue("CN=another root", ca=True))
        self.stranger = self.write("stranger.pem", stranger.pem + stranger.key_pem)
        self.token = self.write("token.txt", TOKEN + "\n")

    def write(self, name: str, text: str) -> str:
        (self.folder / name).write_text(text)
        return str(self.folder / name)

    def serve(self, server: Issued) -> None:
        self.server = server
        self.cert, self.key = self.write("cert.pem", server.pem), self.write("key.pem", server.key_pem)

    @property
    def tls(self) -> dict[str, str]:
        return {"cert": self.cert, "key": self.key}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("admin"))


class Asker:
    """HTTP to the admin listener of a gateway; `cert`: of the client, `ca`: None for no TLS."""

    def __init__(self, gateway: Gateway, ca: str | None = None, cert: str | None = None) -> None:
        address = gateway.addresses["admin API"]
        assert not isinstance(address, str)
        self.port = address[1]
        self.context = None
        if ca is not None:
            self.context = ssl.create_default_context(cafile=ca)
            if cert is not None:
                self.context.load_cert_chain(cert)

    def connection(self) -> http.client.HTTPConnection:
        if self.context is None:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=10, context=self.context)

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        status, _, found = self.whole(method, path, body, **headers)
        return status, found

    def whole(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any, Any]:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        if method != "GET":
            fields.setdefault("Content-Type", "application/json")
        connection = self.connection()
        try:
            connection.request(method, path, None if body is None else json.dumps(body), fields)
            answer = connection.getresponse()
            data = answer.read()
            is_json = (answer.headers["Content-Type"] or "").endswith("json")
            return answer.status, answer.headers, json.loads(data) if is_json else data
        finally:
            connection.close()


def fixed(**admin: Any) -> dict[str, Any]:
    return config(route={"respond": {}}) | {"admin": {"bind": "127.0.0.1:0", **admin}}


BEARER = {"Authorization": f"Bearer {TOKEN}"}


# -- tokens


@pytest.fixture(scope="module")
def with_token(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(fixed(token={"file": files.token}), tmp_path_factory.mktemp("token")) as gateway:
        yield gateway


@pytest.mark.parametrize(
    "given",
    [
        None,
        f"Bearer {OTHER}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        "Bearer",
        "Bearer ",
        f"Basic {TOKEN}",
        TOKEN,
        f"Bearer {TOKEN} {TOKEN}",
        "Bearer \xff",
    ],
)
def test_without_the_token(with_token: Gateway, given: str | None) -> None:
    asker = Asker(with_token)
    fields = {} if given is None else {"Authorization": given}
    for method, path in (
        ("GET", "/version"),
        ("POST", "/reload"),
        ("GET", "/nowhere"),
        ("DELETE", "/version"),
    ):
        status, headers, found = asker.whole(method, path, **fields)
        assert (status, headers["WWW-Authenticate"]) == (401, 'Bearer realm="fastgate admin"')
        assert TOKEN not in str(found)
    assert not [line for line in with_token.stderr if "reloaded" in line]


def test_with_the_token(with_token: Gateway) -> None:
    asker = Asker(with_token)
    assert asker.ask("GET", "/version", **BEARER)[0] == 200
    assert asker.ask("GET", "/version", Authorization=f"bearer {TOKEN}")[0] == 200
    assert asker.ask("GET", "/nowhere", **BEARER)[0] == 404
    status, shown = asker.ask("GET", "/configuration", **BEARER)
    assert (status, shown["configuration"]["admin"]["token"]) == (200, "<secret>")


def test_what_needs_no_token(with_token: Gateway) -> None:
    asker = Asker(with_token)
    assert asker.ask("GET", "/livez") == (200, {"live": True})
    assert asker.ask("GET", "/readyz") == (200, {"ready": True, "reasons": []})
    status, page = asker.ask("GET", "/")
    assert (status, page[:15].lower()) == (200, b"<!doctype html>")


def test_a_token_changes_and_the_socket_stays(start_gateway: StartGateway, files: Files) -> None:
    gateway = start_gateway(fixed())
    asker = Asker(gateway)
    assert asker.ask("GET", "/version")[0] == 200
    assert len(gateway.reload(fixed(token={"file": files.token}))) == 1, "no other listener is told of"
    assert asker.ask("GET", "/version")[0] == 401
    assert asker.ask("GET", "/version", **BEARER)[0] == 200
    gateway.reload(fixed())
    assert asker.ask("GET", "/version")[0] == 200


# -- TLS


def test_tls_comes_is_renewed_and_goes(start_gateway: StartGateway, files: Files) -> None:
    gateway = start_gateway(fixed(tls=files.tls))
    asker = Asker(gateway, files.ca)
    assert asker.ask("GET", "/version")[0] == 200

    def serial() -> int:
        with socket_to(asker) as connection:
            der = connection.getpeercert(binary_form=True)
        assert der is not None
        return x509.load_der_x509_certificate(der).serial_number

    assert serial() == files.server.certificate.serial_number
    files.serve(issue("CN=renewed", *LOCAL, by=files.root, server=True))
    gateway.reload()
    assert serial() == files.server.certificate.serial_number
    # A key that is another's changes nothing.
    files.write("key.pem", issue("CN=x").key_pem)
    assert "no certificate with its key: key values mismatch" in gateway.not_reload()[0]
    assert serial() == files.server.certificate.serial_number
    files.write("key.pem", files.server.key_pem)
    gateway.reload(fixed())
    assert Asker(gateway).ask("GET", "/version")[0] == 200


def socket_to(asker: Asker) -> ssl.SSLSocket:
    assert asker.context is not None
    return asker.context.wrap_socket(
        socket.create_connection(("127.0.0.1", asker.port), timeout=10), server_hostname="localhost"
    )


def test_a_client_needs_a_certificate(start_gateway: StartGateway, files: Files) -> None:
    gateway = start_gateway(fixed(bind="0.0.0.0:0", tls={**files.tls, "client_ca": files.ca}))
    assert Asker(gateway, files.ca, files.client).ask("GET", "/version")[0] == 200
    for cert in (None, files.stranger):
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
            Asker(gateway, files.ca, cert).ask("GET", "/version")
    # Other names are let in where a certificate vouches for them.
    asker = Asker(gateway, files.ca, files.client)
    assert asker.ask("GET", "/version", Host="gateway.example")[0] == 200


def test_no_handshake_at_all(start_gateway: StartGateway, files: Files) -> None:
    gateway = start_gateway(fixed(tls=files.tls))
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        Asker(gateway).ask("GET", "/version")
    assert Asker(gateway, files.ca).ask("GET", "/version")[0] == 200


@pytest.mark.parametrize("bind", [":9901", "192.0.2.1:9901", "[2001:db8::1]:9901"])
@pytest.mark.parametrize("more", ["", "token", "tls"])
def test_where_others_reach_it_there_is_a_way_to_tell_who(files: Files, bind: str, more: str) -> None:
    keys = {
        "": "",
        "token": f'token = {{ file = "{files.token}" }}',
        "tls": f'tls = {{ cert = "{files.cert}", key = "{files.key}" }}',
    }
    text = '[[listeners]]\nbind = ":8080"\n[[routes]]\nname = "r"\nrespond = {}\n[admin]\n'
    with pytest.raises(ConfigError, match=r"other machines reach"):
        loads(f'{text}bind = "{bind}"\n{keys[more]}\n')
    loads(f'{text}bind = "{bind}"\n{keys["token"]}\n{keys["tls"]}\n')


# -- browsers


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost.evil.example", "http://127.0.0.1"]
)
def test_pages_of_others(with_token: Gateway, origin: str) -> None:
    status, headers, _ = Asker(with_token).whole("POST", "/reload", {}, Origin=origin, **BEARER)
    assert status == 403
    assert not [name for name in headers if name.lower().startswith("access-control-")]


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_what_the_browser_tells_of_other_sites(with_token: Gateway, site: str) -> None:
    for path in ("/version", "/configuration"):
        assert Asker(with_token).ask("GET", path, Sec_Fetch_Site=site, **BEARER)[0] == 403
    # Somebody may follow a link to the page.
    assert Asker(with_token).ask("GET", "/", Sec_Fetch_Site=site)[0] == 200


def test_the_page_itself_may(with_token: Gateway) -> None:
    asker = Asker(with_token)
    origin = f"http://127.0.0.1:{asker.port}"
    for site in ("same-origin", "none"):
        assert asker.ask("POST", "/reload", {}, Origin=origin, Sec_Fetch_Site=site, **BEARER)[0] == 200


def test_headers_of_every_answer(with_token: Gateway) -> None:
    asker = Asker(with_token)
    for path, status in (("/livez", 200), ("/version", 401), ("/", 200)):
        found, headers, _ = asker.whole("GET", path)
        assert found == status
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        assert headers["Referrer-Policy"] == "no-referrer"
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy


def test_the_page_is_kept_until_it_changes(with_token: Gateway) -> None:
    asker = Asker(with_token)
    _, headers, _ = asker.whole("GET", "/")
    assert headers["Cache-Control"] == "no-cache"
    status, again, body = asker.whole("GET", "/", If_None_Match=headers["ETag"])
    assert (status, body, again["ETag"]) == (304, b"", headers["ETag"])
    assert asker.ask("GET", "/", If_None_Match='"other"')[0] == 200


# -- certificates


def test_certificates_by_their_end(start_gateway: StartGateway, files: Files) -> None:
    short = issue("CN=short.example", x509.DNSName("short.example"), by=files.root, days=(-2, 3), server=True)
    pair = {"cert": files.write("short.pem", short.pem), "key": files.write("short.key", short.key_pem)}
    gateway = start_gateway(
        config(route={"respond": {}}, listener={"tls": {"certificates": [pair]}})
        | {"admin": {"bind": "127.0.0.1:0", "tls": files.tls}}
    )
    status, found = Asker(gateway, files.ca).ask("GET", "/certificates")
    assert status == 200
    first, second = found["certificates"]
    assert (first["listener"], first["names"], first["days_left"]) == ("main", ["short.example"], 2)
    assert first["sha256"] == short.fingerprint
    assert first["not_after"] == short.certificate.not_valid_after_utc.timestamp()
    assert (second["listener"], second["sha256"]) == ("", files.server.fingerprint)
    assert Asker(start_gateway(fixed())).ask("GET", "/certificates") == (200, {"certificates": []})


# -- commands


def test_commands_with_token_and_tls(start_gateway: StartGateway, files: Files, tmp_path: Path) -> None:
    gateway = start_gateway(
        fixed(token={"file": files.token}, tls={**files.tls, "client_ca": files.ca}) | {"upstreams": {}}
    )
    asker = Asker(gateway)

    def command(*arguments: str, **environment: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "fastgate", "reload", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    where = ("--admin", f"https://localhost:{asker.port}")
    full = (*where, "--admin-ca", files.ca, "--admin-cert", files.client, "--admin-token-file", files.token)
    assert command(*full) == (0, "nothing changed\n")
    code, said = command(*full[:-2])
    assert (code, "a token is needed" in said) == (1, True)
    assert command(*full[:-2], FASTGATE_ADMIN_TOKEN=OTHER) == (1, "fastgate reload: the token is wrong\n")
    code, said = command(*where, "--admin-cert", files.client, "--admin-token-file", files.token)
    assert (code, "its certificate is not accepted: " in said) == (1, True)
    in_environment = {
        "FASTGATE_ADMIN": f"https://127.0.0.1:{asker.port}",
        "FASTGATE_ADMIN_CA": files.ca,
        "FASTGATE_ADMIN_CERT": files.client,
        "FASTGATE_ADMIN_TOKEN": TOKEN,
    }
    assert command(**in_environment) == (0, "nothing changed\n")
