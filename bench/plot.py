"""The SVG plot: for each scenario a panel of bars, one for each peer, with the range over the rounds."""

from __future__ import annotations

from xml.sax.saxutils import escape

from bench.model import Scenario
from bench.peers import PEERS
from bench.report import MAIN_FORMAT, Report, peers_in_order

WIDTH = 860
LABEL = 130  # pixels for peers' names
NUMBERS = 190  # pixels for the numbers at the right
BAR = 16
ROW = 22
SUBJECT_COLOUR = "#0b7285"
PEER_COLOUR = "#adb5bd"
FLOOR_COLOUR = "#dee2e6"
CLIP = 5.0  # bars longer than this many times the median bar are cut, so that the others can be told apart

STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#212529}.title{font-weight:600;font-size:14px}"
    ".small{font-size:11px;fill:#495057}.range{stroke:#212529;stroke-width:1.2}"
)


def panel(report: Report, scenario: Scenario, top: int) -> tuple[list[str], int]:
    """A scenario's panel from `top` on; its elements and its height."""
    metric = scenario.metric
    unit = f", {metric.unit}" if metric.unit else ""
    direction = "less" if metric.less_is_better else "more"
    parts = [
        f'<text class="title" x="12" y="{top + 16}">{escape(scenario.title)}</text>',
        f'<text class="small" x="12" y="{top + 32}">{escape(metric.title + unit)} '
        f"({direction} is better)</text>",
    ]
    found = [(name, report.results.main(scenario, name)) for name in peers_in_order(report.results, scenario)]
    medians = sorted(value.median for _, value in found if value is not None)
    if not medians:
        return [*parts, f'<text x="12" y="{top + 52}">no valid sample</text>'], 64
    room = WIDTH - LABEL - NUMBERS
    longest = min(medians[-1], CLIP * medians[len(medians) // 2]) or 1.0
    y = top + 42
    for name, value in found:
        peer = PEERS[name]
        parts.append(f'<text x="{LABEL - 8}" y="{y + 12}" text-anchor="end">{escape(peer.title)}</text>')
        if value is None:
            parts.append(f'<text class="small" x="{LABEL + 4}" y="{y + 12}">invalid</text>')
            y += ROW
            continue
        colour = SUBJECT_COLOUR if name == report.subject else FLOOR_COLOUR if peer.floor else PEER_COLOUR
        scale = room / longest

        def at(number: float, scale: float = scale) -> float:
            return LABEL + max(0.0, min(number * scale, room))

        parts.append(
            f'<rect x="{LABEL}" y="{y}" width="{at(value.median) - LABEL:.1f}" height="{BAR}" rx="2" '
            f'fill="{colour}"/>'
        )
        middle = y + BAR / 2
        parts.append(
            f'<line class="range" x1="{at(value.low):.1f}" y1="{middle}" '
            f'x2="{at(value.high):.1f}" y2="{middle}"/>'
        )
        text = f"{value.median:{MAIN_FORMAT[scenario.kind]}}"
        if value.median > longest:
            text += " (bar cut)"
        ratio = report.results.ratio(scenario.name, report.subject, name)
        if name != report.subject and ratio is not None:
            text += f"   {report.subject} {ratio.median:.2f}x"
        parts.append(f'<text x="{LABEL + room + 10}" y="{y + 12}">{escape(text)}</text>')
        y += ROW
    return parts, y - top + 16


def to_svg(report: Report) -> str:
    """The whole plot."""
    machine = report.machine
    facts = f"{machine.get('cpu', '')}; {machine.get('cores', '')}; Linux {machine.get('kernel', '')}"
    programs = ", ".join(
        machine[peer.title] for peer in PEERS.values() if peer.title in machine and not peer.floor
    )
    body = [
        '<text class="title" x="12" y="22">What a request costs: medians, their range over the rounds</text>',
        f'<text class="small" x="12" y="40">{escape(facts)}</text>',
        f'<text class="small" x="12" y="56">{escape(programs)}; {escape(machine.get("date", ""))}</text>',
    ]
    top = 76
    for scenario in report.results.scenarios():
        parts, height = panel(report, scenario, top)
        body += parts
        top += height
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top}" '
        f'viewBox="0 0 {WIDTH} {top}">\n'
        f'<style>{STYLE}</style>\n<rect width="{WIDTH}" height="{top}" fill="#ffffff"/>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )
