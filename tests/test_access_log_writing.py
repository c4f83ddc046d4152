"""The access log's way to a file or pipe: in order, in batches, without ever making the loop wait."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from fastgate._core import AccessLog, SampleExchange, loop_log

LINES = [SampleExchange(bytes_out=i) for i in range(1000)]
FULL = Path("/dev/full")
#: A writer that is given up keeps its file for as long as the process lives (fastgate/proxy/log_writer.pyx).
DESCRIPTORS_LEFT = 1


def access_log(
    path: object, *, buffer: int = 4096, format: str = "$bytes_out", previous: AccessLog | None = None
) -> AccessLog:
    return AccessLog(
        SimpleNamespace(
            enabled=True,
            path=str(path),
            format=format,
            redact_headers=(),
            redact_query=(),
            headers=(),
            buffer=buffer,
        ),
        previous,
    )


def numbers(*paths: Path) -> list[int]:
    raw = b"".join(path.read_bytes() for path in paths)
    assert raw == b"" or raw.endswith(b"\n")
    return [int(line) for line in raw.split()]


def wait_until(done: Callable[[], bool]) -> None:
    # The writer tells nobody when it is through with a batch: that is the point of it.
    deadline = time.monotonic() + 10
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def wait_until_written(log: AccessLog) -> None:
    wait_until(lambda: not log.waiting)


def test_a_log_that_takes_the_place_of_another_on_the_same_path(tmp_path: Path) -> None:
    """A reader that is slow gets the lines of both in order, whole: one thread writes them."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    first = access_log(path)
    for each in LINES * 30:  # more than the pipe holds
        first.log(each)
    first.flush()
    second = access_log(path, format="$bytes_out 2", previous=first)
    second.log(LINES[0])
    second.flush()
    other = access_log(tmp_path / "other", previous=second)
    assert second.writer is first.writer
    assert other.writer is not first.writer
    got = b""
    while not got.endswith(b"0 2\n"):
        with contextlib.suppress(BlockingIOError):
            got += os.read(reader, 65536)
    os.close(reader)
    assert [int(line) for line in got.split(b"\n")[:-2]] == list(range(1000)) * 30
    assert first.dropped == second.dropped == 0
    assert second.close(10)
    assert other.close(10)


def test_lines_reach_the_file_in_order(tmp_path: Path) -> None:
    log = access_log(tmp_path / "log")
    for _ in range(20):
        for line in LINES:
            log.log(line)
        log.flush()
        wait_until_written(log)
    assert log.close(10)
    assert numbers(tmp_path / "log") == list(range(1000)) * 20
    assert (log.written, log.dropped, log.errors) == (20_000, 0, 0)
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) & 0o137 == 0


def test_a_batch_is_written_when_the_buffer_is_full_or_flushed(tmp_path: Path) -> None:
    log = access_log(tmp_path / "log", buffer=1000)
    for line in LINES[:100]:
        log.log(line)
    wait_until_written(log)
    assert numbers(tmp_path / "log") == []  # 290 bytes
    for line in LINES[100:400]:
        log.log(line)
    wait_until_written(log)
    assert len(numbers(tmp_path / "log")) == 278  # the first whole line at or over 1000 bytes
    log.flush()
    wait_until_written(log)
    assert numbers(tmp_path / "log") == list(range(400))
    assert log.close(10)


