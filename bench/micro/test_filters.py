"""What the native filters, the counters and the access log cost.

Each benchmark runs OPERATIONS operations in a loop inside the compiled module (core/loops.pyx), so the time
that pytest-benchmark prints is for that many: with 1,000 of them, a microsecond there is a nanosecond of one.
Everything is warm in the caches unless the name says otherwise.

    python -m pytest bench/micro/test_filters.py --benchmark-only
"""

from __future__ import annotations

import random
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from fastgate import _core

OPERATIONS = 1000
SECOND = 1_000_000_000


def limiter(**changes: object) -> _core.RateLimiter:
    config: dict[str, object] = {
        "name": "limit",
        "key": ("client-ip",),
        "rate": SimpleNamespace(count=100, per_ns=SECOND),
        "burst": 200,
        "per": "plugin",
        "scope": "worker",
        "cost": 1,
        "cost_header": "",
        "shared_as": "",
        "ipv6_prefix": 64,
        "max_keys": 1_000_000,
        "report_only": False,
        "headers": (),
    }
    return _core.RateLimiter(SimpleNamespace(**(config | changes)))


def requests(count: int, clients: int) -> list[_core.SampleRequest]:
    chooser = random.Random(2)
    made = [
        _core.SampleRequest(f"10.{chooser.randrange(256)}.{i >> 8 & 255}.{i & 255}") for i in range(clients)
    ]
    return [chooser.choice(made) for _ in range(count)]


@pytest.mark.parametrize("clients", [1, 1000])
@pytest.mark.parametrize("scope", ["worker", "host"])
def test_rate_limit_check(benchmark: BenchmarkFixture, tmp_path: Path, scope: str, clients: int) -> None:
    # Host scope: a table in shared memory, with a lock for each bucket.
    checked = limiter(scope=scope, shared_as=str(tmp_path / "limits"), max_keys=100_000)
    benchmark(_core.loop_check, checked, requests(OPERATIONS, clients), 0, 0)


def test_rate_limit_check_by_header(benchmark: BenchmarkFixture) -> None:
    headers = [(f"x-other-{i}", "value") for i in range(8)] + [
        ("X-API-Key", "0af7651916cd43dd8448eb211c80319c")
    ]
    request = _core.SampleRequest("10.0.0.1", headers=headers)
    benchmark(_core.loop_check, limiter(key=("header:X-API-Key",)), [request] * OPERATIONS, 0, 0)


def test_rate_limit_million_keys_cold(benchmark: BenchmarkFixture) -> None:
    # Every check meets another one of a million buckets, in an order in which none is in a cache.
    checked = limiter()
    for start in range(0, 1_000_000, 50_000):
        _core.loop_check_clients(checked, 10 << 24 | start, 50_000, 0)
    chooser = random.Random(3)
    made = [
        _core.SampleRequest(f"10.{i >> 16 & 255}.{i >> 8 & 255}.{i & 255}")
        for i in chooser.sample(range(1_000_000), OPERATIONS * 20)
    ]
    rounds = iter(range(1 << 30))

    def setup() -> tuple[tuple[object, ...], dict[str, object]]:
        at = next(rounds) % 20 * OPERATIONS
        return (checked, made[at : at + OPERATIONS], 0, 0), {}

    benchmark.pedantic(_core.loop_check, setup=setup, rounds=20)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("count", [10, 1000, 100_000])
@pytest.mark.parametrize("family", [4, 6])
def test_ip_set(benchmark: BenchmarkFixture, family: int, count: int) -> None:
    chooser = random.Random(4)
    if family == 4:
        networks = [
            f"{_v4(chooser.getrandbits(32))}/{chooser.choice([16, 20, 22, 24, 24, 24])}" for _ in range(count)
        ]
        clients = [_core.SampleRequest(_v4(chooser.getrandbits(32))) for _ in range(OPERATIONS)]
    else:
        networks = [
            f"{_v6(chooser.getrandbits(29))}/{chooser.choice([32, 40, 48, 48])}" for _ in range(count)
        ]
        clients = [_core.SampleRequest(_v6(chooser.getrandbits(29))) for _ in range(OPERATIONS)]
    benchmark(_core.loop_longest, _core.IpSet(networks), clients)


def _v4(bits: int) -> str:
    return ".".join(str(bits >> shift & 255) for shift in (24, 16, 8, 0))


def _v6(bits: int) -> str:
    return f"{0x2000 | bits >> 16:x}:{bits & 0xFFFF:x}:{bits & 0x3FF:x}::1"


def typical(**changes: object) -> _core.SampleExchange:
    fields: dict[str, object] = {
        "request_id": "0af7651916cd43dd8448eb211c80319c",
        "listener": "public",
        "route": "orders",
        "upstream": "orders",
        "endpoint": "127.0.0.1:9001",
        "method": "GET",
        "target": "/orders/1234?page=2&size=50",
        "host": "api.example.com",
        "user_agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
        "Chrome/130.0.0.0 Safari/537.36",
        "client": "203.0.113.7",
        "client_port": 51234,
        "status": 200,
        "attempts": 1,
        "bytes_out": 1234,
        "start_unix_ns": 1763845848123456789,
        "queue_ns": 0,
        "upstream_head_ns": 1_234_567,
        "total_ns": 1_334_567,
        "route_index": 0,
        "upstream_index": 0,
    }
    return _core.SampleExchange(**(fields | changes))  # type: ignore[arg-type]


def access_log(path: Path, **changes: object) -> _core.AccessLog:
    config: dict[str, object] = {
        "enabled": True,
        "path": str(path),
        "format": "json",
        "redact_headers": (),
        "redact_query": (),
        "headers": (),
        "buffer": 65536,
    }
    return _core.AccessLog(SimpleNamespace(**(config | changes)))


def test_log_json_line(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    benchmark(_core.loop_line, access_log(tmp_path / "log"), typical(), OPERATIONS)


def test_log_json_line_redacting(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    log = access_log(tmp_path / "log", redact_query=("token",), headers=("referer",))
    benchmark(_core.loop_line, log, typical(headers=[("referer", "https://example.com/")]), OPERATIONS)


def test_log_template_line(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    log = access_log(
        tmp_path / "log",
        format='$client [$time] "$method $path?$query $protocol" $status $bytes_out "$user_agent"',
    )
    benchmark(_core.loop_line, log, typical(), OPERATIONS)


def test_log_written(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    # To a file: the handing over included, and what the writer thread takes away on a shared core. Each round
    # begins with an empty queue, since the loop is far faster than any disk, and dropping would be cheap.
    log = access_log(tmp_path / "log")

    def run() -> None:
        _core.loop_log(log, typical(), OPERATIONS)

    def settle() -> None:
        log.flush()
        while log.waiting:
            time.sleep(0.001)

    benchmark.pedantic(run, setup=settle, rounds=50)  # type: ignore[no-untyped-call]
    assert log.close(10)
    assert log.dropped == 0


def test_counters_record(benchmark: BenchmarkFixture) -> None:
    benchmark(_core.loop_record, _core.Counters(["orders"], ["orders"]), typical(), OPERATIONS)
