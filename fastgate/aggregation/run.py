"""One request's way through a plan, told of answers and saying what to ask. Theory of operation.

A part is asked as soon as all parts that it needs are settled; `_settle` ends it, once, and begins those
that have waited for it. What a part asks is an Asking: one, or with `for_each` one for each element. It may
send to several upstreams at a time (`race`) or one after the other (`fallback`), may be given an answer
that is kept (`cache`), or wait for another Asking that has sent the very same request (a Flight).

    part      waiting -> asked -> ok | failed | skipped
    run       asking -> streaming -> over;  asking -> over

Nothing here suspends, sleeps or raises for what a client or an upstream does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fastgate import _core
from fastgate.aggregation.answer import compose, problem, status_of
from fastgate.aggregation.decoders import decode_body
from fastgate.aggregation.documents import MISSING, Value, opened, size_of
from fastgate.aggregation.failures import PartFailure
from fastgate.aggregation.graphql import data_of
from fastgate.aggregation.streaming import stream_of
from fastgate.aggregation.values import ClientValues, PartValue, Values, compile_placeholder

if TYPE_CHECKING:
    from fastgate.aggregation.plan import Gathering, PartPlan, Plan

__all__ = ["Outcome", "Run"]

_MIN_TIME_NS: Final = 1_000_000


class Outcome(NamedTuple):
    """How a part ended; without a failure and without a value it was skipped. shaped: what the answer has of
    it; MISSING for nothing. fields: of its answers, those that were looked at."""

    ok: bool = False
    shaped: Any = MISSING
    failure: PartFailure | None = None
    fields: Sequence[Sequence[tuple[str, str]]] = ()


class Asking:
    """One request of a part, to whichever upstream answers it."""

    __slots__ = ("fallback", "flight", "index", "part", "pending", "request", "sides", "upstream")

    def __init__(self, part: PartPlan, index: int, request: Any) -> None:
        self.part = part
        self.index = index  # of the element; -1: the part's only one
        self.request = request
        self.fallback = 0  # how many of `part.fallback` were tried
        self.pending = 0  # requests under way
        self.sides: list[Any] = []
        self.flight: Flight | None = None
        self.upstream = ""


class Flight:
    """A request that others wait for. followers: those that would send the same one."""

    __slots__ = ("followers", "key", "run")

    def __init__(self, key: Hashable, run: Run) -> None:
        self.key = key
        self.run = run
        self.followers: list[tuple[Run, Asking]] = []


class Items:
    """The elements of a part's `for_each`."""

    __slots__ = ("active", "elements", "fields", "next", "results", "values")

    def __init__(self, elements: list[Value], values: Values) -> None:
        self.elements = elements
        self.values = values
        self.results: list[Any] = [MISSING] * len(elements)
        self.fields: list[list[tuple[str, str]]] = []
        self.next = 0
        self.active = 0


