"""A real Prometheus on a free loopback port, with a configuration of the test's."""

from __future__ import annotations

import json
import math
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from support.program import Program
from support.upstream import free_port


class Prometheus(Program):
    def __init__(self, folder: Path, config: str) -> None:
        super().__init__(folder)
        self.url = f"http://127.0.0.1:{free_port()}"
        (folder / "prometheus.yml").write_text(config)

    def start(self) -> None:
        self.run(
            "prometheus",
            f"--config.file={self.folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.folder / 'tsdb'}",
            f"--web.listen-address={self.url.removeprefix('http://')}",
            "--enable-feature=exemplar-storage",
            package="prometheus",
        )
        self.await_answer(self._ready, 30)

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
