"""Tiers of nearness: nearest first, spilling over by health and load, failing over and coming back."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from endpoints import POLICIES, SECOND, Endpoints, near
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgate._core import Group


def places(**counts: int) -> list[dict[str, str]]:
    """`eu=2, eu_a=1` are two endpoints of region eu, and one of its zone a; `x` says nothing of either."""
    made = []
    for name, count in counts.items():
        region, _, zone = name.partition("_")
        made += [{} if region == "x" else {"region": region, "zone": zone}] * count
    return made


def taken_from(up: Endpoints, times: int = 2000, now: int = 0) -> dict[str, float]:
    counts = up.count(times, now=now)
    shares: dict[str, float] = {}
    for seat, count in zip(up.seats, counts, strict=True):
        place = seat.region + ("-" + seat.zone if seat.zone else "")
        shares[place] = shares.get(place, 0) + count / times
    return {place: share for place, share in shares.items() if share}


def lose(up: Endpoints, region: str, count: int, zone: str | None = None, **state: object) -> None:
    for position, seat in enumerate(up.seats):
        if count and seat.region == region and zone in (None, seat.zone):
            up.set(position, **(state or {"probe": "down"}))
            count -= 1


def test_the_nearest_takes_all_and_each_in_its_order_when_those_before_are_gone() -> None:
    spread = places(asia=2, us=2, eu=2, eu_b=2, eu_a=2, sa=2)
    up = Endpoints(spread, region="eu", zone="a", order=("us", "asia"))
    # An endpoint of our region that names no zone counts as near.
    near_by = {"eu-a", "eu"}
    for gone in (near_by, {"eu-b"}, {"us"}, {"asia"}):
        assert taken_from(up).keys() == gone
        for place in gone:
            region, _, zone = place.partition("-")
            lose(up, region, 2, zone)
    assert taken_from(up).keys() == {"sa"}


@pytest.mark.parametrize(
    ("gateway", "expected"),
    [
        ({}, {""}),  # no region of its own: those without one are its own, all others far
        ({"region": "eu"}, {"eu-a", "eu-b", ""}),  # without a zone, all of the region is near
        ({"region": "eu", "zone": "b"}, {"eu-b", ""}),
        ({"region": "eu", "zone": "c"}, {""}),
        ({"region": "mars"}, {""}),
    ],
)
def test_who_is_near(gateway: dict[str, Any], expected: set[str]) -> None:
    up = Endpoints(places(us=2, eu_a=2, eu_b=2, x=2), **gateway)
    assert taken_from(up).keys() == expected


def test_a_gateway_that_says_nothing_uses_all_of_regions_it_does_not_know() -> None:
    assert taken_from(Endpoints(places(us=2, eu_a=2, eu_b=2))).keys() == {"us", "eu-a", "eu-b"}


@pytest.mark.parametrize(
    ("down", "near_share"), [(0, 1), (1, 1), (2, 1), (3, 0.98), (5, 0.7), (8, 0.28), (9, 0.14), (10, 0)]
)
@pytest.mark.parametrize("balance", POLICIES)
def test_what_it_cannot_carry_spills_over(balance: str, down: int, near_share: float) -> None:
    # Ten endpoints, 140 %: the tier carries all until fewer than 7.14 are ready.
    up = Endpoints(places(eu=10, us=10), region="eu", order=("us",), balance=balance)
    lose(up, "eu", down)
    times = 4000
    assert near(round(taken_from(up, times).get("eu", 0) * times), times, near_share)
    assert not any(tier.panic for tier in up.group.tiers_at(0)), "there is somewhere to go"
    assert up.group.tiers_at(0)[0].share == pytest.approx(near_share)


def test_what_the_operator_took_out_is_no_loss_of_health() -> None:
    up = Endpoints(places(eu=10, us=10), region="eu", order=("us",))
    lose(up, "eu", 9, operator="draining")
    assert taken_from(up) == {"eu": 1}
    assert up.group.tiers_at(0)[0][:2] == (1, 1)


def test_a_key_spills_over_or_not_and_stays_there() -> None:
    up = Endpoints(places(eu=10, us=10), region="eu", order=("us",), balance="maglev", bounded_load=0)
    lose(up, "eu", 5)
    where = up.map(1000)
    assert {seat.region for seat in where} == {"eu", "us"}
    assert where == up.map(1000)
    before = up.map(1000)
    lose(up, "eu", 6)
    changed = [key for key, seat in enumerate(up.map(1000)) if seat is not before[key]]
    # An eighth more spills over, the keys of one more endpoint move within the region.
    assert len(changed) / 1000 < 0.3


def test_all_of_a_tier_full_asks_the_next() -> None:
    up = Endpoints(
        [{**place, "max_requests": 1} for place in places(eu=2, us=2, sa=1)], region="eu", order=("us",)
    )
    regions = []
    for _ in range(5):
        position = up.take()
        up.seats[position].hold()
        regions.append(up.seats[position].region)
    assert regions == ["eu", "eu", "us", "us", "sa"]
    assert up.take() == Group.FULL
    up.seats[2].release()
    assert up.take() == 2


def test_who_was_tried_is_avoided_across_tiers() -> None:
    up = Endpoints(places(eu=2, us=1), region="eu", order=("us",))
    assert up.take(tried=[0]) == 1
    assert up.take(tried=[0, 1]) == 2
    assert up.take(tried=[0, 1, 2]) in (0, 1), "all of them: the nearest again"


def test_a_tier_that_failed_comes_back_after_it_has_been_well_for_so_long() -> None:
    up = Endpoints(places(eu=2, us=2), region="eu", order=("us",), failback_after_ns=30 * SECOND)
    assert taken_from(up) == {"eu": 1}
    lose(up, "eu", 2)
    assert taken_from(up, now=SECOND) == {"us": 1}
    up.set(0)
    for now in (10 * SECOND, 39 * SECOND, 40 * SECOND - 1):
        assert taken_from(up, now=now) == {"us": 1}
        assert up.group.tiers_at(now)[0].failed
    assert taken_from(up, now=40 * SECOND).keys() == {"eu", "us"}, "by time alone; half of it is well: 70 %"
    up.set(1)
    assert taken_from(up, now=41 * SECOND) == {"eu": 1}


def test_a_relapse_begins_the_wait_anew() -> None:
    up = Endpoints(places(eu=1, us=1), region="eu", order=("us",), failback_after_ns=30 * SECOND)
    up.set(0, probe="down")
    assert taken_from(up) == {"us": 1}
    up.set(0)
    assert taken_from(up, now=10 * SECOND) == {"us": 1}
    up.set(0, probe="down")
    assert taken_from(up, now=39 * SECOND) == {"us": 1}
    up.set(0)
    assert taken_from(up, now=39 * SECOND) == {"us": 1}
    assert taken_from(up, now=41 * SECOND) == {"us": 1}
    assert taken_from(up, now=69 * SECOND) == {"eu": 1}


def test_a_tier_on_its_way_back_takes_what_the_others_cannot() -> None:
    up = Endpoints(places(eu=4, us=4), region="eu", order=("us",))
    lose(up, "eu", 4)
    taken_from(up)
    for position in range(4):
        up.set(position)
    assert taken_from(up) == {"us": 1}
    lose(up, "us", 3)
    assert taken_from(up)["eu"] == pytest.approx(0.65, abs=0.05)
    lose(up, "us", 4)
    assert taken_from(up) == {"eu": 1}


def test_what_is_full_far_away_comes_home_before_its_time() -> None:
    up = Endpoints([{"region": "eu"}, {"region": "us", "max_requests": 1}], region="eu", order=("us",))
    up.set(0, probe="down")
    taken_from(up)
    up.set(0)
    up.seats[1].hold()
    assert up.take() == 0


@pytest.mark.parametrize("failback", [0, 30 * SECOND])
def test_an_operator_is_believed_at_once(failback: int) -> None:
    up = Endpoints(places(eu=2, us=2), region="eu", order=("us",), failback_after_ns=failback)
    lose(up, "eu", 2, operator="down")
    assert taken_from(up) == {"us": 1}
    up.set(0)
    up.set(1)
    assert taken_from(up) == {"eu": 1}


def test_no_wait_where_none_is_wanted() -> None:
    up = Endpoints(places(eu=2, us=2), region="eu", order=("us",), failback_after_ns=0)
    lose(up, "eu", 2)
    assert taken_from(up) == {"us": 1}
    up.set(0)
    up.set(1)
    assert taken_from(up) == {"eu": 1}


def test_new_endpoints_of_a_region_are_used_at_once() -> None:
    up = Endpoints(places(us=2), region="eu", order=("us",))
    assert taken_from(up) == {"us": 1}
    up.group.replace([*up.seats, up.seat("new:1", region="eu")])
    assert {up.take() for _ in range(50)} == {2}


def test_all_together_too_few_is_shared_by_health_and_panics_where_it_is_worst() -> None:
    # 14 % and 28 % of health: a third and two thirds, both below half ready.
    up = Endpoints(places(eu=10, us=10), region="eu", order=("us",))
    lose(up, "eu", 9)
    lose(up, "us", 8)
    eu, _, us, _ = up.group.tiers_at(0)
    assert [eu.share, us.share] == pytest.approx([1 / 3, 2 / 3])
    assert eu.panic
    assert us.panic
    assert min(up.count(6000)) > 100, "all are used"
    calm = Endpoints(places(eu=10, us=10), region="eu", order=("us",), panic_threshold=0)
    lose(calm, "eu", 9)
    lose(calm, "us", 8)
    assert sum(1 for count in calm.count(1000) if count) == 3


def test_nobody_ready_anywhere() -> None:
    up = Endpoints(places(eu=1, us=3), region="eu", order=("us",))
    lose(up, "eu", 1)
    lose(up, "us", 3)
    assert [tier.share for tier in up.group.tiers_at(0)] == [0, 0, 0, 0]
    assert up.take() == Group.NONE


tiers = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=4, max_size=4)


@given(tiers, st.sampled_from([80, 100, 140, 1000]), st.sampled_from([0, 30, 50, 100]))
@settings(max_examples=300, deadline=None)
def test_shares_are_whole_nearest_first_and_never_of_the_dead(
    spread: list[tuple[int, int]], spill_over: float, panic: float
) -> None:
    regions = ("eu", "us", "asia", "sa")
    seats = [
        {"region": region}
        for region, (ready, down) in zip(regions, spread, strict=True)
        for _ in range(ready + down)
    ]
    up = Endpoints(
        seats,
        region="eu",
        order=("us", "asia"),
        spill_over=spill_over,
        panic_threshold=panic,
        balance="round-robin",
    )
    position = 0
    for ready, down in spread:
        for _ in range(down):
            up.set(position + ready, probe="down")
            position += 1
        position += ready
    found = [tier for tier in up.group.tiers_at(0) if tier.total]
    ready_total = sum(ready for ready, _ in spread)
    usable = ready_total
    assert sum(tier.share for tier in found) == pytest.approx(1 if usable else 0)
    assert (up.take() == Group.NONE) is (not usable)
    if not ready_total:
        return
    for before, behind in pairwise(found):
        if behind.share and not any(tier.panic for tier in found):
            # Nothing goes further while a nearer one could take more.
            assert before.share >= min(1, spill_over / 100 * before.ready / before.total) - 1e-9
    for tier in found:
        assert tier.ready or not tier.share
        assert not tier.panic or tier.ready / tier.total < panic / 100
