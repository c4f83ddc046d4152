"""The machine and the programs that a result was measured with."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Iterable
from pathlib import Path

from bench.peers.base import Peer, first_line, need
from bench.process import load_cores, peer_core


def parse_cpu_model(text: str) -> str:
    """The processor's name from /proc/cpuinfo."""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return "unknown"


def describe(peers: Iterable[Peer]) -> dict[str, str]:
    """Name -> description, of what shapes the numbers."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    rest = ", ".join(map(str, load_cores()))
    hypervisor = "hypervisor" in Path("/proc/cpuinfo").read_text()
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": parse_cpu_model(Path("/proc/cpuinfo").read_text()) + (", virtual" if hypervisor else ""),
        "cores": f"{os.cpu_count()}: peer on {peer_core()}, upstream and load on {rest}",
        "memory": f"{memory / (1 << 30):.0f} GiB",
        "kernel": platform.release(),
        "load average before": " ".join(f"{value:.2f}" for value in os.getloadavg()),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "wrk": first_line([need("wrk"), "-v"]).split(" [")[0],
        **{peer.title: peer.version() for peer in peers},
    }
