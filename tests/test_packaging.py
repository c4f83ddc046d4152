"""The sdist is complete; the wheel that is built from it holds what it should and works on its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from support.gateway import ROOT

MINIMAL = """
[[listeners]]
name = "public"
bind = "127.0.0.1:0"

[[routes]]
name = "hello"
respond = { body = "hello from the wheel\\n" }
"""


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**clean(), "PIP_DISABLE_PIP_VERSION_CHECK": "1", "FASTGATE_CFLAGS": "-O0"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def clean() -> dict[str, str]:
    """The environment without what would let the working tree shine through."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", out, cwd=ROOT)
    return next(out.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the sdist as `pip install .` builds: in isolation, with what pyproject.toml asks for."""
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", out, sdist, cwd=out)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment that holds the wheel and what it depends on; its `bin`."""
    place = tmp_path_factory.mktemp("environment")
    venv.create(place, with_pip=True)
    run(place / "bin" / "python", "-m", "pip", "install", wheel, cwd=place)
    return place / "bin"


def sources(*suffixes: str) -> set[str]:
    return {
        str(path.relative_to(ROOT))
        for path in (ROOT / "fastgate").rglob("*")
        if path.suffix in suffixes and "__pycache__" not in path.parts
    }


def test_the_sdist_is_complete(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert sources(".py", ".pyx", ".pxd", ".pyi", ".toml") <= names
    assert {"setup.py", "pyproject.toml", "README.md", "Makefile", "examples/api.toml"} <= names
    assert not [name for name in names if name.endswith((".so", ".c")) and name.startswith("fastgate/")]


def test_what_the_wheel_holds(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert sources(".py", ".pyi", ".pxd", ".toml") <= names
    assert "fastgate/py.typed" in names
    assert len([name for name in names if name.startswith("fastgate/_core.") and name.endswith(".so")]) == 1
    top = {name.partition("/")[0] for name in names}
    assert top == {"fastgate", next(name for name in top if name.endswith(".dist-info"))}
    assert not [name for name in names if name.endswith((".pyx", ".c"))]


def test_the_command_of_the_wheel(environment: Path, tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(MINIMAL)
    fastgate = environment / "fastgate"
    assert "usage: fastgate" in run(fastgate, "--help", cwd=tmp_path)
    assert run(fastgate, "version", cwd=tmp_path).startswith("fastgate 0.1.0\n")
    assert "ok (1 listener, 1 route" in run(fastgate, "check", "-c", file, cwd=tmp_path)
    assert "hello" in run(fastgate, "explain", "-c", file, "GET", "http://a/", cwd=tmp_path)
    module = run(environment / "python", "-c", "import fastgate; print(fastgate.__file__)", cwd=tmp_path)
    assert Path(module.strip()).is_relative_to(environment.parent)


@pytest.mark.parametrize("command", [["run", "-c", "gateway.toml"], ["demo", "--port", "0x"]])
def test_a_short_run_of_the_wheel(environment: Path, tmp_path: Path, command: list[str]) -> None:
    from support.client import Client
    from support.upstream import free_port

    (tmp_path / "gateway.toml").write_text(MINIMAL)
    command = [str(free_port()) if word == "0x" else word for word in command]
    with subprocess.Popen(
        [environment / "fastgate", *command],
        cwd=tmp_path,
        env=clean(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr
            line = process.stderr.readline()
            assert line.startswith("fastgate: listening on 127.0.0.1:")
            port = int(line.split("127.0.0.1:")[1].split()[0])
            assert process.stderr.readline().startswith("fastgate: worker 1")
            assert process.stderr.readline().startswith("fastgate: ready")
            with Client(("127.0.0.1", port)) as client:
                assert client.get("/healthz").status == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()
