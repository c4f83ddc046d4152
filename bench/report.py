"""A run's results as text: for the terminal, as JSON and as Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from bench.model import Kind, Scenario
from bench.peers import PEERS
from bench.scenarios import BY_NAME
from bench.stats import Results, Spread, Verdict, verdicts

# What a scenario's table shows beside its main number: key, heading, format of a value.
COLUMNS: dict[Kind, tuple[tuple[str, str, str], ...]] = {
    Kind.CLOSED: (
        ("user_us", "user us", ".1f"),
        ("system_us", "system us", ".1f"),
        ("requests_per_second", "requests/s", ",.0f"),
        ("p50_us", "p50 us", ",.0f"),
        ("p99_us", "p99 us", ",.0f"),
        ("p999_us", "p99.9 us", ",.0f"),
        ("busy", "core used", ".0%"),
    ),
    Kind.DOWNLOAD: (
        ("user_us_per_mib", "user us", ".0f"),
        ("system_us_per_mib", "system us", ".0f"),
        ("mib_per_second", "MiB/s", ",.0f"),
        ("busy", "core used", ".0%"),
    ),
    Kind.HANDSHAKE: (
        ("user_us", "user us", ".1f"),
        ("system_us", "system us", ".1f"),
        ("connections_per_second", "connections/s", ",.0f"),
        ("busy", "core used", ".0%"),
    ),
    Kind.IDLE: (("base_mib", "without them, MiB", ".1f"), ("connections", "connections", ",.0f")),
    Kind.HALF: (
        ("p50_us", "p50 us", ",.0f"),
        ("p999_us", "p99.9 us", ",.0f"),
        ("rate", "requests/s", ",.0f"),
        ("busy", "core used", ".0%"),
    ),
    Kind.WAITS: (
        ("p50_us", "p50 us", ",.0f"),
        ("p99_us", "p99 us", ",.0f"),
        ("p999_us", "p99.9 us", ",.0f"),
        ("cpu_us", "CPU us", ",.0f"),
    ),
    Kind.OVERLOAD: (
        ("goodput", "in time/s", ",.0f"),
        ("peak", "peak/s", ",.0f"),
        ("p50_us", "p50 us", ",.0f"),
        ("p99_us", "p99 us", ",.0f"),
        ("p999_us", "p99.9 us", ",.0f"),
        ("refused_share", "refused", ".1%"),
    ),
}
MAIN_FORMAT = {
    Kind.CLOSED: ".1f",
    Kind.DOWNLOAD: ".0f",
    Kind.HANDSHAKE: ".1f",
    Kind.IDLE: ",.0f",
    Kind.HALF: ",.0f",
    Kind.WAITS: ".2f",
    Kind.OVERLOAD: ".2f",
}


@dataclass(frozen=True)
class Report:
    """Everything that is written down about a run."""

    results: Results
    machine: Mapping[str, str]
    settings: Mapping[str, int]
    missing: Mapping[str, str]
    subject: str = "fastgate"

    def verdicts(self) -> list[Verdict]:
        """The targets of what ran; none where the subject is another than fastgate."""
        return verdicts(self.results, self.subject) if self.subject == "fastgate" else []


def show_ratio(ratio: Spread | None) -> str:
    """`0.93 (0.91..0.96)`."""
    if ratio is None:
        return "-"
    return f"{ratio.median:.2f} ({ratio.low:.2f}..{ratio.high:.2f})"


def peers_in_order(results: Results, scenario: Scenario) -> list[str]:
    """A scenario's peers as the suite lists them."""
    took_part = results.peers(scenario.name)
    return [name for name in PEERS if name in took_part]


def table(report: Report, scenario: Scenario) -> list[list[str]]:
    """A scenario's table, its heading first."""
    metric, kind = scenario.metric, scenario.kind
    unit = f", {metric.unit}" if metric.unit else ""
    rows = [
        [
            "peer",
            f"{metric.title}{unit}",
            "low..high",
            *(title for _, title, _ in COLUMNS[kind]),
            f"{report.subject} / it",
        ]
    ]
    for name in peers_in_order(report.results, scenario):
        main = report.results.main(scenario, name)
        if main is None:
            rows.append([PEERS[name].title, "invalid"] + [""] * (len(rows[0]) - 2))
            continue
        shown = MAIN_FORMAT[kind]
        others = (report.results.value(scenario.name, name, key) for key, _, _ in COLUMNS[kind])
        cells = [
            "-" if value is None else format(value.median, how)
            for value, (_, _, how) in zip(others, COLUMNS[kind], strict=True)
        ]
        ratio = (
            ""
            if name == report.subject
            else show_ratio(report.results.ratio(scenario.name, report.subject, name))
        )
        rows.append(
            [
                PEERS[name].title,
                f"{main.median:{shown}}",
                f"{main.low:{shown}}..{main.high:{shown}}",
                *cells,
                ratio,
            ]
        )
    return rows


