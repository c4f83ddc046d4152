"""docs/first-plugin.md, done as a reader would."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.client import Client, request
from support.gateway import ROOT, Gateway

PAGE = (ROOT / "docs" / "first-plugin.md").read_text()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files of the page, under the names that it gives them."""
    for name, kind in (("tenants.py", "python"), ("gateway.toml", "toml"), ("test_tenants.py", "python")):
        found = re.search(rf"`{name}`.*?```{kind}\n(.*?)```", PAGE, re.DOTALL)
        assert found, name
        (tmp_path / name).write_text(found[1])
    return tmp_path


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *words]
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60)


def test_check(folder: Path) -> None:
    done = run(folder, "fastgate", "check", "-c", "gateway.toml")
    assert done.returncode == 0, done.stderr
    file = folder / "gateway.toml"
    file.write_text(file.read_text().replace("domain =", "domian ="))
    done = run(folder, "fastgate", "check", "-c", "gateway.toml")
    (said,) = re.findall(r"```text\n(gateway.toml:.*)\n```", PAGE)
    assert said in done.stderr.splitlines()


def test_run(folder: Path, start_upstream: Any) -> None:
    upstream = start_upstream()
    text = (folder / "gateway.toml").read_text()
    text = text.replace("127.0.0.1:9001", upstream.address).replace("127.0.0.1:8080", "127.0.0.1:0")
    gateway = Gateway({"listeners": []}, folder)
    gateway.write(text + '[access_log]\npath = "stdout"\nflush_interval = "10ms"\n')
    with gateway, Client(gateway.address) as client:
        for status in (200, 200, 429):
            answer = client.request(request("GET", host="acme.shop.example", lines=("X_Tenant: root",)))
            assert answer.status == status
        answer = client.request(request("GET", host="initech.shop.example"))
        assert (answer.status, answer.json()["code"]) == (403, "tenant-closed")
    told = [value for one in upstream.requests for name, value in one.fields if "tenant" in name.lower()]
    assert told == ["acme", "acme"]
    assert [each["detail"] for each in gateway.log][-1] == "tenant-closed: initech"


def test_the_test(folder: Path) -> None:
    done = run(folder, "pytest", "-q", "-o", "asyncio_mode=auto", "-p", "no:cacheprovider", "test_tenants.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
