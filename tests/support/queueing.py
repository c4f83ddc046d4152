"""A service and the gateway's admission to it, simulated with a clock of their own: nothing here waits."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from fastgate._core import Admission

SECOND = 1_000_000_000


class Served(NamedTuple):
    at: int
    """When the answer came, nanoseconds."""
    latency: int
    """From the arrival at the gateway, its queue included."""


class Simulation:
    """Requests arrive at random (Poisson); a service works on `slots` at a time, oldest first.

    service_ns: what a request takes in it, alone; with `spread` the mean of an exponential distribution.
    load: arrivals as a multiple of what the service can do. Both, and `slots`, may be changed between runs.
    """

    def __init__(
        self, admission: Admission, *, slots: int, service_ns: int, load: float, spread: bool, seed: int = 1
    ) -> None:
        self.admission, self.slots, self.service_ns, self.load, self.spread = (
            admission,
            slots,
            service_ns,
            load,
            spread,
        )
        self.now = SECOND
        self.served: list[Served] = []
        self.refused = 0
        self.most_active = 0
        self._random = random.Random(seed)
        self._order = itertools.count()
        self._events: list[tuple[int, int, Callable[..., None], tuple[int, ...]]] = []
        self._arrivals: dict[int, int] = {}
        self._busy = 0
        self._queue: deque[tuple[int, int]] = deque()
        self._arrive_later()

    @property
    def peak(self) -> float:
        """Requests a second that the service can do."""
        return self.slots * SECOND / self.service_ns

    def run(self, seconds: float) -> list[Served]:
        """Lets time pass; returns what was served in it."""
        end, before = self.now + int(seconds * SECOND), len(self.served)
        while self._events[0][0] <= end:
            self.now, _, act, arguments = heapq.heappop(self._events)
            act(*arguments)
        self.now = end
        return self.served[before:]

    def _after(self, delay: int, act: Callable[..., None], *arguments: int) -> None:
        heapq.heappush(self._events, (self.now + delay, next(self._order), act, arguments))

    def _arrive_later(self) -> None:
        self._after(int(self._random.expovariate(self.load * self.peak) * SECOND), self._arrive)

    def _arrive(self) -> None:
        self._arrive_later()
        who = next(self._order)
        self._arrivals[who] = self.now
        if self.admission.enter(1, self.now):
            self._send(who)
            return
        patience = self.admission.wait_ns(1, self.now)
        gone = self.admission.offer(who, 1, self.now)
        if gone is not None:
            self._refuse(gone)
        if gone is not who:
            self._after(patience, self._give_up, who)

    def _give_up(self, who: int) -> None:
        if self.admission.withdraw(who):
            self._refuse(who)

    def _refuse(self, who: int) -> None:
        self.refused += 1
        del self._arrivals[who]

    def _send(self, who: int) -> None:
        self.most_active = max(self.most_active, self.admission.active)
        if self._busy < self.slots:
            self._work(who, self.now)
        else:
            self._queue.append((who, self.now))

    def _work(self, who: int, sent: int) -> None:
        self._busy += 1
        time = int(self._random.expovariate(1 / self.service_ns)) if self.spread else self.service_ns
        self._after(time, self._answer, who, sent)

    def _answer(self, who: int, sent: int) -> None:
        self._busy -= 1
        self.served.append(Served(self.now, self.now - self._arrivals.pop(who)))
        if self._queue and self._busy < self.slots:
            self._work(*self._queue.popleft())
        chosen = self.admission.leave(self.now - sent, True, self.now)
        while chosen is not None:
            self._send(chosen)
            chosen = self.admission.next(self.now)


def percentile(served: list[Served], percent: float) -> int:
    """Of the latencies, in nanoseconds."""
    latencies = sorted(each.latency for each in served)
    return latencies[min(len(latencies) - 1, int(len(latencies) * percent / 100))]
