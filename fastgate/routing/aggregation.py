"""The plan of an aggregation, in words: for `fastgate explain`."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from fastgate.config.model import Aggregate, Config, ListFilter, Part, When
from fastgate.config.outline import COVERED, TELLING
from fastgate.config.part_graph import asked_upstreams, latest_end, levels_of, needs_of
from fastgate.config.problems import either, quote
from fastgate.config.units import format_duration, format_status_range
from fastgate.routing.policies import EndpointShown, endpoints_of, retry_policy

_SHAPES = ("target", "jmespath", "filter", "pick", "drop", "rename", "map", "flatten")


class PartShown(Struct, frozen=True, kw_only=True):
    """One part. `step`: from 1; those of one step wait for none of each other. `request`: method and target
    as in the file. `ends`: when it has ended at the latest, from the beginning, along the longest way to it.
    `group`: None for a part that is not in the answer. `details`: what else the configuration says of it, by
    key."""

    name: str
    step: int
    upstream: str
    request: str
    needs: tuple[str, ...]
    needed: str
    timeout: str
    ends: str
    group: str | None
    details: dict[str, str]


class AggregateShown(Struct, frozen=True, kw_only=True):
    """`longest`: how long the longest way through the parts may take. `endpoints`: by upstream."""

    policy: str
    timeout: str
    longest: str
    answer: str
    partial: str | None
    parts: tuple[PartShown, ...]
    endpoints: dict[str, tuple[EndpointShown, ...]]


def aggregate_of(aggregate: Aggregate, config: Config) -> AggregateShown:
    ends = latest_end(aggregate)
    return AggregateShown(
        policy=_policy(aggregate),
        timeout=_time(aggregate.timeout),
        longest=_time(max(ends.values(), default=0)),
        answer=_answer(aggregate),
        partial=_partial(aggregate),
        parts=tuple(
            _part(name, aggregate.parts[name], step, ends[name], aggregate)
            for step, names in enumerate(levels_of(aggregate), 1)
            for name in names
        ),
        endpoints={name: endpoints_of(config.upstreams[name]) for name in asked_upstreams(aggregate)},
    )


def request_of(part: Part) -> str:
    """Method and target, as they are written."""
    body = part.json is not None or part.form or part.pass_body or part.graphql is not None
    query = [f"{name}={text}" for name, text in part.query.items()]
    query += [f"{name}={{query.{name}}}" for name in part.pass_query]
    target = part.path + ("?" + "&".join(query) if query else "")
    return f"{part.method or ('POST' if body else 'GET')} {target}"


def _policy(aggregate: Aggregate) -> str:
    needed = [name for name, part in aggregate.parts.items() if part.required]
    match aggregate.policy:
        case "required":
            return f"needs {either(needed, 'and')}" if needed else "needs no part"
        case "quorum":
            return f"needs {aggregate.quorum} of {len(aggregate.parts)} parts"
        case "all":
            return "needs all parts"
        case "any":
            return "needs one part at least"
    return "is the first part that succeeds; the others are given up"


def _answer(aggregate: Aggregate) -> str:
    if aggregate.stream:
        how = {"ndjson": "lines of JSON", "events": "server-sent events", "json": "one JSON object"}
        return f"{aggregate.status}, {how[aggregate.stream]}, part by part"
    if aggregate.answer == "list":
        return f"{aggregate.status}, one list"
    deep = ", objects merged member by member" if aggregate.merge == "deep" else ""
    clash = {"fail": "502", "first": "the first part's", "last": "the last part's"}[aggregate.on_collision]
    return f"{aggregate.status}, one object{deep}; where two parts collide: {clash}"


def _partial(aggregate: Aggregate) -> str | None:
    if aggregate.stream or aggregate.policy in ("all", "first"):
        return None
    if aggregate.policy == "required" and all(part.required for part in aggregate.parts.values()):
        return None
    member = f", with what failed in {quote(aggregate.errors_member)}" if aggregate.errors_member else ""
    return f"{aggregate.partial_status}{member}"


def _part(name: str, part: Part, step: int, ends: int, aggregate: Aggregate) -> PartShown:
    needed = "required" if part.required else "optional"
    if aggregate.policy != "required":
        needed = "counts"
    if part.default is not None:
        needed += f", else {part.default}"
    return PartShown(
        name=name,
        step=step,
        upstream=part.upstream,
        request=request_of(part),
        needs=tuple(needs_of(part)),
        needed=needed,
        timeout=_time(part.timeout),
        ends=_time(ends),
        group=None if part.omit else part.group,
        details=dict(_details(part)),
    )


def _details(part: Part) -> Iterator[tuple[str, str]]:
    if part.race:
        yield "race", f"with {either(part.race, 'and')}, and the first success wins"
    if part.fallback:
        yield "fallback", f"then {', then '.join(part.fallback)}"
    sent = [f"{name}: {_covered(name, text)}" for name, text in part.headers.items()]
    sent += [f"{name} of the client" for name in part.pass_headers]
    if sent:
        yield "headers", "; ".join(sent)
    if part.graphql is not None:
        names = ", ".join(f"${name} = {text}" for name, text in part.graphql.variables.items())
        operation = f" {part.graphql.operation}" if part.graphql.operation else ""
        yield "body", f"GraphQL{operation}" + (f" with {names}" if names else "")
    elif part.json is not None:
        yield "body", f"JSON {' '.join(part.json.split())}"
    elif part.form:
        yield "body", "form " + "&".join(f"{name}={text}" for name, text in part.form.items())
    elif part.pass_body:
        yield "body", "the client's"
    if part.when:
        yield "when", " and ".join(map(_condition, part.when))
    if part.for_each is not None:
        each = part.for_each
        lacking = {"fail": "fails the part", "null": "is null", "omit": "is left out"}[each.on_failure]
        bounds = f"{each.max_items} at most, {each.concurrency} at one time"
        yield "for_each", f"of {each.list}, {bounds}; one that fails {lacking}"
    if part.retry is not None:
        yield "retry", retry_policy(part.retry)
    if part.cache is not None:
        yield "cache", _time(part.cache)
    if part.coalesce:
        yield "coalesce", "one request for all that would send the same one"
    if [(one.low, one.high) for one in part.success] != [(200, 299)]:
        yield "success", ", ".join(format_status_range(one)[1:-1] for one in part.success)
    if part.statuses:
        yield "statuses", ", ".join(f"{key} -> {status}" for key, status in part.statuses.items())
    if part.decode != "auto":
        yield "decode", part.decode
    shapes = [key for key in _SHAPES if getattr(part, key)]
    if shapes:
        yield "shape", "; ".join(f"{key} {_shape(getattr(part, key))}" for key in shapes)
    if part.answer_headers:
        yield "answers", ", ".join(part.answer_headers)


def _covered(name: str, text: str) -> str:
    """A text that names nothing may be a secret of the gateway's own."""
    return COVERED if "{" not in text and TELLING.search(name) else text


