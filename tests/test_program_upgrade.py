"""The program is replaced while it serves (SIGUSR2): nobody notices, and what is long lives on."""

from __future__ import annotations

import contextlib
import os
import signal
import ssl
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import StartGateway
from support import upstream as up
from support.client import request
from support.gateway import Gateway, config
from support.processes import Crowd, Endpoints
from support.tls import Pair, client_context, server_certificate
from support.upstream import Upstream
from test_upgrade import ASK, SWITCH


def tables(upstream: str, **more: Any) -> dict[str, Any]:
    return config(
        upstream,
        admin={"bind": "127.0.0.1:0"},
        server={"workers": 2, "drain_timeout": "30s"},
        route={"upgrade": ["websocket"], **more},
    )


def upgrade(gateway: Gateway) -> None:
    known = len(gateway.supervisors)
    gateway.signal(signal.SIGUSR2)
    deadline = time.monotonic() + 30
    while len(gateway.supervisors) == known:
        assert time.monotonic() < deadline, gateway.errors()
        time.sleep(0.01)
    gateway.wait_stderr(f"fastgate: upgraded: the program with pid {gateway.supervisors[-1]} serves")


def test_under_load_nothing_is_lost(start_gateway: StartGateway, tmp_path: Path) -> None:
    with Endpoints(1, tmp_path) as [endpoint]:
        gateway = start_gateway(tables(endpoint.address))
        address, first = gateway.address, gateway.supervisors[0]
        with Crowd(address) as crowd:
            for _ in range(2):
                crowd.wait_more(100)
                upgrade(gateway)
            crowd.wait_more(300)
        assert crowd.failures == []
        assert gateway.address == address, "the port that the system chose is kept"
        assert len({first, *gateway.supervisors}) == 3
        assert gateway.admin("/version")["pid"] == gateway.supervisors[-1]


def test_a_tunnel_lives_on(start_gateway: StartGateway) -> None:
    with Upstream() as upstream:

        def talk(connection: up.Connection) -> None:
            connection.send(SWITCH)
            for _ in range(2):
                connection.send(connection.stream.exactly(5, "from the client").upper())

        upstream.script(talk, up.wait_close())
        gateway = start_gateway(tables(upstream.address))
        with gateway.client() as client:
            client.send(ASK)
            assert client.response().status == 101
            client.send(b"first")
            assert client.stream.exactly(5, "from the upstream") == b"FIRST"
            upgrade(gateway)
            with gateway.client() as other:
                assert other.get("/").status == 200
            client.send(b"again")
            assert client.stream.exactly(5, "from the upstream") == b"AGAIN"


def test_an_idle_connection_has_a_last_request(start_gateway: StartGateway) -> None:
    with Upstream() as upstream:
        gateway = start_gateway(tables(upstream.address))
        with gateway.client() as client:
            assert client.get("/").status == 200
            upgrade(gateway)
            gateway.wait_stderr("fastgate: draining")
            response = client.get("/")
            assert (response.status, response.closes) == (200, True)


def test_a_handshake_under_way_has_its_request(start_gateway: StartGateway, tmp_path: Path) -> None:
    """The client's first request comes with the last piece of the handshake, or is on its way by then."""
    pair = Pair(tmp_path, "own", server_certificate("test.example"))
    with Upstream() as upstream:
        own = tables(upstream.address)
        own["listeners"] = [{"name": "tls", "bind": "127.0.0.1:0", "tls": {"certificates": [pair.table]}}]
        gateway = start_gateway(own)
        with gateway.client("tls") as client:
            arrived, out = ssl.MemoryBIO(), ssl.MemoryBIO()
            session = client_context().wrap_bio(arrived, out, server_hostname="test.example")
            with pytest.raises(ssl.SSLWantReadError):
                session.do_handshake()
            client.send(out.read())
            assert client.stream.fill("the server's part of the handshake")  # so the first program has it
            upgrade(gateway)
            gateway.wait_stderr("fastgate: draining")
            while True:
                arrived.write(client.stream.some(65536, "the handshake"))
                try:
                    session.do_handshake()
                except ssl.SSLWantReadError:
                    assert client.stream.fill("the handshake")
                    continue
                break
            session.write(request())
            client.send(out.read())
            answer = b""
            while not answer:
                assert client.stream.fill("the answer")
                arrived.write(client.stream.some(65536, "the answer"))
                with contextlib.suppress(ssl.SSLWantReadError):
                    answer = session.read(65536)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"\r\nconnection: close\r\n" in answer.lower()


PLUGIN = """
import os
from pathlib import Path
from fastgate.plugins import Plugin

class Mine(Plugin):
    def provision(self, host):
        if Path(__file__).with_name("crash").exists():
            os._exit(4)
"""


def test_a_program_that_does_not_start_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    own = config(
        route={"respond": {"body": "ok"}, "plugins": ["mine"]}, plugins={"mine": {"use": "./mine.py"}}
    )
    with Gateway(own, tmp_path) as gateway:
        (tmp_path / "crash").touch()
        gateway.signal(signal.SIGUSR2)
        gateway.wait_stderr("fastgate: not upgraded: the new program did not start; this one goes on")
        with gateway.client() as client:
            assert client.get("/").status == 200
        (tmp_path / "crash").unlink()
        upgrade(gateway)
        with gateway.client() as client:
            assert client.get("/").status == 200


def test_it_begins_with_what_is_in_force(start_gateway: StartGateway) -> None:
    """Whatever the files say by now: that is for a reload, which judges it first."""
    gateway = start_gateway(config(route={"respond": {"body": "in force"}}))
    gateway.write("this is no TOML")
    upgrade(gateway)
    with gateway.client() as client:
        assert client.get("/").body == b"in force"
    gateway.not_reload()
    gateway.reload(config(route={"respond": {"body": "new"}}))
    with gateway.client() as client:
        assert client.get("/").body == b"new"


def test_it_takes_what_only_a_restart_could_change(start_gateway: StartGateway) -> None:
    with Upstream() as upstream:
        gateway = start_gateway(tables(upstream.address))
        changed = tables(upstream.address)
        changed["server"]["workers"] = 3
        lines = gateway.reload(changed)
        assert lines[0] == "fastgate: warning: server.workers changes with a restart or `fastgate upgrade`"
        upgrade(gateway)
        assert len(gateway.workers) == 5
        for pid in gateway.workers[2:]:
            os.kill(pid, 0)
        with gateway.client() as client:
            client.send(request())
            assert client.response().status == 200
