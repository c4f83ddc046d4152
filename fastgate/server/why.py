"""Why an exchange took its route: what is kept of it says which, the configuration says why."""

from __future__ import annotations

from msgspec.structs import replace

from fastgate.config import Config
from fastgate.routing.explain import explain
from fastgate.telemetry.trail import ExchangeTrace

__all__ = ["explained"]


def explained(config: Config, trace: ExchangeTrace) -> ExchangeTrace:
    """With ``route_why``, as far as it can be told: the request's fields and cookies are not kept, and the
    configuration may be another one by now. May take a while with thousands of routes."""
    if trace.method is None or trace.path is None or (trace.route is None and trace.reason != "no-route"):
        return trace
    url = trace.path if trace.query is None else f"{trace.path}?{trace.query}"
    fields = [("Host", trace.host)] if trace.host else []
    try:
        found = explain(config, trace.method, url, fields, trace.listener)
    except ValueError:
        return trace
    if found.route == trace.route:
        lost = tuple(f"not {one.route}: {one.reason}" for one in found.lost)
        return replace(trace, route_why=found.why or lost)
    return replace(
        trace,
        route_why=(
            "not to be told any more: what decided was one of the request's fields or cookies, or the routes "
            "have changed since",
        ),
    )
