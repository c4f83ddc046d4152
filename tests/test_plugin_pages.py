"""The examples on the pages of the plugins are whole configurations that load, and do what they promise."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
from conftest import StartGateway
from support.gateway import ROOT
from support.upstream import Upstream

from fastgate.config import loads

PAGES = sorted((ROOT / "docs" / "plugins").glob("*.md"))


def examples(page: str) -> list[str]:
    return re.findall(r"^```toml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_an_example_is_a_whole_configuration(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = examples(path.read_text())
    assert found
    for name in re.findall(r'env = "(\w+)"', found[0]):
        monkeypatch.setenv(name, "x" * 64)
    if "[[listeners]]" in found[0]:
        assert not loads(found[0], str(ROOT / "examples" / "x.toml")).warnings


@pytest.mark.parametrize("name", ["api-key", "basic"])
def test_the_command_of_a_page_is_let_in_and_others_are_not(
    start_gateway: StartGateway, upstream: Upstream, name: str
) -> None:
    page = (ROOT / "docs" / "plugins" / f"{name}.md").read_text()
    [command] = re.findall(r"^    curl (.*) http://127\.0\.0\.1:8080(\S*)$", page, re.MULTILINE)
    tables = tomllib.loads(examples(page)[0])
    for each in tables["upstreams"].values():
        each["endpoints"] = [upstream.address]
    tables["listeners"] = [{"name": "main", "bind": "127.0.0.1:0"}]
    gateway = start_gateway({**tables, "access_log": {"path": "stdout"}})

    def status(*options: str) -> str:
        line = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", *options, gateway.url + command[1]]
        return subprocess.run(line, capture_output=True, text=True, check=True, timeout=10).stdout

    assert status(*shlex.split(command[0])) == "200"
    assert status() == "401"
