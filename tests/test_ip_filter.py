"""IP addresses as text, sets of networks, allow and block lists; `ipaddress` is the judge."""

from __future__ import annotations

import ipaddress
import random
from types import SimpleNamespace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastgate._core import IpFilterCore, IpSet, canonical_address, canonical_network

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

v4_addresses = st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address)
# Runs of zero groups and small groups are what IPv6 text is about.
v6_groups = st.lists(
    st.one_of(st.just(0), st.integers(0, 0xFFFF), st.integers(0, 15)), min_size=8, max_size=8
)
v6_addresses = v6_groups.map(lambda groups: ipaddress.IPv6Address(":".join(f"{group:x}" for group in groups)))
# Few distinct bits, so that networks nest and addresses fall into them.
close_v4 = st.integers(0, 255).map(
    lambda bits: ipaddress.IPv4Address((bits & 0xF0) << 24 | (bits & 0x0F) << 4)
)
close_v6 = st.integers(0, 1023).map(
    lambda bits: ipaddress.IPv6Address((bits >> 6) << 120 | (bits & 63) << 58)
)


def unified(address: Address) -> Address:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def judged(text: str) -> str | None:
    """What `ipaddress` makes of it; a zone is no part of an address here."""
    if "%" in text:
        return None
    try:
        return str(unified(ipaddress.ip_address(text)))
    except ValueError:
        return None


@given(st.one_of(v4_addresses, v6_addresses))
@settings(max_examples=300, deadline=None)
def test_addresses_read_and_write_as_rfc_5952(address: Address) -> None:
    expected = str(unified(address))
    for text in (str(address), address.exploded, str(address).upper()):
        assert canonical_address(text) == expected


@given(st.text("0123456789abcdefF:.%/x ", max_size=24))
@example("1:2:3:4:5:6:7::")
@example("::2:3:4:5:6:7:8")
@example("1::3:4:5:6:7:8")
@example("1:2:3:4:5:6:7::8")
@example("1:2:3:4:5:6:1.2.3.4")
@example("1:2:3:4:5:6:7:1.2.3.4")
@example("::ffff:1.2.3.4")
@example("::1.2.3.4:1")
@example("::1.2.3")
@example(":::")
@example("::")
@example(":")
@example("1:")
@example(":1:2:3:4:5:6:7")
@example("1:2:3:4:5:6:7:8:9")
@example("12345::")
@example("1::2::3")
@settings(max_examples=400, deadline=None)
def test_text_is_an_address_exactly_if_ipaddress_says_so(text: str) -> None:
    assert canonical_address(text) == judged(text)


@pytest.mark.parametrize(
    "text",
    ["", "1.2.3", "1.2.3.4.5", "01.2.3.4", "1.2.3.256", "1.2.3.4 ", " 1.2.3.4", "0x1.2.3.4", "1.2.3.",
     ".1.2.3", "1..2.3", "1.2.3.4000", "fe80::1%eth0", "[::1]", "1.2.3.4:80", "１.2.3.4", "::1\0"],
)  # fmt: skip
def test_anything_but_strict_text_is_no_address(text: str) -> None:
    assert canonical_address(text) is None


@given(st.one_of(st.tuples(v4_addresses, st.integers(0, 32)), st.tuples(v6_addresses, st.integers(0, 128))))
@settings(max_examples=200, deadline=None)
def test_networks_lose_the_bits_behind_their_prefix(given_network: tuple[Address, int]) -> None:
    address, bits = given_network
    network: Network = ipaddress.ip_network(f"{address}/{bits}", strict=False)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped and bits >= 96:
        network = ipaddress.ip_network(f"{address.ipv4_mapped}/{bits - 96}", strict=False)
    assert canonical_network(f"{address}/{bits}") == str(network)


@pytest.mark.parametrize(
    "text", ["1.2.3.4/33", "::/129", "1.2.3.4/", "1.2.3.4/-1", "1.2.3.4/08", "1.2.3.4/255.0.0.0", "/8", "a/8"]
)
def test_anything_else_is_no_network(text: str) -> None:
    assert canonical_network(text) is None
    with pytest.raises(ValueError, match="not an IP network"):
        IpSet([text])


def test_an_address_alone_is_its_own_network() -> None:
    assert canonical_network("10.0.0.1") == "10.0.0.1/32"
    assert canonical_network("2001:db8::1") == "2001:db8::1/128"
    assert canonical_network("::ffff:10.0.0.0/104") == "10.0.0.0/8"
    assert canonical_network("::ffff:10.0.0.0/95") == "::fffe:0:0/95"


def longest(networks: list[Network], address: Address) -> int | None:
    return max((network.prefixlen for network in networks if address in network), default=None)


networks_v4 = st.tuples(close_v4, st.integers(0, 32)).map(
    lambda pair: ipaddress.ip_network(pair, strict=False)
)
networks_v6 = st.tuples(close_v6, st.integers(0, 128)).map(
    lambda pair: ipaddress.ip_network(pair, strict=False)
)


@given(
    st.lists(st.one_of(networks_v4, networks_v6), max_size=30),
    st.lists(st.one_of(close_v4, close_v6), min_size=1, max_size=10),
)
@settings(max_examples=300, deadline=None)
def test_longest_match_is_what_a_linear_search_finds(
    networks: list[Network], addresses: list[Address]
) -> None:
    found = IpSet(str(network) for network in networks)
    assert len(found) == len(set(networks))
    edges = [network[0] for network in networks] + [network[-1] for network in networks]
    for address in [*addresses, *edges]:
        if unified(address) is address:
            assert found.match(str(address)) == longest(networks, address)


