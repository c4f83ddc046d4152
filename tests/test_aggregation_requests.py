"""No value is more than a value: whatever placeholders give, a part's request is the one that was written."""

import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, quote, unquote_to_bytes

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.json import encode
from support.aggregation import part, values

from fastgate._core import parse_target
from fastgate.aggregation.failures import PartFailure
from fastgate.aggregation.requests import MAX_HEAD, compile_request
from fastgate.aggregation.values import MAX_TEXT, Values
from fastgate.config.model import GraphQl, Part

NASTY = [
    "",
    ".",
    "..",
    "...",
    "%2e%2e",
    "%2E",
    "/",
    "\\",
    "../..",
    "..\\",
    "?",
    "#",
    "&a=b",
    "=",
    ";",
    "+",
    " ",
    "\r\n",
    "\r\nHost: evil",
    "\n",
    "\t",
    "\0",
    "\x7f",
    "\ud800",
    "\udcff",
    '"',
    '"},{"',
    "\\u0022",
    "{x}",
    "}",
    "\x80",
    "é",
    "\u2028",
    "\U0001f600",
    "a" * 8192,
    "/" * 8192,
    "\U0001f600" * 8192,
    "a" * 8193,
    "a; admin=1",
]
ANY = st.one_of(
    st.sampled_from(NASTY),
    st.text(st.characters(exclude_categories=()), max_size=40),
    st.lists(st.sampled_from([*NASTY[:30], "x"]), max_size=5).map("".join),
)


Test = Callable[[str], None]


def nasty(test: Test) -> Test:
    for text in NASTY:
        test = example(text)(test)
    return settings(deadline=None)(test)


def escaped(text: str) -> str:
    """As a client may send it, bytes that are no UTF-8 too."""
    return quote(text.encode("utf-8", "surrogatepass"), safe="")


def is_text(text: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in text)


def asked(template: Part, given: Values) -> Any:
    """The request; or the failure, which is always one of a value."""
    try:
        return compile_request(template).build(given)
    except PartFailure as failure:
        if failure.reason != "part-value":
            raise
        return failure


def a_part(**keys: Any) -> Part:
    return Part(upstream="shop", **keys)


# -- injection -----------------------------------------------------------------------------------------------


@nasty
@given(ANY)
def test_a_value_stays_within_its_segment_of_the_path(text: str) -> None:
    template = a_part(path="/users/{path.id}/orders/x-{path.id}", query={"a": "1"})
    made = asked(template, values(captures={"id": escaped(text)}))
    if isinstance(made, PartFailure):
        dots = any(one.partition(";")[0] in (".", "..") for one in re.split(r"[/\\]", text))
        dots |= any(one.partition(";")[0] in (".", "..") for one in re.split(r"[/\\]", "x-" + text))
        assert not text or dots or "\0" in text or len(text) > 5000 or not is_text(text)
        assert made.of_client or "head" in made.detail
        return
    assert len(text) <= MAX_TEXT
    found = parse_target(made.target, b"h")
    assert found.path == made.target.partition(b"?")[0]  # in normal form already
    segments = [unquote_to_bytes(one).decode() for one in found.path.split(b"/")]
    assert segments == ["", "users", text, "orders", "x-" + text]
    assert found.query == b"a=1"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/a/.{query.x}", "."),
        ("/a/{query.x}.", "."),
        ("/a/%2e{query.x}", "."),
        ("/a/{query.x}", ".."),
        ("/a/{query.x}/b", ""),
        ("/a/{query.x}{query.x}", "."),
        ("/a/{query.x};v=1", "."),
        ("/a/{query.x}", "b/..%2Fc"),
    ],
)
def test_no_segment_becomes_one_of_dots_or_empty(path: str, text: str) -> None:
    made = asked(a_part(path=path), values(query=f"x={text}"))
    assert isinstance(made, PartFailure)
    assert made.of_client


