"""What a GraphQL answer holds (GraphQL, October 2021, 7.1)."""

from __future__ import annotations

from fastgate.aggregation.documents import MISSING, Value, find, opened
from fastgate.aggregation.failures import PartFailure

__all__ = ["data_of"]

_MAX_MESSAGE = 200


def data_of(answer: Value, partial: bool) -> Value:
    """Its `data`. partial: errors beside it are no failure. Raises PartFailure("part-graphql")."""
    errors = find(answer, ("errors",))
    data = find(answer, ("data",))
    if errors is not MISSING:
        listed = opened(errors)
        if not (partial and data is not MISSING and opened(data) is not None):
            first = find(errors, (0, "message"))
            message = "" if first is MISSING else str(opened(first))
            count = len(listed) if isinstance(listed, list) else 1
            raise PartFailure("part-graphql", f"{count} errors, the first: {message[:_MAX_MESSAGE]}")
    if data is MISSING or opened(data) is None:
        raise PartFailure("part-graphql", "no data")
    return data
