"""The slow, obvious matcher: every route is judged on its own, and the best of those that match wins.

It is the oracle of the compiled table's property test, and it gives `fastgate explain` its reasons. It shares
with the table only the reading of the configuration's paths and hosts into normal form, and RE2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote_to_bytes

from fastgate._core import compile_regex, parse_host_pattern, parse_path_pattern, parse_prefix


class ConditionLike(Protocol):
    """As the configuration's Condition."""

    @property
    def kind(self) -> str: ...
    @property
    def value(self) -> str: ...


class MatchLike(Protocol):
    """As the configuration's Match."""

    @property
    def host(self) -> tuple[str, ...]: ...
    @property
    def path(self) -> str | None: ...
    @property
    def prefix(self) -> str | None: ...
    @property
    def regex(self) -> str | None: ...
    @property
    def methods(self) -> tuple[str, ...]: ...
    @property
    def headers(self) -> Mapping[str, Any]: ...
    @property
    def query(self) -> Mapping[str, Any]: ...
    @property
    def cookies(self) -> Mapping[str, Any]: ...


class RouteLike(Protocol):
    """As the configuration's Route."""

    @property
    def name(self) -> str: ...
    @property
    def match(self) -> MatchLike: ...


class Request(NamedTuple):
    """What a route may look at, in normal form. path is b"*" for OPTIONS *; query is None without "?"."""

    method: bytes
    host: bytes
    path: bytes
    query: bytes | None = None
    fields: tuple[tuple[bytes, bytes], ...] = ()


Rank = tuple[tuple[Any, ...], tuple[Any, ...], bool, int, int, int, int]

# What the parts of a Rank are called.
LEVELS = ("host", "path", "methods", "headers", "query", "cookies", "file order")


@dataclass(frozen=True)
class Verdict:
    """One route's answer to one request: either `failed` names the first condition that does not hold, or
    `rank` says where it stands among those that match (smaller wins), and `why` what held."""

    index: int
    route: RouteLike
    failed: str = ""
    rank: Rank | None = None
    captures: tuple[bytes, ...] = ()
    why: tuple[str, ...] = ()


def judge(index: int, route: RouteLike, request: Request) -> Verdict:
    """Whether the route at `index` of the file matches, and how well."""
    match = route.match
    why: list[str] = []
    host_rank, failed = _judge_host(match, request, why)
    if failed:
        return Verdict(index, route, failed)
    path_rank, captures, failed = _judge_path(index, match, request, why)
    if failed:
        return Verdict(index, route, failed)
    method = request.method.decode("latin-1")
    if match.methods:
        if method not in match.methods:
            return Verdict(index, route, f"methods: {method} is not in {', '.join(match.methods)}")
        why.append(f"method {method}")
    for place, conditions, values in (
        ("headers", match.headers, header_values),
        ("query", match.query, _query_values),
        ("cookies", match.cookies, cookie_values),
    ):
        for name, condition in conditions.items():
            failed = _judge_condition(place, name, condition, values(request, name.encode()))
            if failed:
                return Verdict(index, route, failed)
            why.append(f"{place} {name}")
    rank = (
        host_rank,
        path_rank,
        not match.methods,
        -len(match.headers),
        -len(match.query),
        -len(match.cookies),
        index,
    )
    return Verdict(index, route, "", rank, captures, tuple(why))


def judge_all(routes: Iterable[tuple[int, RouteLike]], request: Request) -> list[Verdict]:
    """The verdict of each route, in the order given."""
    return [judge(index, route, request) for index, route in routes]


def winner(verdicts: Iterable[Verdict]) -> Verdict | None:
    """The best of those that match."""
    matching = [verdict for verdict in verdicts if verdict.rank is not None]
    return min(matching, key=_rank_of) if matching else None


def compare(loser: Verdict, best: Verdict) -> str:
    """On which level of precedence `best` won."""
    assert loser.rank is not None
    assert best.rank is not None
    level = next(i for i, (a, b) in enumerate(zip(loser.rank, best.rank, strict=True)) if a != b)
    if LEVELS[level] == "file order":
        return f"{best.route.name!r} stands before it in the file"
    if LEVELS[level] in ("host", "path"):
        return f"{best.route.name!r} has the more specific {LEVELS[level]}"
    if LEVELS[level] == "methods":
        return f"{best.route.name!r} names methods"
    return f"{best.route.name!r} has more {LEVELS[level]} conditions"