class Run:
    """gathering: asks, answers, and is told of deadlines. Its methods call one another, never themselves."""

    def __init__(self, plan: Plan, gathering: Gathering, client: ClientValues) -> None:
        self.plan: Final = plan
        self.gathering: Final = gathering
        self.client: Final = client
        #: What templates see: the values of parts that are there, defaults of those that failed among them.
        self.values: Final[dict[str, PartValue]] = {}
        self.outcomes: Final[list[Outcome | None]] = [None] * len(plan.parts)
        self._base: Final = Values(client, self.values)
        self._waiting: Final = list(plan.needs)
        self._left = len(plan.parts)
        self._successes = 0
        self._items: dict[int, Items] = {}
        self._askings: set[Asking] = set()  # that wait for something
        self._flights: dict[Hashable, Flight] = {}
        self._ready: deque[PartPlan] = deque()
        self._trail: list[tuple[Asking, Any]] = []
        self._stream = stream_of(plan)
        self._advancing = False
        self._done = False

    # -- events ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._ready.extend(part for part in self.plan.parts if not part.needs)
        self._advance()

    def answered(self, answer: Any) -> None:
        asking: Asking = answer.call
        if self._done or asking not in self._askings:
            return
        flight, asking.flight = asking.flight, None
        if flight is not None and flight.run is self and flight.key is not None:
            self._land(flight, answer)
        asking.pending -= 1 if asking.pending else 0
        self._trail.append((asking, answer))
        try:
            value, fields = self._value_of(asking, answer)
        except PartFailure as failure:
            self._asking_failed(asking, failure)
        else:
            for side in asking.sides:
                if asking.pending:
                    self.gathering.give_up(side)
            self._askings.discard(asking)
            asking.part.tally.took(answer.took)
            self._asking_ok(asking, value, answer.status, fields)
        self._advance()

    def expired(self) -> None:
        """The plan's `timeout` has passed."""
        failure = PartFailure("part-timeout", "the aggregation's timeout")
        for part in self.plan.parts:
            if self.outcomes[part.index] is None and not self._done:
                self._give_up(part)
                self._fail(part, failure)
        self._advance()

    def over(self) -> None:
        """The exchange has ended, or nothing more can be asked for it."""
        self._done = True
        for asking in self._askings:
            if asking.flight is not None:
                self._leave(asking, asking.flight)
        self._askings.clear()

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
                self._ask(Asking(part, -1, part.request.build(self._base)))
        except PartFailure as failure:
            self._fail(part, failure)

    def _begin_items(self, part: PartPlan) -> None:
        assert part.items is not None
        assert part.for_each is not None
        elements = opened_list(compile_placeholder(part.items)(self._base))
        if len(elements) > part.for_each.max_items:
            raise PartFailure(
                "part-too-large", f"{len(elements)} elements, and at most {part.for_each.max_items}"
            )
        items = self._items[part.index] = Items(elements, self._base)
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
                request = part.request.build(items.values.at(items.elements[index], index))
            except PartFailure as failure:
                items.active -= 1
                if self._item_failed(part, items, index, failure):
                    return
                continue
            self._ask(Asking(part, index, request))
        if items.active == 0 and items.next == len(items.elements) and self.outcomes[part.index] is None:
            self._items_done(part, items)

    def _item_failed(self, part: PartPlan, items: Items, index: int, failure: PartFailure) -> bool:
        """True: with it the whole part has failed."""
        assert part.for_each is not None
        if part.for_each.on_failure == "fail":
            self._give_up(part)
            self._fail(part, failure)
            return True
        items.results[index] = None if part.for_each.on_failure == "null" else MISSING
        return False

    def _items_done(self, part: PartPlan, items: Items) -> None:
        self._succeed(part, [one for one in items.results if one is not MISSING], 0, items.fields)

    def _succeed(
        self, part: PartPlan, value: Value, status: int, fields: list[list[tuple[str, str]]]
    ) -> None:
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
        self.values[part.name] = PartValue(value, status, dict(reversed(fields[0])) if fields else {})
        self._successes += 1
        self._settle(part, Outcome(True, shaped, None, fields))

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
        self._settle(part, Outcome(False, shaped, failure))

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
        elif policy == "first" and outcome.ok and outcome.shaped is not MISSING:
            self._end_ok([part.index])
        elif policy == "quorum" and self._successes + self._left < self.plan.config.quorum:
            self._end_failed(part)
        elif self._stream is not None:
            self._streamed(part, outcome)

    def _give_up(self, part: PartPlan) -> None:
        for asking in [one for one in self._askings if one.part is part]:
            self._askings.discard(asking)
            if asking.flight is not None:
                self._leave(asking, asking.flight)
            for side in asking.sides:
                self.gathering.give_up(side)

    # -- requests --------------------------------------------------------------------------------------------

    def _ask(self, asking: Asking) -> None:
        part = asking.part
        self._askings.add(asking)
        if part.cache_ns and part.request.method == "GET":
            assert self.plan.cache is not None
            kept = self.plan.cache.get(self._key(asking), _core.monotonic_ns())
            if kept is not None:
                part.tally.cached()
                self.gathering.deliver(_Kept(asking, kept))
                return
        if part.safe and len(part.first) == 1 and not self._join(asking):
            return
        for upstream in part.first:
            self._send(asking, upstream)

    def _key(self, asking: Asking) -> Hashable:
        part = asking.part
        return (asking.request, part.first, part.max_body, part.timeout_ns)

    def _join(self, asking: Asking) -> bool:
        """False: it waits for a request that is under way. Across exchanges by `coalesce` alone."""
        flights = self.plan.flights if asking.part.coalesce else self._flights
        key = self._key(asking)
        flight = flights.get(key)
        if flight is not None:
            flight.followers.append((self, asking))
            asking.flight = flight
            asking.part.tally.coalesced()
            return False
        asking.flight = flights[key] = Flight(key, self)
        return True

    def _land(self, flight: Flight, answer: Any) -> None:
        """Its answer, whatever it is, is that of all who wait for it."""
        flights = self.plan.flights if answer.call.part.coalesce else self._flights
        flights.pop(flight.key, None)
        for run, asking in flight.followers:
            asking.flight = None
            run.gathering.deliver(_Shared(asking, answer))

    def _leave(self, asking: Asking, flight: Flight) -> None:
        """Whoever waits for what is not asked any more asks itself."""
        asking.flight = None
        if (self, asking) in flight.followers:
            flight.followers.remove((self, asking))
            return
        flights = self.plan.flights if asking.part.coalesce else self._flights
        if flights.get(flight.key) is flight:
            del flights[flight.key]
        followers, flight.followers = flight.followers, []
        for run, follower in followers:
            follower.flight = None
            if not run._done:
                run._askings.discard(follower)
                run._ask(follower)

    def _send(self, asking: Asking, upstream: _core.Upstream) -> None:
        part = asking.part
        left = self.plan.timeout_ns - self.gathering.age_ns
        request = asking.request
        asking.pending += 1
        asking.upstream = upstream.name
        try:
            side = self.gathering.ask(
                asking,
                upstream,
                request.method,
                request.target,
                request.fields,
                request.body,
                max(_MIN_TIME_NS, min(part.timeout_ns, left)),
                part.max_body,
                part.retry,
            )
        except ValueError as error:
            self.gathering.deliver(_Refused(asking, str(error)))
        else:
            asking.sides.append(side)

    def _asking_failed(self, asking: Asking, failure: PartFailure) -> None:
        part = asking.part
        if failure.reason == "aggregate-memory":
            self._end(failure, part)
            return
        if asking.pending:
            return  # of a race, another is under way
        if asking.fallback < len(part.fallback):
            asking.fallback += 1
            self._send(asking, part.fallback[asking.fallback - 1])
            return
        self._askings.discard(asking)
        if asking.index < 0:
            self._fail(part, failure)
            return
        items = self._items[part.index]
        items.active -= 1
        if not self._item_failed(part, items, asking.index, failure):
            self._feed(part, items)

    def _asking_ok(self, asking: Asking, value: Value, status: int, fields: list[tuple[str, str]]) -> None:
        part = asking.part
        if asking.index < 0:
            self._succeed(part, value, status, [fields])
            return
        items = self._items[part.index]
        items.active -= 1
        items.results[asking.index] = value
        items.fields.append(fields)
        self._feed(part, items)

    def _value_of(self, asking: Asking, answer: Any) -> tuple[Value, list[tuple[str, str]]]:
        part = asking.part
        if answer.reason:
            raise PartFailure(answer.reason, answer.detail or "", status=answer.status)
        status, fields = answer.status, answer.fields
        if not any(low <= status <= high for low, high in part.success):
            raise PartFailure("part-status", f"status {status}", status=status)
        kind = None
        for name, text in fields:
            if name == "content-type":
                kind = text
            elif name == "content-encoding" and text.lower() != "identity":
                raise PartFailure(
                    "part-body", f"Content-Encoding: {text}, which nobody asked for", status=status
                )
        try:
            value = decode_body(answer.body, kind, part.decode, opening=part.opening)
            if part.graphql is not None:
                value = data_of(value, part.graphql.partial)
        except PartFailure as failure:
            failure.status = status
            raise
        if part.decode not in ("auto", "json") and not self.gathering.charge(size_of(value)):
            raise PartFailure("aggregate-memory", "a decoded body")
        if part.cache_ns and part.request.method == "GET" and type(answer) is _core.PartAnswer:
            assert self.plan.cache is not None
            self.plan.cache.put(
                self._key(asking), status, fields, answer.body, part.cache_ns, _core.monotonic_ns()
            )
        return value, fields

    # -- the end ---------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Every part is settled."""
        policy = self.plan.config.policy
        failed = [part for part in self.plan.parts if self._failure(part) is not None]
        if failed and (
            (policy in ("any", "first") and not self._successes)
            or (policy == "quorum" and self._successes < self.plan.config.quorum)
        ):
            self._end_failed(failed[0])
        else:
            self._end_ok(range(len(self.plan.parts)))

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
        self._end(failure, part)

    def _end(self, failure: PartFailure, part: PartPlan | None) -> None:
        """There is no answer, or no more of it. part: whose failure it is."""
        if self._done:
            return
        self._note(True)
        failed = [one for one in self.plan.parts if self._failure(one) is not None]
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
        for asking, answer in self._trail:
            name = asking.part.name if asking.index < 0 else f"{asking.part.name}[{asking.index}]"
            self.gathering.note(
                name,
                answer.began,
                answer.took,
                answer.status,
                answer.reason,
                asking.upstream,
                answer.endpoint,
                answer.attempts,
            )
        asked = {asking.part for asking, _ in self._trail}
        for part in self.plan.parts:
            failure = self._failure(part)
            if failure is not None and part not in asked:
                self.gathering.note(part.name, self.gathering.age_ns, 0, 0, failure.reason, "", "", 0)


