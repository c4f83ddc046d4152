"""Splits of a route without configuration files and connections."""

from __future__ import annotations

from types import SimpleNamespace

from fastgate._core import SharedTable, Splitter, rollback_windows, split_states

SECOND = 1_000_000_000
MS = 1_000_000


def rule(
    *,
    error_percent: float = 5,
    p99_factor: float = 1.5,
    min_samples: int = 200,
    window: int = 60 * SECOND,
    baseline: str = "",
) -> SimpleNamespace:
    """A rollback as the configuration has it, with its defaults."""
    return SimpleNamespace(
        error_percent=error_percent,
        p99_factor=p99_factor,
        min_samples=min_samples,
        window=window,
        baseline=baseline,
    )


class Tables:
    """The shared memory of one gateway: building over it again is a reload."""

    def __init__(self, capacity: int = 64) -> None:
        self.states: SharedTable = split_states(capacity)
        self.windows: SharedTable = rollback_windows(capacity)

    def splitter(
        self,
        weights: dict[str, int],
        *,
        route: str = "orders",
        rules: dict[str, SimpleNamespace] | None = None,
        header: str = "",
        cookie: str = "",
    ) -> Splitter:
        targets = tuple(
            SimpleNamespace(name=name, upstream=f"u-{name}", weight=weight, rollback=(rules or {}).get(name))
            for name, weight in weights.items()
        )
        override = SimpleNamespace(header=header, cookie=cookie)
        config = SimpleNamespace(override=override, to=targets)
        return Splitter(route, config, states=self.states, windows=self.windows)


def splitter(
    weights: dict[str, int],
    *,
    rules: dict[str, SimpleNamespace] | None = None,
    header: str = "",
    cookie: str = "",
) -> Splitter:
    """One with memory of its own."""
    return Tables().splitter(weights, rules=rules, header=header, cookie=cookie)
