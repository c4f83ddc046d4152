"""A real program that tests run as a server on loopback ports: started, awaited, killed, started again."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self


def installed(name: str, package: str) -> str:
    """Its path. package: of Debian."""
    found = shutil.which(name)
    assert found, f"{name} is not installed (Debian: {package})"
    return found


class Program:
    """A context manager: runs within it. A subclass has `start`, which calls `run` for each process, and then
    `await_answer`. What they print lies in a file in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._log = folder / f"{type(self).__name__.lower()}.log"
        self.processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        raise NotImplementedError

    def run(self, name: str, *arguments: str, package: str, env: Mapping[str, str] | None = None) -> None:
        with open(self._log, "ab") as log:
            process = subprocess.Popen(
                [installed(name, package), *arguments],
                env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self.processes.append(process)

    def await_answer(self, answers: Callable[[], bool], patience: float = 15.0) -> None:
        """Until it answers, and no longer than `patience` seconds."""
        deadline = time.monotonic() + patience
        while not answers():
            for process in self.processes:
                assert process.poll() is None, f"{process.args!r} ended: {self.log()}"
            assert time.monotonic() < deadline, f"no answer in {patience} s: {self.log()}"
            time.sleep(0.02)

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        self.processes.clear()

    def log(self) -> str:
        return self._log.read_text()
