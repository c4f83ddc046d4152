"""Samples into medians, and medians' worth into ratios paired by round."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.model import Sample, Scenario
from bench.scenarios import BY_NAME, TARGETS, Target


@dataclass(frozen=True)
class Spread:
    """A median with the smallest and largest of its values."""

    median: float
    low: float
    high: float
    count: int


def spread(values: Iterable[float]) -> Spread | None:
    """The spread of values; None of no values."""
    found = sorted(values)
    if not found:
        return None
    return Spread(statistics.median(found), found[0], found[-1], len(found))


class Results:
    """All samples of a run, asked by scenario and peer. Invalid samples count in nothing but `failures`."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = list(samples)

    def scenarios(self) -> list[Scenario]:
        """Those with samples, in the suite's order."""
        seen = {sample.scenario for sample in self.samples}
        return [scenario for name, scenario in BY_NAME.items() if name in seen]

    def peers(self, scenario: str) -> list[str]:
        """Those with a sample in a scenario, valid or not, in the order of their first one."""
        return list(dict.fromkeys(sample.peer for sample in self.samples if sample.scenario == scenario))

    def by_round(self, scenario: str, peer: str, key: str) -> dict[int, float]:
        """Round -> value, of valid samples that have it."""
        return {
            sample.round: sample.values[key]
            for sample in self.samples
            if sample.scenario == scenario and sample.peer == peer and sample.valid and key in sample.values
        }

    def value(self, scenario: str, peer: str, key: str) -> Spread | None:
        """A number's spread over the rounds."""
        return spread(self.by_round(scenario, peer, key).values())

    def main(self, scenario: Scenario, peer: str) -> Spread | None:
        """The scenario's main number."""
        return self.value(scenario.name, peer, scenario.metric.key)

    def ratio(
        self, scenario: str, subject: str, peer: str, baseline: str = "", times: float = 1, plus: float = 0
    ) -> Spread | None:
        """The subject's main number in a scenario over the peer's (in `baseline`, if given), round by round;
        over `times` that and `plus`.

        Only rounds in which both are valid count, and only where the divisor is positive.
        """
        key = BY_NAME[scenario].metric.key
        over = self.by_round(baseline or scenario, peer, key)
        own = self.by_round(scenario, subject, key)
        return spread(own[turn] / (times * over[turn] + plus) for turn in own if over.get(turn, 0.0) > 0)

    def failures(self) -> list[Sample]:
        """The samples that are not valid."""
        return [sample for sample in self.samples if not sample.valid]

    def remarks(self) -> list[str]:
        """What may have bent numbers, one line each."""
        return [
            f"{sample.scenario}, {sample.peer}, round {sample.round}: {remark}"
            for sample in self.samples
            for remark in sample.remarks
        ]


@dataclass(frozen=True)
class Verdict:
    """A target beside what was measured; `reached` is None where it was not measured."""

    target: Target
    measured: Spread | None

    @property
    def reached(self) -> bool | None:
        """Whether the median is within the limit."""
        return None if self.measured is None else self.measured.median <= self.target.limit


def verdicts(results: Results, subject: str, targets: Sequence[Target] = TARGETS) -> list[Verdict]:
    """Every target of a scenario that ran."""
    ran = {scenario.name for scenario in results.scenarios()}
    found = []
    for target in targets:
        if target.scenario not in ran:
            continue
        if target.peer:
            measured = results.ratio(target.scenario, subject, target.peer)
        elif target.baseline:
            measured = results.ratio(
                target.scenario, subject, subject, target.baseline, target.times, target.plus
            )
        else:
            measured = results.main(BY_NAME[target.scenario], subject)
        found.append(Verdict(target, measured))
    return found
