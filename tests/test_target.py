"""The request target and Host: what is read, what is refused, and that nothing is ever read in two ways."""

from __future__ import annotations

import ipaddress
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastgate._core import NormalTarget, TargetError, measure_routing, parse_target

UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
SEGMENT_RAW = UNRESERVED | frozenset(b"!$&'()*+,;=:@")
BROWSER_RAW = frozenset(b'"<>[]^`{|}')


class RefusedError(Exception):
    pass


def slow_path(path: bytes) -> bytes:
    """docs/routing.md's rule, one step after another."""
    units: list[bytes] = []  # each is a raw byte, or an escape in upper case
    at = 0
    while at < len(path):
        byte = path[at]
        if byte == 0x25:
            escape = path[at + 1 : at + 3]
            if len(escape) < 2 or any(c not in b"0123456789abcdefABCDEF" for c in escape):
                raise RefusedError("escape")
            value = int(escape, 16)
            if value == 0:
                raise RefusedError("%00")
            units.append(bytes([value]) if value in UNRESERVED else b"%%%02X" % value)
            at += 3
        elif byte in SEGMENT_RAW or byte == 0x2F:
            units.append(bytes([byte]))
            at += 1
        elif byte in BROWSER_RAW:
            units.append(b"%%%02X" % byte)
            at += 1
        else:
            raise RefusedError("byte")
    kept: list[bytes] = []
    segments = b"".join(units).split(b"/")[1:]
    for number, segment in enumerate(segments):
        last = number == len(segments) - 1
        if segment == b"..":
            if not kept:
                raise RefusedError("climbs")
            kept.pop()
        elif segment not in (b"", b"."):
            kept.append(segment)
            continue
        if last:
            kept.append(b"")
    normal = b"/" + b"/".join(kept)
    hidden = normal.replace(b"%2F", b"/").replace(b"%5C", b"/").replace(b"%3B", b";")
    if any(piece.partition(b";")[0] in (b".", b"..") for piece in hidden.split(b"/")):
        raise RefusedError("hidden dot segment")
    # What was popped by a later ".." is judged as well.
    for segment in segments:
        if segment.replace(b"%3B", b";").partition(b";")[0] in (b".", b"..") and segment not in (b".", b".."):
            raise RefusedError("parameters on a dot segment")
    return normal


def slow_target(target: bytes) -> tuple[bytes, bytes | None]:
    path, question, query = target.partition(b"?")
    if any(c <= 0x20 or c >= 0x7F or c == 0x23 for c in query):
        raise RefusedError("query")
    return slow_path(path), query if question else None


def refusal(target: bytes, host: bytes | None = b"h", method: bytes = b"GET") -> tuple[str, str]:
    with pytest.raises(TargetError) as caught:
        parse_target(target, host, method)
    return caught.value.reason, str(caught.value)


pieces = st.sampled_from(
    b'/|/|/|.|.|..|a|b;c|;|%2e|%2E|%2f|%2F|%5c|%5C|%3b|%3B|%61|%7e|%C3%a9|%20|%00|%|%4|%zz|%25|%2|"|['
    b"|\\|#|?|?| |\x80|\x7f|{x}|~|@|=|&|*".split(b"|")
)
targets = st.one_of(
    st.lists(pieces, max_size=12).map(lambda parts: b"/" + b"".join(parts)),
    st.binary(max_size=12).map(lambda rest: b"/" + rest),
    st.text("/.%25eEfF;abc?", max_size=14).map(lambda rest: b"/" + rest.encode()),
)


@settings(max_examples=600, deadline=None)
@given(targets)
@example(b"/..;x/..")
@example(b"/a/..%2F..")
@example(b"/a;/%2e%2e%2fb/..")
@example(b"/.%2e")
@example(b"/...")
@example(b"/.a/..b")
def test_the_compiled_form_is_the_slow_one(target: bytes) -> None:
    try:
        expected = slow_target(target)
    except RefusedError:
        assert refusal(target)[0] == "target-syntax"
        return
    read = parse_target(target, b"h")
    assert (read.path, read.query) == expected
    assert read.encoded_slash == (b"%2F" in read.path or b"%5C" in read.path)
    assert read.copied or target.partition(b"?")[0] == read.path


