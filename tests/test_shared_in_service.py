"""``exchange.shared`` of running gateways: across processes of one host, and across replicas by Redis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.gateway import Gateway, config
from support.redis import Redis

CODE = """
from fastgate.plugins import Plugin, Response

class Count(Plugin):
    async def on_request(self, exchange):
        total = await exchange.shared.add("n", 1, 60)
        return Response(200, body=b"%d" % total)
"""


def tables(shared: dict[str, Any] | None = None) -> dict[str, Any]:
    plain = config(
        plugins={"count": {"use": "./count.py:Count"}}, route={"respond": {"body": ""}, "plugins": ["count"]}
    )
    return plain if shared is None else {"shared": shared, **plain}


def gateway(folder: Path, shared: dict[str, Any] | None = None) -> Gateway:
    folder.mkdir(exist_ok=True)
    (folder / "count.py").write_text(CODE)
    return Gateway(tables(shared), folder)


def count(running: Gateway) -> int:
    with running.client() as client:
        return int(client.get("/").body)


def left_behind() -> set[str]:
    return {each.name for each in Path("/dev/shm").glob("fastgate-*-store-*")}


def test_gateways_of_one_file_share(tmp_path: Path) -> None:
    before = left_behind()
    with gateway(tmp_path) as one, gateway(tmp_path) as other, gateway(tmp_path / "x") as stranger:
        assert [count(one), count(other), count(one), count(stranger)] == [1, 2, 3, 1]
    with gateway(tmp_path) as again:
        assert count(again) == 1, "nobody was left who shared it"
    assert left_behind() == before


def test_replicas_share_by_redis(tmp_path: Path) -> None:
    with Redis(tmp_path) as redis:
        shared = {"scope": "redis", "redis": {"url": redis.url}}
        with gateway(tmp_path / "a", shared) as one, gateway(tmp_path / "b", shared) as other:
            assert [count(one), count(other), count(one)] == [1, 2, 3]
            redis.kill()
            with one.client() as client:
                assert client.get("/").status == 500, "a plugin that raises"
            redis.start()
            assert count(other) == 1


@pytest.mark.parametrize(
    ("shared", "told"),
    [
        ({"scope": "redis"}, 'scope: "redis" needs the table `redis`'),
        ({"scope": "redis", "redis": {"sentinels": ["127.0.0.1:1"]}}, "`sentinel_master` go together"),
        ({"scope": "host", "redis": {}}, 'write scope = "redis"'),
        ({"max_entries": 1}, "max_entries"),
    ],
)
def test_what_is_checked(shared: dict[str, Any], told: str, tmp_path: Path) -> None:
    from fastgate.config import ConfigError, load

    file = gateway(tmp_path, shared).file
    try:
        problems = load(str(file)).warnings
    except ConfigError as error:
        problems = error.problems
    assert any(told in str(problem) for problem in problems), problems