@nasty
@given(ANY)
def test_a_value_stays_within_its_parameter(text: str) -> None:
    template = a_part(path="/find", query={"first": "{query.q}", "a&b": "<{query.q}>", "last": "1"})
    made = asked(template, values(query=f"other=2&q={escaped(text)}&q=second"))
    if isinstance(made, PartFailure):
        assert len(text) > 5000 or not is_text(text)
        return
    assert len(text) <= MAX_TEXT
    found = parse_target(made.target, b"h")
    assert found.path == b"/find"
    assert found.query is not None
    assert parse_qsl(found.query.decode(), keep_blank_values=True, strict_parsing=True) == [
        ("first", text),
        ("a&b", f"<{text}>"),
        ("last", "1"),
    ]


@nasty
@given(ANY)
def test_a_value_adds_no_line_to_the_head(text: str) -> None:
    template = a_part(headers={"X-One": "{query.q}", "X-Two": "a {query.q} b"})
    made = asked(template, values(query=f"q={escaped(text)}"))
    if isinstance(made, PartFailure):
        assert not re.fullmatch(r"[\t -~]{0,8192}", text) or text != text.strip(" \t")
        return
    assert len(text) <= MAX_TEXT
    assert made.fields.decode("ascii").split("\r\n") == [
        "Accept-Encoding: identity",
        f"X-One: {text}",
        f"X-Two: a {text} b",
        "",
    ]
    assert text == text.strip(" \t"), "a server would take it off"


@nasty
@given(ANY)
def test_a_value_is_one_cookie_alone(text: str) -> None:
    made = asked(a_part(headers={"Cookie": "s={query.q}; t=1"}), values(query=f"q={escaped(text)}"))
    if isinstance(made, PartFailure):
        assert not re.fullmatch(r"[!#-+\--:<-\[\]-~]{0,8192}", text)  # RFC 6265 4.1.1: cookie-octet
        return
    (cookie,) = made.fields.decode("ascii").split("\r\n")[1:-1]
    assert cookie == f"Cookie: s={text}; t=1"
    assert [pair.strip() for pair in cookie.removeprefix("Cookie: ").split(";")] == [f"s={text}", "t=1"]
    assert not set(text) & set('",\\ \t')


@nasty
@given(ANY)
def test_a_cookie_of_the_client_is_no_more_than_a_value(text: str) -> None:
    template = a_part(path="/s/{cookie.sid}", headers={"X-Sid": "{cookie.sid}"})
    raw = text.encode("utf-8", "surrogatepass").decode("latin-1")
    made = asked(template, values(cookies={"sid": raw}))
    if isinstance(made, PartFailure):
        assert made.of_client
        return
    assert made.target == b"/s/" + quote(text, safe="").encode()
    assert made.fields == f"Accept-Encoding: identity\r\nX-Sid: {text}\r\n".encode()


@nasty
@given(ANY)
def test_a_value_stays_within_its_field_of_a_form(text: str) -> None:
    made = asked(a_part(form={"a=b": "{query.q}", "last": "x{query.q}"}), values(query=f"q={escaped(text)}"))
    if isinstance(made, PartFailure):
        assert len(text) > MAX_TEXT or not is_text(text)
        return
    assert parse_qsl(made.body.decode("ascii"), keep_blank_values=True, strict_parsing=True) == [
        ("a=b", text),
        ("last", "x" + text),
    ]


@nasty
@given(ANY)
def test_a_value_stays_within_its_string_of_json(text: str) -> None:
    template = a_part(
        json='{"a": "{query.q}", "b": ["-{query.q}-", {"c": null}], "d": 1.10, "e{{": "{query.no}"}'
    )
    made = asked(template, values(query=f"q={escaped(text)}"))
    if isinstance(made, PartFailure):
        assert len(text) > MAX_TEXT or not is_text(text)
        return
    assert json.loads(made.body) == {"a": text, "b": [f"-{text}-", {"c": None}], "d": 1.10}


