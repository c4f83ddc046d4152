"""Show what the running gateway does, as it does it: routes, upstreams, endpoints by rate, errors, latency.

Numbers are of the time since the last look. ROUTE counts what clients asked, ERR % those that ended with
5xx, P50 and P99 the whole time of a request. UPSTREAM and ENDPOINT count attempts, ERR % those without an
answer below 500, P50 and P99 the time to the head of the answer. ACTIVE is under way; OPEN, IDLE and WAIT are
connections, those of them that are not in use, and requests that wait for one.

Keys: r, u, e, a choose what is shown, s what it is sorted by, p pauses, q quits.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from fastgate.cli.admin_client import add_admin_options, call
from fastgate.cli.common import Failed
from fastgate.cli.top_rates import Frame, compare
from fastgate.cli.top_view import SORTS, TABLES, draw

MOST_ROUTES: Final = "1000"
_ENTER: Final = "\x1b[?1049h\x1b[?25l"  # another screen, without a cursor
_LEAVE: Final = "\x1b[?25h\x1b[?1049l"
_HOME: Final = "\x1b[H"
_REST_OF_LINE: Final = "\x1b[K"
_REST_OF_SCREEN: Final = "\x1b[J"


def arguments(parser: argparse.ArgumentParser) -> None:
    add_admin_options(parser)
    parser.add_argument(
        "--interval", type=_seconds, default=1.0, metavar="SECONDS", help="between two looks (default: 1)"
    )
    parser.add_argument(
        "--sort", choices=tuple(SORTS), default="rate", help="what comes first (default: rate)"
    )
    parser.add_argument("--once", action="store_true", help="look once, print it as text, and end")
    parser.add_argument(
        "--json", action="store_true", help="print a JSON object a line for each look; with --once, one"
    )


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= 3600:
        raise argparse.ArgumentTypeError("from 0.1 to 3600 seconds")
    return value


def main(args: argparse.Namespace) -> int:
    if args.json or args.once or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return _print(args)
    return _Screen(args).run()


class _Looks:
    """Looks at the gateway, each compared with the one before. Raises Failed."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._before = self._summary()

    def _summary(self) -> Any:
        return call(self._args, "GET", "summary", query={"routes": MOST_ROUTES})

    def look(self) -> Frame | None:
        """None: it was started anew since the last one."""
        after = self._summary()
        upstreams = call(self._args, "GET", "upstreams")["upstreams"]
        before, self._before = self._before, after
        return compare(before, after, upstreams, time.time())


def _print(args: argparse.Namespace) -> int:
    looks = _Looks(args)
    while True:
        time.sleep(args.interval)
        frame = looks.look()
        if frame is None:
            continue
        if args.json:
            print(json.dumps(_as_json(frame)), flush=True)
        else:
            width = shutil.get_terminal_size((132, 24)).columns
            print("\n".join(draw(frame, width, None, tuple(TABLES), args.sort, styled=False)), flush=True)
        if args.once or not args.json:
            return 0


def _as_json(frame: Frame) -> dict[str, Any]:
    overall = frame.overall._asdict()
    overall["traffic"] = overall["traffic"]._asdict()
    rows = {key: [row._asdict() for row in rows_of(frame)] for key, (_, _, rows_of) in TABLES.items()}
    return {"seconds": frame.seconds, **overall, **rows}


class _Screen:
    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._looks = _Looks(args)
        self._frame: Frame | None = None
        self._tables: tuple[str, ...] = ("routes", "upstreams")
        self._sort = args.sort
        self._paused = False
        self._note = ""

    def run(self) -> int:
        with _raw_terminal():
            # The first look comes soon: nobody likes an empty screen.
            due = time.monotonic() + min(0.3, self._args.interval)
            while True:
                self._draw()
                if not self._take_keys(due):
                    return 0
                if time.monotonic() >= due:
                    due = time.monotonic() + self._args.interval
                    self._look()

    def _look(self) -> None:
        if self._paused:
            return
        try:
            self._frame = self._looks.look() or self._frame
            self._note = ""
        except Failed as failed:
            self._note = str(failed).splitlines()[0]  # it may come back

    def _take_keys(self, due: float) -> bool:
        """Waits for a key, for another size of the terminal, or until ``due``; False: that is all."""
        size = _size()
        while (left := due - time.monotonic()) > 0:
            if not select.select([sys.stdin], [], [], min(left, 0.1))[0]:
                if _size() != size:
                    return True
                continue
            keys = os.read(sys.stdin.fileno(), 64).decode("ascii", "replace")
            if not keys or any(key in "q\x03\x04" for key in keys):
                return False
            for key in keys:
                self._press(key)
            return True
        return True

    def _press(self, key: str) -> None:
        chosen = {"r": ("routes",), "u": ("upstreams",), "e": ("endpoints",), "a": ("routes", "upstreams")}
        self._tables = chosen.get(key, self._tables)
        if key == "s":
            sorts = list(SORTS)
            self._sort = sorts[(sorts.index(self._sort) + 1) % len(sorts)]
        elif key == "p":
            self._paused = not self._paused

    def _draw(self) -> None:
        width, height = _size()
        note = self._note or ("paused; p goes on, q quits" if self._paused else "")
        if self._frame is None:
            lines = [note or "waiting for numbers ..."]
        else:
            lines = draw(self._frame, width, height, self._tables, self._sort, styled=True, note=note)
        text = f"{_REST_OF_LINE}\n".join(lines)
        sys.stdout.write(f"{_HOME}{text}{_REST_OF_LINE}{_REST_OF_SCREEN}")
        sys.stdout.flush()


def _size() -> tuple[int, int]:
    """Columns and lines, as they are now: what the environment says of them may be old."""
    size = os.get_terminal_size(sys.stdout.fileno())
    return max(size.columns, 20), max(size.lines, 3)


@contextmanager
def _raw_terminal() -> Iterator[None]:
    """Keys come one by one and unseen; in the end everything is as it was."""
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        sys.stdout.write(_ENTER)
        yield
    finally:
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
