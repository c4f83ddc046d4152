"""SIGHUP: the next configuration is put in force beside what runs, and nothing is lost."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import StartGateway, StartUpstream
from support import upstream as up
from support.built import built
from support.client import Client, request
from support.gateway import ROOT, Gateway, config, to_toml
from support.upstream import Upstream, free_port
from support.wire import tokens

from fastgate import _core
from fastgate.config import loads

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"


def fixed(body: str, **listener: Any) -> dict[str, Any]:
    return config(route={"respond": {"body": body}}, listener=listener)


# -- what is changed is in force at once


def test_changed_routes_on_the_same_connection(start_gateway: StartGateway) -> None:
    gateway = start_gateway(fixed("before"))
    with gateway.client() as client:
        assert client.get().body == b"before"
        assert gateway.reload(fixed("after")) == ["fastgate: reloaded (routes: 1 changed)"]
        assert client.get().body == b"after"
        gateway.reload(config(route={"match": {"prefix": "/x"}, "respond": {"body": "x"}}))
        assert client.get().status == 404
        assert client.get("/x").body == b"x"


def test_pipelined_requests_see_it_too(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    """The one under way ends as it began; the one behind it begins with what is in force then."""
    upstream, gate = start_upstream(), threading.Event()
    routes = [
        {"name": "slow", "match": {"path": "/slow"}, "upstream": "up"},
        {"name": "fixed", "match": {"path": "/fixed"}, "respond": {"body": "before"}},
    ]
    gateway = start_gateway(config(upstream.address, routes=routes))
    upstream.script(up.wait_for(gate), up.reply(200, b"slow"))
    with gateway.client() as client:
        client.send(request(target="/slow") + request(target="/fixed"))
        upstream.wait_requests(1)
        gateway.reload(config(routes=[{**routes[1], "respond": {"body": "after"}}]))
        gate.set()
        assert client.response().body == b"slow"
        assert client.response().body == b"after"


def test_a_listeners_bounds_and_trust(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    upstream = start_upstream()
    gateway = start_gateway(config(upstream.address))
    with gateway.client() as client:
        ask = "X-Forwarded-For: 192.0.2.7"
        assert client.get("/", ask).json()["fields"].count(["X-Forwarded-For", "192.0.2.7, 127.0.0.1"]) == 0
        gateway.reload(
            config(
                upstream.address,
                listener={"trusted_proxies": ["127.0.0.0/8"], "limits": {"header_bytes": "1KiB"}},
            )
        )
        assert ["X-Forwarded-For", "192.0.2.7, 127.0.0.1"] in client.get("/", ask).json()["fields"]
        client.send(request(lines=(f"X-Long: {'x' * 2000}",)))
        assert client.response().status == 431
    assert gateway.wait_log(0, 3)[1]["client"] == "192.0.2.7"


def test_limits_of_the_server(start_gateway: StartGateway) -> None:
    gateway = start_gateway(fixed("ok"))
    with gateway.client() as first:
        first.get()
        gateway.reload(fixed("ok") | {"server": {"max_connections": 1}})
        with gateway.client() as second:
            second.try_send(request())
            second.stream.rest("the refusal")
            assert second.stream.total == 0
        assert first.get().status == 200
    gateway.reload(fixed("ok"))


# -- what is not changed lives on


def test_an_exchange_ends_as_it_began(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    """Its route, its upstream and their limits are gone from the file, and it is answered all the same."""
    upstream, gate = start_upstream(), threading.Event()
    gateway = start_gateway(config(upstream.address, upstream_options={"pool": {"idle_timeout": "1h"}}))
    upstream.script(
        up.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc"), up.wait_for(gate), up.send(b"def")
    )
    with gateway.client() as client:
        client.send(request())
        client.head()
        lines = gateway.reload(fixed("new"))
        assert lines == ["fastgate: reloaded (upstreams: 1 removed; routes: 1 changed)"]
        gate.set()
        assert client.stream.exactly(6, "body") == b"abcdef"
        # Its connection is of no more use, and not kept.
        assert upstream.connections[0].ended.wait(10)
        assert client.get().body == b"new"
    record = gateway.wait_log(0, 2)[0]
    assert (record["route"], record["upstream"], record["status"]) == ("all", "up", 200)


def test_who_waits_for_a_connection_gets_one(
    start_gateway: StartGateway, start_upstream: StartUpstream
) -> None:
    upstream, gate = start_upstream(), threading.Event()
    tables = config(
        upstream.address,
        upstream_options={"pool": {"max_connections": 1, "queue_timeout": "5s", "idle_timeout": "1h"}},
    )
    gateway = start_gateway(tables)
    upstream.script(up.wait_for(gate), up.reply())
    with gateway.client() as first, gateway.client() as second:
        first.send(request())
        upstream.wait_requests(1)
        second.send(request())
        with gateway.client() as barrier:
            barrier.request(b"GET / HTTP/1.1\r\n\r\n")
        gateway.reload(fixed("new"))
        gate.set()
        assert first.response().status == 200
        assert second.response().status == 200
    assert upstream.connections[-1].ended.wait(10)


def test_a_tunnel_lives_on(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    upstream, gate = start_upstream(), threading.Event()
    gateway = start_gateway(config(upstream.address, route={"upgrade": ["websocket"]}))
    upstream.script(up.send(SWITCH), up.wait_for(gate), up.read_some(4), up.send(b"pong"), up.close())
    with gateway.client() as client:
        client.send(request(lines=("Connection: upgrade", "Upgrade: websocket")))
        assert client.response().status == 101
        gateway.reload(fixed("new"))
        gateway.reload(config(upstream.address, listener={"limits": {"header_count": 5}}))
        gate.set()
        client.send(b"ping")
        assert client.stream.exactly(4, "answer through the tunnel") == b"pong"
        client.ended()


def test_the_pool_of_an_unchanged_upstream(
    start_gateway: StartGateway, start_upstream: StartUpstream
) -> None:
    same, other = start_upstream(), start_upstream()

    def tables(**options: Any) -> dict[str, Any]:
        upstreams = {
            "same": {"endpoints": [same.address], "pool": {"idle_timeout": "1h"}},
            "other": {"endpoints": [other.address], "pool": {"idle_timeout": "1h"}, **options},
        }
        routes = [
            {"name": name, "match": {"prefix": f"/{name}"}, "upstream": name} for name in ("same", "other")
        ]
        return config(routes=routes, upstreams=upstreams)

    gateway = start_gateway(tables())
    with gateway.client() as client:
        for path in ("/same", "/other"):
            client.get(path)
        lines = gateway.reload(tables(timeouts={"head": "7s"}))
        assert lines == ["fastgate: reloaded (upstreams: 1 changed)"]
        assert other.connections[0].ended.wait(10), "an idle connection of what was before is closed"
        for path in ("/same", "/other") * 2:
            client.get(path)
    assert len(same.connections) == 1
    assert len(other.connections) == 2


def test_buckets_live_on(start_gateway: StartGateway) -> None:
    """As long as the limit is the same; changing it begins anew."""

    def tables(body: str, first: str = "a", **limit: Any) -> dict[str, Any]:
        routes = [
            {
                "name": name,
                "match": {"path": f"/{name}"},
                "respond": {"body": body},
                "plugins": ["limit"],
            }
            for name in ("ab" if first == "a" else "ba")
        ]
        limit = {"use": "rate-limit", "rate": "1/h", "burst": 2, "per": "route", **limit}
        return config(routes=routes, plugins={"limit": limit})

    gateway = start_gateway(tables("1"))
    with gateway.client() as client:
        assert [client.get("/a").status for _ in range(3)] == [200, 200, 429]
        assert client.get("/b").status == 200
        # Each route finds its own, also from another place in the file.
        gateway.reload(tables("2", first="b"))
        assert client.get("/a").status == 429
        assert [client.get("/b").status for _ in range(2)] == [200, 429]
        gateway.reload(tables("2", first="b", burst=3))
        assert [client.get("/a").status for _ in range(4)] == [200, 200, 200, 429]


# -- listeners


def named(name: str, bind: str, **options: Any) -> dict[str, Any]:
    return {"name": name, "bind": bind, **options}


def two(*listeners: dict[str, Any], body: str = "ok") -> dict[str, Any]:
    return config(listeners=list(listeners), route={"respond": {"body": body}})


def test_a_listener_comes_and_goes(start_gateway: StartGateway, tmp_path: Path) -> None:
    path = tmp_path / "l.sock"
    first, second, third = (
        named("first", "127.0.0.1:0"),
        named("second", "127.0.0.1:0"),
        named("third", f"unix:{path}"),
    )
    gateway = start_gateway(two(first))
    with gateway.client("first") as client:
        client.get()
        lines = gateway.reload(two(first, second, third))
        assert len(lines) == 3
        assert lines[-1] == "fastgate: reloaded (listeners: 2 added)"
        with gateway.client("second") as other, gateway.client("third") as local:
            assert other.get().status == local.get().status == 200
            assert gateway.reload(two(first)) == ["fastgate: reloaded (listeners: 2 removed)"]
            assert other.ended() == "eof"
            assert local.ended() == "eof"
        assert client.get().status == 200, "it has lived through all this"
    with pytest.raises(ConnectionRefusedError):
        gateway.client("second")
    assert not path.exists()


def test_a_removed_listener_finishes_what_runs(
    start_gateway: StartGateway, start_upstream: StartUpstream
) -> None:
    upstream, gate = start_upstream(), threading.Event()
    keep, go = named("keep", "127.0.0.1:0"), named("go", "127.0.0.1:0")
    gateway = start_gateway(config(upstream.address, listeners=[keep, go]))
    upstream.script(up.wait_for(gate), up.reply(200, b"late"))
    with gateway.client("go") as client:
        client.send(request())
        upstream.wait_requests(1)
        gateway.reload(config(upstream.address, listeners=[keep]))
        gate.set()
        response = client.response()
        assert response.body == b"late"
        assert "close" in tokens(response.fields, "connection")
        assert client.ended() == "eof"


def test_the_same_socket_under_another_name(start_gateway: StartGateway) -> None:
    """What makes a listener the same is its bind: nothing is opened or closed, and connections live on."""
    bind = f"127.0.0.1:{free_port()}"
    gateway = start_gateway(two(named("old", bind)))
    with gateway.client("old") as client:
        client.get()
        lines = gateway.reload(two(named("new", bind, backlog=7)))
        assert lines == ["fastgate: reloaded (listeners: 1 added, 1 removed)"]
        client.get()
    assert [record["listener"] for record in gateway.wait_log(0, 2)] == ["old", "new"]


def test_a_bind_that_fails_changes_nothing(start_gateway: StartGateway, tmp_path: Path) -> None:
    """Not the routes, and not the listener in front of it that could have been opened."""
    free, path = free_port(), tmp_path / "new.sock"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        first = named("first", "127.0.0.1:0")
        gateway = start_gateway(two(first, body="before"))
        files = gateway.fds()
        with gateway.client() as client:
            assert client.get().body == b"before"
            more = (named("free", f"127.0.0.1:{free}"), named("path", f"unix:{path}"))
            lines = gateway.not_reload(two(first, *more, named("taken", f"127.0.0.1:{port}"), body="after"))
            assert lines == [
                f"fastgate: listener 127.0.0.1:{port}: Address already in use",
                "fastgate: not reloaded",
            ]
            assert client.get().body == b"before"
        with pytest.raises(ConnectionRefusedError):
            Client(("127.0.0.1", free))
        assert not path.exists()
        gateway.wait_fds(files)
    gateway.reload(two(first, named("taken", f"127.0.0.1:{port}"), body="after"))
    with gateway.client("taken") as client:
        assert client.get().body == b"after"


def test_a_bind_that_our_own_is_in_the_way_of(start_gateway: StartGateway) -> None:
    port = free_port()
    gateway = start_gateway(two(named("l", f"127.0.0.1:{port}")))
    lines = gateway.not_reload(two(named("l", f"0.0.0.0:{port}")))
    assert "by a listener that runs now" in lines[0]
    with gateway.client() as client:
        assert client.get().status == 200


# -- files that can't be used


@pytest.mark.parametrize("text", ["[[listeners]\n", '[[listeners]]\nbind = ":80800"\nbnd = 1\n', ""])
def test_a_bad_file_changes_nothing(start_gateway: StartGateway, text: str) -> None:
    """And is told in the words of `fastgate check`."""
    gateway = start_gateway(fixed("before"))
    gateway.file.write_text(text)
    with gateway.client() as client:
        lines = gateway.not_reload()
        check = subprocess.run(
            [sys.executable, "-m", "fastgate", "check", "-c", str(gateway.file)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert [*check.stderr.splitlines(), "fastgate: not reloaded"] == lines
        assert client.get().body == b"before"
        gateway.reload(fixed("after"))
        assert client.get().body == b"after"


def test_warnings_are_told(start_gateway: StartGateway) -> None:
    gateway = start_gateway(fixed("ok"))
    tables = fixed("ok") | {"upstreams": {"spare": {"endpoints": ["127.0.0.1:1"]}}}
    lines = gateway.reload(tables)
    assert "warning: " in lines[0]
    assert "is used by no route" in lines[0]
    assert lines[-1] == "fastgate: reloaded (upstreams: 1 added)"


def test_nothing_changed(start_gateway: StartGateway) -> None:
    gateway = start_gateway(fixed("ok"))
    assert gateway.reload() == ["fastgate: reloaded (nothing changed)"]


# -- the access log


def test_the_log_follows(start_gateway: StartGateway, tmp_path: Path) -> None:
    one, other = tmp_path / "one.log", tmp_path / "other.log"

    def tables(path: Path, form: str) -> dict[str, Any]:
        log = {"path": str(path), "format": form, "flush_interval": "1h"}
        return config(route={"respond": {"body": "ok"}}, access_log=log)

    gateway = start_gateway(tables(one, "a $path"))
    with gateway.client() as client:
        client.get("/1")
        gateway.reload(tables(one, "b $path"))  # the same file: each line stands in its order
        client.get("/2")
        files = gateway.fds()
        gateway.reload(tables(other, "c $path"))
        assert gateway.fds() == files, "the first file is closed"
        client.get("/3")
        gateway.not_reload(tables(tmp_path / "no" / "such.log", "d $path"))
        client.get("/4")
    gateway.stop()
    assert one.read_text() == "a /1\nb /2\n"
    assert other.read_text() == "c /3\nc /4\n"


# -- all at once


def test_nothing_is_lost_under_load(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    """Clients that keep their connections and clients that do not, while everything else changes.

    Counted on both sides: every request is answered, and well, and reached the upstream once.
    """
    steady, changing = start_upstream(record=False), start_upstream(record=False)
    for upstream in (steady, changing):
        upstream.default = (up.read_body(), up.reply())
    main, extra = named("main", "127.0.0.1:0"), named("extra", "127.0.0.1:0")

    def tables(turn: int) -> dict[str, Any]:
        upstreams: dict[str, Any] = {
            "steady": {"endpoints": [steady.address]},
            "changing": {"endpoints": [changing.address], "pool": {"max_idle": 100 + turn}},
        }
        routes = [
            {"name": name, "match": {"prefix": f"/{name}"}, "upstream": name}
            for name in ("steady", "changing")[:: 1 if turn % 2 else -1]
        ]
        routes.append({"name": f"turn{turn}", "match": {"prefix": "/turn"}, "respond": {"body": str(turn)}})
        return config(
            routes=routes, upstreams=upstreams, listeners=[main, extra] if turn % 3 == 0 else [main]
        )

    gateway = start_gateway(tables(0))
    sent, answered, failures = [0] * 6, [0] * 6, list[str]()
    done = threading.Event()

    def drive(index: int) -> None:
        keep = index < 4
        try:
            client = gateway.client("main")
            while not done.is_set():
                path = ("/steady", "/changing")[sent[index] % 2]
                data = request("POST", path, body=b"x" * 100) if index % 2 else request(target=path)
                sent[index] += 1
                response = client.request(data)
                assert response.status == 200, response
                answered[index] += 1
                if not keep:
                    client.close()
                    client = gateway.client("main")
            client.close()
        except (AssertionError, OSError) as error:
            failures.append(f"client {index}: {error!r}")

    threads = [threading.Thread(target=drive, args=(index,)) for index in range(len(sent))]
    for thread in threads:
        thread.start()
    try:
        for turn in range(1, 41):
            gateway.reload(tables(turn))
    finally:
        done.set()
        for thread in threads:
            thread.join(10)
    assert not failures
    assert sum(sent) == sum(answered)
    assert min(answered) > 10
    reached = steady.requests + changing.requests
    assert len(reached) == sum(sent)
    assert len(steady.connections) <= len(sent), "its connections have lived on"
    assert len(changing.connections) >= 40


def test_memory_and_descriptors_stay_flat(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    upstream = start_upstream()

    def tables(turn: int) -> dict[str, Any]:
        routes = [
            {
                "name": f"r{turn}-{i}",
                "match": {"path": f"/{i}/{{id}}"},
                "upstream": "up",
                "plugins": ["limit"],
            }
            for i in range(20)
        ]
        limit = {"use": "rate-limit", "rate": f"{1000 + turn}/s", "key": "path:id"}
        options = {"timeouts": {"head": f"{turn + 1}s"}}
        return config(upstream.address, upstream_options=options, routes=routes, plugins={"limit": limit})

    gateway = start_gateway(tables(0))

    def turns(first: int, last: int) -> None:
        with gateway.client() as client:
            for turn in range(first, last):
                gateway.reload(tables(turn))
                assert client.get("/1/x").status == 200

    turns(1, 50)
    files, before = gateway.fds(), gateway.memory()
    turns(50, 250)
    assert gateway.memory() - before < 4_000_000
    gateway.wait_fds(files)


def test_signals_that_come_together(start_gateway: StartGateway) -> None:
    """While one reload runs the others are one more together, which sees the last file."""
    gateway = start_gateway(fixed("0"))
    for turn in range(1, 101):
        gateway.write(to_toml(fixed(str(turn))))
        gateway.signal(signal.SIGHUP)
    with gateway.client() as client:
        deadline = time.monotonic() + 10
        while client.get().body != b"100":
            assert time.monotonic() < deadline


def test_a_reload_while_draining(start_upstream: StartUpstream, tmp_path: Path) -> None:
    upstream, gate = start_upstream(), threading.Event()
    with Gateway(config(upstream.address, server={"drain_timeout": "1h"}), tmp_path) as gateway:
        upstream.script(up.wait_for(gate), up.reply())
        with gateway.client() as client:
            client.send(request())
            upstream.wait_requests(1)
            gateway.terminate()
            gateway.wait_stderr("fastgate: draining")
            lines = gateway.not_reload(fixed("new"))
            assert lines[0] == "fastgate: it is draining"
            gate.set()
            assert client.response().status == 200
        gateway.wait_stopped()


def test_a_retired_connection_is_cut_at_the_end_of_the_drain(
    start_gateway: StartGateway, start_upstream: StartUpstream
) -> None:
    """An exchange on an upstream that a reload took away is still one of those that a drain must end."""
    upstream = start_upstream()
    gateway = start_gateway(config(upstream.address, server={"drain_timeout": "200ms"}))
    upstream.script(up.wait_close())
    with gateway.client() as client, up.full_backlog() as nowhere, gateway.client() as other:
        client.send(request())
        upstream.wait_requests(1)
        slow = config(
            nowhere, server={"drain_timeout": "200ms"}, upstream_options={"timeouts": {"connect": "1h"}}
        )
        gateway.reload(slow)
        other.send(request())
        with gateway.client() as barrier:
            barrier.request(b"GET / HTTP/1.1\r\n\r\n")
        gateway.reload(fixed("new") | {"server": {"drain_timeout": "200ms"}})
        gateway.terminate()
        client.stream.rest("the cut")
        gateway.wait_stopped(cut=2)


def test_upstream_that_comes_back(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    upstream: Upstream = start_upstream()
    gateway = start_gateway(config(upstream.address))
    with gateway.client() as client:
        assert client.get().status == 200
        gateway.reload(fixed("away"))
        assert client.get().body == b"away"
        gateway.reload(config(upstream.address))
        assert client.get().status == 200
    assert len(upstream.connections) == 2


async def test_a_connection_that_was_accepted_too_late() -> None:
    """The loop may hand over a connection just behind the close of its listener: it is answered once."""
    config = loads(
        '[[listeners]]\nbind = "127.0.0.1:0"\n[[routes]]\nname = "a"\nrespond = { body = "ok" }\n'
    ).config
    loop = asyncio.get_running_loop()
    worker = _core.Worker(
        loop, None, _core.Counters(["a"], []), max_connections=0, max_per_address=0, flush_interval=10**9
    )
    slot = _core.ListenerSlot(built(config, worker)[0].listeners[0])
    worker.close_listener(slot)
    server = await loop.create_server(lambda: _core.Downstream1(worker, slot), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 10)
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.endswith(b"ok")
    writer.close()
    await writer.wait_closed()
    server.close()
    await worker.drain(5)
    worker.close()