def _rank_of(verdict: Verdict) -> Rank:
    assert verdict.rank is not None
    return verdict.rank


def _judge_host(match: MatchLike, request: Request, why: list[str]) -> tuple[tuple[int, ...], str]:
    if not match.host:
        return (2,), ""
    best: tuple[int, ...] | None = None
    held = ""
    for pattern in match.host:
        wildcard, name = parse_host_pattern(pattern)
        if wildcard and request.host.endswith(b"." + name):
            rank: tuple[int, ...] = (1, -len(name))
        elif not wildcard and request.host == name:
            rank = (0,)
        else:
            continue
        if best is None or rank < best:
            best, held = rank, pattern
    if best is None:
        return (), f"host: {_shown(request.host)} is not {' or '.join(match.host)}"
    why.append(f"host {held}")
    return best, ""


def _judge_path(
    index: int, match: MatchLike, request: Request, why: list[str]
) -> tuple[tuple[Any, ...], tuple[bytes, ...], str]:
    path = request.path
    asterisk = not path.startswith(b"/")
    if match.path is not None:
        pattern = parse_path_pattern(match.path)
        parts = path[1:].split(b"/")
        fits = len(parts) == len(pattern.segments) and all(
            part == literal if literal is not None else part != b""
            for part, literal in zip(parts, pattern.segments, strict=True)
        )
        if asterisk or not fits:
            return (), (), f"path: {_shown(path)} is not {match.path}"
        why.append(f"path {match.path}")
        if not pattern.names:
            return (0,), (), ""
        captures = tuple(
            part for part, literal in zip(parts, pattern.segments, strict=True) if literal is None
        )
        return (1, tuple(literal is None for literal in pattern.segments)), captures, ""
    if match.regex is not None:
        if asterisk or compile_regex(match.regex).fullmatch(path) is None:
            return (), (), f"regex: {_shown(path)} does not match {match.regex}"
        why.append(f"regex {match.regex}")
        return (2, index), (), ""
    if match.prefix is not None:
        prefix = parse_prefix(match.prefix)
        if asterisk or not (path == prefix or path.startswith(prefix + b"/")):
            return (), (), f"prefix: {_shown(path)} is not under {match.prefix}"
        why.append(f"prefix {match.prefix}")
        return (3, -len(prefix)), (), ""
    return (4,), (), ""


def _judge_condition(place: str, name: str, condition: ConditionLike, values: list[bytes]) -> str:
    if not values:
        return f"{place}: {name} is absent"
    if condition.kind == "present":
        return ""
    holds: Callable[[bytes], bool]
    if condition.kind == "equal":
        wanted = condition.value.encode()
        holds = wanted.__eq__
        asked = f"is not {condition.value!r}"
    else:
        pattern = compile_regex(condition.value)

        def holds(value: bytes) -> bool:
            return pattern.fullmatch(value) is not None

        asked = f"does not match {condition.value}"
    if any(holds(value) for value in values):
        return ""
    return f"{place}: {name} {asked}"


def header_values(request: Request, name: bytes) -> list[bytes]:
    """The values of each field of this name."""
    return [value for field, value in request.fields if field.lower() == name.lower()]


def _query_values(request: Request, name: bytes) -> list[bytes]:
    values = []
    for pair in (request.query or b"").split(b"&"):
        key, _, value = pair.partition(b"=")
        if pair and unquote_to_bytes(key.replace(b"+", b" ")) == name:
            values.append(unquote_to_bytes(value.replace(b"+", b" ")))
    return values


def cookie_values(request: Request, name: bytes) -> list[bytes]:
    """The values of each cookie of this name."""
    values = []
    for field in header_values(request, b"cookie"):
        for pair in field.split(b";"):
            key, equals, value = pair.partition(b"=")
            if equals and key.strip(b" \t") == name:
                values.append(value.strip(b" \t"))
    return values


def _shown(text: bytes) -> str:
    return text.decode("latin-1") or "(none)"
