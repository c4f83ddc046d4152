"""The token bucket against a model in fractions, and its hash against the published one."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastgate._core import RateLimiter, SampleRequest, rate_error, sip_hash

SECOND = 1_000_000_000


class Model:
    """The token bucket as one would write it on paper."""

    def __init__(self, count: int, per_ns: int, burst: int) -> None:
        self.rate = Fraction(count, per_ns)
        self.burst = burst
        self.tokens = Fraction(burst)
        self.at: int | None = None

    def take(self, now_ns: int) -> bool:
        if self.at is not None and now_ns > self.at:
            self.tokens = min(Fraction(self.burst), self.tokens + (now_ns - self.at) * self.rate)
        self.at = now_ns if self.at is None else max(self.at, now_ns)
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


def build(count: int, per_ns: int, burst: int) -> RateLimiter:
    rate = SimpleNamespace(count=count, per_ns=per_ns)
    return RateLimiter(
        SimpleNamespace(
            name="exact", key=("global",), rate=rate, burst=burst, per="plugin", scope="worker",
            cost=1, cost_header="", shared_as="", ipv6_prefix=64, max_keys=1,
            report_only=False, headers=(),
        )
    )  # fmt: skip


rates = st.tuples(
    st.integers(1, 100_000),
    st.sampled_from([SECOND // 1000, SECOND, 60 * SECOND, 3600 * SECOND, 7, 86_400 * SECOND]),
)


@given(
    rates,
    st.integers(1, 1000),
    st.lists(st.tuples(st.integers(0, 3), st.integers(-5, 40)), min_size=1, max_size=80),
)
@example((3, SECOND), 1, [(0, 1)] * 40)
@example((100_000, 7), 1000, [(0, 0)] * 80)
@settings(max_examples=200, deadline=None)
def test_every_decision_is_the_models(
    rate: tuple[int, int], burst: int, steps: list[tuple[int, int]]
) -> None:
    if rate_error(*rate, burst) is not None:
        return
    exact, model, request = build(*rate, burst), Model(*rate, burst), SampleRequest()
    interval = Fraction(rate[1], rate[0])
    now = 10**15
    for kind, amount in steps:
        # Steps around the time that one token takes, where rounding would show; tiny, long, backward ones.
        now += [amount, int(interval) + amount, int(interval * abs(amount) / 7), abs(amount) * SECOND * 600][
            kind
        ]
        result = exact.check_request(request, now)
        assert result.refused is not model.take(now)
        assert result.remaining == int(model.tokens)
        if result.refused:
            wait = (1 - model.tokens) / model.rate / SECOND
            assert result.retry_after == max(1, -int(-wait // 1))


def test_a_million_tokens_do_not_drift_by_one() -> None:
    # A bucket that rounds its refills to tokens, or the time of a token to nanoseconds, loses some.
    exact, request = build(3, 10, 1), SampleRequest()
    now = passed = 0
    for _ in range(200_000):
        passed += not exact.check_request(request, now).refused
        now += 4
    # From 0 on, 0.3 tokens a nanosecond and never more than one kept: 4 ns bring 1.2, so all pass.
    assert passed == 200_000
    exact = build(1, 3, 1)
    passed = sum(not exact.check_request(request, now).refused for now in range(300_000))
    assert passed == 100_000


@pytest.mark.parametrize("extra", [0, 1, 1000])
def test_a_bucket_quiet_for_days_is_full_whatever_its_rate(extra: int) -> None:
    # The product of the time passed and the rate is just over 2^64 there: kept in 64 bits it would be near 0.
    exact, request = build(99_999, SECOND, 3), SampleRequest()
    for _ in range(4):
        exact.check_request(request, 0)
    later = (1 << 64) // 99_999 + extra
    assert [exact.check_request(request, later).refused for _ in range(4)] == [False, False, False, True]


@given(st.integers(0, 1 << 70), st.integers(0, 1 << 70), st.integers(0, 1 << 70))
@settings(max_examples=200, deadline=None)
def test_a_rate_is_either_refused_or_kept_without_overflow(count: int, per_ns: int, burst: int) -> None:
    error = rate_error(count, per_ns, burst)
    if error is None:
        exact, model, request = build(count, per_ns, burst), Model(count, per_ns, burst), SampleRequest()
        for now in (0, 0, 1, 2, 10**9, 10**18, 10**18, 2**63 - 1):
            assert exact.check_request(request, now).refused is not model.take(now)


def sip_reference(key: bytes, message: bytes) -> bytes:
    """SipHash-2-4 with 128 bits of output, as in the paper and its reference program."""
    mask = (1 << 64) - 1
    k0, k1 = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
    v = [
        k0 ^ 0x736F6D6570736575,
        k1 ^ 0x646F72616E646F6D ^ 0xEE,
        k0 ^ 0x6C7967656E657261,
        k1 ^ 0x7465646279746573,
    ]

    def rotate(x: int, by: int) -> int:
        return (x << by | x >> (64 - by)) & mask

    def rounds(count: int) -> None:
        for _ in range(count):
            v[0] = (v[0] + v[1]) & mask
            v[1] = rotate(v[1], 13) ^ v[0]
            v[0] = rotate(v[0], 32)
            v[2] = (v[2] + v[3]) & mask
            v[3] = rotate(v[3], 16) ^ v[2]
            v[0] = (v[0] + v[3]) & mask
            v[3] = rotate(v[3], 21) ^ v[0]
            v[2] = (v[2] + v[1]) & mask
            v[1] = rotate(v[1], 17) ^ v[2]
            v[2] = rotate(v[2], 32)

    padded = message + bytes(7 - len(message) % 8) + bytes([len(message) & 255])
    for at in range(0, len(padded), 8):
        word = int.from_bytes(padded[at : at + 8], "little")
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xEE
    rounds(4)
    low = v[0] ^ v[1] ^ v[2] ^ v[3]
    v[1] ^= 0xDD
    rounds(4)
    return low.to_bytes(8, "little") + (v[0] ^ v[1] ^ v[2] ^ v[3]).to_bytes(8, "little")


def test_the_reference_of_these_tests_gives_the_published_vectors() -> None:
    key = bytes(range(16))
    assert sip_reference(key, b"").hex() == "a3817f04ba25a8e66df67214c7550293"
    assert sip_reference(key, b"\0").hex() == "da87c1d86b99af44347659119b22fc45"


@given(st.binary(min_size=16, max_size=16), st.binary(max_size=300).map(lambda raw: raw[: len(raw) // 8 * 8]))
@settings(max_examples=150, deadline=None)
def test_the_hash_is_siphash(key: bytes, message: bytes) -> None:
    assert sip_hash(key, message) == sip_reference(key, message)
