"""The admin API of a running gateway: what it tells, reloads, moves and drains; one worker, and two."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import StartGateway, StartUpstream
from support.client import Client, request
from support.gateway import Gateway, config, to_toml
from support.upstream import send, tell, wait_for


def admin(gateway: Gateway, method: str, target: str, body: bytes | None = None) -> Any:
    lines = ("Content-Type: application/json",) if body is not None else ()
    with Client(gateway.addresses["admin API"]) as client:
        response = client.request(request(method, target, body=body, host="localhost", lines=lines))
        return response.status, json.loads(response.body)


def test_of_a_gateway(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    upstream = start_upstream()
    tables = config(upstream.address) | {"admin": {"bind": "127.0.0.1:0"}}
    gateway = start_gateway(tables)
    address = upstream.address
    with gateway.client() as client:
        assert client.get().status == 200
        status, found = admin(gateway, "GET", "/upstreams/up")
        assert status == 200
        (endpoint,) = found["endpoints"]
        assert [endpoint[key] for key in ("address", "status", "state", "weight")] == [
            address,
            "ready",
            "auto",
            1,
        ]
        assert [endpoint[key] for key in ("open", "idle", "waiting")] == [1, 1, 0]
        assert admin(gateway, "GET", "/counters")[1]["routes"]["all"]["exchanges"] == 1
        assert admin(gateway, "GET", "/version")[1]["pid"] == gateway.supervisors[-1]
        assert admin(gateway, "GET", "/routes/nowhere/split")[0] == 404
        assert admin(gateway, "PUT", f"/upstreams/up/endpoints/{address}x", b'{"state": "down"}')[0] == 404
        assert admin(gateway, "PUT", f"/upstreams/nope/endpoints/{address}", b'{"state": "down"}')[0] == 404
        # A reload through it, good and bad, is told on stderr as well.
        gateway.write(
            to_toml(config(route={"respond": {"body": "new"}}) | {"admin": {"bind": "127.0.0.1:0"}})
        )
        status, found = admin(gateway, "POST", "/reload", b"{}")
        assert (status, found["routes"]["changed"], found["upstreams"]["removed"]) == (200, ["all"], ["up"])
        assert client.get().body == b"new"
        gateway.write("nonsense")
        status, found = admin(gateway, "POST", "/reload", b"")
        assert status == 422
        assert found["problems"][0]["line"] == 1
        gateway.wait_stderr("fastgate: not reloaded")
        assert found["detail"].splitlines() == gateway.stderr[-3:-1]
        assert client.get().body == b"new"


def test_it_comes_moves_and_goes(start_gateway: StartGateway, tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"

    def tables(bind: str = "") -> dict[str, Any]:
        return config(route={"respond": {}}) | ({"admin": {"bind": bind}} if bind else {})

    gateway = start_gateway(tables())
    assert "admin API" not in gateway.addresses
    assert len(gateway.reload(tables("127.0.0.1:0"))) == 2
    first = gateway.addresses["admin API"]
    assert admin(gateway, "GET", "/version")[0] == 200
    # It is asked to move, and answers before it does.
    gateway.write(to_toml(tables(f"unix:{path}")))
    assert admin(gateway, "POST", "/reload", b"{}")[1]["listening"] == [[f"unix:{path}", "admin API"]]
    gateway.wait_stderr(f"fastgate: listening on unix:{path}")
    assert admin(gateway, "GET", "/version")[0] == 200
    with pytest.raises(ConnectionRefusedError):
        Client(first)
    gateway.reload(tables())
    assert not path.exists()
    taken = gateway.addresses["main"]
    assert isinstance(taken, tuple)
    lines = gateway.not_reload(tables(f"127.0.0.1:{taken[1]}"))
    assert lines[0].startswith(f"fastgate: admin API 127.0.0.1:{taken[1]}: Address already in use")


TALK = """
import logging
from fastgate.plugins import Exchange, Plugin

class Talk(Plugin):
    async def on_request(self, exchange: Exchange) -> None:
        logging.getLogger("fastgate.talk").info("a request")
"""


def test_of_several_workers(
    start_gateway: StartGateway, start_upstream: StartUpstream, tmp_path: Path
) -> None:
    (tmp_path / "talk.py").write_text(TALK)
    upstream = start_upstream()
    gateway = start_gateway(
        config(
            upstream.address,
            server={"workers": 2},
            plugins={"talk": {"use": f"{tmp_path}/talk.py"}},
            route={"plugins": ["talk"]},
        )
        | {"admin": {"bind": "127.0.0.1:0"}}
    )

    def ask(times: int) -> None:
        for _ in range(times):
            with gateway.client() as client:
                assert client.get().status == 200

    workers = gateway.admin("/workers")["workers"]
    assert [(one["id"], one["state"]) for one in workers] == [(1, "serving"), (2, "serving")]
    assert len({one["pid"] for one in workers}) == 2
    # Silence in each of them, then words again.
    assert gateway.admin("/log-level") == {"level": "info"}
    assert gateway.admin("/log-level", "PUT", {"level": "error"}) == {"level": "error"}
    ask(20)
    assert gateway.admin("/log-level", "PUT", {"level": "info"}) == {"level": "info"}
    assert "fastgate: a request" not in gateway.stderr
    ask(1)
    gateway.wait_stderr("fastgate: a request")
    summary = gateway.admin("/summary?routes=1")
    assert summary["total"]["exchanges"] == summary["routes"]["all"]["exchanges"] == 21
    assert summary["total"]["total"] == summary["routes"]["all"]["total"]
    assert sum(count for _, count in summary["total"]["total"]["buckets"]) == 21
    assert gateway.admin("/summary?routes=0")["routes"] == {}


def test_a_drain_by_request(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    upstream = start_upstream()
    gateway = start_gateway(config(upstream.address) | {"admin": {"bind": "127.0.0.1:0"}})
    assert gateway.admin("/readyz") == {"ready": True, "reasons": []}
    arrived, goes_on = threading.Event(), threading.Event()
    upstream.script(tell(arrived), wait_for(goes_on), send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
    with gateway.client() as client:
        client.send(request("GET", "/held"))
        assert arrived.wait(10)
        assert admin(gateway, "POST", "/drain", b"{}") == (202, {"draining": True})
        gateway.wait_stderr("fastgate: draining")
        # It tells so, and what runs is answered.
        status, found = admin(gateway, "GET", "/readyz")
        assert (status, [one["code"] for one in found["reasons"]]) == (503, ["draining"])
        assert admin(gateway, "POST", "/drain", b"{}")[0] == 202
        goes_on.set()
        assert client.response("GET").status == 200
    gateway.wait_stopped()
