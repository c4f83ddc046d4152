"""What a running gateway counts: exchanges by route and reason, connections on both sides."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from support.upstream import Upstream

from fastgate.config import loads
from fastgate.server.gateway import Gateway

CONFIG = """
[access_log]
enabled = false

[[listeners]]
bind = "127.0.0.1:0"

[upstreams.service]
endpoints = ["{address}"]

[[routes]]
name = "orders"
match = {{ prefix = "/orders" }}
upstream = "service"

[[routes]]
name = "fixed"
match = {{ path = "/fixed" }}
respond = {{ body = "ok" }}
"""


async def ask(address: str, *targets: str) -> asyncio.StreamWriter:
    """Sends GETs one after the other, reads each answer whole, and leaves the connection open."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    for target in targets:
        writer.write(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = head.partition(b"content-length: ")[2].split(b"\r\n")[0]
        await reader.readexactly(int(length))
    return writer


async def test_exchanges_and_connections_are_counted(tmp_path: Path) -> None:
    with Upstream() as service:
        gateway = Gateway(
            loads(CONFIG.format(address=service.address), str(tmp_path / "gateway.toml")).config
        )
        opened = await gateway.start()
        writer = await ask(opened[0][0], "/orders", "/orders/1", "/fixed", "/nowhere")
        gateway.worker.show_gauges()
        seen: Any = gateway.counters.snapshot()
        assert seen["routes"]["orders"]["exchanges"] == 2
        assert seen["routes"]["orders"]["status"]["2xx"] == 2
        assert seen["routes"]["orders"]["upstream_head"]["count"] == 2
        assert seen["routes"]["fixed"]["reasons"] == {"fixed-response": 1}
        assert seen["no_route"]["reasons"] == {"no-route": 1}
        assert seen["upstreams"]["service"] == {
            "exchanges": 2,
            "attempts": 2,
            "retries": 0,
            "failures": 0,
            "connections_open": 1,
            "connections_idle": 1,
            "connections_made": 1,
            "requests_waiting": 0,
        }
        assert seen["gauges"]["connections_open"] == 1
        assert seen["gauges"]["connections_accepted"] == 1
        assert seen["gauges"]["exchanges_active"] == 0
        writer.close()
        await writer.wait_closed()
        left = await gateway.drain()
        assert not any(left.values()), left
        gateway.worker.show_gauges()
        seen = gateway.counters.snapshot()
        assert seen["gauges"]["connections_open"] == 0
        assert seen["upstreams"]["service"]["connections_open"] == 0
