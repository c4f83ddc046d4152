"""A request that no Python plugin matches runs no Python function of ours."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import uvloop
from support.upstream import Upstream

import fastgate
from fastgate.config import loads
from fastgate.server.gateway import Gateway

CONFIG = """
[access_log]
path = "{log}"

[[listeners]]
bind = "127.0.0.1:0"
plugins = ["limit", "office"]

[upstreams.service]
endpoints = ["{address}"]

[[routes]]
name = "orders"
match = {{ host = "api.example.com", prefix = "/orders", headers = {{ x-a = true }} }}
upstream = "service"
rewrite = {{ strip_prefix = true }}
response_headers = {{ set = {{ x-b = "1" }} }}

[plugins.limit]
use = "rate-limit"
rate = "100000/s"

[plugins.office]
use = "ip-filter"
allow = ["127.0.0.0/8"]
"""
PACKAGE = str(Path(fastgate.__file__).parent)
REQUESTS = 300


def drive(address: tuple[str, int]) -> None:
    """Requests of both kinds on one connection, each answer read whole."""
    head = b"/orders/7?x=1 HTTP/1.1\r\nHost: api.example.com\r\nX-A: 1\r\n"
    with socket.create_connection(address, 5) as client:
        stream = client.makefile("rb")
        for i in range(REQUESTS):
            client.sendall(
                b"POST " + head + b"Content-Length: 5\r\n\r\nhello" if i % 2 else b"GET " + head + b"\r\n"
            )
            assert stream.readline().startswith(b"HTTP/1.1 200 ")
            length = 0
            while (line := stream.readline()) != b"\r\n":
                name, _, value = line.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            stream.read(length)


async def count(tmp_path: Path) -> list[str]:
    """Names of our functions that ran in the loop's thread while a connection made its requests, and of one
    that was called behind them."""
    ran: list[str] = []

    def watch(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            ran.append(frame.f_code.co_qualname)

    with Upstream() as service:
        text = CONFIG.format(address=service.address, log=tmp_path / "access.log")
        gateway = Gateway(loads(text, str(tmp_path / "gateway.toml")).config)
        opened = await gateway.start()
        host, _, port = opened[0][0].rpartition(":")
        address = (host, int(port))
        await asyncio.to_thread(drive, address)  # the connection upstream and the free lists are there then
        sys.setprofile(watch)
        try:
            await asyncio.to_thread(drive, address)
            gateway.counted()  # shows that a call is seen
        finally:
            sys.setprofile(None)
        assert not any((await gateway.drain()).values())
    return ran


def test_no_python_function_runs_for_a_request(tmp_path: Path) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        ran = runner.run(count(tmp_path))
    before = ran.index("Gateway.counted")
    assert before == 0, f"{before} calls for a connection with {REQUESTS} requests: {set(ran[:before])}"
