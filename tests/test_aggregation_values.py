"""What placeholders and conditions give."""

from types import MappingProxyType
from typing import Any

import pytest
from msgspec import Raw
from support.aggregation import part, values

from fastgate.aggregation.conditions import compile_filter, compile_when
from fastgate.aggregation.documents import MISSING, encode
from fastgate.aggregation.failures import PartFailure
from fastgate.aggregation.values import Values, compile_text
from fastgate.config.model import ListFilter, When
from fastgate.config.templates import Placeholder, read_template
from fastgate.plugins.api import Consumer

CONSUMER = Consumer(
    name="ann",
    plan="gold",
    claims=MappingProxyType(
        {"sub": "7", "n": 2**70, "on": True, "no": None, "org": {"ids": [1, 2.5]}, "odd": object()}
    ),
)
GIVEN = values(
    captures={"id": "a%2Fb%C3%A9", "bad": "%ff"},
    query="a=1&a=2&e=&flag&u=%C3%A9+x&bad=%ff",
    headers=[("X-A", "one"), ("x-a", "two"), ("x-u", "\xc3\xa9"), ("x-bad", "\xff")],
    cookies={"sid": "s1"},
    body=b'{"a": {"b": [1, 1.10, "x"]}, "null": null, "a.b": 12345678901234567890123}',
    consumer=CONSUMER,
    parts={
        "user": part(
            b'{"id": 7, "tier": "gold", "list": [{"x": true}]}', 201, {"etag": '"v1"', "x-bad": "\xff"}
        ),
        "gone": part(b"null", 0),
    },
    item=Raw(b'{"sku": "s", "price": 10.0}'),
    index=2,
)


def got(text: str, given: Values = GIVEN) -> Any:
    (placeholder,) = read_template(text)
    assert isinstance(placeholder, Placeholder)
    value = given.get(placeholder)
    return value if value is MISSING else encode(value).decode()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{path.id}", '"a/bé"'),
        ("{path.no}", MISSING),
        ("{query.a}", '"1"'),
        ("{query.e}", '""'),
        ("{query.flag}", '""'),
        ("{query.u}", '"é x"'),
        ("{query.no}", MISSING),
        ("{header.X-A}", '"one"'),
        ("{header.x-u}", '"é"'),
        ("{header.no}", MISSING),
        ("{cookie.sid}", '"s1"'),
        ("{cookie.no}", MISSING),
        ("{body.a.b[1]}", "1.10"),
        ("{body.a}", '{"b": [1, 1.10, "x"]}'),
        ("{body.null}", "null"),
        ('{body."a.b"}', "12345678901234567890123"),
        ("{body.a.no}", MISSING),
        ("{body.a.b.c}", MISSING),
        ("{method}", '"GET"'),
        ("{host}", '"shop.example"'),
        ("{client_ip}", '"192.0.2.1"'),
        ("{request_id}", '"req-1"'),
        ("{consumer.name}", '"ann"'),
        ("{consumer.plan}", '"gold"'),
        ("{claim.sub}", '"7"'),
        ("{claim.n}", str(2**70)),
        ("{claim.on}", "true"),
        ("{claim.no}", "null"),
        ("{claim.org.ids[1]}", "2.5"),
        ("{claim.org}", '{"ids": [1, 2.5]}'),
        ("{claim.org.no}", MISSING),
        ("{claim.org.ids[2]}", MISSING),
        ("{claim.sub.no}", MISSING),
        ("{part.user.id}", "7"),
        ("{part.user.list[0].x}", "true"),
        ("{part.user.no}", MISSING),
        ("{part.gone}", "null"),
        ("{part.other}", MISSING),
        ("{part_status.user}", "201"),
        ("{part_status.gone}", MISSING),
        ("{part_status.other}", MISSING),
        ("{part_header.user.ETag}", '"\\"v1\\""'),
        ("{part_header.user.no}", MISSING),
        ("{part_header.other.no}", MISSING),
        ("{item}", '{"sku": "s", "price": 10.0}'),
        ("{item.sku}", '"s"'),
        ("{index}", "2"),
        ("{query.a|int}", "1"),
        ("{query.no|int}", MISSING),
        ("{part.user.id|string}", '"7"'),
        ("{item.price|number}", "10.0"),
        ("{claim.on|bool}", "true"),
    ],
)
def test_each_source(text: str, value: Any) -> None:
    assert got(text) == value


@pytest.mark.parametrize(
    "text", ["{item}", "{item.a}", "{index}", "{consumer.name}", "{claim.a}", "{body}", "{body.a}"]
)
def test_what_is_not_there(text: str) -> None:
    assert got(text, values()) is MISSING


def test_what_says_nothing_is_missing() -> None:
    given = values(host="", client_ip="", consumer=Consumer(name="x"), body=b"")
    assert [got(t, given) for t in ("{host}", "{client_ip}", "{consumer.plan}", "{body}")] == [MISSING] * 4


