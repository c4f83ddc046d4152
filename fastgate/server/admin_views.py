"""What the admin API answers, beside the views of operations.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from fastgate import _core
from fastgate.config import Config, model
from fastgate.config.part_graph import asked_upstreams
from fastgate.config.render import render
from fastgate.server.acme.views import AcmeView
from fastgate.server.operations import (
    ListenerView,
    LogLevel,
    UpstreamView,
    WorkerView,
)
from fastgate.telemetry.trail import ExchangeTrace

__all__ = [
    "Acme",
    "ConfigurationView",
    "CountersView",
    "Failures",
    "FailuresQuery",
    "Histogram",
    "Level",
    "Listeners",
    "Nothing",
    "PluginView",
    "Plugins",
    "Reason",
    "Reasons",
    "RouteView",
    "Routes",
    "SplitChange",
    "Summary",
    "SummaryQuery",
    "Upstreams",
    "Workers",
    "busiest",
    "reasons",
    "total",
    "view_plugins",
    "view_routes",
]


class Nothing(Struct, frozen=True, forbid_unknown_fields=True):
    """`{}`."""


class Upstreams(Struct, frozen=True):
    upstreams: list[UpstreamView]


class Acme(Struct, frozen=True):
    """In the order of the file; none while the process of ACME is started."""

    acme: list[AcmeView]


class Workers(Struct, frozen=True):
    workers: list[WorkerView]


class Listeners(Struct, frozen=True):
    listeners: list[ListenerView]


class Level(Struct, frozen=True, forbid_unknown_fields=True):
    """From which level on it says anything on stderr."""

    level: LogLevel


class Draining(Struct, frozen=True):
    draining: bool


class Upgraded(Struct, frozen=True):
    """pid: of the new program."""

    pid: int


class Live(Struct, frozen=True):
    live: bool


class SplitChange(Struct, frozen=True, forbid_unknown_fields=True):
    """One of the two: weights of arms (those that are not named keep theirs), or the arm that gets the file's
    weight again."""

    weights: dict[str, Annotated[int, Meta(ge=0, le=10_000)]] | UnsetType = UNSET
    clear: str | UnsetType = UNSET


class ConfigurationView(Struct, frozen=True, kw_only=True):
    """The configuration in force. etag: what If-Match takes. configuration: each key that differs from its
    default, as the file would have it; a secret is "<secret>"."""

    version: int
    etag: str
    source: str
    applied: float
    configuration: dict[str, Any]


class RouteView(Struct, frozen=True, kw_only=True):
    """action: the key that says what is done; upstreams: all it may go to."""

    name: str
    match: dict[str, Any]
    action: str
    upstreams: tuple[str, ...]
    plugins: tuple[str, ...]
    listeners: tuple[str, ...]


class Routes(Struct, frozen=True):
    routes: list[RouteView]


class PluginView(Struct, frozen=True, kw_only=True):
    """counts: what it has counted in all workers."""

    name: str
    use: str
    counts: dict[str, Any]


class Plugins(Struct, frozen=True):
    plugins: list[PluginView]


class Reason(Struct, frozen=True, kw_only=True):
    """Why the gateway answers by itself: the code in body, header and log; the status (0: none is sent)."""

    code: str
    status: int
    source: str
    cause: str
    remedy: str


class Reasons(Struct, frozen=True):
    reasons: list[Reason]


class FailuresQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """limit: how many at most."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class Failures(Struct, frozen=True):
    failures: list[ExchangeTrace]


class SummaryQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """routes: how many at most, those with the most exchanges."""

    routes: Annotated[int, Meta(ge=0, le=1000)] = 200


class Histogram(Struct, frozen=True, kw_only=True):
    """buckets: (index, count) of each that is not empty; bounds_ns has the upper bound of each index."""

    count: int
    sum_ns: int
    buckets: list[tuple[int, int]]


class Traffic(Struct, frozen=True, kw_only=True):
    """Sums since the start, of all workers. status: by class; reasons: of answers of the gateway's own."""

    exchanges: int
    status: dict[str, int]
    reasons: dict[str, int]
    bytes_in: int
    bytes_out: int
    total: Histogram
    upstream_head: Histogram


class EndpointTraffic(Struct, frozen=True, kw_only=True):
    """Attempts. failed: of those that were answered, with 500 and above; unanswered: those that were not.
    head: how long the others' heads took."""

    failed: int
    unanswered: int
    head: Histogram


class Summary(Struct, frozen=True, kw_only=True):
    """What a page shows, for whoever asks every second: differences of two are rates. at: seconds of a clock
    that only this gateway's answers share; started: seconds since the epoch. total: of all routes, and of
    what no route took. endpoints: by upstream."""

    fastgate: str
    configuration: int
    etag: str
    at: float
    started: float
    workers: list[WorkerView]
    ready: bool
    gauges: dict[str, int]
    total: Traffic
    routes: dict[str, Traffic]
    upstreams: dict[str, dict[str, int]]
    endpoints: dict[str, dict[str, EndpointTraffic]]
    bounds_ns: tuple[int, ...]


