"""The one answer: its status, its fields, and what tells of parts that failed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from fastgate.aggregation.caching import Fields, combine
from fastgate.aggregation.documents import MISSING, Value
from fastgate.aggregation.failures import PartFailure
from fastgate.aggregation.merge import Merged

if TYPE_CHECKING:
    from fastgate.aggregation.plan import PartPlan, Plan
    from fastgate.aggregation.run import Outcome

__all__ = ["compose", "failures_of", "partial_lines", "partial_of", "problem", "status_of"]

Failed = Iterable[tuple[str, PartFailure | None]]

_JSON: Final = b"Content-Type: application/json\r\n"
_UNQUOTED: Final = re.compile(r"[^ !#-\[\]-~]")  # RFC 9651 3.3.3
# Of what frames or describes the part's own message nothing goes on (RFC 9110 7.6.1, 8).
_NEVER: Final = frozenset(
    (
        "connection", "content-encoding", "content-length", "content-type", "keep-alive", "proxy-connection",
        "te", "trailer", "transfer-encoding", "upgrade", "cache-control", "age", "expires", "date", "etag",
        "last-modified",
    )
)  # fmt: skip


def compose(plan: Plan, ended: Sequence[tuple[PartPlan, Outcome]]) -> tuple[int, bytes, bytes, str]:
    """Status, field lines, body, and the collisions that `on_collision` has decided ("" for none). Raises
    PartFailure("aggregate-collision")."""
    config = plan.config
    failed = [(part.name, outcome.failure) for part, outcome in ended if outcome.failure is not None]
    merged = plan.merger.merge(
        {part.name: outcome.shaped for part, outcome in ended if outcome.shaped is not MISSING}
    )
    if failed and config.errors_member and isinstance(merged.value, dict):
        merged.value[config.errors_member] = cast(Value, failures_of(failed))
    lines = [_JSON]
    if failed:
        lines.append(b"Cache-Control: no-store\r\n")
        lines.append(partial_lines(failed))
    else:
        said = combine([fields for _, outcome in ended for fields in outcome.fields], private=plan.private)
        if said:
            lines.append(f"Cache-Control: {said}\r\n".encode())
    if plan.vary:
        lines.append(plan.vary)
    lines += _passed(ended)
    status = config.partial_status if failed else config.status
    return status, b"".join(lines), merged.encode(), _told(merged) if merged.collided else ""


def _told(merged: Merged) -> str:
    """For the log."""
    first = ", ".join(f"{one.member} of {one.kept}, not of {one.lost}" for one in merged.collisions[:5])
    return f"{merged.collided} collisions: {first}"


def _passed(ended: Iterable[tuple[PartPlan, Outcome]]) -> Iterable[bytes]:
    """The fields that parts give to the client. Of one name in two answers the first one's counts, but each
    Set-Cookie stands for itself (RFC 6265 3)."""
    taken: dict[str, Fields] = {}
    for part, outcome in ended:
        if not part.headers:
            continue
        for fields in outcome.fields:
            for name, value in fields:
                if name not in part.headers or name in _NEVER:
                    continue
                if name == "set-cookie" or taken.setdefault(name, fields) is fields:
                    yield f"{name}: {value}\r\n".encode("latin-1", "replace")


def partial_of(failed: Failed) -> str:
    """A List of Structured Fields (RFC 9651 3.1): "reviews";reason=part-timeout."""
    return ", ".join(
        f'"{_UNQUOTED.sub("_", name)}";reason={failure.reason}' for name, failure in failed if failure
    )


def partial_lines(failed: Failed) -> bytes:
    """What an answer lacks, and why it is so."""
    told = (
        f'Fastgate-Partial: {partial_of(failed)}\r\nProxy-Status: fastgate; details="aggregate-partial"\r\n'
    )
    return told.encode("ascii")


def failures_of(failed: Failed) -> list[dict[str, Any]]:
    """What a client is told of each: no detail, which may be an upstream's own."""
    return [
        {"part": name, "reason": failure.reason} | ({"status": failure.status} if failure.status else {})
        for name, failure in failed
        if failure is not None
    ]


def problem(failed: Failed) -> dict[str, Any]:
    """Members of the problem+json of an aggregation without an answer."""
    return {"parts": failures_of(failed)}


def status_of(failure: PartFailure, part: PartPlan | None) -> tuple[str, int]:
    """Reason and status for the client, of the failure that has decided it."""
    if failure.reason in ("aggregate-collision", "aggregate-memory"):
        return failure.reason, 502
    timeout = failure.is_timeout
    mapped = None if part is None else failure.mapped(part.statuses)
    if mapped is not None:
        return ("aggregate-timeout" if timeout else "aggregate-failed"), mapped
    if failure.of_client:
        return "aggregate-request", 400
    return ("aggregate-timeout", 504) if timeout else ("aggregate-failed", 502)
