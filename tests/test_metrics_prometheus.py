"""A real Prometheus scrapes a loaded gateway: it takes all of it, and the dashboard and the alerts that ship
find what they ask for."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography import x509
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from support.certificates import issue
from support.client import request
from support.gateway import ROOT, Gateway, config
from support.metrics import ACCEPT, scrape
from support.otlp import Receiver
from support.program import installed
from support.prometheus import Prometheus
from support.upstream import Upstream, reply

EXAMPLES = ROOT / "examples"
PLUGIN = """
from fastgate.plugins import Plugin

class Mine(Plugin):
    def provision(self, host):
        self.host = host

    def on_request(self, exchange):
        self.host.count("seen")
"""


SCRAPE = """
scrape_configs:
  - job_name: fastgate
    scrape_interval: 200ms
    static_configs: [{{ targets: ["{target}"] }}]
"""


class Scene(NamedTuple):
    gateway: Gateway
    prometheus: Prometheus


PART = {"upstream": "good", "path": "/part", "target": "method", "decode": "json"}


def tables(service: str, closing: str, storage: str) -> dict[str, Any]:
    """Each family has something to tell: requests that queue, connections that are always new, and some that
    fail, and TLS."""
    return config(
        listeners=[
            {"name": "main", "bind": "127.0.0.1:0"},
            {
                "name": "secure",
                "bind": "127.0.0.1:0",
                "tls": {
                    "certificates": [{"cert": "cert.pem", "key": "key.pem"}],
                    "acme": "away",
                    "domains": ["b.example"],
                },
            },
        ],
        upstreams={
            "good": {
                "endpoints": [service],
                "pool": {"max_connections": 1, "queue": 100},
                "retry": {"attempts": 2},
            },
            "closing": {"endpoints": [closing]},
            "bad": {"endpoints": ["127.0.0.1:1"], "retry": {"attempts": 2}},
        },
        routes=[
            {"name": "good", "match": {"prefix": "/good"}, "upstream": "good", "plugins": ["mine"]},
            {"name": "closing", "match": {"prefix": "/closing"}, "upstream": "closing"},
            {"name": "bad", "match": {"prefix": "/bad"}, "upstream": "bad"},
            {
                "name": "page",
                "match": {"path": "/page"},
                "aggregate": {"answer": "list", "parts": {"a": PART, "b": PART}},
            },
        ],
        plugins={"mine": {"use": "./mine.py"}},
        server={"workers": 2},
        access_log={"enabled": False},
    ) | {
        "metrics": {"bind": "127.0.0.1:0"},
        # Nobody answers there: a certificate that stays away.
        "acme": {
            "away": {
                "directory": "https://127.0.0.1:1/dir",
                "terms_agreed": True,
                "storage": {"path": storage},
            }
        },
    }


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("metrics")
    issued = issue("CN=a.example", x509.DNSName("a.example"), server=True)
    (folder / "cert.pem").write_text(issued.pem)
    (folder / "key.pem").write_text(issued.key_pem)
    (folder / "mine.py").write_text(PLUGIN)
    (folder / "prometheus-rules.yml").write_text((EXAMPLES / "prometheus-rules.yml").read_text())
    with (
        Upstream(record=False) as service,
        Upstream(record=False) as closing,
        Gateway(tables(service.address, closing.address, str(folder / "acme")), folder) as gateway,
        contextlib.ExitStack() as stack,
    ):
        closing.default = (reply(close_after=True),)
        target = "{}:{}".format(*gateway.addresses["metrics"])
        text = (EXAMPLES / "prometheus.yml").read_text()
        assert "127.0.0.1:9902" in text
        text = text.replace('"127.0.0.1:9902"', f'"{target}"').replace("15s", "500ms")
        ended = threading.Event()
        context = ssl.create_default_context(cadata=issued.pem)
        loads = [
            threading.Thread(target=load, args=(gateway, ended, path))
            for path in ("/good", "/good", "/bad", "/closing", "/page")
        ]
        loads.append(threading.Thread(target=load_tls, args=(gateway, ended, context)))
        for thread in loads:
            thread.start()
            stack.callback(thread.join)
        stack.callback(ended.set)
        with Prometheus(folder, text) as prometheus:
            # Some of these come late: behind the second scrape that has seen the series.
            prometheus.wait("rate(fastgate_plugin_decisions_total[10s]) > 0")
            prometheus.wait("rate(fastgate_upstream_queue_seconds_count[10s]) > 0")
            prometheus.wait("rate(fastgate_request_reasons_total[10s]) > 0")
            yield Scene(gateway, prometheus)


def load(gateway: Gateway, ended: threading.Event, path: str) -> None:
    with gateway.client("main") as client:
        while not ended.wait(0.002):
            client.request(request("GET", path))


def load_tls(gateway: Gateway, ended: threading.Event, context: ssl.SSLContext) -> None:
    address = gateway.addresses["secure"]
    assert not isinstance(address, str)
    while not ended.wait(0.1):
        with (
            socket.create_connection(address, 5) as raw,
            context.wrap_socket(raw, server_hostname="a.example") as sock,
        ):
            sock.sendall(request("POST", "/good", body=b"some body", lines=("Connection: close",)))
            while sock.recv(4096):
                pass


def expressions() -> list[Any]:
    dashboard = json.loads((EXAMPLES / "grafana-dashboard.json").read_text())
    return [
        pytest.param(target["expr"], id=f"{panel['title']}-{target['refId']}")
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
    ]


@pytest.mark.parametrize("expression", expressions())
def test_the_dashboard_finds_what_it_asks_for(expression: str, scene: Scene) -> None:
    for variable in ("job", "instance", "route", "upstream"):
        expression = expression.replace(f'"${variable}"', '".*"')
    expression = expression.replace("$__rate_interval", "10s")
    assert "$" not in expression
    assert scene.prometheus.query(expression), expression


def test_the_dashboards_variables_and_annotation(scene: Scene) -> None:
    dashboard = json.loads((EXAMPLES / "grafana-dashboard.json").read_text())
    queries = [each["query"]["query"] for each in dashboard["templating"]["list"] if each["type"] == "query"]
    assert len(queries) == 4
    for query in queries:
        found = re.fullmatch(r"label_values\((.*), (\w+)\)", query)
        assert found, query
        series = re.sub(r'"\$\w+"', '".*"', found[1])
        assert all(found[2] in labels for labels, _ in scene.prometheus.query(series)), query
    [annotation] = dashboard["annotations"]["list"]
    expression = re.sub(r'"\$\w+"', '".*"', annotation["expr"]).replace("$__interval", "10s")
    scene.prometheus.query(expression)


def test_it_takes_everything_and_keeps_exemplars(scene: Scene) -> None:
    [target] = scene.prometheus.ask("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    names = {name for name in scene.prometheus.ask("label/__name__/values") if name.startswith("fastgate_")}
    listed = set(re.findall(r"^\| `(fastgate_\w+)`", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE))
    told = {re.sub(r"_(bucket|sum|count)$", "", name) for name in names}
    # Whether each family is there, and nothing else is.
    assert told == listed
    exemplars = scene.prometheus.ask(
        "query_exemplars",
        query="fastgate_request_duration_seconds_bucket",
        start="2020-01-01T00:00:00Z",
        end="2100-01-01T00:00:00Z",
    )
    ids = [each["labels"]["request_id"] for series in exemplars for each in series["exemplars"]]
    assert ids
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in ids)


def test_an_exemplar_leads_to_the_trace(tmp_path: Path) -> None:
    """From a bucket that Prometheus keeps to the spans that the receiver of traces has: one id."""
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    with Receiver() as receiver, Upstream() as service:
        made = config(service.address) | {
            "metrics": {"bind": "127.0.0.1:0"},
            "tracing": {
                "endpoint": f"{receiver.url}/v1/traces",
                "trust": "all",
                "sample": 0,
                "flush_interval": "50ms",
            },
        }
        with Gateway(made, tmp_path) as gateway:
            with gateway.client() as client:
                for _ in range(3):  # not sampled
                    assert client.get("/").status == 200
                line = f"traceparent: 00-{trace_id}-00f067aa0ba902b7-01"
                assert client.request(request("GET", "/", lines=(line,))).status == 200
            logged = gateway.wait_log(count=4)[-1]
            found = scrape(gateway.addresses["metrics"], ACCEPT)
            [exemplar] = [
                sample.exemplar
                for sample in found.find("fastgate_request_duration_seconds_bucket", route="all")
                if sample.exemplar is not None and "trace_id" in sample.exemplar.labels
            ]
            assert exemplar.labels == {"trace_id": trace_id}
            assert exemplar.value == pytest.approx(logged["time_total"], abs=2e-6)
            target = "{}:{}".format(*gateway.addresses["metrics"])
            scraped = SCRAPE.format(target=target)
            with Prometheus(tmp_path, scraped) as prometheus:
                prometheus.wait('fastgate_request_duration_seconds_count{route="all"} == 4')
                kept = prometheus.ask(
                    "query_exemplars",
                    query='fastgate_request_duration_seconds_bucket{route="all"}',
                    start="2020-01-01T00:00:00Z",
                    end="2100-01-01T00:00:00Z",
                )
            ids = [each["labels"].get("trace_id") for series in kept for each in series["exemplars"]]
            assert trace_id in ids
            assert {span.kind for span in receiver.wait_trace(trace_id, 2)} == {
                Span.SPAN_KIND_SERVER,
                Span.SPAN_KIND_CLIENT,
            }


def test_alerts_ask_for_what_is_there(scene: Scene) -> None:
    """Each alert's expression without its threshold has a value; and the one for errors is on its way."""
    [group] = scene.prometheus.ask("rules")["groups"]
    for rule in group["rules"]:
        assert rule["health"] in ("ok", "unknown"), rule
        series = re.split(r" (?:==|>|<) [^=<>]*$", rule["query"].strip())[0]
        series = series.replace("[5m]", "[10s]").replace("[10m]", "[10s]").replace("[15m]", "[10s]")
        assert scene.prometheus.query(series), series
    scene.prometheus.wait('ALERTS{alertname="FastgateErrors", route="bad"}')


@pytest.mark.parametrize(("what", "file"), [("config", "prometheus.yml"), ("rules", "prometheus-rules.yml")])
def test_promtool_accepts_the_examples(what: str, file: str) -> None:
    checked = subprocess.run(
        [installed("promtool", "prometheus"), "check", what, file],
        cwd=EXAMPLES,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert checked.returncode == 0, checked.stderr
