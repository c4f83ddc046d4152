"""Two gateways with one limit, offered five times as much: what passes, and that nothing fails but by policy,
also while Redis is killed and started again. `python -m bench.limits` is the long form."""

from __future__ import annotations

import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
from support.gateway import Gateway, config
from support.redis import Redis

from bench.load import Load, Paced
from bench.peers.base import NATIVE, find
from bench.provision import compile_native

RATE = 400  # a second
BURST = 40
OFFERED = 5 * RATE
SECONDS = 3.0

pytestmark = pytest.mark.skipif(
    find("taskset") is None or (find("cc") is None and not (NATIVE / "paced").exists()),
    reason="needs taskset and cc (python -m bench --setup)",
)


@pytest.fixture(scope="module", autouse=True)
def _native() -> None:
    compile_native()


def tables(**keys: Any) -> dict[str, Any]:
    limit = {"use": "rate-limit", "key": "global", "rate": f"{RATE}/s", "burst": BURST, **keys}
    return config(
        admin={"bind": "127.0.0.1:0"},
        route={"respond": {"body": "ok"}, "plugins": ["limit"]},
        plugins={"limit": limit},
    )


def offer(gateways: list[Gateway], folder: Path) -> tuple[list[Paced], float]:
    """An equal part to each; what became of it, and how long it took in all."""
    asked = folder / "request"
    asked.write_bytes(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
    cores = sorted(os.sched_getaffinity(0))
    begin = time.monotonic()
    with ThreadPoolExecutor() as pool:
        parts = pool.map(
            lambda each: Load(each.port, cores, asked, asked).paced(OFFERED / len(gateways), 16, SECONDS),
            gateways,
        )
        return list(parts), time.monotonic() - begin


def check(parts: list[Paced], allowed: set[int]) -> Counter[int]:
    """Every request that fell due was answered, by policy."""
    statuses: Counter[int] = Counter()
    for part in parts:
        assert (part.errors, part.given_up) == (0, 0)
        assert sum(part.statuses.values()) == part.due
        statuses += Counter(part.statuses)
    assert sum(statuses.values()) >= 0.95 * OFFERED * SECONDS
    assert set(statuses) <= allowed
    assert statuses[429] > 0
    return statuses


def test_a_limit_of_the_host(tmp_path: Path) -> None:
    # One file is one limit.
    shared = tables(scope="host")
    with Gateway(shared, tmp_path) as one, Gateway(shared, tmp_path) as other:
        parts, took = offer([one, other], tmp_path)
        statuses = check(parts, {200, 429})
        counted = [each.admin("/counters")["plugins"]["limit"] for each in (one, other)]
    assert 0.9 * RATE * SECONDS <= statuses[200] <= RATE * took + BURST
    assert sum(each["passed"] for each in counted) == statuses[200]
    assert sum(each["refused"] for each in counted) == statuses[429]


def test_a_limit_in_redis_that_is_killed_and_started_again(tmp_path: Path) -> None:
    with Redis(tmp_path) as redis:
        shared = tables(scope="redis", redis={"url": redis.url}, on_error="local")
        with Gateway(shared, tmp_path) as one, Gateway(shared, tmp_path) as other:
            down, up = Timer(SECONDS * 0.35, redis.kill), Timer(SECONDS * 0.6, redis.start)
            for timer in (down, up):
                timer.start()
            parts, took = offer([one, other], tmp_path)
            for timer in (down, up):
                timer.join()
            statuses = check(parts, {200, 429})
            counted = [each.admin("/counters")["plugins"]["limit"] for each in (one, other)]
            for each in (one, other):
                each.wait_stderr("fastgate: limit limit: Redis can't be asked")
                each.wait_stderr(f"fastgate: redis {redis.url} can be used again")
                # The load may have ended before: it takes a request to find out.
                with each.client() as client:
                    assert client.get("/").status in {200, 429}
                each.wait_stderr("fastgate: limit limit: Redis decides again")
    assert all(each["local"] > 0 and each["asked"] > 0 for each in counted)
    # While it is away each holds the limit by itself, with its own burst; the new Redis begins with one.
    assert 0.8 * RATE * SECONDS <= statuses[200] <= 2 * RATE * took + 4 * BURST
