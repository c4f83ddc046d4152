"""Every family of metrics: its name, type, labels and what it tells. docs/metrics.md is made from it."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

__all__ = ["BY_KEY", "FAMILIES", "Family"]

Kind = Literal["counter", "gauge", "histogram", "info"]


class Family(NamedTuple):
    """key: how the code calls it; that of a compiled one is among ``_core.METRIC_FAMILIES``. name: as the
    samples have it, so that of a counter ends in "_total" and that of an info in "_info". group: a heading of
    the page. unit: as OpenMetrics tells it, "" for none."""

    key: str
    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    group: str
    unit: str = ""

    @property
    def bare(self) -> str:
        """The family's name in OpenMetrics: without what the kind appends."""
        suffix = {"counter": "_total", "info": "_info"}.get(self.kind, "")
        return self.name.removesuffix(suffix)


def _group(title: str, *families: tuple[str, str, Kind, tuple[str, ...], str]) -> tuple[Family, ...]:
    units = ("seconds", "bytes")
    return tuple(
        Family(
            *each,
            group=title,
            unit=next((unit for unit in units if each[1].removesuffix("_total").endswith(f"_{unit}")), ""),
        )
        for each in families
    )


_ROUTE = ("route",)
_UPSTREAM = ("upstream",)
_ENDPOINT = ("upstream", "endpoint")
_PART = ("route", "part")
_WORKER = ("worker",)

