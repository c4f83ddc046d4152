"""What the keys of a part make of its value, and JMESPath; the examples of docs/aggregation-shapes.md."""

from __future__ import annotations

import json
import tomllib
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.docs import Block, blocks
from support.shapes import aggregate, condition, exact, part, reason, shaped

from fastgate.aggregation.decoders import decode_body
from fastgate.aggregation.documents import Value, decode_json, encode, opened
from fastgate.aggregation.expressions import MAX_LENGTH, Expression, check
from fastgate.aggregation.failures import PartFailure
from fastgate.aggregation.merge import Merger
from fastgate.aggregation.shape import compile_shape
from fastgate.config.json_paths import Path, write_path
from fastgate.config.units import BadValue

# -- the page


def examples() -> list[tuple[Block, Block, Block]]:
    """(keys, what comes, what it becomes)."""
    found = [
        block
        for block in blocks("ini", "json", "xml", "csv", "form")
        if block.page.name == "aggregation-shapes.md"
    ]
    assert len(found) % 3 == 0
    return list(zip(found[::3], found[1::3], found[2::3], strict=True))


@pytest.mark.parametrize(("keys", "given", "made"), examples(), ids=str)
def test_an_example_of_the_page(keys: Block, given: Block, made: Block) -> None:
    tables = tomllib.loads(keys.text)
    if "parts" in tables:
        values = opened(decode_json(given.text.encode()))
        assert isinstance(values, dict)
        result = Merger(aggregate(tables)).merge(values).encode()
    else:
        decode = tables.get("decode", "json")
        value = decode_body(given.text.rstrip("\n").encode(), None, decode)
        assert decode == "json" or given.kind == decode
        result = encode(shaped(value, **tables))
    assert exact(result) == exact(made.text)


def test_each_key_has_an_example() -> None:
    text = "\n".join(keys.text for keys, _, _ in examples())
    named = {
        "decode", "target", "jmespath", "filter", "pick", "drop", "rename", "map", "flatten",
        "group", "merge", "on_collision", "answer",
    }  # fmt: skip
    assert {key for key in named if f"{key} =" in text} == named


# -- key by key


def made(body: str, **keys: Any) -> Any:
    before = decode_json(body.encode())
    result = encode(shaped(before, **keys))
    # It makes no difference how much of the value is open already, and that is not changed.
    whole = all_open(before)
    assert encode(shaped(whole, **keys)) == result or exact(encode(shaped(whole, **keys))) == exact(result)
    assert exact(encode(whole)) == exact(body)
    return json.loads(result, parse_float=Decimal)


def all_open(value: Value) -> Value:
    value = opened(value)
    if isinstance(value, dict):
        return {name: all_open(member) for name, member in value.items()}
    return [all_open(element) for element in value] if isinstance(value, list) else value


def failure(body: str, **keys: Any) -> str:
    with pytest.raises(PartFailure) as caught:
        shaped(decode_json(body.encode()), **keys)
    assert caught.value.reason == "part-type"
    return caught.value.detail


def test_a_part_without_keys_has_no_shape() -> None:
    assert compile_shape(part(group="user"), condition) is None


@pytest.mark.parametrize(
    ("body", "target", "value"),
    [('{"a":{"b":1}}', "a.b", 1), ('{"a":null}', "a", None), ("[[1,2]]", "[0][1]", 2)],
)
def test_target(body: str, target: str, value: Any) -> None:
    assert made(body, target=target) == value


@pytest.mark.parametrize(
    ("body", "target"), [("{}", "a"), ('{"a":1}', "a.b"), ("[]", "[0]"), ("[]", "a"), ("null", "a")]
)
def test_a_target_that_is_not_there(body: str, target: str) -> None:
    assert failure(body, target=target) == f"target: there is no {target}"


