"""What a route's `aggregate` is made into, once: all that can be known before a request comes."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

from fastgate import _core
from fastgate.aggregation.caching import HEADERS as CACHING_HEADERS
from fastgate.aggregation.conditions import Condition, compile_filter, compile_when
from fastgate.aggregation.documents import MISSING, Missing, Value, decode_json
from fastgate.aggregation.merge import Merger
from fastgate.aggregation.part_cache import PartCache
from fastgate.aggregation.requests import RequestTemplate, compile_request
from fastgate.aggregation.run import Run
from fastgate.aggregation.shape import Shape, compile_shape
from fastgate.aggregation.values import ClientValues, Getter, compile_placeholder
from fastgate.config import model
from fastgate.config.part_graph import needs_of, reads_client_body, texts_of
from fastgate.config.templates import placeholders_of, read_template

__all__ = ["PartPlan", "Plan"]

_SAFE: Final = ("GET", "HEAD")
# What no field of the request shows to a cache.
_WHO: Final = ("claim", "consumer", "client_ip", "request_id")


class PartPlan:
    """One part. Numbers are those of the plan's parts."""

    def __init__(
        self,
        index: int,
        name: str,
        part: model.Part,
        upstreams: Mapping[str, _core.Upstream],
        retry: _core.RetryPolicy | None,
        tally: _core.PartTally,
    ) -> None:
        self.index: Final = index
        self.name: Final = name
        self.tally: Final = tally
        # -- its request
        self.request: Final[RequestTemplate] = compile_request(part)
        self.first: Final = tuple(upstreams[one] for one in (part.upstream, *part.race))
        self.fallback: Final = tuple(upstreams[one] for one in part.fallback)
        self.retry: Final = retry
        self.timeout_ns: Final = part.timeout
        self.max_body: Final = part.max_body
        self.coalesce: Final = part.coalesce
        # Whether others may have the answer to it: not of what changes something (RFC 9110 9.2.1). The plan
        # takes it back where nothing else can be the same request.
        self.shared = self.request.method in _SAFE and not part.race
        self.cache_ns: Final = (part.cache or 0) if self.request.method == "GET" else 0
        self.when: Final[Condition | None] = compile_when(part.when) if part.when else None
        self.for_each: Final = part.for_each
        self.items: Final[Getter | None] = _only(part.for_each)
        # -- filled in by the plan: its place in the graph, and whether its value had better be decoded open
        self.needs: tuple[int, ...] = ()
        self.needed_by: tuple[int, ...] = ()
        self.opening = False
        # -- its answer
        self.required: Final = part.required
        self.success: Final = frozenset(
            status for low, high in part.success for status in range(low, high + 1)
        )
        self.statuses: Final = part.statuses
        self.default: Final[Value | Missing] = (
            MISSING if part.default is None else decode_json(part.default.encode())
        )
        self.decode: Final = part.decode
        self.json: Final = part.decode in ("auto", "json")
        self.graphql: Final = part.graphql
        self.shape: Final[Shape | None] = compile_shape(part, compile_filter)
        self.omit: Final = part.omit
        self.headers: Final = frozenset(part.answer_headers)


class Plan:
    """upstreams: the running ones by name. counters: where its parts are counted. compile_retry: of
    ``Part.retry``.

    What a worker keeps of answers (``cache``) and of requests under way (``flights``) is the plan's: a reload
    begins anew.
    """

    def __init__(
        self,
        route: str,
        aggregate: model.Aggregate,
        upstreams: Mapping[str, _core.Upstream],
        counters: _core.Counters,
        compile_retry: Callable[[model.Retry], _core.RetryPolicy],
    ) -> None:
        self.config: Final = aggregate
        self.parts: Final = tuple(
            PartPlan(
                i,
                name,
                part,
                upstreams,
                None if part.retry is None else compile_retry(part.retry),
                counters.part(route, name),
            )
            for i, (name, part) in enumerate(aggregate.parts.items())
        )
        self.merger: Final = Merger(aggregate)
        places = {part.name: part.index for part in self.parts}
        for part in self.parts:
            part.needs = tuple(sorted(places[name] for name in needs_of(aggregate.parts[part.name])))
        for part in self.parts:
            part.needed_by = tuple(one.index for one in self.parts if part.index in one.needs)
            part.opening = part.shape is None and not part.omit and self.merger.at_top(part.name)
            part.shared = part.shared and (part.coalesce or part.for_each is not None or self._has_like(part))
        self.needs: Final = [len(part.needs) for part in self.parts]
        self.timeout_ns: Final = aggregate.timeout
        self.max_memory: Final = aggregate.max_memory
        # -- the client's body
        self.wants_body: Final = any(reads_client_body(part) for part in aggregate.parts.values())
        self.max_body: Final = aggregate.max_body
        # -- the fields of answers that anything looks at, in small letters
        self.fields: Final = {name.encode(): name for name in _fields(aggregate)}
        #: A bit for each length that one of them has; the last one for all that are longer.
        self.lengths: Final = functools.reduce(
            operator.or_, (1 << min(len(name), 63) for name in self.fields)
        )
        # -- who else may have the answer: parts know nothing of what the client's request said beside them
        vary, private = _client_of(aggregate)
        self.vary: Final = vary
        self.private: Final = private
        # -- shared by exchanges
        self.flights: Final[dict[Any, Any]] = {}
        self.cache: Final = PartCache() if any(part.cache_ns for part in self.parts) else None

    def _has_like(self, part: PartPlan) -> bool:
        """Whether another part may come to the same request."""
        mine = part.request.constant
        return any(
            other is not part
            and other.first == part.first
            and (mine is None or other.request.constant in (None, mine))
            for other in self.parts
        )

    def begin(self, gathering: _core.Gathering, exchange: Any, body: bytes) -> Run:
        return Run(self, gathering, ClientValues(exchange, body))


def _only(each: model.ForEach | None) -> Getter | None:
    """What gives the list."""
    if each is None:
        return None
    (placeholder,) = placeholders_of(read_template(each.list))
    return compile_placeholder(placeholder)


def _client_of(aggregate: model.Aggregate) -> tuple[bytes, bool]:
    """The Vary of its answers, as a line, for the client's fields that they may depend on (RFC 9110 12.5.5);
    and whether they depend on who the client is."""
    names: dict[str, str] = {}
    private = False
    for part in aggregate.parts.values():
        for name in part.pass_headers:
            names.setdefault(name.lower(), name)
        for text in texts_of(part):
            for one in text.placeholders():
                if one.source == "header":
                    names.setdefault(one.name.lower(), one.name)
                elif one.source == "cookie":
                    names.setdefault("cookie", "Cookie")
                elif one.source in _WHO:
                    private = True
    return (f"Vary: {', '.join(names.values())}\r\n".encode() if names else b""), private


def _fields(aggregate: model.Aggregate) -> set[str]:
    found = {"content-type", "content-encoding", *CACHING_HEADERS}
    for part in aggregate.parts.values():
        found.update(part.answer_headers)
        if part.cache or part.coalesce:
            found.add("set-cookie")  # it is not to be shared
        found.update(
            str(one.path[0])
            for text in texts_of(part)
            for one in text.placeholders()
            if one.source == "part_header"
        )
    return found
