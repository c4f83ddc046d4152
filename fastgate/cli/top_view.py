"""A frame of `fastgate top` as lines of text, for any size of terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from fastgate.cli.top_rates import Frame, Overall, Row

__all__ = ["SORTS", "TABLES", "draw"]

BOLD: Final = "\x1b[1m"
REVERSE: Final = "\x1b[7m"
PLAIN: Final = "\x1b[0m"
_KEYS: Final = "r routes  u upstreams  e endpoints  a all   s sort  p pause  q quit"


class Column(NamedTuple):
    title: str
    width: int
    show: Callable[[Row], str]


#: What rows may be sorted by; the largest come first.
SORTS: Final[dict[str, Callable[[Row], float]]] = {
    "rate": lambda row: row.rate,
    "errors": lambda row: row.errors * row.rate,
    "p99": lambda row: row.p99 or 0.0,
}

_COMMON: Final = (
    Column("REQ/S", 9, lambda row: _number(row.rate)),
    Column("ERR %", 7, lambda row: _percent(row.errors)),
)
_TIMES: Final = (
    Column("P50", 8, lambda row: _time(row.p50)),
    Column("P99", 8, lambda row: _time(row.p99)),
)
_CONNECTIONS: Final = (
    Column("ACTIVE", 7, lambda row: _count(row.active)),
    Column("OPEN", 6, lambda row: _count(row.open)),
    Column("IDLE", 6, lambda row: _count(row.idle)),
    Column("WAIT", 6, lambda row: _count(row.waiting)),
)
#: Of each table: its key, the heading of the names, its columns, and its rows of a frame.
TABLES: Final[dict[str, tuple[str, tuple[Column, ...], Callable[[Frame], Sequence[Row]]]]] = {
    "routes": (
        "ROUTE",
        (
            *_COMMON,
            Column("4XX %", 7, lambda row: _percent(row.refused)),
            *_TIMES,
            Column("IN/S", 8, lambda row: _bytes(row.bytes_in)),
            Column("OUT/S", 8, lambda row: _bytes(row.bytes_out)),
        ),
        lambda frame: frame.routes,
    ),
    "upstreams": (
        "UPSTREAM",
        (
            *_COMMON,
            Column("RETRY %", 8, lambda row: _percent(row.retried)),
            *_TIMES,
            *_CONNECTIONS,
            Column("STATE", 12, lambda row: row.state),
        ),
        lambda frame: frame.upstreams,
    ),
    "endpoints": (
        "ENDPOINT",
        (*_COMMON, *_TIMES, *_CONNECTIONS, Column("STATE", 9, lambda row: row.state)),
        lambda frame: frame.endpoints,
    ),
}


def draw(
    frame: Frame,
    width: int,
    height: int | None,
    tables: Sequence[str],
    sort: str,
    *,
    styled: bool,
    note: str = "",
) -> list[str]:
    """Lines of at most ``width`` characters; ``height``: how many at most, None: all that there is. styled:
    with bold and reverse. note: stands in place of the keys."""
    lines = [*_overall(frame.overall), ""]
    foot = [] if height is None else [_fit(note or f"{_KEYS}   (sorted by {sort})", width)]
    room = None if height is None else max(0, height - len(lines) - len(foot))
    for at, key in enumerate(tables):
        # What one table does not need, those behind it have.
        share = None if room is None else room // (len(tables) - at)
        table = _table(frame, key, width, share, sort, styled)
        lines += table
        room = None if room is None else room - len(table)
    lines = [line if line.startswith("\x1b") else _fit(line, width) for line in lines]
    if height is None:
        return lines
    lines = lines[: max(0, height - len(foot))]
    return [*lines, *[""] * (height - len(foot) - len(lines)), *foot][:height]


def _overall(now: Overall) -> list[str]:
    traffic = now.traffic
    state = "ready" if now.ready else "NOT READY"
    reasons = "  ".join(f"{reason} {_number(rate)}/s" for reason, rate in list(now.reasons.items())[:4])
    return [
        f"fastgate {now.fastgate}  {state}  configuration {now.configuration}  workers {now.workers}  "
        f"up {_span(now.up_seconds)}",
        f"{_number(traffic.rate)} req/s  5xx {_percent(traffic.errors)} %  "
        f"4xx {_percent(traffic.refused)} %  p50 {_time(traffic.p50)}  p99 {_time(traffic.p99)}  "
        f"in {_bytes(traffic.bytes_in)}/s  out {_bytes(traffic.bytes_out)}/s",
        f"connections {now.connections} (+{_number(now.accepted)}/s)  under way {now.active}  "
        f"tunnels {now.tunnels}" + (f"  why: {reasons}" if reasons else ""),
    ]


def _table(frame: Frame, key: str, width: int, height: int | None, sort: str, styled: bool) -> list[str]:
    """With an empty line behind it."""
    from fastgate.config.problems import shown

    title, columns, rows_of = TABLES[key]
    if height is not None and height < 3:
        return []
    rows = sorted(rows_of(frame), key=lambda row: (-SORTS[sort](row), row.name))
    shown_rows = rows if height is None else rows[: height - 2]
    # Columns that the terminal has no room for are left out, from the right.
    while columns and 16 + sum(column.width + 1 for column in columns) > width:
        columns = columns[:-1]
    rest = width - sum(column.width + 1 for column in columns)
    longest = max([len(title), *(len(row.name) for row in shown_rows)])
    name_width = max(1, min(rest, longest + 1))
    head = title.ljust(name_width) + "".join(f" {column.title:>{column.width}}" for column in columns)
    more = f"  ({len(rows) - len(shown_rows)} more)" if len(rows) > len(shown_rows) else ""
    head = _fit(head + more, width)
    lines = [f"{REVERSE}{head.ljust(width)}{PLAIN}" if styled else head]
    for row in shown_rows:
        cells = "".join(f" {column.show(row):>{column.width}}" for column in columns)
        line = _fit(_fit(shown(row.name), name_width).ljust(name_width) + cells, width)
        lines.append(f"{BOLD}{line}{PLAIN}" if styled and row.errors > 0 else line)
    return [*lines, ""]


def _fit(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(0, width - 1)] + "~"[:width]


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 or value == 0 else f"{value:.1f}"


def _count(value: int | None) -> str:
    return "-" if value is None else str(value)


def _percent(part: float) -> str:
    percent = 100 * part
    return "0" if percent == 0 else f"{percent:.2f}" if percent < 10 else f"{percent:.1f}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.1f} ms" if seconds >= 0.001 else f"{seconds * 1e6:.0f} us"


def _bytes(value: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError


def _span(seconds: float) -> str:
    minutes, hours, days = int(seconds) // 60, int(seconds) // 3600, int(seconds) // 86400
    if days:
        return f"{days} d {hours % 24} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min {int(seconds) % 60} s"
