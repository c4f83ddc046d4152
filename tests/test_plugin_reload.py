"""Plugins over reloads: changed code is taken up, what runs ends on the old one, which is closed then."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from support import upstream as up
from support.client import request
from support.gateway import Gateway, config

PLUGIN = """
import asyncio
from fastgate.plugins import Exchange, Host, Plugin, PluginConfig, Response

class Versioned(Plugin):
    class Config(PluginConfig):
        fails: bool = False
        word: str = "word"

    VERSION = "{version}"

    async def provision(self, host: Host) -> None:
        self.host = host
        self.served = 0
        if self.config.fails:
            raise ValueError("not today")
        host.spawn(self.wait(), "waiting")
        host.log.info("made %s %s", self.name, self.VERSION)

    async def wait(self) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        await asyncio.sleep(0)
        self.host.log.info("closed %s %s after %d", self.name, self.VERSION, self.served)

    async def on_request(self, exchange: Exchange) -> Response | None:
        self.served += 1
        if exchange.request.path == "/wait":
            self.host.log.info("waiting in %s", self.VERSION)
            await exchange.subrequest("up", path="/asked")
        if exchange.request.path == "/told":
            return Response(body=f"{{self.VERSION}} {{self.served}} {{self.config.word}}")
        return None
"""


def tables(address: str, **keys: Any) -> dict[str, Any]:
    return config(address, route={"plugins": ["one"]}, plugins={"one": {"use": "./versioned.py", **keys}})


class Files:
    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def write(self, version: str) -> None:
        (self.directory / "versioned.py").write_text(PLUGIN.format(version=version))


def told(gateway: Gateway) -> str:
    with gateway.client() as client:
        return client.get("/told").body.decode()


def test_changed_code_is_taken_up_and_the_old_is_closed_behind_its_last_exchange(
    tmp_path: Path, start_upstream: Any
) -> None:
    upstream = start_upstream()
    files = Files(tmp_path)
    files.write("v1")
    go = threading.Event()
    with Gateway(tables(upstream.address), tmp_path) as gateway:
        gateway.wait_stderr("fastgate: made one v1")
        assert told(gateway) == "v1 1 word"
        gateway.reload()
        assert told(gateway) == "v1 2 word", "nothing has changed: the same one serves on"
        upstream.script(up.wait_for(go), up.reply(200, b"asked")).script(up.reply(200, b"fine"))
        with gateway.client() as waiting:
            waiting.send(request("GET", "/wait"))
            gateway.wait_stderr("fastgate: waiting in v1")
            files.write("v2")
            assert "plugins: 1 changed" in gateway.reload()[-1]
            assert told(gateway) == "v2 1 word"
            assert not any("closed one v1" in line for line in gateway.stderr), "an exchange still runs there"
            go.set()
            assert waiting.response().body == b"fine"
        gateway.wait_stderr("fastgate: closed one v1 after 3")
    gateway.wait_stderr("fastgate: closed one v2 after 1")


def test_another_configuration_makes_another_instance(tmp_path: Path, start_upstream: Any) -> None:
    upstream = start_upstream()
    Files(tmp_path).write("v1")
    with Gateway(tables(upstream.address), tmp_path) as gateway:
        gateway.reload(tables(upstream.address, word="other"))
        gateway.wait_stderr("fastgate: closed one v1 after 0")
        assert told(gateway) == "v1 1 other"


def test_what_can_not_be_provisioned_is_not_put_in_force(tmp_path: Path, start_upstream: Any) -> None:
    upstream = start_upstream()
    files = Files(tmp_path)
    files.write("v1")
    with Gateway(tables(upstream.address), tmp_path) as gateway:
        assert told(gateway) == "v1 1 word"
        lines = gateway.not_reload(tables(upstream.address, fails=True))
        assert "fastgate: plugin one: not today" in lines
        assert told(gateway) == "v1 2 word"
        (tmp_path / "versioned.py").write_text("class Broken(:\n")
        (said, *_) = [line for line in gateway.not_reload(tables(upstream.address)) if "versioned.py" in line]
        assert f"{gateway.file}:" in said
        assert told(gateway) == "v1 3 word"


def test_a_start_that_fails_says_why(tmp_path: Path) -> None:
    Files(tmp_path).write("v1")
    with pytest.raises(AssertionError, match="fastgate: plugin one: not today"):
        Gateway(tables("127.0.0.1:1", fails=True), tmp_path).start()
