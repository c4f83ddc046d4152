"""One request's way through a plan, told of answers and saying what to ask. Theory of operation.

A part is asked as soon as all parts that it needs are settled: by one request, or with `for_each` one for
each element. `_settle` ends it, once, and begins those that have waited for it.

    part      waiting -> asked -> ok | failed | skipped
    run       asking -> streaming -> over;  asking -> over

Nothing here suspends, sleeps or raises for what a client or an upstream does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fastgate.aggregation.answer import compose, problem, status_of
from fastgate.aggregation.asking import Requests
from fastgate.aggregation.caching import Fields
from fastgate.aggregation.documents import MISSING, Value, opened
from fastgate.aggregation.failures import PartFailure
from fastgate.aggregation.streaming import stream_of
from fastgate.aggregation.values import ClientValues, PartValue, Values

if TYPE_CHECKING:
    from fastgate import _core
    from fastgate.aggregation.plan import PartPlan, Plan

__all__ = ["Outcome", "Run"]


class Outcome(NamedTuple):
    """How a part ended; without a failure and without a value it was skipped. shaped: what the answer has of
    it; MISSING for nothing. fields: of its answers, those that were looked at."""

    shaped: Any = MISSING
    failure: PartFailure | None = None
    fields: Sequence[Fields] = ()


class Items:
    """The elements of a part's `for_each`."""

    __slots__ = ("active", "elements", "fields", "next", "results")

    def __init__(self, elements: list[Value]) -> None:
        self.elements = elements
        self.results: list[Any] = [MISSING] * len(elements)
        self.fields: dict[int, Fields] = {}
        self.next = 0
        self.active = 0


