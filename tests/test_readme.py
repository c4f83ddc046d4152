"""README.md and docs/: every command runs, every configuration is accepted, every link leads somewhere, every
named test and stated default is there."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from support.certificates import issue
from support.demo import Demo
from support.docs import PAGES, Block, Run, anchors, blocks, commands, links, runs
from support.gateway import ROOT, Gateway, config, to_toml
from support.tls import AUTHORITY, Pair, revocations, server_certificate
from support.upstream import free_port

from bench.__main__ import parser as bench_parser
from bench.aggregate_memory import parser as aggregate_memory_parser
from bench.endurance.__main__ import parser as endurance_parser
from bench.limits.__main__ import parser as limits_parser
from bench.resilience.__main__ import parser as resilience_parser
from bench.tls_memory import parser as tls_memory_parser
from fastgate.config import Sources, load, loads


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with Demo("--port", str(free_port())) as demo:
        yield demo


@pytest.fixture(scope="module")
def operated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the admin API of a gateway."""
    tables = config(route={"respond": {}}) | {"admin": {"bind": "127.0.0.1:0"}}
    with Gateway(tables, tmp_path_factory.mktemp("gateway")) as gateway:
        address = gateway.addresses["admin API"]
        assert not isinstance(address, str)
        yield f"{address[0]}:{address[1]}"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where a reader would stand: `fastgate` is on the PATH, there are the examples and a gateway.toml."""
    program = tmp_path / "bin" / "fastgate"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m fastgate "$@"\n')
    program.chmod(0o755)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    shutil.copy(ROOT / "examples" / "api.toml", tmp_path / "gateway.toml")
    shutil.copytree(ROOT / "examples" / "frontends", tmp_path, dirs_exist_ok=True)
    return tmp_path


def shell(command: str, place: Path) -> subprocess.CompletedProcess[str]:
    path = f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", command],
        cwd=place,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )


# -- commands


@pytest.mark.parametrize("run", runs(), ids=str)
def test_what_a_command_prints(run: Run, demo: Demo, place: Path) -> None:
    """Commands that ask 127.0.0.1:8080 ask the demo."""
    done = shell(run.command.replace("127.0.0.1:8080", f"127.0.0.1:{demo.port}"), place)
    printed = done.stdout.replace(str(demo.port), "8080").replace("\r", "")
    assert done.returncode == 0, done.stderr
    assert run.matches(printed), f"{run}\n--- it prints\n{printed}\n--- the page says\n{run.output}"


@pytest.mark.parametrize(("block", "command"), commands(), ids=str)
def test_commands_without_output(
    block: Block, command: str, place: Path, request: pytest.FixtureRequest
) -> None:
    """Those that would take long are read, not run, where they are held by another test or run the tests."""
    words = command.split()
    if words[0] == "make":
        subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, check=True, capture_output=True, timeout=30)
    elif words[:3] == ["python", "-m", "bench"]:
        bench_parser().parse_args(words[3:])
    elif words[:3] == ["python", "-m", "bench.resilience"]:
        resilience_parser().parse_args(words[3:])
    elif words[:3] == ["python", "-m", "bench.limits"]:
        limits_parser().parse_args(words[3:])
    elif words[:3] == ["python", "-m", "bench.endurance"]:
        endurance_parser().parse_args(words[3:])
    elif words[:3] == ["python", "-m", "bench.tls_memory"]:
        tls_memory_parser().parse_args(words[3:])
    elif words[:3] == ["python", "-m", "bench.aggregate_memory"]:
        aggregate_memory_parser().parse_args(words[3:])
    elif command == "python examples/shop/run.py":
        # tests/test_example_shop.py runs it.
        assert (ROOT / "examples" / "shop" / "run.py").exists()
    elif words[:3] == ["python", "-m", "pytest"] and words[3].startswith("bench/micro"):
        collect = [sys.executable, *words[1:], "--collect-only", "-q"]
        subprocess.run(collect, cwd=ROOT, check=True, capture_output=True, timeout=60)
    elif words[:2] == ["fastgate", "run"]:
        # test_examples.py and test_example_frontends.py run them.
        assert shell(command.replace("fastgate run", "fastgate check"), place).returncode == 0
    elif words[:2] == ["fastgate", "check"]:
        assert shell(command, place).returncode == 0
    elif words[:2] in (["fastgate", word] for word in ("cert", "endpoint", "split", "why")):
        # test_cli.py, test_why.py and test_tls_reload.py have them ask a gateway.
        parser = argparse.ArgumentParser()
        importlib.import_module(f"fastgate.cli.{words[1]}").arguments(parser)
        parser.parse_args(words[2:])
    elif words[:3] == ["fastgate", "cert", "reload"] or words[:2] in (
        ["fastgate", "reload"],
        ["fastgate", "upstreams"],
        ["fastgate", "top"],
    ):
        done = shell(f"{command} --admin {request.getfixturevalue('operated')}", place)
        assert done.returncode == 0, done.stderr
    elif words[0] == "curl":
        address = request.getfixturevalue("operated")
        command = command.replace(
            "--unix-socket /run/fastgate/admin.sock http://localhost", "http://127.0.0.1:9901"
        )
        done = shell(command.replace("127.0.0.1:9901", address), place)
        assert done.returncode == 0, done.stderr
        assert '"status":' not in done.stdout, "a problem"
    elif command == "pip install .":
        assert (ROOT / "tests" / "test_packaging.py").exists()
    else:
        pytest.fail(f"{block}: no test knows this command: {command}")


def test_there_is_something_to_run() -> None:
    assert len(runs()) >= 6
    assert len(commands()) >= 6


# -- configurations


def completed(tables: dict[str, Any]) -> dict[str, Any]:
    """A fragment with what it refers to: a listener, upstreams, plugins."""
    tables.setdefault("listeners", [{"name": "public", "bind": "127.0.0.1:8080"}])
    tables.setdefault("upstreams", {})
    tables.setdefault("plugins", {})
    for route in tables.get("routes", []):
        parts = route.get("aggregate", {}).get("parts", {}).values()
        for asked in (route, *parts):
            for name in ([asked["upstream"]] if "upstream" in asked else []) + asked.get("race", []):
                tables["upstreams"].setdefault(name, {"endpoints": ["127.0.0.1:9001"]})
        for plugin in route.get("plugins", []):
            tables["plugins"].setdefault(plugin, {"use": "ip-filter", "block": ["192.0.2.0/24"]})
    return tables


# test_first_plugin.py holds that page, with the files that its configuration names.
CONFIGURATIONS = [block for block in blocks("toml") if block.page.name != "first-plugin.md"]


@pytest.mark.parametrize("block", CONFIGURATIONS, ids=str)
def test_configurations(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block with listeners and routes is whole, and has no warnings. Any other is a fragment."""
    tables = tomllib.loads(block.text)
    for name in re.findall(r'env = "(\w+)"', block.text):
        monkeypatch.setenv(name, "a-secret-of-forty-characters-or-a-few")
    for plugin in tables.get("plugins", {}).values():
        for key in ("allow_file", "block_file"):
            if key in plugin:
                (tmp_path / plugin[key]).write_text("192.0.2.0/24\n")
    if "tls" in tables.get("admin", {}):
        issued = issue("CN=gateway", server=True)
        for key, text in (("cert", issued.pem), ("key", issued.key_pem), ("client_ca", issued.pem)):
            (tmp_path / tables["admin"]["tls"][key]).write_text(text)
    for name in re.findall(r'"certs/([\w-]+)\.pem"', block.text):
        (tmp_path / "certs").mkdir(exist_ok=True)
        if f"certs/{name}.key" in block.text:
            Pair(tmp_path / "certs", name, server_certificate(f"{name}.example.com"))
        else:
            text = revocations(AUTHORITY) if name == "revoked" else AUTHORITY.pem
            (tmp_path / "certs" / f"{name}.pem").write_text(text)
    for pattern in tables.get("include", ()):
        # Matched by nothing, and there.
        file = tmp_path / pattern.replace("*", "none")
        file.parent.mkdir(exist_ok=True)
        file.touch()
    whole = "listeners" in tables and "routes" in tables
    file = tmp_path / "gateway.toml"
    file.write_text(block.text if whole else to_toml(completed(tables)))
    load(str(file), strict=whole)


