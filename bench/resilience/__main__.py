"""`python -m bench.resilience`: runs the scenarios, shows their rows coming in, writes the report."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.__main__ import positive, prepare
from bench.load import LoadFailed
from bench.machine import describe
from bench.peers import PEERS
from bench.process import PeerFailed
from bench.resilience.operate import OPERATORS, OperateFailed
from bench.resilience.report import Report, problem_lines, to_json, to_markdown, to_terminal
from bench.resilience.scenarios import BY_NAME, SCENARIOS, Scenario
from bench.resilience.stage import Row


def parser() -> argparse.ArgumentParser:
    """The command line."""
    own = argparse.ArgumentParser(
        prog="python -m bench.resilience",
        description="Kills, stops, replaces and overloads real endpoints behind fastgate and other gateways, "
        "and accounts for every request. Without options: everything, about 4 minutes for each gateway.",
        epilog="scenarios: " + ", ".join(BY_NAME) + ". peers: " + ", ".join(OPERATORS) + ".",
    )
    own.add_argument(
        "--scenario", nargs="+", metavar="NAME", choices=BY_NAME, help="these scenarios (default: all)"
    )
    own.add_argument(
        "--peers",
        nargs="+",
        metavar="NAME",
        choices=OPERATORS,
        help="these peers (default: all that are there)",
    )
    own.add_argument("--quick", action="store_true", help="each scenario as short as it can be")
    own.add_argument(
        "--seconds",
        type=positive,
        help="of the part in which something happens (default: the scenario's own)",
    )
    own.add_argument(
        "--out", type=Path, default=Path("bench/results"), help="folder of the report (bench/results)"
    )
    return own


def run(scenario: Scenario, peer: str, seconds: float) -> list[Row]:
    """A scenario's rows; what goes wrong with gateway or load is in the row's problems, not raised."""
    try:
        return scenario.run(peer, seconds)
    except (PeerFailed, LoadFailed, OperateFailed, OSError) as error:
        return [Row(scenario.name, peer, problems=[str(error)])]


def line_of(row: Row) -> str:
    """A line of progress."""
    shown = "; ".join(row.problems) or ", ".join(
        f"{key} {value}" for key, value in row.cells.items() if value
    )
    missed = "".join(f"; MISSED: {goal.text}" for goal in row.missed())
    return f"{row.scenario} {row.peer}: {shown}{missed}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 everything was measured and fastgate reached its goals, 1 not, 2 usage."""
    options = parser().parse_args(arguments)
    prepared = prepare(options.peers, tuple(OPERATORS))
    if prepared is None:
        return 1
    names, _ = prepared
    machine = describe(PEERS[name] for name in names)
    words = sys.argv[1:] if arguments is None else list(arguments)
    # Ended from outside, it still ends its peers: the interrupt unwinds through their stops.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    rows: list[Row] = []
    whole = True
    began = time.monotonic()
    try:
        for scenario in SCENARIOS:
            if options.scenario and scenario.name not in options.scenario:
                continue
            for name in names:
                seconds = options.seconds or (scenario.quick if options.quick else scenario.seconds)
                for row in run(scenario, name, seconds):
                    rows.append(row)
                    print(line_of(row), flush=True)
    except KeyboardInterrupt:
        print("bench: interrupted; reporting what there is", file=sys.stderr)
        whole = False
    report = Report(rows, machine, shlex.join(["python", "-m", "bench.resilience", *words]))
    print(f"\n{to_terminal(report)}\n")
    options.out.mkdir(parents=True, exist_ok=True)
    for kind, text in (("json", to_json(report)), ("md", to_markdown(report))):
        (options.out / f"resilience.{kind}").write_text(text)
    print(f"bench: {time.monotonic() - began:.0f} s; wrote resilience.json and .md to {options.out}")
    return 0 if whole and not problem_lines(rows) and not any(row.missed() for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
