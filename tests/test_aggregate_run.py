"""The run of an aggregation against a model of it: any graph, any outcome, any order of answers. No socket:
what is asked is kept in a list, and answered from there."""

from __future__ import annotations

import gc
import json
import weakref
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgate import _core
from fastgate.aggregation.plan import Plan
from fastgate.config import model


class Answer:
    """As ``_core.PartAnswer``."""

    def __init__(self, call: Any, status: int, body: bytes, reason: str = "") -> None:
        self.call, self.status, self.body, self.reason = call, status, body, reason
        self.fields = [("content-type", "application/json")]
        self.detail, self.endpoint, self.upstream = None, "", "up"
        self.attempts, self.began, self.took = 1, 0, 1

    def forget(self) -> None:
        self.body = b""


class Desk:
    """Stands for ``_core.Gathering``: `asked` is what is under way, `said` how the run has answered."""

    def __init__(self, plan: Plan, age_ns: int = 0) -> None:
        self.asked: list[Any] = []
        self.ever: list[Any] = []
        self.said: list[tuple[Any, ...]] = []
        self.arrived: list[Any] = []
        self.traced = False
        self.age_ns = age_ns
        self.told = b""
        self.run = plan.begin(self, _Exchange(), b"")  # type: ignore[arg-type]
        self.run.start()
        self.pump()

    @property
    def gone(self) -> bool:
        return bool(self.said)

    def charge(self, size: int) -> bool:
        return True

    def ask(self, call: Any, *request: Any) -> Any:
        assert not self.said, "asked behind the end"
        self.asked.append(call)
        self.ever.append(call)
        return call

    def give_up(self, side: Any) -> None:
        if side in self.asked:
            self.asked.remove(side)

    def deliver(self, answer: Any) -> None:
        self.arrived.append(answer)

    def note(self, *what: Any) -> None:
        assert not self.said

    def respond(self, status: int, lines: bytes, body: bytes, reason: str, detail: str | None = None) -> None:
        self.end("answer", status, json.loads(body), reason)

    def fail(self, reason: str, status: int, detail: str, members: dict[str, Any]) -> None:
        self.end("failure", status, [one["part"] for one in members["parts"]], reason)

    def end(self, *what: Any) -> None:
        assert not self.said, "ended twice"
        self.said.append(what)
        self.asked.clear()
        self.run.over()

    def pump(self) -> None:
        while self.arrived and not self.said:
            self.run.answered(self.arrived.pop(0))

    def answer(self, place: int, status: int, body: bytes, reason: str = "") -> None:
        self.run.answered(Answer(self.asked.pop(place), status, body, reason))
        self.pump()


class _Exchange:
    request = None


def plan_of(**aggregate: Any) -> Plan:
    parts = {
        name: model.Part(upstream="up", path=f"/{name}", group=name, **keys)
        for name, keys in aggregate.pop("parts").items()
    }
    upstream: Any = type("Upstream", (), {"name": "up"})()
    counters = _core.Counters(["r"], ["up"])
    no_retry: Any = None
    return Plan("r", model.Aggregate(parts=parts, **aggregate), {"up": upstream}, counters, no_retry)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, bool], str, int, list[int]]:
    """Parts, whether each succeeds, the policy, its quorum, and the order of answers."""
    names = [f"p{i}" for i in range(draw(st.integers(1, 6)))]
    parts: dict[str, Any] = {}
    for i, name in enumerate(names):
        keys: dict[str, Any] = {"required": draw(st.booleans())}
        keys["after"] = tuple(draw(st.sets(st.sampled_from(names[:i]), max_size=2))) if i else ()
        if draw(st.integers(0, 4)) == 0:
            keys["default"] = '"default"'
        parts[name] = keys
    good = {name: draw(st.integers(0, 3)) > 0 for name in names}
    policy = draw(st.sampled_from(["required", "all", "any", "first", "quorum"]))
    return (
        parts,
        good,
        policy,
        draw(st.integers(1, len(names))),
        draw(st.lists(st.integers(0, 5), max_size=20)),
    )


def model_of(parts: dict[str, Any], good: dict[str, bool]) -> tuple[set[str], set[str]]:
    """Which parts succeed and which fail, if none is given up."""
    ok: set[str] = set()
    failed: set[str] = set()
    for name, keys in parts.items():
        there = all(one in ok or parts[one].get("default") for one in keys["after"])
        (ok if there and good[name] else failed).add(name)
    return ok, failed


