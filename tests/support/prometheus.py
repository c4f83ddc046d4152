"""A real Prometheus on a free loopback port, with a configuration of the test's."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

from support.upstream import free_port


def program(name: str) -> str:
    found = shutil.which(name)
    assert found, f"{name} is not installed (Debian: prometheus)"
    return found


class Prometheus:
    def __init__(self, folder: Path, config: str) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self._folder = folder
        (folder / "prometheus.yml").write_text(config)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Prometheus:
        self._log = open(self._folder / "prometheus.log", "wb")  # closed below
        self._process = subprocess.Popen(
            [
                program("prometheus"),
                f"--config.file={self._folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={self._folder / 'tsdb'}",
                f"--web.listen-address={self.url.removeprefix('http://')}",
                "--enable-feature=exemplar-storage",
            ],
            stdout=self._log,
            stderr=self._log,
        )
        deadline = time.monotonic() + 30
        while not self._ready():
            assert time.monotonic() < deadline, self.log()
            assert self._process.poll() is None, self.log()
            time.sleep(0.05)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._log.close()

    def log(self) -> str:
        return (self._folder / "prometheus.log").read_text()

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def ask(self, path: str, **parameters: str) -> Any:
        """What its HTTP API has as `data`; what it refuses fails."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.loads(answer.read())["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """The labels and values of an instant vector; NaN is no value."""
        found = self.ask("query", query=expression)["result"]
        values = [(each["metric"], float(each["value"][1])) for each in found]
        return [(labels, value) for labels, value in values if not math.isnan(value)]

    def wait(self, expression: str, timeout: float = 30.0) -> list[tuple[dict[str, str], float]]:
        """Until it has a value."""
        deadline = time.monotonic() + timeout
        while not (found := self.query(expression)):
            assert time.monotonic() < deadline, f"nothing in {timeout} s: {expression}"
            time.sleep(0.1)
        return found
