"""Certificates of clients: who is let in, what has been taken back, and who the caller is."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import StartGateway
from support.certificates import issue
from support.client import request
from support.gateway import Gateway, config
from support.tls import (
    AUTHORITY,
    Pair,
    TlsClient,
    authority_file,
    client_certificate,
    client_context,
    revocations,
    server_certificate,
)
from support.upstream import Upstream

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
BOTH = pytest.mark.parametrize("version", [V12, V13], ids=["1.2", "1.3"])
STRANGER = issue("CN=Somebody else", ca=True)


class Cast:
    """Who is there: a server's certificate, clients' of ours, one of them revoked, one of a stranger."""

    def __init__(self, folder: Path) -> None:
        self.server = Pair(folder, "server", server_certificate("test.example", "other.example"))
        self.shop = Pair(folder, "shop", client_certificate("shop.example"))
        self.gone = Pair(folder, "gone", client_certificate("gone.example"))
        self.old = Pair(folder, "old", client_certificate("old.example", days=(-20, -10)))
        self.stranger = Pair(folder, "stranger", client_certificate("shop.example", by=STRANGER))
        self.ca = authority_file(folder)
        self.crl = folder / "crl.pem"
        self.crl.write_text(revocations(AUTHORITY, self.gone.issued))

    def listener(self, name: str, **auth: Any) -> dict[str, Any]:
        tls: dict[str, Any] = {"certificates": [self.server.table]}
        if auth:
            tls["client_auth"] = {"ca": self.ca, **auth}
        return {"name": name, "bind": "127.0.0.1:0", "tls": tls}


@pytest.fixture(scope="module")
def cast(tmp_path_factory: pytest.TempPathFactory) -> Cast:
    return Cast(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def module_gateway(
    module_upstream: Upstream,
    cast: Cast,
    tmp_path_factory: pytest.TempPathFactory,
    tls_engine: dict[str, str],
) -> Iterator[Gateway]:
    plugin = {
        "use": "mtls",
        "clients": [{"sans": ["dns:shop.example"], "consumer": "shop"}],
        "consumer_header": "x-consumer",
        "forward": True,
    }
    tables = config(
        module_upstream.address,
        listeners=[
            cast.listener("required", mode="required", crl=str(cast.crl)),
            cast.listener("optional", mode="optional"),
            cast.listener("open"),
            {"name": "plain", "bind": "127.0.0.1:0"},
        ],
        routes=[
            {"name": "who", "match": {"prefix": "/who"}, "upstream": "up", "plugins": ["who"]},
            {"name": "all", "upstream": "up"},
        ],
        plugins={"who": plugin},
    )
    with Gateway(tables, tmp_path_factory.mktemp("gateway"), env=tls_engine) as gateway:
        yield gateway


@pytest.fixture
def gateway(module_gateway: Gateway) -> Gateway:
    return module_gateway


def ask(
    gateway: Gateway, listener: str, version: ssl.TLSVersion, pair: Pair | None, target: str = "/"
) -> int | str:
    """The status, or why the handshake has failed."""
    context = client_context(version, certificate=pair)
    try:
        with TlsClient(gateway.addresses[listener], context=context) as client:
            # With TLS 1.3 the client is done before it is judged: the first read tells.
            client.sock.sendall(request(target=target))
            return client.response().status
    except ssl.SSLError as error:
        return str(error.reason)
    except AssertionError as error:
        return str(error)


@BOTH
def test_required(gateway: Gateway, cast: Cast, version: ssl.TLSVersion) -> None:
    assert ask(gateway, "required", version, cast.shop) == 200
    for pair in (None, cast.gone, cast.old, cast.stranger):
        assert ask(gateway, "required", version, pair) != 200


@BOTH
def test_optional(gateway: Gateway, cast: Cast, version: ssl.TLSVersion) -> None:
    """Nobody has to; what is shown must be good. There is no list of revoked ones here."""
    for pair in (None, cast.shop, cast.gone):
        assert ask(gateway, "optional", version, pair) == 200
    for pair in (cast.old, cast.stranger):
        assert ask(gateway, "optional", version, pair) != 200


def test_why_is_told(gateway: Gateway, cast: Cast) -> None:
    """By alerts that say it (RFC 8446 6.2)."""
    found = {
        name: ask(gateway, "required", V12, pair)
        for name, pair in {"none": None, "gone": cast.gone, "old": cast.old, "other": cast.stranger}.items()
    }
    assert found == {
        "none": "SSLV3_ALERT_HANDSHAKE_FAILURE",
        "gone": "SSLV3_ALERT_CERTIFICATE_REVOKED",
        "old": "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "other": "TLSV1_ALERT_UNKNOWN_CA",
    }


@BOTH
def test_a_ticket_is_no_way_around(gateway: Gateway, cast: Cast, version: ssl.TLSVersion) -> None:
    """One from a listener that lets everybody in does not open another, nor one of another list."""
    for source in ("open", "optional"):
        context = client_context(version)
        with TlsClient(gateway.addresses[source], context=context) as client:
            assert client.get().status == 200
            session = client.sock.session
        with (
            pytest.raises((ssl.SSLError, AssertionError)),
            TlsClient(gateway.addresses["required"], context=context, session=session) as client,
        ):
            client.get()
    context = client_context(version, certificate=cast.shop)
    with TlsClient(gateway.addresses["required"], context=context) as client:
        assert client.get().status == 200
        session = client.sock.session
    with TlsClient(gateway.addresses["required"], context=context, session=session) as client:
        assert client.sock.session_reused
        assert client.get("/who").status == 200


@BOTH
def test_who_it_is(gateway: Gateway, upstream: Upstream, cast: Cast, version: ssl.TLSVersion) -> None:
    """The plugin knows the connection's certificate, and the service hears of it, not by a client's word."""
    mark = upstream.mark()
    with TlsClient(
        gateway.addresses["optional"], context=client_context(version, certificate=cast.shop)
    ) as client:
        assert client.get("/who", "Client-Cert: :AAAA:", "X-Consumer: root").status == 200
    seen = mark.one()
    assert seen.get("x-consumer") == "shop"
    assert seen.get("client-cert") == f":{base64.b64encode(cast.shop.issued.der).decode()}:"
    assert ask(gateway, "optional", version, cast.gone, "/who") == 403
    assert ask(gateway, "optional", version, None, "/who") == 401
    with gateway.client("plain") as plain:
        assert plain.get("/who", "Client-Cert: :AAAA:").status == 401


def test_another_host_than_the_handshakes(gateway: Gateway, cast: Cast) -> None:
    """RFC 9110 7.4; only where certificates of clients count, others may share connections among names."""
    since = gateway.mark_on("plain")
    with TlsClient(
        gateway.addresses["required"], "other.example", context=client_context(V13, certificate=cast.shop)
    ) as client:
        assert client.request(request(host="other.example")).status == 200
        assert client.request(request(host="OTHER.example:443")).status == 200
        refused = client.request(request(host="test.example"))
        assert (refused.status, b"misdirected" in refused.body) == (421, True)
        assert client.request(request(host="other.example")).status == 200
    assert gateway.wait_log(since, 4)[2]["reason"] == "misdirected"
    with TlsClient(gateway.addresses["open"], "other.example") as client:
        assert client.request(request(host="test.example")).status == 200


def test_revoked_with_a_reload(start_gateway: StartGateway, upstream: Upstream, tmp_path: Path) -> None:
    """Its tickets go with it; who is connected stays until its connection ends."""
    cast = Cast(tmp_path)
    tables = config(
        upstream.address, listeners=[cast.listener("required", mode="required", crl=str(cast.crl))]
    )
    gateway = start_gateway(tables)
    context = client_context(V13, certificate=cast.shop)
    with TlsClient(gateway.addresses["required"], context=context) as standing:
        assert standing.get().status == 200
        session = standing.sock.session
        cast.crl.write_text(revocations(AUTHORITY, cast.gone.issued, cast.shop.issued))
        gateway.reload()
        assert standing.get().status == 200
        with (
            pytest.raises((ssl.SSLError, AssertionError)),
            TlsClient(gateway.addresses["required"], context=context, session=session) as client,
        ):
            client.get()