@pytest.mark.parametrize(
    ("body", "keys", "value"),
    [
        ("[3,1,2]", {"value": "{item}", "not_equals": "1"}, [3, 2]),
        ("[3,1,2]", {"value": "{index}", "one_of": ["0", "2"]}, [3, 2]),
        ('[{"x":[1,2]},{"x":[2]}]', {"list": "[].x", "value": "{item}", "equals": "2"}, [{"x": [2]}] * 2),
        ('{"a":[[1],[1]]}', {"list": "a[1]", "value": "{item}", "equals": "2"}, {"a": [[1], []]}),
        ('{"a":null}', {"list": "a", "value": "{item}"}, {"a": None}),
        ('{"b":1}', {"list": "a", "value": "{item}"}, {"b": 1}),
        ('[{"x":1},{},{"x":null}]', {"value": "{item.x}", "present": True}, [{"x": 1}]),
        ('[{"x":1},{},{"x":null}]', {"value": "{item.x}", "present": False}, [{}, {"x": None}]),
    ],
)  # fmt: skip
def test_filter(body: str, keys: Any, value: Any) -> None:
    assert made(body, filter=keys) == value


def test_filters_one_after_the_other() -> None:
    both = [{"value": "{item}", "not_equals": "1"}, {"value": "{index}", "equals": "0"}]
    assert made("[1,2,3]", filter=both) == [2]


@pytest.mark.parametrize(
    ("body", "pick", "value"),
    [
        ('{"b":1,"a":2,"c":3}', ["c", "b"], '{"b":1,"c":3}'),
        ('{"a":{"b":1,"c":2}}', ["a.b", "a"], '{"a":{"b":1,"c":2}}'),
        ('{"a":{"b":1,"c":2}}', ["a", "a.b"], '{"a":{"b":1,"c":2}}'),
        ('{"a":1}', ["b", "c.d"], "{}"),
        ('{"a":{}}', ["a.b"], '{"a":{}}'),
        ('{"a":null}', ["a.b"], '{"a":null}'),
        ('{"a":"text","b":1}', ["a.b", "b"], '{"b":1}'),
        ('{"a":{"b":1}}', ["a[].b"], "{}"),
        ('[null,{"a":1,"b":2},3,[]]', ["[].a"], '[null,{"a":1}]'),
        ("[1,2,3]", ["[2]", "[0]"], "[1,3]"),
        ('[{"a":1,"b":2},{"a":3,"b":4}]', ["[].a", "[1].b"], '[{"a":1},{"a":3,"b":4}]'),
        ('[{"a":1,"b":2},{"a":3,"b":4}]', ["[1].b", "[].a"], '[{"a":1},{"a":3,"b":4}]'),
        ('[[1,2],[3]]', ["[][0]"], "[[1],[3]]"),
        ("null", ["a"], "null"),
    ],
)  # fmt: skip
def test_pick(body: str, pick: list[str], value: str) -> None:
    made(body, pick=pick)
    assert exact(encode(shaped(decode_json(body.encode()), pick=pick))) == exact(value)


def test_pick_of_what_is_of_another_kind() -> None:
    assert failure("[1]", pick="a") == "pick: expected an object, got a list"
    assert failure('"a"', pick="[].a") == "pick: expected a list, got a string"


@pytest.mark.parametrize(
    ("body", "drop", "value"),
    [
        ('{"a":1,"b":2}', ["a", "z"], {"b": 2}),
        ('{"a":{"b":1,"c":2}}', ["a.b"], {"a": {"c": 2}}),
        ('{"a":{"b":1}}', ["a.b", "a"], {}),
        ("[1,2,3]", ["[0]", "[2]", "[7]"], [2]),
        ("[1,2,3]", ["[]"], []),
        ('[{"a":1,"b":2},{"a":3,"b":4}]', ["[].a", "[1].b"], [{"b": 2}, {}]),
        ('{"a":[1]}', ["a.b", "a.c[0]"], {"a": [1]}),
        ('{"a":1}', ["[0]"], {"a": 1}),
        ("null", ["a"], None),
        ("1", ["a"], 1),
    ],
)
def test_drop(body: str, drop: list[str], value: Any) -> None:
    assert made(body, drop=drop) == value


