"""A short form of `python -m bench.aggregate_memory`: aggregations hold what `max_memory` allows, no more."""

from __future__ import annotations

import os

import pytest

from bench.aggregate_memory import CASES, FAN_OUT, KIB, MIB, SLACK, Case, Row, document, measure, parts
from bench.peers.base import find

pytestmark = pytest.mark.skipif(
    find("taskset") is None or len(os.sched_getaffinity(0)) < 2, reason="needs taskset and two cores"
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.name))
def test_memory_is_bounded(case: Case) -> None:
    row = measure(case, 2)
    assert row.problems == ()
    assert row.most - row.before <= row.allowed, row.cells()


def test_the_cases_are_those_that_the_documentation_states() -> None:
    assert CASES[0].parts == parts(20, 256 * KIB)
    assert CASES[1].parts == parts(1, 5 * MIB, max_body=6 * MIB)
    assert CASES[3].parts == FAN_OUT
    assert len(document(2048)) == 2048


def test_what_grows_beyond_is_seen() -> None:
    case = Case("a case", "", (200, 0), max_memory=MIB)
    within = Row(case, 2, 10 * MIB, 12 * MIB + SLACK, 10 * MIB, ())
    assert within.kept
    assert within.cells()[-1] == "within"
    beyond = Row(case, 2, 10 * MIB, 12 * MIB + SLACK + 1, 10 * MIB, ())
    assert not beyond.kept
    assert beyond.cells()[-1] == "BEYOND"
