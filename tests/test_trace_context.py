"""W3C Trace Context: what is read, what is refused, and what goes on to the endpoint. Section numbers are
those of the Recommendation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support import upstream as up
from support.client import request
from support.gateway import Gateway, config
from support.upstream import Upstream
from support.wire import Request

from fastgate._core import format_traceparent, parse_traceparent, samples_trace, sound_tracestate

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE}-{SPAN}-01"
UNSAMPLED = f"00-{TRACE}-{SPAN}-00"
FORM = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-(0[0-3])")

# -- traceparent


@pytest.mark.parametrize(
    ("value", "flags"),
    [
        (SAMPLED, 1),
        (UNSAMPLED, 0),
        (f"00-{TRACE}-{SPAN}-03", 3),  # level 2: random
        (f"00-{TRACE}-{SPAN}-ff", 3),  # bits that are not known are not kept
        (f"cc-{TRACE}-{SPAN}-01", 1),  # 3.2.4: a later version
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like", 1),
        (f"cc-{TRACE}-{SPAN}-02", 0),  # of which only the sampled flag is known
    ],
)
def test_sound(value: str, flags: int) -> None:
    assert parse_traceparent(value.encode()) == (TRACE, SPAN, flags)
    assert format_traceparent(value.encode()).decode() == f"00-{TRACE}-{SPAN}-0{flags}"


MALFORMED = [
    "",
    "00",
    f"00-{TRACE}-{SPAN}",
    f"00-{TRACE}-{SPAN}-",
    f"00-{TRACE}-{SPAN}-0",
    f"00-{TRACE}-{SPAN}-011",
    f"00-{TRACE}-{SPAN}-01-",
    f"00-{TRACE}-{SPAN}-01-more",  # version 00 has no more
    f"cc-{TRACE}-{SPAN}-01.more",
    f"cc-{TRACE}-{SPAN}-0",
    f"ff-{TRACE}-{SPAN}-01",  # 3.2.2.1: forbidden
    f"0g-{TRACE}-{SPAN}-01",
    f".0-{TRACE}-{SPAN}-01",
    f"00-{'0' * 32}-{SPAN}-01",  # 3.2.2.3
    f"00-{TRACE}-{'0' * 16}-01",  # 3.2.2.4
    f"00-{TRACE.upper()}-{SPAN}-01",  # lower case alone
    f"00-{TRACE}-{SPAN.upper()}-01",
    f"00-{TRACE}-{SPAN}-0A",
    f"00-{TRACE[:-1]}-{SPAN}-01-",
    f"00_{TRACE}-{SPAN}-01",
    f"00-{TRACE}_{SPAN}-01",
    f"00-{TRACE}-{SPAN}_01",
    f"00-{TRACE}-{SPAN}-01,00-{TRACE}-{SPAN}-01",
    f"00-{TRACE[:-1]}\0-{SPAN}-01",
]


@pytest.mark.parametrize("value", MALFORMED)
def test_malformed(value: str) -> None:
    assert parse_traceparent(value.encode()) is None
    with pytest.raises(ValueError, match="malformed"):
        format_traceparent(value.encode())


GRAMMAR = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
near = st.text("0f9aAgG-\0 ", min_size=50, max_size=60).map(str.encode)
mutated = st.builds(
    lambda at, byte: SAMPLED.encode()[:at] + byte + SAMPLED.encode()[at + 1 :],
    st.integers(0, 55),
    st.binary(max_size=2),
)


@given(st.one_of(st.binary(max_size=80), near, mutated))
@example(b"00-" + b"0" * 31 + b"1-" + b"0" * 15 + b"1-01")
def test_reads_the_grammar_and_nothing_else(value: bytes) -> None:
    found = GRAMMAR.fullmatch(value)
    sound = (
        found is not None
        and found[1] != b"ff"
        and not (found[1] == b"00" and found[5])
        and set(found[2]) != {48}
        and set(found[3]) != {48}
    )
    parsed = parse_traceparent(value)
    assert (parsed is not None) == sound
    if parsed is not None:
        again = parse_traceparent(format_traceparent(value))
        assert again == parsed


# -- tracestate


@pytest.mark.parametrize(
    "values",
    [
        [],
        [""],
        [" , ,\t"],
        ["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"],
        ["a=1", "b=2"],
        [" a=1 ,\tb=2\t,, c=3"],
        ["fw529a3039@dt=FfffffR;z:~!"],
        ["1a-_*/@x=1"],  # level 2: a digit first, "@" anywhere
        [f"{'k' * 256}={'v' * 256}"],
        [",".join(f"k{i}=v" for i in range(32))],
        ["a= b"],  # 3.3.1.3.2: a space, not at the end
    ],
)
def test_sound_state(values: list[str]) -> None:
    assert sound_tracestate([value.encode() for value in values])


@pytest.mark.parametrize(
    "values",
    [
        ["a"],
        ["=1"],
        ["a="],
        ["a=1,a=2"],  # 3.3.1: one entry for a key
        ["a=1", "b=2,a=3"],
        ["A=1"],
        ["_a=1"],
        ["@a=1"],
        ["a b=1"],
        ["a =1"],
        ["a=1=2"],
        ["a=\x7f"],
        ["a=\x01"],
        ["a=1\tb"],
        ["a=\xe4"],
        ["a=1;b=2,c"],
        [f"{'k' * 257}=1"],
        [f"k={'v' * 257}"],
        [",".join(f"k{i}=v" for i in range(33))],
        [",".join(f"k{i}=" + "v" * 250 for i in range(17))],  # more bytes than we take
    ],
)
def test_malformed_state(values: list[str]) -> None:
    assert not sound_tracestate([value.encode("latin-1") for value in values])


MEMBER = re.compile(
    rb"[a-z0-9][a-z0-9_\-*/@]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)


@given(st.lists(st.text("ab1=,@_ \t\0A~", max_size=40).map(str.encode), max_size=3))
def test_reads_the_state_of_the_grammar_and_no_other(values: list[bytes]) -> None:
    members = [part.strip(b" \t") for value in values for part in value.split(b",")]
    members = [member for member in members if member]
    keys = [member.partition(b"=")[0] for member in members]
    sound = all(map(MEMBER.fullmatch, members)) and len(set(keys)) == len(keys) and len(members) <= 32
    assert sound_tracestate(values) == sound


# -- sampling


@given(st.integers(1, 2**128 - 1), st.floats(0, 1), st.floats(0, 1))
def test_who_samples_more_samples_the_same(trace: int, one: float, other: float) -> None:
    less, more = sorted((one, other))
    trace_id = f"{trace:032x}"
    assert samples_trace(trace_id, 1)
    assert not samples_trace(trace_id, 0)
    assert samples_trace(trace_id, less) <= samples_trace(trace_id, more)


def test_the_share_is_met() -> None:
    # Ids whose random part goes evenly over all values.
    ids = [f"{1:016x}{i * (2**56 // 1000):016x}" for i in range(1000)]
    assert sum(samples_trace(each, 0.25) for each in ids) == pytest.approx(250, abs=1)


# -- in service: one gateway, whose listeners and routes differ in what they trust and sample


LISTENERS: list[dict[str, Any]] = [
    {"name": "main", "bind": "127.0.0.1:0", "trusted_proxies": ["127.0.0.0/8"]},
    {"name": "strangers", "bind": "127.0.0.1:0"},
]


def gateway_config(upstream: str) -> dict[str, Any]:
    routes: list[dict[str, Any]] = [
        {"name": "all", "upstream": "up", "trace_sample": 1.0, "match": {"prefix": "/sampled"}},
        {"name": "none", "upstream": "up"},
        {
            "name": "own",
            "upstream": "up",
            "match": {"prefix": "/own"},
            "request_headers": {"set": {"traceparent": "configured"}},
        },
    ]
    return config(upstream, listeners=LISTENERS, routes=routes) | {
        # Nobody listens there: what is exported is test_tracing.py's.
        "tracing": {"endpoint": "http://127.0.0.1:9", "sample": 0, "flush_interval": "1h", "timeout": "1s"},
    }


def as_lines(*fields: tuple[str, str]) -> tuple[str, ...]:
    return tuple(f"{name}: {value}" for name, value in fields)


class Seen:
    """What the endpoint was sent."""

    def __init__(self, found: Request) -> None:
        self.parents = found.all("traceparent")
        self.states = found.all("tracestate")

    @property
    def parts(self) -> tuple[str, str, str]:
        (one,) = self.parents
        form = FORM.fullmatch(one)
        assert form is not None, one
        return form[1], form[2], form[3]


class Place:
    def __init__(self, gateway: Gateway, upstream: Upstream) -> None:
        self.gateway = gateway
        self.upstream = upstream

    def seen(self, target: str, *fields: tuple[str, str], listener: str = "main") -> Seen:
        mark = self.upstream.mark()
        self.upstream.script(up.reply())
        with self.gateway.client(listener) as client:
            assert client.request(request("GET", target, lines=as_lines(*fields))).status == 200
        return Seen(mark.one())


@pytest.fixture
def place(gateway: Gateway, upstream: Upstream) -> Place:
    return Place(gateway, upstream)


def test_an_unsampled_trace_goes_on_unchanged(place: Place) -> None:
    for target in ("/", "/sampled"):
        seen = place.seen(target, ("TraceParent", UNSAMPLED), ("TraceState", "a=1"), ("tracestate", "b=2"))
        assert (seen.parents, seen.states) == ([UNSAMPLED], ["a=1", "b=2"])


def test_an_unsampled_trace_of_a_later_version_goes_on_in_ours(place: Place) -> None:
    seen = place.seen("/", ("traceparent", f"cc-{TRACE}-{SPAN}-02-x"))
    assert seen.parents == [UNSAMPLED]


def test_a_sampled_trace_goes_on_with_our_span(place: Place) -> None:
    seen = place.seen("/", ("traceparent", f"00-{TRACE}-{SPAN}-03"), ("tracestate", "a=1"))
    trace, span, flags = seen.parts
    assert (trace, flags) == (TRACE, "03")
    assert span not in (SPAN, "0" * 16)
    assert seen.states == ["a=1"]
    assert place.seen("/", ("traceparent", SAMPLED)).parts[2] == "01"  # the random flag is the caller's


def test_a_trace_begins_here(place: Place) -> None:
    first, second = place.seen("/").parts, place.seen("/").parts
    assert first[2] == second[2] == "02"  # not sampled, and random
    assert first[0] != second[0]
    assert first[1] != second[1]
    assert place.seen("/sampled").parts[2] == "03"


@pytest.mark.parametrize("value", [value for value in MALFORMED if "\0" not in value])
def test_what_is_malformed_begins_a_trace(place: Place, value: str) -> None:
    seen = place.seen("/", ("traceparent", value), ("tracestate", "a=1"))
    assert seen.parts[0] not in (TRACE, "0" * 32)
    assert seen.states == []  # 3.3: without a sound traceparent it means nothing


def test_two_traceparents_begin_a_trace(place: Place) -> None:
    seen = place.seen("/", ("traceparent", SAMPLED), ("traceparent", SAMPLED))
    assert seen.parts[0] != TRACE


def test_a_state_without_a_trace_goes_no_further(place: Place) -> None:
    assert place.seen("/", ("tracestate", "a=1")).states == []


@pytest.mark.parametrize("parent", [SAMPLED, UNSAMPLED])
def test_a_malformed_state_is_left_out(place: Place, parent: str) -> None:
    seen = place.seen("/", ("traceparent", parent), ("tracestate", "a=1"), ("tracestate", "a=2"))
    assert seen.parts[0] == TRACE
    assert seen.states == []


@pytest.mark.parametrize("parent", [SAMPLED, UNSAMPLED])
def test_a_strangers_trace_is_not_gone_on_with(place: Place, parent: str) -> None:
    seen = place.seen("/", ("traceparent", parent), ("tracestate", "a=1"), listener="strangers")
    assert seen.parts[0] != TRACE
    assert seen.parts[2] == "02"
    assert seen.states == []


def test_a_field_that_connection_names_is_for_us(place: Place) -> None:
    seen = place.seen("/", ("Connection", "traceparent"), ("traceparent", UNSAMPLED))
    assert seen.parts[0] != TRACE


def test_a_header_rule_has_the_last_word(place: Place) -> None:
    assert place.seen("/own", ("traceparent", SAMPLED)).parents == ["configured"]


@pytest.fixture(scope="module")
def silent(module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(config(module_upstream.address), tmp_path_factory.mktemp("silent")) as gateway:
        yield gateway


@pytest.mark.parametrize("value", [SAMPLED, "anything"])
def test_without_tracing_all_passes_as_it_came(silent: Gateway, upstream: Upstream, value: str) -> None:
    fields = (("traceparent", value), ("tracestate", "=,="), ("x-fastgate-trace", "1"))
    mark = upstream.mark()
    upstream.script(up.reply())
    with silent.client() as client:
        client.request(request("GET", "/", lines=as_lines(*fields)))
    found = mark.one()
    assert [found.all(name) for name, _ in fields] == [[said] for _, said in fields]
    assert Place(silent, upstream).seen("/").parents == []
