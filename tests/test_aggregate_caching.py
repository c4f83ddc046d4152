"""How long an answer made of several may be kept, and what a worker keeps of parts."""

from __future__ import annotations

import pytest

from fastgate.aggregation.caching import Freshness, combine
from fastgate.aggregation.part_cache import MAX_BYTES, MAX_ENTRIES, PartCache

DATE = ("date", "Sun, 06 Nov 1994 08:49:37 GMT")
LATER = ("expires", "Sun, 06 Nov 1994 08:50:37 GMT")


def said(*values: str) -> list[tuple[str, str]]:
    return [("cache-control", value) for value in values]


@pytest.mark.parametrize(
    ("answers", "whole"),
    [
        ([said("max-age=60"), said("max-age=10")], "max-age=10"),
        ([said("max-age=60"), [*said("max-age=30"), ("age", "25")]], "max-age=5"),
        ([[*said("max-age=30"), ("age", "31")]], "max-age=0"),
        ([said("max-age=60, s-maxage=5")], "max-age=60, s-maxage=5"),
        ([said("max-age=0, s-maxage=600"), said("max-age=60")], "max-age=0, s-maxage=60"),
        ([said("s-maxage=600"), said("max-age=60")], "s-maxage=60"),
        ([said("s-maxage=600"), []], ""),
        ([said("max-age=7, s-maxage=600, private")], "private, max-age=7"),
        ([[*said("max-age=9, s-maxage=600"), ("age", "5")]], "max-age=4, s-maxage=595"),
        ([[DATE, LATER]], "max-age=60"),
        ([[DATE, ("expires", "0")]], "max-age=0"),
        ([[DATE, LATER, *said("max-age=5")]], "max-age=5"),
        ([said("max-age=60"), []], ""),
        ([], ""),
        ([said("max-age=60"), said("no-store")], "no-store"),
        ([said("max-age=60"), said("private, max-age=9")], "private, max-age=9"),
        ([said("max-age=60"), said("no-cache")], "no-cache"),
        ([said("private"), said("no-cache")], "private, no-cache"),
        ([said("max-age=60"), [*said("max-age=60"), ("vary", "*")]], "no-cache"),
        ([[*said("max-age=60"), ("vary", "Accept, *")]], "no-cache"),
        ([said("max-age=60, must-revalidate"), said("max-age=70")], "max-age=60, must-revalidate"),
        ([said("max-age=60", "no-store")], "no-store"),
        ([said('max-age="7"')], "max-age=7"),
        ([said("MAX-AGE=7")], "max-age=7"),
        ([said("max-age=seven")], "max-age=0"),
        ([said("max-age=99999999999999999999")], "max-age=2147483648"),
        ([said("max-age=7, max-age=9")], "max-age=7"),
    ],
)
def test_the_least_of_all(answers: list[list[tuple[str, str]]], whole: str) -> None:
    assert combine(answers) == whole


def test_an_answer_that_is_one_clients() -> None:
    assert combine([said("max-age=60, s-maxage=70")], private=True) == "private, max-age=60"
    assert combine([said("max-age=60"), []], private=True) == "private"
    assert combine([said("no-store")], private=True) == "no-store"


def test_an_answer_that_says_nothing_says_nothing() -> None:
    assert Freshness.of([]) == Freshness()
    assert Freshness().storable


SECOND = 1_000_000_000


def kept(cache: PartCache, fields: list[tuple[str, str]], lifetime: int = 10) -> int:
    """For how many seconds."""
    cache.put("key", 200, fields, b"x", lifetime * SECOND, 0)
    return next((n for n in range(20) if cache.get("key", n * SECOND) is None), 20)


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ([], 10),
        (said("max-age=60"), 10),
        (said("max-age=3"), 3),
        ([*said("max-age=9"), ("age", "4")], 5),
        (said("no-store"), 0),
        (said("private, max-age=60"), 0),
        (said("no-cache"), 0),
        ([("vary", "*")], 0),
        (said("max-age=3, s-maxage=7"), 7),
        ([("set-cookie", "a=1")], 0),
        (said("max-age=0"), 0),
    ],
)
def test_what_is_kept_and_for_how_long(fields: list[tuple[str, str]], seconds: int) -> None:
    assert kept(PartCache(), fields) == seconds


def test_what_is_kept_is_bounded() -> None:
    cache = PartCache()
    for n in range(MAX_ENTRIES + 10):
        cache.put(n, 200, [], b"x", SECOND, 0)
        cache.get(0, 0)
    assert len(cache) == MAX_ENTRIES
    assert cache.get(0, 0) is not None  # the one that was used
    assert cache.get(1, 0) is None
    for fields, key_size in [([("x", "y" * (MAX_BYTES // 8))], 0), ([], MAX_BYTES // 8)]:
        others = PartCache()
        for n in range(20):
            others.put(n, 200, fields, b"x", SECOND, 0, key_size)
        assert len(others) == 7
    large = PartCache()
    for n in range(20):
        large.put(n, 200, [], bytes(MAX_BYTES // 8), SECOND, 0)
    assert len(large) == 7
    large.put("too large", 200, [], bytes(MAX_BYTES // 2), SECOND, 0)
    assert large.get("too large", 0) is None