@settings(max_examples=300, deadline=None)
@given(targets)
def test_the_normal_form_is_a_fixed_point_and_means_the_same(target: bytes) -> None:
    try:
        read = parse_target(target, b"h")
    except TargetError:
        return
    again = parse_target(read.path + (b"" if read.query is None else b"?" + read.query), b"h")
    assert (again.path, again.query, again.copied) == (read.path, read.query, False)
    # No reader that decodes once, or splits at any slash, finds a way up.
    decoded = unquote_to_bytes(read.path).replace(b"\\", b"/")
    assert not {b".", b".."} & {piece.partition(b";")[0] for piece in decoded.split(b"/")}
    assert b"//" not in read.path


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/", b"/"),
        (b"/a//b///c", b"/a/b/c"),
        (b"//evil.example/x", b"/evil.example/x"),
        (b"/a/./b/../c", b"/a/c"),
        (b"/a/%2e%2E/b", b"/b"),
        (b"/a//../b", b"/b"),
        (b"/a/.", b"/a/"),
        (b"/a/b/..", b"/a/"),
        (b"/%7Euser/%41", b"/~user/A"),
        (b"/caf%c3%a9", b"/caf%C3%A9"),
        (b"/a%20b", b"/a%20b"),
        (b'/"<>[]^`{|}', b"/%22%3C%3E%5B%5D%5E%60%7B%7C%7D"),
        (b"/a%2fb", b"/a%2Fb"),
        (b"/a;v=1/b", b"/a;v=1/b"),
        (b"/%252e%252e/", b"/%252e%252e/"),
    ],
)
def test_path_normal_form(target: bytes, path: bytes) -> None:
    assert parse_target(target, b"h").path == path


@pytest.mark.parametrize(
    ("target", "detail"),
    [
        (b"", "neither a path"),
        (b"a/b", "neither a path"),
        (b"ftp://h/x", "neither a path"),
        (b"h:80", "neither a path"),
        (b"*", "asterisk-form"),
        (b"/..", "climbs"),
        (b"/a/../..", "climbs"),
        (b"/%2e%2e/", "climbs"),
        (b"/..;x/", "path parameters"),
        (b"/a/.;x/b", "path parameters"),
        (b"/a/..%3Bx", "path parameters"),
        (b"/a%2f..%2fb", "behind an encoded slash"),
        (b"/a/..%5Cb", "behind an encoded slash"),
        (b"/a%00", "%00"),
        (b"/a%", "bad percent escape"),
        (b"/a%4", "bad percent escape"),
        (b"/a%4g", "bad percent escape"),
        (b"/a\\b", "no path may hold"),
        (b"/a#b", "no path may hold"),
        (b"/a b", "no path may hold"),
        (b"/a\x00", "no path may hold"),
        (b"/caf\xc3\xa9", "no path may hold"),
        (b"/a?b#c", "no query may hold"),
        (b"/a?b c", "no query may hold"),
        (b"/a?\xc3", "no query may hold"),
        (b"/a?\x7f", "no query may hold"),
        (b"http://user@h/", "userinfo"),
        (b"http:///x", "empty host"),
        (b"http://h#f", "fragment"),
        (b"http://h?a#f", "no query may hold"),
    ],
)
def test_targets_that_are_refused(target: bytes, detail: str) -> None:
    reason, message = refusal(target)
    assert reason == "target-syntax"
    assert detail in message


def test_the_query_is_left_as_it_came() -> None:
    query = b'%zz&a=%2f+%41\\"<>[]^`{|}&&=?/'
    assert parse_target(b"/a?" + query, b"h").query == query


def test_an_empty_query_is_not_an_absent_one() -> None:
    assert parse_target(b"/a", b"h").query is None
    assert parse_target(b"/a?", b"h").query == b""


