"""Consistent hashing: who keeps a key, and who loses it when endpoints come, go and are loaded."""

from __future__ import annotations

from collections import Counter

import pytest
from endpoints import SECOND, Endpoints, near
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgate._core import Group, Seat

HASHED = ("maglev", "ring")
KEYS = 10_000

both = pytest.mark.parametrize("balance", HASHED)


def moved(before: list[Seat], after: list[Seat]) -> set[int]:
    return {key for key, (one, other) in enumerate(zip(before, after, strict=True)) if one is not other}


def keys_of(seat: Seat, where: list[Seat]) -> set[int]:
    return {key for key, found in enumerate(where) if found is seat}


@both
def test_a_key_stays_where_it_is(balance: str) -> None:
    up = Endpoints(5, balance=balance)
    assert {up.take(42) for _ in range(100)} == {up.take(42)}
    assert len({up.take() for _ in range(100)}) == 5, "a request without a key goes anywhere"


@both
def test_every_worker_and_replica_agrees(balance: str) -> None:
    # Whatever the order in which they know the endpoints.
    up = Endpoints([{"weight": 1 + i % 3} for i in range(9)], balance=balance)
    other = Endpoints(0, balance=balance, seed=2)
    seats = [other.seat(seat.address, weight=seat.weight) for seat in up.seats]
    other.group.replace(seats[::-1])
    assert [seat.address for seat in up.map(KEYS)] == [seat.address for seat in other.map(KEYS)]


def test_an_upgrade_moves_no_key() -> None:
    # Not what is right, but what it was when this was written: another table would move every user at once.
    maglev, ring = Endpoints(8, balance="maglev"), Endpoints(8, balance="ring")
    assert [maglev.take(key) for key in range(12)] == [6, 0, 5, 6, 7, 1, 6, 3, 4, 3, 3, 1]
    assert [ring.take(key) for key in range(12)] == [5, 2, 0, 3, 7, 1, 6, 2, 4, 7, 4, 3]


@both
@pytest.mark.parametrize("weights", [[1, 1], [1] * 9, [1, 2, 3, 10], [100, 50, 50], [1] * 300])
def test_keys_are_shared_by_weight(balance: str, weights: list[int]) -> None:
    up = Endpoints([{"weight": weight} for weight in weights], balance=balance)
    taken = Counter(up.map(30_000))
    for seat in up.seats:
        share = seat.weight / sum(weights)
        # A ring's points fall by chance, so a share strays by one part in the root of their number; a Maglev
        # table has whole slots.
        slack = 5 / (4096 * seat.weight) ** 0.5 if balance == "ring" else 1 / (65537 * share)
        assert near(taken[seat], 30_000, share, slack)


@pytest.mark.parametrize("count", [2, 3, 5, 8, 20, 100])
@both
def test_of_n_that_lose_one_few_more_keys_than_one_nth_move(balance: str, count: int) -> None:
    up = Endpoints(count, balance=balance, bounded_load=0)
    before = up.map(KEYS)
    for leaving in up.seats[:8]:
        up.group.replace(seat for seat in up.seats if seat is not leaving)
        changed = moved(before, up.map(KEYS))
        assert keys_of(leaving, before) <= changed
        assert len(changed) / KEYS <= 1 / count + 0.01
    up.group.replace(up.seats)
    assert up.map(KEYS) == before


@pytest.mark.parametrize("weights", [[1, 2, 3, 10], [1, 1, 2, 2, 4, 4]])
@both
def test_with_weights_what_leaves_takes_its_share_and_little_more(balance: str, weights: list[int]) -> None:
    up = Endpoints([{"weight": weight} for weight in weights], balance=balance, bounded_load=0)
    before = up.map(KEYS)
    for leaving in up.seats:
        up.group.replace(seat for seat in up.seats if seat is not leaving)
        assert len(moved(before, up.map(KEYS))) / KEYS <= leaving.weight / sum(weights) + 0.02


def test_of_a_thousand_the_ring_moves_no_other_key() -> None:
    up = Endpoints(1000, balance="ring", bounded_load=0)
    before = up.map(KEYS)
    up.group.replace(up.seats[1:])
    assert moved(before, up.map(KEYS)) == keys_of(up.seats[0], before)


@both
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_an_ejected_endpoint_moves_its_own_keys_and_gets_them_back(balance: str, data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 12))
    up = Endpoints(count, balance=balance, bounded_load=0, panic_threshold=0)
    before = up.map(1000)
    out = data.draw(st.sets(st.integers(0, count - 1), min_size=1, max_size=count - 1))
    for position in out:
        up.set(position, ejected_until_ns=1000)
    without = up.map(1000, now=999)
    expected: set[int] = set()
    for position in out:
        expected |= keys_of(up.seats[position], before)
    assert moved(before, without) == expected
    assert up.map(1000, now=1000) == before