# In the order of the text. Help is one sentence, without a dot.
FAMILIES: Final[tuple[Family, ...]] = (
    *_group(
        "Requests",
        ("requests", "fastgate_requests_total", "counter", ("route", "method", "status"),
         "Requests that have ended, by method and class of the status that the client was sent"),
        ("reasons", "fastgate_request_reasons_total", "counter", ("route", "reason"),
         "Requests that the gateway answered itself or that did not end well, by reason"),
        ("bytes_in", "fastgate_request_body_bytes_total", "counter", _ROUTE,
         "Bytes of request bodies that came from clients, and of tunnels"),
        ("bytes_out", "fastgate_response_body_bytes_total", "counter", _ROUTE,
         "Bytes of response bodies that went to clients, and of tunnels"),
        ("total", "fastgate_request_duration_seconds", "histogram", _ROUTE,
         "From the first byte of a request's head to the end of its answer"),
        ("head", "fastgate_request_upstream_head_seconds", "histogram", _ROUTE,
         "From a request's head sent to the upstream to the head of the answer that was used"),
    ),
    *_group(
        "Upstreams",
        ("upstream_exchanges", "fastgate_upstream_requests_total", "counter", _UPSTREAM,
         "Requests with at least one attempt"),
        ("upstream_attempts", "fastgate_upstream_attempts_total", "counter", _UPSTREAM,
         "Attempts of these requests"),
        ("upstream_retries", "fastgate_upstream_retries_total", "counter", _UPSTREAM,
         "Attempts behind the first of a request"),
        ("upstream_failures", "fastgate_upstream_failures_total", "counter", _UPSTREAM,
         "Requests that ended with a reason of which the upstream is the source"),
        ("upstream_made", "fastgate_upstream_connections_opened_total", "counter", _UPSTREAM,
         "Connections that were made"),
        ("upstream_open", "fastgate_upstream_connections_open", "gauge", _UPSTREAM,
         "Connections that are open"),
        ("upstream_idle", "fastgate_upstream_connections_idle", "gauge", _UPSTREAM,
         "Connections that are open and not in use"),
        ("upstream_waiting", "fastgate_upstream_requests_waiting", "gauge", _UPSTREAM,
         "Requests that wait for a connection"),
        ("upstream_active", "fastgate_upstream_requests_active", "gauge", _UPSTREAM, "Requests under way"),
        ("upstream_retrying", "fastgate_upstream_retries_active", "gauge", _UPSTREAM, "Retries under way"),
        ("upstream_refused", "fastgate_upstream_limit_refusals_total", "counter", _UPSTREAM,
         "How often max_requests, max_pending or max_connections of the breaker said no"),
        ("upstream_retries_refused", "fastgate_upstream_retry_refusals_total", "counter", _UPSTREAM,
         "Retries that the budget or max_retries did not allow"),
        ("upstream_breaker", "fastgate_upstream_breaker_state", "gauge", ("upstream", "state"),
         "1 for the state that the upstream's breaker is in"),
        ("upstream_connect", "fastgate_upstream_connect_seconds", "histogram", _UPSTREAM,
         "How long requests waited for a new connection, each for its last one"),
        ("upstream_queue", "fastgate_upstream_queue_seconds", "histogram", _UPSTREAM,
         "How long requests waited for a connection that came free, each for its last one"),
    ),
    *_group(
        "Endpoints",
        ("endpoint_requests", "fastgate_endpoint_requests_total", "counter", (*_ENDPOINT, "result"),
         "Attempts by how they ended: ok (an answer below 500), 5xx, or no-answer"),
        ("endpoint_active", "fastgate_endpoint_requests_active", "gauge", _ENDPOINT, "Attempts under way"),
        ("endpoint_open", "fastgate_endpoint_connections_open", "gauge", _ENDPOINT,
         "Connections that are open"),
        ("endpoint_idle", "fastgate_endpoint_connections_idle", "gauge", _ENDPOINT,
         "Connections that are open and not in use"),
        ("endpoint_state", "fastgate_endpoint_state", "gauge", (*_ENDPOINT, "state"),
         "1 for what the endpoint is, all told: ready, draining, down or ejected"),
        ("endpoint_head", "fastgate_endpoint_response_head_seconds", "histogram", _ENDPOINT,
         "From an attempt's head sent to the head of its answer, retries and hedges each"),
    ),
    *_group(
        "Aggregations",
        ("part", "fastgate_aggregate_parts_total", "counter", (*_PART, "result"),
         "Parts by how they ended: ok, failed, or skipped by a condition"),
        ("part_spared", "fastgate_aggregate_part_requests_spared_total", "counter", (*_PART, "how"),
         "Requests of parts that were not sent: cached, or coalesced with another one's"),
        ("part_took", "fastgate_aggregate_part_request_duration_seconds", "histogram", _PART,
         "Requests of parts, from their sending to the last byte of the answer"),
    ),
    *_group(
        "Plugins",
        ("plugin", "fastgate_plugin_decisions_total", "counter", ("plugin", "decision"),
         "What plugins have counted of their decisions and failures, up to a second ago"),
    ),
    *_group(
        "Clients",
        ("connections_open", "fastgate_connections_open", "gauge", (),
         "Connections of clients that are open"),
        ("connections_accepted", "fastgate_connections_accepted_total", "counter", (),
         "Connections of clients that were accepted"),
        ("connections_refused", "fastgate_connections_refused_total", "counter", (),
         "Connections that were closed at once, over server.max_connections or max_connections_per_ip"),
        ("exchanges_active", "fastgate_requests_active", "gauge", (), "Requests under way"),
        ("tunnels_active", "fastgate_tunnels_active", "gauge", (),
         "Connections that were upgraded, WebSockets most of them"),
        ("log_dropped", "fastgate_access_log_dropped_lines_total", "counter", (),
         "Lines of the access log that were lost since nobody took them"),
        ("traces_sampled", "fastgate_traces_sampled_total", "counter", (),
         "Requests whose spans are to be exported; mirrored ones and subrequests have spans of their own"),
        ("traces_exported", "fastgate_traces_exported_total", "counter", (),
         "Sampled requests whose spans the receiver has taken"),
        ("traces_dropped", "fastgate_traces_dropped_total", "counter", (),
         "Sampled requests whose spans were lost: no room in the queue, or not taken"),
        ("listeners", "fastgate_listener_info", "info", ("listener", "bind"),
         "A listener of the configuration"),
    ),
    *_group(
        "TLS",
        ("tls_handshakes", "fastgate_tls_handshakes_total", "counter", (),
         "TLS handshakes with clients that were completed"),
        ("tls_resumed", "fastgate_tls_handshakes_resumed_total", "counter", (),
         "Those of them that resumed a session"),
        ("tls_failed", "fastgate_tls_handshakes_failed_total", "counter", (), "Handshakes that failed"),
        ("tls_timeouts", "fastgate_tls_handshakes_timed_out_total", "counter", (),
         "Handshakes that took longer than a listener's handshake_timeout"),
        ("tls_refused", "fastgate_tls_handshakes_refused_total", "counter", (),
         "Connections that were closed over a listener's handshake_rate"),
        ("certificate", "fastgate_certificate_expiry_timestamp_seconds", "gauge",
         ("listener", "certificate", "name"),
         "When it ends: by listener, place in its list, first name; or by `[acme.CERTIFICATE]` and domain"),
        ("acme_certificates", "fastgate_acme_certificates", "gauge", ("acme", "state"),
         "Names of an `[acme.NAME]` by their certificate: pending (there is none yet), valid or expired"),
        ("acme", "fastgate_acme_failures", "gauge", ("acme", "domain"),
         "Attempts in a row to get or renew a certificate that have failed"),
    ),
    *_group(
        "Configuration",
        ("config_version", "fastgate_config_version", "gauge", (), "Version of the configuration in force"),
        ("config_applied", "fastgate_config_applied_timestamp_seconds", "gauge", (),
         "Since when it is in force"),
        ("config_reloads", "fastgate_config_reloads_total", "counter", ("result",),
         "Attempts to put a configuration in force: applied or refused, rollbacks among them"),
        ("config_ok", "fastgate_config_last_reload_successful", "gauge", (),
         "0 while the last attempt has changed nothing, since the configuration was refused"),
        ("config_routes", "fastgate_config_routes", "gauge", (), "Routes of the configuration"),
        ("config_upstreams", "fastgate_config_upstreams", "gauge", (), "Upstreams of the configuration"),
    ),
    *_group(
        "Processes",
        ("build", "fastgate_build_info", "info", ("version", "python"), "What runs"),
        ("started", "fastgate_start_timestamp_seconds", "gauge", (), "When the gateway was started"),
        ("ready", "fastgate_ready", "gauge", (), "1 when requests should be sent to it, as /readyz tells"),
        ("workers", "fastgate_workers", "gauge", ("state",), "Workers by state"),
        ("restarts", "fastgate_worker_restarts_total", "counter", (),
         "Workers that ended without being told to, and were replaced"),
        ("cpu", "fastgate_process_cpu_seconds_total", "counter", _WORKER,
         "CPU time, user and system; worker: the number of its seat, or supervisor"),
        ("rss", "fastgate_process_resident_memory_bytes", "gauge", _WORKER,
         "Resident memory, what is shared with other processes included"),
        ("fds", "fastgate_process_open_fds", "gauge", _WORKER, "File descriptors that are open"),
        ("max_fds", "fastgate_process_max_fds", "gauge", _WORKER, "How many may be open"),
        ("scrape", "fastgate_scrape_duration_seconds", "gauge", (), "How long it took to gather this text"),
    ),
)  # fmt: skip
BY_KEY: Final = {family.key: family for family in FAMILIES}
