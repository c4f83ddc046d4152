"""What a route and its upstreams do when something fails or is slow, in words: for `fastgate explain`."""

from __future__ import annotations

from msgspec import Struct

from fastgate.config.model import (
    Breaker,
    Concurrency,
    Config,
    Endpoint,
    Fallback,
    Fault,
    HealthCheck,
    Outlier,
    Retry,
    Rollback,
    Route,
    SplitTarget,
    Upstream,
)
from fastgate.config.units import format_duration
from fastgate.routing.reference import Request, cookie_values, header_values


class EndpointShown(Struct, frozen=True, kw_only=True):
    """One address of an upstream."""

    address: str
    weight: int
    region: str
    zone: str


class ArmShown(Struct, frozen=True, kw_only=True):
    """One arm of a split. `percent`: its share by weight."""

    name: str
    upstream: str
    weight: int
    percent: float
    rollback: str | None
    endpoints: tuple[EndpointShown, ...]
    forwarded_host: str
    policies: dict[str, str]


class SplitShown(Struct, frozen=True, kw_only=True):
    """`chosen`: the arm that this request names itself, if it does."""

    key: tuple[str, ...]
    override: tuple[str, ...]
    chosen: str | None
    arms: tuple[ArmShown, ...]


def endpoints_of(upstream: Upstream) -> tuple[EndpointShown, ...]:
    return tuple(_endpoint(one) for one in upstream.endpoints)


def _endpoint(one: Endpoint) -> EndpointShown:
    return EndpointShown(address=one.address, weight=one.weight, region=one.region, zone=one.zone)


def forwarded_host(route: Route, upstream: Upstream, authority: str) -> str:
    """The Host that the upstream is sent."""
    if route.rewrite is not None and route.rewrite.host is not None:
        return route.rewrite.host
    if upstream.host == "client":
        return authority
    return "the endpoint's address" if upstream.host == "endpoint" else upstream.host


def split_of(route: Route, config: Config, request: Request, authority: str) -> SplitShown | None:
    """The split of `route`, if it has one."""
    split = route.split
    if split is None:
        return None
    total = sum(target.weight for target in split.to)
    override = []
    named: list[bytes] = []
    if split.override is not None:
        if split.override.header:
            override.append(f"header:{split.override.header}")
            named += header_values(request, split.override.header.encode())
        if split.override.cookie:
            override.append(f"cookie:{split.override.cookie}")
            named += cookie_values(request, split.override.cookie.encode())
    arms = {target.name.encode(): target.name for target in split.to}
    return SplitShown(
        key=split.key,
        override=tuple(override),
        chosen=next((arms[value] for value in named if value in arms), None),
        arms=tuple(
            _arm(target, total, route, config.upstreams[target.upstream], authority) for target in split.to
        ),
    )


def _arm(target: SplitTarget, total: int, route: Route, upstream: Upstream, authority: str) -> ArmShown:
    return ArmShown(
        name=target.name,
        upstream=target.upstream,
        weight=target.weight,
        percent=round(100 * target.weight / total, 2),
        rollback=None if target.rollback is None else _rollback(target.rollback),
        endpoints=endpoints_of(upstream),
        forwarded_host=forwarded_host(route, upstream, authority),
        policies=upstream_policies(upstream, route),
    )


def upstream_policies(upstream: Upstream, route: Route) -> dict[str, str]:
    """Those of `upstream` for requests of `route`, by the key of their table."""
    found: dict[str, str] = {"balance": upstream.balance}
    if upstream.hash is not None and upstream.balance in ("maglev", "ring"):
        found["balance"] += f" by {', then '.join(upstream.hash.key)}"
    if upstream.endpoints_file is not None:
        found["endpoints_file"] = upstream.endpoints_file
    if upstream.sticky is not None:
        found["sticky"] = f"cookie {upstream.sticky.cookie}"
    if upstream.health is not None:
        found["health"] = _health(upstream.health)
    if upstream.outlier is not None:
        found["outlier"] = _outlier(upstream.outlier)
    if route.retry is not None:
        found["retry"] = retry_policy(route.retry)
    elif upstream.retry is not None:
        found["retry"] = retry_policy(upstream.retry)
    if upstream.hedge is not None:
        found["hedge"] = (
            f"after {upstream.hedge.quantile:g} % of the latencies, at least "
            f"{_time(upstream.hedge.min_delay)}; at most {upstream.hedge.max_percent:g} % of requests"
        )
    if upstream.breaker is not None:
        found["breaker"] = _breaker(upstream.breaker)
    if upstream.concurrency is not None:
        found["concurrency"] = _concurrency(upstream.concurrency)
    return found