class _Told:
    """An answer that comes from elsewhere than the wire, in the form of ``_core.PartAnswer``."""

    __slots__ = (
        "attempts",
        "began",
        "body",
        "call",
        "detail",
        "endpoint",
        "fields",
        "reason",
        "status",
        "took",
    )


class _Shared(_Told):
    """That of another Asking."""

    def __init__(self, asking: Asking, answer: Any) -> None:
        self.call = asking
        for name in ("attempts", "began", "body", "detail", "endpoint", "fields", "reason", "status", "took"):
            setattr(self, name, getattr(answer, name))
        asking.pending += 1


class _Kept(_Told):
    """One that was kept."""

    def __init__(self, asking: Asking, kept: Any) -> None:
        self.call = asking
        asking.pending += 1
        self.status, self.body = kept.status, kept.body
        age = (_core.monotonic_ns() - kept.stored_ns) // 1_000_000_000
        said = next((int(text) for name, text in kept.fields if name == "age" and text.isdigit()), 0)
        self.fields = [one for one in kept.fields if one[0] != "age"] + [("age", str(said + age))]
        self.reason, self.detail, self.endpoint = "", None, ""
        self.attempts = self.began = self.took = 0


class _Refused(_Told):
    """A request that is none."""

    def __init__(self, asking: Asking, detail: str) -> None:
        self.call = asking
        self.status, self.body = 0, b""
        self.fields: list[tuple[str, str]] = []
        self.reason, self.detail, self.endpoint = "part-value", detail, ""
        self.attempts = self.began = self.took = 0


def opened_list(value: Any) -> list[Value]:
    if value is MISSING:
        raise PartFailure("part-value", "the list of for_each is not there")
    value = opened(value)
    if not isinstance(value, list):
        raise PartFailure("part-type", "what for_each names is no list")
    return value