@nasty
@given(ANY)
def test_a_value_stays_within_its_variable_of_graphql(text: str) -> None:
    query = 'query Q($q: String) { find(q: $q) { id name(of: "x{y}") } }'
    template = a_part(
        graphql=GraphQl(query=query, operation="Q", variables={"q": "{query.q}", "n": "{query.n}"})
    )
    made = asked(template, values(query=f"q={escaped(text)}"))
    if isinstance(made, PartFailure):
        assert not is_text(text)
        return
    assert json.loads(made.body) == {"query": query, "operationName": "Q", "variables": {"q": text}}


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(JSON, JSON)
def test_a_json_value_keeps_its_type_and_its_text(mine: Any, other: Any) -> None:
    mine_text, other_text = json.dumps(mine).encode(), json.dumps(other).encode()
    given_values = values(
        body=b'{"in": [' + mine_text + b"]}", parts={"p": part(b'{"v":' + other_text + b"}")}
    )
    made = asked(a_part(json='{"a": "{body.in[0]}", "b": ["{part.p.v}"], "c": "{part.p}"}'), given_values)
    assert json.loads(made.body) == {"a": mine, "b": [other], "c": {"v": other}}
    assert mine_text in made.body  # byte for byte
    assert other_text in made.body


# -- what is sent --------------------------------------------------------------------------------------------


def test_a_request_without_placeholders_is_made_once() -> None:
    template = compile_request(
        a_part(path="/a%20b", query={"q": "x y", "z": ""}, headers={"X-A": "1"}, json='{"n": 1.50}')
    )
    made = template.build(values())
    assert made is template.build(values())
    assert made.method == "POST"
    assert made.target == b"/a%20b?q=x%20y&z="
    assert made.fields == b"Accept-Encoding: identity\r\nContent-Type: application/json\r\nX-A: 1\r\n"
    assert made.body == b'{"n":1.50}'


@pytest.mark.parametrize(
    "keys",
    [
        {"path": "/{path.id}"},
        {"query": {"a": "{path.id}"}},
        {"headers": {"a": "{path.id}"}},
        {"pass_body": True},
        {"json": '["{path.id}"]'},
        {"form": {"a": "{path.id}"}},
        {"pass_query": ("a",)},
        {"pass_headers": ("a",)},
        {"graphql": GraphQl(query="{a}", variables={"a": "{path.id}"})},
    ],
)
def test_one_that_takes_anything_of_the_client_is_made_anew(keys: dict[str, Any]) -> None:
    template = compile_request(a_part(**keys))
    first = template.build(values(captures={"id": "1"}, query="a=1", headers=[("a", "1")], body=b"1"))
    assert template.build(values(captures={"id": "2"}, query="a=2", headers=[("a", "2")], body=b"2")) != first


@pytest.mark.parametrize(
    ("keys", "method"),
    [
        ({}, "GET"),
        ({"json": "1"}, "POST"),
        ({"form": {"a": "b"}}, "POST"),
        ({"pass_body": True}, "POST"),
        ({"graphql": GraphQl(query="{a}")}, "POST"),
        ({"json": "1", "method": "PUT"}, "PUT"),
        ({"method": "HEAD"}, "HEAD"),
    ],
)
def test_the_method(keys: dict[str, Any], method: str) -> None:
    assert compile_request(a_part(**keys)).method == method


def test_what_has_no_value_is_left_out() -> None:
    made = asked(
        a_part(
            query={"a": "{query.no}", "b": "{part.p.no}"},
            headers={"X-A": "{header.no}"},
            json='{"a": "{query.no}", "b": ["{part.p.no}", 1]}',
        ),
        values(parts={"p": part(b"{}")}),
    )
    assert (made.target, made.body) == (b"/", b'{"b":[1]}')
    assert b"X-A" not in made.fields


