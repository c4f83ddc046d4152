"""Rules of what a route does beside or in place of its upstream: split, fallback, mirror, fault."""

from __future__ import annotations

from fastgate.config.model import Fallback, Fault, Mirror, Rollback, Route, Split, SplitTarget
from fastgate.config.problems import Path, did_you_mean, either, quote
from fastgate.config.rules_context import Context, upstreams_of


def check_split(context: Context, path: Path, split: Split) -> None:
    problems = context.problems
    override = split.override
    if (
        override is not None
        and not (override.header or override.cookie)
        and not problems.failed((*path, "override"))
    ):
        problems.error((*path, "override"), "split.override: it needs a `header` or a `cookie`")
    targets = context.placed((*path, "to"), split.to)
    names: set[str] = set()
    for here, target in targets:
        if target.upstream is not None:
            context.exists((*here, "upstream"), "upstream", target.upstream, context.upstream_names)
        if target.name in names and not problems.failed((*here, "name")):
            problems.error(
                (*here, "name") if context.written((*here, "name")) else here,
                f"split: another arm is already named {quote(target.name)}",
                "" if context.written((*here, "name")) else "give it a `name`",
            )
        if target.name:
            names.add(target.name)
    if problems.failed((*path, "to")):
        return
    if not any(target.weight for target in split.to):
        problems.error((*path, "to"), "split.to: every weight is 0, so nobody could be served")
    for here, target in targets:
        if target.rollback is not None:
            _check_rollback(context, (*here, "rollback"), split, target, target.rollback)


def _check_rollback(
    context: Context, path: Path, split: Split, target: SplitTarget, rollback: Rollback
) -> None:
    problems = context.problems
    others = {other.name: other for other in split.to if other is not target}
    if not others:
        problems.error(path, "rollback: the split has one arm only, and none that could take over")
        return
    baseline = others.get(rollback.baseline)
    if rollback.baseline == target.name:
        problems.error(
            (*path, "baseline"),
            "rollback.baseline: an arm is not compared with itself",
            f"the others are {either(others, 'and')}"
            if len(others) > 1
            else f"the other is {either(others)}",
        )
    elif baseline is None:
        problems.error(
            (*path, "baseline"),
            f"rollback.baseline: no arm of this split is named {quote(rollback.baseline)}",
            did_you_mean(rollback.baseline, others) or f"there is {either(others, 'and')}",
        )
    elif not baseline.weight:
        problems.warning(
            path,
            f"rollback compares with {quote(baseline.name)}, whose weight is 0: it has nothing to show",
            at_key=True,
        )
    if 0 < rollback.p99_factor < 1:
        problems.error(
            (*path, "p99_factor"),
            f"rollback.p99_factor: expected 0 (off) or at least 1, got {rollback.p99_factor:g}",
        )
    if not (rollback.error_percent or rollback.p99_factor):
        problems.warning(path, "rollback has no effect: `error_percent` and `p99_factor` are 0", at_key=True)


def check_fallback(context: Context, path: Path, fallback: Fallback, route: Route) -> None:
    problems = context.problems
    given = [
        way
        for way in ("upstream", "respond")
        if getattr(fallback, way) is not None or problems.failed((*path, way))
    ]
    if not given:
        problems.error(path, "fallback: it needs an `upstream` or a `respond`")
    elif len(given) > 1:
        problems.error(
            (*path, "respond"), 'fallback.respond: it already has "upstream", and one is enough', at_key=True
        )
    context.check_statuses(path, fallback.on)
    name = fallback.upstream
    if name is None or not context.exists((*path, "upstream"), "upstream", name, context.upstream_names):
        return
    if set(upstreams_of(route)) == {name}:
        problems.error(
            (*path, "upstream"),
            f"fallback.upstream: {quote(name)} is what failed; another upstream is needed",
        )


def check_mirror(context: Context, path: Path, mirror: Mirror, route: Route) -> None:
    name = mirror.upstream
    if name is None or not context.exists((*path, "upstream"), "upstream", name, context.upstream_names):
        return
    if set(upstreams_of(route)) == {name}:
        context.problems.warning(
            (*path, "upstream"),
            f"mirror.upstream: {quote(name)} answers this route, and would get each request twice",
        )
    if not mirror.percent and not context.problems.failed(path):
        context.no_effect(path, "`percent` is 0")


def check_fault(context: Context, path: Path, fault: Fault) -> None:
    if context.problems.failed(path):
        return
    delays = fault.delay is not None and fault.delay_percent
    if not delays and not (fault.abort is not None and fault.abort_percent):
        context.no_effect(path, "it neither delays nor aborts")
