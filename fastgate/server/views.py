"""What an operator is shown of listeners, upstreams and splits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastgate import _core
from fastgate.config import model
from fastgate.server.operations import ArmView, EndpointView, ListenerView, SplitView, UpstreamView
from fastgate.server.upstreams import RunningUpstream

__all__ = ["describe_verdict", "view_endpoint", "view_listener", "view_split", "view_upstream"]


def view_listener(config: model.Listener, addresses: Iterable[str]) -> ListenerView:
    """addresses: where it listens."""
    return ListenerView(
        name=config.name,
        bind=config.bind,
        addresses=tuple(addresses),
        proxy_protocol=config.proxy_protocol,
        plugins=config.plugins,
    )


def view_upstream(running: RunningUpstream) -> UpstreamView:
    admission, load = running.core.admission, running.core.load
    return UpstreamView(
        name=running.config.name,
        balance=running.config.balance,
        breaker=running.health.breaker_state,
        problem=running.core.problem or "",
        limit=0 if admission is None else admission.limit,
        queued=0 if admission is None else admission.waiting,
        load={
            "requests": load.requests,
            "retries": load.retries,
            "pending": load.pending,
            "connections": load.connections,
        },
        endpoints=tuple(view_endpoint(endpoint) for endpoint in running.endpoints.values()),
    )


def view_endpoint(endpoint: _core.Endpoint) -> EndpointView:
    known = _core.endpoint_report(endpoint, _core.monotonic_ns())
    numbers = endpoint.numbers()
    return EndpointView(
        address=endpoint.address,
        region=endpoint.region,
        zone=endpoint.zone,
        status=known["status"],
        state=known["operator"],
        probe=known["probe"],
        breaker=known["breaker"],
        ejected_for=round(known["ejected_for_s"], 3),
        weight=known["weight"],
        active=numbers["active"],
        open=numbers["open"],
        idle=numbers["idle"],
        waiting=numbers["waiting"],
    )


def view_split(splitter: _core.Splitter) -> SplitView:
    status = splitter.status(_core.monotonic_ns())
    return SplitView(
        route=splitter.route,
        arms=tuple(
            ArmView(
                name=arm["name"],
                upstream=arm["upstream"],
                weight=arm["weight"],
                configured=arm["configured"],
                rolled_back=_why(arm),
            )
            for arm in status["arms"]
        ),
    )


def _why(arm: dict[str, Any]) -> str | None:
    if not arm["rolled_back"]:
        return None
    why = dict(arm["rollback"]["why"])
    seconds = why.pop("seconds_ago")
    return f"{seconds:.0f} s ago: {describe_verdict(_core.RollbackVerdict(**why))}"


def describe_verdict(verdict: _core.RollbackVerdict) -> str:
    """The numbers of a rollback, in one line."""
    margin = (
        f"more than {verdict.margin:g} points above"
        if verdict.rule == "error-percent"
        else f"a p99 more than {verdict.margin:g} times that of"
    )
    return (
        f"{margin} {verdict.baseline} within {verdict.window_s:g} s: errors {verdict.error_percent:.2f} % "
        f"of {verdict.samples}, p99 {verdict.p99_ms:.1f} ms, against {verdict.baseline_error_percent:.2f} % "
        f"of {verdict.baseline_samples}, {verdict.baseline_p99_ms:.1f} ms; chance {verdict.chance:.0e}"
    )
