"""An upstream of the configuration as the compiled core runs it."""

from __future__ import annotations

from fastgate import _core
from fastgate.config import model
from fastgate.config.tls_context import client_context
from fastgate.server.common import Common

__all__ = ["compile_fallback", "compile_fault", "compile_health", "compile_retry", "compile_upstream"]

HASHING = ("maglev", "ring")


def compile_health(upstream: model.Upstream, table: _core.SharedTable) -> _core.UpstreamHealth:
    """What decides about the health of its endpoints, with its record in ``table``."""
    outlier, breaker = upstream.outlier, upstream.breaker
    return _core.UpstreamHealth(
        upstream.name,
        table=table,
        outlier=None
        if outlier is None
        else _core.OutlierRule(
            consecutive_errors=outlier.consecutive_errors,
            consecutive_gateway_errors=outlier.consecutive_gateway_errors,
            success_rate=outlier.success_rate,
            success_rate_stdev=outlier.success_rate_stdev,
            min_endpoints=outlier.min_endpoints,
            min_requests=outlier.min_requests,
            interval=outlier.interval,
            base_ejection=outlier.base_ejection,
            max_ejection=outlier.max_ejection,
            max_ejected=outlier.max_ejected,
        ),
        breaker=None
        if breaker is None
        else _core.BreakerRule(
            error_percent=breaker.error_percent,
            min_requests=breaker.min_requests,
            window=breaker.window,
            open_time=breaker.open_time,
            trials=breaker.trials,
        ),
        per="both" if breaker is None else breaker.per,
    )


def compile_upstream(
    upstream: model.Upstream,
    region: str,
    zone: str,
    health: _core.UpstreamHealth,
    slot: _core.Slot,
    common: Common,
) -> _core.Upstream:
    """An upstream without endpoints yet. region, zone: where the gateway stands."""
    regions = upstream.regions or model.Regions()
    hashing = upstream.hash or model.Hash()
    return _core.Upstream(
        slot=slot,
        name=upstream.name,
        group=_core.Group(
            common.upstreams,
            upstream.name,
            balance=upstream.balance,
            bounded_load=hashing.bounded_load,
            region=region,
            zone=zone,
            order=regions.order,
            spill_over=regions.spill_over,
            failback_after_ns=regions.failback_after,
            panic_threshold=upstream.panic_threshold,
            slow_start_ns=upstream.slow_start,
            health=health,
        ),
        health=health,
        hash_key=_core.RequestKey(hashing.key) if upstream.balance in HASHING else None,
        sticky=None if upstream.sticky is None else _sticky(upstream.name, upstream.sticky, common.secret),
        hedge=None if upstream.hedge is None else _hedge(upstream.hedge),
        load=_load(upstream, common),
        admission=_admission(upstream.concurrency),
        retry=None if upstream.retry is None else compile_retry(upstream.retry),
        connect_ns=upstream.timeouts.connect,
        head_ns=upstream.timeouts.head,
        idle_ns=upstream.timeouts.idle,
        header_bytes=upstream.limits.header_bytes,
        header_count=upstream.limits.header_count,
        body_limit=upstream.limits.body,
        host=upstream.host,
        tls=None if upstream.tls is None else client_context(upstream.tls),
        tls_name="" if upstream.tls is None else upstream.tls.name,
    )


def _sticky(upstream: str, sticky: model.Sticky, secret: bytes) -> _core.Sticky:
    given = sticky.secret.reveal() if isinstance(sticky.secret, model.Secret) else sticky.secret
    return _core.Sticky(
        upstream,
        cookie=sticky.cookie,
        secret=given.encode() or secret,
        ttl_ns=sticky.ttl,
        path=sticky.path,
        domain=sticky.domain,
        secure=sticky.secure,
        http_only=sticky.http_only,
        same_site=sticky.same_site,
    )


def _hedge(hedge: model.Hedge) -> _core.HedgePolicy:
    return _core.HedgePolicy(
        quantile=hedge.quantile, min_delay_ns=hedge.min_delay, max_percent=hedge.max_percent
    )


def _load(upstream: model.Upstream, common: Common) -> _core.UpstreamLoad:
    caps = upstream.breaker or model.Breaker()
    return _core.UpstreamLoad(
        upstream.name,
        table=common.loads,
        worker=common.place,
        workers=common.places,
        max_connections=caps.max_connections,
        max_pending=caps.max_pending,
        max_requests=caps.max_requests,
        max_retries=caps.max_retries,
    )


def _admission(concurrency: model.Concurrency | None) -> _core.Admission | None:
    if concurrency is None or not (concurrency.limit or concurrency.adaptive):
        return None
    return _core.Admission(
        limit=concurrency.limit,
        adaptive=concurrency.adaptive,
        min_limit=concurrency.min,
        max_limit=concurrency.max,
        queue=concurrency.queue,
        queue_timeout_ns=concurrency.queue_timeout,
        order=concurrency.order,
    )


def compile_retry(retry: model.Retry) -> _core.RetryPolicy:
    """When a failed attempt is tried again."""
    return _core.RetryPolicy(
        attempts=retry.attempts,
        on=retry.on,
        statuses=retry.statuses,
        per_try_timeout_ns=-1 if retry.per_try_timeout is None else retry.per_try_timeout,
        backoff_base_ns=retry.backoff_base,
        backoff_max_ns=retry.backoff_max,
        budget_percent=retry.budget_percent,
        budget_min=retry.budget_min,
        body_limit=retry.body_limit,
        retry_after_max_ns=retry.retry_after_max,
        unsafe=retry.unsafe,
    )


def compile_fallback(
    fallback: model.Fallback,
    retry: model.Retry | None,
    upstream: _core.Upstream | None,
    respond: tuple[int, bytes, bytes] | None,
) -> _core.Fallback:
    """Where a route goes when its upstream fails. What may be sent to a second upstream is what may be tried
    again."""
    attempts = ("connect-failure", "reset", "timeout", "status")
    return _core.Fallback(
        _core.RetryPolicy(
            on=tuple(kind for kind in attempts if kind in fallback.on),
            statuses=fallback.statuses,
            unsafe="never" if retry is None else retry.unsafe,
        ),
        on_no_endpoint="no-endpoint" in fallback.on,
        on_overload="overload" in fallback.on,
        upstream=upstream,
        respond=respond,
    )


def compile_fault(fault: model.Fault) -> _core.FaultRule:
    """What is done to requests on purpose."""
    return _core.FaultRule(
        delay_ns=fault.delay or 0,
        delay_percent=fault.delay_percent,
        abort_status=fault.abort or 0,
        abort_percent=fault.abort_percent,
        header=fault.header,
    )