def route_policies(route: Route) -> dict[str, str]:
    """Those of the route itself, by the key of their table."""
    found: dict[str, str] = {}
    if route.priority != "normal":
        found["priority"] = route.priority
    if route.fallback is not None:
        found["fallback"] = _fallback(route.fallback)
    if route.fault is not None:
        found["fault"] = _fault(route.fault)
    if route.mirror is not None:
        found["mirror"] = f"{route.mirror.percent:g} % to upstream {route.mirror.upstream}"
    return found


def _time(ns: int) -> str:
    return format_duration(ns)[1:-1]


def _failures(on: tuple[str, ...], statuses: tuple[int, ...]) -> str:
    named = [", ".join(map(str, statuses)) if one == "status" else one for one in on]
    return ", ".join(named)


def retry_policy(retry: Retry) -> str:
    parts = [f"{retry.attempts} tries in all on {_failures(retry.on, retry.statuses)}"]
    if retry.per_try_timeout is not None:
        parts.append(f"{_time(retry.per_try_timeout)} each")
    if retry.unsafe == "always":
        parts.append("whatever the method")
    else:
        keyed = " or an Idempotency-Key" if retry.unsafe == "idempotency-key" else ""
        parts.append(f"with a safe method{keyed}")
    return "; ".join(parts)


def _fallback(fallback: Fallback) -> str:
    respond = fallback.respond
    answer = f"upstream {fallback.upstream}" if respond is None else f"responds {respond.status}"
    return f"{answer} on {_failures(fallback.on, fallback.statuses)}"


def _fault(fault: Fault) -> str:
    parts = []
    if fault.delay is not None:
        parts.append(f"delays {fault.delay_percent:g} % by {_time(fault.delay)}")
    if fault.abort is not None:
        parts.append(f"aborts {fault.abort_percent:g} % with {fault.abort}")
    only = f" (requests with {fault.header})" if fault.header else ""
    return ", ".join(parts) + only


def _health(health: HealthCheck) -> str:
    asks = "tcp connect" if health.type == "tcp" else f"{health.method} {health.path}"
    return f"{asks} every {_time(health.interval)}; down after {health.fall}, up after {health.rise}"


def _outlier(outlier: Outlier) -> str:
    reasons = []
    if outlier.consecutive_errors:
        reasons.append(f"{outlier.consecutive_errors} errors in a row")
    if outlier.consecutive_gateway_errors:
        reasons.append(f"{outlier.consecutive_gateway_errors} gateway errors in a row")
    if outlier.success_rate:
        reasons.append("a low success rate")
    return f"ejected for {', '.join(reasons)}; at most {outlier.max_ejected:g} % of endpoints"


def _breaker(breaker: Breaker) -> str:
    caps = {
        "connections": breaker.max_connections,
        "pending": breaker.max_pending,
        "requests": breaker.max_requests,
        "retries": breaker.max_retries,
    }
    parts = [f"{what} {cap}" for what, cap in caps.items() if cap]
    if breaker.error_percent:
        parts.append(f"open at {breaker.error_percent:g} % errors for {_time(breaker.open_time)}")
    return ", ".join(parts)


def _concurrency(concurrency: Concurrency) -> str:
    limit = (
        f"adaptive, {concurrency.min} to {concurrency.max}"
        if concurrency.adaptive
        else str(concurrency.limit)
    )
    return f"{limit}; queue of {concurrency.queue} for {_time(concurrency.queue_timeout)}"


def _rollback(rollback: Rollback) -> str:
    parts = []
    if rollback.error_percent:
        parts.append(f"{rollback.error_percent:g} points more errors")
    if rollback.p99_factor:
        parts.append(f"{rollback.p99_factor:g} times the p99")
    return (
        f"{' or '.join(parts)} than {rollback.baseline}, of {rollback.min_samples} in "
        f"{_time(rollback.window)}"
    )