def test_an_existing_file_is_appended_to(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("7\n")
    log = access_log(tmp_path / "log")
    log.log(LINES[8])
    assert log.close(10)
    assert numbers(tmp_path / "log") == [7, 8]


def test_rotation_loses_no_line_and_mixes_none(tmp_path: Path) -> None:
    log = access_log(tmp_path / "log", buffer=100)
    for turn in range(10):
        for line in LINES[turn * 100 : turn * 100 + 100]:
            log.log(line)
        (tmp_path / "log").rename(tmp_path / f"log.{turn}")
        log.reopen()
        wait_until(lambda: (tmp_path / "log").exists())
    assert log.close(10)
    for turn in range(10):
        assert numbers(tmp_path / f"log.{turn}") == list(range(turn * 100, turn * 100 + 100))
    assert numbers(tmp_path / "log") == []
    assert log.dropped == 0


def test_rotation_while_another_thread_renames(tmp_path: Path) -> None:
    log = access_log(tmp_path / "log", buffer=64)
    renamed: list[Path] = []
    stop = threading.Event()

    def rotate() -> None:
        while not stop.is_set():
            target = tmp_path / f"log.{len(renamed)}"
            (tmp_path / "log").rename(target)
            renamed.append(target)
            log.reopen()
            while not (tmp_path / "log").exists() and not stop.wait(0.001):
                pass

    thread = threading.Thread(target=rotate)
    thread.start()
    for _ in range(10):
        for line in LINES:
            log.log(line)
            if log.waiting > 1000:
                wait_until_written(log)
    stop.set()
    thread.join()
    assert log.close(10)
    assert log.dropped == 0
    rest = [tmp_path / "log"] if (tmp_path / "log").exists() else []
    assert numbers(*renamed, *rest) == list(range(1000)) * 10


def test_many_reopenings_do_no_harm(tmp_path: Path) -> None:
    log = access_log(tmp_path / "log", buffer=2)
    for line in LINES[:50]:
        log.log(line)
        for _ in range(200):
            log.reopen()
    assert log.close(10)
    assert numbers(tmp_path / "log") == list(range(50))
    assert (log.dropped, log.errors) == (0, 0)


def test_a_file_that_cannot_be_reopened_stays_in_use(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    log = access_log(folder / "log")
    log.log(LINES[1])
    folder.rename(tmp_path / "moved")
    log.reopen()
    log.log(LINES[2])
    log.flush()
    log.reopen()
    assert log.close(10)
    assert numbers(tmp_path / "moved" / "log") == [1, 2]
    assert log.dropped == 0
    assert log.errors == 2
    told = capfd.readouterr().err
    assert told.count("cannot be reopened") == 1
    assert os.strerror(errno.ENOENT) in told


def test_a_path_that_cannot_be_opened_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        access_log(tmp_path / "none" / "log")
    assert caught.value.filename == str(tmp_path / "none" / "log")
    with pytest.raises(ValueError, match="null byte"):
        access_log("a\0b")


def test_a_pipe_that_nobody_reads_stops_nobody() -> None:
    reader, writer = os.pipe()
    log = access_log(f"/proc/self/fd/{writer}", buffer=65536)
    loop_log(log, LINES[999], 4_000_000)
    # The pipe took 64 KiB, 64 buffers wait; all others were dropped and counted.
    kept = log.written - log.dropped
    assert 64 * 65536 // 4 <= kept <= 70 * 65536 // 4
    assert not log.close(0.05)
    assert log.written == 4_000_000
    assert log.dropped > log.written - kept
    # The writer that was given up ends by itself, and may tell of it in the midst of the next test.
    os.close(reader)
    os.close(writer)


def test_a_pipe_that_is_read_again_goes_on_with_whole_lines(capfd: pytest.CaptureFixture[str]) -> None:
    reader, writer = os.pipe()
    log = access_log(f"/dev/fd/{writer}", buffer=65536)
    os.close(writer)
    loop_log(log, LINES[999], 4_000_000)
    dropped = log.dropped
    assert dropped > 0
    received = bytearray()

    def drain() -> None:
        while chunk := os.read(reader, 1 << 16):
            received.extend(chunk)

    thread = threading.Thread(target=drain)
    thread.start()
    wait_until_written(log)
    log.log(LINES[998])
    assert log.close(10)
    thread.join()
    os.close(reader)
    assert bytes(received) == b"999\n" * (4_000_000 - dropped) + b"998\n"
    assert log.dropped == dropped
    assert capfd.readouterr().err.count(f"/dev/fd/{writer} is too slow") == 1


def test_a_non_blocking_pipe_is_waited_for() -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETFL, os.O_NONBLOCK)
    received = bytearray()
    # stdout is what somebody else may have made non-blocking: a process of its own writes there.
    program = (
        "from types import SimpleNamespace as N\n"
        "from fastgate._core import *\n"
        "log = AccessLog(N(enabled=True, path='stdout', format='$bytes_out', redact_headers=(),\n"
        "                  redact_query=(), headers=(), buffer=4096))\n"
        "loop_log(log, SampleExchange(bytes_out=5), 60000)\n"
        "assert log.close(20) and not log.dropped and not log.errors\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdout=writer)
    os.close(writer)
    while chunk := os.read(reader, 1 << 16):
        received.extend(chunk)
    os.close(reader)
    assert child.wait() == 0
    assert bytes(received) == b"5\n" * 60_000


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
def test_a_full_disk_is_counted_and_told_once(capfd: pytest.CaptureFixture[str]) -> None:
    log = access_log("/dev/full")
    for line in LINES[:10]:
        log.log(line)
        log.flush()
    assert log.close(10)
    assert (log.dropped, log.errors) == (10, 10)
    told = capfd.readouterr().err
    assert told.count("\n") == 1
    assert os.strerror(errno.ENOSPC) in told


def test_a_reader_that_went_away_is_counted_and_told_once(capfd: pytest.CaptureFixture[str]) -> None:
    reader, writer = os.pipe()
    log = access_log(f"/dev/fd/{writer}")
    os.close(writer)
    os.close(reader)
    for line in LINES[:10]:
        log.log(line)
        log.flush()
    assert log.close(10)
    assert (log.dropped, log.errors) == (10, 10)
    assert capfd.readouterr().err.count(os.strerror(errno.EPIPE)) == 1


def test_a_disk_that_fills_within_a_line_tears_one_line_alone(tmp_path: Path) -> None:
    # A file size limit of a process of its own: the write stops within a line, as on a full disk, and goes on
    # in the same file when the limit is lifted.
    program = f"""
import os, resource, signal, time
from types import SimpleNamespace as N
from fastgate._core import *
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1001, resource.RLIM_INFINITY))
log = AccessLog(N(enabled=True, path={str(tmp_path / "log")!r}, format='$bytes_out', redact_headers=(),
                  redact_query=(), headers=(), buffer=1 << 20))
def wait():
    log.flush()
    while log.waiting:
        time.sleep(0.001)
loop_log(log, SampleExchange(bytes_out=777), 400)
wait()
assert (log.dropped, log.errors) == (150, 1), (log.dropped, log.errors)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
loop_log(log, SampleExchange(bytes_out=888), 2)
assert log.close(10)
assert log.dropped == 150
"""
    subprocess.run([sys.executable, "-c", program], check=True, stderr=subprocess.DEVNULL)
    assert (tmp_path / "log").read_bytes() == b"777\n" * 250 + b"7\n" + b"888\n" * 2


def test_signals_go_to_the_program_and_never_to_the_writer(tmp_path: Path) -> None:
    log = access_log(tmp_path / "log")
    log.log(LINES[1])
    log.flush()
    wait_until_written(log)
    blocked = []
    for task in Path("/proc/self/task").iterdir():
        if int(task.name) != threading.main_thread().native_id:
            status = dict(
                line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line
            )
            blocked.append(int(status["SigBlk"], 16) >> (signal.SIGTERM - 1) & 1)
    assert 1 in blocked
    assert log.close(10)


def test_a_log_made_before_the_fork_writes_behind_it(tmp_path: Path) -> None:
    log = access_log(tmp_path / "log")
    pids = []
    for worker in range(2):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                for _ in range(100):
                    log.log(LINES[worker])
                code = 0 if log.close(10) and not log.dropped else 1
            finally:
                os._exit(code)
        pids.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0, 0]
    assert sorted(numbers(tmp_path / "log")) == [0] * 100 + [1] * 100
    assert log.close(10)


def test_after_close_lines_are_counted_as_dropped(tmp_path: Path) -> None:
    log = access_log(tmp_path / "log")
    log.log(LINES[1])
    assert log.close(10)
    assert log.close(10)
    log.log(LINES[2])
    log.flush()
    log.reopen()
    assert log.dropped == 1
    assert numbers(tmp_path / "log") == [1]
