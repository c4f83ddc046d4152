"""`from fastgate import Gateway`: the gateway inside of a program, on both event loops."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
import uvloop
import websockets
from support.gateway import ROOT, to_toml
from support.gateway import config as tables_of
from support.upstream import Upstream

import fastgate
from fastgate import ConfigError, Gateway, OpenError, PluginError, ReloadError
from fastgate.config import load
from fastgate.plugins import Exchange, Host, Plugin, PluginConfig, Response, doc

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def open_files() -> set[str]:
    """As "socket:[4711]"; one that ends while we look is none."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found.add(os.readlink(f"/proc/self/fd/{name}"))
    return {name for name in found if not name.startswith("/proc/")}


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[], Coroutine[Any, Any, None]]], None]:
    """Runs a coroutine function on one of the loops, and looks that no task and no descriptor is left."""

    def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def watched() -> None:
            # What a loop opens once: its pool of threads, a spare descriptor.
            await asyncio.to_thread(int)
            (await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)).close()
            before = open_files()
            async with asyncio.timeout(15):
                await main()
                # The other ends, in threads, take a moment to hear that they are closed.
                while left := open_files() - before:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert not left
            assert asyncio.all_tasks() == {asyncio.current_task()}

        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(watched())

    return run


def fixed(body: str = "hi", **route: Any) -> dict[str, Any]:
    """A configuration that answers by itself."""
    return tables_of(
        access_log={"enabled": False},
        routes=[{"name": "all", "respond": {"status": 200, "body": body}, **route}],
    )


def to(upstream: Upstream, **more: Any) -> dict[str, Any]:
    return tables_of(upstream.address, access_log={"enabled": False}, **more)


def exchanges(gateway: Gateway) -> int:
    """How many were served by the route."""
    return int(gateway.count()["routes"]["all"]["exchanges"])


# -- serving


def test_requests_on_kept_connections(run: Any, upstream: Upstream) -> None:
    async def main() -> None:
        async with Gateway(to(upstream)) as gateway, httpx.AsyncClient(base_url=gateway.url) as client:
            for number in range(20):
                answer = await client.get(f"/items/{number}")
                assert answer.status_code == 200
            data = bytes(range(256)) * 8192
            answer = await client.post("/upload", content=data)
            assert answer.status_code == 200
            assert upstream.connections[-1].request.body == data

            async def pieces() -> Any:
                for at in range(0, len(data), 100_000):
                    yield data[at : at + 100_000]

            await client.post("/chunks", content=pieces())
            assert upstream.connections[-1].request.body == data
            assert exchanges(gateway) == 22

    run(main)


def test_many_at_once(run: Any, upstream: Upstream) -> None:
    async def main() -> None:
        async with Gateway(to(upstream)) as gateway, httpx.AsyncClient(base_url=gateway.url) as client:
            answers = await asyncio.gather(*(client.get(f"/{number}") for number in range(50)))
            assert {answer.status_code for answer in answers} == {200}

    run(main)


