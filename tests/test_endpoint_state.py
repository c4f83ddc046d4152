"""What all workers know of an endpoint: probes, the operator's word, weights; and leases, for who probes."""

from __future__ import annotations

import mmap
import os
import signal
import struct
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.forks import in_child, in_children
from support.health import SECOND, START, Watched

from fastgate._core import OPERATOR_STATES, BreakerRule, Lease, OutlierRule, leases

# -- probes


def probe(group: Watched, results: str, rise: int = 2, fall: int = 3) -> None:
    """Reports "+" (passed) and "-" (failed) for endpoint 0."""
    for result in results:
        group.health.probe(group.seats[0], result == "+", rise, fall, group.now)


@pytest.mark.parametrize(
    ("results", "states"),
    [
        ("+", "U"),
        ("--+", "??U"),
        ("---", "??D"),
        ("+--+---", "UUUUUUD"),
        ("---+-++", "??DDDDU"),
        ("---++---", "??DDUUUD"),
    ],
)
def test_rise_and_fall(results: str, states: str) -> None:
    group = Watched(1)
    names = {"unknown": "?", "up": "U", "down": "D"}
    seen = ""
    for result in results:
        probe(group, result)
        seen += names[group.known(0)["probe"]]
    assert seen == states


def test_in_use_until_it_is_known_to_be_down() -> None:
    group = Watched(1)
    assert (group.status(0), group.known(0)["probe"]) == ("ready", "unknown")
    probe(group, "--")
    assert group.status(0) == "ready"
    probe(group, "-")
    assert group.status(0) == "down"
    group.now += 100 * SECOND
    probe(group, "+")
    assert group.status(0) == "down"
    probe(group, "+")
    assert group.status(0) == "ready"
    assert group.known(0)["returned_for_s"] == 0  # its slow start begins


@given(st.lists(st.booleans(), max_size=40), st.integers(1, 4), st.integers(1, 4))
@settings(max_examples=200, deadline=None)
def test_changes_are_told_and_only_they(results: list[bool], rise: int, fall: int) -> None:
    group = Watched(1)
    for passed in results:
        before, generation = group.known(0)["probe"], group.health.generation
        changed = group.health.probe(group.seats[0], passed, rise, fall, group.now)
        assert changed == (group.known(0)["probe"] != before) == (group.health.generation != generation)


def test_bad_thresholds() -> None:
    group = Watched(1)
    for rise, fall in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="rise and fall"):
            group.health.probe(group.seats[0], True, rise, fall, group.now)


# -- who has the last word


@pytest.mark.parametrize(
    ("operator", "down", "ejected", "broken"), list(product(OPERATOR_STATES, *[[False, True]] * 3))
)
def test_the_operator_first_then_probes_then_outliers_and_breakers(
    operator: str, down: bool, ejected: bool, broken: bool
) -> None:
    group = Watched(2, outlier=OutlierRule(), breaker=BreakerRule(error_percent=10), per="endpoint")
    if broken:
        group.report(0, "ok", 18)
        group.report(0, "5xx", 2)
    if ejected:
        group.report(0, "5xx", 5)
    if down:
        probe(group, "---")
    group.health.set_operator(group.seats[0], operator, group.now)
    known = group.known(0)
    assert (known["operator"], known["probe"] == "down") == (operator, down)
    assert (known["ejected_for_s"] > 0, known["breaker"] == "open") == (ejected, broken)
    if operator == "auto":
        assert known["status"] == ("down" if down else "ejected" if ejected or broken else "ready")
    else:
        assert known["status"] == operator


def test_time_brings_it_back_when_all_that_kept_it_out_is_over() -> None:
    group = Watched(2, outlier=OutlierRule(), breaker=BreakerRule(error_percent=50), per="endpoint")
    group.report(0, "5xx", 20)
    group.now += 5 * SECOND  # the breaker's
    assert group.status(0) == "ejected"
    group.now += 25 * SECOND  # the ejection's
    assert group.status(0) == "ready"


def test_an_operator_who_gives_it_back_begins_its_slow_start() -> None:
    group = Watched(1)
    generation = group.health.generation
    for away in ("draining", "down"):
        group.health.set_operator(group.seats[0], away, group.now)
        assert group.status(0) == away
        group.now += 60 * SECOND
        group.health.set_operator(group.seats[0], "auto", group.now)
        assert (group.status(0), group.known(0)["returned_for_s"]) == ("ready", 0)
    assert group.health.generation == generation + 4
    group.now += SECOND
    group.health.set_operator(group.seats[0], "ready", group.now)
    assert group.known(0)["returned_for_s"] == 1  # it was in use: nothing begins


def test_one_that_joins_begins_its_slow_start() -> None:
    group = Watched(1)
    assert group.known(0)["returned_for_s"] is None
    generation = group.health.generation
    group.health.joined(group.seats[0], group.now)
    assert group.known(0)["returned_for_s"] == 0
    assert group.health.generation == generation + 1


