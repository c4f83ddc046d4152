"""What `fastgate top` shows: differences of two summaries of the admin API, as rates and quantiles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

__all__ = ["Frame", "Overall", "Row", "compare"]

QUANTILES = (0.5, 0.99)


class Row(NamedTuple):
    """Of the time between two looks. rate: a second; errors, retried: parts of it, 0 to 1; p50, p99: seconds,
    None where nothing ended. active, open, idle, waiting, state: as they are now; None: not known of it.

    Of a route: requests, their 5xx and their whole time. Of an upstream or endpoint: attempts, those without
    an answer below 500, and the time to the answer's head."""

    name: str
    rate: float
    errors: float
    p50: float | None
    p99: float | None
    refused: float = 0.0  # of a route: 4xx
    bytes_in: float = 0.0  # a second
    bytes_out: float = 0.0
    retried: float = 0.0  # of an upstream
    active: int | None = None
    open: int | None = None
    idle: int | None = None
    waiting: int | None = None
    state: str = ""


class Overall(NamedTuple):
    """The gateway as a whole. accepted: connections a second."""

    fastgate: str
    configuration: int
    ready: bool
    up_seconds: float
    workers: int
    traffic: Row
    connections: int
    accepted: float
    tunnels: int
    active: int
    reasons: dict[str, float]  # a second, the most frequent first


class Frame(NamedTuple):
    """One look. seconds: since the one before."""

    seconds: float
    overall: Overall
    routes: tuple[Row, ...]
    upstreams: tuple[Row, ...]
    endpoints: tuple[Row, ...]  # named "upstream address"


def compare(
    before: Mapping[str, Any], after: Mapping[str, Any], upstreams: Iterable[Mapping[str, Any]], now: float
) -> Frame | None:
    """before, after: what /summary has answered; upstreams: what /upstreams has; now: seconds since 1970.
    None: the gateway was started anew in between, or no time has passed."""
    seconds = after["at"] - before["at"]
    if seconds <= 0 or after["total"]["exchanges"] < before["total"]["exchanges"]:
        return None
    bounds = [bound / 1e9 for bound in after["bounds_ns"]]
    routes = tuple(
        _route(name, before["routes"].get(name), counts, seconds, bounds)
        for name, counts in after["routes"].items()
    )
    views = {view["name"]: view for view in upstreams}
    grouped = {
        name: _endpoints(name, before, after, views.get(name, {}), seconds, bounds)
        for name in after["upstreams"]
    }
    gauges = after["gauges"]
    overall = Overall(
        fastgate=after["fastgate"],
        configuration=after["configuration"],
        ready=after["ready"],
        up_seconds=max(0.0, now - after["started"]),
        workers=sum(worker["state"] == "serving" for worker in after["workers"]),
        traffic=_route("", before["total"], after["total"], seconds, bounds),
        connections=gauges["connections_open"],
        accepted=_more(before["gauges"], gauges, "connections_accepted") / seconds,
        tunnels=gauges["tunnels_active"],
        active=gauges["exchanges_active"],
        reasons=_reasons(before["total"]["reasons"], after["total"]["reasons"], seconds),
    )
    return Frame(
        seconds=seconds,
        overall=overall,
        routes=routes,
        upstreams=tuple(
            _upstream(name, before, after, views.get(name, {}), seconds, bounds)
            for name in after["upstreams"]
            if name in views
        ),
        endpoints=tuple(row for rows in grouped.values() for row in rows),
    )


def quantile(part: float, buckets: Mapping[int, int], bounds: list[float]) -> float | None:
    """The value below which that part of a histogram's samples lies; within a bucket they lie evenly."""
    wanted = part * sum(buckets.values())
    seen = 0
    for index in sorted(buckets):
        if buckets[index] <= 0:
            continue
        if seen + buckets[index] >= wanted:
            low = bounds[index - 1] if index else 0.0
            high = bounds[index] if index < len(bounds) else bounds[-1]
            return low + (high - low) * (wanted - seen) / buckets[index]
        seen += buckets[index]
    return None


