"""The load whose every request is accounted for (native/tally.c), and what its records say."""

from __future__ import annotations

import enum
import json
import math
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from bench.load import GRACE, LoadFailed
from bench.peers.base import NATIVE
from bench.process import Session, load_cores

RECORD = struct.Struct("<qqHBBHBx")
NO_ENDPOINT = 0xFFFF


class Fate(enum.IntEnum):
    """How a request ended; the order is that of tally.c."""

    UNDECIDED = 0
    OK = 1  # 2xx, whole, and the answer to this request
    STATUS = 2  # a whole answer of another status
    CONNECT = 3  # no connection
    UNANSWERED = 4  # closed or reset before the first byte
    TRUNCATED = 5  # closed or reset within the answer
    TIMEOUT = 6  # not answered by its deadline
    UNSENT = 7  # no free connection until its deadline
    WRONG = 8  # not the answer to this request, or not framed


class Record(NamedTuple):
    """One request. Times are of the monotonic clock, ns."""

    due: int
    done: int
    status: int
    fate: int
    reason: int
    endpoint: int
    post: int

    @property
    def latency(self) -> int:
        """From when it was due, ns."""
        return self.done - self.due


@dataclass(frozen=True)
class Window:
    """The requests that were due in a stretch of time."""

    start: int
    count: int
    p99: float  # ms, failures as long as they took
    endpoints: Counter[int]


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that `share` of all do not exceed; nan of none."""
    found = sorted(values)
    return found[min(len(found) - 1, math.ceil(share * len(found)) - 1)] if found else math.nan


def milliseconds(records: Iterable[Record], share: float) -> float:
    """A percentile of latencies, ms."""
    return percentile((record.latency / 1e6 for record in records), share)


@dataclass(frozen=True)
class Answers:
    """All requests of a run, in the order in which they were due."""

    records: list[Record]
    reasons: list[str]

    def between(self, start: int, stop: int) -> Answers:
        """Those due in a stretch of time."""
        return Answers([r for r in self.records if start <= r.due < stop], self.reasons)

    @property
    def sent(self) -> int:
        """How many there were."""
        return len(self.records)

    @property
    def failures(self) -> list[Record]:
        """Those that got no 2xx answer, or not the whole and right one."""
        return [record for record in self.records if record.fate != Fate.OK]

    def failed(self) -> Counter[str]:
        """Failures by what the client saw."""
        return Counter(self.kind(record) for record in self.failures)

    def kind(self, record: Record) -> str:
        """What the client saw, in words: "503 no-endpoint", "timeout"."""
        if record.fate != Fate.STATUS:
            return Fate(record.fate).name.lower()
        return f"{record.status} {self.reasons[record.reason]}".strip()

    def windows(self, start: int, stop: int, width: float) -> list[Window]:
        """The stretch in windows of `width` seconds, by when requests were due; a last piece is left out."""
        step = int(width * 1e9)
        parts: list[list[Record]] = [[] for _ in range((stop - start) // step)]
        for record in self.records:
            at = (record.due - start) // step
            if 0 <= at < len(parts):
                parts[at].append(record)
        return [
            Window(
                start + at * step,
                len(part),
                milliseconds(part, 0.99),
                Counter(r.endpoint for r in part if r.endpoint != NO_ENDPOINT),
            )
            for at, part in enumerate(parts)
        ]


class Tally:
    """The load as a process. A context manager that ends it; `finish()` ends it in order and reads on.

    The rate is in requests per second, the deadline in seconds; every `post_every`-th request is a POST.
    """

    def __init__(
        self,
        folder: Path,
        port: int,
        *,
        rate: int,
        seconds: float,
        connections: int = 256,
        deadline: float = 5.0,
        post_every: int = 0,
    ) -> None:
        self.records = folder / "records"
        self.seconds = seconds
        arguments = (port, rate, connections, seconds, deadline * 1000, post_every, self.records)
        self.session = Session(
            [str(NATIVE / "tally"), *map(str, arguments)], load_cores(), folder / "tally.out"
        )

    def __enter__(self) -> Tally:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.session.stop()

    def finish(self, early: bool = True) -> Answers:
        """Sends no more (or, not `early`, waits for its end), waits for what is under way, and reads all."""
        process = self.session.process
        if early:
            process.terminate()
        deadline = time.monotonic() + (0 if early else self.seconds) + GRACE
        while process.poll() is None:
            if time.monotonic() > deadline:
                raise LoadFailed("tally did not end")
            time.sleep(0.02)
        return read(self.session.log, self.records)


def read(log: Path, records: Path) -> Answers:
    """What tally printed and recorded. LoadFailed where the two do not agree."""
    text = log.read_text()
    try:
        told = json.loads(text)
    except json.JSONDecodeError:
        raise LoadFailed(f"tally printed no result: {text.strip()[-400:] or '(nothing)'}") from None
    found = [Record._make(fields) for fields in RECORD.iter_unpack(records.read_bytes())]
    if len(found) != told["requests"]:
        raise LoadFailed(f"tally recorded {len(found)} of {told['requests']} requests")
    return Answers(found, told["reasons"])


def first_lasting(windows: list[Window], good: Callable[[Window], bool], least: int) -> Window | None:
    """The first window from which on `least` in a row are good."""
    for at in range(len(windows) - least + 1):
        if all(good(window) for window in windows[at : at + least]):
            return windows[at]
    return None
