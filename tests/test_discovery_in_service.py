"""Endpoints by name, by service and by file, in a running gateway: what comes and goes loses no request."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import StartGateway, StartUpstream
from support.admin import ADMIN, Admin
from support.answers import refused
from support.client import request
from support.dns import DnsServer, dns_thread, held, nxdomain, records, servfail, silence
from support.gateway import config
from support.processes import Crowd
from support.standing import Service, name_of, names, services, until

HOSTS = ("127.0.0.2", "127.0.0.3", "127.0.0.4")


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    with dns_thread() as server:
        yield server


@pytest.fixture
def three() -> Iterator[list[Service]]:
    """On three addresses with one port, as a name has them."""
    with services("a", "b", "c", hosts=HOSTS) as found:
        yield found


def tables(endpoints: list[str], dns: DnsServer | None = None, **options: Any) -> dict[str, Any]:
    balance = {"balance": "round-robin", "timeouts": {"connect": "20s"}, **options}
    upstream = {"endpoints": endpoints, **balance} if endpoints else balance
    whole = config(upstreams={"up": upstream})
    table = {} if dns is None else {"dns": {"servers": [f"127.0.0.1:{dns.port}"], "timeout": "500ms"}}
    return whole | ADMIN | table


# -- the first answer


def test_a_dead_name_server_stops_nobody(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    """It takes queries and never answers. The gateway starts, other upstreams serve, and this one says
    why."""
    other = start_upstream()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as dead:
        dead.bind(("127.0.0.1", 0))
        upstreams: dict[str, Any] = {
            "up": {"endpoints": ["orders.test:80"], "timeouts": {"connect": "100ms"}},
            "other": {"endpoints": [other.address]},
        }
        routes: list[dict[str, Any]] = [
            {"name": "other", "match": {"path": "/other"}, "upstream": "other"},
            {"name": "up", "upstream": "up"},
        ]
        server = {"dns": {"servers": [f"127.0.0.1:{dead.getsockname()[1]}"], "timeout": "500ms"}}
        gateway = start_gateway(config(upstreams=upstreams, routes=routes) | ADMIN | server)
        with gateway.client() as client:
            assert client.get("/other").status == 200
            refused(client.get(), "endpoints-pending")
            until(client, "the look-up has failed", lambda response: b"dns-failure" in response.body)
            told = gateway.wait_stderr("fastgate: upstream up: name orders.test:80: ")
            assert "does not answer; endpoints in use: 0" in told
            assert "does not answer" in Admin(gateway).upstream()["problem"]
            assert client.get("/other").status == 200


def test_requests_wait_for_the_first_answer(
    start_gateway: StartGateway, dns: DnsServer, three: list[Service]
) -> None:
    gate = threading.Event()
    dns.script("orders.test.", "A", held(gate, records("A", HOSTS[0])))
    gateway = start_gateway(tables([f"orders.test:{three[0].port}"], dns))
    dns.wait_query("orders.test.", "A", 1)
    with gateway.client() as client, gateway.client() as other:
        client.send(request())
        other.send(request("POST", body=b"x" * 100_000))
        with gateway.client() as barrier:
            barrier.request(b"GET / HTTP/1.1\r\n\r\n")
        gate.set()
        assert name_of(client.response()) == "a"
        assert name_of(other.response()) == "a"
    assert sorted(len(each.body) for each in three[0].served) == [0, 100_000]


def test_waiting_requests_outlive_a_reload(
    start_gateway: StartGateway, dns: DnsServer, three: list[Service]
) -> None:
    """What waits belongs to the configuration that it came with, also when its upstream is changed or
    gone."""
    for change in ({"timeouts": {"connect": "19s"}}, None):
        gate = threading.Event()
        dns.script("orders.test.", "A", held(gate, records("A", HOSTS[0])))
        asked = dns.asked("orders.test.", "A")
        gateway = start_gateway(tables([f"orders.test:{three[0].port}"], dns))
        dns.wait_query("orders.test.", "A", asked + 1)
        with gateway.client() as client:
            client.send(request())
            with gateway.client() as barrier:
                barrier.request(b"GET / HTTP/1.1\r\n\r\n")
            after = tables([f"orders.test:{three[0].port}"], dns, **change) if change else None
            gateway.reload(after or config(route={"respond": {"body": "new"}}))
            gate.set()
            assert name_of(client.response()) == "a"
        gateway.stop()


def test_they_wait_through_a_drain_too(
    start_gateway: StartGateway, dns: DnsServer, three: list[Service]
) -> None:
    gate = threading.Event()
    dns.script("orders.test.", "A", held(gate, records("A", HOSTS[0])))
    gateway = start_gateway(
        tables([f"orders.test:{three[0].port}"], dns) | {"server": {"drain_timeout": "20s"}}
    )
    dns.wait_query("orders.test.", "A", 1)
    with gateway.client() as client:
        client.send(request())
        with gateway.client() as barrier:
            barrier.request(b"GET / HTTP/1.1\r\n\r\n")
        gateway.terminate()
        gateway.wait_stderr("fastgate: draining")
        gate.set()
        assert name_of(client.response()) == "a"
    gateway.wait_stopped()


def test_a_name_that_does_not_resolve(
    start_gateway: StartGateway, dns: DnsServer, three: list[Service]
) -> None:
    """503 for its upstream alone; beside an address it takes nothing away."""
    upstreams = {
        "up": {"endpoints": ["nobody.test:80"]},
        "mixed": {"endpoints": ["nobody.test:80", three[0].address]},
        "good": {"endpoints": [three[1].address]},
    }
    routes = [{"name": name, "match": {"path": f"/{name}"}, "upstream": name} for name in upstreams]
    server = {"dns": {"servers": [f"127.0.0.1:{dns.port}"]}}
    gateway = start_gateway(config(upstreams=upstreams, routes=routes) | ADMIN | server)
    with gateway.client() as client:
        refused(client.get("/up"), "dns-failure")
        assert name_of(client.get("/mixed")) == "a"
        assert name_of(client.get("/good")) == "b"
        problem = "name nobody.test:80: NXDOMAIN: there is no such name"
        assert Admin(gateway).upstream()["problem"] == problem
        gateway.mark()
        assert gateway.log[0]["detail"] == problem
        # Once it is there, it is found.
        dns.zone("nobody.test.", "A", HOSTS[2])
    Admin(gateway).wait_addresses(f"{HOSTS[2]}:80")


# -- what changes


def test_endpoints_come_and_go_under_load(
    start_gateway: StartGateway, dns: DnsServer, three: list[Service]
) -> None:
    port = three[0].port
    dns.zone("orders.test.", "A", *HOSTS[:2], ttl=1)
    whole = tables([f"orders.test:{port}"], dns)
    whole["dns"] |= {"min_ttl": "1ms", "max_ttl": "50ms"}
    gateway = start_gateway(whole)
    admin = Admin(gateway)
    with Crowd(gateway.address, ("GET", "POST"), clients=4) as crowd:
        for change in (HOSTS, HOSTS[2:], HOSTS[:1], HOSTS[1:]):
            crowd.wait_more(50)
            dns.zone("orders.test.", "A", *change, ttl=1)
            admin.wait_addresses(*(f"{host}:{port}" for host in change))
            for host, service in zip(HOSTS, three, strict=True):
                if host in change:
                    crowd.wait_used(service.name)
    assert crowd.failures == []
    gateway.wait_stderr(f"fastgate: upstream up: endpoints changed: +{HOSTS[2]}:{port} (now 3)")


@pytest.mark.parametrize("fault", [servfail, nxdomain, silence])
def test_the_last_good_answer_stays(
    start_gateway: StartGateway, dns: DnsServer, three: list[Service], fault: Any
) -> None:
    """Also over a reload that changes the upstream while DNS fails."""
    name = "orders.test."
    dns.zone(name, "A", HOSTS[0], ttl=1)
    whole = tables([f"orders.test:{three[0].port}"], dns)
    whole["dns"] |= {"min_ttl": "1ms", "max_ttl": "50ms", "timeout": "200ms"}
    gateway = start_gateway(whole)
    with gateway.client() as client:
        assert name_of(client.get()) == "a"
        for kind in ("A", "AAAA"):
            dns.script(name, kind, *[fault] * 200)
        gateway.wait_stderr("fastgate: upstream up: name orders.test:")
        assert name_of(client.get()) == "a"
        changed = tables([f"orders.test:{three[0].port}"], dns, timeouts={"head": "9s", "connect": "1s"})
        gateway.reload(changed | {"dns": whole["dns"]})
        assert name_of(client.get()) == "a"
        more = [f"orders.test:{three[0].port}", three[1].address]
        gateway.reload(tables(more, dns) | {"dns": whole["dns"]})
        assert set(names(client, 4)) == {"a", "b"}


def test_a_reload_while_a_look_up_hangs(
    start_gateway: StartGateway, dns: DnsServer, three: list[Service]
) -> None:
    """What is known serves at once under the changed upstream."""
    name = "orders.test."
    dns.zone(name, "A", HOSTS[0], ttl=1)
    whole = tables([f"orders.test:{three[0].port}"], dns, timeouts={"connect": "200ms"})
    whole["dns"] |= {"min_ttl": "1ms", "max_ttl": "50ms", "timeout": "1m"}
    gateway = start_gateway(whole)
    with gateway.client() as client:
        assert name_of(client.get()) == "a"
        for kind in ("A", "AAAA"):
            dns.script(name, kind, *[silence] * 10)
        dns.wait_query(name, "A", dns.asked(name, "A") + 1)
        changed = tables([f"orders.test:{three[0].port}"], dns, timeouts={"connect": "300ms"})
        gateway.reload(changed | {"dns": whole["dns"]})
        assert name_of(client.get()) == "a"


# -- names without DNS, services


def test_localhost_on_ipv6_alone(start_gateway: StartGateway) -> None:
    with services("six", hosts=("::1",)) as (service,):
        gateway = start_gateway(tables([f"localhost:{service.port}"]))
        with gateway.client() as client:
            assert names(client, 3) == {"six": 3}


def test_services(start_gateway: StartGateway, dns: DnsServer, three: list[Service]) -> None:
    """SRV: ports and weights come from the records, addresses from the targets' names."""
    service, port = "_http._tcp.orders.test.", three[0].port
    for name, host in zip("abc", HOSTS, strict=True):
        dns.zone(f"{name}.test.", "A", host)
    dns.zone(service, "SRV", f"1 3 {port} a.test.", f"1 1 {port} b.test.", f"2 1 {port} c.test.", ttl=1)
    whole = tables(["srv:_http._tcp.orders.test"], dns)
    whole["dns"] |= {"min_ttl": "1ms", "max_ttl": "50ms"}
    gateway = start_gateway(whole)
    with gateway.client() as client:
        assert names(client, 8) == {"a": 6, "b": 2}
        dns.zone(service, "SRV", f"2 1 {port} c.test.", ttl=1)
        Admin(gateway).wait_addresses(three[2].address)
        assert names(client, 4) == {"c": 4}


