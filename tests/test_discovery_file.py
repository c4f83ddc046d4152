"""A watched file of endpoints: however it is replaced it is read, and a bad one takes nothing away."""

from __future__ import annotations

import asyncio
import json
import os
import re
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.clock import ManualClock
from support.dns import dns_server, held, records

from fastgate.config import ConfigError, Problem
from fastgate.upstreams.discovery import Discovery, sources_of
from fastgate.upstreams.dns import DnsSettings, Resolver
from fastgate.upstreams.events import Events
from fastgate.upstreams.files import FileSource
from fastgate.upstreams.names import Names
from fastgate.upstreams.source import EndpointSpec

SETTLE = 0.1


@dataclass(frozen=True)
class Listed:
    address: str
    weight: int = 1
    region: str = ""
    zone: str = ""
    state: str = "ready"
    unix_path: str | None = None
    srv: str = ""
    asgi: str = ""

    @property
    def host(self) -> str:
        return self.address.rpartition(":")[0]

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])


def parse(text: str) -> list[Listed]:
    """JSON, or TOML."""
    tables: dict[str, Any] = json.loads(text) if text.startswith("{") else tomllib.loads(text)
    listed = tables["endpoints"]
    if any("address" in entry and not entry["address"] for entry in listed if isinstance(entry, dict)):
        raise ConfigError([Problem("e.json", 1, 2, "one"), Problem("e.json", 2, 2, "two")])
    return [Listed(entry) if isinstance(entry, str) else Listed(**entry) for entry in listed]


def text_of(*entries: Any) -> str:
    return json.dumps({"endpoints": entries})


class Watched:
    """A file source that runs, and what it says."""

    def __init__(self, path: Path, names: Names, clock: ManualClock) -> None:
        self.sets: asyncio.Queue[tuple[EndpointSpec, ...]] = asyncio.Queue()
        self.problems: list[str] = []
        self.clock = clock
        self.events = Events("orders")
        self.source = FileSource(
            str(path),
            parse,
            lambda listed: sources_of(listed, lambda: names, "v4"),
            self.events,
            settle=SETTLE,
            clock=clock,
        )

    async def set(self) -> list[str]:
        return [endpoint.address for endpoint in await asyncio.wait_for(self.sets.get(), 10)]

    async def look(self, settled: bool = True) -> None:
        """Lets it look once, and once more where it has seen a change."""
        await self.clock.pass_time(1)
        if settled and self.clock.asked[-1] == SETTLE:
            await self.clock.pass_time(SETTLE)

    @property
    def silent(self) -> bool:
        return self.sets.empty()


@asynccontextmanager
async def watching(path: Path, names: Names | None = None) -> AsyncIterator[Watched]:
    names = names or Names(Resolver(DnsSettings()))
    watched = Watched(path, names, ManualClock())
    work = watched.source.run(watched.sets.put_nowait, watched.problems.append)
    task = asyncio.get_running_loop().create_task(work)
    try:
        await watched.clock.wait_asleep(1)
        yield watched
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "endpoints.json"
    file.write_text(text_of("192.0.2.1:80"))
    return file


def write(file: Path, text: str) -> None:
    file.write_text(text)


async def test_what_a_file_says(file: Path) -> None:
    write(
        file,
        text_of("192.0.2.1:80", {"address": "192.0.2.2:80", "weight": 3, "zone": "b", "state": "draining"}),
    )
    async with watching(file) as watched:
        one, two = watched.sets.get_nowait()
        assert one == EndpointSpec("192.0.2.1:80", "192.0.2.1", 80, None)
        assert (two.weight, two.zone, two.state) == (3, "b", "draining")
        assert watched.problems == [""]


def renamed_over(file: Path, text: str) -> None:
    new = file.with_suffix(".new")
    new.write_text(text)
    new.rename(file)


def same_size_and_time(file: Path, text: str) -> None:
    """What neither size nor time give away."""
    before = file.stat()
    assert len(text) == before.st_size
    write(file, text)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", [write, renamed_over, same_size_and_time])
async def test_however_it_is_changed(file: Path, change: Any) -> None:
    async with watching(file) as watched:
        assert await watched.set() == ["192.0.2.1:80"]
        for turn in range(2, 5):
            change(file, text_of(f"192.0.2.{turn}:80"))
            await watched.look()
            assert await watched.set() == [f"192.0.2.{turn}:80"]
        await watched.look()
        assert watched.silent


async def test_a_config_map(tmp_path: Path) -> None:
    """Kubernetes: the file is a link into `..data`, which is a link that is swapped."""
    for turn in (1, 2):
        (tmp_path / f"..{turn}").mkdir()
        (tmp_path / f"..{turn}" / "endpoints.json").write_text(text_of(f"192.0.2.{turn}:80"))
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "endpoints.json").symlink_to("..data/endpoints.json")
    async with watching(tmp_path / "endpoints.json") as watched:
        assert await watched.set() == ["192.0.2.1:80"]
        (tmp_path / "..data_tmp").symlink_to("..2")
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")
        await watched.look()
        assert await watched.set() == ["192.0.2.2:80"]


async def test_a_file_that_is_being_written_is_not_taken_by_half(file: Path) -> None:
    file = file.with_suffix(".toml")
    write(file, 'endpoints = ["192.0.2.1:80"]')
    async with watching(file) as watched:
        assert await watched.set() == ["192.0.2.1:80"]
        write(file, "endpoints = []\n# half of it")
        await watched.look(settled=False)
        write(file, 'endpoints = ["192.0.2.2:80"]')
        await watched.clock.pass_time(SETTLE)
        await watched.clock.pass_time(SETTLE)
        assert await watched.set() == ["192.0.2.2:80"]
        assert watched.silent


