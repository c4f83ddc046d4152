"""The `fastgate` command: dispatch, exit codes, what is printed where."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

import fastgate
from fastgate.cli import COMMANDS, main

ROOT = Path(__file__).parent.parent
VALID = ROOT / "tests" / "golden" / "config" / "valid"


def run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "fastgate", *arguments]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_help_names_every_command() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert done.stderr == ""
    assert all(f"  {name} " in done.stdout for name in COMMANDS)


def test_help_imports_nothing_heavy() -> None:
    """What --help imports is what it costs: the standard library's argparse, and nothing of the gateway."""
    code = (
        "import sys; from fastgate.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'msgspec', 'uvloop', 'httptools', 'orjson', 're2', 'asyncio', 'tomllib', 'fastgate.config',"
        " 'fastgate._core', 'json', 'importlib.metadata'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == "[]\n"


@pytest.mark.parametrize(
    "arguments", [[], ["chek"], ["--nope"], ["check", "--nope"], ["check", "x", "y"], ["-c", "x"]]
)
def test_wrong_usage_is_2_and_told_on_stderr(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "usage: fastgate" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_misspelt_command_is_suggested() -> None:
    assert 'did you mean "check"?' in run("chek").stderr


@pytest.mark.parametrize("arguments", [["version"], ["--version"]])
def test_version(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == f"fastgate {fastgate.__version__}"
    assert lines[1] == f"CPython {platform.python_version()}"
    assert [line.split()[0] for line in lines[3:]] == ["uvloop", "httptools"]


def test_check_of_a_good_file() -> None:
    done = run("check", "-c", "contract.toml", cwd=VALID)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "contract.toml: ok (1 listener, 2 routes, 3 upstreams, 2 plugins)\n"


def test_check_of_a_bad_file() -> None:
    done = run("check", "-c", "bind_twice.toml", cwd=VALID.parent)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (VALID.parent / "bind_twice.expected").read_text()


def test_check_looks_for_gateway_toml(tmp_path: Path) -> None:
    done = run("check", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("gateway.toml: cannot be read: No such file or directory\n")


@pytest.mark.parametrize("name", [".", "not-there.toml", "new\nline.toml", "esc\x1b[31m.toml", "\udcff.toml"])
def test_files_that_cannot_be_read_are_told_in_one_line_each(name: str, tmp_path: Path) -> None:
    done = run("check", "-c", name, cwd=tmp_path)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 2
    assert all(line.isprintable() for line in done.stderr.splitlines())
    assert "cannot be read" in done.stderr


def test_warnings_are_told_and_pass(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(VALID.parent)
    assert main(["check", "-c", "warn_unused.toml"]) == 0
    out, err = capsys.readouterr()
    assert out == "warn_unused.toml: ok (1 listener, 1 route, 2 upstreams, 1 plugin); 2 warnings\n"
    assert err.count("warning: ") == 2
    assert main(["check", "-c", "warn_unused.toml", "--strict"]) == 1
    assert capsys.readouterr().err.endswith("warn_unused.toml: 2 errors\n")


def test_schema_is_json() -> None:
    done = run("schema")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "fastgate", "schema"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate(timeout=60)
    assert err == b""
    assert process.returncode == 1


def test_the_console_script_is_the_same_function() -> None:
    assert 'fastgate = "fastgate.cli:main"' in (ROOT / "pyproject.toml").read_text()
