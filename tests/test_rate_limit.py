"""The rate-limit filter: keys, refusals, fields, and what it keeps in memory."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from fastgate._core import RateLimiter, SampleRequest, loop_check_clients

SECOND = 1_000_000_000


def limiter(rate: tuple[int, int] = (100, SECOND), **changes: object) -> RateLimiter:
    config: dict[str, object] = {
        "name": "limit",
        "key": ("client-ip",),
        "rate": SimpleNamespace(count=rate[0], per_ns=rate[1]),
        "burst": 1,
        "per": "plugin",
        "scope": "worker",
        "cost": 1,
        "cost_header": "",
        "shared_as": "",
        "ipv6_prefix": 64,
        "max_keys": 1000,
        "report_only": False,
        "headers": ("ratelimit",),
    }
    return RateLimiter(SimpleNamespace(**(config | changes)))


def share(
    checked: RateLimiter,
    one: SampleRequest,
    other: SampleRequest,
    route: str = "",
    other_route: str = "",
) -> bool:
    """Whether the two requests take from one bucket."""
    return checked.key_hash(one, route) == checked.key_hash(other, other_route)


def test_the_burst_passes_and_no_more_until_time_has_passed() -> None:
    checked = limiter((10, SECOND), burst=3)
    request = SampleRequest("192.0.2.1")
    assert [checked.check_request(request, 0).refused for _ in range(4)] == [False, False, False, True]
    assert checked.check_request(request, SECOND // 10 - 1).refused
    assert not checked.check_request(request, SECOND // 10).refused
    assert checked.check_request(request, SECOND // 10).refused
    # Never more than the burst, however long it was quiet.
    assert [checked.check_request(request, 3600 * SECOND).refused for _ in range(4)] == [
        False,
        False,
        False,
        True,
    ]
    assert (checked.passed, checked.limited, checked.reported) == (7, 4, 0)
    assert not checked.check_request(SampleRequest("192.0.2.2"), 0).refused


@pytest.mark.parametrize(
    ("key", "one", "other", "shared"),
    [
        (("client-ip",), {"client": "10.0.0.1"}, {"client": "10.0.0.1"}, True),
        (("client-ip",), {"client": "10.0.0.1"}, {"client": "10.0.0.2"}, False),
        (("client-ip",), {"client": "10.0.0.1"}, {"client": "::ffff:10.0.0.1"}, True),
        (("client-ip",), {"client": "2001:db8::1"}, {"client": "2001:db8::ffff:ffff:ffff:ffff"}, True),
        (("client-ip",), {"client": "2001:db8::1"}, {"client": "2001:db8:0:1::1"}, False),
        (("client-ip",), {"client": ""}, {"client": ""}, True),
        (("consumer",), {"consumer": "a"}, {"consumer": "a", "client": "10.0.0.1"}, True),
        (("consumer",), {"consumer": "a"}, {"consumer": "b"}, False),
        (
            ("header:X-Key",),
            {"headers": [("x-key", "a")]},
            {"headers": [("X-KEY", "a"), ("x-key", "b")]},
            True,
        ),
        (("header:X-Key",), {"headers": [("x-key", "a")]}, {"headers": [("x-key", "A")]}, False),
        (("header:X-Key",), {"headers": [("x-key", "")]}, {}, True),
        (("header:X-Key",), {"headers": [("x-key", "a" * 8)]}, {"headers": [("x-key", "a" * 9)]}, False),
        (
            ("cookie:id",),
            {"headers": [("cookie", "id=a")]},
            {"headers": [("Cookie", "x=1; id=a ; y=2")]},
            True,
        ),
        (
            ("cookie:id",),
            {"headers": [("cookie", "id=a")]},
            {"headers": [("cookie", "x=1"), ("cookie", "id=a")]},
            True,
        ),
        (
            ("cookie:id",),
            {"headers": [("cookie", "id=a")]},
            {"headers": [("cookie", "xid=a; ID=a; id")]},
            False,
        ),
        (("cookie:id",), {"headers": [("cookie", "xid=a; ID=a; id")]}, {}, True),
        (("global",), {"client": "10.0.0.1"}, {"client": "10.0.0.2"}, True),
        # No two lists of values are one message: where one ends and the next begins is part of it.
        (
            ("header:a", "header:b"),
            {"headers": [("a", "xy"), ("b", "")]},
            {"headers": [("a", "x"), ("b", "y")]},
            False,
        ),
        (("header:a", "header:b"), {"headers": [("a", "x")]}, {"headers": [("b", "x")]}, False),
        (("header:a",), {"headers": [("a", "x")]}, {"headers": [("a", "x\0")]}, False),
        (("client-ip", "header:a"), {"headers": [("a", "x")]}, {"headers": [("a", "y")]}, False),
    ],
)
def test_the_key_decides_who_shares_a_bucket(
    key: tuple[str, ...], one: dict[str, object], other: dict[str, object], shared: bool
) -> None:
    first, second = SampleRequest(**one), SampleRequest(**other)  # type: ignore[arg-type]
    checked = limiter(key=key)
    assert share(checked, first, second) is shared
    assert not checked.check_request(first, 0).refused
    assert checked.check_request(second, 0).refused is shared


@pytest.mark.parametrize(("prefix", "shared"), [(128, False), (126, True), (0, True)])
def test_ipv6_prefix(prefix: int, shared: bool) -> None:
    checked = limiter(ipv6_prefix=prefix)
    assert share(checked, SampleRequest("2001:db8::1"), SampleRequest("2001:db8::2")) is shared
    assert not share(checked, SampleRequest("10.0.0.1"), SampleRequest("10.0.0.2"))


def test_path_segments_are_found_by_their_names() -> None:
    checked = limiter(key=("path:tenant",))
    one = SampleRequest(captures={"tenant": "acme", "item": "7"})
    other = SampleRequest(captures={"region": "eu", "tenant": "acme"})
    assert share(checked, one, other)
    assert not share(checked, one, SampleRequest(captures={"tenant": "7", "item": "acme"}))
    # A route without the segment, and one without any: empty.
    assert share(checked, SampleRequest(captures={"region": "acme"}), SampleRequest())
    assert not share(checked, one, SampleRequest())


def test_scope_route_keeps_a_bucket_set_for_each_route() -> None:
    request = SampleRequest()
    for scope, shared in (("plugin", True), ("route", False)):
        checked = limiter(per=scope)
        assert share(checked, request, request, "a", "b") is shared


def test_two_limiters_do_not_hash_alike_unless_seeded_alike() -> None:
    request = SampleRequest()
    assert limiter().key_hash(request) != limiter().key_hash(request)
    config = SimpleNamespace(
        name="a", key=("global",), rate=SimpleNamespace(count=1, per_ns=1), burst=1,
        per="plugin", scope="worker", cost=1, cost_header="", shared_as="",
        ipv6_prefix=64, max_keys=1, report_only=False, headers=(),
    )  # fmt: skip
    one, other = RateLimiter(config, seed=b"x" * 16), RateLimiter(config, seed=b"x" * 16)
    assert one.key_hash(request) == other.key_hash(request)


def fields(raw: bytes) -> list[tuple[str, str]]:
    assert raw == b"" or raw.endswith(b"\r\n")
    return [
        (name, value) for name, _, value in (line.partition(": ") for line in raw.decode().split("\r\n")[:-1])
    ]


def test_ratelimit_fields_of_draft_10() -> None:
    checked = limiter((10, SECOND), burst=25)
    request = SampleRequest()
    first = checked.check_request(request, 0)
    assert fields(first.headers) == [
        ("RateLimit-Policy", '"limit";q=25;w=3'),
        ("RateLimit", '"limit";r=24;t=1'),
    ]
    for _ in range(23):
        checked.check_request(request, 0)
    last = checked.check_request(request, 0)
    # None is left: the next is there in a tenth of a second, which is told as one.
    assert fields(last.headers)[1] == ("RateLimit", '"limit";r=0;t=1')
    refused = checked.check_request(request, 0)
    assert refused.refused
    assert fields(refused.headers) == [
        ("Retry-After", "1"),
        ("RateLimit-Policy", '"limit";q=25;w=3'),
        ("RateLimit", '"limit";r=0;t=1'),
    ]


def test_x_ratelimit_fields_by_switch_and_none() -> None:
    checked = limiter((1, 60 * SECOND), burst=2, headers=("x-ratelimit",))
    request = SampleRequest()
    assert fields(checked.check_request(request, 0).headers) == [
        ("X-RateLimit-Limit", "2"),
        ("X-RateLimit-Remaining", "1"),
        ("X-RateLimit-Reset", "60"),
    ]
    both = limiter(headers=("ratelimit", "x-ratelimit"))
    assert len(fields(both.check_request(request, 0).headers)) == 5
    silent = limiter(headers=())
    assert silent.check_request(request, 0).headers == b""
    assert fields(silent.check_request(request, 0).headers) == [("Retry-After", "1")]


def test_retry_after_is_whole_seconds_rounded_up_and_at_least_one() -> None:
    checked = limiter((1, 60 * SECOND))
    request = SampleRequest()
    checked.check_request(request, 0)
    for now, seconds in [(0, 60), (1, 60), (SECOND, 59), (59 * SECOND, 1), (60 * SECOND - 1, 1)]:
        result = checked.check_request(request, now)
        assert result.refused
        assert result.retry_after == seconds
        assert fields(result.headers)[0] == ("Retry-After", str(seconds))
    assert not checked.check_request(request, 60 * SECOND).refused


def test_a_name_is_quoted_as_a_structured_fields_string() -> None:
    result = limiter(name='a "b" \\c').check_request(SampleRequest(), 0)
    assert fields(result.headers)[0][1].startswith('"a \\"b\\" \\\\c";q=')
    with pytest.raises(ValueError, match="is ASCII"):
        limiter(name="größe")
    limiter(name="größe", headers=())


def test_report_only_counts_and_lets_pass_without_fields() -> None:
    checked = limiter(report_only=True)
    request = SampleRequest()
    checked.check_request(request, 0)
    result = checked.check_request(request, 0)
    assert (result.limited, result.refused, result.headers) == (True, False, b"")
    assert (checked.passed, checked.limited, checked.reported) == (1, 0, 1)


def test_a_clock_that_steps_back_gives_nothing_and_takes_nothing() -> None:
    checked = limiter((1, SECOND), burst=2)
    request = SampleRequest()
    assert not checked.check_request(request, 10 * SECOND).refused
    assert not checked.check_request(request, 5 * SECOND).refused
    assert checked.check_request(request, 10 * SECOND + SECOND - 1).refused
    assert not checked.check_request(request, 11 * SECOND).refused


def test_the_longest_unused_key_is_dropped() -> None:
    checked = limiter((1, 3600 * SECOND), max_keys=3)
    clients = [SampleRequest(f"10.0.0.{i}") for i in range(5)]
    for client in clients[:3]:
        checked.check_request(client, 0)
    assert checked.check_request(clients[0], 0).refused  # 0 is the newest now
    checked.check_request(clients[3], 0)  # 1 goes
    assert checked.check_request(clients[0], 0).refused
    assert checked.check_request(clients[2], 0).refused
    assert checked.check_request(clients[3], 0).refused
    assert (checked.keys, checked.evicted) == (3, 1)
    assert not checked.check_request(clients[1], 0).refused  # a full bucket again; 0 goes
    assert not checked.check_request(clients[0], 0).refused
    assert (checked.keys, checked.evicted) == (3, 3)


def test_one_key_at_a_time() -> None:
    checked = limiter((1, 3600 * SECOND), max_keys=1)
    one, other = SampleRequest("10.0.0.1"), SampleRequest("10.0.0.2")
    assert not checked.check_request(one, 0).refused
    assert checked.check_request(one, 0).refused
    assert not checked.check_request(other, 0).refused
    assert not checked.check_request(one, 0).refused


def resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096


def test_a_million_keys_in_52_to_56_bytes_each() -> None:
    before = resident_bytes()
    checked = limiter((1, 3600 * SECOND), max_keys=1_000_000)
    assert checked.size_bytes <= 56 * 1_000_001
    # Nothing of it is there before it is used.
    assert resident_bytes() - before < 8_000_000
    assert loop_check_clients(checked, 10 << 24, 1_000_000, 0) == 0
    assert (checked.keys, checked.evicted) == (1_000_000, 0)
    assert resident_bytes() - before < 60_000_000
    # All of them are still known, then a million others push them out, and memory stays what it was.
    assert loop_check_clients(checked, 10 << 24, 1_000_000, 1) == 1_000_000
    assert loop_check_clients(checked, 11 << 24, 1_000_000, 2) == 0
    assert (checked.keys, checked.evicted) == (1_000_000, 1_000_000)
    assert loop_check_clients(checked, 11 << 24, 1_000_000, 3) == 1_000_000
    assert resident_bytes() - before < 60_000_000


@pytest.mark.parametrize(
    "changes",
    [
        {"key": ()},
        {"key": ("client",)},
        {"key": ("header:",)},
        {"key": ("global",) * 17},
        {"ipv6_prefix": 129},
        {"max_keys": 0},
        {"burst": 0},
        {"rate": (0, SECOND)},
        {"burst": 1 << 40},
        {"headers": ("x",)},
    ],
)
def test_what_cannot_be_kept_is_refused_when_it_is_built(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        limiter(**changes)  # type: ignore[arg-type]
