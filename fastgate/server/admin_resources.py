"""The table of the admin API's resources, and what each does. docs/admin-api.md is made from it."""

from __future__ import annotations

import os
import time
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

import fastgate
from fastgate import _core
from fastgate.config.render import render
from fastgate.server import admin_views as views
from fastgate.server.admin_certificates import Certificates, certificates_of
from fastgate.server.admin_change import CHANGE
from fastgate.server.admin_page import page
from fastgate.server.admin_types import Call, Refusal, Reply, Resource, expected
from fastgate.server.operations import (
    EndpointChange,
    EndpointView,
    Health,
    InForce,
    Operations,
    ReloadResult,
    SplitView,
    UnknownName,
    UpstreamView,
)
from fastgate.telemetry.text import OPENMETRICS, PROMETHEUS, wants_openmetrics
from fastgate.telemetry.trail import ExchangeTrace
from fastgate.versions import versions

__all__ = ["METRICS", "RESOURCES"]

NS: Final = 1e9
AnyCall = Call[Any, Any]


# -- whether it is well


async def _livez(operations: Operations, call: AnyCall) -> object:
    return views.Live(True)


async def _readyz(operations: Operations, call: AnyCall) -> object:
    health = await operations.health()
    headers = (("Content-Type", "application/json"),)
    return Reply(200 if health.ready else 503, msgspec.json.encode(health), headers)


async def _workers(operations: Operations, call: AnyCall) -> object:
    return views.Workers(await operations.workers())


async def _version(operations: Operations, call: AnyCall) -> object:
    return {**versions(), "pid": os.getpid()}


async def _drain(operations: Operations, call: AnyCall) -> object:
    await operations.begin_drain()
    return views.Draining(True)


async def _upgrade(operations: Operations, call: AnyCall) -> object:
    return views.Upgraded(await operations.upgrade())


async def _log_level(operations: Operations, call: AnyCall) -> object:
    return views.Level(await operations.log_level())


async def _set_log_level(operations: Operations, call: Call[None, views.Level]) -> object:
    return views.Level(await operations.set_log_level(call.body.level))


# -- what it counts


async def _counters(operations: Operations, call: AnyCall) -> object:
    return await operations.count()


async def _metrics(operations: Operations, call: AnyCall) -> object:
    openmetrics = wants_openmetrics(call.request.headers.get("accept", ""))
    body = await operations.metrics(openmetrics)
    media = OPENMETRICS if openmetrics else PROMETHEUS
    return Reply(200, body, (("Content-Type", media), ("Vary", "Accept")))


async def _summary(operations: Operations, call: Call[views.SummaryQuery, None]) -> object:
    counts = await operations.count()
    now = await operations.in_force()
    workers = await operations.workers()
    return views.Summary(
        fastgate=fastgate.__version__,
        configuration=now.version,
        etag=now.etag,
        at=_core.monotonic_ns() / NS,
        started=min((worker.started for worker in workers), default=time.time()),
        workers=workers,
        ready=(await operations.health()).ready,
        gauges=counts["gauges"],
        total=views.total(counts),
        routes=views.busiest(counts["routes"], call.query.routes),
        upstreams=counts["upstreams"],
        endpoints=views.endpoint_traffic(counts["endpoints"]),
        bounds_ns=tuple(counts["bounds_ns"]),
    )


async def _reasons(operations: Operations, call: AnyCall) -> object:
    return views.reasons()


# -- single requests


async def _why(operations: Operations, call: AnyCall) -> object:
    return await operations.why(call.names["request"])


async def _failures(operations: Operations, call: Call[views.FailuresQuery, None]) -> object:
    return views.Failures(await operations.failures(call.query.limit))


# -- what is configured


async def _configuration(operations: Operations, call: AnyCall) -> object:
    now = await operations.in_force()
    if now.etag in [one.strip() for one in call.request.headers.get("if-none-match", "").split(",")]:
        return Reply(304, headers=(("ETag", now.etag),))
    shown = views.ConfigurationView(
        version=now.version,
        etag=now.etag,
        source=now.config.source,
        applied=now.applied,
        configuration=render(now.config),
    )
    return Reply(200, msgspec.json.encode(shown), (("Content-Type", "application/json"), ("ETag", now.etag)))


async def _reload(operations: Operations, call: AnyCall) -> object:
    return await operations.reload(cause="admin", expected=expected(call))


async def _reload_certificates(operations: Operations, call: AnyCall) -> object:
    return await operations.reload_certificates(expected=expected(call))


async def _routes(operations: Operations, call: AnyCall) -> object:
    return views.view_routes((await operations.in_force()).config)


async def _plugins(operations: Operations, call: AnyCall) -> object:
    now: InForce = await operations.in_force()
    return views.view_plugins(now.config, (await operations.count())["plugins"])


async def _acme(operations: Operations, call: AnyCall) -> object:
    return views.Acme(await operations.acme())


async def _certificates(operations: Operations, call: AnyCall) -> object:
    # Not in a thread: what forks has none.
    now: InForce = await operations.in_force()
    return certificates_of(now.config, await operations.acme(), time.time())


async def _listeners(operations: Operations, call: AnyCall) -> object:
    return views.Listeners(await operations.listeners())


# -- upstreams and splits


async def _upstreams(operations: Operations, call: AnyCall) -> object:
    return views.Upstreams(await operations.upstreams())


async def _upstream(operations: Operations, call: AnyCall) -> object:
    name = call.names["upstream"]
    for upstream in await operations.upstreams():
        if upstream.name == name:
            return upstream
    raise UnknownName(f'no upstream is named "{name}"')


