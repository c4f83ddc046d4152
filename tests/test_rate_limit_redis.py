"""Limits that Redis decides, with a real one: shared by gateways, and what holds while it is gone."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import upstream as up
from support.answers import refused
from support.client import request
from support.gateway import Gateway, config
from support.redis import Redis, sentinel_of


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with Redis(tmp_path_factory.mktemp("redis")) as redis:
        yield redis


def tables(redis: Redis, *, place: dict[str, Any] | None = None, **keys: Any) -> dict[str, Any]:
    limit = {
        "use": "rate-limit", "key": "header:X-Key", "rate": "1/h", "burst": 5, "scope": "redis",
        "redis": {"url": redis.url, "timeout": "100ms", **(place or {})}, **keys,
    }  # fmt: skip
    return config(
        admin={"bind": "127.0.0.1:0"},
        route={"respond": {"body": "ok"}, "plugins": ["limit"]},
        plugins={"limit": limit},
    )


def ask(gateway: Gateway, key: str) -> Any:
    with gateway.client() as client:
        return client.request(request("GET", X_Key=key))


def counts(gateway: Gateway) -> dict[str, int]:
    found: dict[str, int] = gateway.admin("/counters")["plugins"]["limit"]
    return found


def wait_decides(gateway: Gateway, decides: bool = True) -> None:
    """Until Redis is asked, or no longer asked."""
    deadline = time.monotonic() + 10
    while True:
        before = counts(gateway)["asked"]
        ask(gateway, f"probe-{time.monotonic()}")
        if (counts(gateway)["asked"] > before) == decides:
            return
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_two_gateways_share_a_limit(redis: Redis, start_gateway: Any) -> None:
    one, other = (start_gateway(tables(redis)) for _ in range(2))
    for gateway in (one, other):
        wait_decides(gateway)
    answers = [ask(gateway, "shared") for _ in range(4) for gateway in (one, other)]
    assert [answer.status for answer in answers] == [200] * 5 + [429] * 3
    assert [answer.get("ratelimit").split(";")[1] for answer in answers[:5]] == [
        "r=4",
        "r=3",
        "r=2",
        "r=1",
        "r=0",
    ]
    assert answers[0].get("ratelimit-policy") == '"limit";q=5;w=18000'
    refused(answers[-1], "rate-limited")
    assert 3500 <= int(answers[-1].get("retry-after") or 0) <= 3600
    assert ask(one, "another").status == 200


def test_tokens_come_back(redis: Redis, start_gateway: Any) -> None:
    gateway = start_gateway(tables(redis, rate="2/s", burst=2))
    wait_decides(gateway)
    assert [ask(gateway, "back").status for _ in range(3)] == [200, 200, 429]
    time.sleep(0.51)  # a token and a bit: Redis' clock can't be moved
    assert [ask(gateway, "back").status for _ in range(2)] == [200, 429]


def test_windows_and_quotas(redis: Redis, start_gateway: Any) -> None:
    window = start_gateway(tables(redis, algorithm="sliding-window", rate="3/h", burst=1))
    quota = start_gateway(tables(redis, algorithm="quota", quota="2/month", rate="1/h"))
    for gateway, most, code in ((window, 3, "rate-limited"), (quota, 2, "quota-exceeded")):
        wait_decides(gateway)
        answers = [ask(gateway, f"w{most}") for _ in range(most + 1)]
        assert [answer.status for answer in answers] == [200] * most + [429]
        refused(answers[-1], code)
        assert answers[0].get("ratelimit").split(";")[1] == f"r={most - 1}"
        assert int(answers[-1].get("retry-after") or 0) >= 1


def test_leases_decide_here(redis: Redis, start_gateway: Any) -> None:
    gateway = start_gateway(tables(redis, burst=100, lease=10))
    wait_decides(gateway)
    with gateway.client() as client:
        statuses = [client.request(request("GET", X_Key="hot")).status for _ in range(110)]
    shown = counts(gateway)
    assert shown["leased"] >= 50
    # What was leased and had not been used when it ended is all that is missing.
    assert 100 - 20 <= statuses.count(200) <= 100


@pytest.mark.parametrize(
    ("how", "statuses"), [("local", [200] * 5 + [429]), ("open", [200] * 6), ("closed", [503] * 6)]
)
def test_redis_is_gone_and_comes_back(
    tmp_path: Path, start_gateway: Any, how: str, statuses: list[int]
) -> None:
    with Redis(tmp_path) as redis:
        gateway = start_gateway(tables(redis, on_error=how))
        wait_decides(gateway)
        redis.kill()
        gateway.wait_stderr("fastgate: limit limit: Redis can't be asked") if ask(gateway, "x") else None
        begin = time.monotonic()
        answers = [ask(gateway, "gone") for _ in range(6)]
        assert [answer.status for answer in answers] == statuses
        assert time.monotonic() - begin < 1
        if how == "closed":
            refused(answers[0], "limit-unavailable")
        assert counts(gateway)[how] >= 6
        redis.start()
        wait_decides(gateway)
        gateway.wait_stderr("fastgate: limit limit: Redis decides again")
        assert [ask(gateway, "back").status for _ in range(6)] == [200] * 5 + [429]


def test_a_redis_that_hangs_is_not_waited_for(tmp_path: Path, start_gateway: Any) -> None:
    with Redis(tmp_path) as redis:
        gateway = start_gateway(tables(redis, place={"timeout": "5ms"}, on_error="open"))
        wait_decides(gateway)
        redis.stop()
        try:
            answered = Counter[int]()
            slowest = 0.0
            with gateway.client() as client:
                for _ in range(200):
                    begin = time.monotonic()
                    answered[client.request(request("GET", X_Key="hangs")).status] += 1
                    slowest = max(slowest, time.monotonic() - begin)
            assert answered == {200: 200}
            assert slowest < 0.5, "and then not asked at all"
            assert counts(gateway)["late"] >= 1
        finally:
            redis.go_on()
        wait_decides(gateway)


def test_requests_that_come_while_late_ones_are_decided(tmp_path: Path, start_gateway: Any) -> None:
    # Each refusal brings the next request of its connection at once, which asks Redis again.
    with Redis(tmp_path) as redis:
        gateway = start_gateway(tables(redis, place={"timeout": "50ms"}, on_error="closed"))
        wait_decides(gateway)
        redis.stop()
        try:
            with gateway.client() as one, gateway.client() as other:
                for client in (one, other):
                    client.send(b"".join(request("GET", X_Key=str(at)) for at in range(10)))
                for client in (one, other):
                    assert [client.response().status for _ in range(10)] == [503] * 10
        finally:
            redis.go_on()
        assert "mutated" not in gateway.errors()


def test_scripts_that_are_flushed_and_passwords(tmp_path: Path, start_gateway: Any) -> None:
    with Redis(tmp_path, "--requirepass", "secret") as redis:
        gateway = start_gateway(tables(redis, place={"password": "secret"}))
        wait_decides(gateway)
        assert redis.ask("AUTH secret\r\nSCRIPT FLUSH").startswith(b"+OK")
        assert [ask(gateway, "flushed").status for _ in range(6)] == [200] * 5 + [429]
        other = start_gateway(tables(redis, place={"password": "wrong"}, on_error="closed"))
        refused(ask(other, "x"), "limit-unavailable")
        other.wait_stderr("fastgate: redis redis://127.0.0.1")


def test_a_reload_keeps_what_is_equal_and_ends_the_rest(redis: Redis, start_gateway: Any) -> None:
    gateway = start_gateway(tables(redis))
    wait_decides(gateway)
    asked = counts(gateway)["asked"]
    gateway.reload(tables(redis))
    assert counts(gateway)["asked"] == asked
    gateway.reload(tables(redis, burst=7))
    wait_decides(gateway)
    assert [ask(gateway, "reloaded").status for _ in range(8)] == [200] * 7 + [429]
    without = tables(redis)
    without["plugins"] = {}
    without["routes"][0]["plugins"] = []
    gateway.reload(without)
    deadline = time.monotonic() + 5
    while redis.ask("CLIENT LIST").count(b"id=") > 1:
        assert time.monotonic() < deadline, "its connection is still open"
        time.sleep(0.01)


def test_the_master_that_sentinel_names(tmp_path: Path, start_gateway: Any) -> None:
    with Redis(tmp_path) as master, sentinel_of(master, tmp_path, "limits") as sentinel:
        place = {"sentinels": [f"127.0.0.1:{sentinel.port}"], "sentinel_master": "limits"}
        gateway = start_gateway(tables(master, place=place | {"url": "redis://sentinel.invalid/0"}))
        wait_decides(gateway)
        assert [ask(gateway, "sentinel").status for _ in range(6)] == [200] * 5 + [429]
        assert b"fastgate:limit:" in master.ask("KEYS *")


def test_the_nodes_of_a_cluster(tmp_path: Path, start_gateway: Any) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    with (
        Redis(folders[0], "--cluster-enabled", "yes", "--cluster-port", str(up.free_port())) as one,
        Redis(folders[1], "--cluster-enabled", "yes", "--cluster-port", str(up.free_port())) as other,
    ):
        one.ask("CLUSTER ADDSLOTSRANGE 0 8191")
        other.ask("CLUSTER ADDSLOTSRANGE 8192 16383")
        other.ask("CLUSTER SET-CONFIG-EPOCH 2")
        one.ask(f"CLUSTER MEET 127.0.0.1 {other.port} {other.options[-1]}")
        deadline = time.monotonic() + 20
        while any(b"cluster_state:ok" not in each.ask("CLUSTER INFO") for each in (one, other)):
            assert time.monotonic() < deadline, "the cluster does not come together"
            time.sleep(0.05)
        gateway = start_gateway(tables(one, place={"cluster": True}))
        wait_decides(gateway)
        for number in range(12):
            assert [ask(gateway, f"node-{number}").status for _ in range(6)] == [200] * 5 + [429]
        assert all(b"fastgate:limit:" in each.ask("KEYS *") for each in (one, other)), "both have keys"