async def test_a_file_that_never_holds_still_is_taken_in_the_end(file: Path) -> None:
    async with watching(file) as watched:
        await watched.set()
        pause = 1.0
        for turn in range(21):
            assert watched.silent
            write(file, text_of(f"192.0.2.2{turn}:80"))
            await watched.clock.pass_time(pause)
            pause = SETTLE
        assert (await watched.set())[0].startswith("192.0.2.2")


def missing(file: Path) -> None:
    if file.is_dir():
        file.rmdir()
    file.unlink(missing_ok=True)


def directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


def fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def loop(file: Path) -> None:
    file.unlink()
    file.symlink_to(file)


def written(text: bytes) -> Any:
    def write(file: Path) -> None:
        file.write_bytes(text)

    return write


BAD = [
    (missing, "No such file or directory"),
    (directory, "no regular file"),
    (fifo, "no regular file"),
    (loop, "Too many levels of symbolic links"),
    (written(b'{"endpoints": ["192.0.2.2:80"'), "delimiter"),
    (written(b"endpoints = [\n"), "Invalid value"),
    (written(b"endpoints = " + b"[" * 100_000), "recursion"),
    (written(b'{"endpoints": [{"address": ""}]}'), r"e.json:1:2: one \(and 1 more\)"),
    (written(b"\xff"), "not UTF-8"),
    (written(b"#" * (5 << 20)), "larger than 4 MiB"),
]


@pytest.mark.parametrize(("spoil", "words"), BAD)
async def test_a_bad_file_takes_nothing_away(file: Path, spoil: Any, words: str) -> None:
    async with watching(file) as watched:
        assert await watched.set() == ["192.0.2.1:80"]
        spoil(file)
        for _ in range(3):
            await watched.look()
        # Told once, and nothing published.
        assert len(watched.problems) == 2
        assert re.search(words, watched.problems[1])
        assert watched.silent
        missing(file)
        write(file, text_of("192.0.2.2:80"))
        await watched.look()
        assert await watched.set() == ["192.0.2.2:80"]
        assert watched.problems[2:] == [""]


async def test_back_to_what_it_was(file: Path) -> None:
    good = text_of("192.0.2.1:80")
    async with watching(file) as watched:
        await watched.set()
        write(file, "{")
        await watched.look()
        write(file, good)
        await watched.look()
        assert watched.problems[0] == watched.problems[2] == ""
        assert len(watched.problems) == 3
        assert watched.silent


async def test_a_moment_without_the_file(file: Path) -> None:
    """Between the removal of the old one and the new one with the same contents."""
    async with watching(file) as watched:
        await watched.set()
        missing(file)
        await watched.look(settled=False)
        write(file, text_of("192.0.2.1:80"))
        await watched.clock.pass_time(SETTLE)
        await watched.clock.pass_time(SETTLE)
        assert watched.problems == [""]
        assert watched.silent


async def test_a_file_that_is_not_there_yet(tmp_path: Path) -> None:
    async with watching(tmp_path / "later.json") as watched:
        assert watched.problems == ["No such file or directory"]
        assert watched.silent
        (tmp_path / "later.json").write_text(text_of())
        await watched.look()
        assert await watched.set() == []


async def test_looking_keeps_nothing_open(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    async with watching(tmp_path / "x") as watched:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            await watched.look()
        assert len(os.listdir("/proc/self/fd")) == before


async def test_names_in_a_file(file: Path, tmp_path: Path) -> None:
    """A name is followed as in the configuration; one that goes on in the next version is not asked again."""
    async with dns_server() as server:
        settings = DnsSettings(servers=(("127.0.0.1", server.port),), hosts=str(tmp_path / "hosts"))
        go = asyncio.Event()
        server.zone("a.test.", "A", "192.0.2.7", ttl=300)
        server.script("b.test.", "A", held(go, records("A", "192.0.2.8", ttl=300)))
        write(file, text_of("192.0.2.1:80", "a.test:80"))
        async with watching(file, Names(Resolver(settings))) as watched:
            assert await watched.set() == ["192.0.2.1:80", "192.0.2.7:80"]
            write(file, text_of("192.0.2.2:80", "a.test:80", "b.test:80"))
            await watched.look()
            await server.wait_asked("b.test.", "A", 1)
            # The old set serves until the new one is whole.
            assert watched.silent
            go.set()
            assert await watched.set() == ["192.0.2.2:80", "192.0.2.7:80", "192.0.2.8:80"]
        assert server.asked("a.test.", "A") == 1


async def test_trouble_with_a_name_in_a_file_is_told_of_the_name(
    file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with dns_server() as server:
        settings = DnsSettings(servers=(("127.0.0.1", server.port),), hosts=str(tmp_path / "hosts"))
        write(file, text_of("192.0.2.1:80", "a.test:80"))
        events = Events("orders")
        sets: asyncio.Queue[tuple[EndpointSpec, ...]] = asyncio.Queue()
        names = Names(Resolver(settings))
        source = FileSource(str(file), parse, lambda listed: sources_of(listed, lambda: names, "v4"), events)
        discovery = Discovery(sets.put_nowait, events)
        discovery.follow({"file": source})
        assert [one.address for one in await asyncio.wait_for(sets.get(), 10)] == ["192.0.2.1:80"]
        assert events.problems == {"name a.test:80": "NXDOMAIN: there is no such name"}
        assert caplog.messages == [
            "upstream orders: name a.test:80: NXDOMAIN: there is no such name; endpoints in use: 0"
        ]
        await discovery.close()
        # Those who followed the file's names have ended with it.
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("name ")]