def verdict_rows(report: Report) -> list[list[str]]:
    """The table of targets, its heading first."""
    rows = [["must reach", "limit", "measured", ""]]
    for verdict in report.verdicts():
        mark = {True: "reached", False: "MISSED", None: "not measured"}[verdict.reached]
        limit, measured = f"<= {verdict.target.limit:g}", show_ratio(verdict.measured)
        if not verdict.target.peer and not verdict.target.baseline and verdict.measured is not None:
            found, shown = verdict.measured, MAIN_FORMAT[BY_NAME[verdict.target.scenario].kind]
            measured = f"{found.median:{shown}} ({found.low:{shown}}..{found.high:{shown}})"
        rows.append([verdict.target.describe(), limit, measured, mark])
    return rows


def group_rows(report: Report) -> list[list[str]]:
    """Within groups of scenarios: each member over the group's first one, for every peer."""
    rows: list[list[str]] = [["peer", "scenario", "over", "ratio"]]
    members: dict[str, list[Scenario]] = {}
    for scenario in report.results.scenarios():
        if scenario.group:
            members.setdefault(scenario.group, []).append(scenario)
    for first, *rest in members.values():
        for name in peers_in_order(report.results, first):
            for other in rest:
                ratio = report.results.ratio(other.name, name, name, first.name)
                rows += [[PEERS[name].title, other.name, first.name, show_ratio(ratio)]] if ratio else []
    return rows


def align(rows: Sequence[Sequence[str]]) -> str:
    """Rows as columns of a terminal, the first one to the left and the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def to_terminal(report: Report) -> str:
    """The whole result for a terminal."""
    parts = [
        f"{scenario.name}: {scenario.title} ({scenario.kind.value})\n{align(table(report, scenario))}"
        for scenario in report.results.scenarios()
    ]
    if len(rows := group_rows(report)) > 1:
        parts.append(align(rows))
    if len(rows := verdict_rows(report)) > 1:
        parts.append(align(rows))
    if problems := problem_lines(report):
        parts.append("invalid samples:\n" + "\n".join(f"  {line}" for line in problems))
    if remarks := report.results.remarks():
        parts.append(f"{len(remarks)} samples were disturbed (see the remarks in the files)")
    return "\n\n".join(parts)


def problem_lines(report: Report) -> list[str]:
    """Each invalid sample with its reasons."""
    return [
        f"{sample.scenario}, {sample.peer}, round {sample.round}: {'; '.join(sample.problems)}"
        for sample in report.results.failures()
    ]


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a Markdown table, numbers to the right."""
    head, *body = rows
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in body]
    return "\n".join(lines)


def to_markdown(report: Report) -> str:
    """The whole result as a Markdown document that stands by itself."""
    parts = ["# Benchmark results", "![CPU per request](results.svg)"]
    parts.append(markdown_table([["machine", ""], *([key, value] for key, value in report.machine.items())]))
    rounds, seconds = report.settings["rounds"], report.settings["seconds"]
    parts.append(
        f"Medians of {rounds} interleaved rounds of {seconds} s, the smallest and largest value beside them. "
        "A ratio is taken within each round; its median and range are shown. "
        f"Below 1 {report.subject} is cheaper (overload: above 1 it carries more)."
    )
    if len(rows := verdict_rows(report)) > 1:
        parts += ["## What fastgate must reach", markdown_table(rows)]
    for scenario in report.results.scenarios():
        parts += [f"## {scenario.name}: {scenario.title}", f"Driven as: {scenario.kind.value}."]
        parts.append(markdown_table(table(report, scenario)))
    if len(rows := group_rows(report)) > 1:
        parts += ["## Scenarios over each other", markdown_table(rows)]
    took_part = {sample.peer for sample in report.results.samples}
    notes = [
        f"- **{peer.title}**: {note}"
        for peer in PEERS.values()
        if peer.name in took_part
        for note in peer.notes
    ]
    parts += ["## What each peer does", "\n".join(notes)]
    for title, lines in (
        ("Peers that were not there", [f"{name}: {what}" for name, what in report.missing.items()]),
        ("Invalid samples", problem_lines(report)),
        ("Disturbed samples", report.results.remarks()),
    ):
        if lines:
            parts += [f"## {title}", "\n".join(f"- {line}" for line in lines)]
    return "\n\n".join(parts) + "\n"


def to_json(report: Report) -> str:
    """Everything, for other programs: machine, settings, summary, verdicts and each sample."""
    summary = [
        {
            "scenario": scenario.name,
            "peer": name,
            "metric": scenario.metric.key,
            "value": spread_json(report.results.main(scenario, name)),
            "ratio": spread_json(report.results.ratio(scenario.name, report.subject, name)),
        }
        for scenario in report.results.scenarios()
        for name in peers_in_order(report.results, scenario)
    ]
    targets = [
        {**asdict(verdict.target), "measured": spread_json(verdict.measured), "reached": verdict.reached}
        for verdict in report.verdicts()
    ]
    whole = {
        "machine": dict(report.machine),
        "settings": dict(report.settings),
        "subject": report.subject,
        "missing": dict(report.missing),
        "summary": summary,
        "targets": targets,
        "samples": [asdict(sample) for sample in report.results.samples],
    }
    return json.dumps(whole, indent=1) + "\n"


def spread_json(value: Spread | None) -> dict[str, float] | None:
    """A spread as JSON."""
    return None if value is None else asdict(value)
