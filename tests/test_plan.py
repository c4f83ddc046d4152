"""`fastgate plan`: what a configuration would change, told by its exit code and by meaning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from conftest import StartGateway
from support.admin import ADMIN, Admin
from support.gateway import Gateway, config, to_toml
from test_history import ask


def tables(**more: Any) -> dict[str, Any]:
    return {**config("127.0.0.1:9001"), **ADMIN, **more}


def plan(gateway: Gateway, candidate: Any, *options: str) -> tuple[int, str, str]:
    file = gateway.file.parent / "new.toml"
    file.write_text(candidate if isinstance(candidate, str) else to_toml(candidate))
    done = ask(gateway, "plan", "-c", str(file), *options)
    return done.returncode, done.stdout, done.stderr


def test_nothing_something_and_mistakes(start_gateway: StartGateway) -> None:
    gateway = start_gateway(tables())
    same = gateway.file.read_text()
    assert plan(gateway, "# a comment\n" + same)[:2] == (0, "nothing would change against version 1\n")
    limit = {"use": "rate-limit", "rate": "5/s"}
    new = tables(plugins={"limit": limit}, server={"drain_timeout": "5s", "workers": 3})
    new["upstreams"]["up"]["timeouts"] = {"connect": "9s"}
    new["listeners"] = [{**new["listeners"][0], "backlog": 7}, {"name": "more", "bind": "127.0.0.1:0"}]
    new["routes"][0]["plugins"] = ["limit"]
    code, out, err = plan(gateway, new)
    assert (code, err) == (2, "")
    assert out.splitlines() == [
        "~ listener main",
        "    backlog: (none) -> 7",
        "+ listener more",
        '    bind: "127.0.0.1:0"',
        '    name: "more"',
        "~ upstream up",
        '    timeouts.connect: (none) -> "9s"',
        "~ route all",
        '    plugins: (none) -> ["limit"]',
        "+ plugin limit",
        '    rate: "5/s"',
        '    use: "rate-limit"',
        "~ server",
        '    workers: (none) -> "3"',
        "",
        "listener main: its socket and its connections live on",
        "listener more: opened",
        "upstream up: connections begun anew; endpoints that stay keep their state, weight and ejection",
        "plugin limit: begun",
        "server.workers: in force with a restart or `fastgate upgrade`",
        "against version 1: 4 things changed, 2 things added",
    ]
    assert json.loads(plan(gateway, new, "--json")[1])["version"] == 1
    code, out, err = plan(gateway, "[sever]\n")
    assert (code, out) == (1, "")
    assert "new.toml:1:2: unknown key" in err


def test_it_says_what_the_words_of_the_table_mean(start_gateway: StartGateway) -> None:
    """An endpoint that stays keeps an operator's word over a change of its upstream."""
    gateway = start_gateway(tables())
    admin = Admin(gateway)
    admin.ask(
        "PUT", "upstreams", "up", "endpoints", "127.0.0.1:9001", body={"state": "draining", "weight": 7}
    )
    new = tables()
    new["upstreams"]["up"]["timeouts"] = {"connect": "9s"}
    gateway.reload(new)
    endpoint = admin.endpoint("127.0.0.1:9001")
    assert (endpoint["state"], endpoint["weight"]) == ("draining", 7)


def test_after_a_rollback_and_with_variables_that_are_not_set(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = start_gateway(tables())
    new = tables()
    new["routes"][0]["request_headers"] = {"set": {"X-Key": "1"}}
    gateway.reload(new)
    Admin(gateway).ask("POST", "rollback", body={})
    code, out, _ = plan(gateway, new)
    assert code == 2
    assert out.startswith("version 3 is in force, which is not what its files said when last read\n")
    new["routes"][0]["request_headers"] = {"set": {"X-Key": {"env": "FASTGATE_TEST_NOT_SET"}}}
    code, out, err = plan(gateway, new)
    assert (code, err) == (2, "")
    assert 'request_headers.set.X-Key.env: (none) -> "FASTGATE_TEST_NOT_SET"' in out
