"""Routes that can never win, because others take every request that they match.

Precedence is settled by host, path, then methods, number of headers, query parameters and cookies, then file
order (docs/routing.md). A route is taken apart into cases, one for each (host, listener, method) that it
names, and a case is taken by a rival of the same host
- with the same path and equal counts of conditions, which stands earlier (regular expressions: whatever the
  counts, since they are tried in file order), or
- with a path that is higher in precedence and yet matches every path, wherever it stands: a regular
  expression such as ".*" before all prefixes, the prefix "/" before a route without path,
when each condition of the rival follows from one of the case. Every case taken: the route is unreachable.
Regular expressions that merely overlap are not compared, and that "/" and "/.*" do not match the "*" of
`OPTIONS *` is passed over.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from fastgate.config.model import Condition, Config, Match, Route
from fastgate.config.problems import Path, Problems, either, quote
from fastgate.config.texts import normal_path

# More cases than this in one route are not worth the time: it is then held to be reachable.
_MAX_CASES: Final = 1000
_ANY_PATH: Final = frozenset({".*", "/.*", "^.*$", "^/.*$", "^/.*", ".+", "^.+$", "(.*)", "/(.*)", "^/(.*)$"})

# Host pattern ("" for any), kind of path condition, its text.
_Group = tuple[str, str, str]


def check_shadows(routes: list[tuple[Path, Route]], config: Config, problems: Problems) -> None:
    """Warns of each route that can never win."""
    finder = _Finder(tuple(listener.name for listener in config.listeners))
    sound = [
        (path, route)
        for path, route in routes
        if not problems.failed((*path, "match")) and not problems.failed((*path, "listeners"))
    ]
    for _, route in sound:
        finder.note_any_path(route)
    for path, route in sound:
        takers = finder.takers(route)
        if not takers:
            # A route that is itself unreachable takes nothing that its own takers do not.
            finder.note_earlier(route)
            continue
        names = list(dict.fromkeys(taker.name for taker in takers))
        noun, verb = ("route", "takes") if len(names) == 1 else ("routes", "take")
        problems.warning(
            path,
            f"route {quote(route.name)} can never win: {noun} {either(names[:5], 'and')} {verb} every "
            f"request that "
            "it matches",
        )


class _Finder:
    def __init__(self, listeners: tuple[str, ...]) -> None:
        self._listeners = listeners or ("",)
        self._earlier: dict[_Group, list[Route]] = {}
        self._any_path: dict[tuple[str, str], list[Route]] = {}

    def note_any_path(self, route: Route) -> None:
        """Takes note of a route whose path condition, though it has one, holds for every path."""
        kind, text = _path_key(route.match)
        if (kind == "regex" and text in _ANY_PATH) or (kind == "prefix" and not text):
            for host in route.match.host or ("",):
                self._any_path.setdefault((host, kind), []).append(route)

    def note_earlier(self, route: Route) -> None:
        kind, text = _path_key(route.match)
        for host in route.match.host or ("",):
            group = (host, kind, text)
            self._earlier.setdefault(group, []).append(route)
            if kind == "regex" and text in _ANY_PATH:
                # For later expressions, which it comes before.
                self._earlier.setdefault((host, "regex", ""), []).append(route)

    def takers(self, route: Route) -> list[Route]:
        """The routes that together take every case of ``route``; empty when a case is left."""
        hosts = route.match.host or ("",)
        listeners = route.listeners or self._listeners
        methods = route.match.methods or ("",)
        if len(hosts) * len(listeners) * len(methods) > _MAX_CASES:
            return []
        found: list[Route] = []
        for host in hosts:
            rivals = list(self._rivals(host, route))
            for listener in listeners:
                for method in methods:
                    taker = next((r for r in rivals if _covers(r, listener, method)), None)
                    if taker is None:
                        return []
                    found.append(taker)
        return found

    def _rivals(self, host: str, route: Route) -> Iterable[Route]:
        """Those who win whatever both match, and ask for nothing that ``route`` does not."""
        match = route.match
        kind, text = _path_key(match)
        for rival in self._earlier.get((host, kind, text), ()):
            if _asks_no_more(rival.match, match) and (kind == "regex" or _equal_rank(rival.match, match)):
                yield rival
        higher = {"regex": (), "prefix": ("regex",), "none": ("regex", "prefix")}.get(kind, ())
        for above in higher:
            for rival in self._any_path.get((host, above), ()):
                if _asks_no_more(rival.match, match):
                    yield rival
        if kind == "regex":
            for rival in self._earlier.get((host, "regex", ""), ()):
                if _asks_no_more(rival.match, match):
                    yield rival


def _path_key(match: Match) -> tuple[str, str]:
    if match.path is not None:
        segments = normal_path(match.path).split("/")
        return "path", "/".join("{}" if s.startswith("{") and s.endswith("}") else s for s in segments)
    if match.regex is not None:
        return "regex", match.regex
    if match.prefix is not None:
        return "prefix", normal_path(match.prefix).rstrip("/")
    return "none", ""


def _covers(rival: Route, listener: str, method: str) -> bool:
    listens = not rival.listeners or listener in rival.listeners
    return listens and (not rival.match.methods or method in rival.match.methods)


def _equal_rank(rival: Match, match: Match) -> bool:
    return (bool(rival.methods), len(rival.headers), len(rival.query), len(rival.cookies)) == (
        bool(match.methods),
        len(match.headers),
        len(match.query),
        len(match.cookies),
    )


def _asks_no_more(rival: Match, match: Match) -> bool:
    pairs = ((rival.headers, match.headers), (rival.query, match.query), (rival.cookies, match.cookies))
    return all(_follows(wanted, theirs.get(name)) for ours, theirs in pairs for name, wanted in ours.items())


def _follows(wanted: Condition, given: Condition | None) -> bool:
    """Whether what meets ``given`` meets ``wanted`` too."""
    return given is not None and (wanted.kind == "present" or wanted == given)
