"""Several workers with one session: its refresh token is sent once, whatever comes of it.

Each worker is the plugin's own parts on a real ``Host``; what they share is the store of a plugin.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from support.oidc_provider import CLIENT, SECRET, OidcProvider

from fastgate.plugins import Secret
from fastgate.plugins._auth.ask import Unavailable
from fastgate.plugins.oidc.config import SECOND
from fastgate.plugins.oidc.config import Config as OidcConfig
from fastgate.plugins.oidc.provider import Provider
from fastgate.plugins.oidc.renewal import Renewal
from fastgate.plugins.oidc.session import Session
from fastgate.server.plugin_services import PluginServices, Services, SystemClock
from fastgate.server.shared_store import HostMemory, HostStore


@pytest.fixture
def server() -> Iterator[OidcProvider]:
    with OidcProvider() as server:
        yield server


@asynccontextmanager
async def workers(server: OidcProvider) -> AsyncIterator[list[Renewal]]:
    memory = HostMemory("", 64)
    store = HostStore(memory, "site")
    services = [Services(cast(Any, None), SystemClock()) for _ in range(2)]
    hosts = [PluginServices(each, "site", Path(), store, {}) for each in services]
    config = OidcConfig(
        issuer=server.issuer,
        client_id=CLIENT,
        client_secret=Secret(SECRET, "test"),
        session_secret=(Secret("x" * 32, "test"),),
        provider_timeout=SECOND,
    )
    made = []
    for host in hosts:
        provider = Provider(host, config)
        host.spawn(provider.run())
        made.append(Renewal(host, config, provider))
    try:
        yield made
    finally:
        for host in hosts:
            await host.close()
        for each in services:
            await each.close()
        memory.close()


def session(server: OidcProvider, expires_in: int, refresh_token: str = "") -> Session:
    now = int(time.time())
    return Session(
        id="1",
        started=now,
        seen=now,
        nonce="n",
        claims={"sub": "alice"},
        scope="openid",
        expires=now + expires_in,
        refresh_token=refresh_token or server.new_refresh_token(nonce="n", scope="openid"),
    )


def refreshes(server: OidcProvider) -> int:
    return server.count("/token")


async def test_the_other_worker_goes_on_with_what_it_has(server: OidcProvider) -> None:
    async with workers(server) as both:
        old = session(server, expires_in=20)
        results = await asyncio.gather(*(worker.renewed(old) for worker in both))
        assert refreshes(server) == 1
        assert results.count(old) == 1
        [new] = [result for result in results if result != old]
        assert new is not None
        assert new.expires > old.expires
        assert [await worker.was_replaced(old) for worker in both] == [True, True]
        assert [await worker.was_replaced(new) for worker in both] == [False, False]


async def test_it_waits_where_its_tokens_have_expired(server: OidcProvider) -> None:
    async with workers(server) as both:
        old = session(server, expires_in=-5)
        results = await asyncio.gather(*(worker.renewed(old) for worker in both))
        assert refreshes(server) == 1
        assert None not in results
        assert results.count(old) == 1


async def test_a_refusal_holds_for_both(server: OidcProvider) -> None:
    async with workers(server) as both:
        old = session(server, expires_in=-5, refresh_token="stolen")
        assert await asyncio.gather(*(worker.renewed(old) for worker in both)) == [None, None]
        assert refreshes(server) == 1
        assert await asyncio.gather(*(worker.renewed(old) for worker in both)) == [None, None]
        assert refreshes(server) == 1


async def test_a_failure_holds_for_nobody_else(server: OidcProvider) -> None:
    async with workers(server) as both:
        server.knobs.statuses["/token"] = 500
        old = session(server, expires_in=-5)
        results = await asyncio.gather(*(worker.renewed(old) for worker in both), return_exceptions=True)
        assert [type(result) for result in results] == [Unavailable, Unavailable]
        server.knobs.statuses.clear()
        new = await both[1].renewed(old)
        assert new is not None
        assert new.expires > old.expires


async def test_a_provider_that_hangs_holds_nobody_up_for_long(server: OidcProvider) -> None:
    async with workers(server) as both:
        server.knobs.hang.add("/token")
        old = session(server, expires_in=-5)
        before = time.monotonic()
        results = await asyncio.gather(*(worker.renewed(old) for worker in both), return_exceptions=True)
        assert [type(result) for result in results] == [Unavailable, Unavailable]
        assert time.monotonic() - before < 2
