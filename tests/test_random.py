"""Random bits of the core: the generator's own numbers, and that ranges are filled evenly."""

from __future__ import annotations

from collections import Counter

import pytest

from fastgate._core import RandomSource

MASK = (1 << 64) - 1


def rotl(x: int, by: int) -> int:
    return (x << by | x >> (64 - by)) & MASK


def xoshiro256pp(state: tuple[int, int, int, int], count: int) -> list[int]:
    """The generator as its paper has it."""
    a, b, c, d = state
    out = []
    for _ in range(count):
        out.append((rotl((a + d) & MASK, 23) + a) & MASK)
        t = (b << 17) & MASK
        c ^= a
        d ^= b
        b ^= c
        a ^= d
        c ^= t
        d = rotl(d, 45)
    return out


def test_it_is_xoshiro256pp() -> None:
    source = RandomSource((1, 2, 3, 4))
    numbers = [source.bits() for _ in range(1000)]
    assert numbers == xoshiro256pp((1, 2, 3, 4), 1000)
    # The first ones that the reference implementation gives for this state.
    assert numbers[:3] == [41943041, 58720359, 3588806011781223]


@pytest.mark.parametrize("limit", [1, 2, 7, 100])
def test_below_is_even(limit: int) -> None:
    source = RandomSource((1, 2, 3, 4))
    drawn = 20_000
    counts = Counter(source.below(limit) for _ in range(drawn))
    assert set(counts) <= set(range(limit))
    expected = drawn / limit
    # Chi-square of limit - 1 degrees of freedom: mean that, deviation sqrt(2 (limit - 1)); 5 deviations away.
    chi = sum((counts[i] - expected) ** 2 / expected for i in range(limit))
    assert chi <= limit - 1 + 5 * (2 * limit) ** 0.5


def test_each_bit_is_set_half_of_the_time() -> None:
    source = RandomSource((5, 6, 7, 8))
    numbers = [source.bits() for _ in range(10_000)]
    for bit in range(64):
        assert 4700 < sum(n >> bit & 1 for n in numbers) < 5300


def test_limits() -> None:
    source = RandomSource()
    assert source.below(1) == 0
    assert 0 <= source.below(MASK) < MASK
    with pytest.raises(ValueError, match="below 0"):
        source.below(0)
    with pytest.raises(OverflowError):
        source.below(1 << 64)


def test_two_sources_differ_and_a_state_of_zeros_is_refused() -> None:
    assert RandomSource().bits() != RandomSource().bits()
    with pytest.raises(ValueError, match="not all 0"):
        RandomSource((0, 0, 0, 0))
