"""`fastgate top` over a loaded gateway: in a pseudo terminal with keys and another size, and over a pipe."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import pytest
from support.client import request
from support.gateway import ROOT, Gateway, config
from support.upstream import Upstream, read_body, reply

from fastgate.cli.top_rates import Frame, Overall, Row, quantile
from fastgate.cli.top_view import draw

PAUSE = 0.005


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Two clients ask for /shop, which works, one for /broken, which does not."""
    with Upstream(record=False) as good, Upstream(record=False) as bad:
        bad.default = (read_body(), reply(500))
        tables = config(
            upstreams={"shop": {"endpoints": [good.address]}, "broken": {"endpoints": [bad.address]}},
            routes=[
                {"name": name, "match": {"prefix": f"/{name}"}, "upstream": name}
                for name in ("shop", "broken")
            ],
            access_log={"enabled": False},
            server={"workers": 2},
        )
        with Gateway(tables | {"admin": {"bind": "127.0.0.1:0"}}, tmp_path_factory.mktemp("top")) as running:
            ended = threading.Event()
            loads = [
                threading.Thread(target=load, args=(running, ended, path))
                for path in ("/shop", "/shop", "/broken")
            ]
            for thread in loads:
                thread.start()
            try:
                yield running
            finally:
                ended.set()
                for thread in loads:
                    thread.join()


def load(gateway: Gateway, ended: threading.Event, path: str) -> None:
    with gateway.client() as client:
        while not ended.wait(PAUSE):
            client.request(request("GET", path))


def command(gateway: Gateway, *options: str) -> list[str]:
    address = gateway.addresses["admin API"]
    assert not isinstance(address, str)
    return [sys.executable, "-m", "fastgate", "top", "--admin", "{}:{}".format(*address), *options]


class Terminal:
    """A program in a pseudo terminal, and the screen that its bytes make: the few sequences that it uses."""

    def __init__(self, words: list[str], columns: int, lines: int) -> None:
        self._ours, theirs = pty.openpty()
        self.before = termios.tcgetattr(theirs)
        self._theirs = theirs
        self._ready = select.poll()  # select() has no descriptors from 1,024 on
        self._ready.register(self._ours, select.POLLIN)
        self.raw = b""
        self.resize(columns, lines)
        self.process = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def modes(self) -> list[Any]:
        return termios.tcgetattr(self._theirs)

    def _read(self, timeout: float) -> bool:
        if self._ready.poll(1000 * timeout):
            self.raw += os.read(self._ours, 65536)
            return True
        return False

    def screen(self) -> list[str]:
        """The last screen that is there whole."""
        whole = self.raw.decode().split("\x1b[H")[1:]
        whole = [each for each in whole if "\x1b[J" in each]
        if not whole:
            return []
        text = whole[-1].partition("\x1b[J")[0].replace("\x1b[K", "")
        return re.sub("\x1b\\[[0-9]*m", "", text).split("\r\n")

    def wait(self, ready: Callable[[list[str]], bool], timeout: float = 10.0) -> list[str]:
        deadline = time.monotonic() + timeout
        while not ready(screen := self.screen()):
            assert time.monotonic() < deadline, "\n".join(screen) + f"\n{self.raw[-500:]!r}"
            self._read(0.1)
        return screen

    def wait_end(self) -> int:
        deadline = time.monotonic() + 10
        while self.process.poll() is None:
            assert time.monotonic() < deadline
            self._read(0.05)
        while self._read(0.05):
            pass
        return self.process.returncode


def line_of(screen: list[str], start: str) -> str:
    return next((line for line in screen if line.startswith(start)), "")


def rate_of(screen: list[str], start: str) -> float:
    return float(line_of(screen, start).split()[1].replace(",", ""))


