"""The page that stands beside KrakenD's: each of its rows names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
LINK = re.compile(r'\[[^\]]+\]\((\.\./tests/[^) ]+) "(test_\w+)"\)')
ROWS = [
    line
    for line in (DOCS / "aggregation-krakend.md").read_text().splitlines()
    if line.startswith("|") and not line.startswith(("| KrakenD |", "|---"))
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip()[:40])
def test_a_row_is_held_by_tests(row: str) -> None:
    links = LINK.findall(row.split("|")[3])
    assert links
    for path, name in links:
        source = (DOCS / path).read_text()
        assert re.search(rf"^(async )?def {name}\(", source, re.MULTILINE), f"{path} has no {name}"
