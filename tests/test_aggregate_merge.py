"""One answer of many parts' values: where each goes, which wins, and that none is lost silently."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.shapes import aggregate, exact, reason

from fastgate.aggregation.documents import Value, decode_json, encode, opened
from fastgate.aggregation.failures import PartFailure
from fastgate.aggregation.merge import MAX_COLLISIONS, Collision, Merged, Merger
from fastgate.config.model import Aggregate, Part
from fastgate.config.units import BadValue


def merger(groups: Mapping[str, str], **keys: Any) -> Merger:
    return Merger(aggregate({"parts": {name: {"group": group} for name, group in groups.items()}, **keys}))


def merged(groups: Mapping[str, str], values: Mapping[str, Any], **keys: Any) -> Merged:
    return merger(groups, **keys).merge(
        {name: decode_json(json.dumps(value).encode()) for name, value in values.items()}
    )


def answer(groups: Mapping[str, str], values: Mapping[str, Any], **keys: Any) -> Any:
    return json.loads(merged(groups, values, **keys).encode())


def collision(groups: Mapping[str, str], values: Mapping[str, Any], **keys: Any) -> str:
    with pytest.raises(PartFailure) as caught:
        merged(groups, values, **keys)
    assert caught.value.reason == "aggregate-collision"
    return caught.value.detail


AB = {"a": "", "b": ""}


def test_parts_are_in_the_order_of_the_file() -> None:
    value = merged({"b": "z", "a": "", "c": "x.y"}, {"c": 3, "a": {"m": 2, "k": 1}, "b": [0]})
    assert value.encode() == b'{"z":[0],"m":2,"k":1,"x":{"y":3}}'
    assert value.collisions == ()


def test_parts_that_are_not_there_or_not_for_the_answer() -> None:
    assert answer({"a": "a", "b": "b"}, {"b": 1}) == {"b": 1}
    assert answer(AB, {}) == {}
    parts = {"a": {"group": "a"}, "b": {"group": "a", "omit": True}}
    made = Merger(aggregate({"parts": parts})).merge({"a": True, "b": False})
    assert made.value == {"a": True}


def test_numbers_and_what_nothing_looks_into_stay_byte_for_byte() -> None:
    bodies = {
        "a": b'{"n":12345678901234567890,"d":{"x" : 1.10}}',
        "b": b"[1e400, -0]",
        "c": b'{"d":{"y":1E+2}}',
    }
    values = {name: decode_json(body) for name, body in bodies.items()}
    made = merger({"a": "", "b": "list", "c": ""}, merge="deep").merge(values)
    assert made.encode() == b'{"n":12345678901234567890,"d":{"x":1.10,"y":1E+2},"list":[1e400, -0]}'
    assert merger({"a": "a"}).merge(values).encode() == b'{"a":' + bodies["a"] + b"}"


@pytest.mark.parametrize("value", [None, 1, "a", [{}], True])
def test_a_part_at_the_top_is_an_object(value: Any) -> None:
    raw = decode_json(json.dumps(value).encode())
    for call in (lambda: merger(AB).merge({"a": raw}), lambda: merger(AB).fitted("a", raw)):
        with pytest.raises(PartFailure, match="part-type: part a has no group: expected an object"):
            call()
    assert merger({"a": "a"}).fitted("a", raw) is raw
    assert merger(AB, answer="list").fitted("a", raw) is raw
    with pytest.raises(PartFailure, match="part-type"):
        merged({"a": "", "b": "x.y"}, {"a": value})


def test_what_is_fitted_is_open() -> None:
    fitted = merger(AB).fitted("a", decode_json(b'{"x":1}'))
    assert isinstance(fitted, dict)
    assert merger(AB).at_top("a")
    assert not merger({"a": "a"}).at_top("a")
    assert not merger(AB, answer="list").at_top("a")
    assert merger(AB).merge({"a": fitted}).encode() == b'{"x":1}'


# -- collisions


@pytest.mark.parametrize(
    ("groups", "values", "detail"),
    [
        (AB, {"a": {"x": 1}, "b": {"x": 1}}, "x; parts a, b"),
        (AB, {"a": {"x": {"y": 1}}, "b": {"x": {"z": 1}}}, "x; parts a, b"),
        ({"a": "x", "b": "x"}, {"a": {}, "b": {}}, "x; parts a, b"),
        ({"a": "", "b": "x"}, {"a": {"x": 1}, "b": 2}, "x; parts a, b"),
        ({"a": "", "b": "x.y"}, {"a": {"x": 1}, "b": 2}, "x; parts a, b"),
        ({"a": "", "b": "x.y"}, {"a": {"x": None}, "b": 2}, "x; parts a, b"),
        ({"a": "", "b": "x.y"}, {"a": {"x": {"y": 0}}, "b": 2}, "x.y; parts a, b"),
        ({"a": "x.y", "b": ""}, {"a": 1, "b": {"x": {"y": 0}}}, "x.y; parts a, b"),
        ({"a": "x.y", "b": "x"}, {"a": 1, "b": 2}, "x; parts a, b"),
        ({"a": "x.y", "b": "x.z", "c": "x"}, {"a": 1, "b": 2, "c": []}, "x; parts a, b, c"),
        ({"a": "x", "b": "x.y.z", "c": "x"}, {"a": {"k": 1}, "b": 1, "c": {}}, "x; parts a, c"),
        ({"a": "x.y", "b": "x", "c": "x"}, {"a": 1, "b": {"k": 1}, "c": {"l": 2}}, "x; parts b, c"),
    ],
)
def test_a_collision_is_no_answer(groups: Any, values: Any, detail: str) -> None:
    assert collision(groups, values) == detail


@pytest.mark.parametrize(
    ("groups", "values", "value"),
    [
        ({"a": "", "b": "x.y"}, {"a": {"x": {"k": 0}}, "b": 2}, {"x": {"k": 0, "y": 2}}),
        ({"a": "x.y", "b": ""}, {"a": 1, "b": {"x": {"k": 0}}}, {"x": {"y": 1, "k": 0}}),
        ({"a": "x.y", "b": "x"}, {"a": 1, "b": {"k": 0}}, {"x": {"y": 1, "k": 0}}),
        (
            {"a": "x.y.z", "b": "x.y.w", "c": "x.v"},
            {"a": 1, "b": 2, "c": 3},
            {"x": {"y": {"z": 1, "w": 2}, "v": 3}},
        ),
        (AB, {"a": {"x": 1}, "b": {"y": 1}}, {"x": 1, "y": 1}),
    ],
)
@pytest.mark.parametrize("merge", ["shallow", "deep"])
def test_groups_go_through_objects(groups: Any, values: Any, value: Any, merge: str) -> None:
    assert answer(groups, values, merge=merge) == value


@pytest.mark.parametrize(
    ("groups", "values", "first", "last", "lost"),
    [
        (AB, {"a": {"x": 1, "k": 0}, "b": {"x": 2}}, {"x": 1, "k": 0}, {"x": 2, "k": 0}, ["x"]),
        ({"a": "x", "b": "x"}, {"a": {"k": 1}, "b": {"l": 2}}, {"x": {"k": 1}}, {"x": {"l": 2}}, ["x"]),
        ({"a": "", "b": "x.y"}, {"a": {"x": 1}, "b": 2}, {"x": 1}, {"x": {"y": 2}}, ["x"]),
        ({"a": "x.y", "b": "x"}, {"a": 1, "b": 2}, {"x": {"y": 1}}, {"x": 2}, ["x"]),
        # The part whose object stands first at x loses it, and the group in it stays.
        (
            {"a": "x", "b": "x.y.z", "c": "x"},
            {"a": {"k": 1, "y": {"l": 2}}, "b": 3, "c": {"m": 4}},
            {"x": {"k": 1, "y": {"l": 2, "z": 3}}},
            {"x": {"y": {"z": 3}, "m": 4}},
            ["x"],
        ),
    ],
)
def test_who_wins(groups: Any, values: Any, first: Any, last: Any, lost: list[str]) -> None:
    for which, expected in (("first", first), ("last", last)):
        made = merged(groups, values, on_collision=which)
        assert json.loads(made.encode()) == expected
        assert [one.member for one in made.collisions] == lost
        assert made.collided == len(lost)


def test_who_has_lost_is_told() -> None:
    values = {"a": {"x": 1}, "b": {"x": 2}}
    assert merged(AB, values, on_collision="first").collisions == (Collision("x", "a", "b"),)
    assert merged(AB, values, on_collision="last").collisions == (Collision("x", "b", "a"),)
    groups = {"a": "x.y", "b": "x.z", "c": "x"}
    made = merged(groups, {"a": 1, "b": 2, "c": 3}, on_collision="last")
    assert made.collisions == (Collision("x", "c", "a"), Collision("x", "c", "b"))


def test_of_many_collisions_some_are_told_and_all_are_counted() -> None:
    many = {f"m{i}": i for i in range(1000)}
    made = merged(AB, {"a": many, "b": many}, on_collision="last")
    assert len(made.collisions) == MAX_COLLISIONS
    assert made.collided == 1000


# -- deep


def test_deep_merges_objects_and_nothing_else() -> None:
    values = {"a": {"x": {"l": [1], "o": {"p": 1}}}, "b": {"x": {"o": {"q": 2}, "r": 3}}}
    assert answer(AB, values, merge="deep") == {"x": {"l": [1], "o": {"p": 1, "q": 2}, "r": 3}}
    lists = {**values, "b": {"x": {"l": [2]}}}
    assert collision(AB, lists, merge="deep") == "x.l; parts a, b"
    assert answer(AB, lists, merge="deep", on_collision="last")["x"]["l"] == [2]


def test_deep_merges_more_than_two() -> None:
    groups = {"a": "", "b": "x", "c": "x.y", "d": ""}
    values = {"a": {"x": {"k": 1}}, "b": {"y": {"l": 2}}, "c": {"m": 3}, "d": {"x": {"y": {"n": 4}}}}
    assert answer(groups, values, merge="deep") == {"x": {"k": 1, "y": {"l": 2, "m": 3, "n": 4}}}


def test_deep_in_objects_that_are_nested_too_deep() -> None:
    body = b'{"a":' * 800 + b"1" + b"}" * 800
    with pytest.raises(PartFailure, match="nested too deep"):
        merger(AB, merge="deep", on_collision="last").merge({"a": decode_json(body), "b": decode_json(body)})


def test_names_that_an_upstream_has_made_are_harmless_in_the_log() -> None:
    for name, shown in (("a\nb", '\\"a\\nb\\"; parts a, b'), ("x" * 1000, "x" * 197 + "...; parts a, b")):
        assert collision(AB, {"a": {name: 1}, "b": {name: 2}}) == shown


# -- lists


def test_a_list_has_the_elements_of_all_parts() -> None:
    values = {"b": [1, [2]], "a": {"k": 1}, "c": None, "d": []}
    made = merged(dict.fromkeys("abcd", ""), values, answer="list")
    assert json.loads(made.encode()) == [{"k": 1}, 1, [2], None]


def test_a_group_goes_through_members_alone() -> None:
    with pytest.raises(BadValue, match="members alone"):
        Merger(Aggregate(parts={"a": Part(upstream="u", group="x[0]")}))


# -- properties

NAMES = st.sampled_from(["x", "y", "z"])
VALUES = st.recursive(
    st.none() | st.integers(0, 3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=3)
PARTS = st.lists(
    st.tuples(st.just(""), OBJECTS)
    | st.tuples(st.lists(NAMES, min_size=1, max_size=3).map(".".join), VALUES),
    max_size=4,
)
MERGE = st.sampled_from(["shallow", "deep"])


def named(parts: list[tuple[str, Any]]) -> tuple[dict[str, str], dict[str, Any]]:
    groups = {f"p{i}": group for i, (group, _) in enumerate(parts)} or {"p0": "x"}
    return groups, {f"p{i}": value for i, (_, value) in enumerate(parts)}


def nested(group: str, value: Any) -> Any:
    for name in reversed(group.split(".") if group else []):
        value = {name: value}
    return value


def deep(left: Any, right: Any, which: str) -> Any:
    if isinstance(left, dict) and isinstance(right, dict):
        names = {**left, **right}
        return {
            name: deep(left[name], right[name], which) if name in left and name in right else names[name]
            for name in names
        }
    return left if which == "first" else right


@given(PARTS, st.sampled_from(["first", "last"]))
@example([("", {"x": {"y": 1}}), ("x.y.z", 2)], "last")
def test_deep_is_the_merge_of_what_each_part_would_be_alone(parts: list[tuple[str, Any]], which: str) -> None:
    groups, values = named(parts)
    expected: Any = {}
    for group, value in parts:
        expected = deep(expected, nested(group, value), which)
    made = merged(groups, values, merge="deep", on_collision=which)
    assert json.loads(made.encode()) == expected
    assert exact(made.encode()) == exact(json.dumps(expected)), "the order too"


def leaves(value: Any, path: tuple[str, ...] = ()) -> set[tuple[tuple[str, ...], str]]:
    if isinstance(value, dict) and value:
        return {leaf for name, one in value.items() for leaf in leaves(one, (*path, name))}
    return set() if value == {} else {(path, json.dumps(value))}


@given(PARTS, MERGE)
def test_an_answer_without_collisions_has_all_that_the_parts_have(
    parts: list[tuple[str, Any]], merge: str
) -> None:
    groups, values = named(parts)
    why = reason(lambda: merged(groups, values, merge=merge))
    assert why in ("", "aggregate-collision")
    made = merged(groups, values, merge=merge, on_collision="last")
    assert (made.collided > 0) is bool(why)
    if why:
        return
    everything = {leaf for group, value in parts for leaf in leaves(nested(group, value))}
    assert leaves(json.loads(made.encode())) == everything


@given(PARTS, MERGE, st.sampled_from(["first", "last"]))
def test_what_is_lost_is_told(parts: list[tuple[str, Any]], merge: str, which: str) -> None:
    groups, values = named(parts)
    made = merged(groups, values, merge=merge, on_collision=which)
    there = leaves(json.loads(made.encode()))
    told = [(tuple(one.member.split(".")), one.lost) for one in made.collisions]
    for name, group in groups.items():
        if name in values:
            for path, text in leaves(nested(group, values[name])) - there:
                assert any(path[: len(at)] == at and lost == name for at, lost in told), (name, path, text)


@given(PARTS, MERGE, st.sampled_from(["first", "last"]))
def test_it_makes_no_difference_what_is_open_already(
    parts: list[tuple[str, Any]], merge: str, which: str
) -> None:
    groups, values = named(parts)
    made = merged(groups, values, merge=merge, on_collision=which)

    def all_open(value: Value) -> Value:
        value = opened(value)
        if isinstance(value, dict):
            return {name: all_open(one) for name, one in value.items()}
        return [all_open(one) for one in value] if isinstance(value, list) else value

    open_values = {name: all_open(decode_json(json.dumps(one).encode())) for name, one in values.items()}
    before = encode(dict(open_values))
    again = merger(groups, merge=merge, on_collision=which).merge(open_values)
    assert exact(again.encode()) == exact(made.encode())
    assert again.collisions == made.collisions
    assert encode(dict(open_values)) == before, "the parts' own values are not changed"