def test_the_readme_shows_an_example_file() -> None:
    shown = [block.text for block in blocks("toml") if block.page.name == "README.md"]
    assert shown == [(ROOT / "examples" / "api.toml").read_text()]


def test_the_page_of_aggregations_shows_an_example_file() -> None:
    shown = [block.text for block in blocks("toml") if block.page.name == "aggregation.md"]
    assert shown[0] == (ROOT / "examples" / "order-page.toml").read_text()


MINIMAL = {
    "listeners": [{"name": "l", "bind": "127.0.0.1:8080"}],
    "upstreams": {"u": {"endpoints": ["127.0.0.1:9001"]}},
    "routes": [{"name": "r", "upstream": "u"}],
}


def defaults() -> list[tuple[str, str]]:
    text = (ROOT / "docs" / "operations.md").read_text()
    return re.findall(r"^\| `((?:server|listeners|upstreams|routes)\.[a-z_.]+)` \| `([^`]+)` \|", text, re.M)


@pytest.mark.parametrize(("key", "value"), defaults())
def test_stated_defaults(key: str, value: str) -> None:
    """Writing the stated default changes nothing; writing another value does."""
    section, *path = key.split(".")

    def config(value: str) -> object:
        line = ".".join(path) + f" = {value}\n"
        head = {"server": "[server]\n", "upstreams": "[upstreams.u]\n"}.get(section, f"[[{section}]]\n")
        text = to_toml(MINIMAL)
        text = text.replace(head, head + line) if head in text else text + head + line
        return replace(loads(text, "gateway.toml").config, sources=Sources())

    assert config(value) == replace(loads(to_toml(MINIMAL), "gateway.toml").config, sources=Sources())
    other = value.replace('"', '"1', 1) if value[1].isdigit() else '"1KiB"'
    assert config(other if value.startswith('"') else f"1{value}") != config(value)


def test_there_are_defaults() -> None:
    assert len(defaults()) >= 25


# -- links and names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links(page: Path) -> None:
    for path, anchor in links(page):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {path}"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: {path}#{anchor}"


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {path for path, _ in links(index)}
    assert {page.name for page in PAGES if page.parent == index.parent and page != index} <= linked


def test_tests_that_pages_name_are_there() -> None:
    named = {name for page in PAGES for name in re.findall(r"(test_\w+\.py)::(test_\w+)", page.read_text())}
    assert len(named) > 40
    for file, test in named:
        assert f"def {test}(" in (ROOT / "tests" / file).read_text(), f"{file}::{test}"


def test_reasons_that_pages_name_are_there() -> None:
    from fastgate._core import REASONS

    codes = {reason.code for reason in REASONS}
    for page in PAGES:
        for status, code in re.findall(r"\b([1-5]\d\d) `([a-z-]+)`", page.read_text()):
            assert code in codes, f"{page.name}: {code}"
            assert int(status) in {reason.status for reason in REASONS if reason.code == code}, (page, code)
