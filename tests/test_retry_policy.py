"""Which failures are tried again, for which requests, and after what pause."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgate._core import (
    REASONS,
    RetryPolicy,
    SampleRequest,
    http_date,
    retry_after_seconds,
    undelivered,
)

MS = 1_000_000
SECOND = 1_000_000_000
MOST = (1 << 64) - 1
NOW = int(datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC).timestamp())

WANTED = {
    "connect-failure": {
        *("connect-refused", "connect-failed", "connect-timeout", "dns-failure"),
        *("upstream-certificate", "upstream-handshake"),
    },
    "refused": {"connect-refused"},
    "reset": {"upstream-reset"},
    "timeout": {"upstream-head-timeout"},
    "status": set(),
}


@pytest.mark.parametrize("condition", WANTED)
def test_each_condition_names_its_failures_and_no_other(condition: str) -> None:
    policy = RetryPolicy(on=(condition,))
    assert {info.code for info in REASONS if policy.wants_retry(info.code)} == WANTED[condition]


def test_the_default_conditions_and_several() -> None:
    default = RetryPolicy()
    both = WANTED["connect-failure"] | WANTED["reset"]
    assert {info.code for info in REASONS if default.wants_retry(info.code)} == both
    assert not default.wants_retry("none", 503)
    assert not any(RetryPolicy(on=()).wants_retry(info.code, 503) for info in REASONS)


def test_statuses() -> None:
    policy = RetryPolicy(on=("status",), statuses=(500, 599, 429))
    assert {status for status in range(-10, 1000) if policy.wants_retry("none", status)} == {429, 500, 599}
    # A failure is not an answer, whatever status the gateway would make of it.
    assert not policy.wants_retry("upstream-reset", 500)


def test_what_proves_that_nothing_was_delivered() -> None:
    assert {info.code for info in REASONS if undelivered(info.code)} == {
        "connect-refused",
        "connect-failed",
        "connect-timeout",
        "upstream-certificate",
        "upstream-handshake",
        "dns-failure",
        "queue-full",
        "queue-timeout",
        "no-endpoint",
        "endpoints-pending",
        "overloaded",
        "overload-timeout",
        "breaker-limit",
        "breaker-open",
    }


SAFE = ("GET", "HEAD", "OPTIONS")
UNSAFE = ("POST", "PUT", "DELETE", "PATCH", "PROPFIND", "get")


@pytest.mark.parametrize("unsafe", ["never", "idempotency-key", "always"])
@pytest.mark.parametrize("method", SAFE + UNSAFE)
def test_methods(method: str, unsafe: str) -> None:
    policy = RetryPolicy(unsafe=unsafe)
    request = SampleRequest(method=method)
    keyed = SampleRequest(method=method, headers=[("Idempotency-Key", '"8e03978e"')])
    assert policy.allows_request(request) is (method in SAFE or unsafe == "always")
    assert policy.allows_request(keyed) is (method in SAFE or unsafe != "never")
    # No endpoint has seen it: nothing can happen twice.
    assert policy.allows_request(request, undelivered=True)


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ([("idempotency-key", "x")], True),
        ([("IDEMPOTENCY-KEY", '"x"')], True),
        ([("idempotency-key", "")], False),
        ([("idempotency-key", '""')], False),
        ([("idempotency-key", "a"), ("idempotency-key", "b")], False),
        ([("idempotency-key", "a"), ("idempotency-key", "")], False),
        ([("x-idempotency-key", "a")], False),
    ],
)
def test_an_idempotency_key_is_one_that_names_something(
    headers: list[tuple[str, str]], allowed: bool
) -> None:
    request = SampleRequest(method="POST", headers=headers)
    assert RetryPolicy(unsafe="idempotency-key").allows_request(request) is allowed


@given(
    st.integers(0, 10 * SECOND),
    st.integers(0, 10 * SECOND),
    st.integers(1, 1 << 31 - 1),
    st.integers(0, MOST),
)
@settings(max_examples=200, deadline=None)
def test_back_off_is_full_jitter(base: int, most: int, retry: int, bits: int) -> None:
    policy = RetryPolicy(backoff_base_ns=base, backoff_max_ns=most)
    longest = min(most, base * 2 ** min(retry - 1, 64))
    pause = policy.pause_ns(retry, bits)
    assert pause == bits * (longest + 1) >> 64
    assert policy.pause_ns(retry, 0) == 0
    assert policy.pause_ns(retry, MOST) == longest


def test_back_off_of_the_defaults() -> None:
    policy = RetryPolicy()
    assert [policy.pause_ns(retry, MOST) for retry in range(1, 7)] == [
        25 * MS,
        50 * MS,
        100 * MS,
        200 * MS,
        250 * MS,
        250 * MS,
    ]
    assert RetryPolicy(backoff_base_ns=1, backoff_max_ns=(1 << 63) - 2).pause_ns(100, MOST) == (1 << 63) - 2


def test_retry_after_is_honoured_within_its_bound() -> None:
    policy = RetryPolicy(retry_after_max_ns=2 * SECOND)
    assert policy.pause_ns(1, 0, b"2", NOW) == 2 * SECOND
    assert policy.pause_ns(1, MOST, b"2", NOW) == 2 * SECOND + 25 * MS
    assert policy.pause_ns(1, 0, b"3", NOW) is None
    assert policy.pause_ns(1, 0, b"9" * 400, NOW) is None
    for nothing in (b"0", b"", b"-1", b"soon", b"Sun, 06 Nov 1994 08:49:37 GMT"):
        assert policy.pause_ns(1, MOST, nothing, NOW) == 25 * MS
    assert RetryPolicy(retry_after_max_ns=(1 << 63) - 1).pause_ns(1, 0, b"9" * 30, NOW) == 10**18


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"0", 0),
        (b"120", 120),
        (b"00000000000000000000000000000000007", 7),
        (b"99999999999", 10**9),
        (b"9" * 8000, 10**9),
        (b"Sun, 01 Mar 2026 12:00:30 GMT", 30),
        (b"Sunday, 01-Mar-26 12:01:00 GMT", 60),
        (b"Sun Mar  1 12:02:00 2026", 120),
        (b"Sun, 06 Nov 1994 08:49:37 GMT", 0),
        (b"Fri, 31 Dec 9999 23:59:60 GMT", 10**9),
        (b"", None),
        (b"-1", None),
        (b"+1", None),
        (b"1.5", None),
        (b"1 ", None),
        (b"1, 2", None),
        (b"0x10", None),
        (b"\xff" * 29, None),
        (b"\0", None),
        (b"Sun, 01 Mar 2026 12:00:30 CET", None),
    ],
)
def test_retry_after(value: bytes, seconds: int | None) -> None:
    assert retry_after_seconds(value, NOW) == seconds


@given(st.binary(max_size=60))
@settings(max_examples=300, deadline=None)
def test_a_hostile_retry_after_does_no_harm(value: bytes) -> None:
    seconds = retry_after_seconds(value, NOW)
    assert seconds is None or 0 <= seconds <= 10**9


MOMENTS = st.integers(0, int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()))


@given(MOMENTS)
@settings(max_examples=200, deadline=None)
def test_dates_of_all_three_forms(seconds: int) -> None:
    moment = datetime.fromtimestamp(seconds, UTC)
    assert http_date(format_datetime(moment, usegmt=True).encode(), NOW) == seconds
    assert http_date(moment.strftime("%a %b %e %H:%M:%S %Y").encode(), NOW) == seconds
    # A year of two digits: at most 50 years ahead (RFC 9110 5.6.7).
    if 1977 <= moment.year <= 2076:
        assert http_date(moment.strftime("%A, %d-%b-%y %H:%M:%S GMT").encode(), NOW) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "Sun, 29 Feb 2026 12:00:30 GMT",
        "Sun, 00 Mar 2026 12:00:30 GMT",
        "Sun, 31 Apr 2026 12:00:30 GMT",
        "Sun, 01 Mrz 2026 12:00:30 GMT",
        "Sun, 01 Mar 2026 24:00:30 GMT",
        "Sun, 01 Mar 2026 12:60:30 GMT",
        "Sun, 01 Mar 2026 12:00:61 GMT",
        "Sun, 1 Mar 2026 12:00:30 GMT",
        "Sun, 01 Mar 2026 12.00.30 GMT",
        "Sun; 01 Mar 2026 12:00:30 GMT",
        "01 Mar 2026 12:00:30 GMT",
        "Sun, 01-Mar-2026 12:00:30 GMT",
        "Sun, 01 Mar 2026 12:00:30",
        "Sun Mar 1 12:02:00 2026",
        "Sun Mar -1 12:02:00 2026",
        "Sun",
        "Sunday, ",
        "",
    ],
)
def test_what_is_no_date(text: str) -> None:
    assert http_date(text.encode(), NOW) is None


def test_cut_and_changed_dates_are_never_read_beyond_their_end() -> None:
    chooser = random.Random(1)
    dates = [b"Sun, 06 Nov 1994 08:49:37 GMT", b"Sunday, 06-Nov-94 08:49:37 GMT", b"Sun Nov  6 08:49:37 1994"]
    for date in dates:
        assert http_date(date, NOW) == 784111777
        for length in range(len(date)):
            assert http_date(date[:length], NOW) is None
        for _ in range(200):
            at = chooser.randrange(len(date))
            http_date(date[:at] + bytes([chooser.randrange(256)]) + date[at + 1 :], NOW)


@pytest.mark.parametrize(
    "bad",
    [
        {"attempts": 1},
        {"attempts": 11},
        {"on": ("conect-failure",)},
        {"statuses": (199,)},
        {"statuses": (600,)},
        {"unsafe": "sometimes"},
        {"backoff_base_ns": -1},
        {"retry_after_max_ns": -1},
        {"budget_percent": 101},
        {"budget_min": -1},
        {"body_limit": -1},
    ],
)
def test_bad_policies(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        RetryPolicy(**bad)  # type: ignore[arg-type]
