"""Handshakes and transfers leave nothing behind: the short form of `python -m bench.tls_memory`."""

from __future__ import annotations

from bench.tls_memory import measure

MIB = 1 << 20


def test_memory_is_flat_over_handshakes_and_transfers() -> None:
    # A connection that stayed would be 16 kB of it, a body that is held 128 MiB.
    found = measure(2000, 128 * MIB)
    assert found.counts["full"] + found.counts["resumed"] == 2000
    assert found.counts["resumed"] == 1000
    assert found.counts["broken off"] >= 100
    assert found.transferred == 256 * MIB
    assert found.growth < MIB
    assert found.peak - found.warm < 8 * MIB
    assert found.peak > 0
    assert 0 < found.idle_plain < found.idle < 32_000, (
        "records of 16 KiB each way are kept by nobody who idles"
    )