class Run:
    """gathering: asks, answers, and is told of deadlines. Its methods call one another, never themselves."""

    def __init__(self, plan: Plan, gathering: _core.Gathering, client: ClientValues) -> None:
        self.plan: Final = plan
        self.gathering: Final = gathering
        #: What templates see: the values of parts that are there, defaults of those that failed among them.
        self.values: Final[dict[str, PartValue]] = {}
        self.outcomes: Final[list[Outcome | None]] = [None] * len(plan.parts)
        self._base: Final = Values(client, self.values)
        self._waiting: Final = list(plan.needs)
        self._left = len(plan.parts)
        self._successes = 0
        self._requests: Final = Requests(plan, gathering, self)
        self._items: dict[int, Items] = {}
        self._ready: deque[PartPlan] = deque()
        self._stream = stream_of(plan)
        self._advancing = False
        self._done = False

    # -- events ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._ready.extend(part for part in self.plan.parts if not part.needs)
        self._advance()

    def answered(self, answer: Any) -> None:
        if not self._done:
            self._requests.answered(answer)
            if self._ready or not self._left:
                self._advance()

    def got(self, part: PartPlan, index: int, value: Value, status: int, fields: Fields) -> None:
        """A request has its answer."""
        if index < 0:
            self._succeed(part, value, status, [fields])
            return
        items = self._items[part.index]
        items.active -= 1
        items.results[index] = value
        items.fields[index] = fields
        self._feed(part, items)

    def lost(self, part: PartPlan, index: int, failure: PartFailure) -> None:
        """A request has none."""
        if failure.reason == "aggregate-memory":
            self._end(failure, part)
        elif index < 0:
            self._fail(part, failure)
        else:
            items = self._items[part.index]
            items.active -= 1
            if not self._item_failed(part, items, index, failure):
                self._feed(part, items)

    def expired(self) -> None:
        """The plan's `timeout` has passed."""
        failure = PartFailure("part-timeout", "the aggregation's timeout")
        late = [part for part in self.plan.parts if self.outcomes[part.index] is None]
        self._requests.give_up(*late)
        for part in late:
            if not self._done:
                self._fail(part, failure)
        self._advance()

    def over(self) -> None:
        """The exchange has ended, or nothing more can be asked for it."""
        self._done = True
        self._requests.over()

    # -- parts -----------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Begins what can begin, and ends the run when it can end."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while self._ready and not self._done:
                self._begin(self._ready.popleft())
            if self._left == 0 and not self._done:
                self._finish()
        finally:
            self._advancing = False

    def _begin(self, part: PartPlan) -> None:
        if self.outcomes[part.index] is not None:
            return
        for index in part.needs:
            needed = self.outcomes[index]
            assert needed is not None
            if self.plan.parts[index].name in self.values:
                continue
            if needed.failure is None:
                self._skip(part)  # as the one that it needs
            else:
                self._fail(part, PartFailure("part-dependency", f"it needs {self.plan.parts[index].name}"))
            return
        try:
            if part.when is not None and not part.when(self._base):
                self._skip(part)
            elif part.items is not None:
                self._begin_items(part)
            else:
                self._requests.ask(part, -1, part.request.build(self._base))
        except PartFailure as failure:
            self._fail(part, failure)

    def _begin_items(self, part: PartPlan) -> None:
        assert part.items is not None
        assert part.for_each is not None
        elements = _opened_list(part.items(self._base))
        if len(elements) > part.for_each.max_items:
            raise PartFailure(
                "part-too-large", f"{len(elements)} elements, and at most {part.for_each.max_items}"
            )
        items = self._items[part.index] = Items(elements)
        if not elements:
            self._items_done(part, items)
        else:
            self._feed(part, items)

    def _feed(self, part: PartPlan, items: Items) -> None:
        """Asks for elements until as many are under way as may be."""
        assert part.for_each is not None
        while (
            items.next < len(items.elements)
            and items.active < part.for_each.concurrency
            and self.outcomes[part.index] is None
        ):
            index = items.next
            items.next += 1
            items.active += 1
            try:
                request = part.request.build(self._base.at(items.elements[index], index))
            except PartFailure as failure:
                items.active -= 1
                if self._item_failed(part, items, index, failure):
                    return
                continue
            self._requests.ask(part, index, request)
        if items.active == 0 and items.next == len(items.elements) and self.outcomes[part.index] is None:
            self._items_done(part, items)

    def _item_failed(self, part: PartPlan, items: Items, index: int, failure: PartFailure) -> bool:
        """True: with it the whole part has failed."""
        assert part.for_each is not None
        if part.for_each.on_failure == "fail":
            self._requests.give_up(part)
            self._fail(part, failure)
            return True
        items.results[index] = None if part.for_each.on_failure == "null" else MISSING
        return False

    def _items_done(self, part: PartPlan, items: Items) -> None:
        fields = [items.fields[index] for index in sorted(items.fields)]
        self._succeed(part, [one for one in items.results if one is not MISSING], 0, fields)

    def _succeed(self, part: PartPlan, value: Value, status: int, fields: list[Fields]) -> None:
        shaped: Any = MISSING
        try:
            if not part.omit:
                shaped = value if part.shape is None else part.shape(value, self._base)
                if self._stream is None:
                    shaped = self.plan.merger.fitted(part.name, shaped)
        except PartFailure as failure:
            self._fail(part, failure)
            return
        part.tally.ok()
        if part.needed_by:
            self.values[part.name] = PartValue(value, status, dict(reversed(fields[0])) if fields else {})
        self._successes += 1
        self._settle(part, Outcome(shaped, None, fields))

    def _skip(self, part: PartPlan) -> None:
        part.tally.skipped()
        self._settle(part, Outcome())

    def _fail(self, part: PartPlan, failure: PartFailure) -> None:
        if self.outcomes[part.index] is not None:
            return
        part.tally.failed()
        shaped: Any = MISSING
        if part.default is not MISSING:
            self.values[part.name] = PartValue(part.default, 0)
            if not part.omit:
                shaped = part.default
        self._settle(part, Outcome(shaped, failure.kept()))

    def _settle(self, part: PartPlan, outcome: Outcome) -> None:
        if self.outcomes[part.index] is not None or self._done:
            return
        self.outcomes[part.index] = outcome
        self._left -= 1
        for index in part.needed_by:
            self._waiting[index] -= 1
            if self._waiting[index] == 0:
                self._ready.append(self.plan.parts[index])
        policy = self.plan.config.policy
        if outcome.failure is not None and (policy == "all" or (policy == "required" and part.required)):
            self._end_failed(part)
        elif policy == "first" and outcome.failure is None and outcome.shaped is not MISSING:
            self._end_ok([part.index])
        elif (
            policy == "quorum"
            and self._successes + self._left < self.plan.config.quorum
            and (failed := self._failed())
        ):
            self._end_failed(part if outcome.failure is not None else failed[0])
        elif self._stream is not None:
            self._streamed(part, outcome)

    # -- the end ---------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Every part is settled."""
        policy = self.plan.config.policy
        failed = self._failed()
        if failed and (
            (policy in ("any", "first") and not self._successes)
            or (policy == "quorum" and self._successes < self.plan.config.quorum)
        ):
            self._end_failed(failed[0])
        else:
            self._end_ok(range(len(self.plan.parts)))

    def _failed(self) -> list[PartPlan]:
        return [part for part in self.plan.parts if self._failure(part) is not None]

    def _failure(self, part: PartPlan) -> PartFailure | None:
        outcome = self.outcomes[part.index]
        return None if outcome is None else outcome.failure

    def _end_ok(self, chosen: Any) -> None:
        if self._done:
            return
        parts = [self.plan.parts[index] for index in chosen]
        failed = [part for part in parts if self._failure(part) is not None]
        self._note(bool(failed))
        reason = "aggregate-partial" if failed else ""
        detail = self._told(failed) if failed else None
        if self._stream is not None:
            self._done = True
            piece = self._stream.end([(part.name, self._failure(part)) for part in failed])
            if self._stream.begun:
                self.gathering.end_stream(piece, reason, detail)
            else:
                self.gathering.respond(self.plan.config.status, self._stream.lines, piece, reason, detail)
            return
        try:
            status, lines, body, collisions = compose(
                self.plan, [(part, outcome) for part in parts if (outcome := self.outcomes[part.index])]
            )
            if not self.gathering.charge(len(body)):
                raise PartFailure("aggregate-memory", "the answer")
        except PartFailure as failure:
            self._end(failure, None)
            return
        if collisions:
            detail = f"{detail}; {collisions}" if detail else collisions
        self._done = True
        self.gathering.respond(status, lines, body, reason, detail)

    def _end_failed(self, part: PartPlan) -> None:
        failure = self._failure(part)
        assert failure is not None
        while failure.reason == "part-dependency":
            # What the client is told goes by the part that has failed first.
            part, failure = next(
                (other, found)
                for other in map(self.plan.parts.__getitem__, part.needs)
                if (found := self._failure(other)) is not None and other.name not in self.values
            )
        self._end(failure, part)

    def _end(self, failure: PartFailure, part: PartPlan | None) -> None:
        """There is no answer, or no more of it. part: whose failure it is."""
        if self._done:
            return
        self._note(True)
        failed = self._failed()
        reason, status = status_of(failure, part)
        detail = self._told(failed) if failed else f"{failure}"
        self._done = True
        if self._stream is not None and self._stream.begun and self._stream.tells_failures:
            told = [(one.name, self._failure(one)) for one in failed] or [("", failure)]
            self.gathering.end_stream(self._stream.end(told), reason, detail)
            return
        self.gathering.fail(
            reason, status, detail, problem([(one.name, self._failure(one)) for one in failed])
        )

    def _streamed(self, part: PartPlan, outcome: Outcome) -> None:
        assert self._stream is not None
        piece = self._stream.settled(part, outcome)
        if not piece:
            return
        if not self._stream.begun:
            self._stream.begun = True
            self.gathering.begin_stream(self.plan.config.status, self._stream.lines, piece)
        else:
            self.gathering.write(piece)

    def _told(self, failed: list[PartPlan]) -> str:
        """For the log: each part and why."""
        return "; ".join(f"{part.name}: {self._failure(part)}" for part in failed)[:1024]

    def _note(self, failed: bool) -> None:
        """The waterfall, for who looks at it later."""
        if not failed and not self.gathering.traced:
            return
        for answer in self._requests.trail:
            asking = answer.call
            name = asking.part.name if asking.index < 0 else f"{asking.part.name}[{asking.index}]"
            self.gathering.note(
                name,
                answer.began,
                answer.took,
                answer.status,
                answer.reason,
                answer.upstream,
                answer.endpoint,
                answer.attempts,
            )
        asked = {answer.call.part for answer in self._requests.trail}
        for part in self.plan.parts:
            failure = self._failure(part)
            if failure is not None and part not in asked:
                self.gathering.note(part.name, self.gathering.age_ns, 0, 0, failure.reason, "", "", 0)


def _opened_list(value: Any) -> list[Value]:
    if value is MISSING:
        raise PartFailure("part-value", "the list of for_each is not there")
    value = opened(value)
    if not isinstance(value, list):
        raise PartFailure("part-type", "what for_each names is no list")
    return value