@both
def test_the_keys_of_an_ejected_endpoint_are_spread_over_the_others(balance: str) -> None:
    up = Endpoints(5, balance=balance)
    before = up.map(30_000)
    up.set(2, probe="down")
    after = up.map(30_000)
    orphans = keys_of(up.seats[2], before)
    heirs = Counter(after[key] for key in orphans)
    assert len(heirs) == 4
    assert all(abs(count / len(orphans) - 1 / 4) < 0.05 for count in heirs.values())


@both
def test_one_that_is_left_of_many_gets_all(balance: str) -> None:
    # Most keys walk long before they come to it; those that give up find it by another way.
    up = Endpoints(300, balance=balance, panic_threshold=0)
    for position in range(299):
        up.set(position, probe="down")
    assert set(up.map(500)) == {up.seats[299]}
    assert up.take(7, tried=[299]) == 299
    up.set(299, probe="down")
    assert up.take(7) == Group.NONE


@both
def test_a_tried_endpoint_sends_a_key_the_same_way_again(balance: str) -> None:
    up = Endpoints(6, balance=balance)
    for key in range(200):
        first = up.take(key)
        second = up.take(key, tried=[first])
        assert second != first
        assert up.take(key, tried=[first]) == second
        up.set(first, probe="down")
        assert up.take(key) == second, "where it would go if the first were gone"
        up.set(first)


@given(
    st.sampled_from(HASHED),
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 5)), min_size=2, max_size=8),
    st.sampled_from([1.01, 1.25, 2.0]),
)
@settings(max_examples=100, deadline=None)
def test_nobody_is_loaded_above_its_bound(balance: str, loads: list[tuple[int, int]], bound: float) -> None:
    up = Endpoints([{"weight": weight} for _, weight in loads], balance=balance, bounded_load=bound)
    for seat, (active, _) in zip(up.seats, loads, strict=True):
        for _ in range(active):
            seat.hold()
    total, weights = sum(active for active, _ in loads), sum(weight for _, weight in loads)
    for key in range(60):
        active, weight = loads[up.take(key)]
        # What it has with this one is at most the bound's whole number.
        assert active < -(-bound * (total + 1) * weight // weights) + 1e-9


@both
def test_one_hot_key_fills_no_endpoint(balance: str) -> None:
    up, free = Endpoints(4, balance=balance), Endpoints(4, balance=balance, bounded_load=0)
    for each in (up, free):
        for _ in range(200):
            each.seats[each.take(7)].hold()
    assert max(seat.active for seat in up.seats) <= 1.25 * 200 / 4 + 1
    assert sorted(seat.active for seat in free.seats) == [0, 0, 0, 200]


@both
def test_a_bound_gives_way_to_those_who_are_full(balance: str) -> None:
    # The other is below its bound but has no room: better one above its own than nobody.
    up = Endpoints([{"max_requests": 1}, {}], balance=balance)
    up.seats[0].hold()
    for _ in range(20):
        up.seats[1].hold()
    assert {up.take(key) for key in range(50)} == {1}


@both
def test_who_ramps_up_takes_more_and_more_of_its_own_keys(balance: str) -> None:
    up = Endpoints(4, balance=balance, slow_start_ns=10 * SECOND, bounded_load=0)
    before = up.map(KEYS)
    own = keys_of(up.seats[1], before)
    up.set(1, returned_ns=SECOND)
    earlier: set[int] = set()
    for now, ramp in ((SECOND, 0.1), (6 * SECOND, 0.55), (10 * SECOND, 0.91), (11 * SECOND, 1)):
        where = up.map(KEYS, now=now)
        taken = keys_of(up.seats[1], where)
        assert earlier <= taken <= own
        assert near(len(taken), len(own), ramp)
        assert moved(before, where) == own - taken, "no other key moves"
        earlier = taken
    assert earlier == own


@both
def test_where_all_ramp_up_each_takes_all_of_its_keys(balance: str) -> None:
    up = Endpoints(4, balance=balance, slow_start_ns=10 * SECOND)
    before = up.map(1000)
    for position in range(4):
        up.set(position, returned_ns=SECOND)
    assert up.map(1000, now=SECOND) == before


@both
def test_two_of_one_address_are_two(balance: str) -> None:
    up = Endpoints(0, balance=balance)
    up.group.replace([up.seat("a:1"), up.seat("a:1"), up.seat("b:1")])
    taken = Counter(up.take(key) for key in range(3000))
    assert all(abs(taken[position] / 3000 - 1 / 3) < 0.06 for position in range(3))


@both
def test_a_weight_out_of_all_proportion(balance: str) -> None:
    # More points than a ring holds, and less than one slot of a Maglev table.
    up = Endpoints([{"weight": 1}, {"weight": 1_000_000}], balance=balance)
    assert set(up.map(1000)) == {up.seats[1]}
    up.set(1, probe="down")
    assert set(up.map(100)) <= set(up.seats)
    up.set(1, operator="down")
    assert set(up.map(100)) == {up.seats[0]}
