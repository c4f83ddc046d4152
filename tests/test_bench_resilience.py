"""The resilience harness against itself: a client that misses a failure, or an endpoint that counts a
delivery wrongly, proves nothing."""

from __future__ import annotations

import json
import math
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.load import LoadFailed
from bench.peers.base import NATIVE, find
from bench.provision import compile_native
from bench.resilience.__main__ import line_of, main
from bench.resilience.fleet import Fleet
from bench.resilience.operate import await_true
from bench.resilience.report import Report, to_json, to_markdown, to_terminal
from bench.resilience.scenarios import SCENARIOS, deliveries
from bench.resilience.stage import Row
from bench.resilience.tally import Answers, Fate, Record, Tally, first_lasting, percentile, read

native = pytest.mark.skipif(
    find("taskset") is None
    or len(os.sched_getaffinity(0)) < 2
    or (find("cc") is None and not (NATIVE / "tally").exists()),
    reason="needs taskset, two cores and cc (python -m bench --setup)",
)
MS = 1_000_000


@pytest.fixture(scope="module", autouse=True)
def _native() -> None:
    if find("cc"):
        compile_native()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(tmp_path, 1, delay_us=500) as fleet:
        yield fleet


@contextmanager
def server(data: bytes) -> Iterator[int]:
    """A port where every connection's first request is answered with these bytes and a FIN."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                with sock:
                    sock.recv(4096)
                    sock.sendall(data)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


# --- every request has one record


@native
def test_whole_answers_are_counted_and_posts_delivered_once(fleet: Fleet, tmp_path: Path) -> None:
    with Tally(tmp_path, fleet.ports[0], rate=2000, seconds=0.5, post_every=2) as tally:
        answers = tally.finish(early=False)
    assert (answers.sent, answers.failures) == (1000, [])
    assert fleet.stats(0)["requests"] == 1000
    assert fleet.deliveries() == dict.fromkeys(range(0, 1000, 2), 1)
    assert {record.endpoint for record in answers.records} == {0}
    assert all(record.latency >= 500_000 for record in answers.records), "the service takes 500 us"


@native
def test_statuses_are_failures_of_their_own_kind(fleet: Fleet, tmp_path: Path) -> None:
    fleet.errors(0, 50)
    with Tally(tmp_path, fleet.ports[0], rate=2000, seconds=0.5) as tally:
        answers = tally.finish(early=False)
    assert answers.failed() == {"500": fleet.stats(0)["errors"]}
    assert 300 < answers.failed()["500"] < 700


@native
def test_a_killed_endpoint_costs_what_was_there_and_all_that_follows(fleet: Fleet, tmp_path: Path) -> None:
    with Tally(tmp_path, fleet.ports[0], rate=2000, seconds=60) as tally:
        await_true("load", lambda: fleet.stats(0)["requests"] >= 100)
        fleet.kill(0)
        time.sleep(0.1)  # the outage
        fleet.start(0)
        await_true("load", lambda: fleet.stats(0)["requests"] >= 100)
        answers = tally.finish()
    failed = answers.failed()
    assert failed.keys() <= {"unanswered", "connect"}
    assert failed["connect"]
    assert answers.records[-1].fate == Fate.OK
    assert Fate.UNDECIDED not in {record.fate for record in answers.records}


@native
def test_a_stopped_endpoint_costs_the_deadline(fleet: Fleet, tmp_path: Path) -> None:
    fleet.pause(0)
    with Tally(tmp_path, fleet.ports[0], rate=500, seconds=0.2, connections=10, deadline=0.1) as tally:
        answers = tally.finish(early=False)
    failed = answers.failed()
    assert failed.keys() <= {"timeout", "unsent"}
    assert failed.total() == answers.sent == 100
    assert min(r.latency for r in answers.records) >= 100 * MS


@native
@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"0" * 16 + b" 000 " + b"x" * 79, "ok"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"1" * 16 + b" 000 " + b"x" * 79, "wrong"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n" + b"0" * 16 + b" 000 " + b"x" * 78, "wrong"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"0" * 16 + b" 000 " + b"x" * 80, "wrong"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "wrong"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"0" * 16, "truncated"),
        (b"", "unanswered"),
        (b'HTTP/1.1 503 X\r\nContent-Length: 22\r\n\r\n{"code":"no-endpoint"}', "503 no-endpoint"),
        (b"HTTP/1.1 503 X\r\nContent-Length: 2\r\n\r\nno", "503"),
    ],
)
def test_what_came_of_an_answer(data: bytes, kind: str, tmp_path: Path) -> None:
    with server(data) as port, Tally(tmp_path, port, rate=1, seconds=1, connections=1) as tally:
        answers = tally.finish(early=False)
    assert [answers.kind(record) for record in answers.records] == [kind]


@native
def test_work_beyond_the_slots_waits_and_is_done_though_its_client_has_gone(tmp_path: Path) -> None:
    with Fleet(tmp_path, 1, delay_us=50_000, slots=1) as fleet:
        with Tally(tmp_path, fleet.ports[0], rate=100, seconds=0.1, deadline=0.12) as tally:
            answers = tally.finish(early=False)
        assert answers.failed()["timeout"] > 5
        assert fleet.stats(0)["active"] > 0
        await_true("its work is done", lambda: not fleet.stats(0)["active"])
        assert fleet.stats(0)["requests"] == 10


# --- what the records say


def record(due: int, latency: int, fate: Fate = Fate.OK, *, endpoint: int = 0, post: int = 0) -> Record:
    """Times in ms."""
    return Record(due * MS, (due + latency) * MS, 200, fate, 0, endpoint, post)


def test_percentiles_are_of_what_was_measured() -> None:
    assert [percentile([3, 1, 2, 4], share) for share in (0.25, 0.5, 0.99, 1.0)] == [1, 2, 4, 4]
    assert math.isnan(percentile([], 0.5))


def test_windows_hold_what_was_due_in_them() -> None:
    answers = Answers([record(at * 10, at) for at in range(10)], [""])
    windows = answers.windows(0, 100 * MS, 0.05)
    assert [(window.count, window.p99) for window in windows] == [(5, 4.0), (5, 9.0)]
    assert first_lasting(windows, lambda window: window.p99 > 5, 1) is windows[1]
    assert first_lasting(windows, lambda window: window.p99 > 5, 2) is None


def test_records_that_are_not_all_there_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "records").write_bytes(b"")
    for text in ('{"requests": 1, "reasons": [""]}', "Killed"):
        (tmp_path / "log").write_text(text)
        with pytest.raises(LoadFailed):
            read(tmp_path / "log", tmp_path / "records")


def test_deliveries_are_held_against_answers() -> None:
    """Ids 0 and 1 were answered, 2 was not."""
    answers = Answers(
        [record(0, 1, post=1), record(1, 1, post=1), record(2, 1, Fate.UNANSWERED, post=1)], [""]
    )
    cases = (({0: 1, 1: 1, 2: 1}, 0, 0), ({0: 2, 2: 1}, 1, 1), ({0: 1, 1: 1, 2: 2}, 1, 0))
    for delivered, double, lost in cases:
        row = Row("rolling", "fastgate")
        deliveries(row, answers, Counter(delivered))
        assert (row.values["double"], row.values["lost"]) == (double, lost)
        assert [goal.reached for goal in row.goals] == [False, not double and not lost]


# --- reports


def rows() -> list[Row]:
    good, bad = Row("kill", "nginx", {"failed": "0"}), Row("kill", "fastgate", {"failed": "2"})
    for row, reached in ((good, False), (bad, False)):
        row.goal("0 failures", "2 of 9", reached)
    return [good, bad, Row("hang", "envoy", problems=["did not start"])]


def test_reports_show_rows_goals_of_fastgate_and_what_could_not_be_measured() -> None:
    report = Report(rows(), {"cpu": "a cheap one"}, "python -m bench.resilience")
    for text in (to_terminal(report), to_markdown(report)):
        assert text.count("MISSED") == 1, "goals are fastgate's alone"
        assert "hang, envoy: did not start" in text
        assert all(scenario.title in text for scenario in SCENARIOS[:2])
    assert "    python -m bench.resilience\n" in to_markdown(report)
    assert [row["scenario"] for row in json.loads(to_json(report))["rows"]] == ["kill", "kill", "hang"]
    assert ["MISSED" in line_of(row) for row in report.rows] == [False, True, False]


def test_unknown_names_are_usage_errors(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--peers", "relay"])
    assert ended.value.code == 2
    assert "haproxy" in capsys.readouterr().err
