"""The compiled table against the slow, obvious matcher, on small alphabets so that routes collide."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from routes import Condition, Match, Route

from fastgate._core import RouteTable
from fastgate.routing.reference import Request, judge_all, winner

names = st.sampled_from(["a", "b", "c"])
hosts = st.lists(names, min_size=1, max_size=3).map(".".join)
host_patterns = st.one_of(hosts, hosts.map("*.{}".format))
segments = st.sampled_from(["a", "b", "ab", ""])
paths = st.lists(segments.filter(bool), max_size=4).flatmap(
    lambda parts: st.sampled_from(["/" + "/".join(parts), "/" + "".join(part + "/" for part in parts)])
)
regexes = st.sampled_from(["/a", "/.*", "/[ab]+/.*", "/(a|b)", "/[^/]*", ".*b", "/a(?:/b)*"])
methods = st.lists(st.sampled_from(["GET", "HEAD", "POST", "PURGE", "LINK"]), max_size=2, unique=True)
conditions = st.sampled_from(
    [
        Condition("present"),
        Condition("equal", "1"),
        Condition("equal", "2"),
        Condition("equal", ""),
        Condition("equal", "a b"),
        Condition("regex", "[0-9]+"),
        Condition("regex", "1?"),
    ]
)
tables: st.SearchStrategy[dict[str, Condition]] = st.one_of(
    st.just({}), st.dictionaries(st.sampled_from(["x", "y"]), conditions, max_size=2)
)


@st.composite
def templates(draw: st.DrawFn) -> str:
    parts = draw(st.lists(st.sampled_from(["a", "b", "{}", "{}"]), min_size=1, max_size=4))
    tail = draw(st.sampled_from(["", "", "/"]))
    return "".join(f"/{{n{i}}}" if part == "{}" else f"/{part}" for i, part in enumerate(parts)) + tail


@st.composite
def matches(draw: st.DrawFn) -> Match:
    kind = draw(st.sampled_from(["path", "template", "template", "prefix", "prefix", "regex", "none"]))
    return Match(
        host=tuple(draw(st.one_of(st.just([]), st.lists(host_patterns, max_size=2)))),
        path=draw(paths) if kind == "path" else draw(templates()) if kind == "template" else None,
        prefix=draw(paths) if kind == "prefix" else None,
        regex=draw(regexes) if kind == "regex" else None,
        methods=tuple(draw(st.one_of(st.just([]), methods))),
        headers=draw(tables),
        query=draw(tables),
        cookies=draw(tables),
    )


values = st.sampled_from(["", "1", "2", "12", "a b", "a+b", "a%20b", "%31", "%", "%zz"])
pairs = st.tuples(st.sampled_from(["x", "y", "z", "X", "%78"]), values)
queries = st.one_of(
    st.none(),
    st.lists(st.one_of(pairs.map("=".join), st.sampled_from(["x", "", "=1", "y=1=2"])), max_size=3).map(
        "&".join
    ),
)
cookies = st.lists(
    st.one_of(pairs.map("=".join), pairs.map(" = ".join), st.sampled_from(["x", "", "=1", " y=1"])),
    max_size=3,
).flatmap(lambda parts: st.sampled_from([";".join(parts), "; ".join(parts)]))
fields = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["x", "Y", "y", "z"]), values),
        st.tuples(st.sampled_from(["cookie", "Cookie"]), cookies),
    ),
    max_size=4,
)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    asterisk = draw(st.integers(0, 19)) == 0
    query = draw(queries)
    return Request(
        b"OPTIONS"
        if asterisk
        else draw(st.sampled_from(["GET", "HEAD", "POST", "PURGE", "LINK", "get"])).encode(),
        draw(st.one_of(hosts, st.just(""))).encode(),
        b"*" if asterisk else draw(paths).encode(),
        None if query is None else query.encode(),
        tuple((name.encode(), value.encode()) for name, value in draw(fields)),
    )


@settings(max_examples=300, deadline=None)
@given(st.lists(matches(), min_size=1, max_size=12), st.lists(requests(), min_size=1, max_size=8))
def test_table_agrees_with_the_reference(found: list[Match], asked: list[Request]) -> None:
    # Indexes with gaps, as when other routes belong to other listeners.
    routes = [(3 * i, Route(f"r{i}", match)) for i, match in enumerate(found)]
    table = RouteTable(routes)
    for request in asked:
        best = winner(judge_all(routes, request))
        expected = (-1, ()) if best is None else (best.index, best.captures)
        assert table.find(*request) == expected
