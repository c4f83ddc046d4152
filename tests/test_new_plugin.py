"""`fastgate new-plugin`: what it writes passes linters, types and its own test; nothing is overwritten."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastgate.cli import main
from fastgate.config import loads

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("new")
    assert main(["new-plugin", "sample-greeter", "--dir", str(folder)]) == 0
    return folder / "sample-greeter"


def run(package: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """As its author would, with this fastgate in place of an installed one."""
    paths = {"PYTHONPATH": str(ROOT), "MYPYPATH": os.pathsep.join((str(package / "src"), str(ROOT)))}
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=package,
        env={**os.environ, **paths},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_its_test_passes(package: Path) -> None:
    assert "4 passed" in run(package, "pytest", "-q", "-p", "no:cacheprovider").stdout


def test_linters_and_types_are_content(package: Path) -> None:
    run(package, "ruff", "check", "--no-cache", ".")
    run(package, "ruff", "format", "--no-cache", "--check", ".")
    run(package, "mypy", "--follow-imports=silent")


def test_its_file_can_be_used_as_it_is(package: Path) -> None:
    text = (
        '[[listeners]]\nbind = ":8080"\n[[routes]]\nname = "a"\nrespond = {}\nplugins = ["p"]\n'
        '[plugins.p]\nuse = "./src/sample_greeter/__init__.py"\nrefuse = ["TRACE"]\n'
    )
    assert loads(text, str(package / "gateway.toml"), strict=True).warnings == ()


def test_it_is_offered_by_its_name(package: Path) -> None:
    text = (package / "pyproject.toml").read_text()
    assert (
        '[project.entry-points."fastgate.plugins"]\nsample-greeter = "sample_greeter:SampleGreeter"\n' in text
    )


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    assert main(["new-plugin", "mine", "--dir", str(tmp_path)]) == 1
    assert list((tmp_path / "mine").iterdir()) == []
    assert capsys.readouterr().err == f"fastgate new-plugin: {tmp_path}/mine is there already\n"
    (tmp_path / "file").write_text("")
    assert main(["new-plugin", "mine", "--dir", str(tmp_path / "file")]) == 1
    assert capsys.readouterr().err == f"fastgate new-plugin: {tmp_path}/file/mine: Not a directory\n"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("My-Plugin", "small letters"),
        ("my_plugin", "small letters"),
        ("../x", "small letters"),
        ("x-", "small letters"),
        ("", "small letters"),
        ("1x", "small letters"),
        ("jwt", "ships with fastgate"),
        ("rate-limit", "ships with fastgate"),
        ("json", "hide a module"),
        ("class", "hide a module"),
        ("fastgate", "hide a module"),
    ],
)
def test_names_that_cannot_be_one(
    name: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new-plugin", name, "--dir", str(tmp_path)]) == 2
    assert why in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
