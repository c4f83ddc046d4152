"""Where clients are, by databases that are made here."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet
from support.answers import refused
from support.gateway import Gateway
from support.upstream import Upstream
from support.web import ask, one_route_each, problems

GERMANY, FRANCE, AUSTRIA = "203.0.113.7", "198.51.100.7", "2001:db8::7"
CHINA, NOWHERE, EUROPE = "192.0.2.7", "233.252.0.7", "192.88.99.7"


def place(country: str, continent: str) -> dict[str, Any]:
    found: dict[str, Any] = {"continent": {"code": continent}}
    if country:
        found["country"] = {"iso_code": country, "names": {"en": country}}
    return found


PLACES = {
    "203.0.113.0/24": place("DE", "EU"),
    "198.51.100.0/24": place("FR", "EU"),
    "2001:db8::/32": place("AT", "EU"),
    "192.0.2.0/24": place("CN", "AS"),
    "192.88.99.0/24": place("", "EU"),
    "100.64.0.0/24": {"country": "us"},  # not as MaxMind writes it
    "100.64.1.0/24": {"registered_country": {"iso_code": "JP"}, "continent": {"code": "AS"}},
}
OPERATORS = {
    "203.0.113.0/24": {"autonomous_system_number": 64500, "autonomous_system_organization": "Example"},
    "198.51.100.0/24": {"autonomous_system_number": 64501, "autonomous_system_organization": "Other"},
}


def write(path: Path, records: Mapping[str, Mapping[str, Any]]) -> None:
    """At once, as those who update databases do."""
    writer = MMDBWriter(ip_version=6, ipv4_compatible=True, database_type="Test")
    for network, record in records.items():
        writer.insert_network(IPSet([network]), dict(record))
    fresh = path.with_suffix(".new")
    writer.to_db_file(str(fresh))
    fresh.replace(path)


PLUGINS: dict[str, dict[str, Any]] = {
    "allow": {"allow": ["DE", "AT"]},
    "deny": {"deny": "CN"},
    "lenient": {"allow": "DE", "unknown": "pass"},
    "wary": {"deny": "CN", "unknown": "refuse"},
    "europe": {"allow_continents": "EU", "deny": "FR"},
    "but": {"deny_continents": "EU", "allow": "DE"},
    "operator": {"deny_asn": 64501},
    "tell": {"header": "X-Country", "asn_header": "X-ASN"},
}


@pytest.fixture(scope="module")
def module_gateway(module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    write(folder / "places.mmdb", PLACES)
    write(folder / "operators.mmdb", OPERATORS)
    files = {"database": "places.mmdb", "asn_database": "operators.mmdb", "check_interval": "20ms"}
    plugins = {name: {**files, **table} for name, table in PLUGINS.items()}
    with Gateway(one_route_each(module_upstream.address, "geoip", plugins), folder) as gateway:
        yield gateway


@pytest.mark.parametrize(
    ("route", "address", "passes"),
    [
        ("allow", GERMANY, True), ("allow", AUSTRIA, True), ("allow", FRANCE, False), ("allow", CHINA, False),
        ("allow", NOWHERE, False), ("allow", "127.0.0.1", False), ("allow", "::1", False),
        ("allow", "::ffff:203.0.113.7", True), ("allow", "100.64.0.7", False),
        ("deny", GERMANY, True), ("deny", CHINA, False), ("deny", NOWHERE, True),
        ("deny", "::ffff:192.0.2.7", False),
        ("lenient", NOWHERE, True), ("lenient", FRANCE, False),
        ("wary", NOWHERE, False), ("wary", FRANCE, True),
        ("europe", GERMANY, True), ("europe", FRANCE, False),
        ("europe", CHINA, False), ("europe", EUROPE, True),
        ("but", GERMANY, True), ("but", FRANCE, False), ("but", CHINA, False), ("but", EUROPE, False),
        ("operator", GERMANY, True), ("operator", FRANCE, False), ("operator", CHINA, True),
    ],
)  # fmt: skip
def test_who_may(gateway: Gateway, upstream: Upstream, route: str, address: str, passes: bool) -> None:
    mark = upstream.mark()
    response = ask(gateway, f"/{route}", f"X-Forwarded-For: {address}")
    if passes:
        assert response.status == 200
    else:
        refused(response, "country-refused")
        assert not mark.requests


def told(gateway: Gateway, *lines: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in ask(gateway, "/tell", *lines).json()["fields"]:
        found.setdefault(name.lower().replace("_", "-"), []).append(value)
    return {name: found[name] for name in ("x-country", "x-asn") if name in found}


def test_the_service_is_told(gateway: Gateway) -> None:
    assert told(gateway, f"X-Forwarded-For: {GERMANY}") == {"x-country": ["DE"], "x-asn": ["64500"]}
    assert told(gateway, "X-Forwarded-For: 100.64.1.7") == {"x-country": ["JP"]}
    assert told(gateway, f"X-Forwarded-For: {NOWHERE}") == {}


@pytest.mark.parametrize("address", [GERMANY, NOWHERE])
@pytest.mark.parametrize("name", ["X-Country", "x-country", "X_Country", "X-ASN", "x_asn"])
def test_no_client_tells_it_something_else(gateway: Gateway, name: str, address: str) -> None:
    lines = (f"{name}: US", f"X-Forwarded-For: {address}")
    expected = {"x-country": ["DE"], "x-asn": ["64500"]} if address == GERMANY else {}
    assert told(gateway, *lines) == expected


def test_a_database_that_is_replaced(gateway: Gateway) -> None:
    path = gateway.file.parent / "places.mmdb"
    assert ask(gateway, "/deny", f"X-Forwarded-For: {FRANCE}").status == 200
    deadline = time.monotonic() + 5
    try:
        write(path, {"198.51.100.0/24": place("CN", "AS")})
        while ask(gateway, "/deny", f"X-Forwarded-For: {FRANCE}").status == 200:
            assert time.monotonic() < deadline
        # One that is broken changes nothing.
        broken = path.with_suffix(".new")
        broken.write_bytes(b"not a database" * 100)
        broken.replace(path)
        gateway.wait_stderr("fastgate: places.mmdb stays as it was")
        refused(ask(gateway, "/deny", f"X-Forwarded-For: {FRANCE}"), "country-refused")
    finally:
        write(path, PLACES)
    while ask(gateway, "/deny", f"X-Forwarded-For: {FRANCE}").status != 200:
        assert time.monotonic() < deadline


@pytest.mark.parametrize(
    ("table", "expected"),
    [({}, "needs a database"), ({"database": "x", "allow": ["de"]}, "capital letters"),
     ({"database": "x", "deny_continents": "XX"}, "expected one of"),
     ({"asn_database": "x", "allow": "DE"}, "needs database"),
     ({"database": "x", "deny_asn": 1}, "needs asn_database")],
)  # fmt: skip
def test_configurations(table: dict[str, Any], expected: str) -> None:
    assert expected in problems("geoip", table)