@pytest.mark.parametrize("version", [4, 6])
def test_large_sets_with_a_jump_table_match_too(version: int) -> None:
    chooser = random.Random(version)
    width, base = (32, 0) if version == 4 else (128, 0x2001 << 112)
    networks = []
    by_prefix: dict[int, set[int]] = {}
    for _ in range(3000):
        bits = (
            chooser.choice([3, 8, 12, 17, 19, 20, 24, 32, width]) if version == 4 else chooser.randint(17, 64)
        )
        value = (
            (base | chooser.getrandbits(32) << (width - 48 if version == 6 else 0))
            >> (width - bits)
            << (width - bits)
        )
        networks.append(ipaddress.ip_network((value, bits)))
        by_prefix.setdefault(bits, set()).add(value >> (width - bits))
    found = IpSet(str(network) for network in networks)
    assert len(found) == len(set(networks))
    hits = 0
    for i in range(20_000):
        value = base | chooser.getrandbits(32) << (width - 48 if version == 6 else 0)
        if i % 2:
            network = chooser.choice(networks)
            value = int(network.network_address) | chooser.getrandbits(width) & int(network.hostmask)
        expected = max(
            (bits for bits, keys in by_prefix.items() if value >> (width - bits) in keys), default=None
        )
        hits += expected is not None
        assert (
            found.match(str(ipaddress.ip_address(value) if version == 4 else ipaddress.IPv6Address(value)))
            == expected
        )
    assert hits > 5000


def test_families_are_kept_apart() -> None:
    everything_v6 = IpSet(["::/0"])
    assert "10.0.0.1" not in everything_v6
    assert "::ffff:10.0.0.1" not in everything_v6
    assert "2001:db8::1" in everything_v6
    assert "::1" not in IpSet(["0.0.0.0/0"])
    assert "::ffff:10.0.0.1" in IpSet(["10.0.0.0/8"])
    assert "10.0.0.1" in IpSet(["::ffff:10.0.0.0/104"])


@pytest.mark.parametrize(("version", "limit"), [(4, 80), (6, 80)])
def test_a_hundred_thousand_networks_take_a_bounded_number_of_bytes_each(version: int, limit: int) -> None:
    chooser = random.Random(7)
    if version == 4:
        values = [ipaddress.ip_network((chooser.getrandbits(24) << 8, 24)) for _ in range(100_000)]
    else:
        values = [
            ipaddress.ip_network((0x2A << 120 | chooser.getrandbits(40) << 80, 48)) for _ in range(100_000)
        ]
    found = IpSet(map(str, values))
    assert len(found) == len(set(values))
    assert found.size_bytes / len(found) <= limit
    assert all(str(value[1]) in found for value in values[:1000])


def test_an_empty_set_holds_nothing() -> None:
    assert len(IpSet()) == 0
    assert "10.0.0.1" not in IpSet()
    assert "::1" not in IpSet()


def ip_filter(
    allow: tuple[str, ...] = (), block: tuple[str, ...] = (), report_only: bool = False
) -> IpFilterCore:
    return IpFilterCore(SimpleNamespace(name="office", allow=allow, block=block, report_only=report_only))


@pytest.mark.parametrize(
    ("allow", "block", "address", "refused"),
    [
        ((), (), "10.0.0.1", False),
        (("10.0.0.0/8",), (), "10.0.0.1", False),
        (("10.0.0.0/8",), (), "11.0.0.1", True),
        (("10.0.0.0/8",), (), "::1", True),
        ((), ("10.0.0.0/8",), "10.0.0.1", True),
        ((), ("10.0.0.0/8",), "11.0.0.1", False),
        # The longer prefix wins, block wins among equals.
        (("10.0.0.0/8",), ("10.1.0.0/16",), "10.1.0.1", True),
        (("10.0.0.0/8",), ("10.1.0.0/16",), "10.2.0.1", False),
        (("10.1.0.0/16",), ("10.0.0.0/8",), "10.1.0.1", False),
        (("10.1.0.0/16",), ("10.0.0.0/8",), "10.2.0.1", True),
        (("10.0.0.0/8",), ("10.0.0.0/8",), "10.0.0.1", True),
        (("0.0.0.0/0",), ("0.0.0.0/0",), "10.0.0.1", True),
        # A Unix socket's peer has no address.
        (("10.0.0.0/8",), (), "", True),
        ((), ("0.0.0.0/0", "::/0"), "", False),
    ],
)
def test_allow_and_block(allow: tuple[str, ...], block: tuple[str, ...], address: str, refused: bool) -> None:
    checked = ip_filter(allow, block)
    assert checked.refuses_address(address) is refused
    assert checked.refused == int(refused)
    assert checked.reported == 0


def test_report_only_counts_and_lets_pass() -> None:
    checked = ip_filter(block=("10.0.0.0/8",), report_only=True)
    assert not checked.refuses_address("10.0.0.1")
    assert not checked.refuses_address("11.0.0.1")
    assert (checked.refused, checked.reported) == (0, 1)


def test_a_set_cannot_be_changed_afterwards() -> None:
    found = IpSet(["10.0.0.0/8"])
    with pytest.raises(TypeError):
        found.__init__(["11.0.0.0/8"])  # type: ignore[misc]