@settings(max_examples=400, deadline=None)
@given(worlds())
def test_any_graph(world: tuple[dict[str, Any], dict[str, bool], str, int, list[int]]) -> None:
    parts, good, policy, quorum, order = world
    desk = Desk(plan_of(parts=parts, policy=policy, quorum=quorum))
    picks = iter(order)
    while desk.asked and not desk.said:
        place = next(picks, 0) % len(desk.asked)
        name = desk.asked[place].part.name
        if good[name]:
            desk.answer(place, 200, json.dumps(name).encode())
        else:
            desk.answer(place, 500, b"")
    (said,) = desk.said
    asked = [call.part.name for call in desk.ever]
    assert len(asked) == len(set(asked)), "a part was asked twice"
    ok, failed = model_of(parts, good)
    required = {name for name in parts if parts[name]["required"]}
    there = {
        "required": not failed & required,
        "all": not failed,
        "any": bool(ok),
        "first": bool(ok),
        "quorum": len(ok) >= quorum,
    }[policy]
    assert (said[0] == "answer") is there
    if not there:
        assert said[1] == 502
        assert set(said[2]) <= failed
        assert said[2]
    elif policy == "first":
        ((name, value),) = said[2].items()
        assert name in ok
        assert value == name
    else:
        defaults = {name: "default" for name in failed if parts[name].get("default")}
        assert said[2] == {name: name for name in ok} | defaults
        assert said[3] == ("aggregate-partial" if failed else "")
        assert list(said[2]) == [name for name in parts if name in said[2]]  # in the order of the file


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 30), st.integers(1, 8), st.lists(st.tuples(st.integers(0, 8), st.integers(0, 3))))
def test_elements_in_any_order(count: int, concurrency: int, order: list[tuple[int, int]]) -> None:
    each = model.ForEach(list="{part.list}", max_items=30, concurrency=concurrency, on_failure="null")
    plan = plan_of(parts={"list": {"omit": True}, "items": {"for_each": each, "query": {"n": "{item}"}}})
    desk = Desk(plan)
    desk.answer(0, 200, json.dumps(list(range(count))).encode())
    picks = iter(order)
    expected: list[Any] = list(range(count))
    while desk.asked:
        assert len(desk.asked) <= concurrency
        place, luck = next(picks, (0, 1))
        place %= len(desk.asked)
        index = desk.asked[place].index
        if luck:
            desk.answer(place, 200, str(index).encode())
        else:
            expected[index] = None
            desk.answer(place, 500, b"")
    assert desk.said == [("answer", 200, {"items": expected}, "")]


def test_what_is_late_is_given_up() -> None:
    desk = Desk(plan_of(parts={"a": {}, "b": {"required": False}, "c": {"after": ("b",), "required": False}}))
    desk.answer(0, 200, b"1")
    desk.run.expired()
    assert desk.said == [("answer", 200, {"a": 1}, "aggregate-partial")]
    assert [call.part.name for call in desk.ever] == ["a", "b"]


def test_the_same_request_is_asked_once_and_anew_when_it_is_given_up() -> None:
    plan = plan_of(parts={"a": {"coalesce": True}})
    first, second, third = Desk(plan), Desk(plan), Desk(plan)
    assert [len(desk.ever) for desk in (first, second, third)] == [1, 0, 0]
    first.run.over()
    assert [len(desk.ever) for desk in (first, second, third)] == [1, 1, 0]
    second.answer(0, 200, b"1")
    third.pump()
    assert second.said == third.said == [("answer", 200, {"a": 1}, "")]
    assert plan.flights == {}


def test_elements_that_are_given_up_do_not_ask_for_one_another() -> None:
    each = model.ForEach(list="{part.list}", concurrency=10)
    plan = plan_of(parts={"list": {"omit": True}, "same": {"for_each": each, "required": False}})
    desk = Desk(plan)
    desk.answer(0, 200, b"[1, 2, 3, 4, 5]")
    assert len(desk.ever) == 2
    desk.run.expired()
    assert len(desk.ever) == 2
    assert desk.said == [("answer", 200, {}, "aggregate-partial")]


@pytest.mark.parametrize("quorum", [2, 3])
def test_a_skipped_part_is_no_failure_of_a_quorum(quorum: int) -> None:
    when = (model.When(value="{part.a.kind}", equals="full"),)
    desk = Desk(plan_of(parts={"a": {}, "b": {"when": when}, "c": {}}, policy="quorum", quorum=quorum))
    desk.answer(0, 200, b"{}")
    desk.answer(0, 200, b"1")
    assert desk.said == [("answer", 200, {"a": {}, "c": 1}, "")]


