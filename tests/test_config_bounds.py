"""What the check lets pass, the core takes: nothing is refused only when the configuration is put in
force."""

from __future__ import annotations

import pytest
from fuzz.scenario import Rig

from fastgate.config import ConfigError, loads

TEXT = """
[[listeners]]
name = "main"
bind = "127.0.0.1:0"
[upstreams.a]
endpoints = ["127.0.0.1:1"]
{}
[[routes]]
name = "all"
upstream = "a"
"""


@pytest.mark.parametrize(
    ("options", "most"),
    [
        ("breaker = {{ error_percent = 50, trials = {} }}", 1_000_000),
        ("concurrency = {{ limit = 5, queue = {} }}", 100_000),
        ("concurrency = {{ limit = {} }}", 10_000_000),
        ("retry = {{ attempts = {} }}", 10),
    ],
)
def test_the_most(options: str, most: int) -> None:
    Rig(TEXT.format(options.format(most)))
    with pytest.raises(ConfigError):
        loads(TEXT.format(options.format(most + 1)))
