"""What metrics tell that no counter does."""

from __future__ import annotations

from collections.abc import Iterable

from fastgate.server.acme.views import AcmeView
from fastgate.server.keeper import Keeper
from fastgate.telemetry.metrics import AcmeFact, Facts, ProcessFact

__all__ = ["facts_of"]


def facts_of(
    keeper: Keeper,
    acme: Iterable[AcmeView],
    processes: tuple[ProcessFact, ...],
    *,
    started: float,
    ready: bool,
    restarts: int = 0,
) -> Facts:
    """``restarts``: of workers that were not told to end."""
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
        acme=tuple(
            AcmeFact(view.name, each.domain, each.state, each.not_after, each.failures)
            for view in acme
            for each in view.certificates
        ),
    )
