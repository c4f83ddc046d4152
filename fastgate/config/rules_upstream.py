"""Rules of one upstream: its endpoints, how one is chosen, and what has no effect."""

from __future__ import annotations

from collections.abc import Iterable

from fastgate.config.decode import label_of, table_label
from fastgate.config.endpoints_file import check_endpoints_file
from fastgate.config.model import (
    Breaker,
    Concurrency,
    Endpoint,
    Hash,
    HealthCheck,
    Outlier,
    Pool,
    Regions,
    Retry,
    Sticky,
    Upstream,
)
from fastgate.config.problems import Path, did_you_mean, either, quote
from fastgate.config.rules_context import Context, every_upstream_of
from fastgate.config.texts import segment_names
from fastgate.config.units import format_duration

_HASHING = ("maglev", "ring")
_SECOND = 1_000_000_000


def check_upstream(context: Context, path: Path, upstream: Upstream) -> None:
    _check_endpoints(context, path, upstream)
    _check_pool(context, (*path, "pool"), upstream.pool)
    if upstream.hash is not None:
        _check_hash(context, (*path, "hash"), upstream, upstream.hash)
    if upstream.sticky is not None:
        _check_sticky(context, (*path, "sticky"), upstream.sticky)
    if upstream.regions is not None:
        _check_regions(context, (*path, "regions"), upstream, upstream.regions)
    if upstream.health is not None:
        _check_health(context, (*path, "health"), upstream.health)
    if upstream.outlier is not None:
        _check_outlier(context, (*path, "outlier"), upstream.outlier)
    if upstream.retry is not None:
        check_retry(context, (*path, "retry"), upstream.retry)
        if upstream.retry.unsafe != "never":
            context.problems.error(
                (*path, "retry", "unsafe"),
                f"retry.unsafe: {quote(upstream.retry.unsafe)} is not for every request of an upstream",
                "say it on the route",
            )
    if upstream.breaker is not None:
        _check_breaker(context, (*path, "breaker"), upstream.breaker)
    if upstream.concurrency is not None:
        _check_concurrency(context, (*path, "concurrency"), upstream.concurrency)


def _check_endpoints(context: Context, path: Path, upstream: Upstream) -> None:
    problems = context.problems
    listed: tuple[Endpoint, ...] = ()
    if upstream.endpoints_file is not None and context.read_endpoints:
        listed = check_endpoints_file(
            context.document.folder(path),
            upstream.endpoints_file,
            (*path, "endpoints_file"),
            problems,
        )
    if problems.failed((*path, "endpoints")):
        return
    if (
        not upstream.endpoints
        and upstream.endpoints_file is None
        and not problems.failed((*path, "endpoints_file"))
    ):
        if context.written((*path, "endpoints")) is None:
            problems.error(path, f'{table_label(path)} needs the key "endpoints" or "endpoints_file"')
        else:
            problems.error((*path, "endpoints"), "endpoints must not be empty")
    seen: set[str] = set()
    for i, endpoint in enumerate(upstream.endpoints):
        here = (*path, "endpoints", i)
        if endpoint.address in seen:
            problems.warning(
                here,
                f"endpoints[{i}]: {quote(endpoint.address)} is listed twice",
                "give it a `weight` instead",
            )
        seen.add(endpoint.address)
        if endpoint.srv and context.written((*here, "weight")) is not None:
            problems.error(
                (*here, "weight"),
                f"endpoints[{i}].weight: SRV records bring weights of their own",
                at_key=True,
            )
    _check_schemes(context, path, upstream)
    twice = next((endpoint.address for endpoint in listed if endpoint.address in seen), None)
    if twice is not None:
        problems.warning(
            (*path, "endpoints_file"), f"endpoints_file: {quote(twice)} stands in `endpoints` too"
        )
    _check_places(context, path, [*upstream.endpoints, *listed])


