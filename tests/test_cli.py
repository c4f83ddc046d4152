"""The `fastgate` command: dispatch, exit codes, what is printed where."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import StartGateway, StartUpstream
from support.gateway import Gateway, config, to_toml
from support.upstream import free_port

import fastgate
from fastgate.cli import COMMANDS, main

ROOT = Path(__file__).parent.parent
VALID = ROOT / "tests" / "golden" / "config" / "valid"


def run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "fastgate", *arguments]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_help_names_every_command() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert done.stderr == ""
    assert all(f"  {name} " in done.stdout for name in COMMANDS)


def test_help_imports_nothing_heavy() -> None:
    """What --help imports is what it costs: the standard library's argparse, and nothing of the gateway."""
    code = (
        "import sys; from fastgate.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'msgspec', 'uvloop', 'httptools', 'orjson', 're2', 'asyncio', 'tomllib', 'fastgate.config',"
        " 'fastgate._core', 'json', 'importlib.metadata'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == "[]\n"


@pytest.mark.parametrize(
    "arguments", [[], ["chek"], ["--nope"], ["check", "--nope"], ["check", "x", "y"], ["-c", "x"]]
)
def test_wrong_usage_is_2_and_told_on_stderr(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "usage: fastgate" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_misspelt_command_is_suggested() -> None:
    assert 'did you mean "check"?' in run("chek").stderr


@pytest.mark.parametrize("arguments", [["version"], ["--version"]])
def test_version(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == f"fastgate {fastgate.__version__}"
    assert lines[1] == f"CPython {platform.python_version()}"
    assert [line.split()[0] for line in lines[3:]] == ["uvloop", "httptools"]


def test_check_of_a_good_file() -> None:
    done = run("check", "-c", "contract.toml", cwd=VALID)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "contract.toml: ok (1 listener, 2 routes, 3 upstreams, 2 plugins)\n"


def test_check_of_a_bad_file() -> None:
    done = run("check", "-c", "bind_twice.toml", cwd=VALID.parent)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (VALID.parent / "bind_twice.expected").read_text()


def test_check_looks_for_gateway_toml(tmp_path: Path) -> None:
    done = run("check", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("gateway.toml: cannot be read: No such file or directory\n")


@pytest.mark.parametrize("name", [".", "not-there.toml", "new\nline.toml", "esc\x1b[31m.toml", "\udcff.toml"])
def test_files_that_cannot_be_read_are_told_in_one_line_each(name: str, tmp_path: Path) -> None:
    done = run("check", "-c", name, cwd=tmp_path)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 2
    assert all(line.isprintable() for line in done.stderr.splitlines())
    assert "cannot be read" in done.stderr


def test_warnings_are_told_and_pass(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(VALID.parent)
    assert main(["check", "-c", "warn_unused.toml"]) == 0
    out, err = capsys.readouterr()
    assert out == "warn_unused.toml: ok (1 listener, 1 route, 2 upstreams, 1 plugin); 2 warnings\n"
    assert err.count("warning: ") == 2
    assert main(["check", "-c", "warn_unused.toml", "--strict"]) == 1
    assert capsys.readouterr().err.endswith("warn_unused.toml: 2 errors\n")


def test_schema_is_json() -> None:
    done = run("schema")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "fastgate", "schema"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate(timeout=60)
    assert err == b""
    assert process.returncode == 1


def test_the_console_script_is_the_same_function() -> None:
    assert 'fastgate = "fastgate.cli:main"' in (ROOT / "pyproject.toml").read_text()


# -- commands that ask a running gateway


@pytest.fixture
def served(start_gateway: StartGateway, start_upstream: StartUpstream, tmp_path: Path) -> Gateway:
    """A gateway with an admin API, and one endpoint."""
    upstream = start_upstream()
    return start_gateway(config(upstream.address) | {"admin": {"bind": f"unix:{tmp_path / 'admin.sock'}"}})


def ask(gateway: Gateway, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(command, "-c", str(gateway.file), *arguments)


def test_upstreams(served: Gateway) -> None:
    with served.client() as client:
        client.get()
        done = ask(served, "upstreams")
        assert (done.returncode, done.stderr) == (0, "")
        heading, row = done.stdout.splitlines()
        assert heading.split() == [
            "UPSTREAM",
            "ENDPOINT",
            "STATUS",
            "STATE",
            "WEIGHT",
            "OPEN",
            "IDLE",
            "WAITING",
        ]
        assert row.split() == [
            "up",
            served.tables["upstreams"]["up"]["endpoints"][0],
            "ready",
            "auto",
            "1",
            "1",
            "1",
            "0",
        ]
        assert heading.index("STATUS") == row.index("ready")
        found: Any = json.loads(ask(served, "upstreams", "--json").stdout)
        assert found["upstreams"][0]["name"] == "up"


def test_reload(served: Gateway) -> None:
    assert ask(served, "reload").stdout == "nothing changed\n"
    more = {"name": "more", "bind": "127.0.0.1:0"}
    tables = config(listeners=[*served.tables["listeners"], more], route={"respond": {"body": "new"}})
    served.write(
        to_toml(
            tables | {"admin": served.tables["admin"], "upstreams": {"spare": {"endpoints": ["127.0.0.1:1"]}}}
        )
    )
    done = ask(served, "reload")
    assert done.returncode == 0
    assert "is used by no route" in done.stderr
    lines = done.stdout.splitlines()
    assert lines[:4] == [
        "listener more: added",
        "upstream spare: added",
        "upstream up: removed",
        "route all: changed",
    ]
    assert lines[4].startswith("listening on 127.0.0.1:")
    with served.client() as client:
        assert client.get().body == b"new"


def test_reload_of_a_bad_file(served: Gateway) -> None:
    """The gateway says what `fastgate check` says."""
    served.write(to_toml(served.tables) + "[nonsense]\n")
    done = ask(served, "reload")
    assert (done.returncode, done.stdout) == (1, "")
    checked = ask(served, "check").stderr.splitlines()
    assert checked
    assert done.stderr.splitlines() == [f"fastgate reload: {line}" for line in checked]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("endpoint", "up", "127.0.0.1:1", "down"), 'upstream "up" has no endpoint "127.0.0.1:1"'),
        (
            ("endpoint", "no/such", "127.0.0.1:1", "auto", "--weight", "auto"),
            'no upstream is named "no/such"',
        ),
        (("split", "nö", "a=1"), 'no route is named "nö"'),
        (("split", "all", "--clear", "a"), 'route "all" has no split'),
    ],
)
def test_what_the_gateway_refuses(served: Gateway, arguments: tuple[str, ...], message: str) -> None:
    done = ask(served, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"fastgate {arguments[0]}: {message}\n"


@pytest.mark.parametrize(
    ("file", "arguments", "message"),
    [
        ("", [], "gateway.toml has no `admin.bind`, so its gateway has no admin API"),
        ("[admin]\nbind = 7\n", [], "gateway.toml: admin.bind: expected "),
        (
            '[admin]\nbind = "0.0.0.0:9901"\n',
            [],
            "gateway.toml: admin.bind: another machine is called over TLS",
        ),
        ('[admin]\nbind = "127.0.0.1:0"\n', [], "gateway.toml: admin.bind: the system chose the port; "),
        ("[admin\n", [], "gateway.toml:1:7: TOML: "),
        (None, [], "gateway.toml: cannot be read: "),
        (None, ["--admin", "unix:/no/such.sock"], "no gateway listens on unix:/no/such.sock; is it running"),
        (None, ["--admin", f"127.0.0.1:{free_port()}"], "no gateway listens on 127.0.0.1:"),
        (None, ["--admin", "localhost"], "--admin: expected "),
        (
            None,
            ["--admin", "192.0.2.1:9901"],
            "--admin: another machine is called over TLS alone: --admin https",
        ),
        (None, ["--admin", "https://gateway.example"], '--admin: expected "https://host:port"'),
        (None, ["--admin", f"https://localhost:{free_port()}"], "no gateway listens on https://localhost:"),
        (None, ["--admin", "https://localhost:1", "--admin-ca", "no.pem"], "no.pem: No such file"),
        (None, ["--admin", "127.0.0.1:1", "--admin-token-file", "no.txt"], "no.txt: No such file"),
    ],
)
def test_where_nobody_answers(tmp_path: Path, file: str | None, arguments: list[str], message: str) -> None:
    if file is not None:
        (tmp_path / "gateway.toml").write_text(file)
    for command in ("upstreams", "reload"):
        done = run(command, *arguments, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"fastgate {command}: {message}")
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["endpoint", "up"],
        ["endpoint", "up", "a:1", "gone"],
        ["endpoint", "up", "a:1", "auto", "--weight", "0"],
        ["endpoint", "up", "a:1", "auto", "--weight", "1001"],
        ["split"],
        ["split", "r", "a"],
        ["split", "r", "a=-1"],
        ["split", "r", "a=10001"],
        ["split", "r", "=1"],
    ],
)
def test_wrong_words_for_the_gateway(arguments: list[str]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"usage: fastgate {arguments[0]}" in done.stderr


def test_a_split_is_shown_as_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And changed: each thing said is one request."""
    asked: list[tuple[object, ...]] = []
    arms = [
        {"name": "stable", "upstream": "v1", "weight": 100, "configured": 95, "rolled_back": None},
        {"name": "canary", "upstream": "v2", "weight": 0, "configured": 5, "rolled_back": "9 % of 400"},
    ]

    def call(args: object, method: str, *path: str, body: object = None) -> dict[str, Any]:
        asked.append((method, *path, body))
        return {"route": "shop", "arms": arms}

    monkeypatch.setattr("fastgate.cli.split.call", call)
    assert main(["split", "shop"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["canary", "v2", "0", "5", "9", "%", "of", "400"]
    assert main(["split", "shop", "stable=100", "a=b=0", "--clear", "canary"]) == 0
    assert asked == [
        ("GET", "routes", "shop", "split", None),
        ("PUT", "routes", "shop", "split", {"clear": "canary"}),
        ("PUT", "routes", "shop", "split", {"weights": {"stable": 100, "a=b": 0}}),
    ]
