"""Answers that are sent part by part, as parts arrive (`stream`).

ndjson   a line for each part, {"part": NAME, "value": ...} or {"part": NAME, "error": {...}}; and a last one,
         {"end": true}
events   the same as server-sent events: event "part", "error" and "end"
json     one object with a member for each part, in the order of the file; of one that failed null, or its
         `default`

The end of the first two names the parts that failed: {"end": true, "failed": [...]}. Where a part fails
without which there is no answer, they end with that; the third is cut short, as it could not say so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastgate.aggregation.answer import failures_of
from fastgate.aggregation.documents import MISSING, encode

if TYPE_CHECKING:
    from fastgate.aggregation.answer import Failed
    from fastgate.aggregation.plan import PartPlan, Plan
    from fastgate.aggregation.run import Outcome

__all__ = ["Stream", "stream_of"]

_TYPES: Final = {
    "ndjson": b"application/x-ndjson",
    "events": b"text/event-stream",
    "json": b"application/json",
}


class Stream:
    """begun: the head is on its way. tells_failures: its end can say that the whole has failed."""

    tells_failures = True

    def __init__(self, plan: Plan) -> None:
        self.begun = False
        # What arrives is as old as its parts, and not whole until its end.
        self.lines: Final = (
            b"Content-Type: " + _TYPES[plan.config.stream] + b"\r\nCache-Control: no-store\r\n"
        )

    def settled(self, part: PartPlan, outcome: Outcome) -> bytes:
        """What is sent now that a part has ended; b"" for nothing."""
        if part.omit or (outcome.failure is None and outcome.shaped is MISSING):
            return b""
        told: dict[str, Any] = {"part": part.name}
        if outcome.shaped is not MISSING:
            told["value"] = outcome.shaped
        if outcome.failure is not None:
            told["error"] = failures_of([(part.name, outcome.failure)])[0]
            if not self.begun and outcome.shaped is MISSING:
                return self._held(self._piece("error", told))
        return self._released() + self._piece("error" if outcome.failure is not None else "part", told)

    def end(self, failed: Failed) -> bytes:
        told: dict[str, Any] = {"end": True}
        if failed:
            told["failed"] = failures_of(failed)
        return self._released() + self._piece("end", told)

    # A failure begins no answer, since what is to come may still decide that there is none.
    _waiting = b""

    def _held(self, piece: bytes) -> bytes:
        self._waiting += piece
        return b""

    def _released(self) -> bytes:
        waiting, self._waiting = self._waiting, b""
        return waiting

    def _piece(self, kind: str, told: dict[str, Any]) -> bytes:
        # JSON from a service may have line breaks between its tokens; in strings they are escaped (RFC 8259).
        return encode(told).replace(b"\n", b" ").replace(b"\r", b" ") + b"\n"


class Events(Stream):
    def _piece(self, kind: str, told: dict[str, Any]) -> bytes:
        # JSON from a service may have line breaks between its tokens, and each line is one of its own there.
        return f"event: {kind}\n".encode() + b"".join(
            b"data: " + line + b"\n" for line in encode(told).splitlines()
        ) + b"\n"  # fmt: skip


class Members(Stream):
    """In order: what is there too early waits."""

    tells_failures = False

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._order = [part for part in plan.parts if not part.omit]
        self._ended: dict[str, Outcome] = {}
        self._next = 0
        self._sent = 0

    def settled(self, part: PartPlan, outcome: Outcome) -> bytes:
        self._ended[part.name] = outcome
        return self._take()

    def _take(self) -> bytes:
        pieces = []
        while self._next < len(self._order) and self._order[self._next].name in self._ended:
            part = self._order[self._next]
            outcome = self._ended.pop(part.name)
            self._next += 1
            if outcome.failure is None and outcome.shaped is MISSING:
                continue  # skipped
            value = None if outcome.shaped is MISSING else outcome.shaped
            pieces.append((b"," if self._sent else b"{") + encode(part.name) + b":" + encode(value))
            self._sent += 1
        return b"".join(pieces)

    def end(self, failed: Failed) -> bytes:
        return self._take() + (b"}" if self._sent else b"{}")


def stream_of(plan: Plan) -> Stream | None:
    """None: the answer is sent whole."""
    kinds: dict[str, type[Stream]] = {"ndjson": Stream, "events": Events, "json": Members}
    kind = kinds.get(plan.config.stream)
    return None if kind is None else kind(plan)
