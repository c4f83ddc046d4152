"""Conditions on header fields, query parameters and cookies."""

from __future__ import annotations

import pytest
from routes import Routes, route


def holds(place: str, wanted: object, query: str | None = None, **fields: str) -> bool:
    routes = Routes(route("x", **{place: {"x": wanted}}))  # type: ignore[arg-type]
    return routes.match("/", query=query, fields=tuple(fields.items())) == "x"


def test_headers() -> None:
    assert holds("headers", "1", x="1")
    assert holds("headers", "1", X="1")
    assert not holds("headers", "1", x="12")
    assert not holds("headers", "a", x="A")
    assert not holds("headers", "1", y="1")
    assert holds("headers", True, x="")
    assert not holds("headers", True)
    assert holds("headers", {"regex": "[0-9]+"}, x="12")
    assert not holds("headers", {"regex": "[0-9]+"}, x="12a")
    assert holds("headers", {"regex": "."}, x="\xe9")


def test_any_line_of_a_repeated_header_may_match() -> None:
    routes = Routes(route("x", headers={"X-Kind": "b"}))
    assert routes.match("/", fields=(("x-kind", "a"), ("x-kind", "b"))) == "x"
    assert routes.match("/", fields=(("x-kind", "a, b"),)) is None


@pytest.mark.parametrize(
    ("query", "wanted", "result"),
    [
        ("x=1", "1", True),
        ("y=1&x=1", "1", True),
        ("x=2&x=1", "1", True),
        ("x=2", "1", False),
        ("X=1", "1", False),
        ("xx=1", "1", False),
        ("%78=%31", "1", True),
        ("x=a+b", "a b", True),
        ("x=a%20b", "a b", True),
        ("x=a%2Bb", "a+b", True),
        ("x=caf%C3%A9", "café", True),
        ("x=%zz%", "%zz%", True),
        ("x=1=2", "1=2", True),
        ("x", "", True),
        ("x=", "", True),
        ("&&x=1&", "1", True),
        ("x=1;y=2", "1", False),
        ("x", True, True),
        ("", True, False),
        (None, True, False),
        ("x=%41b", {"regex": "[A-Z]b"}, True),
        ("x=%41bc", {"regex": "[A-Z]b"}, False),
    ],
)
def test_query(query: str | None, wanted: object, result: bool) -> None:
    assert holds("query", wanted, query=query) is result


@pytest.mark.parametrize(
    ("cookie", "wanted", "result"),
    [
        ("x=1", "1", True),
        ("y=2; x=1", "1", True),
        ("y=2;x=1", "1", True),
        ("y=2; x = 1 ", "1", True),
        ("x=2; x=1", "1", True),
        ("X=1", "1", False),
        ("xx=1", "1", False),
        ("x=1=2", "1=2", True),
        ('x="1"', "1", False),
        ('x="1"', '"1"', True),
        ("x=%31", "1", False),
        ("x", True, False),
        ("x=", True, True),
        ("=x; x=", "", True),
        ("", True, False),
        ("x=ab", {"regex": "a."}, True),
        ("x=abc", {"regex": "a."}, False),
    ],
)
def test_cookies(cookie: str, wanted: object, result: bool) -> None:
    assert holds("cookies", wanted, Cookie=cookie) is result


def test_cookies_of_several_field_lines() -> None:
    routes = Routes(route("x", cookies={"x": "1"}))
    assert routes.match("/", fields=(("cookie", "y=1"), ("cookie", "x=1"))) == "x"
    assert routes.match("/", fields=(("not-a-cookie", "x=1"),)) is None


def test_all_conditions_must_hold() -> None:
    routes = Routes(route("x", headers={"a": "1", "b": True}, query={"q": "1"}, cookies={"c": True}))
    fields = (("a", "1"), ("b", ""), ("cookie", "c=1"))
    assert routes.match("/", query="q=1", fields=fields) == "x"
    assert routes.match("/", query="q=2", fields=fields) is None
    for missing in range(3):
        assert routes.match("/", query="q=1", fields=fields[:missing] + fields[missing + 1 :]) is None


def test_large_patterns_are_matched_right_on_long_texts() -> None:
    # Their automaton outgrows the memory of a set many times over while it reads the path.
    routes = Routes(*(route(f"r{i}", regex=f"/.*[a-c].{{300}}{i}") for i in range(8)))
    text = "abcdefghijkabcdefghijlkabd" * 200
    assert routes.match(f"/{text}a{'z' * 300}7") == "r7"
    assert routes.match(f"/{text}d{'z' * 300}7") is None


def test_patterns_that_are_too_large_together_are_refused() -> None:
    with pytest.raises(ValueError, match="too large together"):
        Routes(*(route(f"r{i}", regex=f"/{i}" + "(?:x[^y]{999}z)" * 40) for i in range(30)))