def _check_schemes(context: Context, path: Path, upstream: Upstream) -> None:
    """One upstream speaks TLS with all of its endpoints or with none, and nothing is left to guess."""
    if not any(endpoint.scheme for endpoint in upstream.endpoints) or context.problems.failed((*path, "tls")):
        return
    written = context.written((*path, "tls"))
    said = written is not None and written is not False
    secure = next((endpoint for endpoint in upstream.endpoints if endpoint.scheme == "https"), None)
    for i, endpoint in enumerate(upstream.endpoints):
        here, name = (*path, "endpoints", i), f"endpoints[{i}]"
        place = endpoint.address.removesuffix(":80") if endpoint.scheme else endpoint.address
        as_https = f'did you mean "https://{place}"?'
        if endpoint.scheme == "https":
            if written is False:
                context.problems.error(here, f"{name}: https, and `tls` is false", "leave `tls` out")
        elif endpoint.scheme == "http" and secure is not None:
            context.problems.error(
                here,
                f"{name}: http, and {quote(secure.address)} is https: an upstream speaks TLS with all of its "
                "endpoints or with none",
                "make it two upstreams",
            )
        elif endpoint.scheme == "http" and said:
            context.problems.error(here, f"{name}: http, and the upstream has `tls`", as_https)
        elif secure is not None and not (endpoint.scheme or endpoint.asgi or said):
            context.problems.error(
                here,
                f"{name}: {quote(secure.address)} is https, and this one says nothing",
                as_https if endpoint.host else "say `tls = true` for all",
            )


def _check_places(context: Context, path: Path, endpoints: Iterable[Endpoint]) -> None:
    """Endpoints that say where they stand, in a gateway that does not: told once for each upstream."""
    server = context.config.server
    if server.region or context.problems.failed(("server",)):
        return
    own = context.config.upstreams[str(path[1])].endpoints
    for i, endpoint in enumerate(endpoints):
        key = "region" if endpoint.region else "zone" if endpoint.zone and not server.zone else ""
        if key:
            here: Path = (*path, "endpoints", i, key) if i < len(own) else (*path, "endpoints_file")
            context.problems.warning(
                here,
                f"{label_of(here)}: a {key} has no effect while nothing says where the gateway stands",
                f"give `server` a `{key}`",
                at_key=True,
            )
            return


def _check_pool(context: Context, path: Path, pool: Pool) -> None:
    if pool.max_connections < pool.max_idle != Pool().max_idle and not context.problems.failed(path):
        context.problems.warning(
            (*path, "max_idle"),
            f"pool.max_idle: {pool.max_idle} unused connections are never reached with "
            f"`max_connections` {pool.max_connections}",
        )


def _check_hash(context: Context, path: Path, upstream: Upstream, hashing: Hash) -> None:
    problems = context.problems
    if upstream.balance not in _HASHING and not problems.failed((*path[:2], "balance")):
        context.no_effect(path, f"`balance` is {quote(upstream.balance)}", f"it goes with {either(_HASHING)}")
        return
    if problems.failed(path):
        return
    if 0 < hashing.bounded_load <= 1:
        problems.error(
            (*path, "bounded_load"),
            f"hash.bounded_load: expected 0 (no bound) or more than 1, got {hashing.bounded_load:g}",
        )
    for key in hashing.key:
        kind, _, name = key.partition(":")
        if kind != "path":
            continue
        without = [
            route.name
            for _, route in context.routes
            if upstream.name in every_upstream_of(route) and name not in segment_names(route.match.path or "")
        ]
        if without:
            problems.warning(
                context.item((*path, "key"), key),
                f"hash.key: match.path has no segment {{{name}}} in route {either(without[:5], 'and')}",
            )


def _check_sticky(context: Context, path: Path, sticky: Sticky) -> None:
    problems = context.problems
    if problems.failed(path):
        return
    if sticky.secret == "":
        problems.warning(
            path,
            "sticky: without a `secret` sessions will move at every restart and between replicas",
            at_key=True,
        )
    if sticky.same_site == "none" and not sticky.secure:
        problems.warning(
            (*path, "same_site"), 'sticky.same_site: browsers refuse "none" without `secure = true`'
        )
    if sticky.ttl % _SECOND:
        problems.error(
            (*path, "ttl"), f"sticky.ttl: a cookie lives whole seconds, got {format_duration(sticky.ttl)}"
        )


