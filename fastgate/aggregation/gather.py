"""Aggregation in Python: parts that are asked for together, and one answer of what they say.

    async with exchange.gather(timeout=2.0) as g:
        user = g.get("users", "/users/{}", user_id, type=User)
        offers = g.get("offers", "/offers", type=list[Offer], required=False, default=[])
        orders = g.get("orders", "/orders", query={"owner": (await user).key}, type=list[Order])
    page = Page(user.value, orders.value, offers.value)

Sans I/O: whoever makes a Gather gives it what asks (``Ask``) and the time. It makes no tasks and no timers of
its own: deadlines are kept by what asks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from itertools import islice
from math import inf
from types import TracebackType
from typing import Any, Final, Literal, Protocol, Self, TypedDict, TypeVar, Unpack, overload

import msgspec

from fastgate import _core
from fastgate.aggregation.answer import partial_of
from fastgate.aggregation.caching import combine
from fastgate.aggregation.escaping import header_value, path_of, query_of
from fastgate.aggregation.failures import PartFailure
from fastgate.aggregation.gather_part import Judging, Mapped, Part, PartsFailed
from fastgate.aggregation.gather_run import ElementsRun, Policy, Run
from fastgate.aggregation.gather_sending import Ask
from fastgate.aggregation.part_cache import PartCache
from fastgate.config.model.aggregate import MAX_ITEMS
from fastgate.config.model.basics import MIB

__all__ = ["Ask", "Gather", "Mapped", "Options", "Part", "PartFailure", "PartsFailed", "Policy", "gather_of"]

T = TypeVar("T")
V = TypeVar("V")

#: Of the time that an exchange has left, what is kept for its answer: a tenth, at most so many seconds.
_SPARE: Final = 0.1
_SUCCESS: Final = range(200, 300)
_FAILURE_CLASS: Final = re.compile(r"[1-5](?:[0-9]{2}|xx)|timeout|failure")


class Options(TypedDict, total=False):
    """What ``Gather.request`` takes beside."""

    name: str
    query: Mapping[str, object] | str | None
    headers: Mapping[str, object]
    json: Any
    body: bytes
    timeout: float
    success: Collection[int]
    statuses: Mapping[int | str, int]
    max_body: int
    retry: _core.RetryPolicy | None
    cache: float


class Asks(Protocol):
    """``Gather.request`` with a method. The value is of the type that is asked for, or None where the part is
    not required and has no default."""

    @overload
    def __call__(
        self,
        upstream: str,
        path: str,
        *values: object,
        type: type[T],
        required: Literal[True] = True,
        default: None = None,
        **options: Unpack[Options],
    ) -> Part[T]: ...
    @overload
    def __call__(
        self,
        upstream: str,
        path: str,
        *values: object,
        type: type[T],
        required: bool = True,
        default: T,
        **options: Unpack[Options],
    ) -> Part[T]: ...
    @overload
    def __call__(
        self,
        upstream: str,
        path: str,
        *values: object,
        type: type[T],
        required: bool,
        **options: Unpack[Options],
    ) -> Part[T | None]: ...
    @overload
    def __call__(
        self,
        upstream: str,
        path: str,
        *values: object,
        type: Any = Any,
        required: bool = True,
        default: Any = None,
        **options: Unpack[Options],
    ) -> Part[Any]: ...


class Gather(Run):
    """A block of parts. Leaving it waits for all of them; leaving it by an exception (also a cancellation,
    such as when the client leaves) gives up those that are under way, and so does a failure that leaves no
    answer.

    timeout: seconds for all parts together. policy: when there is an answer: "required" (all parts that are),
    "all" (each, whatever it says), "any" (at least one), "first" (the first that succeeds; the others are
    given up), "quorum" (at least ``quorum`` of them). max_parts: of ``get``, ``post`` and ``request``, beside
    the elements of ``map``. max_memory: bytes of all answers together; those under way are not counted before
    they are whole.
    """

    # -- the block

    async def __aenter__(self) -> Self:
        if self._entered:
            raise RuntimeError("a block of parts is entered once")
        self._entered = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._closing = True
                self._judge()
                await self.wait()
        finally:
            self._over = True
            self._give_up()
            for part in [*self.parts.values(), *self._each()]:
                part._leave()

    # -- what is asked for

    @property
    def get(self) -> Asks:
        """``request`` with GET: ``g.get(upstream, path, *values, type=..., ...)``."""
        return partial(self.request, "GET")

    @property
    def post(self) -> Asks:
        """``request`` with POST: ``g.post(upstream, path, *values, type=..., json=..., ...)``."""
        return partial(self.request, "POST")

    def request(
        self,
        method: str,
        upstream: str,
        path: str,
        *values: object,
        type: Any = Any,
        required: bool = True,
        default: Any = None,
        name: str = "",
        query: Mapping[str, object] | str | None = None,
        headers: Mapping[str, object] = {},
        json: Any = None,
        body: bytes = b"",
        timeout: float = 5.0,
        success: Collection[int] = _SUCCESS,
        statuses: Mapping[int | str, int] = {},
        max_body: int = MIB,
        retry: _core.RetryPolicy | None = None,
        cache: float = 0.0,
    ) -> Part[Any]:
        """Asks for a part, at once. GET and HEAD requests of a block that are the same are sent once.

        upstream: its name in the configuration. path: with ``{}`` for each of ``values``, which are
        percent-encoded and stay within their segment; an f-string does not escape. query: likewise; None
        leaves a parameter out, a list repeats it, a text is a query already. headers: None leaves one out.
        json: the body, by msgspec.

        type: what the body is decoded to, from JSON: a dataclass, a Struct, any type that msgspec knows;
        ``bytes`` and ``str`` for the body itself; None for nothing. Numbers without a type lose digits as
        Python's float does; ``Decimal`` and ``msgspec.Raw`` keep all.

        timeout: seconds, never more than what is left of the block's. retry: in place of the upstream's own.
        cache: seconds for which a worker keeps the good answer to a GET for other exchanges, where that does
        not forbid it, and no longer than it is fresh; a reload forgets it. success: status codes. max_body:
        bytes. required: without it there is no answer (policy "required"). default: the value of one that
        fails.
        statuses: what the client gets when this part is why there is no answer, by its status (404, "4xx"),
        "timeout" or "failure"; else 504 for a timeout and 502. name: how it is called in reasons; by default
        as its upstream.

        Raises PartsFailed where there is no answer any more; LookupError for an upstream that is not there.
        """
        self._may_ask()
        mapping = self._mapping
        if mapping is None and len(self.parts) >= self._max_parts:
            raise RuntimeError(f"more than {self._max_parts} parts: raise max_parts, or use map")
        if not 0 <= cache < inf:
            raise ValueError(f"{cache} is no time to keep an answer: it is 0 seconds or more")
        judging = Judging(type, success, statuses)
        _check_statuses(statuses)
        part: Part[Any] = Part(self, self._name(name or upstream), judging, required, default)
        part._mapping = mapping
        response = None
        try:
            target = path_of(path, values)
            if text := query_of(query):
                target = f"{target}?{text}"
            fields = {key: header_value(key, one) for key, one in headers.items() if one is not None}
            names = {key.lower() for key in fields}
            if "accept-encoding" not in names:
                fields["Accept-Encoding"] = "identity"  # no coding is undone
            if json is not None:
                body = msgspec.json.encode(json)
                if "content-type" not in names:
                    fields["Content-Type"] = "application/json"
            if self.first is None:
                response = self._send(
                    part, upstream, method, target, fields, body, timeout, max_body, retry, cache
                )
        except PartFailure as failure:
            self._add(part)
            self._settle(part, failure)
        else:
            self._add(part)
            if response is not None:
                self._judge_answer(part, response)
            elif self.first is not None:
                self._abandon(part)
        self.raise_failure()
        return part

    def map(
        self,
        items: Iterable[V],
        make: Callable[[V], Part[T]],
        *,
        name: str = "map",
        concurrency: int = 16,
        max_items: int = 100,
        required: bool = True,
        default: Any = None,
    ) -> Mapped[T]:
        """A part for each element: ``g.map(ids, lambda id: g.get("users", "/users/{}", id, type=User))``.

        make: asks for one part of this block, and returns it. One that fails and is required fails the whole;
        others have their default. concurrency: requests that are under way at one time. max_items: elements,
        at most 10,000; with more of them it fails.
        """
        self._may_ask()
        if self._mapping is not None:
            raise RuntimeError("a map within a map: gather the elements first")
        if not 1 <= max_items <= MAX_ITEMS or concurrency < 1:
            raise ValueError(f"max_items lies within 1 and {MAX_ITEMS}, and concurrency above 0")
        if len(self.parts) >= self._max_parts:
            raise RuntimeError(f"more than {self._max_parts} parts: raise max_parts")
        part: Mapped[T] = Mapped(self, self._name(name), required, default)
        elements = list(islice(items, max_items + 1))
        self._add(part)
        if self.first is not None:
            self._abandon(part)
        elif len(elements) > max_items:
            self._settle(part, PartFailure("part-too-large", f"more than {max_items} elements"))
        else:
            self._pump(ElementsRun(part, elements, make, concurrency))
        self.raise_failure()
        return part

    # -- what came of it

    @property
    def partial(self) -> str:
        """A value for the header Fastgate-Partial of an answer: which parts have failed, or an element of
        one, and why, as a List (RFC 9651 3.1); "": none has."""
        told = []
        for name, part in self.parts.items():
            failure = part.failure
            if failure is None and isinstance(part, Mapped):
                failure = next((one.failure for one in part.parts if one.failure is not None), None)
            told.append((name, failure))
        return partial_of(told)

    def cache_control(self, *, private: bool = False) -> str:
        """A Cache-Control for an answer that is made of all parts: the least of theirs. "no-store" when one
        has failed; "": they say nothing. private: the answer is one client's, since it hangs on its cookies,
        fields or claims."""
        if self.partial:
            return "no-store"
        return combine([part.headers.items() for part in self._each() if part.ok], private=private)


def _check_statuses(statuses: Mapping[int | str, int]) -> None:
    for key, status in statuses.items():
        if not _FAILURE_CLASS.fullmatch(str(key)) or not 400 <= status <= 599:
            raise ValueError(
                f"statuses: {key!r}: {status!r} is not one of 404, '4xx', 'timeout', 'failure' to 400..599"
            )


def gather_of(exchange: _core.ExchangeView, *, timeout: float = 10.0, **options: Any) -> Gather:
    """``exchange.gather``: its parts are subrequests, and end before the exchange has to."""
    left = exchange.time_left
    left = max(left - min(_SPARE, left / 10), 0.001)
    # What the gateway itself tells an upstream of the client's request, and may stand in an answer.
    told = exchange.request.authority
    return Gather(
        exchange._ask,
        _seconds,
        timeout=min(timeout, left),
        cache=exchange._part_cache(PartCache),
        told=told,
        **options,
    )


def _seconds() -> float:
    return _core.monotonic_ns() / 1e9
