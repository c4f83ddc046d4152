"""`report_only`: what blocks can be tried out first. It refuses nobody, and its counter tells of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.redis import Redis

from fastgate.testing import run_gateway

CLIENTS = "127.0.0.1"


def tables(plugin: dict[str, Any]) -> dict[str, Any]:
    return {
        "listeners": [{"bind": "127.0.0.1:0"}],
        "routes": [{"name": "all", "respond": {"body": "ok"}, "plugins": ["tried"]}],
        "plugins": {"tried": plugin},
    }


@pytest.mark.parametrize(
    ("plugin", "passed"),
    [
        ({"use": "rate-limit", "rate": "1/h"}, 1),
        ({"use": "rate-limit", "rate": "1/h", "scope": "host"}, 1),
        ({"use": "ip-filter", "block": [CLIENTS]}, 0),
        ({"use": "acl", "allow": {"groups": "staff"}}, 0),
        ({"use": "api-key", "keys": [{"sha256": "0" * 64, "consumer": "ann"}]}, 0),
        ({"use": "bot", "empty": "refuse"}, 0),
        ({"use": "maintenance", "enabled": True}, 0),
        ({"use": "size", "url": "1B"}, 0),
    ],
    ids=lambda value: value.get("use") if isinstance(value, dict) else "",
)
async def test_what_would_be_refused_passes_and_is_counted(plugin: dict[str, Any], passed: int) -> None:
    for report_only in (True, False):
        async with run_gateway(tables({**plugin, "report_only": report_only})) as gw:
            statuses = [(await gw.get("/long")).status for _ in range(3)]
            counted = gw.count()["plugins"]["tried"]
        refused = 3 - passed
        if report_only:
            assert (statuses, counted["reported"]) == ([200] * 3, refused)
        else:
            assert sum(status >= 400 for status in statuses) == refused
            assert counted.get("refused", 0) + counted.get("answered", 0) >= refused
            assert not counted.get("reported")


async def test_limits_in_redis(tmp_path: Path) -> None:
    with Redis(tmp_path) as redis:
        limit = {"use": "rate-limit", "rate": "1/h", "scope": "redis", "redis": {"url": redis.url}}
        async with run_gateway(tables({**limit, "report_only": True})) as gw:
            while not gw.count()["plugins"]["tried"]["asked"]:
                assert (await gw.get("/")).status == 200
            assert [(await gw.get("/")).status for _ in range(2)] == [200] * 2
            counted = gw.count()["plugins"]["tried"]
            assert counted["reported"] >= 2
            assert counted["refused"] == 0
