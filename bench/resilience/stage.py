"""A gateway in front of its endpoints, and what a scenario on it comes to."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.model import Request, Shape, Survival
from bench.peers import PEERS
from bench.peers.base import Place
from bench.resilience.fleet import Fleet
from bench.resilience.operate import OPERATORS, Operator
from bench.resilience.tally import Answers, Tally
from bench.runner import free_port, start_peer

ENDPOINTS = 8
EVERYTHING = Survival(retry=True, outlier=True, breaker=True, checks=True, admin=True)


@dataclass(frozen=True)
class Goal:
    """Something that a gateway must reach, and what it did."""

    text: str
    measured: str
    reached: bool


@dataclass
class Row:
    """What a scenario came to with one gateway. Without problems its numbers may be used."""

    scenario: str
    peer: str
    cells: dict[str, str] = field(default_factory=dict)  # column -> text, in order
    values: dict[str, object] = field(default_factory=dict)  # for other programs
    goals: list[Goal] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def missed(self) -> list[Goal]:
        """The goals not reached; they are fastgate's, and only shown how the others would have done."""
        return [goal for goal in self.goals if self.peer == "fastgate" and not goal.reached]

    def goal(self, text: str, measured: str, reached: bool) -> None:
        """Notes a goal."""
        self.goals.append(Goal(text, measured, reached))

    def account(self, answers: Answers) -> None:
        """The columns of every scenario that counts failures."""
        failed = answers.failed()
        self.cells["requests"] = f"{answers.sent:,}"
        self.cells["failed"] = f"{failed.total():,}"
        self.cells["as the client sees it"] = ", ".join(f"{n} {kind}" for kind, n in failed.most_common(4))
        self.values |= {"requests": answers.sent, "failed": dict(failed)}


@dataclass(frozen=True)
class Stage:
    """One gateway on its core, its endpoints on the others."""

    folder: Path
    place: Place
    fleet: Fleet
    operator: Operator

    @contextlib.contextmanager
    def load(
        self, rate: int, seconds: float, *, connections: int = 256, deadline: float = 5.0, post_every: int = 0
    ) -> Iterator[Tally]:
        """The load, for at most so many seconds; it ends with the block."""
        with Tally(
            self.folder,
            self.place.port,
            rate=rate,
            seconds=seconds,
            connections=connections,
            deadline=deadline,
            post_every=post_every,
        ) as tally:
            yield tally
        self.operator.session.check()


@contextlib.contextmanager
def stage(
    peer: str,
    survival: Survival = EVERYTHING,
    *,
    endpoints: int = ENDPOINTS,
    delay_us: int = 2000,
    slots: int = 0,
) -> Iterator[Stage]:
    """Endpoints and gateway, started; both end with the block. PeerFailed where they do not start."""
    shape = Shape(endpoints=endpoints, survival=survival)
    with tempfile.TemporaryDirectory(prefix="bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        fleet = stack.enter_context(Fleet(folder, endpoints, delay_us=delay_us, slots=slots))
        place = Place(folder, free_port(), tuple(fleet.ports), shape, free_port())
        session = start_peer(PEERS[peer], place, Request(tail="/id/0").encode(0))
        stack.callback(session.stop)
        yield Stage(folder, place, fleet, OPERATORS[peer](peer, place, session))


def wait_until(moment: int) -> None:
    """Sleeps until an instant of the monotonic clock, ns."""
    time.sleep(max(0.0, (moment - time.monotonic_ns()) / 1e9))
