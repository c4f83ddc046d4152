"""Units, addresses, paths, names and secrets: what each text becomes."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgate import _core
from fastgate.config import addresses, texts, units
from fastgate.config.addresses import Address
from fastgate.config.model import UNLIMITED, Rate, Secret
from fastgate.config.problems import did_you_mean, quote
from fastgate.config.units import BadValue

PATH_PIECES = [
    "/",
    "a",
    "{id}",
    "{x}",
    ".",
    "..",
    "%2e",
    "%2F",
    "%5c",
    "%7e",
    "%zz",
    "é",
    " ",
    "|",
    ";x",
    "~",
    ":",
    "%41",
]


@pytest.mark.parametrize(
    ("text", "ns"),
    [("250ms", 250_000_000), ("5s", 5_000_000_000), ("1m", 60 * 10**9), ("1h", 3600 * 10**9), ("0s", 0)],
)
def test_durations(text: str, ns: int) -> None:
    assert units.parse_duration(text, {}) == ns


@given(st.integers(0, units.MAX_NS // 10**6).map(lambda ms: ms * 10**6))
def test_durations_are_read_as_they_are_written(ns: int) -> None:
    assert units.parse_duration(units.format_duration(ns).strip('"'), {}) == ns


@pytest.mark.parametrize(
    ("text", "size"),
    [("512B", 512), ("64KiB", 65536), ("1KB", 1000), ("10MiB", 10 * 2**20), ("1GB", 10**9), ("2GiB", 2**31)],
)
def test_sizes(text: str, size: int) -> None:
    assert units.parse_size(text, {}) == size


@given(st.integers(0, 10**15 - 1))
def test_sizes_are_read_as_they_are_written(size: int) -> None:
    assert units.parse_size(units.format_size(size), {}) == size


def test_unlimited_only_where_allowed() -> None:
    assert units.parse_size("unlimited", {"unlimited": True}) == UNLIMITED
    with pytest.raises(BadValue):
        units.parse_size("unlimited", {})


@pytest.mark.parametrize(
    ("text", "rate"),
    [("100/s", Rate(100, 10**9)), ("10/m", Rate(10, 60 * 10**9)), ("1000/h", Rate(1000, 3600 * 10**9))],
)
def test_rates(text: str, rate: Rate) -> None:
    assert units.parse_rate(text, {}) == rate


def test_byte_rates() -> None:
    assert units.parse_byte_rate("64KiB/s", {}) == 65536
    assert units.parse_byte_rate("0B/s", {}) == 0


@pytest.mark.parametrize(
    "parse", [units.parse_duration, units.parse_size, units.parse_rate, units.parse_byte_rate]
)
@pytest.mark.parametrize(
    "text", ["", " ", "5", "5 s", "s", "-1s", "٣s", "1s\n", "1e3B", "1/", "/s", "1//s", "9" * 400 + "s"]
)
def test_what_is_no_quantity(parse: object, text: str) -> None:
    with pytest.raises(BadValue):
        parse(text, {})  # type: ignore[operator]


@given(
    st.sampled_from([units.parse_duration, units.parse_size, units.parse_rate, units.parse_byte_rate]),
    st.text(),
)
def test_suggestions_are_themselves_valid(parse: object, text: str) -> None:
    _suggestion_is_valid(parse, text)


@pytest.mark.parametrize(
    "text", ["1.5s", "10 mb", "8k", "5 minutes", "100 per hour", "500B", "1m30s", "2.5GiB"]
)
@pytest.mark.parametrize(
    "parse", [units.parse_duration, units.parse_size, units.parse_rate, units.parse_byte_rate]
)
def test_likely_suggestions_are_valid(parse: object, text: str) -> None:
    _suggestion_is_valid(parse, text)


def _suggestion_is_valid(parse: object, text: str) -> None:
    try:
        parse(text, {})  # type: ignore[operator]
    except BadValue as bad:
        if bad.hint.startswith('did you mean "'):
            parse(bad.hint.removeprefix('did you mean "').removesuffix('"?'), {})  # type: ignore[operator]


@pytest.mark.parametrize(
    ("text", "host", "port", "unix"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080, None),
        ("[::1]:8080", "::1", 8080, None),
        (":8080", "", 8080, None),
        ("LocalHost:0", "localhost", 0, None),
        ("unix:/run/x.sock", "", 0, "/run/x.sock"),
    ],
)
def test_binds(text: str, host: str, port: int, unix: str | None) -> None:
    assert addresses.parse_bind(text, {}) == Address(text, host, port, unix)


@pytest.mark.parametrize(
    "text", [":80", "a:0", "a", "[::1]", "[::1]x:80", "[1.2.3.4]:80", "a:+1", "a:٣", "unix:", "a\0:1"]
)
def test_bad_endpoint_addresses(text: str) -> None:
    with pytest.raises(BadValue):
        addresses.parse_address(text, {})


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("API.Example.com", "api.example.com"),
        ("*.b", "*.b"),
        ("10.0.0.1", "10.0.0.1"),
        ("[::1]", "[::1]"),
        ("a_b", "a_b"),
    ],
)
def test_host_patterns(text: str, pattern: str) -> None:
    assert addresses.parse_host_pattern(text, {}) == pattern


@pytest.mark.parametrize(
    "text", ["*", "**.a", "a.*", "*a.b", "*.", "*.[::1]", "a:80", "a.", "-a", "a" * 64, "1.2.3", ""]
)
def test_bad_host_patterns(text: str) -> None:
    with pytest.raises(BadValue):
        addresses.parse_host_pattern(text, {})


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.0.0.1", "10.0.0.1/32"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("::1", "::1/128"),
    ],
)
def test_networks(text: str, network: str) -> None:
    assert addresses.parse_cidr(text, {}) == network


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/a%2fb", "/a%2Fb"),
        ("/%41%7e", "/A~"),
        ("/a b|é", "/a%20b%7C%C3%A9"),
        ("/users/{id}", "/users/{id}"),
        ("/a:@!$&'()*+,;=", "/a:@!$&'()*+,;="),
    ],
)
def test_normal_form_of_paths(path: str, normal: str) -> None:
    assert texts.parse_path_template(path, {}) == path
    assert texts.normal_path(path) == normal
    assert texts.normal_path(normal) == normal


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/a//b", "/a/b"),
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a/..", "/"),
        ("/a/%2E%2e/b", "/b"),
        ("//", "/"),
        ("/..;x/a", "/a"),
        ("/a/b%2F../c", ""),
    ],
)
def test_paths_that_no_request_has(path: str, meant: str) -> None:
    with pytest.raises(BadValue) as caught:
        texts.parse_path(path, {})
    assert caught.value.hint == (f'did you mean "{meant}"?' if meant else "")


@pytest.mark.parametrize("path", ["/...", "/.well-known/x", "/a..b", "/..a", "/a/", "/a;x=.."])
def test_paths_with_harmless_dots(path: str) -> None:
    assert texts.parse_path(path, {}) == path


@given(st.text())
def test_header_values_hold_no_control_characters(text: str) -> None:
    try:
        value = texts.parse_header_value(text, {})
    except BadValue:
        return
    assert all(c == "\t" or " " <= c <= "~" for c in value)
    assert value == value.strip(" \t")


def test_errors_never_show_a_header_value() -> None:
    for value in ("hunter2\n", " hunter2", "hunter2\x00", "hunter2é", "hunter2" * 3000):
        with pytest.raises(BadValue) as caught:
            texts.parse_header_value(value, {})
        assert "hunter" not in str(caught.value) + caught.value.hint


@pytest.mark.parametrize(
    "name", ["Host", "CONNECTION", "transfer-encoding", "Content-Length", "te", "Upgrade", "Trailer"]
)
def test_fields_that_only_the_gateway_writes(name: str) -> None:
    with pytest.raises(BadValue):
        texts.parse_set_header_name(name, {})
    assert texts.parse_header_name(name, {}) == name.lower()


def test_secrets_show_nothing() -> None:
    secret = Secret("hunter2", "env TOKEN")
    shown = f"{secret} {secret!r} {secret!s} {[secret]} {secret:>10}"
    assert "hunter2" not in shown
    assert "<secret>" in shown
    assert secret.reveal() == "hunter2"
    assert secret == Secret("hunter2", "file x") != Secret("other", "env TOKEN")
    assert hash(secret) == hash(Secret("hunter2", ""))
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        copy.deepcopy(secret)


@given(st.text())
def test_quoted_text_disturbs_no_terminal(text: str) -> None:
    shown = quote(text, limit=1000)
    assert shown.isprintable()
    assert len(shown) >= 2


def test_suggestions_need_to_be_near() -> None:
    assert did_you_mean("prot", ["port", "path"]) == 'did you mean "port"?'
    assert did_you_mean("drain-timeout", ["drain_timeout"]) == 'did you mean "drain_timeout"?'
    assert did_you_mean("zzz", ["port", "path"]) == ""
    assert did_you_mean("x", []) == ""


def test_minima() -> None:
    assert units.parse_size("1B", {"minimum": 1}) == 1
    with pytest.raises(BadValue):
        units.parse_size("0B", {"minimum": 1})
    with pytest.raises(BadValue):
        units.parse_duration("0s", {"minimum": 1_000_000})


@given(st.lists(st.sampled_from(PATH_PIECES), max_size=6).map("".join), st.booleans())
def test_the_router_compiles_every_path_that_passes_and_reads_it_in_the_same_normal_form(
    text: str, template: bool
) -> None:
    path = "/" + text
    try:
        (texts.parse_path_template if template else texts.parse_path)(path, {})
    except BadValue:
        return
    normal = texts.normal_path(path)
    if template:
        segments = [segment or b"{}" for segment in _core.parse_path_pattern(path).segments]
        assert (
            segments == [b"{}" if s[:1] == "{" else s.encode() for s in normal.split("/")[1:]]
            or normal[-1] == "/"
        )
    else:
        assert _core.parse_prefix(path) == normal.rstrip("/").encode()


@pytest.mark.parametrize(
    "host", ["a.b", "*.b", "A_b", "1.2.3.4", "[::1]", "[::FFFF]", "xn--a", "0x7f.1", "*.a-b"]
)
def test_the_router_reads_every_host_that_passes(host: str) -> None:
    pattern = addresses.parse_host_pattern(host, {})
    assert _core.parse_host_pattern(pattern) == (
        pattern.startswith("*."),
        pattern.removeprefix("*.").encode(),
    )


def test_log_templates_are_judged_by_the_log_itself() -> None:
    template = "$$ ${time} " + " ".join(f"${name}" for name in _core.ACCESS_LOG_FIELDS)
    assert texts.parse_log_format(template, {}) == template
    for text, hint in (("$statsu", "did you mean $status?"), ("jsn", 'did you mean "json"?')):
        with pytest.raises(BadValue) as caught:
            texts.parse_log_format(text, {})
        assert caught.value.hint == hint
    for text in ("", "$", "${time", "a\n$time", "$$"):
        with pytest.raises(BadValue):
            texts.parse_log_format(text, {})