def test_weights() -> None:
    group = Watched(1)
    assert group.known(0)["weight"] == 1
    generation = group.health.generation
    group.health.set_weight(group.seats[0], 7)
    assert group.known(0)["weight"] == 7
    group.health.set_weight(group.seats[0], None)
    assert group.known(0)["weight"] == 1
    assert group.health.generation == generation + 2
    for weight in (0, -1, 1_000_001):
        with pytest.raises(ValueError, match="a weight"):
            group.health.set_weight(group.seats[0], weight)


def test_words_that_nobody_knows() -> None:
    group = Watched(1)
    with pytest.raises(ValueError, match="'off' is none of auto, ready, draining, down"):
        group.health.set_operator(group.seats[0], "off", group.now)
    with pytest.raises(ValueError, match="'fine' is none of ok, 5xx, gateway"):
        group.report(0, "fine")
    with pytest.raises(TypeError, match="seats"):
        group.health.report(group.seats[0], (object(),), "ok", group.now)  # type: ignore[arg-type]


# -- processes


def test_all_processes_see_what_one_says_and_a_reload_keeps_it() -> None:
    group = Watched(3)

    def say() -> None:
        group.health.set_operator(group.seats[0], "draining", group.now)
        group.health.set_weight(group.seats[1], 5)
        probe(group, "---")
        group.health.probe(group.seats[2], False, 1, 1, group.now)

    generation = group.health.generation
    assert in_child(say) == 0
    assert group.health.generation > generation
    for _ in range(2):
        assert group.statuses() == ["draining", "ready", "down"]
        assert group.known(1)["weight"] == 5
        group.reload(outlier=OutlierRule())


def test_no_change_is_lost_among_processes() -> None:
    group = Watched(4)
    generation = group.health.generation

    def say(worker: int) -> None:
        for weight in range(1, 100_001):
            group.health.set_weight(group.seats[worker], weight)

    assert in_children(4, say) == [0] * 4
    assert group.health.generation == generation + 4 * 100_000
    assert [group.known(i)["weight"] for i in range(4)] == [100_000] * 4


# -- leases


def test_a_lease_is_renewed_by_its_holder_alone() -> None:
    lease = Lease("checks", table=leases())
    assert lease.holder(START) is None
    assert lease.hold(7, START, SECOND)
    assert not lease.hold(8, START, SECOND)
    assert lease.hold(7, START + SECOND // 2, SECOND)
    assert not lease.hold(8, START + SECOND, SECOND)
    assert lease.holder(START + SECOND) == 7


def test_a_lease_that_is_over_goes_to_the_first_who_asks() -> None:
    lease = Lease("checks", table=leases())
    assert lease.hold(7, START, SECOND)
    later = START + SECOND + SECOND // 500  # it is rounded up to a millisecond
    assert lease.holder(later) is None
    assert lease.hold(8, later, SECOND)
    assert not lease.hold(7, later, SECOND)
    lease.release(7)
    assert lease.holder(later) == 8
    lease.release(8)
    assert lease.hold(7, later, SECOND)


def test_leases_of_different_names_are_different() -> None:
    table = leases()
    assert Lease("a", table=table).hold(1, START, SECOND)
    assert Lease("b", table=table).hold(2, START, SECOND)
    assert not Lease("a", table=table).hold(2, START, SECOND)


@pytest.mark.parametrize("ttl", [1, 10**9, 10**18])
@pytest.mark.parametrize("holder", [1, 4_194_303])
def test_a_lease_keeps_the_numbers_it_is_given(ttl: int, holder: int) -> None:
    lease = Lease("checks", table=leases())
    assert lease.hold(holder, START, ttl)
    assert lease.holder(START + ttl - 1) == holder
    assert lease.holder(START + ttl + (1 << 20)) is None


@pytest.mark.parametrize(("holder", "ttl"), [(0, 1), (4_194_304, 1), (1, 0), (1, 10**18 + 1)])
def test_bad_leases(holder: int, ttl: int) -> None:
    with pytest.raises(ValueError, match="an id is"):
        Lease("checks", table=leases()).hold(holder, START, ttl)


def test_a_lease_moves_when_its_holder_dies() -> None:
    lease = Lease("checks", table=leases())

    def hold_and_die() -> None:
        assert lease.hold(os.getpid(), START, 3 * SECOND)
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(hold_and_die) == -signal.SIGKILL
    assert lease.holder(START) not in (None, os.getpid())
    assert not lease.hold(os.getpid(), START + 2 * SECOND, 3 * SECOND)
    assert lease.hold(os.getpid(), START + 4 * SECOND, 3 * SECOND)


def test_one_of_many_processes_gets_a_lease() -> None:
    lease = Lease("checks", table=leases())

    turns, got = 50_000, mmap.mmap(-1, 4 * 8)  # shared: how many turns each of them got

    def ask(worker: int) -> None:
        mine = sum(lease.hold(os.getpid(), START + turn * SECOND, SECOND // 2) for turn in range(turns))
        struct.pack_into("q", got, 8 * worker, mine)

    assert in_children(4, ask) == [0] * 4
    assert sum(struct.unpack("4q", got[:])) == turns