def test_a_websocket_through_a_tunnel(run: Any) -> None:
    async def echo(connection: websockets.ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async def main() -> None:
        async with websockets.serve(echo, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            config = tables_of(
                f"127.0.0.1:{port}", route={"upgrade": ["websocket"]}, access_log={"enabled": False}
            )
            async with (
                Gateway(config) as gateway,
                websockets.connect(gateway.url.replace("http", "ws")) as connection,
            ):
                await connection.send("hello")
                assert await connection.recv() == "hello"
                await connection.send(b"x" * 300_000)
                assert await connection.recv() == b"x" * 300_000

    run(main)


def test_several_in_one_process(run: Any) -> None:
    async def main() -> None:
        async with Gateway(fixed("one")) as one, Gateway(fixed("two")) as two, httpx.AsyncClient() as client:
            assert one.address != two.address
            assert (await client.get(one.url)).text == "one"
            assert (await client.get(two.url)).text == "two"
            await two.stop()
            assert (await client.get(one.url)).text == "one"
            assert exchanges(one) == 2

    run(main)


# -- from code


def test_reload(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        async with Gateway(fixed("one")) as gateway, httpx.AsyncClient(base_url=gateway.url) as client:
            assert (await client.get("/")).text == "one"
            result = await gateway.reload(fixed("two"))
            assert result.routes.changed == ("all",)
            assert (await client.get("/")).text == "two"
            with pytest.raises(ReloadError, match=r'routes\[0\].respond.stauts: unknown key "stauts"'):
                await gateway.reload(fixed(respond={"stauts": 200}))
            with pytest.raises(ReloadError, match="came from no file"):
                await gateway.reload()
            assert (await client.get("/")).text == "two"
            file = tmp_path / "gateway.toml"
            file.write_text(to_toml(fixed("three")))
            await gateway.reload(file)
            assert (await client.get("/")).text == "three"
            file.write_text(to_toml(fixed("four")))
            await gateway.reload()
            assert (await client.get("/")).text == "four"
            assert gateway.config.source == str(file)

    run(main)


def test_drain_finishes_what_runs_and_stop_cuts_it(run: Any, upstream: Upstream) -> None:
    async def main() -> None:
        for patient in (True, False):
            gateway = Gateway(to(upstream))
            await gateway.start()
            host, port = gateway.address.split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\no")
            await asyncio.sleep(0.05)
            ending = asyncio.create_task(gateway.drain(5) if patient else gateway.stop())
            await asyncio.sleep(0.05)
            if patient:
                writer.write(b"k")
                assert b" 200 " in await reader.readline()
            else:
                with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                    await reader.readexactly(1)
            report = await ending
            assert report["cut"] == (0 if patient else 1)
            assert not any(value for name, value in report.items() if name != "cut")
            writer.close()
            with pytest.raises(RuntimeError, match="does not run"):
                await gateway.drain()

    run(main)


def test_started_again(run: Any) -> None:
    async def main() -> None:
        gateway = Gateway(fixed())
        for _ in range(3):
            async with gateway, httpx.AsyncClient() as client:
                assert (await client.get(gateway.url)).text == "hi"
                with pytest.raises(RuntimeError, match="runs already"):
                    await gateway.start()

    run(main)


def test_nothing_is_open_when_the_start_fails(run: Any) -> None:
    async def main() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            name = f"127.0.0.1:{taken.getsockname()[1]}"
            config = fixed() | {"listeners": [{"bind": "127.0.0.1:0"}, {"name": "taken", "bind": name}]}
            gateway = Gateway(config)
            with pytest.raises(OpenError, match=name):
                await gateway.start()
        async with gateway:  # now it is free
            assert gateway.addresses["taken"] == (name,)

    run(main)


def test_an_error_in_the_block_stops_at_once(run: Any, upstream: Upstream) -> None:
    clients: list[asyncio.StreamWriter] = []

    async def fails() -> None:
        async with Gateway(to(upstream, server={"drain_timeout": "1m"})) as gateway:
            host, port = gateway.address.split(":")
            _, writer = await asyncio.open_connection(host, int(port))
            clients.append(writer)
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\no")
            await asyncio.sleep(0.05)
            raise ZeroDivisionError

    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            async with asyncio.timeout(5):  # an upload that does not end would hold a drain for a minute
                await fails()
        clients[0].close()

    run(main)


async def test_addresses(tmp_path: Path) -> None:
    path = tmp_path / "g.sock"
    listeners = [
        {"name": "local", "bind": f"unix:{path}"},
        {"name": "all", "bind": ":0"},
        {"name": "six", "bind": "[::1]:0"},
    ]
    async with Gateway(fixed() | {"listeners": listeners}) as gateway:
        assert list(gateway.addresses) == ["local", "all", "six"]
        assert gateway.address == f"unix:{path}"
        port = gateway.addresses["all"][0].partition(":")[2]
        assert gateway.addresses["all"] == (f"0.0.0.0:{port}", f"[::]:{port}")
        assert gateway.url == f"http://127.0.0.1:{port}"
        await gateway.reload(fixed() | {"listeners": listeners[:1]})
        with pytest.raises(LookupError):
            _ = gateway.url
    assert not path.exists()


async def test_operations(upstream: Upstream) -> None:
    async with Gateway(to(upstream)) as gateway:
        [shown] = await gateway.operations.upstreams()
        assert [endpoint.status for endpoint in shown.endpoints] == ["ready"]


# -- without a socket


def test_explain_needs_no_start(tmp_path: Path) -> None:
    config = fixed(match={"host": "a.example", "prefix": "/v2", "headers": {"x-beta": "1"}})
    file = tmp_path / "gateway.toml"
    file.write_text(to_toml(config))
    for source in (config, file, str(file), load(str(file)).config):
        gateway = Gateway(source)
        assert gateway.explain("GET", "/v2/x", headers={"X-Beta": "1"}, host="a.example").route == "all"
        assert gateway.explain("GET", "http://a.example/v2", headers=[("x-beta", "1")]).route == "all"
        assert gateway.explain("GET", "/v2/x", host="a.example").route is None
    with pytest.raises(ValueError, match="is not a method"):
        gateway.explain("G T", "/")
    with pytest.raises(RuntimeError, match="does not run"):
        gateway.count()


def test_what_is_wrong_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as told:
        Gateway(
            {"listeners": [{"bind": "127.0.0.1:80"}], "routes": [{"upstream": "x"}], "upstreams": {"y": {}}}
        )
    told_of = str(told.value)
    assert "<tables>: upstreams.y: [upstreams.y] needs the key" in told_of
    assert '<tables>: routes[0].upstream: upstream: no upstream is named "x"' in told_of
    with pytest.raises(ConfigError, match="cannot be read"):
        Gateway("/nowhere.toml")
    warned = Gateway(fixed() | {"upstreams": {"unused": {"endpoints": ["127.0.0.1:1"]}}})
    assert any("unused" in warning for warning in warned.warnings)


def test_tables_may_hold_tuples_and_paths(tmp_path: Path) -> None:
    config = fixed(match={"methods": ("GET",)})
    config["access_log"] = {"path": tmp_path / "access.log"}
    gateway = Gateway(config)
    assert gateway.explain("GET", "/").route == "all"
    assert gateway.explain("POST", "/").route is None
    assert gateway.config.access_log.path == str(tmp_path / "access.log")


# -- plugins


class Stamp(Plugin):
    """Marks requests."""

    class Config(PluginConfig):
        text: Annotated[str, doc("What is written.")] = "stamped"

    config: Config
    closed = 0

    async def on_request(self, exchange: Exchange) -> Response | None:
        if exchange.request.path == "/answer":
            return Response(200, body=self.config.text)
        exchange.request.headers["x-stamp"] = self.config.text
        return None

    def close(self) -> None:
        type(self).closed += 1


class Broken(Plugin):
    def provision(self, host: Host) -> None:
        raise LookupError("no key")


def test_plugins_of_the_program(run: Any, upstream: Upstream) -> None:
    async def main() -> None:
        Stamp.closed = 0
        config = to(
            upstream, plugins={"mark": {"use": "Stamp", "text": "first"}}, route={"plugins": ["mark"]}
        )
        async with (
            Gateway(config, plugins=[Stamp]) as gateway,
            httpx.AsyncClient(base_url=gateway.url) as client,
        ):
            await client.get("/x")
            assert upstream.connections[-1].request.get("x-stamp") == "first"
            assert (await client.get("/answer")).text == "first"
            config["plugins"]["mark"]["text"] = "second"
            await gateway.reload(config)
            assert (await client.get("/answer")).text == "second"
        assert Stamp.closed == 2
        renamed = to(upstream, plugins={"mark": {"use": "my-stamp"}}, route={"plugins": ["mark"]})
        async with Gateway(renamed, plugins={"my-stamp": Stamp}) as gateway, httpx.AsyncClient() as client:
            assert (await client.get(f"{gateway.url}/answer")).text == "stamped"

    run(main)


def test_a_file_that_names_plugins_of_the_program_is_read_anew(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        file = tmp_path / "gateway.toml"
        tables = fixed(plugins=["mark"]) | {"plugins": {"mark": {"use": "Stamp"}}}
        file.write_text(to_toml(tables))
        async with Gateway(file, plugins=[Stamp]) as gateway, httpx.AsyncClient() as client:
            file.write_text(to_toml(tables | {"plugins": {"mark": {"use": "Stamp", "text": "anew"}}}))
            await gateway.reload()
            assert (await client.get(f"{gateway.url}/answer")).text == "anew"

    run(main)


def test_plugins_that_cannot_be_used(run: Any) -> None:
    async def main() -> None:
        tables = fixed(plugins=["mark"])
        with pytest.raises(ConfigError, match='no plugin is named "Stemp"; did you mean "Stamp"'):
            Gateway(tables | {"plugins": {"mark": {"use": "Stemp"}}}, plugins=[Stamp])
        with pytest.raises(ConfigError, match='unknown key "txt"'):
            Gateway(tables | {"plugins": {"mark": {"use": "Stamp", "txt": "a"}}}, plugins=[Stamp])
        with pytest.raises(PluginError, match="no key"):
            await Gateway(tables | {"plugins": {"mark": {"use": "Broken"}}}, plugins=[Broken]).start()

    run(main)


# -- the package


def test_the_command_does_not_pay_for_it() -> None:
    code = (
        "import sys, fastgate, fastgate.cli; "
        "assert 'fastgate.embed' not in sys.modules and 'asyncio' not in sys.modules; "
        "fastgate.Gateway; assert 'fastgate.embed' in sys.modules; "
        "assert 'dns' not in sys.modules and 'fastgate.testing' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=30)
    with pytest.raises(AttributeError, match="has no attribute"):
        _ = fastgate.nothing


def test_the_example() -> None:
    run = subprocess.run(
        [sys.executable, "examples/embedded.py"],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [
        "the route is hello",
        '200 {"hello": "ann"}',
        "200 from the new configuration",
        "nothing is left",
    ]
