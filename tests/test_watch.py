"""Watched files: whatever way a file is changed, it is taken up once, whole, and never by half."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from conftest import StartGateway
from support.gateway import config, to_toml

from fastgate.config import load, load_sources
from fastgate.config.spaces import said_now
from fastgate.server.history import History
from fastgate.server.keeper import Applied, Keeper
from fastgate.server.watch import Watcher

ROUTE = '[[routes]]\nname = "r"\nrespond = {{ body = "{}" }}\n'
LISTENER = '[[listeners]]\nbind = "127.0.0.1:0"\n'


class Scene:
    """A keeper on files of a folder, and a watcher that is told when to look. `told`: lines."""

    def __init__(self, folder: Path, text: str) -> None:
        self.file = folder / "gateway.toml"
        self.file.write_text(text)
        self.told: list[str] = []
        self.applied: list[Any] = []
        self.refuse = False
        config = load(str(self.file)).config
        self.keeper = Keeper(config, self.apply, self.told.append, History(None, 20, self.told.append))
        self.watcher = Watcher(self.keeper, self.told.append, settle=0.01, settle_gone=0.05)

    async def apply(self, config: Any) -> Applied:
        self.applied.append(config)
        return Applied([], [])

    async def look(self) -> list[str]:
        """The lines that one look tells."""
        before = len(self.told)
        await self.watcher.look()
        return self.told[before:]

    @property
    def body(self) -> str:
        return str(self.keeper.config.routes[0].respond.body)  # type: ignore[union-attr]


@pytest.fixture
async def scene(tmp_path: Path) -> Scene:
    found = Scene(tmp_path, LISTENER + ROUTE.format("one"))
    await found.keeper.begin()
    return found


async def test_nothing_changed(scene: Scene) -> None:
    os.utime(scene.file)
    scene.file.write_text(scene.file.read_text())
    assert await scene.look() == []


async def test_written_in_place_and_renamed_over(scene: Scene, tmp_path: Path) -> None:
    scene.file.write_text(LISTENER + ROUTE.format("two"))
    assert await scene.look() == [
        f"fastgate: changed: {scene.file}",
        "fastgate: reloaded (routes: 1 changed)",
    ]
    assert scene.body == "two"
    draft = tmp_path / ".gateway.toml.swp"
    draft.write_text(LISTENER + ROUTE.format("six"))
    draft.rename(scene.file)
    await scene.look()
    assert scene.body == "six"
    assert await scene.look() == []
    assert [each.cause for each in scene.keeper.versions()] == ["start", "watch", "watch"]


async def test_same_size_and_same_times(scene: Scene) -> None:
    status = scene.file.stat()
    scene.file.write_text(LISTENER + ROUTE.format("two"))
    os.utime(scene.file, ns=(status.st_atime_ns, status.st_mtime_ns))
    await scene.look()
    assert scene.body == "two"


async def test_a_config_map_is_swapped(tmp_path: Path) -> None:
    """As the kubelet does it: files are symlinks through ..data, which is renamed over."""
    mount = tmp_path / "mount"
    for name, body in (("..1", "one"), ("..2", "two")):
        (mount / name).mkdir(parents=True)
        (mount / name / "gateway.toml").write_text('include = ["*.part"]\n' + LISTENER)
        (mount / name / "r.part").write_text(ROUTE.format(body))
    (mount / "..data").symlink_to("..1")
    for name in ("gateway.toml", "r.part"):
        (mount / name).symlink_to(f"..data/{name}")
    found = Scene.__new__(Scene)
    found.file, found.told, found.applied = mount / "gateway.toml", [], []
    config = load(str(found.file)).config
    found.keeper = Keeper(config, found.apply, found.told.append, History(None, 20, found.told.append))
    found.watcher = Watcher(found.keeper, found.told.append, settle=0.01)
    assert await found.look() == []
    (mount / "..data_tmp").symlink_to("..2")
    (mount / "..data_tmp").rename(mount / "..data")
    assert await found.look() == [
        f"fastgate: changed: {mount / 'r.part'}",
        "fastgate: reloaded (routes: 1 changed)",
    ]
    assert found.body == "two"


async def test_a_partial_write_is_waited_for(scene: Scene) -> None:
    text = LISTENER + ROUTE.format("two")
    scene.file.write_text(text[:20])

    async def write_on() -> None:
        with scene.file.open("a") as file:
            for char in text[20:]:
                file.write(char)
                file.flush()
                await asyncio.sleep(0.002)

    writing = asyncio.create_task(write_on())
    told = await scene.look()
    await writing
    assert told == [f"fastgate: changed: {scene.file}", "fastgate: reloaded (routes: 1 changed)"]


async def test_what_is_wrong_is_told_once_and_changes_nothing(scene: Scene) -> None:
    scene.file.write_text("nonsense")
    told = await scene.look()
    assert told[0] == f"fastgate: changed: {scene.file}"
    assert told[-1] == "fastgate: not reloaded"
    assert (await scene.look(), scene.applied, scene.body) == ([], [], "one")
    scene.file.write_text(LISTENER + ROUTE.format("one"))
    assert (await scene.look())[-1] == "fastgate: reloaded (nothing changed)"
    assert [each.version for each in scene.keeper.versions()] == [1]


async def test_a_mistake_in_a_new_file_is_mended_there(scene: Scene, tmp_path: Path) -> None:
    part = tmp_path / "part.toml"
    scene.file.write_text('include = ["part.toml"]\n' + LISTENER)
    assert (await scene.look())[-1] == "fastgate: not reloaded"
    part.write_text("nonsense")
    assert (await scene.look())[-1] == "fastgate: not reloaded"
    assert await scene.look() == []
    part.write_text(ROUTE.format("two"))
    assert (await scene.look())[-1] == "fastgate: reloaded (routes: 1 changed)"


async def test_a_file_that_a_pattern_matches_comes_and_goes(tmp_path: Path) -> None:
    (tmp_path / "routes").mkdir()
    scene = Scene(tmp_path, 'include = ["routes/*.toml"]\n' + LISTENER + ROUTE.format("one"))
    extra = tmp_path / "routes" / "extra.toml"
    extra.write_text('[[routes]]\nname = "x"\nmatch = { prefix = "/x" }\nrespond = {}\n')
    assert (await scene.look())[-1] == "fastgate: reloaded (routes: 1 added)"
    extra.unlink()
    assert "fastgate: reloaded (routes: 1 removed)" in await scene.look()


async def test_deleted_and_back(scene: Scene) -> None:
    text = scene.file.read_text()
    scene.file.unlink()
    looking = asyncio.create_task(scene.look())
    await asyncio.sleep(0.02)
    scene.file.write_text(text)
    assert await looking == []
    scene.file.unlink()
    assert (await scene.look())[-1] == "fastgate: not reloaded"
    assert await scene.look() == []
    scene.file.write_text(text)
    assert (await scene.look())[-1] == "fastgate: reloaded (nothing changed)"


async def test_files_beside_it_are_watched(tmp_path: Path) -> None:
    blocked = tmp_path / "blocked.txt"
    blocked.write_text("192.0.2.0/24\n")
    office = '[plugins.office]\nuse = "ip-filter"\nblock_file = "blocked.txt"\n'
    scene = Scene(tmp_path, LISTENER + 'plugins = ["office"]\n' + ROUTE.format("one") + office)
    blocked.write_text("198.51.100.0/24\n")
    assert await scene.look() == [f"fastgate: changed: {blocked}", "fastgate: reloaded (plugins: 1 changed)"]


async def test_a_byte_order_mark_is_no_change(tmp_path: Path) -> None:
    scene = Scene(tmp_path, "\ufeff" + LISTENER + ROUTE.format("one"))
    assert await scene.look() == []


async def test_a_rollback_stays_until_a_file_changes(scene: Scene) -> None:
    await scene.keeper.begin()
    scene.file.write_text(LISTENER + ROUTE.format("two"))
    await scene.look()
    await scene.keeper.rollback()
    assert (scene.body, await scene.look()) == ("one", [])
    os.utime(scene.file)
    assert (scene.body, await scene.look()) == ("one", [])
    scene.file.write_text(LISTENER + ROUTE.format("three"))
    await scene.look()
    assert scene.body == "three"


async def test_a_rollback_stays_over_an_upgrade_of_the_program(scene: Scene) -> None:
    scene.file.write_text(LISTENER + ROUTE.format("two"))
    await scene.look()
    await scene.keeper.rollback()
    successor = Keeper(
        load_sources(scene.keeper.config.sources).config,
        scene.apply,
        scene.told.append,
        History(None, 20, scene.told.append),
        files=said_now(scene.keeper.config.sources),
    )
    await successor.begin()
    assert not successor.versions()[-1].as_files
    scene.keeper, scene.watcher = successor, Watcher(successor, scene.told.append, settle=0.01)
    assert (await scene.look(), scene.body) == ([], "one")
    scene.file.write_text(LISTENER + ROUTE.format("six"))
    await scene.look()
    assert (scene.body, successor.versions()[-1].as_files) == ("six", True)


async def test_a_reload_by_others_is_not_done_again(scene: Scene) -> None:
    scene.file.write_text(LISTENER + ROUTE.format("two"))
    await scene.keeper.reload(cause="signal")
    assert await scene.look() == []
    scene.file.write_text("nonsense")
    with pytest.raises(Exception, match="TOML"):
        await scene.keeper.reload(cause="signal")
    assert await scene.look() == []
    scene.file.write_text(LISTENER + ROUTE.format("two"))
    assert (await scene.look())[-1] == "fastgate: reloaded (nothing changed)"


def test_in_service(start_gateway: StartGateway) -> None:
    def tables(body: str) -> dict[str, Any]:
        return config(route={"respond": {"body": body}}) | {"server": {"watch": True}}

    gateway = start_gateway(tables("one"))
    gateway.file.write_text(to_toml(tables("two")))
    gateway.wait_stderr("fastgate: reloaded (routes: 1 changed)")
    with gateway.client() as client:
        assert client.get().body == b"two"