def _check_regions(context: Context, path: Path, upstream: Upstream, regions: Regions) -> None:
    if context.problems.failed(path) or context.problems.failed((*path[:2], "endpoints")):
        return
    if upstream.endpoints_file is not None:
        return
    known = {endpoint.region for endpoint in upstream.endpoints}
    for name in regions.order:
        if name not in known:
            here = context.item((*path, "order"), name)
            context.problems.warning(
                here,
                f"{label_of(here)}: no endpoint is in region {quote(name)}",
                did_you_mean(name, known - {""}),
            )


def _check_health(context: Context, path: Path, health: HealthCheck) -> None:
    problems = context.problems
    if problems.failed(path):
        return
    if health.type == "tcp":
        upstream = context.config.upstreams[str(path[1])]
        for endpoint in upstream.endpoints:
            if endpoint.asgi:
                problems.error(
                    (*path, "type"), f"health.type: {quote(endpoint.address)} has no port to connect to"
                )
        for key in ("path", "method", "host", "expect", "body"):
            if context.written((*path, key)) is not None:
                context.no_effect((*path, key), 'a check of type "tcp" sends no request')
    elif health.body and health.method == "HEAD":
        problems.error((*path, "body"), "health.body: the answer to a HEAD has no body (RFC 9110 9.3.2)")
    if health.timeout > health.interval:
        problems.warning(
            (*path, "timeout"),
            f"health.timeout: {format_duration(health.timeout)} is longer than `interval`, "
            f"{format_duration(health.interval)}",
        )


def _check_outlier(context: Context, path: Path, outlier: Outlier) -> None:
    if context.problems.failed(path):
        return
    if not (outlier.consecutive_errors or outlier.consecutive_gateway_errors or outlier.success_rate):
        context.no_effect(path, "nothing ejects an endpoint")
    elif not outlier.max_ejected:
        context.no_effect(path, "`max_ejected` is 0")
    if outlier.max_ejection < outlier.base_ejection:
        context.problems.error(
            (*path, "max_ejection"),
            f"outlier.max_ejection: {format_duration(outlier.max_ejection)} is shorter than `base_ejection`, "
            f"{format_duration(outlier.base_ejection)}",
        )


def check_retry(context: Context, path: Path, retry: Retry) -> None:
    """What is wrong with retries wherever they stand."""
    if context.problems.failed(path):
        return
    context.check_statuses(path, retry.on)
    if not (retry.budget_percent or retry.budget_min):
        context.no_effect(path, "its budget is 0")
    if retry.backoff_max < retry.backoff_base:
        context.problems.error(
            (*path, "backoff_max"),
            f"retry.backoff_max: {format_duration(retry.backoff_max)} is shorter than `backoff_base`, "
            f"{format_duration(retry.backoff_base)}",
        )


def _check_breaker(context: Context, path: Path, breaker: Breaker) -> None:
    caps = (breaker.max_connections, breaker.max_pending, breaker.max_requests, breaker.max_retries)
    if not any((*caps, breaker.error_percent)) and not context.problems.failed(path):
        context.no_effect(path, "every cap and `error_percent` are 0")


def _check_concurrency(context: Context, path: Path, concurrency: Concurrency) -> None:
    problems = context.problems
    if problems.failed(path):
        return
    if concurrency.limit and concurrency.adaptive:
        problems.error(
            (*path, "limit"), "concurrency.limit: an adaptive limit finds its own; give one of the two"
        )
    elif not (concurrency.limit or concurrency.adaptive):
        context.no_effect(path, "`limit` is 0 and `adaptive` is false")
    if not concurrency.adaptive:
        for key in ("min", "max"):
            if context.written((*path, key)) is not None and concurrency.limit:
                context.no_effect((*path, key), "`adaptive` is false")
    elif concurrency.min > concurrency.max:
        problems.error(
            (*path, "min"), f"concurrency.min: {concurrency.min} is above `max`, {concurrency.max}"
        )