def test_the_absolute_form_replaces_host() -> None:
    """RFC 9112 3.2.2."""
    read = parse_target(b"HTTPS://API.Example:8443/x?q", b"other:1")
    assert read == NormalTarget(
        "absolute", "https", b"API.Example:8443", b"api.example", 8443, b"/x", b"q", False, False
    )
    assert parse_target(b"http://h", b"other").path == b"/"
    assert parse_target(b"http://h?q", b"other")[5:7] == (b"/", b"q")
    # RFC 9112 3.2: an invalid Host is refused even then.
    assert refusal(b"http://h/", b"a b")[0] == "host-syntax"


def test_the_asterisk_form() -> None:
    """RFC 9112 3.2.4."""
    assert parse_target(b"*", b"h", b"OPTIONS")[0::5] == ("asterisk", b"*")
    assert parse_target(b"http://h", b"h", b"OPTIONS")[0::5] == ("asterisk", b"*")
    assert parse_target(b"http://h/", b"h", b"OPTIONS")[0::5] == ("absolute", b"/")
    assert parse_target(b"http://h?", b"h", b"OPTIONS")[0::5] == ("absolute", b"/")


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        (b"Example.COM", b"example.com", None),
        (b"a.b.:80", b"a.b", 80),
        (b"a_b-c", b"a_b-c", None),
        (b"10.0.0.1:0", b"10.0.0.1", 0),
        (b"[::1]:8080", b"[::1]", 8080),
        (b"[2001:DB8::1]", b"[2001:db8::1]", None),
        (b"[::ffff:1.2.3.4]", b"[::ffff:1.2.3.4]", None),
        (b"h:65535", b"h", 65535),
        (b"a" * 255, b"a" * 255, None),
        (b"", b"", None),
    ],
)
def test_hosts(text: bytes, host: bytes, port: int | None) -> None:
    read = parse_target(b"/", text)
    assert (read.host, read.port, read.authority) == (host, port, text)


def test_no_host_at_all() -> None:
    """Whether it may be missing is for the caller to say (HTTP/1.0: yes)."""
    assert parse_target(b"/", None).host == b""


@pytest.mark.parametrize(
    "text",
    [
        *b"h: h:65536 h:123456 h:8a :80 . .a a..b a.. a,b a%41 u@h a/b a?b caf\xc3\xa9 a\x00".split(b" "),
        *b"[::1 [::1]x [::1]: [] [v1.a] [::1%25eth0] ::1 [:1]".split(b" "),
        *b"[1:2:3:4:5:6:7] [1::2::3] [1:2:3:4:5:6:7:8:9] [1:2:3:4::5:6:7:8]".split(b" "),
        b"a b",
        b"a" * 256,
    ],
)
def test_hosts_that_are_refused(text: bytes) -> None:
    assert refusal(b"/", text)[0] == "host-syntax"
    if text not in (b"u@h", b"a/b", b"a?b"):
        assert refusal(b"http://" + text + b"/")[0] in ("host-syntax", "target-syntax")


@settings(max_examples=400, deadline=None)
@given(
    st.one_of(
        st.ip_addresses(v=6).map(str),
        st.ip_addresses(v=6).map(lambda address: address.exploded),
        st.text("0123456789abF:.", max_size=24),
        st.lists(st.sampled_from(["", "0", "1", "ffff", "1.2.3.4", "10000", "256.1.1.1"]), max_size=9).map(
            ":".join
        ),
    )
)
def test_ipv6_is_read_as_the_standard_library_does(text: str) -> None:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        assert refusal(b"/", b"[" + text.encode() + b"]")[0] == "host-syntax"
    else:
        assert parse_target(b"/", b"[" + text.encode() + b"]").host == b"[" + text.lower().encode() + b"]"


def test_a_host_and_a_path_that_are_both_rewritten() -> None:
    # Both stand in the scratch buffer, which grows between them.
    path = b"/" + b"%41" * 5000
    read = parse_target(path, b"API.Example")
    assert read.host == b"api.example"
    assert read.path == b"/" + b"A" * 5000


def test_the_loop_of_the_benchmark_reads_what_it_is_given() -> None:
    assert measure_routing([(b"/a", b"h"), (b"/..", b"h"), (b"/%41", b"H")], 3) == 6
