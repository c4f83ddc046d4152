"""Endpoints for the tests of balancing, whose states a test sets as it likes."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from fastgate._core import (
    Group,
    Seat,
    endpoint_states,
    sample_endpoint_state,
    sample_upstream_changed,
    upstream_states,
)

SECOND = 1_000_000_000
POLICIES = ("least-request", "round-robin", "peak-ewma", "random", "maglev", "ring")
DRAWN = ("least-request", "peak-ewma", "random")


class Endpoints:
    """An upstream's endpoints and the Group that chooses among them.

    seats: how many, or the options of each (weight, max_requests, region, zone).
    """

    def __init__(self, seats: int | Iterable[dict[str, Any]], *, seed: int = 1, **rules: Any) -> None:
        options = [{} for _ in range(seats)] if isinstance(seats, int) else list(seats)
        self.states, self.upstreams = endpoint_states(), upstream_states()
        self.random = random.Random(seed)
        self.seats = [self.seat(f"10.0.{i >> 8}.{i & 255}:80", **each) for i, each in enumerate(options)]
        self.group = Group(self.upstreams, "u", self.seats, **rules)

    def seat(self, address: str, **options: Any) -> Seat:
        return Seat("u", address, table=self.states, **options)

    def set(self, position: int, **state: Any) -> None:
        """Gives an endpoint this state, and tells so."""
        sample_endpoint_state(self.seats[position], **state)
        self.tell()

    def tell(self) -> None:
        sample_upstream_changed(self.upstreams, "u")

    def take(self, key: int | None = None, tried: Sequence[int] = (), now: int = 0) -> int:
        return self.group.take(key, tried, self.random.getrandbits(64), now)

    def count(self, times: int, tried: Sequence[int] = (), now: int = 0) -> list[int]:
        """How often each is taken, while nothing is under way."""
        taken = Counter(self.take(None, tried, now) for _ in range(times))
        assert taken.keys() <= set(range(len(self.seats))), "one was not found"
        return [taken[i] for i in range(len(self.seats))]

    def map(self, keys: int, now: int = 0) -> list[Seat]:
        """Where each of so many keys goes."""
        return [self.group.seats[self.take(key, now=now)] for key in range(keys)]


def near(count: int, times: int, share: float, slack: float = 0) -> bool:
    """Whether `count` of `times` is what chance makes of this share.

    That is within five standard deviations, which chance alone leaves once in 1.7 million. slack: so much
    more is allowed, as a part of the share.
    """
    deviation: float = max(1.0, (times * share * (1 - share)) ** 0.5)
    return abs(count - times * share) <= 5 * deviation + slack * times * share
