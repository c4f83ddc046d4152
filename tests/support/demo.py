"""`fastgate demo` as a child process: the port it chose, what it prints, and its end."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from types import TracebackType

from support.gateway import ROOT, START_TIMEOUT, STOP_TIMEOUT


class Demo:
    """A context manager. `guide`: what it printed to try; `port`; `lines`: its access log; `stderr`."""

    def __init__(self, *arguments: str) -> None:
        self.command = [sys.executable, "-m", "fastgate", "demo", *arguments]
        self.guide: list[str] = []
        self.lines: list[str] = []
        self.stderr: list[str] = []
        self.port = 0
        self._changed = threading.Condition()
        self._guided = False

    def __enter__(self) -> Demo:
        self.process = subprocess.Popen(
            self.command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._readers = [
            threading.Thread(target=self._read_stdout, daemon=True),
            threading.Thread(target=self._read_stderr, daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        with self._changed:
            ready = self._changed.wait_for(
                lambda: self._guided or self.process.poll() is not None, START_TIMEOUT
            )
        if not ready or not self._guided:
            self.process.kill()
            raise AssertionError(f"the demo did not start: {self.stderr}")
        found = re.search(r"http://127\.0\.0\.1:(\d+) ", "\n".join(self.guide))
        assert found
        self.port = int(found[1])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.stop()

    def stop(self) -> int:
        """As Ctrl-C does. The exit code."""
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(STOP_TIMEOUT)
        for reader in self._readers:
            reader.join(STOP_TIMEOUT)
        return code

    def commands(self) -> list[str]:
        """The command lines of the guide."""
        return [line.strip() for line in self.guide if line.startswith("  ")]

    def wait_line(self, text: str) -> str:
        """The first line of the access log that holds `text`."""
        with self._changed:
            assert self._changed.wait_for(lambda: any(text in line for line in self.lines), 10), (
                f"no {text!r} in {self.lines}"
            )
        return next(line for line in self.lines if text in line)

    def _read_stdout(self) -> None:
        assert self.process.stdout
        with self.process.stdout as pipe:
            for line in pipe:
                with self._changed:
                    (self.lines if self._guided else self.guide).append(line.rstrip("\n"))
                    self._guided = self._guided or line.startswith("Ctrl-C")
                    self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def _read_stderr(self) -> None:
        assert self.process.stderr
        with self.process.stderr as pipe:
            self.stderr += (line.rstrip("\n") for line in pipe)
