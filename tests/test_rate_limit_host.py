"""Limits of a whole host: buckets in shared memory, whoever decides, whoever dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import upstream as up
from support.client import request
from support.gateway import Gateway, config

from fastgate._core import RateLimiter, SampleRequest

SECOND = 1_000_000_000
START = 5_000 * SECOND


def limiter(shared_as: str = "", *, count: int = 10, burst: int = 5, **changes: Any) -> RateLimiter:
    fields: dict[str, Any] = {
        "name": "limit", "key": ("client-ip",),
        "rate": SimpleNamespace(count=count, per_ns=SECOND),
        "burst": burst, "per": "plugin", "scope": "host", "cost": 1, "cost_header": "",
        "shared_as": shared_as,
        "ipv6_prefix": 64, "max_keys": 1000, "report_only": False, "headers": ("ratelimit",),
    }  # fmt: skip
    return RateLimiter(SimpleNamespace(**(fields | changes)))


@pytest.fixture
def name(tmp_path: Path) -> str:
    return str(tmp_path / "gateway.toml")


def files() -> set[Path]:
    return set(Path("/dev/shm").glob(f"fastgate-{os.geteuid()}-limit-*"))


def test_two_that_share_take_from_one_bucket(name: str) -> None:
    one, other, foreign = limiter(name), limiter(name), limiter(f"{name}.other")
    asked = SampleRequest("192.0.2.1")
    passed = [not each.check_request(asked, START).refused for each in (one, other, one, other, one, other)]
    assert passed == [True] * 5 + [False]
    assert not foreign.check_request(asked, START).refused
    result = other.check_request(asked, START + SECOND // 10)
    assert (result.refused, result.remaining) == (False, 0)
    assert b"RateLimit: " in result.headers
    assert other.check_request(asked, START + SECOND // 10).retry_after == 1


@given(
    st.integers(1, 3_000_000),
    st.integers(1, 50),
    st.integers(1, 3),
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2 * SECOND)), max_size=40),
)
@settings(max_examples=100, deadline=None)
def test_it_is_the_exact_bucket_within_a_token(count: int, burst: int, cost: int, asks: Any) -> None:
    checked = limiter(count=count, burst=max(burst, cost), cost=cost)
    full = max(burst, cost)
    levels: dict[int, tuple[float, int]] = {}
    now = START
    for client, passed in asks:
        now += passed
        level, seen = levels.get(client, (float(full), now))
        level = min(full, level + (now - seen) * count / SECOND)
        result = checked.check_request(SampleRequest(f"192.0.2.{client}"), now)
        if abs(level - cost) > 0.01:
            assert result.limited == (level < cost)
        if not result.limited:
            level -= cost
        assert abs(result.remaining - level) <= 1.01
        levels[client] = (max(0.0, level), now)


def test_files_go_with_their_last_user(name: str) -> None:
    before = files()
    one, other = limiter(name), limiter(name)
    (made,) = files() - before
    assert made.stat().st_mode & 0o777 == 0o600
    del one
    assert made.exists()
    del other
    assert files() == before


def hostile(path: Path) -> list[Any]:
    def link() -> None:
        target = path.with_name("fastgate-test-target")
        target.write_bytes(b"x")
        path.symlink_to(target)

    def open_to_all() -> None:
        path.write_bytes(b"")
        path.chmod(0o666)

    return [
        lambda: path.write_bytes(b"short"),
        lambda: path.write_bytes(os.urandom(20_480)),
        link,
        open_to_all,
    ]


def test_what_a_killed_gateway_has_left_is_swept_away(name: str) -> None:
    before = files()
    made = limiter(name)
    (path,) = files() - before
    left = path.with_name(f"{path.name[:-4]}dead")
    left.write_bytes(b"")
    other = limiter(f"{name}.other")
    assert not left.exists()
    assert path.exists(), "that one is in use"
    del made, other


@pytest.mark.parametrize("kind", range(4))
def test_a_file_that_is_not_ours_is_replaced(name: str, kind: int) -> None:
    before = files()
    made = limiter(name)
    (path,) = files() - before
    del made
    try:
        hostile(path)[kind]()
        checked = limiter(name)
        asked = SampleRequest("192.0.2.1")
        assert [checked.check_request(asked, START).refused for _ in range(6)] == [False] * 5 + [True]
        assert path.is_file()
        assert not path.is_symlink()
        assert limiter(name).check_request(asked, START).refused, "the next one shares what replaced it"
    finally:
        path.unlink(missing_ok=True)
        path.with_name("fastgate-test-target").unlink(missing_ok=True)


def test_a_place_given_back_owes_nothing(name: str) -> None:
    """Two processes that claim a bucket for one key at one time: one gives its own back, used or not."""
    before = files()
    checked = limiter(name, max_keys=8)
    (path,) = files() - before
    while not checked.check_request(SampleRequest("192.0.2.1"), START).refused:
        pass
    with path.open("r+b") as file:
        for place in range(8):
            file.seek(4096 + 16 * place)
            file.write(bytes(8))
    asked = SampleRequest("192.0.2.2")
    assert [checked.check_request(asked, START).refused for _ in range(6)] == [False] * 5 + [True]


def test_more_keys_than_room() -> None:
    checked = limiter(max_keys=64, count=1, burst=1)
    for client in range(2000):
        assert not checked.check_request(SampleRequest(f"10.0.{client // 250}.{client % 250}"), START).refused
    assert checked.evicted > 0
    # A full set forgets one that was full soonest, never the last one that came.
    assert checked.check_request(SampleRequest("10.0.7.249"), START).refused


def test_what_it_really_cost() -> None:
    limits = [limiter(burst=10), limiter(burst=10, scope="worker")]
    for checked in limits:
        asked = SampleRequest("192.0.2.1")
        assert checked.check_request(asked, START).remaining == 9
        checked.charge_request(asked, 5, START)
        assert checked.check_request(asked, START).remaining == 3
        checked.charge_request(asked, -2, START)
        assert checked.check_request(asked, START).remaining == 4
    limits[0].charge_request(asked, 1000, START)
    # It owes a full bucket at the most: two seconds until something is there again.
    assert limits[0].check_request(asked, START + SECOND).refused
    assert not limits[0].check_request(asked, START + SECOND + SECOND // 5).refused


def hammer(name: str, start: float, seconds: float, count: int) -> int:
    checked, asked, passed = limiter(name, count=count, burst=100), SampleRequest("192.0.2.1"), 0
    while time.monotonic() < start:
        pass
    while time.monotonic() < start + seconds:
        for _ in range(100):
            passed += not checked.check_request(asked, time.monotonic_ns()).refused
    return passed


def forked(name: str, start: float, seconds: float, count: int) -> tuple[int, int]:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, b"%d" % hammer(name, start, seconds, count))
        os._exit(0)
    os.close(write)
    return child, read


def test_processes_at_once_admit_what_one_would(name: str) -> None:
    kept = limiter(name, count=1000, burst=100)  # so that the file outlives each of them
    start = time.monotonic() + 0.1
    children = [forked(name, start, 1.0, 1000) for _ in range(4)]
    passed = 0
    for child, read in children:
        passed += int(os.read(read, 100))
        os.close(read)
        os.waitpid(child, 0)
    # A bucket of a tenth of a second, so that nothing is lost where none of them is given a core.
    assert abs(passed - 1100) <= 22
    del kept


def test_who_is_killed_leaves_it_usable(name: str) -> None:
    kept = limiter(name, count=1000, burst=100)
    for _ in range(5):
        child, read = forked(name, time.monotonic(), 10, 1000)
        time.sleep(0.02)  # in the middle of a decision, or between two
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(read)
    hammer(name, time.monotonic(), 0.05, 1000)
    assert abs(hammer(name, time.monotonic(), 0.5, 1000) - 500) <= 15
    del kept


def test_gateways_with_one_configuration_share(tmp_path: Path, start_upstream: Any) -> None:
    upstream = start_upstream()
    tables = config(
        upstream.address,
        route={"plugins": ["limit"]},
        plugins={"limit": {"use": "rate-limit", "key": "global", "rate": "1/h", "burst": 5}},
    )
    with (
        Gateway(tables, tmp_path) as one,
        Gateway(tables, tmp_path) as other,
        one.client() as first,
        other.client() as second,
    ):
        for _ in range(5):
            upstream.script(up.reply())
        statuses = [client.get("/").status for _ in range(4) for client in (first, second)]
        assert statuses == [200] * 5 + [429] * 3


def test_costs_of_requests(start_gateway: Any, start_upstream: Any) -> None:
    upstream = start_upstream()
    limit = {"use": "rate-limit", "rate": "1/h", "burst": 10, "cost": 2, "cost_header": "X-Cost"}
    gateway = start_gateway(config(upstream.address, route={"plugins": ["limit"]}, plugins={"limit": limit}))
    for cost, remaining in (("2", 8), ("5", 6), ("no", 1), (None, None)):
        if cost is not None:
            upstream.script(up.reply(200, b"ok", f"X-Cost: {cost}"))
        with gateway.client() as client:
            answer = client.request(request("GET"))
        assert answer.status == (200 if cost else 429)
        if cost is not None:
            assert f";r={remaining};" in (answer.get("ratelimit") or "")


def test_a_cost_above_the_burst_never_passes(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(
        '[[listeners]]\nbind = ":8080"\n'
        '[plugins.limit]\nuse = "rate-limit"\nrate = "1/s"\nburst = 2\ncost = 3\n'
    )
    done = subprocess.run(
        [sys.executable, "-m", "fastgate", "check", "-c", str(file)],
        capture_output=True, text=True, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert "cost: 3 is more than `burst` (2), so no request would ever pass" in done.stderr
