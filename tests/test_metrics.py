"""/metrics: what it says is what happened, in both formats, over all workers, dead ones too."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from support.certificates import issue
from support.client import Client, request
from support.gateway import ROOT, Gateway, config
from support.metrics import ACCEPT, OPENMETRICS, Scrape, scrape, wait_scrape
from support.otlp import Receiver
from support.upstream import Upstream, read_body, reply

from fastgate import _core
from fastgate.telemetry.families import BY_KEY, FAMILIES
from fastgate.telemetry.reference import MARK, markdown
from fastgate.telemetry.text import wants_openmetrics

ADMIN = {"admin": {"bind": "127.0.0.1:0"}}
PLUGIN = """
from fastgate.plugins import Plugin

class Mine(Plugin):
    def provision(self, host):
        self.host = host

    def on_request(self, exchange):
        self.host.count("seen")
"""
PROMTOOL = shutil.which("promtool")


def promtool_accepts(text: str) -> None:
    assert PROMTOOL, "promtool is not installed (Debian: prometheus)"
    checked = subprocess.run(
        [PROMTOOL, "check", "metrics"], input=text, capture_output=True, text=True, timeout=20
    )
    assert checked.returncode == 0, checked.stderr + checked.stdout
    assert not checked.stderr


def test_requests_by_route_method_status_and_reason(tmp_path: Path) -> None:
    odd = 'an "odd" \\ name'
    tables = config(
        upstreams={"up": {"endpoints": ["127.0.0.1:1"]}},
        routes=[
            {"name": odd, "match": {"prefix": "/odd"}, "respond": {"status": 404, "body": "12345"}},
            {"name": "down", "match": {"prefix": "/down"}, "upstream": "up"},
        ],
    )
    with Gateway(tables | ADMIN, tmp_path) as gateway:
        with gateway.client() as client:
            for method in ("GET", "GET", "POST", "PURGE"):
                assert client.request(request(method, "/odd")).status == 404
            assert client.get("/down").status == 502
            assert client.get("/nowhere").status == 404
        gateway.wait_log(count=6)
        found = scrape(gateway)
        promtool_accepts(found.text)
        requests = {
            (s.labels["route"], s.labels["method"], s.labels["status"]): s.value
            for s in found.find("fastgate_requests_total")
        }
        assert requests == {
            (odd, "GET", "4xx"): 2,
            (odd, "POST", "4xx"): 1,
            (odd, "other", "4xx"): 1,
            ("down", "GET", "5xx"): 1,
            ("", "GET", "4xx"): 1,
        }
        assert found.one("fastgate_request_reasons_total", route="down", reason="connect-refused") == 1
        assert found.one("fastgate_request_reasons_total", route="", reason="no-route") == 1
        assert found.one("fastgate_response_body_bytes_total", route=odd) == 20
        assert found.one("fastgate_request_duration_seconds_count", route=odd) == 4
        assert found.one("fastgate_upstream_failures_total", upstream="up") == 1
        assert found.one("fastgate_endpoint_requests_total", upstream="up", result="no-answer") == 1


def test_attempts_of_endpoints_and_time_to_their_heads(tmp_path: Path) -> None:
    with Upstream() as good, Upstream() as bad:
        bad.default = (read_body(), reply(503))
        tables = config(
            [bad.address, good.address],
            upstream_options={
                "retry": {"attempts": 2, "on": ["status"], "statuses": [503]},
                "balance": "round-robin",
                "outlier": {"consecutive_errors": 0, "consecutive_gateway_errors": 0},
            },
        )
        with Gateway(tables | ADMIN, tmp_path) as gateway:
            with gateway.client() as client:
                for _ in range(10):
                    assert client.get("/").status == 200
            gateway.wait_log(count=10)
            found = scrape(gateway)
            failed = len(bad.requests)
            assert failed > 0
            name = "fastgate_endpoint_requests_total"
            assert found.one(name, endpoint=bad.address, result="5xx") == failed
            assert found.one(name, endpoint=bad.address, result="ok") == 0
            assert found.one(name, endpoint=good.address, result="ok") == 10
            assert found.one("fastgate_upstream_attempts_total", upstream="up") == 10 + failed
            assert found.one("fastgate_upstream_retries_total", upstream="up") == failed
            head = "fastgate_endpoint_response_head_seconds"
            assert found.one(f"{head}_count", endpoint=bad.address) == failed
            assert 0 < found.one(f"{head}_sum", endpoint=good.address) < 10
            made = found.one("fastgate_upstream_connections_opened_total", upstream="up")
            assert made >= 2
            assert 1 <= found.one("fastgate_upstream_connect_seconds_count", upstream="up") <= made


def test_states_and_gauges(tmp_path: Path) -> None:
    with Upstream() as upstream, Gateway(config(upstream.address) | ADMIN, tmp_path) as gateway:
        with gateway.client() as client:
            assert client.get("/").status == 200
            found = wait_scrape(
                gateway, lambda now: now.one("fastgate_connections_open") == 1
                and now.one("fastgate_endpoint_connections_idle") == 1
            )  # fmt: skip
        assert found.one("fastgate_upstream_connections_open", upstream="up") == 1
        assert found.one("fastgate_connections_accepted_total") == 1
        assert found.one("fastgate_upstream_breaker_state", upstream="up", state="closed") == 1
        state = "fastgate_endpoint_state"
        assert found.one(state, endpoint=upstream.address, state="ready") == 1
        gateway.admin(f"/upstreams/up/endpoints/{upstream.address}", "PUT", {"state": "draining"})
        found = scrape(gateway)
        assert found.one(state, endpoint=upstream.address, state="ready") == 0
        assert found.one(state, endpoint=upstream.address, state="draining") == 1
        wait_scrape(gateway, lambda now: now.one("fastgate_connections_open") == 0)


def test_a_bucket_names_a_request_that_the_log_has(tmp_path: Path) -> None:
    with Upstream() as upstream, Gateway(config(upstream.address) | ADMIN, tmp_path) as gateway:
        with gateway.client() as client:
            for _ in range(20):
                assert client.get("/").status == 200
        logged = {record["request_id"]: record for record in gateway.wait_log(count=20)}
        found = scrape(gateway, ACCEPT)
        assert found.text.endswith("\n# EOF\n")
        exemplars = [
            sample.exemplar
            for sample in found.find("fastgate_request_duration_seconds_bucket", route="all")
            if sample.exemplar is not None
        ]
        assert exemplars
        for exemplar in exemplars:
            record = logged[exemplar.labels["request_id"]]
            assert exemplar.value == pytest.approx(record["time_total"], abs=2e-6)
            assert abs(float(exemplar.timestamp) - time.time()) < 60
        # The plain format has none.
        assert "# {" not in scrape(gateway).text


def test_an_exemplar_is_the_trace_where_there_is_one() -> None:
    counters = _core.Counters(["a"], [])
    counters.count(
        _core.SampleExchange(
            status=200,
            route_index=0,
            total_ns=3_000_000,
            request_id="r",
            trace_id="ab" * 16,
            start_unix_ns=10**18,
        )
    )
    text = _core.MetricsText(counters, {key: key for key in _core.METRIC_FAMILIES})
    text.begin(openmetrics=True)
    text.add_routes(["a"])
    assert f'# {{trace_id="{"ab" * 16}"}} 0.003 1000000000.003'.encode() in text.join(["total"])
    text.begin(openmetrics=False)
    text.add_routes(["a"])
    assert b"#" not in text.join(["total"]), "nothing is left of the scrape before"


def shows(total: int, now: Scrape) -> bool:
    """So many requests, each on a connection of its own, 20 of which are open."""
    return (
        now.one("fastgate_connections_open") == 20
        and now.sum("fastgate_plugin_decisions_total", decision="seen") == total
        and now.one("fastgate_connections_accepted_total") == total
    )


def restarted(times: int, now: Scrape) -> bool:
    return now.one("fastgate_worker_restarts_total") == times


def test_traces_that_were_counted_stay_counted(tmp_path: Path) -> None:
    """Also when a worker takes the place in shared memory that a dead one had: one has three of them."""
    with Receiver() as receiver, Upstream() as upstream:
        tables = config(upstream.address, server={"workers": 1}) | {
            "tracing": {
                "endpoint": f"{receiver.url}/v1/traces",
                "sample": 1,
                "flush_interval": "50ms",
            }
        }
        with Gateway(tables | ADMIN, tmp_path) as gateway:
            for turn in range(1, 5):
                with gateway.client() as client:
                    assert client.get("/").status == 200
                wait_scrape(gateway, partial(traced, turn))
                os.kill(gateway.workers[-1], signal.SIGKILL)
                gateway.wait_workers(turn + 1)
            wait_scrape(gateway, partial(traced, 4))


def traced(times: int, now: Scrape) -> bool:
    told = [now.one(f"fastgate_traces_{what}_total") for what in ("sampled", "exported", "dropped")]
    return told == [times, times, 0]


def test_counts_outlive_the_workers_that_made_them(tmp_path: Path) -> None:
    """What counts up does not go backwards; what a dead worker had open is not there any more."""
    (tmp_path / "mine.py").write_text(PLUGIN)
    tables = config(
        route={"respond": {"body": "ok"}, "plugins": ["mine"]},
        plugins={"mine": {"use": "./mine.py"}},
        server={"workers": 2},
    )
    with Gateway(tables | ADMIN, tmp_path) as gateway:
        total = 0
        for turn in range(2):
            victim = gateway.workers[turn]
            clients = [gateway.client() for _ in range(20)]
            for client in clients:
                assert client.get("/").status == 200
                total += 1
            before = wait_scrape(gateway, partial(shows, total))
            assert before.sum("fastgate_requests_total", route="all") == total
            os.kill(victim, signal.SIGKILL)
            gateway.wait_stderr(f"fastgate: worker {1 + turn} (pid {victim}) was ended by SIGKILL")
            after = wait_scrape(gateway, partial(restarted, turn + 1))
            assert after.sum("fastgate_requests_total", route="all") == total
            assert after.one("fastgate_plugin_decisions_total", plugin="mine", decision="seen") == total
            assert after.one("fastgate_connections_accepted_total") == total
            assert after.one("fastgate_connections_open") < 20
            for client in clients:
                client.close()
            wait_scrape(gateway, lambda now: now.one("fastgate_workers", state="serving") == 2)
        assert {s.labels["worker"] for s in after.find("fastgate_process_open_fds")} <= {
            "supervisor",
            "1",
            "2",
        }
        assert after.one("fastgate_process_cpu_seconds_total", worker="supervisor") > 0
        assert after.one("fastgate_process_resident_memory_bytes", worker="supervisor") > 1e6


def test_configurations_and_routes_that_go(tmp_path: Path) -> None:
    def tables(*names: str) -> dict[str, Any]:
        routes = [{"name": n, "match": {"prefix": f"/{n}"}, "respond": {"body": n}} for n in names]
        return config(routes=routes) | ADMIN

    with Gateway(tables("a", "b"), tmp_path) as gateway:
        with gateway.client() as client:
            assert client.get("/a").status == client.get("/b").status == 200
        gateway.wait_log(count=2)
        gateway.reload(tables("b"))
        gateway.not_reload(text="nonsense = 1")
        found = scrape(gateway)
        assert found.find("fastgate_requests_total", route="a") == []
        assert found.one("fastgate_requests_total", route="b") == 1
        assert found.one("fastgate_config_version") == 2
        assert found.one("fastgate_config_reloads_total", result="applied") == 1
        assert found.one("fastgate_config_reloads_total", result="refused") == 1
        assert found.one("fastgate_config_last_reload_successful") == 0
        assert found.one("fastgate_config_routes") == 1
        gateway.reload(tables("a", "b"))
        found = scrape(gateway)
        assert found.one("fastgate_config_last_reload_successful") == 1
        assert found.one("fastgate_requests_total", route="a") == 1


def test_a_listener_of_its_own_has_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("0123456789abcdef")
    tables = config(route={"respond": {"body": "ok"}}) | {
        "metrics": {"bind": "127.0.0.1:0", "token": {"file": "token"}}
    }
    with Gateway(tables, tmp_path) as gateway:
        assert "admin API" not in gateway.addresses
        with Client(gateway.addresses["metrics"]) as client:
            assert client.request(request("GET", "/metrics", host="localhost")).status == 401
        token = ("Authorization: Bearer 0123456789abcdef",)
        for path, status in (("/metrics", 200), ("/version", 404), ("/", 404)):
            with Client(gateway.addresses["metrics"]) as client:
                answer = client.request(request("GET", path, host="localhost", lines=token))
                assert answer.status == status
        # It goes and comes with the configuration.
        gateway.reload(config(route={"respond": {"body": "ok"}}))
        with pytest.raises(OSError, match="refused"):
            Client(gateway.addresses["metrics"])


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        (ACCEPT, True),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", True),
        ("application/openmetrics-text;q=0.2, text/plain;q=0.8", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=nonsense", False),
        ("Application/OpenMetrics-Text ; Q=0.9,text/html", True),
    ],
)
def test_which_format_is_sent(accept: str, wanted: bool) -> None:
    assert wants_openmetrics(accept) is wanted


def test_openmetrics_is_told_by_its_type(tmp_path: Path) -> None:
    with Gateway(config(route={"respond": {"body": "ok"}}) | ADMIN, tmp_path) as gateway:
        found = scrape(gateway, OPENMETRICS)
        assert found.families["fastgate_build"].type == "info"
        assert found.families["fastgate_connections_accepted"].type == "counter"
        assert found.families["fastgate_process_resident_memory_bytes"].unit == "bytes"


def test_endpoints_beyond_the_room_are_counted_together(tmp_path: Path) -> None:
    """Nobody listens at any of them, and each request tries one."""
    count = 2100
    endpoints = [f"127.0.0.1:{port}" for port in range(1, count + 1)]
    with Gateway(config(endpoints, upstream_options={"balance": "round-robin"}) | ADMIN, tmp_path) as gateway:
        with gateway.client() as client:
            for _ in range(count):
                assert client.get("/").status == 502
        found = scrape(gateway)
        name = "fastgate_endpoint_requests_total"
        places = {s.labels["endpoint"] for s in found.find(name)}
        assert len(places) == 2048
        assert found.one(name, upstream="", endpoint="other", result="no-answer") > 10
        assert found.sum(name, result="no-answer") == count


def test_certificates_tell_their_end(tmp_path: Path) -> None:
    issued = issue("CN=a.example", x509.DNSName("a.example"), server=True)
    (tmp_path / "cert.pem").write_text(issued.pem)
    (tmp_path / "key.pem").write_text(issued.key_pem)
    tables = config(
        route={"respond": {"body": "ok"}},
        listener={"tls": {"certificates": [{"cert": "cert.pem", "key": "key.pem"}]}},
    )
    with Gateway(tables | ADMIN, tmp_path) as gateway:
        context = ssl.create_default_context(cadata=issued.pem)
        address = gateway.address
        assert not isinstance(address, str)
        for name, fails in (("a.example", False), ("b.example", True)):
            with socket.create_connection(address, 5) as sock:
                try:
                    context.wrap_socket(sock, server_hostname=name).close()
                except ssl.SSLError:
                    assert fails
        found = wait_scrape(gateway, lambda now: now.one("fastgate_tls_handshakes_total") >= 1)
        expiry = found.one("fastgate_certificate_expiry_timestamp_seconds", listener="main", name="a.example")
        assert expiry == issued.certificate.not_valid_after_utc.timestamp()


def test_names_keep_to_the_conventions() -> None:
    assert len({family.name for family in FAMILIES}) == len(FAMILIES) == len(BY_KEY)
    for family in FAMILIES:
        assert family.name.startswith("fastgate_")
        assert (family.kind == "counter") == family.name.endswith("_total")
        assert (family.kind == "info") == family.name.endswith("_info")
        if family.kind == "histogram":
            assert family.name.endswith("_seconds")
        assert not family.help.endswith(".")
    assert set(_core.METRIC_FAMILIES) | set(_core.GAUGES) <= set(BY_KEY)


def test_the_page_lists_every_family() -> None:
    written = (ROOT / "docs/metrics.md").read_text().partition(MARK)[2]
    assert written == markdown(), "python -m fastgate.telemetry.reference docs/metrics.md"