async def _set_endpoint(operations: Operations, call: Call[None, EndpointChange]) -> object:
    if call.body == EndpointChange():
        raise Refusal(422, "give `state`, `weight` or both")
    return await operations.set_endpoint(call.names["upstream"], call.names["endpoint"], call.body)


async def _split(operations: Operations, call: AnyCall) -> object:
    return await operations.split(call.names["route"])


async def _set_split(operations: Operations, call: Call[None, views.SplitChange]) -> object:
    route, change = call.names["route"], call.body
    if (change.weights is UNSET) == (change.clear is UNSET):
        raise Refusal(422, "give `weights` or `clear`, one of them")
    try:
        if not isinstance(change.clear, UnsetType):
            return await operations.clear_split(route, change.clear)
        assert not isinstance(change.weights, UnsetType)
        return await operations.set_split(route, change.weights)
    except ValueError as error:
        raise Refusal(422, str(error)) from error


# -- itself


async def _openapi(operations: Operations, call: AnyCall) -> object:
    from fastgate.server.admin_openapi import document

    return document(RESOURCES)


async def _page(operations: Operations, call: AnyCall) -> object:
    return page(call.request.headers.get("if-none-match", ""))


def _get(path: str, summary: str, act: Any, answer: Any, **more: Any) -> Resource:
    return Resource(method="GET", path=path, summary=summary, act=act, answer=answer, **more)


def _put(path: str, summary: str, act: Any, answer: Any, body: Any, **more: Any) -> Resource:
    return Resource(method="PUT", path=path, summary=summary, act=act, answer=answer, body=body, **more)


def _post(path: str, summary: str, act: Any, answer: Any, body: Any = views.Nothing, **more: Any) -> Resource:
    return Resource(
        method="POST", path=path, summary=summary, act=act, answer=answer, body=body, need_body=False, **more
    )


METRICS: Final = _get(
    "/metrics", "Metrics for Prometheus; see metrics.md", _metrics, None, media="text/plain"
)

# In the order of the page that is made of it.
RESOURCES: Final[tuple[Resource, ...]] = (
    _get("/livez", "Whether the process lives: 200 as long as it answers", _livez, views.Live, open=True),
    _get(
        "/readyz",
        "Whether requests should be sent to it: 200, or 503 with the reasons",
        _readyz,
        Health,
        open=True,
        errors=(503,),
    ),
    _get(
        "/version", "Versions of fastgate and of what it runs on, and `pid`", _version, dict[str, str | int]
    ),
    _get("/workers", "The processes that serve", _workers, views.Workers),
    _get("/counters", "The counters; see access-log.md", _counters, views.CountersView),
    METRICS,
    _get(
        "/summary",
        "What the page shows, to be asked for every second",
        _summary,
        views.Summary,
        query=views.SummaryQuery,
    ),
    _get("/requests/{request}", "What is kept of the last request with that id", _why, ExchangeTrace),
    _get(
        "/failures",
        "The latest answers that were errors or refusals, and what is kept of them",
        _failures,
        views.Failures,
        query=views.FailuresQuery,
    ),
    _get("/reasons", "Why the gateway answers by itself: every reason there is", _reasons, views.Reasons),
    _get(
        "/configuration",
        "The configuration in force, its version and ETag",
        _configuration,
        views.ConfigurationView,
        errors=(304,),
    ),
    _post(
        "/reload",
        "Reads the file anew and puts it in force, or changes nothing",
        _reload,
        ReloadResult,
        conditional=True,
        errors=(422,),
    ),
    *CHANGE,
    _get("/listeners", "Where clients connect", _listeners, views.Listeners),
    _get(
        "/certificates",
        "The certificates that it shows or waits for: pending ones in front, then those that expire first",
        _certificates,
        Certificates,
    ),
    _post(
        "/certificates/reload",
        "Reads the files of certificates, keys, authorities and revocation lists anew, or changes nothing",
        _reload_certificates,
        ReloadResult,
        conditional=True,
        errors=(422,),
    ),
    _get("/acme", "ACME directories, and how the certificates from there stand", _acme, views.Acme),
    _get("/routes", "Which requests go where", _routes, views.Routes),
    _get("/routes/{route}/split", "The arms of a route's split", _split, SplitView),
    _put(
        "/routes/{route}/split",
        "Puts weights of arms in force, or the file's again",
        _set_split,
        SplitView,
        views.SplitChange,
    ),
    _get("/plugins", "The plugins, and what they have counted", _plugins, views.Plugins),
    _get(
        "/upstreams",
        "Upstreams and their endpoints: state, weight, breakers, load",
        _upstreams,
        views.Upstreams,
    ),
    _get("/upstreams/{upstream}", "One of them", _upstream, UpstreamView),
    _put(
        "/upstreams/{upstream}/endpoints/{endpoint}",
        "An operator's word on an endpoint: what is not given stays",
        _set_endpoint,
        EndpointView,
        EndpointChange,
    ),
    _get("/log-level", "From which level on it says anything on stderr", _log_level, views.Level),
    _put("/log-level", "Another one, until the process ends", _set_log_level, views.Level, views.Level),
    _post(
        "/drain",
        "Begins what SIGTERM begins: nothing new, what runs may finish, then the end",
        _drain,
        views.Draining,
        status=202,
        errors=(409,),
    ),
    _post(
        "/upgrade",
        "Starts the program anew beside this one, which drains once the new one serves",
        _upgrade,
        views.Upgraded,
        errors=(409, 422),
    ),
    _get("/openapi.json", "This description, as OpenAPI 3.1", _openapi, dict[str, Any]),
    _get("/", "The page", _page, None, media="text/html", open=True, errors=(304,)),
)
