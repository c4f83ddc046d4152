"""The Python of docs/embedding.md, docs/testing.md and docs/aggregation-python.md runs as it stands there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.docs import Block, blocks
from support.gateway import ROOT

PYTHON = blocks("python")
PROGRAMS = [block for block in PYTHON if block.page.name == "embedding.md"]
TESTS = [block for block in PYTHON if block.page.name == "testing.md"]
AGGREGATION = [block for block in PYTHON if block.page.name == "aggregation-python.md"]

FILE = """
access_log = { enabled = false }

[[listeners]]
bind = "127.0.0.1:0"

[upstreams.orders]
endpoints = ["127.0.0.1:9001"]

[[routes]]
name = "orders"
match = { prefix = "/orders" }
upstream = "orders"
"""

THREE = """
[upstreams.users]
endpoints = ["127.0.0.1:9002"]

[upstreams.offers]
endpoints = ["127.0.0.1:9003"]
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "gateway.toml").write_text(FILE)
    return tmp_path


def run(place: Path, *command: str) -> None:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("block", PROGRAMS, ids=str)
def test_programs(block: Block, place: Path) -> None:
    (place / "program.py").write_text(block.text)
    run(place, "-X", "dev", "-W", "error", "program.py")


def test_tests(place: Path) -> None:
    conftest, *tests = TESTS
    (place / "conftest.py").write_text(conftest.text)
    for number, block in enumerate(tests):
        (place / f"test_{number}.py").write_text(block.text)
    run_tests(place)


def run_tests(place: Path) -> None:
    options = ["asyncio_mode=auto", "asyncio_default_fixture_loop_scope=function", "filterwarnings=error"]
    run(place, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(word for o in options for word in ("-o", o)))


def test_aggregation(place: Path) -> None:
    """The blocks of the page are one module."""
    (place / "gateway.toml").write_text(FILE + THREE)
    (place / "conftest.py").write_text(TESTS[0].text)
    (place / "test_page.py").write_text("\n".join(block.text for block in AGGREGATION))
    run_tests(place)


def test_there_is_something_to_run() -> None:
    assert len(PROGRAMS) >= 3
    assert len(TESTS) >= 6
    assert sum(block.text.count("def test_") for block in AGGREGATION) >= 5
