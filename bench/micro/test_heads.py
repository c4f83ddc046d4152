"""Heads: reading a request's fields and copying those that go on, with and without header rules.

The loop runs inside the compiled module; a round is ROUNDS heads.
`python -m pytest bench/micro --benchmark-only`.
"""

from __future__ import annotations

from typing import Any

import pytest

from bench.model import BROWSER_HEADERS
from fastgate import _core

ROUNDS = 1000
SMALL = b"GET /small HTTP/1.1\r\nHost: api.example.com\r\nAccept: */*\r\n\r\n"
BROWSER = (
    b"GET /small HTTP/1.1\r\nHost: api.example.com\r\n"
    + "".join(f"{name}: {value}\r\n" for name, value in BROWSER_HEADERS).encode()
    + b"\r\n"
)
RULES = _core.HeaderRules({"x-tenant": "a"}, {"x-seen": "1"}, ("accept-language", "referer"))


@pytest.mark.parametrize("rules", [None, RULES], ids=["plain", "rules"])
@pytest.mark.parametrize("head", [SMALL, BROWSER], ids=["small", "browser"])
def test_head_is_read_and_copied(benchmark: Any, head: bytes, rules: _core.HeaderRules | None) -> None:
    length = benchmark(_core.measure_heads, head, rules, ROUNDS)
    assert length > 0
