"""Reloads leave nothing behind: the short form of `python -m bench.reloads`."""

from __future__ import annotations

from bench.reloads import measure


def test_memory_is_flat_over_reloads_and_rollbacks() -> None:
    # One configuration of it with its text is some 400 kB: what stays of each would be seen.
    first, last = measure(60, warm=40, every=0)
    assert last.supervisor - first.supervisor < 4 << 20
    assert last.worker - first.worker < 4 << 20