@pytest.mark.parametrize(
    ("body", "rename", "value"),
    [
        ('{"a":1,"b":2}', {"a": "c"}, '{"c":1,"b":2}'),
        ('{"a":1,"b":2}', {"a": "b", "b": "a"}, '{"b":1,"a":2}'),
        ('{"a":1}', {"a": "a"}, '{"a":1}'),
        ('{"a":1}', {"z": "a", "a.b": "c"}, '{"a":1}'),
        ('{"a":{"b":1}}', {"a.b": "c", "a": "d"}, '{"d":{"c":1}}'),
        ('[{"a":1},{"a":2}]', {"[].a": "b", "[1].a": "c"}, '[{"b":1},{"c":2}]'),
        ('{"x.y":1}', {'"x.y"': "z"}, '{"z":1}'),
        ("null", {"a": "b"}, "null"),
    ],
)
def test_rename(body: str, rename: dict[str, str], value: str) -> None:
    made(body, rename=rename)
    assert exact(encode(shaped(decode_json(body.encode()), rename=rename))) == exact(value)


@pytest.mark.parametrize("body", ['{"a":1,"b":2}', '{"b":2,"a":1}'])
def test_no_member_is_lost_by_a_renaming(body: str) -> None:
    assert failure(body, rename={"a": "b"}) == "rename: two members would be b"


@pytest.mark.parametrize(
    ("body", "map", "value"),
    [
        ('[{"a":1},{"a":null},{},2,null]', {"": "a"}, [1, None]),
        ('{"l":[{"a":{"b":[1,2]}}]}', {"l": "a.b[1]"}, {"l": [2]}),
        ('{"l":[{"m":[{"a":1}]},{"m":[]}]}', {"l[].m": "a"}, {"l": [{"m": [1]}, {"m": []}]}),
        ('{"l":[{"m":[{"a":1}]}]}', {"l": "m", "l[]": "a"}, {"l": [[1]]}),
        ('{"l":null}', {"l": "a"}, {"l": None}),
        ("{}", {"l": "a", "m.l": "b"}, {}),
        ("null", {"": "a"}, None),
    ],
)
def test_map(body: str, map: dict[str, str], value: Any) -> None:
    assert made(body, map=map) == value


@pytest.mark.parametrize(
    ("body", "flatten", "value"),
    [
        ("[[1,[2]],3,[]]", "", [1, [2], 3]),
        ('{"l":[[[1]],[[2]]],"m":[[1]]}', ["l", "m"], {"l": [[1], [2]], "m": [1]}),
        ('[{"l":[[1]]},{"l":null},{}]', "[].l", [{"l": [1]}, {"l": None}, {}]),
    ],
)
def test_flatten(body: str, flatten: Any, value: Any) -> None:
    assert made(body, flatten=flatten) == value


@pytest.mark.parametrize(
    ("body", "keys", "detail"),
    [
        ('{"a":1}', {"flatten": "a"}, "flatten: a: expected a list, got a number"),
        ("{}", {"flatten": ""}, "flatten: expected a list, got an object"),
        ('{"a":{}}', {"map": {"a[].b": "c"}}, "map: a: expected a list, got an object"),
        ('{"a":[]}', {"map": {"a.b": "c"}}, "map: a: expected an object, got a list"),
        ("[0]", {"filter": {"list": "[]", "value": "{item}"}}, "filter: []: expected a list, got a number"),
    ],
)  # fmt: skip
def test_lists_that_are_none(body: str, keys: Any, detail: str) -> None:
    assert failure(body, **keys) == detail


def test_the_order_of_the_keys_is_that_of_the_page() -> None:
    body = '{"d":{"items":[{"s":{"t":[1]},"k":"1","z":0},{"s":{"t":[2]},"k":"2"},{"s":{"t":[3]},"k":"1"}]}}'
    keys = {
        "flatten": "list",
        "map": {"list": "u"},
        "rename": {"items": "list", "items[].s": "u"},
        "drop": "items[].k",
        "pick": ["items[].s", "items[].k"],
        "filter": {"list": "items", "value": "{item.k}", "equals": "1"},
        "jmespath": "{items: items[].{s: s.t, k: k}}",
        "target": "d",
    }
    assert made(body, **keys) == {"list": [1, 3]}


