"""docs/rfc-conformance.md names tests: each of them exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "rfc-conformance.md").read_text()
NAMED = sorted(set(re.findall(r"`(test_\w+\.py)::(\w+)", PAGE)))


@pytest.mark.parametrize("file", sorted({file for file, _ in NAMED}))
def test_named_tests_exist(file: str) -> None:
    found = {
        node.name
        for node in ast.parse((TESTS / file).read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    missing = [name for there, name in NAMED if there == file and name not in found]
    assert not missing, f"{file} has no {missing}"


def test_each_row_names_a_test() -> None:
    requirements = PAGE[PAGE.index("## RFC 9112") :]
    rows = [
        line
        for line in requirements.splitlines()
        if line.startswith("| ") and not line.startswith("| section")
    ]
    assert len(rows) > 60
    assert [row for row in rows if "::test_" not in row] == []
