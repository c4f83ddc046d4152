"""Parts of aggregations in Python: what is sent for them, and what their bodies become."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Raw

from fastgate import _core
from fastgate.aggregation.escaping import header_value, path_of, query_of
from fastgate.plugins import PartFailure
from fastgate.testing import FakeServices


@dataclass
class Order:
    id: int
    total: Decimal


@pytest.fixture
def services() -> FakeServices:
    return FakeServices("users", "orders")


# -- what is sent


async def test_bodies_and_fields(services: FakeServices) -> None:
    async with services.gather() as g:
        g.post("orders", "/", json=Order(1, Decimal("2.50")), type=None, headers={"X-A": 7, "x-none": None})
        g.post("orders", "/", json=None, body=b"a=1", headers={"Content-Type": "x/form"}, type=None)
        g.request("DELETE", "orders", "/{}", "a b", query={"q": ["x&y", 1], "n": None, "t": True}, type=None)
    one, two, three = services["orders"].requests
    assert one.headers["content-type"] == "application/json"
    assert one.headers["x-a"] == "7"
    assert one.headers["accept-encoding"] == "identity"
    assert "x-none" not in one.headers
    assert one.json() == {"id": 1, "total": "2.50"}
    assert (two.body, two.headers["content-type"]) == (b"a=1", "x/form")
    assert (three.method, three.target) == ("DELETE", "/a%20b?q=x%26y&q=1&t=true")


@pytest.mark.parametrize(
    ("template", "values", "path"),
    [
        ("/users/{}", (7,), "/users/7"),
        ("/users/{}", ("a/b?c#d%e&",), "/users/a%2Fb%3Fc%23d%25e%26"),
        ("/users/{}", ("é",), "/users/%C3%A9"),
        ("/v{}.{}/x", (1, True), "/v1.true/x"),
        ("/{}", (UUID(int=1),), "/00000000-0000-0000-0000-000000000001"),
        ("/{}", (Decimal("1.50"),), "/1.50"),
        ("/{}", ("...",), "/..."),
        ("/%7B/a", (), "/%7B/a"),
    ],
)
def test_paths(template: str, values: tuple[object, ...], path: str) -> None:
    assert path_of(template, values) == path


@pytest.mark.parametrize(
    "value",
    ["", ".", "..", "a/../b", "..\\x", "\0", "\ud800", None, [1], {}, "x" * 9000],
)
def test_values_that_no_path_holds(value: object) -> None:
    with pytest.raises(PartFailure, match="part-value"):
        path_of("/users/{}", (value,))


@pytest.mark.parametrize("template", ["/{a}", "/{", "/}", "/{0}", "users/{}", "users", "/{}?a=1"])
def test_paths_that_are_none(template: str) -> None:
    with pytest.raises(ValueError, match=r"placeholder|no path|query="):
        path_of(template, ("x",) * template.count("{}"))


def test_as_many_values_as_placeholders() -> None:
    for template, values in (("/{}", ()), ("/{}", (1, 2)), ("/", (1,))):
        with pytest.raises(TypeError, match="values"):
            path_of(template, values)


@pytest.mark.parametrize(
    "path", ["/a/../b", "/a/%2e%2E/b", "/a/..%2fb", "/a?b=1", "/a#b", "/a b", "/a\r\nb", "/é", "/%zz", "/./a"]
)
def test_what_an_f_string_may_have_made(path: str) -> None:
    with pytest.raises(PartFailure, match="part-value"):
        path_of(path, ())


@given(st.text())
def test_a_value_stays_within_its_segment(value: str) -> None:
    try:
        path = path_of("/a/{}/b", (value,))
    except PartFailure:
        return
    target = _core.parse_target(path.encode() + b"?" + query_of({"q": value}).encode())
    assert target.path.count(b"/") == 3
    assert target.path.startswith(b"/a/")
    assert target.path.endswith(b"/b")
    assert target.query is not None
    assert b"&" not in target.query


@given(st.text())
def test_a_header_value_is_one_line(value: str) -> None:
    try:
        text = header_value("x-a", value)
    except PartFailure:
        return
    assert text == value
    assert text.isascii()
    assert not set(text) - {"\t"} & set(map(chr, range(32)))


@pytest.mark.parametrize("query", ["a b", "a\n", "é", "a#b"])
def test_queries_that_are_none(query: str) -> None:
    with pytest.raises(PartFailure):
        query_of(query)


# -- values


@pytest.mark.parametrize(
    ("body", "kind", "value"),
    [
        (b'{"id":1}', Any, {"id": 1}),
        (b"", Any, None),
        (b"{", bytes, b"{"),
        (b"\xc3\xa9", str, "é"),
        (b"\xff", None, None),
        (b"123456789012345678901234567890", int, 123456789012345678901234567890),
        (b"1.10", Decimal, Decimal("1.10")),
        (b"null", int | None, None),
        (b"7", Annotated[int, Meta(ge=1)], 7),
    ],
)
async def test_types(services: FakeServices, body: bytes, kind: Any, value: object) -> None:
    services["users"].reply(body=body)
    async with services.gather() as g:
        part = g.get("users", "/", type=kind)
    assert part.value == value
    assert type(part.value) is type(value)


async def test_raw_keeps_every_digit(services: FakeServices) -> None:
    services["users"].reply(body=b'{"a":1.10000000000000000001}')
    async with services.gather() as g:
        part = g.get("users", "/", type=Raw)
    assert bytes(part.value) == b'{"a":1.10000000000000000001}'