# -- a file


def listing(file: Path, *endpoints: Any) -> None:
    """Replaces it, as a careful writer does."""
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps({"endpoints": endpoints}))
    fresh.replace(file)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "orders.json"


def test_a_file(start_gateway: StartGateway, three: list[Service], file: Path) -> None:
    a, b, c = (service.address for service in three)
    listing(file, a)
    gateway = start_gateway(tables([], endpoints_file=str(file)))
    admin = Admin(gateway)
    with gateway.client() as client:
        assert names(client, 2) == {"a": 2}
        listing(file, a, {"address": b, "weight": 3})
        admin.wait_addresses(a, b)
        assert names(client, 8) == {"a": 2, "b": 6}
        # Broken: told with its place, and the last good one stays.
        file.write_text('{"endpoints": ["nonsense"]}')
        told = gateway.wait_stderr(f"fastgate: upstream up: file {file}: {file}:1:")
        assert "endpoints in use: 2" in told
        assert names(client, 8) == {"a": 2, "b": 6}
        gateway.reload(tables([], endpoints_file=str(file), timeouts={"head": "9s"}))
        assert names(client, 8) == {"a": 2, "b": 6}, "a reload takes nothing away either"
        listing(file, b, c)
        admin.wait_addresses(b, c)
        gateway.wait_stderr(f"fastgate: upstream up: file {file}: in order again")
        assert names(client, 4) == {"b": 2, "c": 2}
        listing(file)
        admin.wait_addresses()
        refused(client.get(), "no-endpoint")