def _condition(one: When | ListFilter) -> str:
    if one.equals is not None:
        return f"{one.value} is {quote(one.equals)}"
    if one.not_equals is not None:
        return f"{one.value} is there and not {quote(one.not_equals)}"
    if one.one_of:
        return f"{one.value} is {either(one.one_of)}"
    return f"{one.value} is {'not ' if one.present is False else ''}there"


def _shape(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{place or 'itself'} -> {name}" for place, name in value.items())
    if isinstance(value, tuple):
        return ", ".join(
            f"{one.list or 'itself'} where {_condition(one)}" if isinstance(one, ListFilter) else str(one)
            for one in value
        )
    return str(value)


def _time(ns: int) -> str:
    return format_duration(ns)[1:-1]


def rows_of(shown: AggregateShown) -> Iterator[tuple[str, str]]:
    """The plan as lines: what each is about, and its text."""
    yield "aggregate", f"{shown.policy}, within {shown.timeout}; the longest way takes {shown.longest}"
    yield "answer", shown.answer
    if shown.partial is not None:
        yield "partial", shown.partial
    for part in shown.parts:
        yield f"step {part.step}", f"{part.name}: {part.request}, upstream {part.upstream}"
        if part.needs:
            yield "  needs", ", ".join(part.needs)
        where = "not in the answer" if part.group is None else f"at {part.group or 'the top'}"
        yield "  part", f"{part.needed}; {part.timeout}, over after {part.ends} at the latest; {where}"
        for key, text in part.details.items():
            yield f"  {key}", text
