"""Rules of one part of an aggregation: its request, what its texts name, what becomes of its answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from fastgate.config.decode import label_of
from fastgate.config.json_paths import EACH, read_path
from fastgate.config.model import Aggregate, GraphQl, ListFilter, Part, Route, When
from fastgate.config.part_graph import Text, texts_of
from fastgate.config.problems import Path, did_you_mean, quote
from fastgate.config.rules_context import Context, segment_hint
from fastgate.config.rules_upstream import check_retry
from fastgate.config.templates import Placeholder
from fastgate.config.texts import parse_header_value, segment_names
from fastgate.config.units import BadValue, format_duration

_PARTS: Final = ("part", "part_status", "part_header")
_BODIES: Final = ("json", "form", "pass_body", "graphql")
_SAFE: Final = ("GET", "HEAD")
#: Where a list may come from.
_LISTS: Final = ("part", "body", "claim")
#: Fields of the answer that are the gateway's to say: aggregation/answer.py.
_OWN_FIELDS: Final = frozenset(
    (
        "age", "cache-control", "connection", "content-encoding", "content-length", "content-type", "date",
        "etag", "expires", "keep-alive", "last-modified", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade",
    )
)  # fmt: skip


def check_part(
    context: Context,
    path: Path,
    name: str,
    part: Part,
    aggregate: Aggregate,
    route: Route,
    names: tuple[str, ...],
) -> None:
    """path: of the part. names: of all parts, as they are written."""
    _check_upstreams(context, path, part)
    _check_method(context, path, part)
    _check_fields(context, path, part)
    for i, when in enumerate(part.when):
        _check_condition(context, (*path, "when", i), when)
    for i, one in enumerate(part.filter):
        _check_condition(context, (*path, "filter", i), one)
    for text in _readable(context, path, part):
        _check_own_text(context, path, text)
        for placeholder in text.placeholders():
            _check_placeholder(context, (*path, *text.path), text, placeholder, part, aggregate, route, names)
    for i, other in enumerate(part.after):
        if other not in names:
            _unknown_part(context, (*path, "after", i), other, names)
    if part.for_each is not None:
        _check_for_each(context, (*path, "for_each"), part)
    _check_retry(context, path, part)
    for key, status in part.statuses.items():
        if not 400 <= status <= 599 and not context.problems.failed((*path, "statuses", key)):
            at = (*path, "statuses", key)
            context.problems.error(
                at, f"{label_of(at)}: expected a status of a failure, 400 to 599, got {status}"
            )
    _check_shape(context, path, part, aggregate)


def _readable(context: Context, path: Path, part: Part) -> Iterator[Text]:
    """Its texts, but for those with errors of their own."""
    for text in texts_of(part):
        if not context.problems.failed((*path, *text.path)):
            yield text


def _check_upstreams(context: Context, path: Path, part: Part) -> None:
    if part.upstream is not None:
        context.exists((*path, "upstream"), "upstream", part.upstream, context.upstream_names)
    for key in ("race", "fallback"):
        for i, name in enumerate(getattr(part, key)):
            here = context.item((*path, key), name)
            if context.exists(here, "upstream", name, context.upstream_names) and (
                key == "fallback" and name in (part.upstream, *part.race)
            ):
                context.problems.error(
                    here,
                    f"{label_of((*path, key, i))}: {quote(name)} is what failed; another upstream is needed",
                )


# -- the request ---------------------------------------------------------------------------------------------


def _check_method(context: Context, path: Path, part: Part) -> None:
    problems, method = context.problems, part.method
    bodies = [key for key in _BODIES if getattr(part, key) or problems.failed((*path, key))]
    if part.json is not None and "json" not in bodies:
        bodies.insert(0, "json")
    if len(bodies) > 1:
        at = (*path, bodies[1])
        problems.error(
            at, f"{label_of(at)}: the part already has {quote(bodies[0])}, and sends one body", at_key=True
        )
    at = (*path, "method")
    if method in ("CONNECT", "TRACE"):
        problems.error(at, f"{label_of(at)}: {method} is no request for an answer of a part")
    elif bodies and method in _SAFE:
        problems.error(
            at,
            f"{label_of(at)}: {method} has no body, and the part has {quote(bodies[0])} (RFC 9110 9.3)",
            'leave it out, which is "POST"',
        )
    elif "graphql" in bodies and method not in ("", "POST"):
        problems.error(at, f"{label_of(at)}: GraphQL is asked by POST, not {method}", "leave it out")
    sent = method or ("POST" if bodies else "GET")
    for key, methods in (("cache", ("GET",)), ("coalesce", _SAFE)):
        if getattr(part, key) and sent not in methods:
            context.no_effect((*path, key), f"the part's method is {sent}, not {' or '.join(methods)}")
    if part.graphql is not None and not problems.failed((*path, "graphql")):
        _check_graphql(context, path, part, part.graphql)


def _check_graphql(context: Context, path: Path, part: Part, graphql: GraphQl) -> None:
    if part.decode not in ("auto", "json"):
        at = (*path, "decode")
        context.problems.error(
            at, f"{label_of(at)}: an answer of GraphQL is JSON, not {part.decode}", "leave it out"
        )
    for at, text in (
        ((*path, "graphql", "query"), graphql.query),
        ((*path, "graphql", "operation"), graphql.operation),
    ):
        _check_characters(context, at, text)


def _check_fields(context: Context, path: Path, part: Part) -> None:
    own = {name.lower() for name in part.headers}
    for i, name in enumerate(part.pass_headers):
        at = (*path, "pass_headers", i)
        if name.lower() in own:
            context.problems.error(at, f"{label_of(at)}: {quote(name)} stands in `headers` already")
        elif name.lower() == "accept-encoding":
            context.problems.warning(
                at, f"{label_of(at)}: an answer in a coding that the client accepts can't be read here"
            )
    for i, name in enumerate(part.pass_query):
        at = (*path, "pass_query", i)
        if name in part.query:
            context.problems.error(at, f"{label_of(at)}: {quote(name)} stands in `query` already")
    for i, name in enumerate(part.answer_headers):
        at = (*path, "answer_headers", i)
        if name in _OWN_FIELDS:
            context.problems.error(
                at, f"{label_of(at)}: {quote(name)} is the whole answer's, and no part gives it"
            )


def _check_own_text(context: Context, path: Path, text: Text) -> None:
    """What stands beside placeholders must be able to stand there."""
    here = (*path, *text.path)
    if text.path[0] == "headers":
        own = "".join(piece if isinstance(piece, str) else "x" for piece in text.template)
        try:
            parse_header_value(own, {})
        except BadValue as bad:
            context.problems.error(here, f"{label_of(here)}: {bad}", bad.hint)
    elif text.path == ("path",):
        from fastgate import _core

        own = "".join(piece if isinstance(piece, str) else "x" for piece in text.template)
        try:
            normal = _core.parse_target(own.encode("ascii"), b"x").path
        except _core.TargetError as error:
            context.problems.error(here, f"{label_of(here)}: no request has this path: {error}")
            return
        if normal != own.encode("ascii"):
            context.problems.warning(
                here,
                f"{label_of(here)}: it is sent as {quote(_rewritten(text, normal))}",
            )
    else:
        _check_characters(context, here, text.template)


def _rewritten(text: Text, normal: bytes) -> str:
    """The normal path for a reader; with placeholders as they stand in the file it would be a guess."""
    named = any(isinstance(piece, Placeholder) for piece in text.template)
    return normal.decode() + (" (x for what placeholders give)" if named else "")


def _check_characters(context: Context, path: Path, value: Any) -> None:
    """A JSON text may name half a character ("\\ud800"), which no request can send."""
    try:
        json.dumps(value, default=repr, ensure_ascii=False).encode()  # repr: of numbers, which are Raw
    except UnicodeEncodeError:
        context.problems.error(path, f"{label_of(path)}: half a surrogate pair is no character")


# -- what texts name -----------------------------------------------------------------------------------------


def _unknown_part(context: Context, path: Path, name: str, names: tuple[str, ...]) -> None:
    context.problems.error(
        path,
        f"{label_of(path)}: no part is named {quote(name)}",
        did_you_mean(name, names) or f"there is {', '.join(map(quote, names[:10]))}",
    )


def _check_placeholder(
    context: Context,
    path: Path,
    text: Text,
    one: Placeholder,
    part: Part,
    aggregate: Aggregate,
    route: Route,
    names: tuple[str, ...],
) -> None:
    problems, label = context.problems, label_of(path)
    several = {name for name, other in aggregate.parts.items() if other.for_each is not None}
    if one.source in _PARTS:
        if one.name not in names:
            _unknown_part(context, path, one.name, names)
        elif one.source == "part_status" and one.name in several:
            problems.error(
                path, f"{label}: part {quote(one.name)} has an answer for each element, and no one status"
            )
    elif one.source in ("item", "index"):
        where = text.path[0]
        if where == "filter":
            return
        if part.for_each is None:
            problems.error(path, f"{label}: there is {{{one.source}}} only in parts with `for_each`")
        elif where in ("for_each", "when"):
            problems.error(
                path,
                f"{label}: there is no {{{one.source}}} before the list is",
                "`filter` of the part that gives the list leaves elements out" if where == "when" else "",
            )
    elif one.source == "path" and not problems.failed((*path[:2], "match")):
        known = segment_names(route.match.path or "")
        if one.name not in known:
            problems.error(
                path,
                f"{label}: match.path has no segment {{{one.name}}}",
                segment_hint(one.name, known, "path."),
            )


def _check_condition(context: Context, path: Path, condition: When | ListFilter) -> None:
    problems = context.problems
    if problems.failed(path):
        return
    tests = [
        key
        for key in ("equals", "not_equals", "one_of", "present")
        if context.written((*path, key)) is not None
        or (path[-1] == 0 and context.written((*path[:-1], key)) is not None)
    ]
    if len(tests) > 1:
        at = (*path, tests[1])
        problems.error(
            at, f"{label_of(at)}: {quote(tests[0])} is given already, and one is enough", at_key=True
        )
    if tests == ["one_of"] and not condition.one_of:
        problems.error((*path, "one_of"), f"{label_of((*path, 'one_of'))} must not be empty")
    if "{" not in condition.value.replace("{{", ""):
        at = (*path, "value")
        problems.error(
            at, f"{label_of(at)}: it names nothing, and is always the same", 'as in "{query.full}"'
        )


def _check_for_each(context: Context, path: Path, part: Part) -> None:
    at = (*path, "list")
    if part.for_each is None or part.for_each.list is None or context.problems.failed(at):
        return
    (text,) = (one for one in texts_of(part) if one.path == ("for_each", "list"))
    template = text.template
    hint = 'as in "{part.orders.items}"'
    if len(template) != 1 or not isinstance(template[0], Placeholder):
        context.problems.error(at, f"{label_of(at)}: expected one placeholder and nothing else", hint)
    elif template[0].source not in _LISTS:
        context.problems.error(at, f"{label_of(at)}: {{{template[0].source}}} never gives a list", hint)
    elif template[0].cast:
        context.problems.error(at, f"{label_of(at)}: a list is no {template[0].cast}", hint)


def _check_retry(context: Context, path: Path, part: Part) -> None:
    if part.retry is None:
        return
    check_retry(context, (*path, "retry"), part.retry)
    limit = part.retry.per_try_timeout
    if limit is not None and limit >= part.timeout and not context.problems.failed((*path, "retry")):
        at = (*path, "retry", "per_try_timeout")
        context.problems.warning(
            at,
            f"{label_of(at)}: {format_duration(limit)} leaves no time for a second try within the part's "
            f"`timeout` of {format_duration(part.timeout)}",
        )


# -- the answer ----------------------------------------------------------------------------------------------


def _check_shape(context: Context, path: Path, part: Part, aggregate: Aggregate) -> None:
    problems = context.problems
    for key in ("target", "group"):
        if not problems.failed((*path, key)):
            _check_one(context, (*path, key), getattr(part, key), names_alone=key == "group")
    for place, member in part.map.items():
        if not problems.failed((*path, "map", place)):
            _check_one(context, (*path, "map", place), member)
    for place in part.rename:
        steps = read_path(place)
        if not steps or not isinstance(steps[-1], str):
            problems.error(
                (*path, "rename", place),
                f"{label_of((*path, 'rename'))}: {quote(place)} is an element, and members alone have names",
                at_key=True,
            )
    _check_packages(context, path, part)
    if not problems.failed(path):
        _check_object(context, path, part, aggregate)


def _check_one(context: Context, path: Path, text: str, *, names_alone: bool = False) -> None:
    try:
        steps = read_path(text)
    except BadValue:
        return
    if names_alone and not all(isinstance(step, str) for step in steps):
        context.problems.error(
            path, f"{label_of(path)}: a group goes through members, and not through elements"
        )
    elif EACH in steps:
        context.problems.error(path, f"{label_of(path)}: [] stands for many values, and here is one expected")


def _check_packages(context: Context, path: Path, part: Part) -> None:
    if part.decode == "xml":
        from fastgate.aggregation import decoders

        lacking = decoders.missing(part.decode)
        if lacking:
            context.problems.error((*path, "decode"), f"{label_of((*path, 'decode'))}: {lacking}")


def _check_object(context: Context, path: Path, part: Part, aggregate: Aggregate) -> None:
    """Without a group a part's members go to the top of the answer: then it must be an object."""
    if part.group or part.omit or aggregate.answer == "list" or aggregate.stream:
        return
    if part.default is not None and not part.default.lstrip().startswith("{"):
        at = (*path, "default")
        context.problems.error(
            at, f"{label_of(at)}: it is no object, and the part has no `group`", "give it a `group`"
        )
    if part.target or part.jmespath:
        return
    kind = {"text": "a text", "base64": "a text", "csv": "a list"}.get(part.decode, "")
    if part.for_each is not None:
        kind, at = "a list", (*path, "for_each")
    else:
        at = (*path, "decode")
    if kind:
        context.problems.error(
            at,
            f"{label_of(at)}: the part's value is {kind}, and only an object goes without a `group`",
            "give it a `group`",
            at_key=True,
        )