@pytest.mark.parametrize(
    ("cast", "text", "value"),
    [
        ("int", "5", "5"),
        ("int", "-5", "-5"),
        ("int", "%2B5", "5"),
        ("int", "007", "7"),
        ("int", "0", "0"),
        ("int", "9" * 40, "9" * 40),
        ("int", "9" * 41, None),
        ("int", "5.0", None),
        ("int", "", None),
        ("int", "5%0A", None),
        ("int", "%D9%A5", None),
        ("int", "1e3", None),
        ("int", "+5", None),
        ("int", "5_0", None),
        ("number", "1.10", "1.10"),
        ("number", "-0.5E%2B10", "-0.5E+10"),
        ("number", "01", None),
        ("number", ".5", None),
        ("number", "1.", None),
        ("number", "NaN", None),
        ("number", "%2B1", None),
        ("number", "1%0A", None),
        ("bool", "true", "true"),
        ("bool", "false", "false"),
        ("bool", "True", None),
        ("bool", "1", None),
        ("string", "5", '"5"'),
    ],
)
def test_types(cast: str, text: str, value: Any) -> None:
    given = values(query=f"x={text}")
    if value is not None:
        assert got(f"{{query.x|{cast}}}", given) == value
        return
    with pytest.raises(PartFailure) as failure:
        got(f"{{query.x|{cast}}}", given)
    assert (failure.value.reason, failure.value.of_client) == ("part-value", True)


@pytest.mark.parametrize(
    ("text", "of_client"),
    [
        ("{query.bad}", True),
        ("{path.bad}", True),
        ("{header.x-bad}", True),
        ("{part_header.user.x-bad}", False),
        ("{part.user|string}", False),
        ("{body.null|string}", True),
        ("{claim.odd}", True),
    ],
)
def test_values_that_are_none(text: str, of_client: bool) -> None:
    with pytest.raises(PartFailure) as failure:
        got(text)
    assert (failure.value.reason, failure.value.of_client) == ("part-value", of_client)


def test_a_body_that_is_no_json_is_the_clients_fault_each_time() -> None:
    given = values(body=b'{"a": 1')
    for text in ("{body.a}", "{body.a}", "{body}", "{body}"):
        with pytest.raises(PartFailure) as failure:
            got(text, given)
        assert (failure.value.reason, failure.value.of_client) == ("part-value", True)


def test_a_body_that_nobody_names_is_not_read() -> None:
    assert compile_text(read_template("a{query.x}"))(values(query="x=1", body=b"no json")) == "a1"


@pytest.mark.parametrize("text", ["{part.user.list}", "{part.gone}", "{body.a}"])
def test_what_has_no_text_is_no_text(text: str) -> None:
    with pytest.raises(PartFailure):
        compile_text(read_template(f"x{text}"))(GIVEN)


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        (When(value="{part.user.tier}", equals="gold"), True),
        (When(value="{part.user.tier}", equals="Gold"), False),
        (When(value="{part.user.id}", equals="7"), True),
        (When(value="{part.user.list[0].x}", equals="true"), True),
        (When(value="{part.user.list}", equals="[]"), False),
        (When(value="{part.user.no}", equals=""), False),
        (When(value="{body.null}", equals="null"), True),
        (When(value="{part.user.tier}", not_equals="gold"), False),
        (When(value="{part.user.tier}", not_equals="x"), True),
        (When(value="{part.user.list}", not_equals="x"), True),
        (When(value="{part.user.no}", not_equals="x"), False),
        (When(value="{part.user.tier}", one_of=("silver", "gold")), True),
        (When(value="{part.user.no}", one_of=("silver", "gold")), False),
        (When(value="{part.user.tier}"), True),
        (When(value="{part.user.no}"), False),
        (When(value="{body.null}"), True),
        (When(value="{part.user.no}", present=False), True),
        (When(value="{part.user.tier}", present=False), False),
        (When(value="{query.a}-{query.e}", equals="1-"), True),
        (When(value="{query.a}-{query.no}", equals="1-"), False),
        (When(value="{query.a}-{query.no}", present=False), True),
        (When(value="{query.a|int}", equals="1"), True),
    ],
)
def test_a_condition(condition: When, holds: bool) -> None:
    assert compile_when((condition,))(GIVEN) is holds


def test_all_conditions_hold_or_none() -> None:
    yes, no = When(value="{query.a}", equals="1"), When(value="{query.a}", equals="2")
    assert compile_when((yes, yes))(GIVEN)
    assert not compile_when((yes, no))(GIVEN)
    assert not compile_when((no, yes))(GIVEN)


def test_a_filter_looks_at_each_element() -> None:
    elements = [Raw(b'{"p": 1}'), Raw(b'{"p": 2}'), Raw(b"null"), Raw(b'{"p": 1}')]

    def kept(**keys: Any) -> list[int]:
        holds = compile_filter(ListFilter(**keys))
        return [i for i, one in enumerate(elements) if holds(GIVEN, one, i)]

    assert kept(value="{item.p}", equals="1") == [0, 3]
    assert kept(value="{item.p}", not_equals="1") == [1]
    assert kept(value="{item.p}", present=False) == [2]
    assert kept(value="{item}", not_equals="null") == [0, 1, 3]
    assert kept(value="{index}", one_of=("1", "2")) == [1, 2]
    assert kept(value="{part.user.tier}-{item.p}", equals="gold-2") == [1]
