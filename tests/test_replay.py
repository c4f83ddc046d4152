"""`fastgate replay`: recorded requests, decided by two configurations."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import StartGateway, StartUpstream
from support.admin import ADMIN
from support.client import request
from support.gateway import ROOT, config, to_toml
from test_history import ask

from fastgate.config import loads
from fastgate.routing.decide import Asked, Decider
from fastgate.routing.explain import explain

OLD = """
[[listeners]]
name = "main"
bind = "127.0.0.1:0"

[upstreams]
orders.endpoints = ["127.0.0.1:9001"]
users.endpoints = ["127.0.0.1:9002"]

[plugins.office]
use = "ip-filter"
allow = ["10.0.0.0/8"]

[[routes]]
name = "orders"
match = { prefix = "/orders" }
upstream = "orders"

[[routes]]
name = "users"
match = { prefix = "/users", headers = { x-beta = true } }
upstream = "users"

[[routes]]
name = "admin"
match = { prefix = "/admin" }
upstream = "users"
plugins = ["office"]

[[routes]]
name = "moved"
match = { prefix = "/old" }
redirect = { prefix = "/new" }
"""
NEW = (
    OLD.replace('prefix = "/orders" }\nupstream = "orders"', 'prefix = "/orders" }\nupstream = "users"')
    .replace('allow = ["10.0.0.0/8"]', 'allow = ["10.0.0.0/9"]')
    .replace('prefix = "/new"', 'prefix = "/newer"')
)


def line(path: str, method: str = "GET", **more: Any) -> str:
    return json.dumps(
        {"method": method, "path": path, "query": None, "host": "a.example", "listener": "main"} | more
    )


# Runs a command, and tells how much memory it had at most: of this process' own children there are others.
PEAK = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
print("peak", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


def replay(folder: Path, log: str, *options: str, wrapper: str = "") -> subprocess.CompletedProcess[str]:
    (folder / "old.toml").write_text(OLD)
    (folder / "new.toml").write_text(NEW)
    files = ["-c", str(folder / "new.toml"), "--against", str(folder / "old.toml")]
    around = [sys.executable, "-c", wrapper] if wrapper else []
    command = [*around, sys.executable, "-m", "fastgate", "replay", *files, log, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, check=False)


def test_each_request_that_goes_another_way(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    lines = [
        line("/orders/1"),
        line("/users"),
        line("/admin", client="10.1.1.1"),
        line("/admin", client="10.200.1.1"),
        line("/old/a", query="b=c"),
        line("/nowhere"),
        line("/orders/2", method="POST", bytes_in=20_000_000),
        line("/orders/3", listener="gone"),
        "{ half a li",
        json.dumps({"method": None, "path": None}),
        "",
        line("/orders/1"),
    ]
    log.write_text("\n".join(lines) + "\n")
    done = replay(tmp_path, str(log))
    assert done.returncode == 2
    assert done.stdout.splitlines() == [
        "line 1: GET a.example/orders/1: orders -> orders /orders/1 => orders -> users /orders/1",
        "line 4: GET a.example/admin: admin -> users /admin => admin -> 403 address-refused",
        "line 5: GET a.example/old/a?b=c: moved -> 302 redirected http://a.example/new/a?b=c => "
        "moved -> 302 redirected http://a.example/newer/a?b=c",
        "line 12: GET a.example/orders/1: orders -> orders /orders/1 => orders -> users /orders/1",
        "9 requests, 4 go another way",
        "       2  orders -> orders => orders -> users",
        "       1  admin -> users => admin -> 403 address-refused",
        "       1  moved -> 302 redirected: another location",
    ]
    assert done.stderr.splitlines() == [
        "1 lines can't be read",
        "1 lines hold no request",
        "routes look at x-beta, of which the recording tells nothing: they count as absent",
    ]
    same = replay(tmp_path, str(log), "--against", str(tmp_path / "new.toml"))
    assert same.returncode == 2, "two files against are two gateways"


def test_other_recordings(tmp_path: Path) -> None:
    packed = tmp_path / "access.log.gz"
    packed.write_bytes(gzip.compress((line("/orders/1") + "\n").encode()))
    assert replay(tmp_path, str(packed), "--quiet").stdout.startswith("1 requests, 1 go another way\n")
    entry = {
        "request": {
            "method": "GET",
            "url": "https://shop.example/users/7?x=1",
            "headers": [{"name": ":authority", "value": "shop.example"}, {"name": "X-Beta", "value": "1"}],
            "bodySize": -1,
        }
    }
    har = tmp_path / "browser.har"
    har.write_text(json.dumps({"log": {"entries": [entry]}}))
    done = replay(tmp_path, str(har))
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 requests, 0 go another way\n", "")
    har.write_text("[]")
    done = replay(tmp_path, str(har))
    assert (done.returncode, done.stderr.startswith(f"fastgate replay: {har}: no HAR file: ")) == (1, True)
    done = replay(tmp_path, str(tmp_path / "none.log"))
    assert (done.returncode, done.stderr) == (
        1,
        f"fastgate replay: {tmp_path}/none.log: No such file or directory\n",
    )


def test_its_own_log_against_what_runs(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    upstream = start_upstream()
    gateway = start_gateway(config(upstream.address) | ADMIN)
    with gateway.client() as client:
        for target in ("/a", "/b?c=%20d", "/a//b/../c", "/bad path"):
            client.send(request(target=target))
            client.response()
            if " " in target:
                break
    gateway.wait_log(count=4)
    log = gateway.file.parent / "access.log"
    log.write_text("\n".join(gateway.stdout) + "\n")
    done = ask(gateway, "replay", str(log), "-c", str(gateway.file))
    assert done.returncode == 0, done.stdout
    new = gateway.file.parent / "new.toml"
    new.write_text(to_toml(config(upstream.address, route={"match": {"prefix": "/a"}})))
    done = ask(gateway, "replay", str(log), "-c", str(new))
    assert done.returncode == 2
    assert "all -> up /b?c=%20d => 404 no-route" in done.stdout


def test_a_long_line_and_many_lines_need_little_memory(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with log.open("w") as file:
        file.write("x" * 5_000_000 + "\n")
        for i in range(20_000):
            file.write(line(f"/users/{i}") + "\n")
        file.write("x" * 5_000_000)
    done = replay(tmp_path, str(log), wrapper=PEAK)
    told, _, peak = done.stdout.rpartition("peak ")
    assert told == "20000 requests, 0 go another way\n"
    assert "2 lines can't be read" in done.stderr
    assert int(peak) < 400_000  # KiB


@pytest.mark.parametrize("target", ["/orders/1", "/users", "/admin/x?y", "/old/a?b", "/none", "/orders%2f1"])
def test_it_decides_as_explain_does(target: str) -> None:
    config = loads(OLD).config
    decided = Decider(config).decide("main", Asked("GET", target, "a.example"))
    told = explain(config, "GET", target, [("Host", "a.example")])
    assert decided.route == told.route
    if decided.status is None:
        assert (decided.upstream, decided.forwarded) == (told.upstream, told.forwarded)
    elif told.redirect is not None:
        assert (decided.status, decided.location) == (told.redirect_status, told.redirect)
    else:
        assert decided.reason == (told.refused or "no-route")
