"""Signs of life in shared memory (`fastgate.server.heartbeat`)."""

from __future__ import annotations

from support.forks import in_children

from fastgate.server.heartbeat import Heartbeats

TIMES = 300_000
TOO_OLD = 60.0  # seconds; half of a time, or none yet, would be as old as the machine's start


def test_half_a_beat_is_never_seen() -> None:
    """A worker that is preempted while it writes is not one that has been silent for hours."""
    beats = Heartbeats(3)
    beats.beat(1)

    def act(child: int) -> int:
        if child == 0:
            for _ in range(TIMES):
                beats.beat(1)
            return 0
        return 0 if max(beats.age(1) for _ in range(TIMES)) < TOO_OLD else 2

    assert in_children(2, act) == [0, 0]


def test_each_place_has_its_own() -> None:
    beats = Heartbeats(3)
    beats.beat(0)
    beats.beat(2)
    assert beats.age(0) < TOO_OLD
    assert beats.age(2) < TOO_OLD
    assert beats.age(1) > max(beats.age(0), beats.age(2))
