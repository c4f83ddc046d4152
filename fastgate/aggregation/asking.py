"""The requests of one run: each sent to whichever upstream answers it, given an answer that is kept, or made
to wait for the very same request that is under way already.

    asking    sent -> answered | lost;  sent -> lost -> sent, to the next of `fallback`
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, Final, Protocol

from fastgate import _core
from fastgate.aggregation.caching import Fields, Freshness
from fastgate.aggregation.decoders import decode_body
from fastgate.aggregation.documents import Value, size_of
from fastgate.aggregation.failures import PartFailure
from fastgate.aggregation.graphql import data_of
from fastgate.aggregation.requests import PartRequest

if TYPE_CHECKING:
    from fastgate.aggregation.part_cache import CachedAnswer
    from fastgate.aggregation.plan import PartPlan, Plan

__all__ = ["Requests", "Taker"]

_MIN_TIME_NS: Final = 1_000_000
# Failures that say nothing of what another exchange would have been told.
_OWN: Final = frozenset(("aggregate-memory", "part-value"))


class Taker(Protocol):
    """Who hears what has become of requests. index: of the element, -1 for a part's only request."""

    def got(self, part: PartPlan, index: int, value: Value, status: int, fields: Fields, /) -> None: ...
    def lost(self, part: PartPlan, index: int, failure: PartFailure, /) -> None: ...


class _Nobody:
    """A run that has ended."""

    def got(self, part: PartPlan, index: int, value: Value, status: int, fields: Fields, /) -> None: ...
    def lost(self, part: PartPlan, index: int, failure: PartFailure, /) -> None: ...


_NOBODY: Final = _Nobody()


class Asking:
    """One request of a part, to whichever upstream answers it."""

    __slots__ = ("fallback", "flight", "hurried", "index", "key", "part", "pending", "request", "sides")

    def __init__(self, part: PartPlan, index: int, request: PartRequest) -> None:
        self.part = part
        self.index = index  # of the element; -1: the part's only one
        self.request = request
        self.fallback = 0  # how many of `part.fallback` were tried
        self.pending = 0  # requests under way
        self.sides: list[Any] = []
        self.flight: Flight | None = None
        self.key: Hashable = None  # what is the same request, where others may have the answer
        self.hurried = False  # it was given less than its part's time


class Flight:
    """A request that others wait for, found by the key of its Asking. followers: those that would send it."""

    __slots__ = ("followers",)

    def __init__(self) -> None:
        self.followers: list[tuple[Requests, Asking]] = []

    def leave(self) -> list[tuple[Requests, Asking]]:
        """The followers, who are none any more. One may be given up while another is told."""
        followers, self.followers = self.followers, []
        for _, follower in followers:
            follower.flight = None
        return followers


