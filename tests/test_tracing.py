"""Spans: which requests have them, how they hang together, and how they reach a receiver, or don't."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from conftest import StartGateway
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from support import upstream as up
from support.client import request
from support.gateway import Gateway, config
from support.otlp import Receiver, attributes
from support.upstream import Upstream, free_port
from support.wire import Response

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
FAST = {"backoff_base": "1ms", "backoff_max": "1ms"}
SERVER, CLIENT = Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT

PLUGIN = '''
"""A plugin that asks another upstream, and answers if it is told to."""

from fastgate.plugins import Exchange, Plugin, Response


class Asking(Plugin):
    async def on_request(self, exchange: Exchange) -> Response | None:
        if exchange.request.headers.get("x-ask"):
            await exchange.subrequest("up", path="/asked")
        if exchange.request.headers.get("x-gather"):
            async with exchange.gather() as g:
                g.get("retried", "/gathered", type=None)
        return Response(403) if exchange.request.headers.get("x-no") else None
'''


def tables(upstream: str, receiver: str, **tracing: Any) -> dict[str, Any]:
    dead = f"127.0.0.1:{free_port()}"
    return config(
        upstreams={
            "up": {"endpoints": [upstream]},
            "retried": {
                "endpoints": [upstream],
                "retry": {
                    "attempts": 3,
                    "on": ["connect-failure", "reset", "status"],
                    "statuses": [503],
                    **FAST,
                },
            },
            "dead": {"endpoints": [dead], "retry": {"attempts": 2, "on": ["connect-failure"], **FAST}},
        },
        routes=[
            {"name": "retried", "match": {"prefix": "/retried"}, "upstream": "retried"},
            {"name": "dead", "match": {"path": "/dead/{id}"}, "upstream": "dead"},
            {
                "name": "mirrored",
                "match": {"prefix": "/mirrored"},
                "upstream": "up",
                "mirror": {"upstream": "retried", "percent": 100},
            },
            {
                "name": "plugins",
                "match": {"prefix": "/plugins"},
                "upstream": "up",
                "plugins": ["office", "asking"],
            },
            {"name": "regex", "match": {"regex": "/x.*"}, "upstream": "up"},
            {"name": "seldom", "match": {"prefix": "/seldom"}, "upstream": "up", "trace_sample": 0.0},
            {"name": "all", "match": {"prefix": "/all"}, "upstream": "up"},
        ],
        listener={"trusted_proxies": ["127.0.0.0/8"]},
        plugins={
            "office": {"use": "ip-filter", "allow": ["127.0.0.0/8"]},
            "asking": {"use": "./asking.py:Asking"},
        },
        access_log={"redact_query": ["token"]},
    ) | {
        "tracing": {
            "endpoint": receiver,
            "sample": 1.0,
            "flush_interval": "10ms",
            "service_name": "shop",
            "headers": {"x-key": "k1"},
            **tracing,
        },
    }


class Place:
    def __init__(self, gateway: Gateway, upstream: Upstream, receiver: Receiver) -> None:
        self.gateway = gateway
        self.upstream = upstream
        self.receiver = receiver

    def ask(self, target: str, *lines: str, method: str = "GET") -> Response:
        with self.gateway.client() as client:
            return client.request(request(method, target, lines=lines))

    def traced(
        self, target: str, count: int, *lines: str, method: str = "GET"
    ) -> tuple[Response, list[Span]]:
        """A request that is a part of a trace of its own, and the spans of it."""
        trace = f"{time.monotonic_ns():032x}"
        answer = self.ask(target, f"traceparent: 00-{trace}-{PARENT}-01", *lines, method=method)
        return answer, self.receiver.wait_trace(trace, count)


@pytest.fixture(scope="module")
def place(module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with ExitStack() as stack:
        receiver = stack.enter_context(Receiver())
        directory = tmp_path_factory.mktemp("gateway")
        (directory / "asking.py").write_text(PLUGIN)
        gateway = stack.enter_context(Gateway(tables(module_upstream.address, receiver.url), directory))
        yield Place(gateway, module_upstream, receiver)


def names(span: Span) -> list[str]:
    return [event.name for event in span.events]


def test_an_exchange_and_its_attempt(place: Place, upstream: Upstream) -> None:
    mark = upstream.mark()
    upstream.script(up.reply(201, b"made"))
    answer, (server, client) = place.traced("/all/7?a=1&token=hunter2", 2, "User-Agent: test/1")
    assert answer.status == 201
    assert (server.kind, server.name) == (SERVER, "GET /all")
    assert server.parent_span_id.hex() == PARENT
    found = attributes(server)
    assert found["http.request.method"] == "GET"
    assert found["http.route"] == "/all"
    assert found["http.response.status_code"] == 201
    assert found["server.address"] == "test.example"
    assert found["url.scheme"] == "http"
    assert found["url.path"] == "/all/7"
    assert found["url.query"] == "a=1&token=[redacted]"
    assert found["network.protocol.version"] == "1.1"
    assert found["client.address"] == "127.0.0.1"
    assert found["user_agent.original"] == "test/1"
    assert found["http.response.body.size"] == 4
    assert (found["fastgate.route"], found["fastgate.upstream"]) == ("all", "up")
    assert "error.type" not in found
    assert server.status.code == server.status.STATUS_CODE_UNSET
    assert names(server) == ["matched", "endpoint chosen", "answering"]
    assert (client.kind, client.name) == (CLIENT, "GET")
    assert client.parent_span_id == server.span_id
    sent = mark.one()
    # What the endpoint was told is the attempt, not the exchange.
    assert sent.get("traceparent") == f"00-{server.trace_id.hex()}-{client.span_id.hex()}-01"
    assert sent.get("x-request-id") == found["fastgate.request_id"]
    at = attributes(client)
    host, _, port = upstream.address.rpartition(":")
    assert (at["server.address"], at["server.port"]) == (host, int(port))
    assert at["http.response.status_code"] == 201
    assert names(client)[-2:] == ["request sent", "response head"]
    for span in (server, client):
        times = [span.start_time_unix_nano, *(event.time_unix_nano for event in span.events)]
        assert times == sorted(times)
        assert times[-1] <= span.end_time_unix_nano
    assert server.start_time_unix_nano <= client.start_time_unix_nano
    assert client.end_time_unix_nano <= server.end_time_unix_nano
    assert abs(server.start_time_unix_nano - time.time_ns()) < 60e9


def test_the_resource_and_the_fields_of_an_export(place: Place, upstream: Upstream) -> None:
    upstream.script(up.reply())
    place.traced("/all", 2)
    fields, message = place.receiver.requests[-1]
    (resource,) = message.resource_spans
    assert attributes(resource.resource)["service.name"] == "shop"
    assert fields["x-key"] == "k1"
    assert fields["content-type"] == "application/x-protobuf"
    assert resource.scope_spans[0].scope.name == "fastgate"


def test_a_trace_that_begins_here(place: Place, upstream: Upstream) -> None:
    mark = upstream.mark()
    upstream.script(up.reply())
    place.ask("/all")
    trace, span = mark.one().all("traceparent")[0].split("-")[1:3]
    server, client = place.receiver.wait_trace(trace, 2)
    assert (server.parent_span_id, client.span_id.hex()) == (b"", span)


def test_who_is_not_sampled_has_no_spans(place: Place, upstream: Upstream) -> None:
    mark = upstream.mark()
    for _ in range(2):
        upstream.script(up.reply())
    place.ask("/all", f"traceparent: 00-{TRACE}-{PARENT}-00")
    place.ask("/seldom")
    upstream.script(up.reply())
    place.traced("/all", 2)  # what came before it would be here by now
    unsampled, seldom, _ = mark.requests
    assert unsampled.all("traceparent") == [f"00-{TRACE}-{PARENT}-00"]
    assert place.receiver.trace(TRACE) == []
    assert place.receiver.trace(seldom.all("traceparent")[0].split("-")[1]) == []


def test_each_retry_is_an_attempt(place: Place, upstream: Upstream) -> None:
    mark = upstream.mark()
    upstream.script(up.reply(503, b"no")).script(up.reset()).script(up.reply(200, b"at last"))
    answer, (server, *attempts) = place.traced("/retried", 4)
    assert answer.status == 200
    assert [attributes(each).get("http.response.status_code") for each in attempts] == [503, None, 200]
    assert [attributes(each).get("error.type") for each in attempts] == ["503", "upstream-reset", None]
    assert [attributes(each).get("http.request.resend_count") for each in attempts] == [None, 1, 2]
    assert {each.parent_span_id for each in attempts} == {server.span_id}
    sent = [found.all("traceparent")[0].split("-")[2] for found in mark.requests]
    assert sent == [each.span_id.hex() for each in attempts]
    assert attributes(server)["fastgate.attempts"] == 3
    ends = [each.end_time_unix_nano for each in attempts]
    assert ends == sorted(ends)


def test_what_fails_says_why(place: Place) -> None:
    answer, (server, *attempts) = place.traced("/dead/7", 3)
    assert answer.status == 502
    assert server.name == "GET /dead/{id}"
    found = attributes(server)
    assert (found["error.type"], found["http.response.status_code"]) == ("connect-refused", 502)
    assert server.status.code == server.status.STATUS_CODE_ERROR
    assert [attributes(each)["error.type"] for each in attempts] == ["connect-refused"] * 2
    assert all(each.status.code == each.status.STATUS_CODE_ERROR for each in attempts)
    assert [names(each) for each in attempts] == [[], []]  # neither connected nor sent


def test_no_route(place: Place) -> None:
    answer, (server,) = place.traced("/nowhere", 1, method="PROPFIND")
    assert answer.status == 404
    found = attributes(server)
    assert found["fastgate.reason"] == "no-route"
    assert "http.route" not in found
    assert "error.type" not in found  # a client's mistake
    assert (server.name, found["http.request.method"]) == ("HTTP", "_OTHER")
    assert found["http.request.method_original"] == "PROPFIND"


def test_a_regex_is_no_route_pattern(place: Place, upstream: Upstream) -> None:
    upstream.script(up.reply())
    _, (server, _) = place.traced("/x-rest", 2)
    assert server.name == "GET"
    assert attributes(server)["fastgate.route"] == "regex"


def test_filters_and_plugins_are_events(place: Place, upstream: Upstream) -> None:
    answer, (server,) = place.traced("/plugins", 1, "X-No: 1")
    assert answer.status == 403
    events = {event.name: attributes(event) for event in server.events}
    assert events["filter"]["fastgate.name"] == "office"
    assert events["filter"]["fastgate.duration"] >= 0
    assert events["plugin"]["fastgate.name"] == "asking"
    assert events["plugin"]["fastgate.verdict"] == "answered"
    assert events["plugin"]["fastgate.duration"] > 0


def test_a_subrequest_is_a_span_of_the_exchange(place: Place, upstream: Upstream) -> None:
    mark = upstream.mark()
    upstream.script(up.reply()).script(up.reply())
    _, spans = place.traced("/plugins", 3, "X-Ask: 1", "tracestate: a=1")
    asked, forwarded = mark.requests
    assert asked.all("tracestate") == forwarded.all("tracestate") == ["a=1"]
    (server,) = (span for span in spans if span.kind == SERVER)
    by_id = {span.span_id.hex(): span for span in spans}
    of_asked = by_id[asked.all("traceparent")[0].split("-")[2]]
    of_forwarded = by_id[forwarded.all("traceparent")[0].split("-")[2]]
    assert of_asked.parent_span_id == of_forwarded.parent_span_id == server.span_id
    assert attributes(of_asked)["fastgate.kind"] == "subrequest"
    assert "fastgate.kind" not in attributes(of_forwarded)


def test_each_retry_of_a_part_is_an_attempt(place: Place, upstream: Upstream) -> None:
    mark = upstream.mark()
    upstream.script(up.reply(503)).script(up.reply()).script(up.reply())
    _, spans = place.traced("/plugins", 4, "X-Gather: 1")
    (server,) = (span for span in spans if span.kind == SERVER)
    tries = [span for span in spans if attributes(span).get("fastgate.kind") == "subrequest"]
    tries.sort(key=lambda span: span.start_time_unix_nano)
    assert {span.parent_span_id for span in tries} == {server.span_id}
    assert [attributes(span)["http.response.status_code"] for span in tries] == [503, 200]
    assert [attributes(span).get("http.request.resend_count") for span in tries] == [None, 1]
    sent = {one.all("traceparent")[0].split("-")[2] for one in mark.requests if one.target == "/gathered"}
    assert sent == {span.span_id.hex() for span in tries}


def test_a_mirror_is_a_span_of_the_exchange(place: Place, upstream: Upstream) -> None:
    mark = upstream.mark()
    upstream.script(up.reply()).script(up.reply())
    _, spans = place.traced("/mirrored", 3)
    (server,) = (span for span in spans if span.kind == SERVER)
    kinds = {attributes(span).get("fastgate.kind") for span in spans if span.kind == CLIENT}
    assert kinds == {"mirror", None}
    assert {span.parent_span_id for span in spans if span.kind == CLIENT} == {server.span_id}
    sent = {found.all("traceparent")[0].split("-")[2] for found in mark.wait(2)}
    assert sent == {span.span_id.hex() for span in spans if span.kind == CLIENT}


def test_a_hedge_is_a_second_attempt(upstream: Upstream, start_gateway: StartGateway) -> None:
    held = threading.Event()
    options = {"hedge": {"min_delay": "1ms", "quantile": 50, "max_percent": 100}, "pool": {"max_idle": 0}}
    with Receiver() as receiver, Upstream() as other:
        gateway = start_gateway(
            config([upstream.address, other.address], upstream_options=options)
            | {"tracing": {"endpoint": receiver.url, "sample": 1.0, "flush_interval": "10ms"}}
        )
        with gateway.client() as client:
            for _ in range(30):
                assert client.get("/").status == 200
        marked = other.mark()
        for _ in range(50):
            # Whichever of the two is asked first, and on a busy machine the quick one may be late, too.
            upstream.clear()
            upstream.script(up.read_body(), up.wait_for(held), up.reply())
            mark = upstream.mark()
            with gateway.client() as client:
                client.get("/")
            if mark.requests:
                trace = mark.requests[0].all("traceparent")[0].split("-")[1]
                server, late, quick = receiver.wait_trace(trace, 3)
                if attributes(late).get("fastgate.detail") == "its hedge was first":
                    break
        held.set()
        upstream.clear()
        assert {late.parent_span_id, quick.parent_span_id} == {server.span_id}
        assert attributes(quick)["fastgate.hedge"] is True
        assert attributes(late)["fastgate.detail"] == "its hedge was first"
        assert "http.response.status_code" not in attributes(late)
        assert attributes(quick)["http.response.status_code"] == 200
        assert quick.span_id.hex() in {found.all("traceparent")[0].split("-")[2] for found in marked.requests}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.text(st.characters(codec="ascii", exclude_characters=" #?%\\"), max_size=30),
    query=st.binary(max_size=40),
    agent=st.binary(max_size=60),
)
def test_whatever_a_client_sends_is_a_sound_span(place: Place, path: str, query: bytes, agent: bytes) -> None:
    """Or no span: what is refused as no HTTP has none."""
    place.upstream.clear()
    agent = bytes(byte for byte in agent if byte >= 32 and byte != 127).strip()
    query = bytes(byte for byte in query if 33 <= byte < 127 and byte not in b"#%")
    trace = f"{time.monotonic_ns():032x}"
    visible = "".join(c for c in path if c.isprintable())
    head = (
        f"GET /all/{visible}?".encode() + query + b" HTTP/1.1\r\nHost: test.example\r\nUser-Agent: " + agent
    )
    head += f"\r\ntraceparent: 00-{trace}-{PARENT}-01\r\n\r\n".encode()
    with place.gateway.client() as client:
        answer = client.request(head)
    if answer.status == 200:
        server, _ = place.receiver.wait_trace(trace, 2)
        said = attributes(server).get("user_agent.original", "")
        assert said in (agent.decode("utf-8", "replace"), agent.decode("latin-1")) or not agent.isascii()
        assert attributes(server).get("url.query", "") == query.decode()


# -- receivers that fail


def counted(gateway: Gateway) -> tuple[int, int]:
    gauges = gateway.admin("/counters")["gauges"]
    return gauges["traces_exported"], gauges["traces_dropped"]


def wait_counted(gateway: Gateway, exported: int, dropped: int) -> None:
    end = time.monotonic() + 15
    while counted(gateway) != (exported, dropped):
        assert time.monotonic() < end, counted(gateway)
        time.sleep(0.05)  # the gateway shows its gauges when it is asked


def start(start_gateway: StartGateway, upstream: Upstream, url: str, **tracing: Any) -> Gateway:
    wanted = {"endpoint": url, "sample": 1.0, "flush_interval": "10ms", **tracing}
    return start_gateway(config(upstream.address, admin={"bind": "127.0.0.1:0"}) | {"tracing": wanted})


def test_an_export_is_tried_again(start_gateway: StartGateway, upstream: Upstream) -> None:
    with Receiver() as receiver:
        receiver.statuses.extend((503, 429))
        gateway = start(start_gateway, upstream, receiver.url)
        with gateway.client() as client:
            client.get("/")
        receiver.wait(lambda: len(receiver.spans) == 2, "two spans")
        assert receiver.refused == 2
        wait_counted(gateway, 1, 0)
        assert "status 503" in gateway.wait_stderr("fastgate: spans can't be exported to")
        gateway.wait_stderr("fastgate: spans are exported to")
        gateway.stderr.clear()


def test_what_is_refused_for_good_is_counted(start_gateway: StartGateway, upstream: Upstream) -> None:
    with Receiver() as receiver:
        receiver.statuses.append(400)
        gateway = start(start_gateway, upstream, receiver.url)
        with gateway.client() as client:
            client.get("/")
            wait_counted(gateway, 0, 1)
            client.get("/")
        wait_counted(gateway, 1, 1)
        assert receiver.refused == 1
        gateway.wait_stderr("fastgate: spans can't be exported to")
        gateway.stderr.clear()


def test_a_receiver_that_takes_a_part(start_gateway: StartGateway, upstream: Upstream) -> None:
    with Receiver() as receiver:
        receiver.rejects = 1
        gateway = start(start_gateway, upstream, receiver.url)
        with gateway.client() as client:
            client.get("/")
        wait_counted(gateway, 0, 1)


def test_a_receiver_that_hangs_holds_nobody_up(start_gateway: StartGateway, upstream: Upstream) -> None:
    with Receiver() as receiver:
        receiver.hold = threading.Event()
        gateway = start(start_gateway, upstream, receiver.url, queue=5, batch=2, timeout="30s")
        with gateway.client() as client:
            client.get("/")
            receiver.wait(lambda: receiver.begun == 1, "a request, which it does not answer")
            for _ in range(50):
                assert client.get("/").status == 200
        wait_counted(gateway, 0, 45)
        receiver.hold.set()
        wait_counted(gateway, 6, 45)
        sizes = [len(m.resource_spans[0].scope_spans[0].spans) for _, m in receiver.requests]
        assert max(sizes) == 4  # two exchanges, each with its attempt


def test_what_waits_is_sent_at_the_end(start_gateway: StartGateway, upstream: Upstream) -> None:
    with Receiver() as receiver:
        gateway = start(start_gateway, upstream, receiver.url, flush_interval="1h")
        with gateway.client() as client:
            client.get("/")
        assert receiver.requests == []
        gateway.stop()
        assert len(receiver.spans) == 2


def test_a_reload_changes_the_receiver(start_gateway: StartGateway, upstream: Upstream) -> None:
    with Receiver() as first, Receiver() as second:
        gateway = start(start_gateway, upstream, first.url, flush_interval="1h")
        with gateway.client() as client:
            client.get("/")
            tables = dict(gateway.tables)
            tables["tracing"] = {"endpoint": second.url, "sample": 1.0, "flush_interval": "10ms"}
            gateway.reload(tables)
            first.wait(lambda: len(first.spans) == 2, "what was sampled before")
            client.get("/")
            second.wait(lambda: len(second.spans) == 2, "what was sampled since")
            del tables["tracing"]
            gateway.reload(tables)
            mark = upstream.mark()
            client.get("/")
            assert mark.one().all("traceparent") == []
    assert (len(first.spans), len(second.spans)) == (2, 2)


def test_every_worker_exports(start_gateway: StartGateway, upstream: Upstream) -> None:
    with Receiver() as receiver:
        wanted = {"endpoint": receiver.url, "sample": 1.0, "flush_interval": "10ms"}
        gateway = start_gateway(config(upstream.address, server={"workers": 2}) | {"tracing": wanted})
        for _ in range(200):
            with gateway.client() as client:
                client.get("/")

        def pids() -> set[int]:
            return {
                attributes(resource.resource)["process.pid"]
                for _, message in list(receiver.requests)
                for resource in message.resource_spans
            }

        receiver.wait(lambda: pids() == set(gateway.workers), "spans of both")


def test_what_tracing_needs_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastgate.config import ConfigError, loads, rules

    text = '[[listeners]]\nbind = ":0"\n[tracing]\nendpoint = "http://127.0.0.1:4318"\n'
    assert loads(text).config.tracing is not None
    monkeypatch.setattr(rules, "_installed", lambda module: False)
    with pytest.raises(ConfigError, match="pip install 'fastgate\\[otlp\\]'"):
        loads(text)
