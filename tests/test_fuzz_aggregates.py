"""The short run of the aggregates' fuzzer, and what it has found of the core; `python -m
tests.fuzz.aggregates` is longer."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from fuzz.aggregates import run_aggregates
from fuzz.scenario import Rig, read_responses
from support.gateway import ROOT

from fastgate.plugins import Exchange, Plugin
from fastgate.server.upstreams import RunningUpstream


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_worlds(first: int) -> None:
    for seed in range(first, first + 20):
        run_aggregates(seed)


def test_the_long_run_can_be_started() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.aggregates", "--seed", "7", "--worlds", "2"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "2 worlds" in done.stdout
    assert "0 findings" in done.stdout


class Thinks(Plugin):
    async def on_request(self, exchange: Exchange) -> None:
        await asyncio.sleep(0)


CONFIG = """
[access_log]
enabled = false
[[listeners]]
name = "main"
bind = "127.0.0.1:0"
[upstreams.up]
endpoints = ["127.0.0.1:9"]
[plugins.thinks]
use = "thinks"
[[routes]]
name = "all"
plugins = ["thinks"]
aggregate.parts.a = { upstream = "up", path = "/a", pass_body = true }
"""


def test_a_body_that_a_plugin_held_back_is_read_on() -> None:
    """The plugin thinks, so the client waits; then the parts want the rest of its body."""
    rig = Rig(CONFIG, {"thinks": Thinks})
    client = rig.client(0, 0)
    try:
        client.give(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\n12")
        assert client.paused
        while rig.loop.run():
            pass
        assert client.readable
        client.give(b"34")
        while rig.loop.run():
            pass
        (service,) = rig.upstreams
        assert bytes(service.transport.sent).endswith(b"\r\n\r\n1234")
        service.transport.give(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
        )
        while rig.loop.run():
            pass
        (answer,) = read_responses(client, [b"POST"])
        assert answer.body == b"{}"
    finally:
        rig.leave(client)


def gathering(upstream: str) -> str:
    """A route whose parts all ask one upstream."""
    parts = "".join(
        f'aggregate.parts.{name} = {{ upstream = "up", path = "/{name}", group = "{name}" }}\n'
        for name in "abcd"
    )
    head = CONFIG.partition("[upstreams.up]")[0]
    return f'{head}[upstreams.up]\n{upstream}\n[[routes]]\nname = "all"\n{parts}'


def test_parts_in_a_queue_end_with_the_one_before_them() -> None:
    """One is sent from the queue and fails at once: that ends its aggregation while the next has a slot."""
    rig = Rig(gathering('endpoints = ["127.0.0.1:9"]\nconcurrency = { limit = 1, queue = 10 }'))
    client = rig.client(0, 0)
    try:
        client.give(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
        rig.loop.run()
        rig.snapshot.upstreams["up"].core.endpoints_found((), "gone")
        rig.upstreams[0].transport.give_eof()
        rig.loop.run()
        (answer,) = read_responses(client, [b"GET"])
        assert answer.line[0] == b"502"
        admission = rig.snapshot.upstreams["up"].core.admission
        assert admission is not None
        assert (admission.active, admission.waiting) == (0, 0)
    finally:
        rig.leave(client)


def test_parts_that_wait_for_a_name_end_with_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunningUpstream, "_publish", lambda *_: None)
    rig = Rig(gathering('endpoints = ["127.0.0.1:9"]'))
    client = rig.client(0, 0)
    try:
        client.give(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
        rig.snapshot.upstreams["up"].core.endpoints_found((), "no such name", True)
        (answer,) = read_responses(client, [b"GET"])
        assert answer.line[0] == b"502"
    finally:
        rig.leave(client)