# -- properties

NAMES = st.sampled_from(["a", "b", "c", "x.y"])
SCALARS = st.none() | st.booleans() | st.sampled_from(["t", "u"]) | st.integers(0, 3)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=12,
)
PATHS = st.lists(NAMES | st.integers(0, 2) | st.none(), min_size=1, max_size=4).map(tuple)
BY_NAME = PATHS.filter(lambda path: not any(isinstance(step, int) for step in path))


def collected(value: Any, path: Path) -> list[Any]:
    """All that stands at a path, whatever is in its way."""
    if not path:
        return [value]
    step, rest = path[0], path[1:]
    if isinstance(step, str):
        return collected(value[step], rest) if isinstance(value, dict) and step in value else []
    if not isinstance(value, list):
        return []
    places = range(len(value)) if step is None else range(step, min(step + 1, len(value)))
    return [found for i in places for found in collected(value[i], rest)]


@given(VALUES, st.lists(BY_NAME, min_size=1, max_size=3))
def test_pick_keeps_all_that_its_paths_name_and_nothing_else(value: Any, paths: list[Path]) -> None:
    texts = [write_path(path) for path in paths]
    try:
        picked = made(json.dumps(value), pick=texts)
    except PartFailure:
        assert all(collected(value, path) == [] for path in paths)
        return
    for path in paths:
        assert collected(picked, path) == collected(value, path)
    if picked is not None:
        assert made(json.dumps(picked), pick=texts) == picked
        left = made(json.dumps(picked), drop=texts)
        assert scalars(left) <= {None}


@given(VALUES, st.lists(BY_NAME, min_size=1, max_size=3))
def test_drop_leaves_nothing_that_its_paths_name_and_all_else(value: Any, paths: list[Path]) -> None:
    left = made(json.dumps(value), drop=[write_path(path) for path in paths])
    for path in paths:
        assert collected(left, path) == []
    if not any(collected(value, path) for path in paths):
        assert left == value


def scalars(value: Any) -> set[Any]:
    if isinstance(value, dict):
        return {one for member in value.values() for one in scalars(member)}
    return {one for each in value for one in scalars(each)} if isinstance(value, list) else {value}


@given(VALUES, BY_NAME.filter(lambda path: isinstance(path[-1], str)))
def test_a_name_changed_and_changed_back(value: Any, path: Path) -> None:
    there = made(json.dumps(value), rename={write_path(path): "new"})
    assert collected(there, (*path[:-1], "new")) == collected(value, path)
    back = shaped(
        decode_json(json.dumps(there).encode()), rename={write_path((*path[:-1], "new")): str(path[-1])}
    )
    assert exact(encode(back)) == exact(json.dumps(value))


@st.composite
def keys_of_a_part(draw: st.DrawFn) -> dict[str, Any]:
    path = PATHS.map(write_path)
    by_member = PATHS.filter(lambda path: isinstance(path[-1], str)).map(write_path)
    one = PATHS.filter(lambda path: None not in path).map(write_path)
    root = path | st.just("")
    return draw(
        st.fixed_dictionaries(
            {},
            optional={
                "target": one,
                "filter": st.fixed_dictionaries(
                    {"list": root, "value": st.just("{item.a}"), "present": st.booleans()}
                ),
                "pick": st.lists(path, min_size=1, max_size=3, unique=True),
                "drop": st.lists(path, min_size=1, max_size=3, unique=True),
                "rename": st.dictionaries(by_member, NAMES, min_size=1, max_size=2),
                "map": st.dictionaries(root, one, min_size=1, max_size=2),
                "flatten": st.lists(root, min_size=1, max_size=2, unique=True),
            },
        )
    )  # fmt: skip


