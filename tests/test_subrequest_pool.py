"""What plugins ask of an upstream goes by its pool's bounds, as what clients ask does."""

from __future__ import annotations

import asyncio
from typing import Any

from fastgate.plugins import Exchange, Plugin, Response, SubrequestError
from fastgate.testing import Answer, Fields, Seen, run_gateway


class Asks(Plugin):
    """Asks five times at once."""

    async def on_request(self, exchange: Exchange) -> Response:
        async def ask() -> str:
            try:
                return str((await exchange.subrequest("auth", path="/")).status)
            except SubrequestError as error:
                return error.reason

        return Response(json=sorted(await asyncio.gather(*(ask() for _ in range(5)))))


def tables(**pool: Any) -> dict[str, Any]:
    return {
        "listeners": [{"bind": "127.0.0.1:0"}],
        "upstreams": {"auth": {"endpoints": ["auth.internal:80"], "pool": pool}},
        "routes": [{"name": "all", "respond": {"status": 200}, "plugins": ["asks"]}],
        "plugins": {"asks": {"use": "Asks"}},
    }


async def test_they_wait_for_a_connection() -> None:
    active, most = 0, 0

    async def slow(seen: Seen) -> Answer:
        nonlocal active, most
        active += 1
        most = max(most, active)
        await asyncio.sleep(0.005)
        active -= 1
        return Answer(200, Fields([]), b"")

    async with run_gateway(tables(max_connections=2), plugins=[Asks]) as gw:
        gw.upstream("auth").handle(slow)
        assert (await gw.get("/")).json() == ["200"] * 5
    assert most == 2


async def test_they_are_refused_where_too_many_wait() -> None:
    async with run_gateway(tables(max_connections=1, queue=1), plugins=[Asks]) as gw:
        assert (await gw.get("/")).json() == ["200"] * 2 + ["queue-full"] * 3
