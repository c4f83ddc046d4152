"""Regions and zones in a running gateway: the nearest first, elsewhere when they fail, and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import StartGateway
from support.admin import ADMIN, Admin
from support.gateway import Gateway, config
from support.processes import Crowd, Endpoint, Endpoints
from support.standing import HEALTH, Service, name_of, names, services, until

PLACES = {
    "near": {"region": "eu", "zone": "eu-a"},
    "next": {"region": "eu", "zone": "eu-b"},
    "us": {"region": "us"},
    "asia": {"region": "asia"},
}


@pytest.fixture
def world() -> Iterator[list[Service]]:
    with services(*PLACES) as found:
        yield found


def tables(found: Sequence[Service | Endpoint], *, failback: str, **options: Any) -> dict[str, Any]:
    endpoints = [
        {"address": each.address, **place} for each, place in zip(found, PLACES.values(), strict=True)
    ]
    upstream = {
        "health": HEALTH | {"type": "tcp", "path": "/"},
        "regions": {"order": ["us"], "failback_after": failback},
        "retry": {"attempts": 5, "on": ["connect-failure", "reset"]},
        **options,
    }
    where = {"region": "eu", "zone": "eu-a"}
    return config(endpoints, upstream_options=upstream, server=where) | ADMIN


def start(
    start_gateway: StartGateway, found: Sequence[Service | Endpoint], **options: Any
) -> tuple[Gateway, Admin]:
    gateway = start_gateway(tables(found, **options))
    admin = Admin(gateway)
    for each in found:
        admin.wait_endpoint(each.address, probe="up")
    return gateway, admin


def test_the_nearest_that_is_there(start_gateway: StartGateway, tmp_path: Path) -> None:
    """Zone, region, the regions in order, the others; nobody notices that one is killed."""
    with Endpoints(4, tmp_path) as world:
        gateway, admin = start(start_gateway, world, failback="100ms")
        with Crowd(gateway.address, clients=3) as crowd, gateway.client() as client:
            for each in world:
                assert names(client, 10) == {each.name: 10}
                if each is not world[-1]:
                    each.kill()
                    admin.wait_endpoint(each.address, status="down")
            for each in reversed(world[:-1]):
                each.start()
                until(client, f"back to {each.name}", lambda answer, name=each.name: name_of(answer) == name)
                crowd.wait_more(20)
                assert set(crowd.recent(5)) == {each.name}
        assert crowd.failures == []


def test_failing_back_takes_its_time(start_gateway: StartGateway, world: list[Service]) -> None:
    near, following = world[:2]
    gateway, admin = start(start_gateway, world, failback="1h")
    with gateway.client() as client:
        near.upstream.refuse()
        admin.wait_endpoint(near.address, status="down")
        assert names(client, 10) == {"next": 10}
        near.upstream.listen()
        admin.wait_endpoint(near.address, status="ready")
        assert names(client, 10) == {"next": 10}
        # Who is on the way back still goes before nobody.
        for service in world[1:]:
            admin.set(service.address, state="down")
        assert names(client, 10) == {"near": 10}
        admin.set(following.address, state="auto")
        assert names(client, 10) == {"next": 10}


def test_an_operator_moves_a_region(start_gateway: StartGateway, world: list[Service]) -> None:
    """His word is no failure: it is taken back at once."""
    gateway, admin = start(start_gateway, world, failback="1h")
    with gateway.client() as client:
        for service in world[:2]:
            admin.set(service.address, state="draining")
        assert names(client, 10) == {"us": 10}
        admin.set(world[0].address, state="auto")
        assert names(client, 10) == {"near": 10}


def test_spilling_over(start_gateway: StartGateway) -> None:
    """Half of the near ones are there: they take 1.4 times their share, the rest goes on to the next
    region."""
    with services("near", "near2", "far") as found:
        places = ({"region": "eu"}, {"region": "eu"}, {"region": "us"})
        endpoints = [{"address": s.address, **place} for s, place in zip(found, places, strict=True)]
        upstream = {
            "health": HEALTH | {"type": "tcp", "path": "/"},
            "regions": {"order": ["us"]},
            "balance": "random",
        }
        gateway = start_gateway(config(endpoints, upstream_options=upstream, server={"region": "eu"}) | ADMIN)
        admin = Admin(gateway)
        found[1].upstream.refuse()
        admin.wait_endpoint(found[1].address, status="down")
        with gateway.client() as client:
            shares = names(client, 400)
        # 70 % of 400 are 280, and 6 standard deviations of 9.2.
        assert 225 < shares["near"] < 335
        assert shares["near"] + shares["far"] == 400
