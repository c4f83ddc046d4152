"""Routes that can never win are warned of, and no others."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgate.config import loads

HEAD = '[[listeners]]\nname = "in"\nbind = ":8080"\n[[listeners]]\nname = "out"\nbind = ":8081"\n'


def unreachable(*matches: str) -> list[int]:
    """Positions of the routes with these bodies that are warned of."""
    routes = "".join(f'[[routes]]\nname = "r{i}"\nrespond = {{}}\n{body}\n' for i, body in enumerate(matches))
    found = []
    for warning in loads(HEAD + routes).warnings:
        if "normal form" in warning.message:
            continue
        assert "can never win" in warning.message
        found.append(int(warning.message.split('"')[1][1:]))
    return found


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("", ""),
        ('match.path = "/a"', 'match.path = "/a"'),
        ('match.path = "/a/{x}"', 'match.path = "/a/{y}"'),
        ('match.path = "/a"', 'match.path = "/%61"'),
        ('match.prefix = "/a"', 'match.prefix = "/a/"'),
        ('match.regex = "/a.*"', 'match.regex = "/a.*"'),
        # Expressions are tried in file order, whatever else the routes ask.
        ('match.regex = "/a.*"', 'match = { regex = "/a.*", methods = ["GET"] }'),
        ('match.regex = ".*"', 'match.regex = "/a.*"'),
        ('match.regex = "/.*"', 'match = { prefix = "/a", methods = ["GET"] }'),
        ('match.regex = "/.*"', ""),
        ('match.prefix = "/"', ""),
        ('match.prefix = "/"', 'match.methods = ["GET"]'),
        ('match.host = ["a.x", "b.x"]', 'match.host = "B.x"'),
        ('match.methods = ["GET", "PUT"]', 'match.methods = ["PUT"]'),
        ('match.headers.a = true', 'match.headers.A = "1"'),
        ('match.cookies.a = { regex = "x" }', 'match.cookies.a = { regex = "x" }'),
        ('match.query.a = "1"', 'match.query.a = "1"\nlisteners = ["in"]'),
        ('listeners = ["in", "out"]', ""),
    ],
)  # fmt: skip
def test_the_second_can_never_win(first: str, second: str) -> None:
    assert unreachable(first, second) == [1]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        # More specific: it wins although it comes later.
        ("", 'match.host = "a.x"'),
        ('match.host = "*.x"', 'match.host = "a.x"'),
        ('match.prefix = "/a"', 'match.path = "/a"'),
        ('match.prefix = "/a"', 'match.prefix = "/a/b"'),
        ('match.path = "/{x}"', 'match.path = "/a"'),
        ('match.prefix = "/"', 'match.regex = "/a.*"'),
        ('match.regex = "/.*"', 'match.path = "/a"'),
        ("", 'match.methods = ["GET"]'),
        ("", 'match.headers.a = "1"'),
        ("", 'match.query.a = true'),
        ("", 'match.cookies.a = true'),
        # Only partly covered.
        ('match.methods = ["GET"]', 'match.methods = ["GET", "PUT"]'),
        ('match.host = "a.x"', 'match.host = ["a.x", "b.x"]'),
        ('match.headers.a = "1"', 'match.headers.a = true'),
        ('match.headers.a = "1"', 'match.headers.a = "2"'),
        ('match.headers.a = "1"', 'match.headers.b = "1"'),
        ('match.headers.a = "1"', 'match.query.a = "1"'),
        ('listeners = ["in"]', ""),
        ('listeners = ["in"]', 'listeners = ["out"]'),
        ('match.regex = "/a"', 'match.regex = "/a.*"'),
    ],
)  # fmt: skip
def test_both_can_win(first: str, second: str) -> None:
    assert unreachable(first, second) == []


def test_an_expression_for_every_path_takes_prefixes_wherever_it_stands() -> None:
    assert unreachable('match.prefix = "/a"', 'match.path = "/a"', "", 'match.regex = "/.*"') == [0, 2]
    assert unreachable("", 'match.prefix = "/"') == [0]


def test_several_routes_together_take_all() -> None:
    assert unreachable(
        'match.methods = ["GET"]', 'match.methods = ["PUT"]', 'match.methods = ["PUT", "GET"]'
    ) == [2]
    assert unreachable('listeners = ["in"]', 'listeners = ["out"]', "") == [2]
    assert unreachable('match.host = "a"', 'match.host = "b"', 'match.host = ["a", "b"]') == [2]
    assert unreachable('match.host = "a"', 'match.host = "b"', 'match.host = ["a", "b", "c"]') == []


# A slow, obvious model: all requests of a small world, and who answers each (docs/routing.md).
HOSTS, METHODS, PATHS, HEADERS = ["a", "b"], ["GET", "PUT"], ["/", "/p", "/p/q"], ["", "1", "2"]
LISTENERS = ["in", "out"]
routes = st.fixed_dictionaries(
    {
        "listeners": st.lists(st.sampled_from(LISTENERS), unique=True),
        "host": st.lists(st.sampled_from(HOSTS), unique=True),
        "methods": st.lists(st.sampled_from(METHODS), unique=True),
        "path": st.sampled_from(["", "=/p", "=/p/q", "/", "/p", "~/.*"]),
        "header": st.sampled_from(["", "present", "1", "2"]),
    }
)


def holds(route: dict[str, Any], listener: str, host: str, method: str, path: str, header: str) -> bool:
    wanted = route["path"]
    on_path = (
        path == wanted[1:]
        if wanted.startswith("=")
        else not wanted
        or wanted[0] == "~"
        or wanted == "/"
        or path == wanted
        or path.startswith(wanted + "/")
    )
    return (
        (not route["listeners"] or listener in route["listeners"])
        and (not route["host"] or host in route["host"])
        and (not route["methods"] or method in route["methods"])
        and on_path
        and (not route["header"] or (header != "" and route["header"] in ("present", header)))
    )


def rank(route: dict[str, Any], position: int) -> tuple[Any, ...]:
    wanted = route["path"]
    path = (
        0 if wanted.startswith("=") else 1 if wanted.startswith("~") else 2 if wanted else 3,
        -len(wanted) if wanted.startswith("/") else 0,
    )
    conditions = () if wanted.startswith("~") else (not route["methods"], not route["header"])
    return (not route["host"], path, conditions, position)


def body(route: dict[str, Any]) -> str:
    wanted = route["path"]
    lines = [f"{key} = {route[key]}".replace("'", '"') for key in ("listeners",)]
    lines += [f"match.{key} = {route[key]}".replace("'", '"') for key in ("host", "methods") if route[key]]
    if wanted:
        kind = {"=": "path", "~": "regex"}.get(wanted[0], "prefix")
        lines.append(f'match.{kind} = "{wanted.lstrip("=~")}"')
    if route["header"]:
        lines.append(
            "match.headers.h = " + ("true" if route["header"] == "present" else f'"{route["header"]}"')
        )
    return "\n".join(lines)


@given(st.lists(routes, min_size=1, max_size=4))
@settings(max_examples=300, deadline=None)
def test_no_route_that_can_win_is_warned_of(drawn: list[dict[str, Any]]) -> None:
    winners = set()
    for listener in LISTENERS:
        for host in HOSTS:
            for method in METHODS:
                for path in PATHS:
                    for header in HEADERS:
                        fit = [
                            (rank(route, i), i)
                            for i, route in enumerate(drawn)
                            if holds(route, listener, host, method, path, header)
                        ]
                        if fit:
                            winners.add(min(fit)[1])
    warned = set(unreachable(*map(body, drawn)))
    assert not warned & winners
