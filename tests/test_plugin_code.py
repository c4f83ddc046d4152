"""A plugin's code changes while the gateway runs: it comes with the next reload; what is under way ends on
the old one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.client import request
from support.gateway import Gateway, config

SOURCE = """
import sys
from fastgate.plugins import Plugin, PluginConfig, Response


class Mine(Plugin):
    class Config(PluginConfig):
        key: str = ""

    async def on_request(self, exchange):
        body = await exchange.request.read()
        return Response(200, body=b"VERSION " + body + self.config.key.encode())

    def close(self):
        print("fastgate: closed VERSION\\n", end="", file=sys.stderr, flush=True)  # in one piece
"""


def write(file: Path, version: str) -> None:
    file.write_text(SOURCE.replace("VERSION", version))


def tables(use: str, **keys: Any) -> dict[str, Any]:
    return config(plugins={"mine": {"use": use, **keys}}, route={"respond": {}, "plugins": ["mine"]})


USES = pytest.mark.parametrize("use", ["./mine.py", "mine:Mine"])


@USES
def test_changed_code_comes_with_a_reload(use: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    write(file, "one")
    with Gateway(tables(use), tmp_path) as gateway, gateway.client() as client:
        assert client.get().body == b"one "
        write(file, "two")
        assert client.get().body == b"one "
        assert gateway.reload()[-1] == "fastgate: reloaded (plugins: 1 changed)"
        assert client.get().body == b"two "
        gateway.wait_stderr("fastgate: closed one")
    assert gateway.stderr.count("fastgate: closed two") == 1


@USES
def test_what_is_under_way_ends_on_the_old_code(use: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    write(file, "one")
    with Gateway(tables(use), tmp_path) as gateway, gateway.client() as slow, gateway.client() as client:
        sent = request("POST", body=b"body")
        slow.send(sent[:-1])
        client.get()  # so that the head of the other one has been read
        write(file, "two")
        gateway.reload()
        assert client.get().body == b"two "
        assert "fastgate: closed one" not in gateway.stderr
        slow.send(sent[-1:])
        assert slow.response().body == b"one body"
        gateway.wait_stderr("fastgate: closed one")


@USES
def test_unchanged_code_lives_on(use: str, tmp_path: Path) -> None:
    write(tmp_path / "mine.py", "one")
    with Gateway(tables(use), tmp_path) as gateway, gateway.client() as client:
        client.get()
        assert gateway.reload() == ["fastgate: reloaded (nothing changed)"]
        assert "fastgate: closed one" not in gateway.stderr
        assert gateway.reload(tables(use, key="x"))[-1] == "fastgate: reloaded (plugins: 1 changed)"
        assert client.get().body == b"one x"


@USES
def test_code_that_does_not_load_changes_nothing(use: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    write(file, "one")
    with Gateway(tables(use), tmp_path) as gateway, gateway.client() as client:
        client.get()
        file.write_text("class Mine(:\n")
        lines = gateway.not_reload()
        assert any(line.endswith("invalid syntax (mine.py:1)") for line in lines)
        assert client.get().body == b"one "
        write(file, "one")
        assert gateway.reload() == ["fastgate: reloaded (nothing changed)"]
        assert client.get().body == b"one "


HEAVY = """
from dataclasses import dataclass
import os
from fastgate.plugins import Plugin, Response


@dataclass
class Pair:
    one: int
    two: int


def add(pair):
    return os.getpid(), Pair(pair.one + pair.two, 0)


class Mine(Plugin):
    def provision(self, host):
        self.host = host

    async def on_request(self, exchange):
        worker, pair = await self.host.in_process(add, Pair(1, 2))
        return Response(200, json={"sum": pair.one, "elsewhere": worker != os.getpid()})
"""


@USES
def test_functions_of_a_plugin_run_in_another_process(use: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(HEAVY)
    with Gateway(tables(use, timeout="30s"), tmp_path) as gateway, gateway.client() as client:
        assert client.get().body == b'{"sum":3,"elsewhere":true}'
