"""A peer's processes: started on their core, watched, measured (CPU, memory) and ended, by pid."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
START_PATIENCE = 20.0  # seconds
STOP_PATIENCE = 10.0


class PeerFailed(Exception):
    """A peer did not start or ended by itself; the text says which and quotes its last output."""


@dataclass(frozen=True)
class Cpu:
    """CPU time of a session of processes since their start.

    The kernel counts a task's run time exactly (schedstat, ns); how much of it was user time it only samples
    at ticks (stat), so the exact total is split by the sampled shares.
    """

    exact_ns: int
    user_ticks: int
    system_ticks: int
    tasks: frozenset[int]

    def since(self, before: Cpu) -> tuple[float, float]:
        """(user, system) seconds from `before` to this one."""
        user, system = self.user_ticks - before.user_ticks, self.system_ticks - before.system_ticks
        total = (self.exact_ns - before.exact_ns) / 1e9
        if not before.tasks <= self.tasks:
            # A thread ended and took its exact count along; the ticks of its process still hold it.
            total = (user + system) / TICK
        share = user / (user + system) if user + system else 0.0
        return total * share, total * (1 - share)


def parse_stat(text: str) -> tuple[int, int, int]:
    """(session, utime, stime) of /proc/PID/stat, in clock ticks. The name may hold blanks and parentheses."""
    fields = text[text.rindex(")") + 2 :].split()
    return int(fields[3]), int(fields[11]), int(fields[12])


def session_pids(session: int) -> list[int]:
    """The processes of a session."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            # Processes may end between the listing and the reading.
            with contextlib.suppress(OSError):
                if parse_stat(Path(f"/proc/{entry}/stat").read_text())[0] == session:
                    found.append(int(entry))
    return found


def session_cpu(session: int) -> Cpu:
    """CPU time of all processes of a session."""
    exact = user = system = 0
    tasks = set()
    for pid in session_pids(session):
        with contextlib.suppress(OSError):
            _, own_user, own_system = parse_stat(Path(f"/proc/{pid}/stat").read_text())
            user += own_user
            system += own_system
            for task in os.listdir(f"/proc/{pid}/task"):
                exact += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
                tasks.add(int(task))
    return Cpu(exact, user, system, frozenset(tasks))


def session_pss(session: int) -> int:
    """Proportional set size of all processes of a session, bytes."""
    total = 0
    for pid in session_pids(session):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def core_busy_ticks(cores: Sequence[int]) -> int:
    """Ticks that the cores have been busy, stolen time included."""
    names = {f"cpu{core}" for core in cores}
    total = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name in names:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, ticks[:8])
            total += user + nice + system + irq + softirq + steal
    return total


def load_cores() -> list[int]:
    """The cores of upstream and load: all that the peer does not have."""
    return sorted(os.sched_getaffinity(0))[1:]


def peer_core() -> int:
    """The one core of the peer."""
    return min(os.sched_getaffinity(0))


class Session:
    """A command running on given cores as a session of its own, its output in a file."""

    def __init__(
        self, command: Sequence[str], cores: Sequence[int], log: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.command = list(command)
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                ["taskset", "-c", ",".join(map(str, cores)), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **(env or {})},
            )

    @property
    def pid(self) -> int:
        """The process started, which leads the session."""
        return self.process.pid

    def check(self) -> None:
        """Raise PeerFailed if the process has ended."""
        if self.process.poll() is not None:
            raise PeerFailed(f"{self.command[0]} ended with {self.process.returncode}: {self.tail()}")

    def tail(self) -> str:
        """The end of the output."""
        text = self.log.read_bytes()[-800:].decode(errors="replace").strip()
        return text or "(no output)"

    def cpu(self) -> Cpu:
        """CPU time so far of the process and all that it started."""
        return session_cpu(self.pid)

    def pss(self) -> int:
        """Memory of the process and all that it started, bytes."""
        return session_pss(self.pid)

    def kill(self) -> None:
        """SIGKILL to the process alone, and its end."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """SIGTERM to the process; SIGKILL to what is left of its session after STOP_PATIENCE."""
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_PATIENCE)
        deadline = time.monotonic() + 1.0
        while left := session_pids(self.pid):
            if self.process.poll() is None or time.monotonic() > deadline:
                for pid in left:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            # A killed leader is a zombie of ours until it is waited for.
            self.process.poll()
            time.sleep(0.01)
        self.process.wait()