@pytest.mark.parametrize(
    ("keys", "of_client"),
    [
        ({"path": "/{query.no}"}, True),
        ({"path": "/{part.p.no}"}, False),
        ({"query": {"a": "-{header.no}"}}, True),
        ({"headers": {"a": "-{part_header.p.no}"}}, False),
        ({"json": '"{body.no}"'}, True),
        ({"form": {"a": "-{cookie.no}"}}, True),
        ({"json": '["-{part.p.no}"]'}, False),
    ],
)
def test_what_has_no_value_where_one_is_needed_fails_the_part(keys: dict[str, Any], of_client: bool) -> None:
    with pytest.raises(PartFailure) as failure:
        compile_request(a_part(**keys)).build(values(parts={"p": part(b"{}")}))
    assert (failure.value.reason, failure.value.of_client) == ("part-value", of_client)


def test_parameters_of_the_client_go_along_as_they_came() -> None:
    template = a_part(query={"v": "2"}, pass_query=("page", "sort by"))
    made = asked(template, values(query="page=%31&x=1&sort+by=a%2cb&page=2&pag%65=3&page"))
    assert made.target == b"/?v=2&page=%31&sort+by=a%2cb&page=2&pag%65=3&page"
    assert asked(template, values(query="x=1")).target == b"/?v=2"


def test_fields_of_the_client_go_along_each_as_a_line() -> None:
    template = a_part(pass_headers=("Authorization", "X-Tag", "X-None", "Accept-Encoding"))
    fields = [("authorization", "Bearer t"), ("X-Tag", "a"), ("x-tag", "\xe9"), ("cookie", "secret")]
    made = asked(template, values(headers=fields))
    assert made.fields == b"Authorization: Bearer t\r\nX-Tag: a\r\nX-Tag: \xe9\r\n"


def test_nothing_of_the_client_goes_along_unasked() -> None:
    fields = [("authorization", "Bearer t"), ("cookie", "a=b"), ("x-real-ip", "1.2.3.4")]
    made = asked(
        a_part(path="/{path.id}"), values(captures={"id": "1"}, headers=fields, query="a=b", body=b"x")
    )
    assert made == ("GET", b"/1", b"Accept-Encoding: identity\r\n", b"")


def test_the_body_of_the_client_goes_along_with_its_type() -> None:
    template = a_part(pass_body=True)
    made = asked(template, values(headers=[("content-type", "text/csv; a=b")], body=b"\x00\xff"))
    assert made.body == b"\x00\xff"
    assert made.fields == b"Accept-Encoding: identity\r\nContent-Type: text/csv; a=b\r\n"
    assert asked(template, values()).fields == b"Accept-Encoding: identity\r\n"
    other = a_part(pass_body=True, headers={"content-type": "text/plain"})
    made = asked(other, values(headers=[("content-type", "text/csv")], body=b"x"))
    assert made.fields == b"Accept-Encoding: identity\r\ncontent-type: text/plain\r\n"


def test_graphql_is_asked_as_graphql_over_http_says() -> None:
    made = asked(
        a_part(graphql=GraphQl(query="query A($id: ID!) { a }", variables={"id": "{part.p.id}", "n": "7"})),
        values(parts={"p": part(b'{"id": 12345678901234567890}')}),
    )
    assert made.method == "POST"
    assert made.body == b'{"query":"query A($id: ID!) { a }","variables":{"id":12345678901234567890,"n":"7"}}'
    assert b"\r\nContent-Type: application/json\r\n" in made.fields
    assert b"\r\nAccept: application/graphql-response+json, application/json;q=0.9\r\n" in made.fields


def test_a_head_too_long_fails_the_part() -> None:
    made = asked(a_part(query={str(i): "{body}" for i in range(9)}), values(body=encode("a" * 8000)))
    assert isinstance(made, PartFailure)
    assert str(MAX_HEAD) in made.detail


def test_an_element_and_its_place_are_values() -> None:
    made = asked(
        a_part(path="/items/{item.sku}", query={"n": "{index}"}),
        values(item=Raw(b'{"sku": "a/b"}'), index=3),
    )
    assert made.target == b"/items/a%2Fb?n=3"


def test_the_whole_cookie_field_may_have_many() -> None:
    made = asked(a_part(headers={"Cookie": "{header.cookie}"}), values(headers=[("cookie", "a=1; b=2")]))
    assert b"\r\nCookie: a=1; b=2\r\n" in made.fields
