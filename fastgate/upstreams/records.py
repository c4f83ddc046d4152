"""What is known of a DNS name: the last good answer, and when to ask again.

Theory of operation. A `Record` is one name and type. It is fresh until `due`: the TTL's end after an answer,
a growing pause after a failure, both with jitter, so that names which were looked up together drift apart.
Whoever needs a record that is no longer fresh asks for it, and all who ask meanwhile wait for the same
look-up. Its values only ever change by a usable answer:

    outcome     values          due
    OK          the answer's    now + TTL x 1.0 to 1.1
    ABSENT      as before       now + pause (1 s, doubled each time up to 30 s) x 0.5 to 1.0
    FAILED      as before       the same

ABSENT is a name server's word that there is nothing (NXDOMAIN, no record of the type, nothing usable). It is
told to the operator, and does not empty an upstream: a zone that was deployed broken must not take a service
down with it, and which of the old addresses still serve is for health checks to say.
"""

from __future__ import annotations

import asyncio
import enum
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Generic, Literal, TypeVar

from fastgate.upstreams.clock import Clock

__all__ = ["Answer", "DnsFailure", "Outcome", "Record", "RecordType", "Service"]

RecordType = Literal["A", "AAAA"]
T = TypeVar("T")

_RETRY: Final = (1.0, 30.0)


class DnsFailure(Exception):
    """No usable answer; ``str()`` says why. absent: a name server has said that there is nothing of that name
    and type; otherwise nobody has said anything reliable."""

    def __init__(self, reason: str, *, absent: bool = False) -> None:
        super().__init__(reason)
        self.absent = absent


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """values: at least one, sorted, without duplicates. ttl: seconds, within the settings' bounds. note: what
    was left out of the answer and why, "" for nothing."""

    values: tuple[T, ...]
    ttl: float
    note: str = ""


@dataclass(frozen=True, slots=True, order=True)
class Service:
    """An SRV record (RFC 2782). target: an absolute name."""

    priority: int
    target: str
    port: int
    weight: int


class Outcome(enum.Enum):
    NONE = "not asked yet"
    OK = "a usable answer"
    ABSENT = "a name server says that there is none"
    FAILED = "no name server says anything reliable"


class Record(Generic[T]):
    """See the theory of operation. values: of the last good answer. problem: why the last look-up gave none.
    note: what is odd about the answer, though it is used."""

    def __init__(self, ask: Callable[[], Awaitable[Answer[T]]], clock: Clock, rng: random.Random) -> None:
        self.values: tuple[T, ...] = ()
        self.outcome = Outcome.NONE
        self.problem = ""
        self.note = ""
        self.due = clock.now()
        self._ask = ask
        self._clock = clock
        self._rng = rng
        self._pause = _RETRY[0]
        self._asking: asyncio.Task[None] | None = None

    def begin(self) -> asyncio.Task[None] | None:
        """Starts a look-up where one is due; the one under way, None for none."""
        if self._asking is None and self._clock.now() >= self.due:
            self._asking = asyncio.get_running_loop().create_task(self._look_up())
        return self._asking

    async def fresh(self) -> None:
        """Waits for the look-up under way. Its caller's end does not take the look-up from others."""
        asking = self.begin()
        if asking is not None:
            await asyncio.shield(asking)

    async def _look_up(self) -> None:
        try:
            answer = await self._ask()
        except DnsFailure as failure:
            self.outcome = Outcome.ABSENT if failure.absent else Outcome.FAILED
            self.problem = str(failure)
            self.due = self._clock.now() + self._pause * self._rng.uniform(0.5, 1.0)
            self._pause = min(2 * self._pause, _RETRY[1])
        else:
            self.outcome, self.values, self.note, self.problem = Outcome.OK, answer.values, answer.note, ""
            self.due = self._clock.now() + answer.ttl * self._rng.uniform(1.0, 1.1)
            self._pause = _RETRY[0]
        finally:
            self._asking = None