def test_it_is_live_takes_keys_and_follows_the_terminal(gateway: Gateway) -> None:
    with Terminal(command(gateway, "--interval", "0.3"), 100, 24) as terminal:
        screen = terminal.wait(lambda now: rate_of(now, "shop ") > 0 if line_of(now, "shop ") else False)
        assert len(screen) == 24
        assert all(len(line) <= 100 for line in screen)
        assert "ready" in screen[0]
        assert "req/s" in screen[1]
        heads = [at for at, line in enumerate(screen) if line.startswith(("ROUTE ", "UPSTREAM "))]
        assert len(heads) == 2
        # By rate: two clients ask for the one, one for the other.
        names = [line.split()[0] for line in screen[heads[0] + 1 : heads[0] + 3]]
        assert names == ["shop", "broken"]
        errors = {name: line_of(screen, f"{name} ").split()[2] for name in names}
        assert errors == {"shop": "0", "broken": "100.0"}
        # By errors now.
        terminal.press("s")
        screen = terminal.wait(lambda now: "sorted by errors" in now[-1] if now else False)
        at = screen.index(line_of(screen, "ROUTE "))
        assert screen[at + 1].startswith("broken ")
        terminal.press("e")
        screen = terminal.wait(lambda now: bool(line_of(now, "ENDPOINT ")))
        assert line_of(screen, "shop 127.0.0.1:").endswith("ready")
        assert not line_of(screen, "ROUTE ")
        terminal.resize(50, 10)
        screen = terminal.wait(lambda now: len(now) == 10)
        assert all(len(line) <= 50 for line in screen)
        terminal.press("p")
        terminal.wait(lambda now: now[-1].startswith("paused") if now else False)
        assert terminal.modes() != terminal.before
        terminal.press("q")
        assert terminal.wait_end() == 0
        assert terminal.modes() == terminal.before
        assert terminal.raw.rstrip().endswith(b"\x1b[?25h\x1b[?1049l")


def test_a_gateway_that_goes_is_told_and_waited_for(gateway: Gateway) -> None:
    tables = config(route={"respond": {"body": "ok"}}) | {"admin": {"bind": "127.0.0.1:0"}}
    folder = gateway.file.parent / "other"
    folder.mkdir()
    with (
        Gateway(tables, folder) as other,
        Terminal(command(other, "--interval", "0.2"), 120, 20) as terminal,
    ):
        terminal.wait(lambda now: bool(line_of(now, "ROUTE")))
        other.stop()
        terminal.wait(lambda now: "no gateway listens on" in now[-1])
        assert terminal.process.poll() is None


def run(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, cwd=ROOT
    )


def test_over_a_pipe_it_is_text(gateway: Gateway) -> None:
    for options in (("--once",), ()):
        done = run(command(gateway, "--interval", "0.3", *options))
        assert (done.returncode, done.stderr) == (0, "")
        assert "\x1b" not in done.stdout
        lines = done.stdout.splitlines()
        assert rate_of(lines, "shop ") > 0
        assert [line.split()[0] for line in lines if line.isupper() or " REQ/S " in line] == [
            "ROUTE", "UPSTREAM", "ENDPOINT",
        ]  # fmt: skip


def test_as_json_rates_are_those_of_the_load(gateway: Gateway) -> None:
    before = gateway.admin("/counters")["routes"]["shop"]["exchanges"]
    began = time.monotonic()
    done = run(command(gateway, "--interval", "1", "--once", "--json"))
    rate = (gateway.admin("/counters")["routes"]["shop"]["exchanges"] - before) / (time.monotonic() - began)
    found = json.loads(done.stdout)
    shop, broken = sorted(found["routes"], key=lambda row: row["name"] != "shop")
    assert shop["rate"] == pytest.approx(rate, rel=0.5)
    assert (shop["errors"], broken["errors"]) == (0, 1)
    assert 0 < shop["p50"] <= shop["p99"] < 5
    assert found["traffic"]["rate"] == pytest.approx(shop["rate"] + broken["rate"])
    upstream = next(row for row in found["upstreams"] if row["name"] == "shop")
    assert upstream["rate"] == pytest.approx(shop["rate"], rel=0.2)
    assert upstream["state"] == "1/1 ready"
    assert found["workers"] == 2


def test_nobody_there() -> None:
    done = run([sys.executable, "-m", "fastgate", "top", "--admin", "127.0.0.1:1", "--once"])
    assert done.returncode == 1
    assert (
        done.stderr
        == "fastgate top: no gateway listens on 127.0.0.1:1; is it running, with this `admin.bind`?\n"
    )


def test_quantiles_lie_evenly_within_a_bucket() -> None:
    bounds = [1.0, 2.0, 4.0]
    assert quantile(0.5, {}, bounds) is None
    assert quantile(0.5, {1: 0}, bounds) is None
    assert quantile(0.5, {0: 2}, bounds) == 0.5
    assert quantile(0.5, {1: 10}, bounds) == 1.5
    assert quantile(0.99, {1: 50, 2: 50}, bounds) == pytest.approx(3.96)
    assert quantile(0.99, {3: 1}, bounds) == 4.0


def test_names_that_would_disturb_a_terminal_do_not() -> None:
    row = Row(name="a\x1b[2Jb\u202e", rate=1.0, errors=0.0, p50=None, p99=None)
    overall = Overall("0", 1, True, 1.0, 1, row, 0, 0.0, 0, 0, {})
    frame = Frame(1.0, overall, (row,), (), ())
    text = "\n".join(draw(frame, 80, None, ("routes",), "rate", styled=False))
    assert "\x1b" not in text
    assert "\u202e" not in text
