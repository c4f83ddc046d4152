"""PROXY protocol, versions 1 and 2, on listeners that ask for it (the HAProxy specification)."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from support import proxy_header as proxy
from support.client import request
from support.gateway import Gateway, config
from support.upstream import Upstream
from support.wire import ConnectionEnded


def gateway_config(upstream: str) -> dict[str, Any]:
    def listener(name: str, **options: Any) -> dict[str, Any]:
        return {"name": name, "bind": "127.0.0.1:0", "timeouts": {"head": "300ms"}, **options}

    return config(
        upstream,
        listeners=[
            listener("proxy", proxy_protocol=True),
            listener("from-us", proxy_protocol=True, trusted_proxies=["127.0.0.0/8"]),
            listener("from-others", proxy_protocol=True, trusted_proxies=["192.0.2.0/24"]),
            listener("off"),
        ],
    )


CRC = b"\x03\x00\x04\x00\x00\x00\x00"
GOOD: dict[str, tuple[bytes, str]] = {
    "v1 TCP4": (proxy.v1(), "203.0.113.7"),
    "v1 TCP6": (proxy.v1("2001:db8::7", target="2001:db8::1"), "2001:db8::7"),
    "v1 longest": (
        b"PROXY TCP6 " + b"ffff:f" * 0 + b"2001:db8::7 2001:db8::1 65535 65535\r\n",
        "2001:db8::7",
    ),
    "v1 UNKNOWN": (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    "v1 UNKNOWN with more": (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", "127.0.0.1"),
    "v2 TCP4": (proxy.v2(), "203.0.113.7"),
    "v2 TCP6": (proxy.v2("2001:db8::7", target="2001:db8::1"), "2001:db8::7"),
    "v2 with TLVs": (proxy.v2(tail=b"\x01\x00\x02h2" + b"\xea\x00\x01x"), "203.0.113.7"),
    "v2 with a long TLV": (proxy.v2(tail=b"\x04" + struct.pack("!H", 1000) + b"n" * 1000), "203.0.113.7"),
    "v2 LOCAL": (proxy.v2_local(), "127.0.0.1"),
    "v2 LOCAL with addresses": (proxy.v2(command=0), "127.0.0.1"),
    "v2 UNSPEC": (proxy.v2(family=0), "127.0.0.1"),
}


@pytest.mark.parametrize("split", [False, True], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("name", GOOD)
def test_good(gateway: Gateway, upstream: Upstream, name: str, split: bool) -> None:
    """The address of the header is the client's; the requests behind it are served as ever."""
    header, address = GOOD[name]
    mark, since = upstream.mark(), gateway.mark()
    with gateway.client("proxy") as client:
        if split:
            client.send_pieces(*(header[at : at + 1] for at in range(len(header))))
            client.send(request())
        else:
            client.send(header + request())
        assert client.response().status == 200
        assert client.get("/second").status == 200
    for found in mark.requests:
        assert found.get("x-forwarded-for") == address
    assert gateway.wait_log(since)[0]["client"] == address


V2 = proxy.v2()
BAD: dict[str, bytes] = {
    "none": request(),
    "nothing but a line": b"\r\n\r\n" + request(),
    "v1 without an address": b"PROXY TCP4\r\n" + request(),
    "v1 with a bad address": b"PROXY TCP4 999.0.0.1 10.0.0.1 1 2\r\n" + request(),
    "v1 with a bad port": b"PROXY TCP4 10.0.0.1 10.0.0.2 1 65536\r\n" + request(),
    "v1 with a signed port": b"PROXY TCP4 10.0.0.1 10.0.0.2 +1 2\r\n" + request(),
    "v1 with a hex port": b"PROXY TCP4 10.0.0.1 10.0.0.2 0x1 2\r\n" + request(),
    "v1 with a leading zero": b"PROXY TCP4 010.0.0.1 10.0.0.2 1 2\r\n" + request(),
    "v1 with too little": b"PROXY TCP4 10.0.0.1 10.0.0.2 1\r\n" + request(),
    "v1 with too much": b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2 3\r\n" + request(),
    "v1 of the other family": b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n" + request(),
    "v1 of an unknown family": b"PROXY UDP4 10.0.0.1 10.0.0.2 1 2\r\n" + request(),
    "v1 with two spaces": b"PROXY  TCP4 10.0.0.1 10.0.0.2 1 2\r\n" + request(),
    "v1 with a tab": b"PROXY\tTCP4 10.0.0.1 10.0.0.2 1 2\r\n" + request(),
    "v1 with a bare LF": b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\n" + request(),
    "v1 in lower case": b"proxy TCP4 10.0.0.1 10.0.0.2 1 2\r\n" + request(),
    "v1 too long": b"PROXY UNKNOWN " + b"x" * 200 + b"\r\n" + request(),
    "v1 without end": b"PROXY UNKNOWN " + b"x" * 5000,
    "v2 of version 3": proxy.v2(version=3) + request(),
    "v2 of version 1": proxy.v2(version=1) + request(),
    "v2 of an unknown command": proxy.v2(command=2) + request(),
    "v2 too short for its family": proxy.v2(length=4) + request(),
    "v2 of an unknown family": proxy.v2(family=0x41) + request(),
    "v2 with a broken signature": V2[:11] + b"X" + V2[12:] + request(),
    "a second header": proxy.v1() + proxy.v1("198.51.100.99") + request(),
}


