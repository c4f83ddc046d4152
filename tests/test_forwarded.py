"""What the upstream is told about the client: X-Forwarded-*, Forwarded (RFC 7239), X-Request-ID, and whom to
believe."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from conftest import StartGateway, StartUpstream
from support.client import Client, request
from support.gateway import Gateway, config
from support.upstream import Upstream
from support.wire import Request


def gateway_config(upstream: str) -> dict[str, Any]:
    def listener(name: str, **options: Any) -> dict[str, Any]:
        return {"name": name, "bind": "127.0.0.1:0", **options}

    trusted = {"trusted_proxies": ["127.0.0.0/8", "::1/128", "10.0.0.0/8"]}
    return config(
        upstream,
        listeners=[
            listener("plain"),
            listener("trusted", **trusted),
            listener("forwarded", forwarded=["forwarded"]),
            listener("both-trusted", forwarded=["forwarded", "x-forwarded"], **trusted),
            listener("neither", forwarded=[]),
            listener("keep-id", request_id="keep"),
            listener("new-id", request_id="always-new", **trusted),
        ],
    )


FORGED = (
    "X-Forwarded-For: 203.0.113.9",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: forged.example",
    "Forwarded: for=203.0.113.9;proto=https;host=forged.example",
)


def seen(gateway: Gateway, upstream: Upstream, listener: str, *lines: str) -> Request:
    mark = upstream.mark()
    with gateway.client(listener) as client:
        assert client.request(request(lines=lines)).status == 200
    return mark.one()


def test_made(gateway: Gateway, upstream: Upstream) -> None:
    found = seen(gateway, upstream, "plain")
    assert found.get("x-forwarded-for") == "127.0.0.1"
    assert found.get("x-forwarded-proto") == "http"
    assert found.get("x-forwarded-host") == "test.example"
    assert found.get("forwarded") is None


def test_untrusted_are_replaced(gateway: Gateway, upstream: Upstream) -> None:
    """Whoever is not trusted is not believed: nothing of what it claims goes on."""
    found = seen(gateway, upstream, "plain", *FORGED, "X-Forwarded-For: 203.0.113.10")
    assert found.get("x-forwarded-for") == "127.0.0.1"
    assert found.get("x-forwarded-proto") == "http"
    assert found.get("x-forwarded-host") == "test.example"
    assert "203.0.113" not in found.head.decode()
    assert "forged.example" not in found.head.decode()


def test_trusted_are_kept_and_added_to(gateway: Gateway, upstream: Upstream) -> None:
    found = seen(gateway, upstream, "trusted", *FORGED[:3])
    assert ", ".join(found.all("x-forwarded-for")) == "203.0.113.9, 127.0.0.1"
    assert found.get("x-forwarded-proto") == "https"
    assert found.get("x-forwarded-host") == "forged.example"


def test_several_lines_are_one_list(gateway: Gateway, upstream: Upstream) -> None:
    found = seen(gateway, upstream, "trusted", "X-Forwarded-For: 203.0.113.9", "X-Forwarded-For: 10.0.0.1")
    assert ", ".join(found.all("x-forwarded-for")) == "203.0.113.9, 10.0.0.1, 127.0.0.1"


def test_trusted_without_fields(gateway: Gateway, upstream: Upstream) -> None:
    found = seen(gateway, upstream, "trusted")
    assert found.get("x-forwarded-for") == "127.0.0.1"
    assert found.get("x-forwarded-proto") == "http"


def members(found: Request) -> list[dict[str, str]]:
    """The elements of Forwarded (RFC 7239 4)."""
    return [
        {
            name.lower(): quoted or token
            for name, quoted, token in re.findall(r'([A-Za-z]+)=(?:"([^"]*)"|([^;,\s"]+))', element)
        }
        for element in ", ".join(found.all("forwarded")).split(", ")
    ]


def test_forwarded(gateway: Gateway, upstream: Upstream) -> None:
    found = seen(gateway, upstream, "forwarded", *FORGED)
    (element,) = members(found)
    assert element["for"] == "127.0.0.1"
    assert element["proto"] == "http"
    assert element["host"] == "test.example"
    assert "x-forwarded-for" not in found, "a forged one must not go on because the other is written"
    assert "x-forwarded-host" not in found


def test_forwarded_trusted(gateway: Gateway, upstream: Upstream) -> None:
    first, last = members(seen(gateway, upstream, "both-trusted", *FORGED))
    assert first["for"] == "203.0.113.9"
    assert last["for"] == "127.0.0.1"


def test_neither(gateway: Gateway, upstream: Upstream) -> None:
    """Not written; and what an untrusted client claims does not go on either."""
    found = seen(gateway, upstream, "neither", *FORGED)
    assert not [name for name, _ in found.fields if "forwarded" in name.lower()]


def test_odd_host_is_quoted(gateway: Gateway, upstream: Upstream) -> None:
    """A port makes the value no token: it must be quoted (RFC 7239 4)."""
    mark = upstream.mark()
    with gateway.client("forwarded") as client:
        client.request(request(host="test.example:8080"))
    assert 'host="test.example:8080"' in str(mark.one().get("forwarded")).lower()


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("198.51.100.1, 203.0.113.9", "203.0.113.9"),
        ("203.0.113.9, 10.1.2.3", "203.0.113.9"),
        ("evil, 203.0.113.9, 10.1.2.3, 10.9.9.9", "203.0.113.9"),
        ("2001:db8::7", "2001:db8::7"),
    ],
)
def test_client_of_the_log(gateway: Gateway, upstream: Upstream, value: str, client: str) -> None:
    """The client is the last address that no trusted proxy has: one further left is only a claim."""
    since = gateway.mark()
    seen(gateway, upstream, "trusted", f"X-Forwarded-For: {value}")
    assert gateway.wait_log(since)[0]["client"] == client


@pytest.mark.parametrize(
    "value", ["", "evil", "203.0.113.9 203.0.113.10", "999.1.1.1", "unknown", ", ,", "a\tb"]
)
def test_bad_x_forwarded_for(gateway: Gateway, upstream: Upstream, value: str) -> None:
    """Nonsense from a trusted proxy is no reason to fail: the client is the proxy then."""
    since = gateway.mark()
    found = seen(gateway, upstream, "trusted", f"X-Forwarded-For: {value}")
    assert ", ".join(found.all("x-forwarded-for")).endswith("127.0.0.1")
    assert gateway.wait_log(since)[0]["client"] == "127.0.0.1"


# -- X-Request-ID

WELL_FORMED = "0123abcd-ef.GH_9"


def test_request_id_is_made(gateway: Gateway, upstream: Upstream) -> None:
    """The same at the upstream and in the log, another one for each request."""
    since = gateway.mark()
    mark = upstream.mark()
    with gateway.client("plain") as client:
        for _ in range(3):
            client.get()
    ids = [found.get("x-request-id") for found in mark.requests]
    assert len(set(ids)) == 3
    assert all(one and len(one) >= 16 for one in ids)
    assert [record["request_id"] for record in gateway.wait_log(since, 3)] == ids


@pytest.mark.parametrize(
    ("listener", "kept"), [("plain", False), ("trusted", True), ("keep-id", True), ("new-id", False)]
)
def test_request_id_kept(gateway: Gateway, upstream: Upstream, listener: str, kept: bool) -> None:
    since = gateway.mark()
    found = seen(gateway, upstream, listener, f"X-Request-ID: {WELL_FORMED}")
    value = found.get("x-request-id")
    assert value
    assert (value == WELL_FORMED) is kept
    assert gateway.wait_log(since)[0]["request_id"] == value


@pytest.mark.parametrize("value", ["", "a b", 'a"b', "caf\xe9", "x" * 5000, "<script>", "a,b;c={}"])
def test_ill_formed_request_id(gateway: Gateway, upstream: Upstream, value: str) -> None:
    """It ends up in logs: what is not plain and short is replaced."""
    found = seen(gateway, upstream, "keep-id", f"X-Request-ID: {value}").get("x-request-id")
    assert found
    assert re.fullmatch(r"[A-Za-z0-9._:/+=@,;{}-]{1,256}", found)
    if value not in ("a,b;c={}",):
        assert found != value


def test_two_request_ids(gateway: Gateway, upstream: Upstream) -> None:
    found = seen(gateway, upstream, "keep-id", "X-Request-ID: one-one", "X-Request-ID: two-two")
    assert len(found.all("x-request-id")) == 1


def test_host_sent_upstream(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    """upstreams.host: the client's, the endpoint's, or a literal."""
    upstream = start_upstream()
    for setting, wanted in (
        ("client", "test.example:81"),
        ("endpoint", upstream.address),
        ("inner.example", "inner.example"),
    ):
        gateway = start_gateway(config(upstream.address, upstream_options={"host": setting}))
        mark = upstream.mark()
        with gateway.client() as client:
            client.request(request(host="test.example:81"))
        assert mark.one().get("host") == wanted
        assert mark.one().get("x-forwarded-host") == "test.example:81"


# -- other kinds of address


def test_ipv6(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    upstream = start_upstream(("::1", 0))
    tables = config(upstream.address, listener={"bind": "[::1]:0", "forwarded": ["forwarded", "x-forwarded"]})
    gateway = start_gateway(tables)
    with gateway.client() as client:
        assert client.get().status == 200
    found = upstream.requests[0]
    assert found.get("x-forwarded-for") == "::1"
    assert 'for="[::1]' in str(found.get("forwarded")).lower(), "RFC 7239 6: IPv6 in brackets and quotes"
    assert gateway.wait_log()[0]["client"] == "::1"


def test_all_interfaces(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    """ ":port" is IPv4 and IPv6; an IPv4 client is called by its IPv4 address, not by ::ffff:127.0.0.1."""
    upstream = start_upstream()
    gateway = start_gateway(config(upstream.address, listener={"bind": ":0"}))
    port = gateway.port
    for host, name in (("127.0.0.1", "127.0.0.1"), ("::1", "::1")):
        mark = upstream.mark()
        with Client((host, port)) as client:
            assert client.get().status == 200
        assert mark.one().get("x-forwarded-for") == name


def test_unix_sockets(start_gateway: StartGateway, start_upstream: StartUpstream, tmp_path: Path) -> None:
    """As a listener and as an endpoint; the socket file is gone afterwards and a stale one is no obstacle."""
    upstream = start_upstream(str(tmp_path / "up.sock"))
    path = tmp_path / "gate.sock"
    for _ in range(2):
        gateway = start_gateway(config(upstream.address, listener={"bind": f"unix:{path}"}))
        mark = upstream.mark()
        with gateway.client() as client:
            assert client.get("/a").json()["target"] == "/a"
            assert client.request(request("POST", body=b"x" * 100_000)).status == 200
        assert mark.requests[0].get("host") == "test.example"
        gateway.stop()
        assert not path.exists()
