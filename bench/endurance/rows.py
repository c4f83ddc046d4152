"""One kind of change after the other under a steady load, a row of counts for each."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from bench.endurance.clients import Clients, Fared
from bench.endurance.gateway import Gateway
from bench.endurance.whose import Doomed
from bench.load import Load, LoadFailed, Paced

CONNECTIONS: Final = 64
SLICE: Final = 2.0  # seconds of load that are counted together
MISTAKES: Final = 10  # of a row
MOST_GROWTH: Final = 4 * 1024 * 1024  # bytes, in the second half of the reloads


@dataclass
class Row:
    """One kind of change: how often, and what the clients saw meanwhile. cut: with the worker that had their
    connection."""

    what: str
    done: int = 0
    mistakes: int = 0  # that were offered, and refused
    seconds: float = 0
    sent: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    cut: int = 0
    unanswered: int = 0  # the connection ended or nothing came, and no kill explains it
    unsent: int = 0  # due, when the client was not given the time: the machine is too slow for this rate
    longest: float = 0  # us from sent to answered
    fared: Fared = field(default_factory=Fared)
    memory: list[int] = field(default_factory=list)  # as it went on

    def add(self, found: Paced, doomed: Doomed) -> None:
        cut = sum(doomed.has(port, at) for port, at in found.losses)
        self.sent += found.due - found.given_up
        self.unsent += found.given_up
        self.statuses += Counter(found.statuses)
        self.cut += cut
        self.unanswered += found.errors - cut
        self.longest = max(self.longest, found.service["max"])

    @property
    def failed(self) -> int:
        """Requests in the clear that failed, and no kill explains it."""
        return self.unanswered + self.statuses.total() - self.statuses[200]

    def broken(self) -> list[str]:
        """The promises that were not kept."""
        others = {status: count for status, count in self.statuses.items() if status != 200}
        found = {
            f"answers {others}": bool(others),
            f"{self.unanswered} requests had no answer": bool(self.unanswered),
            f"requests over TLS failed: {dict(self.fared.tls_failed)}": bool(self.fared.tls_failed),
            f"long connections lost: {dict(self.fared.lost)}": bool(self.fared.lost),
            "no request was answered": not self.statuses[200] or not self.fared.tls_answers,
            "nothing came on long connections": not self.fared.words,
        }
        if self.what == "kills":
            found["no long connection was on a worker that was killed"] = not self.fared.cut
        elif self.what == "reloads":
            grown = self.memory[-1] - self.memory[len(self.memory) // 2]
            found[f"memory has grown by {grown / 1e6:.1f} MB in the second half"] = grown > MOST_GROWTH
        return [f"{self.what}: {text}" for text, it_is in found.items() if it_is]


COLUMNS: Final[dict[str, Callable[[Row], str]]] = {
    "change": lambda row: row.what,
    "times": lambda row: f"{row.done:,}",
    "seconds": lambda row: f"{row.seconds:.1f}",
    "mistakes refused": lambda row: str(row.mistakes),
    "requests": lambda row: f"{row.sent:,}",
    "failed": lambda row: str(row.failed),
    "cut": lambda row: f"{row.cut:,}",
    "TLS requests": lambda row: f"{row.fared.tls_answers:,}",
    "TLS failed": lambda row: str(row.fared.tls_failed.total()),
    "TLS cut": lambda row: str(row.fared.tls_cut),
    "long: words": lambda row: f"{row.fared.words:,}",
    "long: lost": lambda row: str(row.fared.lost.total()),
    "long: cut": lambda row: str(row.fared.cut.total()),
    "longest ms": lambda row: f"{row.longest / 1000:.0f}",
    "never sent": lambda row: f"{row.unsent:,}",
    "memory MB": lambda row: f"{row.memory[0] / 1e6:.0f} to {row.memory[-1] / 1e6:.0f}",
}


def table(rows: list[Row]) -> str:
    """In Markdown."""
    lines = [list(COLUMNS), ["---"] * len(COLUMNS)]
    lines += [[show(row) for show in COLUMNS.values()] for row in rows]
    widths = [max(len(line[at]) for line in lines) for at in range(len(COLUMNS))]
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |"
        for line in lines
    )


class Traffic:
    """The steady load, in slices that a row takes when its changes are over."""

    def __init__(self, load: Load, rate: float) -> None:
        self._load = load
        self._rate = rate
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._found: list[Paced] = []
        self._failed: LoadFailed | None = None

    def start(self) -> None:
        self._stop.clear()
        self._found = []
        self._thread = threading.Thread(target=self._run, name="steady load")
        self._thread.start()

    def stop(self) -> list[Paced]:
        """Raises LoadFailed."""
        assert self._thread is not None
        self._stop.set()
        self._thread.join()
        if self._failed is not None:
            raise self._failed
        return self._found

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._found.append(self._load.paced(self._rate, CONNECTIONS, SLICE))
        except LoadFailed as failed:
            self._failed = failed


class Bench:
    """What all rows are of."""

    def __init__(self, gateway: Gateway, traffic: Traffic, clients: Clients) -> None:
        self._gateway = gateway
        self._traffic = traffic
        self._clients = clients

    def row(
        self,
        what: str,
        count: int,
        act: Callable[[], None],
        mistake: Callable[[], contextlib.AbstractContextManager[None]],
        *,
        under_mistake: bool = False,
    ) -> Row:
        """act: one change. mistake: what is refused, offered before some of them. under_mistake: it is still
        in the files while that change is made."""
        row = Row(what)
        begin = time.monotonic()
        self._clients.take()
        self._traffic.start()
        try:
            row.memory.append(self._gateway.memory())
            for number in range(count):
                with contextlib.ExitStack() as stack:
                    if number % -(-count // MISTAKES) == 0:
                        stack.enter_context(mistake())
                        row.mistakes += 1
                    if not under_mistake:
                        stack.close()
                    act()
                row.done += 1
                if row.done % -(-count // 10) == 0 or row.done == count:
                    row.memory.append(self._gateway.memory())
                    self._progress(row, count, time.monotonic() - begin)
        finally:
            row.seconds = time.monotonic() - begin
            for found in self._traffic.stop():
                row.add(found, self._gateway.doomed)
            row.fared = self._clients.take()
        return row

    def _progress(self, row: Row, count: int, seconds: float) -> None:
        fared = self._clients.fared
        print(
            f"{row.what} {row.done} of {count} in {seconds:.0f} s; {self._clients.open} long connections, "
            f"{fared.lost.total()} lost, {fared.cut.total()} cut; memory {row.memory[-1] / 1e6:.0f} MB",
            file=sys.stderr,
            flush=True,
        )
