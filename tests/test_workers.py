"""Several workers behind one address: who dies or hangs is replaced, and what changes, changes in all."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import StartGateway
from support.client import Client, request
from support.gateway import Gateway, config
from support.processes import Crowd, Endpoints

PLUGIN = """
import os, time
from pathlib import Path
from fastgate.plugins import Plugin, Response

HERE = Path(__file__).parent

class Mine(Plugin):
    def provision(self, host):
        if (HERE / "crash").exists():
            os._exit(4)
        if (HERE / "refuse").exists():
            try:
                os.close(os.open(HERE / "first", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                raise RuntimeError("one of us is enough") from None

    def on_request(self, exchange):
        path = exchange.request.path
        if path == "/pid":
            return Response(body=str(os.getpid()))
        if path == "/block":
            time.sleep(3600)
"""


def tables(upstream: Any = (), *, workers: int = 2, limits: str = "", **more: Any) -> dict[str, Any]:
    """/pid tells which process answers; /block keeps it from everything else, for ever."""
    own = {"respond": {"body": "ok"}} if upstream == () else {"upstream": "up"}
    return config(
        upstream,
        admin={"bind": "127.0.0.1:0"},
        server={"workers": workers, "hang_timeout": "2s"},
        route={**own, "plugins": ["mine"]},
        plugins={"mine": {"use": "./mine.py", "timeout": "1h", **more}},
    )


def folder_of(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(PLUGIN)
    return tmp_path


def answering(gateway: Gateway, tries: int = 40) -> set[int]:
    """The processes that answer on connections of their own."""
    found = set()
    for _ in range(tries):
        with gateway.client() as client:
            found.add(int(client.get("/pid").body))
    return found


def wait_worker(gateway: Gateway, count: int) -> None:
    """Until so many have ever been ready."""
    deadline = time.monotonic() + 10
    while len(gateway.workers) < count:
        assert time.monotonic() < deadline, gateway.errors()
        time.sleep(0.01)


def test_all_serve(tmp_path: Path) -> None:
    with Gateway(tables(workers=3), folder_of(tmp_path)) as gateway:
        assert len(gateway.workers) == 3
        assert answering(gateway, 200) <= set(gateway.workers)
        assert gateway.admin("/counters")["workers"] >= 3


def test_who_is_killed_is_replaced_within_a_second(tmp_path: Path) -> None:
    """Again and again, under load: what was under way in the killed one fails, and nothing else does."""
    with (
        Endpoints(1, tmp_path) as [endpoint],
        Gateway(tables([endpoint.address]), folder_of(tmp_path)) as gateway,
    ):
        kills = 4
        with Crowd(gateway.address, clients=6) as crowd:
            for turn in range(kills):
                crowd.wait_more(50)
                victim, known = gateway.workers[turn], len(gateway.workers)
                begin = time.monotonic()
                os.kill(victim, signal.SIGKILL)
                gateway.wait_stderr(f"fastgate: worker {1 + turn % 2} (pid {victim}) was ended by SIGKILL")
                wait_worker(gateway, known + 1)
                assert time.monotonic() - begin < 1 or turn > 1, "later ones are delayed on purpose"
            crowd.wait_more(100)
        # Each client has one request under way; who was on another worker has noticed nothing.
        assert len(crowd.failures) <= kills * 6
        assert len(crowd.answered) > 300
        counted = gateway.admin("/counters")["routes"]["all"]["exchanges"]
        # What dead workers counted is still there, but for what they had answered and not counted yet.
        assert len(crowd.answered) <= counted + kills
        gateway.assert_idle()


def test_one_that_hangs_gets_a_substitute_and_is_killed(tmp_path: Path) -> None:
    with Gateway(tables(), folder_of(tmp_path)) as gateway:
        with gateway.client(timeout=20) as client:
            client.send(request("GET", "/block"))
            begin = time.monotonic()
            line = gateway.wait_stderr("fastgate: worker")
            wait_worker(gateway, 3)
            assert time.monotonic() - begin < 2
            [hung] = re.findall(r"worker \d \(pid (\d+)\) does not answer", gateway.errors()) or [line]
            # The others serve, on connections that the hung one does not take.
            assert int(hung) not in answering(gateway)
            gateway.wait_stderr(
                f"fastgate: worker {seat_of(gateway, int(hung))} (pid {hung}) has not answered"
            )
            gateway.wait_stderr(
                f"fastgate: worker {seat_of(gateway, int(hung))} (pid {hung}) was ended by SIG"
            )
            client.stream.rest("the end of its connection")
        assert "Fatal Python error: Aborted" in gateway.errors()
        assert any("mine.py" in line for line in gateway.stderr), "it says where it hung"
        gateway.stderr[:] = [line for line in gateway.stderr if line.startswith("fastgate: ")]


def seat_of(gateway: Gateway, pid: int) -> int:
    return int(re.findall(rf"worker (\d) \(pid {pid}\)", "\n".join(gateway.stderr))[0])


def test_one_that_comes_to_stays_and_its_substitute_leaves(tmp_path: Path) -> None:
    with Gateway(tables(workers=1), folder_of(tmp_path)) as gateway, gateway.client() as kept:
        first = gateway.pid
        assert int(kept.get("/pid").body) == first
        os.kill(first, signal.SIGSTOP)
        try:
            wait_worker(gateway, 2)
            substitute = gateway.workers[1]
            with gateway.client() as other:
                assert int(other.get("/pid").body) == substitute
                os.kill(first, signal.SIGCONT)
                gateway.wait_stderr(f"fastgate: worker 1 (pid {first}) answers again")
                # Its connection has a last request, and then it leaves.
                response = other.get("/pid")
                assert int(response.body) == substitute
        finally:
            os.kill(first, signal.SIGCONT)
        assert int(kept.get("/pid").body) == first, "the connection has lived through it"
        deadline = time.monotonic() + 20
        while Path(f"/proc/{substitute}").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert answering(gateway) == {first}


def test_who_crashes_again_and_again_is_started_later_and_later(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    with Gateway(tables(), folder) as gateway:
        (folder / "crash").touch()
        os.kill(gateway.workers[0], signal.SIGKILL)
        gateway.wait_stderr("fastgate: worker 1 is started again in 0.4 s", timeout=20)
        with gateway.client() as client:
            assert int(client.get("/pid").body) == gateway.workers[1], "the other serves"
        (folder / "crash").unlink()
        wait_worker(gateway, 3)


def test_an_operator_is_told_that_no_worker_is_there(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    with Gateway(tables(workers=1), folder) as gateway:
        (folder / "crash").touch()
        os.kill(gateway.pid, signal.SIGKILL)
        gateway.wait_stderr("fastgate: worker 1 is started again")
        with Client(gateway.addresses["admin API"]) as client:
            answer = client.request(request("GET", "/upstreams", host="localhost"))
        assert (answer.status, answer.json()["detail"]) == (409, "no worker is ready to answer")
        (folder / "crash").unlink()
        wait_worker(gateway, 2)


def test_a_gateway_whose_workers_can_not_start_does_not(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    (folder / "crash").touch()
    with pytest.raises(AssertionError, match="ended before it was ready"):
        Gateway(tables(), folder).start()


def test_a_reload_that_one_worker_refuses_changes_none(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    with Gateway(tables(), folder) as gateway:
        before = tables()
        (folder / "refuse").touch()
        changed = tables(on_failure="open")
        changed["routes"].insert(0, {"name": "new", "match": {"path": "/new"}, "respond": {"status": 204}})
        lines = gateway.not_reload(changed)
        assert lines[-2] == "fastgate: plugin mine: one of us is enough"
        with gateway.client() as client:
            assert [client.get("/new").status for _ in range(20)] == [200] * 20
        (folder / "refuse").unlink()
        gateway.reload()
        for _ in range(20):
            with gateway.client() as client:
                assert client.get("/new").status == 204
        gateway.reload(before)


def test_reloads_while_workers_are_killed(tmp_path: Path) -> None:
    """Whoever is forked in the middle of it ends up with what is in force."""
    folder = folder_of(tmp_path)
    with Gateway(tables(), folder) as gateway:
        for turn in range(6):
            changed = tables()
            changed["routes"][0]["response_headers"] = {"set": {"X-Turn": str(turn)}}
            victim = max(answering(gateway))  # not one that leaves, being stale
            killer = threading.Timer(0.01 * turn, os.kill, (victim, signal.SIGKILL))
            known = len(gateway.workers)
            killer.start()
            gateway.reload(changed)
            killer.join()
            wait_worker(gateway, known + 1)
            deadline = time.monotonic() + 10
            while True:
                seen: Counter[str | None] = Counter()
                for _ in range(20):
                    with gateway.client() as client:
                        seen[client.get("/").get("x-turn")] += 1
                if set(seen) == {str(turn)}:
                    break
                assert time.monotonic() < deadline, seen


def test_what_an_operator_says_holds_in_all(tmp_path: Path) -> None:
    with (
        Endpoints(2, tmp_path) as endpoints,
        Gateway(tables([each.address for each in endpoints]), folder_of(tmp_path)) as gateway,
    ):
        address = endpoints[0].address
        shown = gateway.admin(f"/upstreams/up/endpoints/{address}", "PUT", {"state": "down"})
        assert shown["state"] == "down"
        for number in range(40):
            with gateway.client() as client:
                assert client.get(f"/id/{number}").body.endswith(b" e1")
        # It lives on in whoever takes a dead one's place.
        os.kill(gateway.workers[0], signal.SIGKILL)
        wait_worker(gateway, 3)
        for number in range(40):
            with gateway.client() as client:
                assert client.get(f"/id/{number}").body.endswith(b" e1")


def test_lines_of_the_log_are_whole(tmp_path: Path) -> None:
    """All workers write to one pipe, in pieces that are longer than it takes at once."""
    with Gateway(tables(workers=4), folder_of(tmp_path)) as gateway:
        clients = [gateway.client() for _ in range(16)]
        for _ in range(40):
            for client in clients:
                client.send(request("GET", "/" + "x" * 3000))
            for client in clients:
                assert client.response().status == 200
        for client in clients:
            client.close()
        gateway.wait_log(0, 16 * 40)
    assert not [line for line in gateway.stdout if not line.endswith("}")]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_workers_run_as_somebody_else(tmp_path: Path) -> None:
    for each in (tmp_path, *tmp_path.parents[:3]):
        each.chmod(0o755)
    folder = folder_of(tmp_path)
    own = tables()
    own["server"]["user"] = "nobody"
    with Gateway(own, folder) as gateway:
        for pid in gateway.workers:
            status = Path(f"/proc/{pid}/status").read_text()
            assert re.search(r"^Uid:\s+65534\s+65534\s+65534\s+65534$", status, re.MULTILINE)
        # What only root may read the supervisor has read for them.
        folder.joinpath("gateway.toml").chmod(0o600)
        changed = tables()
        changed["server"]["user"] = "nobody"
        changed["routes"][0]["respond"]["body"] = "new"
        gateway.reload(changed)
        gateway.file.chmod(0o600)
        with gateway.client() as client:
            assert client.get("/").body == b"new"


def test_a_user_that_there_is_not(start_gateway: StartGateway) -> None:
    with pytest.raises(AssertionError, match="user nosuchuser"):
        start_gateway(config(route={"respond": {"body": "ok"}}, server={"user": "nosuchuser"}))


def test_who_is_told_to_end_ends_well(tmp_path: Path) -> None:
    """SIGTERM to a worker alone: its connections bring a last request, and another takes its seat."""
    with Gateway(tables(workers=1), folder_of(tmp_path)) as gateway, gateway.client() as client:
        first = gateway.pid
        assert int(client.get("/pid").body) == first
        os.kill(first, signal.SIGTERM)
        wait_worker(gateway, 2)
        with Client(gateway.address) as other:
            assert int(other.get("/pid").body) == gateway.workers[1]
