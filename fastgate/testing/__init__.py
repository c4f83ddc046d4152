"""Tests against a real gateway, in process: free ports, fake upstreams, a clock to move, faults on purpose.

    pytest_plugins = ["fastgate.testing"]              # in the top conftest.py

    async def test_orders(fastgate_gateway):
        async with fastgate_gateway("gateway.toml") as gw:
            gw.upstream("orders").reply(200, json={"ok": True})
            answer = await gw.get("/orders/1", headers={"authorization": "Bearer ..."})
            assert answer.status == 200
            assert gw.upstream("orders").requests[0].headers["x-user"] == "ann"

Stable names: the fixtures ``fastgate_gateway`` (async; any runner of coroutine tests, such as pytest-asyncio)
and ``fastgate_gateway_sync`` (``with`` and plain calls); what they yield, ``GatewayUnderTest`` and
``SyncGatewayUnderTest``; ``run_gateway`` and ``run_gateway_sync``, the same without pytest; ``FakeUpstream``,
``Seen``, ``Answer``, ``Fields``, ``Clock``, ``CutShort``; for aggregations in Python without a socket
``FakeServices``, ``FakeService``, ``fake_exchange``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from fastgate.testing.client import Answer, CutShort, Fields
    from fastgate.testing.gateway import Clock, GatewayUnderTest, run_gateway
    from fastgate.testing.gathering import FakeService, FakeServices, fake_exchange
    from fastgate.testing.sync import SyncGatewayUnderTest, run_gateway_sync
    from fastgate.testing.upstreams import FakeUpstream, Seen

__all__ = [
    "Answer", "Clock", "CutShort", "FakeService", "FakeServices", "FakeUpstream", "Fields",
    "GatewayUnderTest", "Seen", "SyncGatewayUnderTest", "fake_exchange", "run_gateway", "run_gateway_sync",
]  # fmt: skip

_HOMES: Final = {
    "Answer": "client", "Clock": "gateway", "CutShort": "client", "FakeService": "gathering",
    "FakeServices": "gathering", "FakeUpstream": "upstreams", "Fields": "client",
    "GatewayUnderTest": "gateway", "Seen": "upstreams", "SyncGatewayUnderTest": "sync",
    "fake_exchange": "gathering", "run_gateway": "gateway", "run_gateway_sync": "sync",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    # On first use: as a plugin of pytest it is loaded with every run.
    if name in _HOMES:
        return getattr(importlib.import_module(f"fastgate.testing.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@pytest.fixture
def fastgate_gateway() -> Callable[..., AbstractAsyncContextManager[GatewayUnderTest]]:
    """``run_gateway``: ``async with fastgate_gateway(config) as gw: ...``."""
    from fastgate.testing.gateway import run_gateway

    return run_gateway


@pytest.fixture
def fastgate_gateway_sync() -> Callable[..., AbstractContextManager[SyncGatewayUnderTest]]:
    """``run_gateway_sync``: ``with fastgate_gateway_sync(config) as gw: ...``."""
    from fastgate.testing.sync import run_gateway_sync

    return run_gateway_sync
