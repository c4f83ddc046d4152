"""Which route wins: each rule of docs/routing.md by example, where it can be in every order of the file."""

from __future__ import annotations

from itertools import permutations

import pytest
from routes import Route, Routes, route

from fastgate._core import RouteTable


def order(*names_best_first: Route) -> tuple[Routes, ...]:
    """The same routes in every order of the file."""
    return tuple(Routes(*some) for some in permutations(names_best_first))


def test_exact_host_then_longer_wildcard_then_any() -> None:
    exact = route("exact", host="a.b.c")
    longer = route("longer", host="*.b.c")
    shorter = route("shorter", host="*.c")
    anyone = route("any")
    for routes in order(exact, longer, shorter, anyone):
        assert routes.match("/", host="a.b.c") == "exact"
        assert routes.match("/", host="x.b.c") == "longer"
        assert routes.match("/", host="y.x.b.c") == "longer"
        assert routes.match("/", host="b.c") == "shorter"
        assert routes.match("/", host="c") == "any"
        assert routes.match("/", host="") == "any"


def test_a_host_without_a_matching_path_falls_through_to_the_wider_hosts() -> None:
    for routes in order(
        route("exact", host="a.b", path="/x"), route("wild", host="*.b", path="/y"), route("any", prefix="/z")
    ):
        assert routes.match("/x", host="a.b") == "exact"
        assert routes.match("/y", host="a.b") == "wild"
        assert routes.match("/z", host="a.b") == "any"
        assert routes.match("/w", host="a.b") is None


def test_the_host_comes_before_the_path() -> None:
    for routes in order(route("host", host="a.b"), route("path", path="/x")):
        assert routes.match("/x", host="a.b") == "host"


def test_kinds_of_path() -> None:
    for routes in order(
        route("literal", path="/a/b"),
        route("template", path="/a/{x}"),
        route("regex", regex="/a/[a-z]*"),
        route("prefix", prefix="/a"),
        route("none"),
    ):
        assert routes.match("/a/b") == "literal"
        assert routes.match("/a/c") == "template"
        assert routes.match("/a/") == "regex"
        assert routes.match("/a/c/d") == "prefix"
        assert routes.match("/a") == "prefix"
        assert routes.match("/") == "none"


def test_templates_compare_segment_by_segment_from_the_left() -> None:
    for routes in order(
        route("first", path="/a/{x}/{y}"), route("second", path="/{x}/b/c"), route("third", path="/{x}/{y}/c")
    ):
        assert routes.match("/a/b/c") == "first"
        assert routes.match("/z/b/c") == "second"
        assert routes.match("/z/z/c") == "third"


def test_a_template_that_leads_nowhere_is_left_again() -> None:
    routes = Routes(route("deep", path="/a/b/{x}/d"), route("wide", path="/{p}/{q}/{r}/e"))
    for path, name, captures in (
        ("/a/b/c/e", "wide", (b"a", b"b", b"c")),
        ("/a/b/c/d", "deep", (b"c",)),
        ("/a/b/c/f", None, ()),
    ):
        assert routes.match(path) == name
        assert routes.captures == captures


def test_a_name_takes_one_whole_segment_that_is_not_empty() -> None:
    routes = Routes(route("user", path="/users/{id}"), route("slash", path="/users/{id}/"))
    assert routes.match("/users/7") == "user"
    assert routes.match("/users/") is None
    assert routes.match("/users") is None
    assert routes.match("/users/7/") == "slash"
    assert routes.match("/users/7/8") is None
    assert routes.match("/users/a%2Fb") == "user"
    assert routes.captures == (b"a%2Fb",)


def test_literal_paths_are_told_apart_by_the_trailing_slash_and_case() -> None:
    routes = Routes(route("plain", path="/a"))
    assert routes.match("/a") == "plain"
    assert routes.match("/a/") is None
    assert routes.match("/A") is None


def test_regexes_take_the_whole_path_and_stand_in_file_order() -> None:
    routes = Routes(route("one", regex="/a.*"), route("two", regex="/ab"), route("three", regex="/b"))
    assert routes.match("/ab") == "one"
    assert routes.match("/b") == "three"
    assert routes.match("/bb") is None
    assert routes.match("/x/a") is None
    # File order, even where a later one asks for more.
    routes = Routes(route("one", regex="/.*"), route("two", regex="/.*", methods=("GET",)))
    assert routes.match("/a") == "one"


def test_a_regex_whose_other_conditions_fail_leaves_the_next_one() -> None:
    routes = Routes(route("post", regex="/a.*", methods=("POST",)), route("rest", regex="/a.*"))
    assert routes.match("/ab", method="POST") == "post"
    assert routes.match("/ab") == "rest"


def test_the_longest_prefix_by_elements() -> None:
    for routes in order(
        route("long", prefix="/orders/new"), route("short", prefix="/orders/"), route("all", prefix="/")
    ):
        assert routes.match("/orders/new/1") == "long"
        assert routes.match("/orders/newer") == "short"
        assert routes.match("/orders") == "short"
        assert routes.match("/orders/") == "short"
        assert routes.match("/orders-old") == "all"
        assert routes.match("/") == "all"


def test_a_longer_prefix_whose_method_fails_leaves_the_shorter() -> None:
    routes = Routes(route("short", prefix="/a"), route("long", prefix="/a/b/c", methods=("POST",)))
    assert routes.match("/a/b/c/d", method="POST") == "long"
    assert routes.match("/a/b/c/d") == "short"


