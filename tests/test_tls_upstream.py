"""TLS with endpoints: who they are is verified, what goes wrong has its own reason, and pools, checks and
tunnels go on as without."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import StartGateway, StartUpstream
from support import upstream as up
from support.certificates import issue
from support.client import request
from support.gateway import Gateway, config
from support.peers import nginx
from support.tls import (
    AUTHORITY,
    Pair,
    TlsClient,
    authority_file,
    client_certificate,
    client_context,
    server_certificate,
    server_context,
)
from support.upstream import Upstream, free_port

STRANGER = issue("CN=Somebody else", ca=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def pair(folder: Path) -> Pair:
    return Pair(folder, "local", server_certificate("127.0.0.1", "orders.example"))


@pytest.fixture(scope="module")
def module_upstream(pair: Pair) -> Iterator[Upstream]:
    with Upstream(tls=server_context(pair)) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def module_gateway(
    module_upstream: Upstream, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    tables = config(
        module_upstream.address,
        upstream_options={"tls": {"ca": authority_file(folder)}},
        route={"upgrade": ["websocket"]},
    )
    with Gateway(tables, tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


@pytest.fixture
def gateway(module_gateway: Gateway) -> Gateway:
    return module_gateway


# -- the common case


def test_connections_are_kept(gateway: Gateway, upstream: Upstream) -> None:
    mark = upstream.mark()
    with gateway.client() as client:
        for _ in range(5):
            assert client.get().status == 200
    assert len(mark.connections) <= 1


def test_a_tunnel(gateway: Gateway, upstream: Upstream) -> None:
    def talk(connection: up.Connection) -> None:
        connection.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello "
        )
        assert connection.stream.exactly(5, "from the client") == b"there"
        connection.send(b"world")

    upstream.script(talk, up.goodbye())
    with gateway.client() as client:
        client.send(request(lines=("Connection: Upgrade", "Upgrade: websocket")))
        assert client.response().status == 101
        client.send(b"there")
        assert client.stream.rest("the end") == b"hello world"


@pytest.mark.parametrize("protocol", ["TLSv1.2", "TLSv1.3"])
def test_nginx_behind(
    start_gateway: StartGateway, pair: Pair, folder: Path, tmp_path: Path, protocol: str
) -> None:
    """A real server: a large file, keep-alive, and its own end of an idle connection."""
    (tmp_path / "root").mkdir()
    content = bytes(range(256)) * 4096
    (tmp_path / "root" / "file").write_bytes(content)
    port = free_port()
    server = (
        f"listen 127.0.0.1:{port} ssl; ssl_certificate {pair.cert}; ssl_certificate_key {pair.key}; "
        f"ssl_protocols {protocol}; keepalive_timeout 1s;"
    )
    with nginx(tmp_path, server):
        gateway = start_gateway(
            config(f"127.0.0.1:{port}", upstream_options={"tls": {"ca": authority_file(folder)}})
        )
        with gateway.client() as client:
            for _ in range(3):
                assert client.get("/file").body == content
            assert client.get("/nothing").status == 404


# -- sessions


@pytest.mark.parametrize("protocol", ["TLSv1.2", "TLSv1.3"])
def test_nginx_resumes(
    start_gateway: StartGateway, pair: Pair, folder: Path, tmp_path: Path, protocol: str
) -> None:
    """As it says itself, for one connection after the other."""
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "file").write_bytes(b"content")
    port = free_port()
    server = (
        f"listen 127.0.0.1:{port} ssl; ssl_certificate {pair.cert}; ssl_certificate_key {pair.key}; "
        f"ssl_protocols {protocol}; keepalive_timeout 0; add_header x-reused $ssl_session_reused;"
    )
    with nginx(tmp_path, server):
        gateway = start_gateway(
            config(f"127.0.0.1:{port}", upstream_options={"tls": {"ca": authority_file(folder)}})
        )
        with gateway.client() as client:
            seen = [client.get("/file").get("x-reused") for _ in range(4)]
    assert seen == [".", "r", "r", "r"]


def resumptions(context: ssl.SSLContext) -> tuple[int, int]:
    """Handshakes that a server has made, and how many of them resumed a session."""
    counted = context.session_stats()
    return counted["accept_good"], counted["hits"]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_the_second_connection_of_a_pool_resumes(
    start_gateway: StartGateway,
    start_upstream: StartUpstream,
    folder: Path,
    pair: Pair,
    version: ssl.TLSVersion,
) -> None:
    """Also behind a reload, unless that changes the upstream."""
    context = server_context(pair)
    context.maximum_version = version
    upstream = start_upstream(tls=context)
    tls = {"ca": authority_file(folder)}
    gateway = start_gateway(config(upstream.address, upstream_options={"tls": tls}))

    def two_at_once() -> None:
        both = threading.Barrier(2, timeout=10)

        def meet(connection: up.Connection) -> None:
            both.wait()

        for _ in range(2):
            upstream.script(meet, up.reply(200, b"ok"))
        with gateway.client() as one, gateway.client() as other:
            one.send(request())
            other.send(request())
            assert (one.response().status, other.response().status) == (200, 200)

    with gateway.client() as client:
        assert client.get().status == 200
    assert resumptions(context) == (1, 0)
    two_at_once()
    assert resumptions(context) == (2, 1)
    gateway.reload(config(upstream.address, upstream_options={"tls": tls}, route={"upgrade": ["websocket"]}))
    with gateway.client() as client:
        assert client.get("/", "Connection: close").status == 200
    assert resumptions(context) == (2, 1), "the pool lives on"
    gateway.reload(config(upstream.address, upstream_options={"tls": {**tls, "name": "orders.example"}}))
    with gateway.client() as client:
        assert client.get().status == 200
    assert resumptions(context) == (3, 1), "another name has to be proven"


def test_a_session_that_is_not_taken_back(
    start_gateway: StartGateway, start_upstream: StartUpstream, folder: Path, pair: Pair
) -> None:
    """A service that starts anew has other keys: a full handshake, and no request fails. Who is somebody else
    then is found out."""
    contexts = [server_context(pair), server_context(pair)]
    stranger = Pair(folder, "stranger", issue("CN=x", server=True))
    upstream = start_upstream(tls=contexts[0])
    gateway = start_gateway(
        config(
            upstream.address,
            upstream_options={"tls": {"ca": authority_file(folder)}, "pool": {"max_idle": 0}},
        )
    )
    with gateway.client() as client:
        for _ in range(2):
            assert client.get().status == 200
        assert resumptions(contexts[0]) == (2, 1)
        upstream.tls = contexts[1]
        for _ in range(2):
            assert client.get().status == 200
        assert resumptions(contexts[1]) == (2, 1)
        upstream.tls = server_context(stranger)
        assert failed(gateway)[:2] == (502, "upstream-certificate")


# -- a word for it


def test_endpoints_with_a_scheme(
    start_gateway: StartGateway, upstream: Upstream, folder: Path, pair: Pair
) -> None:
    """`https://` alone turns TLS on, with the system's authorities, which do not know ours; `tls = true`
    likewise; and `http://` is what no scheme is."""
    gateway = start_gateway(config(f"https://{upstream.address}"))
    assert failed(gateway)[:2] == (502, "upstream-certificate")
    gateway.reload(config(upstream.address, upstream_options={"tls": True}))
    assert failed(gateway)[:2] == (502, "upstream-certificate")
    gateway.reload(
        config(f"https://{upstream.address}", upstream_options={"tls": {"ca": authority_file(folder)}})
    )
    with gateway.client() as client:
        assert client.get().status == 200
    gateway.reload(config(f"http://{upstream.address}", upstream_options={"tls": False}))
    upstream.errors.clear()
    assert failed(gateway)[0] == 502
    upstream.errors.clear()


@pytest.mark.parametrize(
    ("profile", "least", "spoken"),
    [("intermediate", None, True), ("intermediate", "1.3", False), ("modern", "1.3", False)],
)
def test_min_version(
    start_gateway: StartGateway,
    start_upstream: StartUpstream,
    folder: Path,
    pair: Pair,
    profile: str,
    least: str | None,
    spoken: bool,
) -> None:
    """Whether TLS 1.2 is, with endpoints and with clients."""
    context = server_context(pair)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    upstream = start_upstream(tls=context)
    said: dict[str, Any] = {"profile": profile, **({"min_version": least} if least else {})}
    gateway = start_gateway(
        config(
            upstream.address,
            upstream_options={"tls": {"ca": authority_file(folder), **said}},
            listeners=[
                {"name": "main", "bind": "127.0.0.1:0"},
                {"name": "tls", "bind": "127.0.0.1:0", "tls": {"certificates": [pair.table], **said}},
            ],
        )
    )
    with gateway.client() as client:
        assert client.get().status == (200 if spoken else 502)
    old = client_context(ssl.TLSVersion.TLSv1_2)
    if spoken:
        TlsClient(gateway.addresses["tls"], "127.0.0.1", context=old).close()
    else:
        with pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"):
            TlsClient(gateway.addresses["tls"], "127.0.0.1", context=old)


# -- bodies that end with the connection


def test_an_end_that_is_said(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(up.send(b"HTTP/1.1 200 OK\r\n\r\nall of it"), up.goodbye())
    with gateway.client() as client:
        assert client.get().body == b"all of it"


def test_an_end_that_is_not_said(gateway: Gateway, upstream: Upstream) -> None:
    """FIN without close_notify: somebody may have cut it off (RFC 8446 6.1)."""
    for head in (b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"):
        since = gateway.mark()
        upstream.script(up.send(head + b"half of it"), up.close())
        with gateway.client() as client:
            client.send(request())
            client.cut_response()
        (line,) = gateway.wait_log(since)
        assert (line["reason"], line["status"]) == ("upstream-truncated", 200)
        assert line["detail"] == "closed without close_notify (TLS)"


def test_an_end_before_an_answer(gateway: Gateway, upstream: Upstream) -> None:
    for end in (up.close(), up.goodbye(), up.reset()):
        since = gateway.mark()
        upstream.script(end)
        with gateway.client() as client:
            assert client.request(request("POST", body=b"x")).status == 502
        assert gateway.wait_log(since)[0]["reason"] == "upstream-reset"


def test_the_race_of_keep_alive(gateway: Gateway, upstream: Upstream) -> None:
    """An endpoint that has closed an idle connection, in either way, costs nobody an answer."""
    for end in (up.close(), up.goodbye()):
        upstream.script(up.reply(), end)
        with gateway.client() as client:
            assert client.get().status == 200
            assert client.get().status == 200


# -- who it is


def failed(gateway: Gateway, *lines: str) -> tuple[int, str, str]:
    """Status, reason and detail of a request that must fail."""
    since = gateway.mark()
    with gateway.client() as client:
        status = client.get("/", *lines).status
    line = gateway.wait_log(since)[0]
    return status, line["reason"], line["detail"]


NOT_GOOD = {
    "stranger": (server_certificate("127.0.0.1", by=STRANGER), "unable to get local issuer certificate"),
    "expired": (server_certificate("127.0.0.1", days=(-20, -10)), "certificate has expired"),
    "not yet": (server_certificate("127.0.0.1", days=(10, 20)), "certificate is not yet valid"),
    "name": (server_certificate("127.0.0.2"), "IP address mismatch"),
    "self-signed": (issue("CN=127.0.0.1", server=True), "self-signed certificate"),
    "client's": (client_certificate("shop.example"), "unsuitable certificate purpose"),
}


def test_not_who_it_should_be(
    start_gateway: StartGateway, start_upstream: StartUpstream, folder: Path, tmp_path: Path
) -> None:
    """Refused, with the reason; taken where the configuration does not ask."""
    tls: dict[str, Any] = {"ca": authority_file(folder)}
    upstreams = {
        name: {"endpoints": [start_upstream(tls=server_context(Pair(tmp_path, "shown", issued))).address]}
        for name, (issued, _) in NOT_GOOD.items()
    }
    routes = [{"name": name, "match": {"headers": {"x-to": name}}, "upstream": name} for name in upstreams]

    def tables(**options: Any) -> dict[str, Any]:
        return config(
            upstreams={name: {**each, "tls": {**tls, **options}} for name, each in upstreams.items()},
            routes=routes,
        )

    gateway = start_gateway(tables())
    for name, (_, why) in NOT_GOOD.items():
        status, reason, detail = failed(gateway, f"X-To: {name}")
        assert (status, reason) == (502, "upstream-certificate"), name
        assert why in detail, name
    gateway.reload(tables(verify=False))
    with gateway.client() as client:
        for name in NOT_GOOD:
            assert client.get("/", f"X-To: {name}").status == 200


def test_another_name(
    start_gateway: StartGateway, start_upstream: StartUpstream, folder: Path, pair: Pair
) -> None:
    """`name` is what is asked for (SNI) and what is verified."""
    asked: list[str | None] = []
    context = server_context(pair)
    context.sni_callback = lambda connection, name, own: asked.append(name)
    upstream = start_upstream(tls=context)

    def tables(name: str) -> dict[str, Any]:
        return config(
            upstream.address, upstream_options={"tls": {"ca": authority_file(folder), "name": name}}
        )

    gateway = start_gateway(tables("orders.example"))
    with gateway.client() as client:
        assert client.get().status == 200
    gateway.reload(tables("other.example"))
    assert failed(gateway)[1:] == (
        "upstream-certificate",
        "Hostname mismatch, certificate is not valid for 'other.example'.",
    )
    assert asked == ["orders.example", "other.example"]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_our_own_certificate(
    start_gateway: StartGateway,
    start_upstream: StartUpstream,
    folder: Path,
    pair: Pair,
    tmp_path: Path,
    version: ssl.TLSVersion,
) -> None:
    context = server_context(pair)
    context.maximum_version = version
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=AUTHORITY.pem)
    upstream = start_upstream(tls=context)
    own = Pair(tmp_path, "own", client_certificate("gateway.example"))
    tls = {"ca": authority_file(folder)}
    gateway = start_gateway(config(upstream.address, upstream_options={"tls": {**tls, **own.table}}))
    with gateway.client() as client:
        assert client.get().status == 200
    gateway.reload(config(upstream.address, upstream_options={"tls": tls}))
    status, reason, detail = failed(gateway)
    # With TLS 1.3 the endpoint judges when the handshake is over on our side: its RST may overtake its words.
    late = {"upstream-reset"} if version == ssl.TLSVersion.TLSv1_3 else set()
    assert status == 502
    assert (reason == "upstream-handshake" and "alert" in detail) or reason in late, detail


# -- no handshake


def test_no_tls_there(start_gateway: StartGateway, start_upstream: StartUpstream, folder: Path) -> None:
    """An HTTP service without TLS, one that ends, one that says nothing."""
    silent = threading.Event()
    upstream = start_upstream()
    tls = {"ca": authority_file(folder)}
    gateway = start_gateway(
        config(upstream.address, upstream_options={"tls": tls, "timeouts": {"connect": "300ms"}})
    )
    upstream.on_accept(up.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"), up.close())
    assert failed(gateway)[:2] == (502, "upstream-handshake")
    upstream.on_accept(up.close())
    assert failed(gateway)[:2] == (502, "upstream-handshake")
    upstream.on_accept(up.reset())
    assert failed(gateway)[1] in ("upstream-handshake", "connect-failed")  # as it is noticed before, or later
    upstream.on_accept(up.wait_for(silent), up.close())
    assert failed(gateway)[:2] == (504, "connect-timeout")
    silent.set()


def test_no_version_in_common(
    start_gateway: StartGateway, start_upstream: StartUpstream, folder: Path, pair: Pair
) -> None:
    context = server_context(pair)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    upstream = start_upstream(tls=context)
    tls = {"ca": authority_file(folder), "profile": "modern"}
    gateway = start_gateway(config(upstream.address, upstream_options={"tls": tls}))
    assert failed(gateway)[:2] == (502, "upstream-handshake")


# -- what the gateway asks itself


def test_checks_go_over_it(start_gateway: StartGateway, folder: Path, pair: Pair) -> None:
    """An endpoint that is not who it should be is left out by its checks."""
    good = Upstream(tls=server_context(pair))
    with good, Upstream(tls=server_context(Pair(folder, "bad", issue("CN=x", server=True)))) as bad:
        options = {
            "tls": {"ca": authority_file(folder)},
            "health": {"path": "/healthz", "interval": "100ms", "fall": 1, "rise": 1},
        }
        gateway = start_gateway(
            config([good.address, bad.address], upstream_options=options, admin={"bind": "127.0.0.1:0"})
        )
        gateway.wait_upstream(
            lambda shown: [endpoint["probe"] for endpoint in shown["endpoints"]] == ["up", "down"]
        )
        with gateway.client() as client:
            for _ in range(10):
                assert client.get().status == 200
