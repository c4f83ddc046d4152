"""Versions: what was in force is kept, compared, and put in force again."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import StartGateway
from support.admin import ADMIN, Admin, Refused
from support.gateway import ROOT, Gateway, config, to_toml

from fastgate.config import Sources, load
from fastgate.embed import Gateway as Embedded
from fastgate.embed import ReloadError


def fixed(body: str, **more: Any) -> dict[str, Any]:
    return config(route={"respond": {"body": body}}) | ADMIN | more


def ask(gateway: Gateway, command: str, *arguments: str, where: str = "") -> subprocess.CompletedProcess[str]:
    if not where:
        address = gateway.addresses["admin API"]
        assert not isinstance(address, str)
        where = f"{address[0]}:{address[1]}"
    line = [sys.executable, "-m", "fastgate", command, "--admin", where, *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=30, cwd=ROOT, check=False)


def folder_of(directory: Path) -> Path:
    [folder] = (directory / "state" / "history").iterdir()
    return folder


def versions(gateway: Gateway) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = Admin(gateway).ask("GET", "history")["versions"]
    return found


def test_back_and_forth(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = start_gateway(fixed("one", server={"state_dir": "state"}))
    gateway.reload(fixed("two", server={"state_dir": "state"}))
    gateway.reload(fixed("three", server={"state_dir": "state"}))
    with gateway.client() as client:
        assert client.get().body == b"three"
        begun = time.monotonic()
        Admin(gateway).ask("POST", "rollback", body={})
        assert client.get().body == b"two"
        assert time.monotonic() - begun < 1
        done = ask(gateway, "rollback", "1")
        assert (done.returncode, done.stdout) == (0, "route all: changed\nversion 5 is in force\n"), (
            done.stderr
        )
        assert client.get().body == b"one"
    assert "fastgate: rolled back to version 1, as version 5 (routes: 1 changed)" in gateway.stderr
    found = versions(gateway)
    assert [(each["version"], each["cause"], each["of"], each["changes"]) for each in found] == [
        (1, "start", 0, ""),
        (2, "signal", 0, "routes: 1 changed"),
        (3, "signal", 0, "routes: 1 changed"),
        (4, "rollback", 2, "routes: 1 changed"),
        (5, "rollback", 1, "routes: 1 changed"),
    ]
    assert [each["version"] for each in found if each["in_force"]] == [5]
    assert [each["version"] for each in found if each["as_files"]] == [3]
    listed = ask(gateway, "history").stdout.splitlines()
    assert listed[-2].split()[0] == "5"
    assert "rollback to 1" in listed[-2]
    assert listed[-1] == "the files say something else than version 5, and are not in force"
    # Reading the files again ends that.
    gateway.reload(fixed("three", server={"state_dir": "state"}))
    assert versions(gateway)[-1]["as_files"]


def test_the_same_again_is_no_new_version(start_gateway: StartGateway) -> None:
    gateway = start_gateway(fixed("one"))
    gateway.reload(fixed("one"))
    assert [each["version"] for each in versions(gateway)] == [1]
    with pytest.raises(Refused, match="no earlier version is kept"):
        Admin(gateway).ask("POST", "rollback", body={})
    with pytest.raises(Refused, match="version 7 is not kept"):
        Admin(gateway).ask("POST", "rollback", body={"version": 7})
    with pytest.raises(Refused, match="there is no version x"):
        Admin(gateway).ask("GET", "history", "x")


def test_what_fails_is_no_version_and_changes_nothing(start_gateway: StartGateway) -> None:
    gateway = start_gateway(fixed("one"))
    gateway.not_reload(text="nonsense")
    gateway.not_reload(fixed("two") | {"listeners": [{"name": "main", "bind": "192.0.2.1:1"}]})
    assert [each["version"] for each in versions(gateway)] == [1]
    with gateway.client() as client:
        assert client.get().body == b"one"


def test_history_survives_a_restart_and_what_is_broken_is_passed_over(
    tmp_path: Path,
) -> None:
    tables = {name: fixed(name, server={"state_dir": "state", "history": 4}) for name in "abcdef"}
    gateway = Gateway(tables["a"], tmp_path).start()
    for name in "bcde":
        gateway.reload(tables[name])
    gateway.stop()
    folder = folder_of(tmp_path)
    files = sorted(folder.iterdir())
    assert [file.name for file in files] == [f"{number:06}.json" for number in (2, 3, 4, 5)]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    damaged = bytearray(files[1].read_bytes())
    damaged[len(damaged) // 2] ^= 1
    files[1].write_bytes(damaged)
    files[2].write_bytes(files[2].read_bytes()[:-40])
    again = Gateway(tables["e"], tmp_path).start()
    assert [each["version"] for each in versions(again)] == [2, 5]
    told = [line for line in again.stderr if "passed over" in line]
    assert [line.split(":")[3] for line in told] == [
        " version 3 can't be read, and is passed over",
        " version 4 can't be read, and is passed over",
    ]
    Admin(again).ask("POST", "rollback", body={"version": 2})
    with again.client() as client:
        assert client.get().body == b"b"
    again.stop()
    # The files count at a start, and that they undo a rollback is told.
    third = Gateway(tables["f"], tmp_path).start()
    assert any("version 6, a rollback to 2, was in force before" in line for line in third.stderr)
    with third.client() as client:
        assert client.get().body == b"f"
    third.stop()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(start_gateway: StartGateway, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o500)
    check_in_memory(start_gateway(fixed("one", server={"state_dir": str(tmp_path / "state")})), tmp_path)


def test_a_folder_that_cannot_be_made(start_gateway: StartGateway, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("no folder")
    check_in_memory(start_gateway(fixed("one", server={"state_dir": str(tmp_path / "state")})), tmp_path)


def check_in_memory(gateway: Gateway, tmp_path: Path) -> None:
    assert any("it is kept in memory alone" in line for line in gateway.stderr)
    gateway.reload(fixed("two", server={"state_dir": str(tmp_path / "state")}))
    Admin(gateway).ask("POST", "rollback", body={})
    with gateway.client() as client:
        assert client.get().body == b"one"


def test_two_that_keep_their_history_in_one_place(tmp_path: Path) -> None:
    from fastgate.server.history import Entry, History

    file = tmp_path / "gateway.toml"
    file.write_text(to_toml(fixed("one")))
    sources = load(str(file)).config.sources
    told: list[str] = []
    one, other = (History(tmp_path / "h", 20, told.append) for _ in range(2))
    made = [
        history.add(lambda version: Entry(version=version, time=0.0, cause="start", sources=sources)).version
        for history in (one, other, one)
    ]
    assert made == [1, 2, 3]
    assert [entry.version for entry in History(tmp_path / "h", 20, told.append).entries()] == [1, 2, 3]
    assert told == []


def test_a_folder_that_goes_away(tmp_path: Path) -> None:
    from fastgate.server.history import Entry, History

    told: list[str] = []
    history = History(tmp_path / "h", 20, told.append)
    (tmp_path / "h").rmdir()
    for _ in range(2):
        history.add(lambda version: Entry(version=version, time=0.0, cause="start", sources=Sources()))
    assert [entry.version for entry in history.entries()] == [1, 2]
    [line] = told
    assert "No such file or directory; this version is kept in memory alone" in line


def test_secrets_from_variables_are_not_kept(start_gateway: StartGateway, tmp_path: Path) -> None:
    secret = {"request_headers": {"set": {"X-Key": {"env": "FASTGATE_TEST_KEY"}}}}
    file = tmp_path / "gateway.toml"
    tables = fixed("one", server={"state_dir": "state"})
    tables["routes"][0] |= secret
    with Gateway(tables, file.parent, env={"FASTGATE_TEST_KEY": "hunter2"}) as gateway:
        [kept] = folder_of(tmp_path).iterdir()
        assert "FASTGATE_TEST_KEY" in kept.read_text()
        assert "hunter2" not in kept.read_text()
        assert "hunter2" not in json.dumps(Admin(gateway).ask("GET", "history", "current"))


# -- compared


def test_differences_are_told_by_meaning(start_gateway: StartGateway, tmp_path: Path) -> None:
    redis = {"url": "redis://127.0.0.1:1/0", "password": "hunter1"}
    limit = {"use": "rate-limit", "rate": "60/m", "scope": "redis", "redis": redis}
    ups = {"orders": {"endpoints": ["127.0.0.1:9001"], "timeouts": {"connect": "1000ms"}}}
    routes = [{"name": name, "match": {"prefix": f"/{name}"}, "upstream": "orders"} for name in "abc"]
    before = fixed("x") | {"routes": routes, "upstreams": ups, "plugins": {"limit": limit}}
    gateway = start_gateway(before)
    changed = [routes[1] | {"timeouts": {"total": "5s"}}, routes[0], {**routes[2], "name": "d"}]
    gateway.reload(
        before
        | {
            "routes": changed,
            "upstreams": {"orders": {"timeouts": {"connect": "1s"}, "endpoints": ["127.0.0.1:9001"]}},
            "plugins": {"limit": {**limit, "burst": 9, "redis": {**redis, "password": "hunter2"}}},
        }
    )
    found = gateway.admin("/history/1/diff/2")
    assert "hunter" not in json.dumps(found)
    assert [(each["kind"], each["name"], each["change"]) for each in found["items"]] == [
        ("route", "b", "changed"),
        ("route", "c", "removed"),
        ("route", "d", "added"),
        ("plugin", "limit", "changed"),
    ]
    assert found["order"]
    assert found["items"][0]["keys"] == [{"key": "timeouts.total", "new": "5s"}]
    assert found["items"][3]["keys"] == [
        {"key": "burst", "new": 9},
        {"key": "redis.password", "old": "<secret>", "new": "<secret>"},
    ]
    done = ask(gateway, "diff", "1", "2")
    assert (done.returncode, done.stderr) == (2, "")
    assert '~ route b\n    timeouts.total: (none) -> "5s"\n- route c\n' in done.stdout
    assert '    redis.password: "<secret>" -> "<secret>"\n' in done.stdout
    assert done.stdout.endswith("~ the order of the routes\n")
    assert json.loads(ask(gateway, "diff", "1", "current", "--json").stdout)["items"] == found["items"]


def test_a_secret_in_the_text_is_told_on_a_unix_socket_alone(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    secret = {"response_headers": {"set": {"X-Api-Key": "hunter2"}}}
    tables = config(route={"respond": {}, **secret}) | ADMIN
    open_to_all = start_gateway(tables)
    with pytest.raises(Refused, match="a secret stands in the text"):
        Admin(open_to_all).ask("GET", "history", "current")
    place = f"unix:{tmp_path}/admin.sock"
    private = start_gateway(tables | {"admin": {"bind": place}})
    same = ask(private, "diff", "current", str(private.file), where=place)
    assert (same.returncode, same.stdout) == (0, "they say the same\n"), same.stderr
    done = ask(private, "plan", "-c", str(private.file), where=place)
    assert (done.returncode, done.stdout) == (0, "nothing would change against version 1\n"), done.stderr


# -- embedded


async def test_embedded_gateways_roll_back_too(tmp_path: Path) -> None:
    tables = {body: config(route={"respond": {"body": body}}) for body in ("one", "two")}
    async with Embedded(tables["one"]) as gateway:
        await gateway.reload(tables["two"])
        assert gateway.config.routes[0].respond.body == "two"  # type: ignore[union-attr]
        result = await gateway.operations.rollback()
        assert gateway.config.routes[0].respond.body == "one"  # type: ignore[union-attr]
        assert (result.version, len(await gateway.operations.history())) == (3, 3)
        with pytest.raises(ReloadError, match="it came from no file"):
            await gateway.reload()


async def test_what_stands_beside_it_counts_as_it_is_now(tmp_path: Path) -> None:
    office = {"use": "ip-filter", "block_file": "blocked.txt"}
    tables = config(route={"respond": {}, "plugins": ["office"]}) | {"plugins": {"office": office}}
    file, blocked = tmp_path / "gateway.toml", tmp_path / "blocked.txt"
    blocked.write_text("192.0.2.0/24\n")
    file.write_text(to_toml(tables))
    async with Embedded(str(file)) as gateway:
        blocked.write_text("198.51.100.0/24\n")
        await gateway.reload()
        [first, second] = await gateway.operations.history()
        assert (first.digest == second.digest, second.changes) == (False, "files beside it: 1")
        await gateway.operations.rollback(1)
        assert gateway.config.plugins["office"].block == ("198.51.100.0/24",)  # type: ignore[union-attr]
