"""The tables of docs/metrics.md, made from the families.

``python -m fastgate.telemetry.reference docs/metrics.md`` writes what follows the mark of the page anew, and
a test checks that it is up to date.
"""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path
from typing import Final

from fastgate import _core
from fastgate.telemetry.families import FAMILIES, Family

__all__ = ["MARK", "markdown"]

MARK: Final = "<!-- Below: made by `make docs` from fastgate/telemetry/families.py. -->\n"


def markdown() -> str:
    bounds = ", ".join(f"{bound / 1e9:.9f}".rstrip("0") for bound in _core.METRIC_BOUNDS)
    parts = ["\n## Buckets\n\n", f"Every histogram has these, in seconds: {bounds}.\n"]
    for title, families in groupby(FAMILIES, key=lambda family: family.group):
        parts += [f"\n## {title}\n\n| name | type | labels | |\n|---|---|---|---|\n", *map(_row, families)]
    return "".join(parts)


def _row(family: Family) -> str:
    labels = ", ".join(f"`{label}`" for label in family.labels)
    return f"| `{family.name}` | {family.kind} | {labels} | {family.help} |\n"


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(page.read_text().partition(MARK)[0] + MARK + markdown())
