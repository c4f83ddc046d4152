"""Upstreams that survive: real processes are killed, stopped, replaced and made to fail under load, and
every request is accounted for. `python -m bench.resilience` does the same for longer, and measures."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import StartGateway
from support.answers import reason_of
from support.client import request
from support.gateway import Gateway, config
from support.processes import Crowd, Endpoints, pace
from support.upstream import free_port

from bench.resilience.operate import Admin, await_true

COUNT = 4


def tables(addresses: list[str], admin: int = 9901, **options: Any) -> dict[str, Any]:
    """Everything on that keeps endpoints that fail from a client's sight; `options` are the upstream's."""
    survival = {
        "timeouts": {"connect": "250ms", "head": "5s"},
        "health": {"path": "/health", "interval": "200ms", "timeout": "200ms", "rise": 2, "fall": 2},
        "outlier": {"consecutive_errors": 4, "interval": "500ms", "base_ejection": "1s"},
        "retry": {
            "attempts": 3,
            "on": ["connect-failure", "refused", "reset", "timeout"],
            "per_try_timeout": "500ms",
            "backoff_base": "5ms",
        },
        "breaker": {"error_percent": 50, "open_time": "1s", "per": "endpoint"},
    }
    whole = config(list(addresses), upstream_options={**survival, **options})
    return {**whole, "admin": {"bind": f"127.0.0.1:{admin}"}}


@pytest.fixture
def endpoints(tmp_path: Path) -> Iterator[Endpoints]:
    with Endpoints(COUNT, tmp_path) as endpoints:
        yield endpoints


def start(start_gateway: StartGateway, endpoints: Endpoints, **options: Any) -> Gateway:
    return start_gateway(tables([endpoint.address for endpoint in endpoints], **options))


def test_killed_endpoints_are_not_noticed(start_gateway: StartGateway, endpoints: Endpoints) -> None:
    """kill -9 of one after the other, twice a second, each back a quarter of a second later."""
    gateway = start(start_gateway, endpoints)
    with Crowd(gateway.address) as crowd:
        crowd.wait_more(100)
        for moment in pace(20, 0.25):
            endpoint = endpoints[moment // 2 % COUNT]
            endpoint.kill() if moment % 2 == 0 else endpoint.start()
        for endpoint in endpoints:
            crowd.wait_used(endpoint.name)
    assert crowd.failures == []
    assert crowd.sent > 1000


def test_rolling_deployment(start_gateway: StartGateway, endpoints: Endpoints) -> None:
    """Drained, replaced and in use again, one after the other: nothing fails, no POST comes twice."""
    port = free_port()
    gateway, admin = start(start_gateway, endpoints, admin=port), Admin(port)
    with Crowd(gateway.address, ("GET", "POST")) as crowd:
        crowd.wait_more(100)
        for endpoint in endpoints:
            admin.set_state("up", endpoint.port, "draining")
            await_true("nothing under way", lambda: admin.active("up", endpoint.port) == 0)  # noqa: B023
            endpoint.kill()
            endpoint.start()
            admin.set_state("up", endpoint.port, "auto")
            crowd.wait_used(endpoint.name)
    assert crowd.failures == []
    assert endpoints.deliveries() == dict.fromkeys(crowd.posts, 1)


def test_hanging_endpoint_is_left_out_and_comes_back(
    start_gateway: StartGateway, endpoints: Endpoints
) -> None:
    """SIGSTOP: its kernel still accepts connections, and nothing answers on them."""
    port = free_port()
    gateway, admin = start(start_gateway, endpoints, admin=port), Admin(port)
    with Crowd(gateway.address) as crowd:
        crowd.wait_used("e0")
        endpoints[0].signal(signal.SIGSTOP)
        await_true("left out", lambda: admin.status("up", endpoints[0].port) in ("down", "ejected"))
        crowd.wait_more(100)
        endpoints[0].signal(signal.SIGCONT)
        crowd.wait_used("e0")
    assert crowd.failures == [], "what hung was tried elsewhere"


def test_endpoint_that_errs_is_ejected_and_comes_back(
    start_gateway: StartGateway, endpoints: Endpoints
) -> None:
    """Its health check is fine; every second answer is 500."""
    gateway = start(start_gateway, endpoints)
    with Crowd(gateway.address) as crowd:
        crowd.wait_used("e0")
        endpoints[0].fail(50)
        crowd.wait("its errors are seen", lambda: bool(crowd.failures))
        crowd.wait_unused("e0")
        endpoints[0].fail(0)
        crowd.wait_used("e0")
    assert all(" 500 " in failure and "e0" in failure for failure in crowd.failures), crowd.failures


def test_all_down_is_told_with_its_reason(start_gateway: StartGateway, endpoints: Endpoints) -> None:
    gateway = start(start_gateway, endpoints, panic_threshold=0)
    with gateway.client() as client:
        assert client.get("/id/1").status == 200
        endpoints.kill()
        statuses = set()

        def unavailable() -> bool:
            response = client.request(request(target="/id/2"))
            reason = reason_of(response)  # those before it is known that all are down have one too
            statuses.add((response.status, reason))
            return response.status == 503

        await_true("503", unavailable)
        assert all(status in (502, 503) for status, _ in statuses), statuses
        for endpoint in endpoints:
            endpoint.start()
        await_true("an answer", lambda: client.get("/id/3").status == 200)
