"""Which samples are taken in which order, and how long they will take."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from bench.model import Kind, Scenario
from bench.peers.base import Peer

SETTLE = 1.0  # seconds before memory is read


@dataclass(frozen=True)
class Settings:
    """How long and how often. Seconds are of the measured part of a sample."""

    rounds: int = 5
    seconds: int = 4
    warm: int = 1

    def calibration(self) -> int:
        """Seconds of the closed loop that finds a peer's peak before a constant rate."""
        return max(1, self.seconds // 2)

    def cost(self, scenario: Scenario) -> float:
        """Seconds that a sample will take, about: the estimate before one of its scenario has been timed."""
        start = 1.0 + scenario.shape.routes / 5000
        if scenario.kind is Kind.IDLE:
            return start + 2 * SETTLE + 4 + self.warm
        extra = self.calibration() + 1 if scenario.kind in (Kind.HALF, Kind.OVERLOAD) else 0
        return start + self.warm + self.seconds + extra


@dataclass(frozen=True)
class Step:
    """One sample to take."""

    round: int
    scenario: Scenario
    peer: Peer


def plan(scenarios: Sequence[Scenario], peers: Sequence[Peer], rounds: int, seed: int = 1) -> list[Step]:
    """All steps, a scenario's rounds together, in each round the peers in another order.

    Scenarios of one group are taken side by side for each peer: their numbers are compared with each other.
    """
    steps: list[Step] = []
    chance = random.Random(seed)
    for _, members in groupby(scenarios, key=lambda scenario: scenario.group or scenario.name):
        group = list(members)
        for turn in range(1, rounds + 1):
            for peer in chance.sample(list(peers), len(peers)):
                able = [scenario for scenario in group if not peer.lacks(scenario.shape)]
                steps += [Step(turn, scenario, peer) for scenario in chance.sample(able, len(able))]
    return steps


class Progress:
    """The time left, from what steps of the same scenario have taken so far."""

    def __init__(self, steps: Sequence[Step], settings: Settings) -> None:
        self.left = list(steps)
        self.settings = settings
        self.taken: dict[str, list[float]] = {}

    def done(self, step: Step, seconds: float) -> None:
        """Notes that a step is done."""
        self.left.remove(step)
        self.taken.setdefault(step.scenario.name, []).append(seconds)

    def seconds_left(self) -> float:
        """The estimate."""
        total = 0.0
        for step in self.left:
            seen = self.taken.get(step.scenario.name)
            total += sum(seen) / len(seen) if seen else self.settings.cost(step.scenario)
        return total
