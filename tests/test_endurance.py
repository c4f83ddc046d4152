"""A short form of `python -m bench.endurance`: all that an operator does, under load, and nothing fails."""

from __future__ import annotations

import pytest

from bench.endurance.__main__ import main


def test_reloads_swaps_rollbacks_upgrades_and_kills(capfd: pytest.CaptureFixture[str]) -> None:
    """Counts are in the output. Nothing fails but what is under way on a worker that is killed."""
    changes = {"reloads": 20, "swaps": 4, "rollbacks": 4, "upgrades": 2, "kills": 2}
    given = changes | {"rate": 400, "long": 4}
    code = main([word for name, number in given.items() for word in (f"--{name}", str(number))])
    told = capfd.readouterr().out
    assert code == 0, told
    for what, count in changes.items():
        assert f"{what:<10} {count:>5} x" in told, told