def test_methods_then_headers_then_query_then_cookies_then_file_order() -> None:
    fields = (("x", "1"), ("y", "1"), ("cookie", "c=1; d=1"))
    ranking = (
        route("method", prefix="/", methods=("GET",)),
        route("two headers", prefix="/", headers={"x": "1", "y": True}),
        route("header", prefix="/", headers={"x": "1"}, cookies={"c": True}),
        route("two parameters", prefix="/", query={"p": "1", "q": True}),
        route("parameter", prefix="/", query={"p": "1"}, cookies={"c": True, "d": True}),
        route("two cookies", prefix="/", cookies={"c": True, "d": True}),
        route("cookie", prefix="/", cookies={"c": True}),
        route("nothing", prefix="/"),
    )
    for at in range(len(ranking)):
        assert Routes(*reversed(ranking[at:])).match("/", query="p=1&q", fields=fields) == ranking[at].name
    assert Routes(route("one", prefix="/"), route("two", prefix="/")).match("/") == "one"


def test_the_path_comes_before_methods_and_conditions() -> None:
    for routes in order(
        route("exact", path="/a"), route("rich", prefix="/a", methods=("GET",), headers={"x": True})
    ):
        assert routes.match("/a", fields=(("x", "1"),)) == "exact"


def test_methods_are_exactly_those_listed() -> None:
    routes = Routes(route("get", methods=("GET", "PURGE")))
    assert routes.match("/") == "get"
    assert routes.match("/", method="PURGE") == "get"
    assert routes.match("/", method="HEAD") is None
    assert routes.match("/", method="get") is None
    assert routes.match("/", method="PURGED") is None


def test_options_asterisk_matches_only_routes_without_path() -> None:
    routes = Routes(route("prefix", prefix="/"), route("regex", regex=".*"))
    assert routes.match("*", method="OPTIONS") is None
    routes = Routes(route("prefix", prefix="/"), route("host", host="a.b"))
    assert routes.match("*", host="a.b", method="OPTIONS") == "host"


def test_several_hosts_of_one_route() -> None:
    routes = Routes(route("any"), route("both", host=("a.b", "*.c", "A.B")))
    assert routes.match("/", host="a.b") == "both"
    assert routes.match("/", host="x.c") == "both"
    assert routes.match("/", host="c") == "any"


def test_hosts_of_the_configuration_are_read_as_those_of_requests() -> None:
    routes = Routes(route("a", host="API.Example."), route("six", host="[::1]"))
    assert routes.match("/", host="api.example") == "a"
    assert routes.match("/", host="[::1]") == "six"


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("/café", "/caf%C3%A9"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/%7Euser", "/~user"),
        ("/a//b/./c/../d", "/a/b/d"),
        ("/a b", "/a%20b"),
        ("/a\\b", "/a%5Cb"),
        ("/../a", "/a"),
        ("/a/..", "/"),
        ("/a/.", "/a/"),
    ],
)
def test_paths_of_the_configuration_are_brought_into_normal_form(written: str, asked: str) -> None:
    assert Routes(route("a", path=written)).match(asked) == "a"


def test_a_table_without_routes() -> None:
    assert RouteTable([]).find(b"GET", b"h", b"/") == (-1, ())


def test_indexes_are_those_of_the_file() -> None:
    table = RouteTable([(3, route("a", path="/a")), (7, route("b", path="/b"))])
    assert table.find(b"GET", b"", b"/b")[0] == 7
    with pytest.raises(ValueError, match="file order"):
        RouteTable([(3, route("a")), (3, route("b"))])


@pytest.mark.parametrize(
    ("match", "message"),
    [
        ({"path": "a"}, 'begins with "/"'),
        ({"path": "/a?b"}, 'no "\\?"'),
        ({"path": "/a%2"}, "bad percent escape"),
        ({"path": "/v{n}"}, "whole segment"),
        ({"path": "/{n}/{n}"}, "twice"),
        ({"path": "/a%2f.."}, "encoded slash"),
        ({"path": "".join(f"/{{n{i}}}" for i in range(17))}, "more than 16"),
        ({"path": "/{n}" + "/a" * 64}, "more than 64 segments"),
        ({"prefix": "/{n}"}, "no {name}"),
        ({"prefix": "/a" * 65}, "more than 64 segments"),
        ({"prefix": "/a", "path": "/a"}, "exclude each other"),
        ({"regex": "("}, "missing"),
        ({"headers": {"x": {"regex": "["}}}, "missing"),
        ({"host": "*"}, "is no host"),
        ({"host": "a.*.b"}, "is no host"),
        ({"host": "a:80"}, "is no host"),
        ({"host": ""}, "is no host"),
        ({"host": "*.[::1]"}, "is no host"),
        ({"host": "*." + "a." * 64 + "b"}, "63 labels"),
    ],
)
def test_what_cannot_be_compiled_names_the_route(match: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"(?s)route 'bad'.*{message}"):
        RouteTable([(0, route("bad", **match))])  # type: ignore[arg-type]


def test_the_limits_themselves_are_allowed() -> None:
    routes = Routes(
        route("names", path="".join(f"/{{n{i}}}" for i in range(16))),
        route("long", path="/{n}" + "/a" * 63),
        route("deep", prefix="/b" * 64),
    )
    assert routes.match("/x" * 16) == "names"
    assert routes.match("/x" + "/a" * 63) == "long"
    assert routes.match("/x" + "/a" * 64) is None
    assert routes.match("/b" * 64) == "deep"
    assert routes.match("/b" * 70) == "deep"
    assert routes.match("/b" * 63) is None