def test_a_file_that_is_not_there(start_gateway: StartGateway, three: list[Service], file: Path) -> None:
    gateway = start_gateway(tables([], endpoints_file=str(file)))
    with gateway.client() as client:
        refused(client.get(), "no-endpoint")
        assert Admin(gateway).upstream()["problem"] == f"file {file}: No such file or directory"
        listing(file, three[0].address)
        Admin(gateway).wait_addresses(three[0].address)
        assert names(client, 2) == {"a": 2}


def test_states_in_a_file(start_gateway: StartGateway, three: list[Service], file: Path) -> None:
    a, b = (service.address for service in three[:2])
    listing(file, {"address": a, "state": "draining"}, b)
    gateway = start_gateway(tables([], endpoints_file=str(file)))
    admin = Admin(gateway)
    with gateway.client() as client:
        assert names(client, 4) == {"b": 4}
        # An operator's word, said since, holds over a reload; what the file then says anew counts again.
        admin.set(a, state="auto")
        gateway.reload(tables([], endpoints_file=str(file), timeouts={"head": "9s"}))
        assert names(client, 4) == {"a": 2, "b": 2}
        listing(file, {"address": a, "state": "down"}, b)
        admin.wait_endpoint(a, status="down")
        # Away and back without a word: the old one is forgotten.
        listing(file, b)
        admin.wait_addresses(b)
        listing(file, a, b)
        admin.wait_addresses(a, b)
        assert admin.endpoint(a)["status"] == "ready"


def test_a_file_changes_under_load(start_gateway: StartGateway, three: list[Service], file: Path) -> None:
    all_of_them = [service.address for service in three]
    listing(file, *all_of_them[:2])
    gateway = start_gateway(tables([], endpoints_file=str(file)))
    admin = Admin(gateway)
    with Crowd(gateway.address, ("GET", "POST"), clients=4) as crowd:
        for change in (all_of_them[1:], all_of_them[:1], all_of_them):
            crowd.wait_more(50)
            listing(file, *change)
            admin.wait_addresses(*change)
            crowd.wait_more(50)
    assert crowd.failures == []
    assert all(service.served for service in three)
