"""What metrics tell that no counter does."""

from __future__ import annotations

from fastgate.server.keeper import Keeper
from fastgate.telemetry.metrics import Facts, ProcessFact

__all__ = ["facts_of"]


def facts_of(
    keeper: Keeper, processes: tuple[ProcessFact, ...], *, started: float, ready: bool, restarts: int = 0
) -> Facts:
    return Facts(
        config=keeper.config,
        version=keeper.version,
        applied=keeper.applied,
        reloads=keeper.changes,
        refused=keeper.failures,
        ok=not keeper.failure,
        started=started,
        ready=ready,
        processes=processes,
        restarts=restarts,
    )
