"""Rows as a table for the terminal, as JSON and as Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from bench.peers import PEERS
from bench.report import align, markdown_table
from bench.resilience.scenarios import SCENARIOS, Scenario
from bench.resilience.stage import Row


@dataclass(frozen=True)
class Report:
    """Everything that is written down about a run."""

    rows: Sequence[Row]
    machine: Mapping[str, str]
    command: str

    def scenarios(self) -> list[Scenario]:
        """Those that ran."""
        ran = {row.scenario for row in self.rows}
        return [scenario for scenario in SCENARIOS if scenario.name in ran]

    def of(self, scenario: Scenario) -> list[Row]:
        """A scenario's rows."""
        return [row for row in self.rows if row.scenario == scenario.name]


def table(rows: Sequence[Row]) -> list[list[str]]:
    """A scenario's table, its heading first."""
    columns = list(dict.fromkeys(column for row in rows for column in row.cells))
    cells = [[PEERS[row.peer].title, *(row.cells.get(column, "-") for column in columns)] for row in rows]
    return [["gateway", *columns], *cells]


def goal_rows(rows: Sequence[Row]) -> list[list[str]]:
    """The table of what must be reached, its heading first. Only fastgate must."""
    return [["must reach", "measured", ""]] + [
        [f"{row.scenario}: {goal.text}", goal.measured, "reached" if goal.reached else "MISSED"]
        for row in rows
        if row.peer == "fastgate"
        for goal in row.goals
    ]


def problem_lines(rows: Sequence[Row]) -> list[str]:
    """What went wrong with the measuring, one line each."""
    return [f"{row.scenario}, {row.peer}: {problem}" for row in rows for problem in row.problems]


def to_terminal(report: Report) -> str:
    """The whole result for a terminal."""
    parts = [f"{s.name}: {s.title}\n{align(table(report.of(s)))}" for s in report.scenarios()]
    if len(goals := goal_rows(report.rows)) > 1:
        parts.append(align(goals))
    if problems := problem_lines(report.rows):
        parts.append("not measured:\n" + "\n".join(f"  {line}" for line in problems))
    return "\n\n".join(parts)


def to_markdown(report: Report) -> str:
    """The whole result as a Markdown document that stands by itself."""
    parts = ["# Endpoints that fail: results", f"    {report.command}"]
    parts.append(markdown_table([["machine", ""], *([key, value] for key, value in report.machine.items())]))
    if len(goals := goal_rows(report.rows)) > 1:
        parts += ["## What fastgate must reach", markdown_table(goals)]
    for scenario in report.scenarios():
        parts += [f"## {scenario.name}: {scenario.title}", markdown_table(table(report.of(scenario)))]
    if problems := problem_lines(report.rows):
        parts += ["## Not measured", "\n".join(f"- {line}" for line in problems)]
    return "\n\n".join(parts) + "\n"


def to_json(report: Report) -> str:
    """Everything, for other programs."""
    whole = {
        "command": report.command,
        "machine": dict(report.machine),
        "rows": [asdict(row) for row in report.rows],
    }
    return json.dumps(whole, indent=1) + "\n"
