"""`make run` and the scripts behind it, as far as they can run inside the tests: .ci/run runs the rest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.client import Client
from support.gateway import ROOT
from support.upstream import free_port


def script(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/bash", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_what_is_missing_is_named_where_nothing_can_be_installed(tmp_path: Path) -> None:
    done = script("tools/apt.sh", "gcc", "python3-dev", PATH=str(tmp_path))
    assert done.returncode == 1
    assert "missing here, as Debian names them: gcc python3-dev" in done.stderr
    assert "there is no apt-get" in done.stderr


def test_what_is_missing_is_installed(tmp_path: Path) -> None:
    """Without questions, and without starting the services among the packages."""
    told = tmp_path / "told"
    for name, text in {"apt-get": f'echo "$DEBIAN_FRONTEND $RUNLEVEL $*" >> {told}', "id": "echo 0"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    done = script("tools/apt.sh", "gcc", "curl", PATH=f"{tmp_path}:/usr/bin:/bin")
    assert done.returncode == 0
    update, install = told.read_text().splitlines()
    assert update.startswith("noninteractive 1 ")
    assert update.endswith(" update")
    assert install.startswith("noninteractive 1 ")
    assert install.endswith(" install -y --no-install-recommends gcc curl")


def test_sudo_that_would_ask_is_not_waited_for(tmp_path: Path) -> None:
    for name, text in {"apt-get": "exit 9", "id": "echo 1000", "sudo": "exit 1"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    done = script("tools/apt.sh", "gcc", PATH=str(tmp_path))
    assert done.returncode == 1
    assert "run: sudo apt-get install gcc" in done.stderr


def test_a_python_that_is_too_old_is_told() -> None:
    done = script("tools/setup.sh", "run", PYTHON="/bin/false")
    assert done.returncode == 1
    assert "needs Python 3.11 or later" in done.stderr


def test_the_scripts_are_sound() -> None:
    for file in (ROOT / "tools" / "apt.sh", ROOT / "tools" / "setup.sh", ROOT / ".ci" / "run"):
        assert os.access(file, os.X_OK), f"{file.name} is not executable"
        assert file.read_text().splitlines()[0] == "#!/usr/bin/env bash"
        assert "\nset -euo pipefail\n" in file.read_text()
        assert script("-n", str(file)).returncode == 0


def test_no_path_of_a_machine_and_no_registry_is_written_down() -> None:
    files = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split("\0")
    if files == [""]:
        pytest.skip("not a clone")
    words = ["/wo" + "rk/", "/ro" + "ot/", "index" + "-url", "py" + "pi.org", "files.python" + "hosted"]
    found = []
    for name in filter(None, files):
        path = ROOT / name
        if path.is_symlink() or not path.exists():
            continue
        text = path.read_bytes().decode("utf-8", "replace")
        found += [f"{name}: {word}" for word in words if word in text]
    assert found == []


@pytest.mark.skipif(
    Path(sys.prefix).resolve() != (ROOT / ".venv").resolve(), reason="`make test` has made what this needs"
)
def test_make_run() -> None:
    """The README's first command, with everything that it makes already made."""
    port = free_port()
    with subprocess.Popen(
        ["make", "run", f"ARGS=--port {port}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as make:
        try:
            assert make.stdout
            for line in make.stdout:
                if line.startswith("Ctrl-C"):
                    break
            with Client(("127.0.0.1", port)) as client:
                assert client.get("/orders/1").status == 200
            # As a terminal does: to make and to what it started.
            os.killpg(make.pid, signal.SIGINT)
            rest = make.stdout.read()
            make.wait(20)
            assert 'stopped {"cut": 0' in rest
            assert "Traceback" not in rest
        finally:
            make.kill()