class FullHistogram(Struct, frozen=True, kw_only=True):
    count: int
    sum_ns: int
    buckets: list[int]


class RouteCounts(Struct, frozen=True, kw_only=True):
    exchanges: int
    status: dict[str, int]
    reasons: dict[str, int]
    bytes_in: int
    bytes_out: int
    total: FullHistogram
    upstream_head: FullHistogram


class EndpointCounts(Struct, frozen=True, kw_only=True):
    failed: int
    unanswered: int
    head: FullHistogram


class CountersView(Struct, frozen=True, kw_only=True):
    """Sums of all workers; see access-log.md."""

    workers: int
    gauges: dict[str, int]
    routes: dict[str, RouteCounts]
    no_route: RouteCounts | None
    upstreams: dict[str, dict[str, int]]
    endpoints: dict[str, dict[str, EndpointCounts]]
    plugins: dict[str, dict[str, Any]]
    bounds_ns: list[int]


def reasons() -> Reasons:
    return Reasons(
        [
            Reason(code=one.code, status=one.status, source=one.source, cause=one.cause, remedy=one.remedy)
            for one in _core.REASONS
            if one.code
        ]
    )


def view_routes(config: Config) -> Routes:
    return Routes([_view_route(route) for route in config.routes])


def _view_route(route: model.Route) -> RouteView:
    action = next(
        word
        for word in ("upstream", "split", "aggregate", "redirect", "respond")
        if getattr(route, word) is not None
    )
    upstreams = [route.upstream] if route.upstream is not None else []
    upstreams += [target.upstream for target in route.split.to] if route.split is not None else []
    upstreams += asked_upstreams(route.aggregate) if route.aggregate is not None else []
    match = render(route.match)
    assert isinstance(match, dict)
    return RouteView(
        name=route.name,
        match=match,
        action=action,
        upstreams=tuple(upstreams),
        plugins=route.plugins,
        listeners=route.listeners,
    )


def view_plugins(config: Config, counts: Mapping[str, Mapping[str, Any]]) -> Plugins:
    return Plugins(
        [
            PluginView(name=name, use=plugin_kind(plugin), counts=dict(counts.get(name, {})))
            for name, plugin in config.plugins.items()
        ]
    )


def plugin_kind(plugin: model.Plugin) -> str:
    if isinstance(plugin, model.PluginUse):
        return plugin.use
    return str(plugin.__struct_config__.tag)


def _traffic(counts: Mapping[str, Any]) -> Traffic:
    return Traffic(
        exchanges=counts["exchanges"],
        status={name: count for name, count in counts["status"].items() if count},
        reasons=counts["reasons"],
        bytes_in=counts["bytes_in"],
        bytes_out=counts["bytes_out"],
        total=_sparse(counts["total"]),
        upstream_head=_sparse(counts["upstream_head"]),
    )


def endpoint_traffic(
    endpoints: Mapping[str, Mapping[str, Any]],
) -> dict[str, dict[str, EndpointTraffic]]:
    """Of a snapshot of the counters."""
    return {
        upstream: {
            address: EndpointTraffic(
                failed=counts["failed"], unanswered=counts["unanswered"], head=_sparse(counts["head"])
            )
            for address, counts in found.items()
        }
        for upstream, found in endpoints.items()
    }


def _sparse(histogram: Mapping[str, Any]) -> Histogram:
    return Histogram(
        count=histogram["count"],
        sum_ns=histogram["sum_ns"],
        buckets=[(index, count) for index, count in enumerate(histogram["buckets"]) if count],
    )


def total(counts: Mapping[str, Any]) -> Traffic:
    """Of a snapshot of the counters."""
    parts = [*counts["routes"].values(), *([counts["no_route"]] if counts["no_route"] else [])]
    return Traffic(
        exchanges=sum(part["exchanges"] for part in parts),
        status=_sums(part["status"] for part in parts),
        reasons=_sums(part["reasons"] for part in parts),
        bytes_in=sum(part["bytes_in"] for part in parts),
        bytes_out=sum(part["bytes_out"] for part in parts),
        total=_sum_histograms([part["total"] for part in parts]),
        upstream_head=_sum_histograms([part["upstream_head"] for part in parts]),
    )


def _sums(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for part in parts:
        found.update(part)
    return {name: count for name, count in found.items() if count}


def _sum_histograms(parts: list[Mapping[str, Any]]) -> Histogram:
    return _sparse(
        {
            "count": sum(part["count"] for part in parts),
            "sum_ns": sum(part["sum_ns"] for part in parts),
            "buckets": map(sum, zip(*(part["buckets"] for part in parts), strict=True)),
        }
    )


def busiest(routes: Mapping[str, Mapping[str, Any]], most: int) -> dict[str, Traffic]:
    names = sorted(routes, key=lambda name: -int(routes[name]["exchanges"]))[:most]
    return {name: _traffic(routes[name]) for name in names}
