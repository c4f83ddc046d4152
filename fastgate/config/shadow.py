"""Routes that can never win: every request that they match goes to a route that stands before them.

A route is taken apart into cases, one for each (listener, host, method) that it names. Precedence is settled by host,
path, method, number of headers, number of query parameters, then file order (DESIGN: Gateway API's), so a case can
only be taken by one of the same host and path: a broader host or path is less specific and loses. Among those of
one host and path with equal counts of conditions, the earlier wins, and it takes all of the later one's requests when
each of its conditions follows from one of the later's. Every case of a route taken: the route is unreachable. What is
taken only by regular expressions that overlap is not found.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from fastgate.config.model import Condition, Config, Match, Route
from fastgate.config.problems import Path, Problems, either
from fastgate.config.texts import normal_path

# More cases than this in one route are not worth the time: it is then held to be reachable.
_MAX_CASES: Final = 1000

_Group = tuple[str, str, str]


def check_shadows(routes: list[tuple[Path, Route]], config: Config, problems: Problems) -> None:
    """Warns of each route that can never win."""
    all_listeners = tuple(listener.name for listener in config.listeners) or ("",)
    earlier: dict[_Group, list[Route]] = {}
    for path, route in routes:
        if problems.failed((*path, "match")) or problems.failed((*path, "listeners")):
            continue
        groups = [(host, *_path_key(route.match)) for host in route.match.host or ("",)]
        takers = _takers(route, groups, route.listeners or all_listeners, earlier)
        if takers:
            names = either(list(dict.fromkeys(taker.name for taker in takers))[:5], "and")
            plural = "s" if len({id(t) for t in takers}) > 1 else ""
            verb = "take" if plural else "takes"
            problems.warning(
                path,
                f'route "{route.name}" can never win: route{plural} {names}, which come{"" if plural else "s"} first, '
                f"{verb} all that it matches",
            )
        else:
            # One that is itself unreachable takes nothing that its takers do not.
            for group in groups:
                earlier.setdefault(group, []).append(route)


def _takers(
    route: Route, groups: list[_Group], listeners: Iterable[str], earlier: Mapping[_Group, list[Route]]
) -> list[Route]:
    """The routes that together take every case of ``route``; empty when a case is left."""
    takers: list[Route] = []
    listeners = tuple(listeners)
    methods = route.match.methods or ("",)
    if len(groups) * len(listeners) * len(methods) > _MAX_CASES:
        return []
    for group in groups:
        rivals = [rival for rival in earlier.get(group, ()) if _beats(rival.match, route.match)]
        for listener in listeners:
            for method in methods:
                taker = next((r for r in rivals if _covers(r, listener, method)), None)
                if taker is None:
                    return []
                takers.append(taker)
    return takers


def _path_key(match: Match) -> tuple[str, str]:
    if match.path is not None:
        segments = normal_path(match.path).split("/")
        return "path", "/".join("{}" if s.startswith("{") and s.endswith("}") else s for s in segments)
    if match.regex is not None:
        return "regex", match.regex
    # No path condition is the prefix of all.
    return "prefix", normal_path(match.prefix or "/").rstrip("/")


def _covers(rival: Route, listener: str, method: str) -> bool:
    listens = not rival.listeners or listener in rival.listeners
    return listens and (not rival.match.methods or method in rival.match.methods)


def _beats(rival: Match, match: Match) -> bool:
    """Whether ``rival``, which stands earlier, wins each request that matches both, and matches each of ``match``."""
    pairs = (
        (rival.headers, match.headers),
        (rival.query, match.query),
        (rival.cookies, match.cookies),
    )
    return bool(rival.methods) == bool(match.methods) and all(
        len(ours) == len(theirs) and all(_follows(c, theirs.get(n)) for n, c in ours.items())
        for ours, theirs in pairs
    )


def _follows(wanted: Condition, given: Condition | None) -> bool:
    """Whether what meets ``given`` meets ``wanted`` too."""
    return given is not None and (wanted.kind == "present" or wanted == given)
