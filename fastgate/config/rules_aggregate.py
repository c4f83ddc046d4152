"""Rules of an aggregation as a whole: its policy, its answer, how its parts hang together. Those of one part
are in rules_part.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from fastgate.config.decode import label_of
from fastgate.config.json_paths import read_path
from fastgate.config.model import Aggregate, Part, Route
from fastgate.config.model.aggregate import MAX_PARTS
from fastgate.config.part_graph import cycle_of, needs_of, reads_client_body
from fastgate.config.problems import Path, quote
from fastgate.config.rules_context import Context
from fastgate.config.rules_part import check_part
from fastgate.config.units import format_duration

#: What has no meaning where members go out one by one, under the names of their parts.
_OF_WHOLE_ANSWERS: Final = ("answer", "merge", "on_collision", "partial_status", "errors_member")
_NO_BODY: Final = ("GET", "HEAD")
_NO_CONTENT: Final = (204, 205)


def check_aggregate(context: Context, path: Path, aggregate: Aggregate, route: Route) -> None:
    parts = (*path, "parts")
    written = context.written(parts)
    names = tuple(written) if isinstance(written, dict) else ()
    if aggregate.parts is None:  # its table could not be read
        return
    if len(names) > MAX_PARTS:
        context.problems.error(parts, f"{label_of(parts)}: {len(names)} parts, and at most {MAX_PARTS}")
    for name, part in aggregate.parts.items():
        check_part(context, (*parts, name), name, part, aggregate, route, names)
    _check_policy(context, path, aggregate, names)
    _check_answer(context, path, aggregate)
    _check_times(context, path, aggregate, route)
    _check_client_body(context, path, aggregate, route)
    if context.problems.failed(parts):
        return
    needs = {name: needs_of(part) for name, part in aggregate.parts.items()}
    _check_cycle(context, parts, needs)
    if context.problems.failed(parts):
        return
    _check_needs(context, parts, aggregate, needs)
    if aggregate.answer == "object" and not aggregate.stream:
        _check_groups(context, path, aggregate, needs)


def _check_policy(context: Context, path: Path, aggregate: Aggregate, names: tuple[str, ...]) -> None:
    policy = aggregate.policy
    if policy == "quorum" and aggregate.quorum > len(names) and names:
        context.problems.error(
            (*path, "quorum"),
            f"{label_of((*path, 'quorum'))}: {aggregate.quorum} of {len(names)} parts never succeed",
        )
    if policy != "quorum" and context.written((*path, "quorum")) is not None:
        context.no_effect((*path, "quorum"), f'`policy` is "{policy}"', 'write policy = "quorum"')
    for name, part in aggregate.parts.items():
        here = (*path, "parts", name)
        if policy != "required" and context.written((*here, "required")) is not None:
            context.no_effect((*here, "required"), f'`policy` is "{policy}"')
        ends_all = policy == "all" or (policy == "required" and part.required)
        if part.default is not None and ends_all:
            why = "the part is required" if policy == "required" else f'`policy` is "{policy}"'
            context.no_effect(
                (*here, "default"),
                f"{why}, and without it there is no answer",
                "write required = false" if policy == "required" else "",
            )
        if part.statuses and policy == "required" and not part.required:
            context.no_effect(
                (*here, "statuses"), "the part is not required, and never why there is no answer"
            )
    never_partial = policy in ("all", "first") or (
        policy == "required" and all(part.required for part in aggregate.parts.values())
    )
    if never_partial and aggregate.parts and not aggregate.stream:
        why = "no part is optional" if policy == "required" else f'`policy` is "{policy}"'
        for key in ("partial_status", "errors_member"):
            if context.written((*path, key)) is not None:
                context.no_effect((*path, key), f"{why}, so no answer is partial")


def _check_answer(context: Context, path: Path, aggregate: Aggregate) -> None:
    problems, stream = context.problems, aggregate.stream
    shown = [name for name, part in aggregate.parts.items() if not part.omit]
    for key in ("status", "partial_status"):
        status = getattr(aggregate, key)
        if status in _NO_CONTENT and shown and not problems.failed((*path, key)):
            problems.error(
                (*path, key),
                f"{label_of((*path, key))}: a {status} response has no body (RFC 9110 15.3), and part "
                f"{quote(shown[0])} would be in it",
                "write omit = true for each part",
            )
    if stream and aggregate.policy == "first":
        problems.error(
            (*path, "stream"),
            f'{label_of((*path, "stream"))}: with policy = "first" one part is the answer, and nothing comes '
            "part by part",
            'the other policies stream: "required", "all", "any" and "quorum"',
        )
    keys = _OF_WHOLE_ANSWERS if stream else ("merge", "on_collision", "errors_member")
    if stream or aggregate.answer == "list":
        why = (
            f'`stream` is "{stream}", which names each part\'s value by the part'
            if stream
            else '`answer` is "list", whose elements have no names'
        )
        for key in keys:
            if context.written((*path, key)) is not None:
                context.no_effect((*path, key), why)
        for name, part in aggregate.parts.items():
            here = (*path, "parts", name)
            if part.group:
                context.no_effect((*here, "group"), why)
            if stream and part.answer_headers:
                context.no_effect((*here, "answer_headers"), "the head is sent before the last part is there")
    if aggregate.parts and not shown and aggregate.status not in _NO_CONTENT:
        problems.warning(
            (*path, "parts"), f"{label_of((*path, 'parts'))}: every part has `omit`, so the answer is empty"
        )
    for name, part in aggregate.parts.items():
        if part.omit:
            for key in ("group", "target", "jmespath", "filter", "pick", "drop", "rename", "map", "flatten"):
                if context.written((*path, "parts", name, key)) is not None:
                    context.no_effect(
                        (*path, "parts", name, key),
                        "the part has `omit`, and others see its body before it is shaped",
                    )


def _check_times(context: Context, path: Path, aggregate: Aggregate, route: Route) -> None:
    whole, total = aggregate.timeout, route.timeouts.total
    if (
        total is not None
        and total < whole
        and context.written((*path, "timeout")) is not None
        and not context.problems.failed((*path[:-1], "timeouts"))
    ):
        context.problems.warning(
            (*path, "timeout"),
            f"{label_of((*path, 'timeout'))}: {format_duration(whole)} is more than `timeouts.total`, "
            f"{format_duration(total)}, which ends it first",
        )
    for name, part in aggregate.parts.items():
        here = (*path, "parts", name)
        if part.timeout > whole and context.written((*here, "timeout")) is not None:
            context.problems.warning(
                (*here, "timeout"),
                f"{label_of((*here, 'timeout'))}: {format_duration(part.timeout)} is more than "
                f"`aggregate.timeout`, {format_duration(whole)}, which ends it first",
            )
        if part.max_body > aggregate.max_memory:
            at = (*here, "max_body")
            told = (
                f"{label_of(at)}: an answer of this size is beyond `aggregate.max_memory`, which is for all"
            )
            context.problems.warning(at if context.written(at) is not None else (*path, "max_memory"), told)


def _check_client_body(context: Context, path: Path, aggregate: Aggregate, route: Route) -> None:
    readers = [name for name, part in aggregate.parts.items() if reads_client_body(part)]
    if not readers:
        if context.written((*path, "max_body")) is not None:
            context.no_effect((*path, "max_body"), "no part reads the client's body or passes it on")
        return
    methods = route.match.methods
    if methods and all(method in _NO_BODY for method in methods):
        context.problems.warning(
            (*path, "parts", readers[0]),
            f"{label_of((*path, 'parts', readers[0]))} wants the client's body, but the route matches "
            f"{' and '.join(methods)} alone",
            at_key=True,
        )


def _check_cycle(context: Context, path: Path, needs: Mapping[str, Mapping[str, Path]]) -> None:
    cycle = cycle_of(needs)
    if cycle:
        at = (*path, cycle[0], *needs[cycle[0]][cycle[1]])
        context.problems.error(
            at,
            f"{label_of(at)}: "
            + (
                f"part {quote(cycle[0])} waits for itself"
                if len(cycle) == 2
                else f"these parts wait for one another: {' -> '.join(cycle)}"
            ),
        )


def _check_needs(
    context: Context, path: Path, aggregate: Aggregate, needs: Mapping[str, Mapping[str, Path]]
) -> None:
    used = {one for names in needs.values() for one in names}
    for name, part in aggregate.parts.items():
        if part.omit and name not in used and part.method in ("", *_NO_BODY) and not _sends_body(part):
            context.problems.warning(
                (*path, name, "omit"),
                f"{label_of((*path, name))}: it is not in the answer, and no other part uses it",
            )
        if aggregate.policy != "required" or not part.required:
            continue
        for other, where in needs[name].items():
            needed = aggregate.parts[other]
            if not needed.required and (needed.default is None or where[0] == "after"):
                at = (*path, other, "required")
                context.problems.warning(
                    at,
                    f"{label_of(at)} has no effect: part {quote(name)} is required and needs it",
                    "give it a `default`" if where[0] != "after" else "",
                )


def _sends_body(part: Part) -> bool:
    return part.pass_body or part.json is not None or bool(part.form) or part.graphql is not None


def _check_groups(
    context: Context, path: Path, aggregate: Aggregate, needs: Mapping[str, Mapping[str, Path]]
) -> None:
    """What two parts put at one place whenever both are there."""
    if aggregate.policy == "first":
        return
    seen: dict[tuple[object, ...], str] = {}
    member = aggregate.errors_member
    for name, part in _always(aggregate, needs):
        group = read_path(part.group)
        at = (*path, "parts", name, "group")
        if group == (member,):
            context.problems.error(
                at, f"{label_of(at)}: {quote(member)} is the `errors_member`, which tells of failures"
            )
        if not group or aggregate.merge == "deep":
            continue
        if group in seen:
            told = f"{label_of(at)}: part {quote(seen[group])} goes to {quote(part.group)} as well"
            if aggregate.on_collision == "fail":
                context.problems.error(at, told, 'give it another group, or write merge = "deep"')
            else:
                context.problems.warning(
                    at, f"{told}, and the {aggregate.on_collision} one of both is the answer's"
                )
        seen.setdefault(group, name)


def _always(aggregate: Aggregate, needs: Mapping[str, Mapping[str, Path]]) -> Iterator[tuple[str, Part]]:
    """The parts of the answer that no condition leaves out."""
    doubtful = {name for name, part in aggregate.parts.items() if part.when}
    while True:
        more = {name for name in needs if name not in doubtful and doubtful.intersection(needs[name])}
        if not more:
            break
        doubtful |= more
    for name, part in aggregate.parts.items():
        if name not in doubtful and not part.omit:
            yield name, part