def test_a_quorum_that_a_skipped_part_makes_impossible_is_told_by_what_has_failed() -> None:
    when = (model.When(value="{part.a.kind}", equals="full"),)
    parts = {"a": {}, "b": {"when": when}, "c": {}, "d": {}}
    desk = Desk(plan_of(parts=parts, policy="quorum", quorum=3))
    desk.answer(1, 500, b"")
    desk.answer(0, 200, b"{}")
    assert desk.said == [("failure", 502, ["c"], "aggregate-failed")]
    assert desk.asked == []


@pytest.mark.parametrize("body", [b"1", b"{"])
def test_a_run_is_gone_at_its_end(body: bytes) -> None:
    """What it has read would else wait for the garbage to be collected."""
    desk = Desk(plan_of(parts={"a": {"required": False, "default": "1"}}))
    gc.disable()
    try:
        desk.answer(0, 200, body)
        assert desk.said
        run = weakref.ref(desk.run)
        del desk.run
        assert run() is None
    finally:
        gc.enable()


def test_what_went_before_is_not_the_parts_time() -> None:
    """A client that takes long to send its body: the timeout is that of all parts together."""
    times: list[int] = []

    class Late(Desk):
        def ask(self, call: Any, *request: Any) -> Any:
            times.append(request[5])
            return super().ask(call, *request)

    Late(plan_of(parts={"a": {}}), 20 * 10**9)
    assert times == [5 * 10**9]


def test_what_is_given_up_is_not_asked_by_who_has_waited_for_it() -> None:
    each = model.ForEach(list="{part.list}", on_failure="null")
    parts = {"list": {}, "item": {"for_each": each, "required": False}}
    desk = Desk(plan_of(parts=parts))
    desk.answer(0, 200, b"[1,2,3]")
    assert [call.part.name for call in desk.ever] == ["list", "item"]  # the three are the same request
    desk.run.expired()
    assert desk.said == [("answer", 200, {"list": [1, 2, 3]}, "aggregate-partial")]
    assert len(desk.ever) == 2


@pytest.mark.parametrize(
    ("reason", "age", "own"),
    [
        ("aggregate-memory", 0, True),
        ("part-value", 0, True),
        ("part-timeout", 0, False),
        ("part-timeout", 6_000_000_000, True),  # of ten seconds: less than a part's five are left
        ("upstream-reset", 0, False),
    ],
)
def test_what_ends_one_exchange_ends_no_other(reason: str, age: int, own: bool) -> None:
    plan = plan_of(parts={"b": {}, "a": {"after": ("b",), "coalesce": True}})
    first, second = Desk(plan), Desk(plan)
    first.age_ns = age
    first.answer(0, 200, b"1")
    second.answer(0, 200, b"1")
    assert [call.part.name for call in first.asked + second.asked] == ["a"]
    first.answer(0, 0, b"", reason)
    second.pump()
    assert first.said[0][0] == "failure"
    assert bool(second.said) is not own
    assert len(second.asked) == own
    if own:
        second.answer(0, 200, b"2")
        assert second.said == [("answer", 200, {"a": 2, "b": 1}, "")]


@pytest.mark.parametrize("policy", ["required", "all", "any", "first", "quorum"])
def test_memory_ends_any_of_them(policy: str) -> None:
    desk = Desk(plan_of(parts={"a": {"required": False}, "b": {"required": False}}, policy=policy))
    desk.answer(0, 0, b"", "aggregate-memory")
    assert desk.said[0][0] == "failure"
    assert desk.said[0][3] == "aggregate-memory"


@pytest.mark.parametrize(
    ("why", "reason", "status"),
    [
        ("part-timeout", "aggregate-timeout", 504),
        ("connect-timeout", "aggregate-timeout", 504),
        ("upstream-idle-timeout", "aggregate-timeout", 504),
        ("connect-refused", "aggregate-failed", 502),
    ],
)
def test_a_timeout_is_whatever_a_client_would_get_504_for(why: str, reason: str, status: int) -> None:
    desk = Desk(plan_of(parts={"a": {}}))
    desk.answer(0, 0, b"", why)
    assert desk.said == [("failure", status, ["a"], reason)]