@given(VALUES, keys_of_a_part())
def test_any_value_and_any_keys_give_a_value_or_a_reason(value: Any, keys: dict[str, Any]) -> None:
    why = reason(lambda: made(json.dumps(value), **keys))
    assert why in ("", "part-type") or (why == "part-value" and "filter" in keys)


def test_numbers_pass_through_all_keys_as_they_are_written() -> None:
    body = '{"d":[{"n":12345678901234567890123,"k":1},{"n":1.10},{"n":1e400},{"n":-0},{"n":1E+2}]}'
    value = shaped(
        decode_json(body.encode()),
        jmespath="@",
        target="d",
        pick="[].n",
        drop="[].k",
        rename={"[].n": "m"},
        map={"": "m"},
        flatten="",
    )
    assert encode(value) == b"[12345678901234567890123,1.10,1e400,-0,1E+2]"


# -- JMESPath

DOCUMENT = (
    b'{"big":12345678901234567890123,"price":1.10,"far":1e400,"beyond":1e99999999999999999999,"zero":-0,'
    b'"list":[3.0,1.10,2],"text":"x","nothing":null,"items":[{"n":"b","p":10.50},{"n":"a","p":9.9}]}'
)


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("[big, price, far, beyond, zero]", "[12345678901234567890123,1.10,1e400,1e99999999999999999999,-0]"),
        ("price == `1.1`", "true"),
        ("price > `1.05`", "true"),
        ("far > big && beyond > far", "true"),
        ("zero == `0`", "true"),
        ("!zero", "false"),
        ("sort(list)", "[1.10,2,3.0]"),
        ("[max(list), min(list)]", "[3.0,1.10]"),
        ("sort_by(items, &p)[].n", '["a","b"]'),
        ("max_by(items, &p).p", "10.50"),
        ("list[?@ > `1.5`]", "[3.0,2]"),
        ("sum(list)", "6.10"),
        ("sum([`1`, `2`])", "3"),
        ("sum([big, `1`])", "12345678901234567890124"),
        ("sum(`[]`)", "0"),
        ("avg([`1`, `2`, `3`])", "2"),
        ("avg([`1`, `2`])", "1.5"),
        ("avg(`[]`)", "null"),
        ("[ceil(price), floor(price), ceil(big), floor(far)]", "[2,1,12345678901234567890123,1e400]"),
        ("[ceil(`-0.5`), floor(`-0.5`), floor(beyond)]", "[0,-1,1e99999999999999999999]"),
        ("[abs(`-1.50`), abs(`-3`), abs(price)]", "[1.5,3,1.10]"),
        ("to_string(list)", '"[3.0,1.10,2]"'),
        ("to_string(text)", '"x"'),
        ("[to_number('1.10'), to_number('1e400'), to_number(price)]", "[1.10,1e400,1.10]"),
        ("[to_number(' 1'), to_number('0x1'), to_number('nan'), to_number(`true`)]", "[null,null,null,null]"),
        ("[type(price), type(zero), type(text)]", '["number","number","string"]'),
        ("[type(far), type(`true`), type(`1`)]", '["number","boolean","number"]'),
        ("[price < text, text < price, text < 'y', nothing < price]", "[null,null,true,null]"),
        ("[contains(list, `1.1`), contains(text, 'x'), contains(text, price)]", "[true,true,false]"),
        ("join(',', ['a', 'b'])", '"a,b"'),
        ("length(list)", "3"),
        ("nothing", "null"),
        ("absent.at.all", "null"),
        ("`{\"a\": 1.10, \"b\": [10000000000000000000000]}`", '{"a":1.1,"b":[10000000000000000000000]}'),
        ("`plain`", '"plain"'),
    ],
)  # fmt: skip
def test_an_expression(expression: str, result: str) -> None:
    assert check(expression) is None
    assert exact(encode(Expression(expression).search(decode_json(DOCUMENT), 1000))) == exact(result)


