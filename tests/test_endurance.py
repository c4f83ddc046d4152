"""A short form of `python -m bench.endurance`: all that an operator does, under load, and nothing fails;
and it would be told if something did."""

from __future__ import annotations

import os
import socket
import subprocess
from collections import Counter

import pytest

from bench.endurance.__main__ import main
from bench.endurance.clients import Fared
from bench.endurance.rows import Row
from bench.endurance.whose import AT_ONCE, Doomed, clients_of
from bench.load import Paced


def test_reloads_swaps_rollbacks_kills_and_upgrades(capfd: pytest.CaptureFixture[str]) -> None:
    """Counts are in the output. Nothing fails but what is under way on a worker that is killed."""
    changes = {"reloads": 20, "swaps": 4, "rollbacks": 4, "kills": 2, "upgrades": 2}
    given = changes | {"rate": 400, "long": 4}
    code = main([word for name, number in given.items() for word in (f"--{name}", str(number))])
    told = capfd.readouterr().out
    assert code == 0, told
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in told.splitlines()[2:7]]
    assert [(row[0], row[1]) for row in rows] == [(what, str(count)) for what, count in changes.items()]


def test_whose_connection_it_is() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            assert clients_of(os.getpid(), {port}) == set(), "nobody has accepted it"
            accepted, _ = server.accept()
            with accepted:
                assert clients_of(os.getpid(), {port}) == {client.getsockname()[1]}
                assert clients_of(os.getpid(), {1}) == set()
                with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as another:
                    assert clients_of(another.pid, {port}) == set()


def test_a_kill_explains_what_ends_with_it_alone() -> None:
    doomed = Doomed()
    killed = doomed.add([40_000])
    assert doomed.has(40_000)
    assert not doomed.has(40_001)
    assert not doomed.has(40_000, killed - 1), "it ended before"
    assert not doomed.has(40_000, killed + AT_ONCE), "that is another connection by now"
    doomed.add([40_000])
    assert doomed.has(40_000, killed), "that the port was used again changes nothing"
    row = counted(doomed, errors=3, losses=((40_000, killed), (40_001, killed)))
    assert (row.cut, row.unanswered) == (1, 2)
    assert row.broken() == ["swaps: 2 requests had no answer"]


@pytest.mark.parametrize(
    ("what", "changes", "told"),
    [
        ("swaps", {}, []),
        ("swaps", {"statuses": Counter({200: 9, 502: 1})}, ["swaps: answers {502: 1}"]),
        (
            "swaps",
            {"fared": Fared(words=1, tls_answers=1, tls_failed=Counter(["reset"]))},
            ["swaps: requests over TLS failed: {'reset': 1}"],
        ),
        (
            "upgrades",
            {"fared": Fared(words=1, tls_answers=1, lost=Counter(["WebSocket: reset"]))},
            ["upgrades: long connections lost: {'WebSocket: reset': 1}"],
        ),
        ("kills", {}, ["kills: no long connection was on a worker that was killed"]),
        ("kills", {"fared": Fared(words=1, tls_answers=1, cut=Counter(["WebSocket"]))}, []),
        ("reloads", {"memory": [70_000_000, 80_000_000, 80_000_000]}, []),
        (
            "reloads",
            {"memory": [70_000_000, 80_000_000, 85_000_000]},
            ["reloads: memory has grown by 5.0 MB in the second half"],
        ),
    ],
)
def test_a_promise_that_is_broken_is_told(what: str, changes: dict[str, object], told: list[str]) -> None:
    row = counted(Doomed())
    row.what = what
    for name, value in changes.items():
        setattr(row, name, value)
    assert row.broken() == told


def counted(doomed: Doomed, errors: int = 0, losses: tuple[tuple[int, int], ...] = ()) -> Row:
    marks = {"max": 5.0}
    row = Row("swaps", fared=Fared(words=1, tls_answers=1))
    row.add(Paced(10, 9, 9, 0, errors, 0, 1.0, marks, marks, {200: 9}, losses), doomed)
    return row
