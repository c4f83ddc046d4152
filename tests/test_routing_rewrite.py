"""The forwarded path, and the Location of redirects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from routes import Match

from fastgate._core import PathRewrite, Redirector, RouteTable, TargetError, parse_target, path_rewrite_of


@dataclass(frozen=True)
class Rewrite:
    strip_prefix: bool = False
    prefix: str | None = None
    path: str | None = None
    host: str | None = None


@dataclass(frozen=True)
class Redirect:
    status: int = 302
    scheme: str | None = None
    host: str | None = None
    port: int | None = None
    path: str | None = None
    prefix: str | None = None


@dataclass(frozen=True)
class Route:
    match: Match
    rewrite: Rewrite | None = None
    name: str = "r"


@pytest.mark.parametrize(
    ("matched", "replacement", "path", "expected"),
    [
        ("/orders", "/", "/orders", "/"),
        ("/orders", "/", "/orders/", "/"),
        ("/orders", "/", "/orders/7", "/7"),
        ("/orders/", "/", "/orders/7/", "/7/"),
        ("/orders", "/v2", "/orders", "/v2"),
        ("/orders", "/v2/", "/orders", "/v2"),
        ("/orders", "/v2/", "/orders/", "/v2/"),
        ("/orders", "/v2", "/orders/7", "/v2/7"),
        ("/", "/v2", "/", "/v2/"),
        ("/", "/v2", "/orders", "/v2/orders"),
        ("/", "/", "/orders", "/orders"),
        ("/a", "/x//./y/..", "/a/b", "/x/b"),
    ],
)
def test_the_matched_prefix_is_replaced(matched: str, replacement: str, path: str, expected: str) -> None:
    rewrite = PathRewrite(Match(prefix=matched), prefix=replacement)
    assert rewrite.apply(path.encode()) == expected.encode()
    assert rewrite.apply(path.encode(), b"q=1") == expected.encode() + b"?q=1"


def test_strip_prefix_replaces_it_by_nothing() -> None:
    rewrite = path_rewrite_of(Route(Match(prefix="/orders"), Rewrite(strip_prefix=True)))
    assert rewrite.apply(b"/orders/7", b"") == b"/7?"


def test_a_route_without_rewrite_keeps_path_and_query() -> None:
    for rewrite in (None, Rewrite(host="internal")):
        kept = path_rewrite_of(Route(Match(prefix="/orders"), rewrite))
        assert kept.apply(b"/orders/7", b"a=%zz") == b"/orders/7?a=%zz"
        assert kept.apply(b"*") == b"*"


def test_templates() -> None:
    match = Match(path="/{a}/x/{b}")
    captures = (b"1%2F", b"2")
    assert PathRewrite(match, path="/u/{b}/{a}").apply(b"/", None, captures) == b"/u/2/1%2F"
    assert PathRewrite(match, path="/{b}/{a}/").apply(b"/", b"q", captures) == b"/2/1%2F/?q"
    assert PathRewrite(match, path="/").apply(b"/", None, captures) == b"/"
    assert PathRewrite(match, path="/caf\xe9/a").apply(b"/", None, captures) == b"/caf%C3%A9/a"
    # OPTIONS * has no path that could be rewritten.
    assert PathRewrite(Match(), path="/x").apply(b"*") == b"*"


@pytest.mark.parametrize(
    ("match", "change", "message"),
    [
        (Match(path="/{a}"), {"path": "/{b}"}, r"\{b\} is not in match.path"),
        (Match(prefix="/a"), {"path": "/{b}"}, r"\{b\} is not in match.path"),
        (Match(path="/a"), {"prefix": "/b"}, "only a match by prefix"),
        (Match(), {"prefix": "/b"}, "only a match by prefix"),
        (Match(prefix="/a"), {"prefix": "b"}, 'begins with "/"'),
        (Match(prefix="/a"), {"prefix": "/b", "path": "/c"}, "exclude each other"),
    ],
)
def test_what_cannot_be_rewritten(match: Match, change: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PathRewrite(match, **change)
    with pytest.raises(ValueError, match=message):
        Redirector(match, Redirect(**change))  # type: ignore[arg-type]


def test_strip_prefix_stands_alone() -> None:
    with pytest.raises(ValueError, match="exclude each other"):
        path_rewrite_of(Route(Match(prefix="/a"), Rewrite(strip_prefix=True, prefix="/b")))


raw_paths = st.lists(
    st.sampled_from(["/", "/", "a", "b", ".", "..", "%2e", "%2F", "%5c", ";", "x", "%20", "//", "/."]),
    max_size=10,
).map(lambda parts: "/" + "".join(parts))


@settings(max_examples=400, deadline=None)
@given(
    raw_paths,
    st.sampled_from(["/", "/a", "/a/b"]),
    st.sampled_from(["/", "//", "/v2", "/x/../..", "/./y/", "/a//b/"]),
    st.sampled_from(["/{p}/{q}", "/x/{q}/", "/{q}", "//{p}/../{q}"]),
)
def test_what_is_forwarded_is_always_in_normal_form(raw: str, prefix: str, other: str, template: str) -> None:
    try:
        path = parse_target(raw.encode()).path
    except TargetError:
        assume(False)
    routes = [Route(Match(path="/{p}/{q}")), Route(Match(prefix=prefix))]
    index, captures = RouteTable(enumerate(routes)).find(b"GET", b"", path)
    assume(index >= 0)
    if index == 0:
        written = PathRewrite(routes[0].match, path=template).apply(path, None, captures)
    else:
        written = PathRewrite(routes[1].match, prefix=other).apply(path)
    read = parse_target(written)
    assert (read.path, read.copied) == (written, False)


@pytest.mark.parametrize(
    ("redirect", "expected"),
    [
        (Redirect(scheme="https"), "https://a.b/old/7?q=1"),
        (Redirect(scheme="https", port=8443), "https://a.b:8443/old/7?q=1"),
        (Redirect(scheme="https", port=443), "https://a.b/old/7?q=1"),
        (Redirect(scheme="https", port=80), "https://a.b:80/old/7?q=1"),
        (Redirect(scheme="http"), "http://a.b/old/7?q=1"),
        (Redirect(host="www.c.d"), "http://www.c.d:8080/old/7?q=1"),
        (Redirect(host="[::1]"), "http://[::1]:8080/old/7?q=1"),
        (Redirect(port=80), "http://a.b/old/7?q=1"),
        (Redirect(port=9000), "http://a.b:9000/old/7?q=1"),
        (Redirect(path="/new"), "http://a.b:8080/new?q=1"),
        (Redirect(prefix="/new"), "http://a.b:8080/new/7?q=1"),
        (Redirect(scheme="https", host="c", path="/"), "https://c/?q=1"),
    ],
)
def test_location(redirect: Redirect, expected: str) -> None:
    made = Redirector(Match(prefix="/old"), redirect)
    assert made.location(b"http", b"a.b", b"/old/7", b"q=1", (), b"8080") == expected.encode()


def test_location_of_a_template() -> None:
    made = Redirector(Match(path="/old/{id}"), Redirect(status=308, path="/new/{id}"))
    assert made.status == 308
    assert made.location(b"https", b"a.b", b"/old/7", None, (b"7",)) == b"https://a.b/new/7"
    assert made.location(b"https", b"a.b", b"/old/7", None, (b"7",), b"443") == b"https://a.b/new/7"


def test_location_without_any_host_is_a_path() -> None:
    """RFC 9110 10.2.2 allows a relative reference; HTTP/1.0 may come without Host."""
    made = Redirector(Match(prefix="/old"), Redirect(scheme="https", prefix="/"))
    assert made.location(b"http", b"", b"/old/x") == b"/x"


def test_location_for_options_asterisk() -> None:
    assert Redirector(Match(), Redirect(scheme="https")).location(b"http", b"a", b"*") == b"https://a/"


@pytest.mark.parametrize(
    "wrong",
    [{"status": 300}, {"scheme": "ftp"}, {"port": 0}, {"port": 70000}, {"host": "*.b"}, {"host": "a:1"}],
)
def test_redirects_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"no redirect status|neither|no port|one host|no host"):
        Redirector(Match(), Redirect(**wrong))


def test_location_with_a_host_of_its_own_needs_none_of_the_request() -> None:
    made = Redirector(Match(), Redirect(host="c.d"))
    assert made.location(b"http", b"", b"/x") == b"http://c.d/x"