@pytest.mark.parametrize(
    ("expression", "detail"),
    [
        ("length(price)", 'jmespath: length() takes "array", "object" or "string", and is given "number"'),
        ("sum(items)", "jmespath: sum() takes"),
        ("sort_by([items[0], {p: 'x'}], &p)", "jmespath: sort_by() takes"),
        ("max_by([items[0], {p: 'x'}], &p)", "jmespath: '>' not supported"),
        ("sum([far, beyond])", "jmespath: a number beyond all bounds"),
    ],
)
def test_a_function_that_is_given_what_it_does_not_take(expression: str, detail: str) -> None:
    with pytest.raises(PartFailure, match="part-type") as caught:
        Expression(expression).search(decode_json(DOCUMENT), 1000)
    assert caught.value.detail.startswith(detail)
    assert "10.50" not in caught.value.detail, "values are no matter of the log"


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("", "must not be empty"),
        ("a.[", "(at character 4)"),
        ("a b", '"b" is not expected (at character 3)'),
        ("a.?", "(at character 3)"),
        ("'a", "(at character 1)"),
        ("a || foo(b)", "there is no function foo() (at character 6)"),
        ("lenght(a)", 'did you mean "length"?'),
        ("length()", "length() takes 1 argument, not 0"),
        ("length(a, b)", "length() takes 1 argument, not 2"),
        ("merge()", "merge() takes 1 argument or more, not 0"),
        ("sort_by(a, b)", 'takes an expression as its argument 2: "&price"'),
        ("&a", "before an argument"),
        ("not_null(&a)", "before an argument"),
        ("a[::0]", "step of 0"),
        ("`NaN`", "no JSON"),
        ("`[1e400]`", "no JSON"),
        ('`"\\ud800"`', "surrogate"),
        ('{"\\ud800": a}', "surrogate"),
        ("!" * 100 + "a", "nested too deep"),
        ("(" * 2000 + "a", "nested too deep"),
        ("a" * (MAX_LENGTH + 1), "at most 4096 characters"),
        ("a[" + "9" * 4090 + "]", None),
    ],
)
def test_expressions_that_are_none(expression: str, why: str | None) -> None:
    told = check(expression)
    assert told is None if why is None else told is not None and why in told


@given(st.text(st.sampled_from("ab.[]{}()*?&|!<>=@:,'\"`\\-01 "), max_size=20), VALUES)
@example("[", None)
@example("{a", None)
@example("sort(", None)
def test_any_text_is_an_expression_or_has_a_reason(text: str, value: Any) -> None:
    try:
        expression = Expression(text)
    except BadValue:
        return
    body = json.dumps(value).encode()
    why = reason(lambda: encode(expression.search(decode_json(body), 10_000)))
    assert why in ("", "part-type", "part-too-large")


@pytest.mark.parametrize(
    ("step", "body"),
    [
        ("[@, @]", b"1"),
        ("[@, @][]", b"[1]"),
        ("join('', [@, @])", b'"abcdefgh"'),
        ("to_string([@, @])", b'"abcdefgh"'),
    ],
)
def test_an_expression_cannot_make_much_of_little(step: str, body: bytes) -> None:
    with pytest.raises(PartFailure, match="part-too-large"):
        Expression(" | ".join([step] * 60)).search(decode_json(body), 100_000)


def test_what_an_expression_makes_is_no_larger_than_the_part_may_be() -> None:
    body = json.dumps({"a": "x" * 600})
    assert made(body, jmespath="[a]", max_body="1KiB") == ["x" * 600]
    with pytest.raises(PartFailure, match="part-too-large"):
        shaped(decode_json(body.encode()), jmespath="[a, a]", max_body="1KiB")


@pytest.mark.parametrize("depth", [900, 5000])
def test_values_nested_too_deep_for_an_expression(depth: int) -> None:
    value: Value = []
    for _ in range(depth):
        value = [value]
    with pytest.raises(PartFailure, match="nested too deep"):
        Expression("@").search(value, 10**6)
