"""Which version of a service a request goes to."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.forks import in_child
from support.splits import SECOND, Tables, rule, splitter

from fastgate._core import SampleRequest, SharedTable, Splitter, loop_set_weights

keys = st.integers(0, 2**64 - 1)
weights_lists = st.lists(st.integers(0, 10_000), min_size=1, max_size=6).filter(any)
ANY = SampleRequest()


def named(weights: list[int]) -> dict[str, int]:
    return {f"v{i}": weight for i, weight in enumerate(weights)}


def roll_back(split: Splitter, arm: str, baseline: str, now: int = 1000 * SECOND) -> None:
    assert split.rollback is not None
    split.rollback.observe_request(baseline, now=now, times=1000)
    split.rollback.observe_request(arm, failed=True, now=now, times=1000)
    assert [verdict.arm for verdict in split.rollback.evaluate(now)] == [arm]


# -- shares


def assert_shares(chosen: Counter[str], weights: dict[str, int]) -> None:
    # Within 4.5 standard deviations: one in 150,000 right ones would fail, and the numbers are fixed.
    samples, total = sum(chosen.values()), sum(weights.values())
    assert set(chosen) <= {name for name, weight in weights.items() if weight}
    for name, weight in weights.items():
        share = weight / total
        assert abs(chosen[name] - samples * share) <= 4.5 * (samples * share * (1 - share)) ** 0.5


@pytest.mark.parametrize(
    "weights", [[95, 5], [1, 1, 1], [0, 3, 7], [10_000, 100], [1, 2, 3, 4, 5, 6, 7, 8], [0, 1]]
)
def test_users_are_shared_out_by_weight(weights: list[int]) -> None:
    split, chooser = splitter(named(weights)), random.Random(1)
    # Good hashes, and what a poor one would make of user numbers.
    for source in (lambda i: chooser.getrandbits(64), lambda i: i, lambda i: i << 48, lambda i: i << 20):
        assert_shares(Counter(split.choose_for(ANY, key=source(i)) for i in range(20_000)), named(weights))


@pytest.mark.parametrize("weights", [[95, 5], [0, 3, 7, 0], [10_000, 1]])
def test_without_a_key_the_random_bits_decide(weights: list[int]) -> None:
    split, chooser = splitter(named(weights)), random.Random(2)
    chosen = Counter(split.choose_for(ANY, random=chooser.getrandbits(64)) for _ in range(50_000))
    assert_shares(chosen, named(weights))


@pytest.mark.parametrize("bits", [0, 1, 2**32 - 1, 2**32, 2**64 - 1])
def test_extreme_keys_and_random_bits(bits: int) -> None:
    split = splitter({"a": 0, "b": 10_000, "c": 1, "d": 0})
    assert split.choose_for(ANY, random=bits) == ("b" if bits < 2**63 else "c")
    assert split.choose_for(ANY, key=bits) in ("b", "c")


# -- the same user, the same arm


@given(weights_lists, keys, st.lists(keys, min_size=1, max_size=5))
@settings(max_examples=100, deadline=None)
def test_a_key_has_one_arm_whatever_the_random_bits(weights: list[int], key: int, bits: list[int]) -> None:
    first = splitter(named(weights)).choose_for(ANY, key=key)
    again = splitter(named(weights))
    assert {again.choose_for(ANY, key=key, random=more) for more in bits} == {first}
    assert named(weights)[first] > 0


def test_all_replicas_and_all_versions_of_the_gateway_agree() -> None:
    # Fixed for good: if it changed, an update of one replica would move users to and fro between versions.
    split = splitter({"stable": 50, "canary": 30, "blue": 20})
    spread = [split.choose_for(ANY, key=i * 0x9E3779B97F4A7C15 % 2**64) for i in range(24)]
    assert "".join(name[0] for name in spread) == "cssbscssssbccsssbccbcscs"


def test_the_order_of_the_arms_means_nothing() -> None:
    one, other = splitter({"a": 3, "b": 2, "c": 1}), splitter({"c": 1, "a": 3, "b": 2})
    assert all(one.choose_for(ANY, key=i) == other.choose_for(ANY, key=i) for i in range(2000))


# -- what moves when weights change


@given(weights_lists, st.data())
@settings(max_examples=150, deadline=None)
def test_only_users_of_the_changed_arm_move(weights: list[int], data: st.DataObject) -> None:
    split = splitter(named(weights))
    arm = data.draw(st.sampled_from(sorted(named(weights))))
    weight = data.draw(st.integers(0, 10_000))
    if not any((named(weights) | {arm: weight}).values()):
        weight = 1
    before = [split.choose_for(ANY, key=i) for i in range(300)]
    split.set_weights({arm: weight})
    for i, was in enumerate(before):
        now = split.choose_for(ANY, key=i)
        if weight > named(weights)[arm]:
            assert now in (was, arm)
        else:
            assert was in (now, arm)


def test_the_share_that_moves_is_the_share_that_must() -> None:
    split, count = splitter({"stable": 95, "canary": 5}), 40_000
    before = [split.choose_for(ANY, key=i) for i in range(count)]
    split.set_weights({"stable": 90, "canary": 10})
    moved = sum(was != split.choose_for(ANY, key=i) for i, was in enumerate(before))
    assert abs(moved - 0.05 * count) < 4.5 * (0.05 * 0.95 * count) ** 0.5


def test_a_new_arm_takes_users_but_moves_none_between_the_others() -> None:
    two, three = splitter({"a": 50, "b": 50}), splitter({"a": 50, "b": 50, "c": 25})
    changed = [(two.choose_for(ANY, key=i), three.choose_for(ANY, key=i)) for i in range(5000)]
    assert {now for was, now in changed if was != now} == {"c"}


# -- override


@pytest.mark.parametrize(
    ("headers", "arm"),
    [
        ([("X-Version", "canary")], "canary"),
        ([("x-version", "off")], "off"),
        ([("Cookie", "a=1; version=canary")], "canary"),
        ([("Cookie", "version=off"), ("x-version", "canary")], "canary"),
        ([("Cookie", "version=off"), ("x-version", "unknown")], "off"),
        # Ignored:
        ([("x-version", "unknown")], "stable"),
        ([("x-version", "")], "stable"),
        ([("x-version", "Canary")], "stable"),
        ([("x-version", "canary2")], "stable"),
        ([("cookie", "Version=canary")], "stable"),
        ([("version", "canary")], "stable"),
    ],
)
def test_a_request_names_its_arm(headers: list[tuple[str, str]], arm: str) -> None:
    weights = {"stable": 1, "canary": 0, "off": 0}
    split = splitter(weights, header="x-version", cookie="version")
    assert split.choose_for(SampleRequest(headers=headers), key=7) == arm
    assert splitter(weights).choose_for(SampleRequest(headers=headers), key=7) == "stable"


def test_an_override_reaches_what_is_rolled_back() -> None:
    split = splitter({"stable": 95, "canary": 5}, rules={"canary": rule()}, header="x-version")
    roll_back(split, "canary", "stable")
    assert split.choose_for(SampleRequest(headers=[("x-version", "canary")]), key=1) == "canary"
    assert {split.choose_for(ANY, key=i) for i in range(1000)} == {"stable"}


# -- nothing has a weight


def test_if_a_rollback_leaves_no_weight_the_configured_ones_count_without_it() -> None:
    split = splitter({"stable": 60, "canary": 5, "old": 40}, rules={"canary": rule(baseline="stable")})
    split.set_weights({"stable": 0, "old": 0, "canary": 100})
    assert split.choose_for(ANY, key=1) == "canary"
    roll_back(split, "canary", "stable")
    assert split.weights() == {"stable": 60, "canary": 0, "old": 40}
    assert {split.choose_for(ANY, key=i) for i in range(100)} == {"stable", "old"}


def test_if_those_are_0_too_the_baseline_takes_all() -> None:
    # After a promotion: the file has the new version at 100.
    split = splitter({"aside": 0, "stable": 0, "canary": 100}, rules={"canary": rule(baseline="stable")})
    roll_back(split, "canary", "stable")
    assert split.weights() == {"aside": 0, "stable": 1, "canary": 0}
    assert {split.choose_for(ANY, key=i) for i in range(100)} == {"stable"}


def test_if_all_are_rolled_back_a_baseline_takes_all() -> None:
    rules = {"a": rule(baseline="b"), "b": rule(baseline="c"), "c": rule(baseline="a", p99_factor=0)}
    split = splitter({"a": 10, "b": 30, "c": 20}, rules=rules)
    assert split.rollback is not None
    for now, (bad, good) in enumerate([("a", "b"), ("b", "c"), ("c", "a")], start=1):
        if bad == "c":
            assert split.clear("a")
            roll_back(split, "c", "a", now * 1000 * SECOND)
            split.rollback.observe_request("b", now=now * 1000 * SECOND, times=1000)
            split.rollback.observe_request("a", failed=True, now=now * 1000 * SECOND, times=5000)
            assert [verdict.arm for verdict in split.rollback.evaluate(now * 1000 * SECOND)] == ["a"]
        else:
            roll_back(split, bad, good, now * 1000 * SECOND)
    assert split.weights() == {"a": 0, "b": 1, "c": 0}


# -- an operator's weights


def test_an_operators_weights_count_in_place_of_the_configured() -> None:
    split = splitter({"blue": 100, "green": 0})
    split.set_weights({"blue": 0, "green": 100})
    assert split.weights() == {"blue": 0, "green": 100}
    assert {split.choose_for(ANY, key=i) for i in range(100)} == {"green"}
    split.set_weights({"blue": 1})
    assert split.weights() == {"blue": 1, "green": 100}
    split.set_weights({"blue": None, "green": None})
    assert split.weights() == {"blue": 100, "green": 0}
    status = split.status(0)
    assert (status["route"], status["generation"]) == ("orders", 3)
    assert status["arms"][1] == {
        "name": "green",
        "upstream": "u-green",
        "weight": 0,
        "configured": 0,
        "operator": None,
        "rolled_back": False,
        "rollback": None,
    }


@pytest.mark.parametrize(
    ("weights", "error"),
    [
        ({"red": 1}, "no arm 'red'; it has blue, green"),
        ({"green": -1}, "0 to 10000"),
        ({"green": 10_001}, "0 to 10000"),
        ({"green": True}, "0 to 10000"),
        ({"green": 1.5}, "0 to 10000"),
        ({"green": 5, "blue": 0.5}, "0 to 10000"),
        ({"blue": 0}, "one arm has a weight above 0"),
        ({"blue": 0, "green": 0}, "one arm has a weight above 0"),
    ],
)
def test_a_refused_change_changes_nothing(weights: dict[str, int], error: str) -> None:
    split = splitter({"blue": 100, "green": 0})
    with pytest.raises(ValueError, match=error):
        split.set_weights(weights)
    assert split.weights() == {"blue": 100, "green": 0}
    status = split.status(0)
    assert (status["generation"], [arm["operator"] for arm in status["arms"]]) == (0, [None, None])
    split.set_weights({"green": 10_000})
    assert split.weights() == {"blue": 100, "green": 10_000}


def test_clear_of_what_is_not_rolled_back() -> None:
    split = splitter({"blue": 100, "green": 0})
    split.set_weights({"green": 7})
    assert not split.clear("green")
    assert split.weights() == {"blue": 100, "green": 7}
    with pytest.raises(ValueError, match="no arm 'red'"):
        split.clear("red")


# -- reload, restart, other processes


def test_operators_weights_and_rollbacks_outlive_a_reload() -> None:
    tables, rules = Tables(), {"canary": rule()}
    before = tables.splitter({"stable": 95, "canary": 5, "c": 0}, rules=rules)
    before.set_weights({"stable": 50, "c": 9})
    roll_back(before, "canary", "stable")
    after = tables.splitter({"d": 3, "canary": 10, "stable": 90}, rules=rules)
    assert after.weights() == {"d": 3, "canary": 0, "stable": 50}
    after.set_weights({"stable": 51})
    # An arm that comes back has what it was given last.
    again = tables.splitter({"stable": 90, "c": 1})
    assert again.weights() == {"stable": 51, "c": 9}
    configured = {"stable": 95, "canary": 5}
    assert tables.splitter(configured, route="other").weights() == configured
    assert Tables().splitter(configured).weights() == configured


def test_an_arm_that_a_reload_left_alone_with_weight_0_has_its_configured_weight() -> None:
    tables = Tables()
    tables.splitter({"a": 5, "b": 5}).set_weights({"a": 0})
    alone = tables.splitter({"a": 5})
    assert alone.weights() == {"a": 5}
    assert not alone.clear("a")


def test_another_process_sees_and_sets_weights() -> None:
    split = splitter({"blue": 100, "green": 0})
    assert split.choose_for(ANY, key=1) == "blue"
    assert in_child(lambda: split.set_weights({"blue": 0, "green": 100})) == 0
    assert split.choose_for(ANY, key=1) == "green"
    assert in_child(lambda: 2 if split.choose_for(ANY, key=1) == "green" else 3) == 2


def test_a_reader_sees_all_old_weights_or_all_new_ones() -> None:
    # A writer that is killed anywhere holds nobody up: neither readers nor the next writer.
    names = [f"v{i}" for i in range(12)]
    split = splitter(dict.fromkeys(names, 1))
    for _ in range(8):
        pid = os.fork()
        if pid == 0:
            try:
                loop_set_weights(split, 10**15)
            finally:
                os._exit(1)
        seen: set[int] = set()
        try:
            while len(seen) < 30:
                # Still at it, and not reaped by this question.
                assert os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
                weights = set(split.weights().values())
                assert len(weights) == 1
                seen |= weights
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        assert len(set(split.weights().values())) == 1
        split.set_weights({"v0": 7, "v1": 8})
        assert [split.weights()[name] for name in ("v0", "v1")] == [7, 8]
        split.set_weights(dict.fromkeys(names, 1))


# -- what cannot be built


def test_what_makes_no_split() -> None:
    with pytest.raises(ValueError, match="has arms"):
        splitter({})
    with pytest.raises(ValueError, match="above 0"):
        splitter({"a": 0, "b": 0})
    with pytest.raises(ValueError, match="0 to 10000"):
        splitter({"a": 10_001})
    twice = SimpleNamespace(name="", upstream="u", weight=1, rollback=None)
    tables = Tables()
    config = SimpleNamespace(override=None, to=(twice, twice))
    with pytest.raises(ValueError, match="name of its own"):
        Splitter("orders", config, states=tables.states, windows=tables.windows)
    config.to = (twice,)
    with pytest.raises(ValueError, match="other records"):
        Splitter("orders", config, states=SharedTable(16, 4), windows=tables.windows)


def test_an_arm_without_a_name_has_that_of_its_upstream() -> None:
    tables = Tables()
    targets = (SimpleNamespace(name="", upstream="orders-v1", weight=1, rollback=None),)
    split = Splitter(
        "orders", SimpleNamespace(override=None, to=targets), states=tables.states, windows=tables.windows
    )
    assert (split.route, split.names, split.upstreams) == ("orders", ("orders-v1",), ("orders-v1",))
    assert split.rollback is None
