"""`fastgate demo`: every line that it prints to try does what it says, and Ctrl-C leaves nothing."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.client import Client, request
from support.demo import Demo
from support.gateway import ROOT
from support.upstream import free_port

from fastgate.config import load


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with Demo("--port", str(free_port())) as demo:
        yield demo


def shell(command: str) -> str:
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30, cwd=ROOT)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


# A part of the command, what its output holds, what the log says of it.
EXPECTED = {
    "/orders/1   ": (["HTTP/1.1 200 OK", '"item": "tea"'], '"GET /orders/1" 200'),
    "milk": (["HTTP/1.1 201 Created", "Location: /orders/", '"item": "milk"'], '"POST /orders" 201'),
    "DELETE": (["HTTP/1.1 404", "application/problem+json", '"code":"no-route"'], "404 reason=no-route"),
    "/users/7   ": (
        ['"target": "/v2/profiles/7"', '"x-demo": "set by the gateway"', "x-served-by: fastgate demo"],
        '"GET /users/7" 200',
    ),
    "mirror.example.com": (['"host": "mirror.example.com"'], "route=by-host"),
    "/old/": (["308 Permanent Redirect", "HTTP/1.1 200 OK", '"item": "biscuits"'], "308 reason=redirected"),
    "/healthz": (["\nok"], "reason=fixed-response"),
    "/events": (["data: tick 0", "data: tick 4"], '"GET /events" 200'),
    "/broken": (["HTTP/1.1 502", 'details="connect-refused"'], "reason=connect-refused"),
    "explain": (["route      profile", "forwards   GET /v2/profiles/7"], ""),
    "/limited": (["200\n" * 5 + "429\n" * 2], "429 reason=rate-limited"),
}


@pytest.mark.parametrize("part", EXPECTED)
def test_what_it_prints_to_try(demo: Demo, part: str) -> None:
    texts, logged = EXPECTED[part]
    command = next(line for line in demo.commands() if part in line)
    output = shell(command)
    for text in texts:
        assert text in output, f"{command}: {output}"
    if logged:
        demo.wait_line(logged)


def test_all_that_it_prints_is_tried(demo: Demo) -> None:
    untried = [line for line in demo.commands() if not any(part in line for part in EXPECTED)]
    assert len(demo.commands()) == len(EXPECTED)
    assert not untried


def test_the_configuration_that_it_names(demo: Demo) -> None:
    found = re.search(r"The configuration: (.+)", "\n".join(demo.guide))
    assert found
    loaded = load(found[1], strict=True)
    assert loaded.config.listeners[0].port == demo.port


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request("POST", "/orders", body=b"{"), 400),
        (request("POST", "/orders", body=b"[]"), 400),
        (request("POST", "/orders", chunks=[b'{"item":', b' "jam"}']), 201),
        (request("HEAD", "/orders"), 404),
        (request("GET", "/orders/99"), 404),
        (request("GET", "/orders/1?x=1"), 200),
        (request("HEAD", "/users/1"), 200),
    ],
)
def test_the_services_are_sound(demo: Demo, data: bytes, status: int) -> None:
    """Strict reading of what they answer; two requests, so that the connection is kept in order."""
    method = data.split(b" ", 1)[0].decode()
    with Client(("127.0.0.1", demo.port)) as client:
        for _ in range(2):
            assert client.send(data).response(method).status == status


def test_head_has_no_body(demo: Demo) -> None:
    """Asked directly: the gateway would hide it."""
    ports = re.findall(r"127\.0\.0\.1:(\d+)[,)]", "\n".join(demo.guide))
    assert len(ports) == 2
    for port in ports:
        with Client(("127.0.0.1", int(port))) as client:
            for _ in range(2):
                assert client.send(request("HEAD", "/orders")).response("HEAD").status == 200


def test_ctrl_c_leaves_nothing() -> None:
    with Demo("--port", str(free_port())) as demo:
        file = Path(next(line for line in demo.guide if "The configuration" in line).split(": ", 1)[1])
        assert file.exists()
        # A stream is under way, and a client keeps its connection.
        with Client(("127.0.0.1", demo.port)) as client:
            assert client.get("/orders/1").status == 200
            assert demo.stop() == 0
        assert not file.parent.exists()
    report = json.loads(demo.stderr[-1].removeprefix("fastgate: stopped "))
    assert set(report.values()) == {0}


def test_the_next_free_port() -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 8080))
            taken.listen()
        except OSError:
            pytest.skip("port 8080 can't be had here")
        with Demo() as demo:
            assert 8080 < demo.port < 8180


def test_a_port_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "fastgate", "demo", "--port", str(port)],
            capture_output=True,
            text=True,
            timeout=30,
            cwd=ROOT,
        )
    assert done.returncode == 1
    assert done.stderr == f"fastgate: listener 127.0.0.1:{port}: Address already in use\n"


@pytest.mark.parametrize("port", ["0", "65536", "-1", "x", "８０８０"])
def test_a_port_that_is_none(port: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fastgate", "demo", f"--port={port}"],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=ROOT,
    )
    assert done.returncode == 2
    assert "a port is a number from 1 to 65535" in done.stderr