def _more(before: Mapping[str, int] | None, after: Mapping[str, int], name: str) -> int:
    return max(0, after.get(name, 0) - (before or {}).get(name, 0))


def _histogram(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> Counter[int]:
    found = Counter(dict(after["buckets"]))
    found.subtract(dict(before["buckets"]) if before else {})
    return found


def _part(count: float, of: float) -> float:
    return count / of if of else 0.0


def _route(
    name: str, before: Mapping[str, Any] | None, after: Mapping[str, Any], seconds: float, bounds: list[float]
) -> Row:
    ended = _more(before, after, "exchanges")
    statuses = (before or {}).get("status", {})
    took = _histogram(before and before["total"], after["total"])
    p50, p99 = (quantile(part, took, bounds) for part in QUANTILES)
    return Row(
        name=name,
        rate=ended / seconds,
        errors=_part(_more(statuses, after["status"], "5xx"), ended),
        refused=_part(_more(statuses, after["status"], "4xx"), ended),
        p50=p50,
        p99=p99,
        bytes_in=_more(before, after, "bytes_in") / seconds,
        bytes_out=_more(before, after, "bytes_out") / seconds,
    )


def _attempts(
    before: Mapping[str, Any], after: Mapping[str, Any], upstream: str, address: str
) -> tuple[Counter[int], int, int]:
    """Of one endpoint: times to the heads, answers of 500 and above, attempts without answer."""
    new = after["endpoints"].get(upstream, {}).get(address)
    if new is None:
        return Counter(), 0, 0
    old = before["endpoints"].get(upstream, {}).get(address)
    return (
        _histogram(old and old["head"], new["head"]),
        _more(old, new, "failed"),
        _more(old, new, "unanswered"),
    )


def _told(
    heads: Counter[int], failed: int, unanswered: int, seconds: float, bounds: list[float]
) -> dict[str, Any]:
    """What a row says of attempts: how many, how many of them went wrong, and how long heads took."""
    count = sum(heads.values()) + unanswered
    p50, p99 = (quantile(part, heads, bounds) for part in QUANTILES)
    errors = _part(failed + unanswered, count)
    return {"rate": count / seconds, "errors": errors, "p50": p50, "p99": p99}


def _endpoints(
    upstream: str,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    view: Mapping[str, Any],
    seconds: float,
    bounds: list[float],
) -> list[Row]:
    rows = []
    for each in view.get("endpoints", ()):
        attempts = _attempts(before, after, upstream, each["address"])
        rows.append(
            Row(
                name=f"{upstream} {each['address']}",
                **_told(*attempts, seconds, bounds),
                active=each["active"],
                open=each["open"],
                idle=each["idle"],
                waiting=each["waiting"],
                state=each["status"],
            )
        )
    return rows


def _upstream(
    name: str,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    view: Mapping[str, Any],
    seconds: float,
    bounds: list[float],
) -> Row:
    heads: Counter[int] = Counter()
    failed = unanswered = 0
    for address in after["endpoints"].get(name, {}):
        took, bad, none = _attempts(before, after, name, address)
        heads.update(took)
        failed, unanswered = failed + bad, unanswered + none
    count = sum(heads.values()) + unanswered
    endpoints = view.get("endpoints", ())
    ready = sum(each["status"] == "ready" for each in endpoints)
    breaker = view.get("breaker", "closed")
    return Row(
        name=name,
        **_told(heads, failed, unanswered, seconds, bounds),
        retried=_part(_more(before["upstreams"].get(name), after["upstreams"][name], "retries"), count),
        active=view.get("load", {}).get("requests", 0),
        open=sum(each["open"] for each in endpoints),
        idle=sum(each["idle"] for each in endpoints),
        waiting=sum(each["waiting"] for each in endpoints),
        state=f"{ready}/{len(endpoints)} ready" + ("" if breaker == "closed" else f", breaker {breaker}"),
    )


def _reasons(before: Mapping[str, int], after: Mapping[str, int], seconds: float) -> dict[str, float]:
    rates = {reason: _more(before, after, reason) / seconds for reason in after}
    return dict(sorted(((k, v) for k, v in rates.items() if v), key=lambda pair: -pair[1]))
