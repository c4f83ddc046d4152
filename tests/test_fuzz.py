"""The fuzzer's short, repeatable run, and what it might have found; `python -m tests.fuzz` is longer."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from random import Random

import pytest
from fuzz.crowd import run_crowd
from fuzz.grammar import load
from fuzz.reader import read_requests
from fuzz.run import SEEDS, one
from fuzz.scenario import Rig, read_responses, run_client, run_upstream
from support.gateway import ROOT


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    vars(rig).clear()  # pytest holds the rig itself for longer


@pytest.mark.parametrize("first", range(0, 8000, 1000))
def test_inputs(rig: Rig, first: int) -> None:
    for seed in range(first, first + 1000):
        one(rig, seed)


def test_the_long_run_can_be_started() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--inputs", "20"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "20 inputs" in done.stdout
    assert "0 findings" in done.stdout


@pytest.mark.parametrize("seed", SEEDS["requests"])
def test_seeds_are_requests(rig: Rig, seed: bytes) -> None:
    """A corpus of refusals would find little."""
    assert read_requests(seed)[1] == "end"
    assert {run_client(rig, Random(number), seed) for number in range(20)} & {"forwarded", "refused"}


@pytest.mark.parametrize("seed", SEEDS["responses"])
def test_seeds_are_responses(rig: Rig, seed: bytes) -> None:
    words = {run_upstream(rig, Random(number), seed) for number in range(40)}
    assert words & {"passed", "tunnel"}


def test_corpus_is_there() -> None:
    assert all(load(kind) for kind in ("requests", "responses", "chunked", "proxy"))


def test_crowd_without_faults(rig: Rig) -> None:
    for number in range(200):
        run_crowd(rig, Random(number))


def test_pipelined_request_behind_an_unread_answer_is_kept(rig: Rig) -> None:
    """It waited, an answer filled the client's buffer, and then more came: that must not take its place."""
    client = rig.client(0, 100)
    heads = [b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in (1, 2, 3)]
    try:
        client.give(heads[0])
        rig.loop.run()
        service = rig.upstreams[0]
        client.give(heads[1])
        service.at = len(service.transport.sent)
        service.transport.give(b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n" + b"x" * 200)
        assert client.congested
        client.give(heads[2])
        for _ in range(4):
            client.drain(1000)
            service.look(Random(0))
            while service.to_send:
                service.transport.give(service.to_send.pop(0))
        answers = read_responses(client, [b"GET"] * 3)
        assert [answer.body.split(b" ")[-1] for answer in answers] == [b"x" * 200, b"/2", b"/3"]
    finally:
        rig.leave(client)