class Requests:
    """Of one run. Its methods may be called while one of the taker's runs."""

    def __init__(self, plan: Plan, gathering: _core.Gathering, taker: Taker) -> None:
        self._plan = plan
        self._gathering = gathering
        self._taker: Taker = taker
        self._began = gathering.age_ns  # what went before, such as the client's body, is not the parts' time
        self._waiting: set[Asking] = set()
        self._flights: dict[Hashable, Flight] = {}
        #: Requests that have ended, in this order: ``_core.PartAnswer``s without a body, or what is like one.
        self.trail: Final[list[Any]] = []

    def ask(self, part: PartPlan, index: int, request: PartRequest) -> None:
        self._ask(Asking(part, index, request))

    def answered(self, answer: Any) -> None:
        """answer: a ``_core.PartAnswer``, or what was given to ``deliver``."""
        asking: Asking = answer.call
        if asking not in self._waiting:
            return
        asking.pending -= 1
        part = asking.part
        self.trail.append(answer)
        if asking.flight is not None:
            self._land(asking, answer)
        try:
            value = self._value_of(asking, answer)
        except PartFailure as failure:
            answer.forget()
            self._failed(asking, failure)
            return
        answer.forget()
        if asking.pending:
            for side in asking.sides:
                self._gathering.give_up(side)
        self._waiting.discard(asking)
        part.tally.took(answer.took)
        self._taker.got(part, asking.index, value, answer.status, answer.fields)

    def give_up(self, *parts: PartPlan) -> None:
        """Nobody wants the answers of these parts any more."""
        given = [one for one in self._waiting if one.part in parts]
        self._waiting.difference_update(given)  # first: one that waits for another would ask itself
        for asking in given:
            self._leave(asking)
            for side in asking.sides:
                self._gathering.give_up(side)

    def over(self) -> None:
        """Nothing can be asked any more."""
        self._taker = _NOBODY  # the run knows us: neither would go before the garbage is collected
        waiting, self._waiting = self._waiting, set()
        for asking in waiting:
            self._leave(asking)

    # -- sending

    def _ask(self, asking: Asking) -> None:
        part = asking.part
        self._waiting.add(asking)
        if part.cache_ns or part.shared:
            # What the gateway tells of the client's request may stand in the answer: its host, in a link.
            told = self._gathering.told
            asking.key = (asking.request, told, part.first, part.max_body, part.timeout_ns)
        if part.cache_ns:
            assert self._plan.cache is not None
            kept = self._plan.cache.get(asking.key, _core.monotonic_ns())
            if kept is not None:
                part.tally.cached()
                self._deliver(_Kept(asking, kept))
                return
        if part.shared and not self._join(asking):
            return
        self._send_first(asking)

    def _send_first(self, asking: Asking) -> None:
        for upstream in asking.part.first:
            self._send(asking, upstream)

    def _flights_of(self, part: PartPlan) -> dict[Hashable, Flight]:
        return self._plan.flights if part.coalesce else self._flights

    def _join(self, asking: Asking) -> bool:
        """False: it waits for a request that is under way. Across exchanges by `coalesce` alone."""
        flights = self._flights_of(asking.part)
        flight = flights.get(asking.key)
        if flight is not None:
            flight.followers.append((self, asking))
            asking.flight = flight
            asking.part.tally.coalesced()
            return False
        asking.flight = flights[asking.key] = Flight()
        return True

    def _land(self, asking: Asking, answer: Any) -> None:
        """Its answer is that of all who wait for it, but for what is its exchange's own."""
        flight, asking.flight = asking.flight, None
        assert flight is not None
        self._flights_of(asking.part).pop(asking.key, None)
        followers = flight.leave()
        own = any(one is not self for one, _ in followers) and not _for_all(asking, answer)
        for requests, follower in followers:
            if follower not in requests._waiting:
                continue
            if own and requests is not self:
                requests._send_first(follower)
            else:
                requests._deliver(_Shared(follower, answer))

    def _leave(self, asking: Asking) -> None:
        """Whoever waits for what is not asked any more asks itself."""
        flight, asking.flight = asking.flight, None
        if flight is None:
            return
        if (self, asking) in flight.followers:
            flight.followers.remove((self, asking))
            return
        flights = self._flights_of(asking.part)
        if flights.get(asking.key) is flight:
            del flights[asking.key]
        for requests, follower in flight.leave():
            if follower in requests._waiting and not requests._gathering.gone:
                requests._ask(follower)

    def _deliver(self, answer: Any) -> None:
        answer.call.pending += 1
        self._gathering.deliver(answer)

    def _send(self, asking: Asking, upstream: _core.Upstream) -> None:
        part = asking.part
        left = self._plan.timeout_ns - (self._gathering.age_ns - self._began)
        request = asking.request
        asking.pending += 1
        asking.hurried = left < part.timeout_ns
        try:
            side = self._gathering.ask(
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
            asking.pending -= 1
            self._deliver(_Refused(asking, str(error)))
        else:
            asking.sides.append(side)

    # -- answers

    def _failed(self, asking: Asking, failure: PartFailure) -> None:
        part = asking.part
        if asking.pending:
            return  # of a race, another is under way
        if asking.fallback < len(part.fallback) and failure.reason != "aggregate-memory":
            asking.fallback += 1
            self._send(asking, part.fallback[asking.fallback - 1])
            return
        self._waiting.discard(asking)
        self._taker.lost(part, asking.index, failure)

    def _value_of(self, asking: Asking, answer: Any) -> Value:
        part = asking.part
        if answer.reason:
            raise PartFailure(answer.reason, answer.detail or "", status=answer.status)
        status = answer.status
        if status not in part.success:
            raise PartFailure("part-status", f"status {status}", status=status)
        kind = None
        for name, text in answer.fields:
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
        if type(answer) is not _core.PartAnswer and not self._gathering.charge(len(answer.body)):
            raise PartFailure("aggregate-memory", "an answer that is kept or shared")
        if not part.json and not self._gathering.charge(size_of(value)):
            raise PartFailure("aggregate-memory", "a decoded body")
        if part.cache_ns and type(answer) is _core.PartAnswer:
            assert self._plan.cache is not None
            request = asking.request
            self._plan.cache.put(
                asking.key,
                status,
                answer.fields,
                answer.body,
                part.cache_ns,
                _core.monotonic_ns(),
                len(request.target) + len(request.fields) + len(request.body),
            )
        return value


def _for_all(asking: Asking, answer: Any) -> bool:
    """Whether other exchanges that wait for it may have it too. One that forbids to be kept satisfies no
    other request (RFC 9111 5.2.2.5), and a cookie is one client's."""
    if answer.reason:
        return answer.reason not in _OWN and not (answer.reason == "part-timeout" and asking.hurried)
    return Freshness.of(answer.fields).storable and all(name != "set-cookie" for name, _ in answer.fields)


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
        "upstream",
    )

    body: bytes

    def forget(self) -> None:
        self.body = b""


class _Shared(_Told):
    """That of another Asking."""

    def __init__(self, asking: Asking, answer: Any) -> None:
        for name in _Told.__slots__:
            setattr(self, name, getattr(answer, name))
        self.call = asking


class _Kept(_Told):
    """One that was kept."""

    def __init__(self, asking: Asking, kept: CachedAnswer) -> None:
        self.call = asking
        self.status, self.body = kept.status, kept.body
        self.fields = kept.aged(_core.monotonic_ns())
        self.reason, self.detail, self.endpoint, self.upstream = "", None, "", ""
        self.attempts = self.began = self.took = 0


class _Refused(_Told):
    """A request that is none."""

    def __init__(self, asking: Asking, detail: str) -> None:
        self.call = asking
        self.status, self.body = 0, b""
        self.fields: list[tuple[str, str]] = []
        self.reason, self.detail, self.endpoint, self.upstream = "part-value", detail, "", ""
        self.attempts = self.began = self.took = 0