@pytest.mark.parametrize("name", BAD)
def test_bad(gateway: Gateway, upstream: Upstream, name: str) -> None:
    """Nobody knows who asks: nothing goes upstream and the connection ends, with a 400 or without a word."""
    mark, since = upstream.mark(), gateway.mark()
    with gateway.client("proxy") as client:
        client.try_send(BAD[name])
        try:
            response = client.response()
            assert response.status == 400, "refused"
            client.ended()
        except ConnectionEnded:
            pass
    with gateway.client("proxy") as client:
        client.send(proxy.v1() + request(target="/barrier"))
        assert client.response().status == 200
    assert [found.target for found in mark.requests] == ["/barrier"]
    if name != "a second header":
        assert {record["reason"] for record in gateway.wait_log(since, 1)} <= {
            "proxy-header",
            "none",
            None,
            "",
        }


def test_header_that_never_comes(gateway: Gateway, upstream: Upstream) -> None:
    """It stands under the deadline of the head."""
    for data in (b"", b"PROXY TCP4 10.", proxy.v2()[:20]):
        with gateway.client("proxy") as client:
            client.send(data)
            assert b"200" not in client.stream.rest("the end")


def test_only_from_trusted(gateway: Gateway, upstream: Upstream) -> None:
    """With trusted_proxies given, nobody else may say who the client is."""
    mark = upstream.mark()
    with gateway.client("from-others") as client:
        client.try_send(proxy.v1() + request())
        assert b"200 " not in client.stream.rest("the end")
    assert not mark.requests
    with gateway.client("from-us") as client:
        client.send(proxy.v1() + request())
        assert client.response().status == 200
    assert mark.one().get("x-forwarded-for") == "203.0.113.7"


def test_not_where_it_is_off(gateway: Gateway, upstream: Upstream) -> None:
    mark = upstream.mark()
    for header in (proxy.v1(), proxy.v2()):
        with gateway.client("off") as client:
            client.try_send(header + request())
            response = client.response()
            assert response.status == 400
            client.ended()
    assert not mark.requests


def test_x_forwarded_for_behind_the_header(gateway: Gateway, upstream: Upstream) -> None:
    """The peer of the request is now the header's address: it is not trusted, and so not believed."""
    mark = upstream.mark()
    with gateway.client("from-us") as client:
        client.send(proxy.v1() + request(lines=("X-Forwarded-For: 192.0.2.66",)))
        assert client.response().status == 200
    assert mark.one().get("x-forwarded-for") == "203.0.113.7"


@pytest.mark.parametrize(
    "header",
    [
        proxy.v2(tail=CRC),
        proxy.v2(tail=b"\x01\x00"),
        proxy.v2(tail=b"\x01\x00\x09ab"),
        proxy.v2(family=0x12),
        proxy.v2(family=0x10),
        proxy.v2_unix(),
    ],
    ids=["a wrong checksum", "half a TLV", "a TLV over the end", "UDP", "no transport", "Unix"],
)
def test_doubtful(gateway: Gateway, upstream: Upstream, header: bytes) -> None:
    """Refused, or served with the header's address or the peer's; never with a third, and never out of
    step."""
    mark = upstream.mark()
    with gateway.client("proxy") as client:
        client.try_send(header + request())
        client.half_close()
        client.stream.rest("the end")
    assert all(found.get("x-forwarded-for") in ("203.0.113.7", "127.0.0.1", None) for found in mark.requests)
